"""Writes the generated pages of docs/: `python docs/generate.py`, or `make docs`. A test keeps them current."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from exporter import closecodes, events
from exporter.closecodes import CloseCode, CodeRange
from exporter.metrics import bounds, catalogue
from exporter.metrics.catalogue import KIB, MIB, Metric

HERE: Final = Path(__file__).parent

MEANINGS: Final[Mapping[tuple[str, str], str]] = {
    ("", "source"): (
        "how it was seen: on its way through a `tap`, in a `capture` of its packets, by a `probe` that made it, or in "
        "reports to the `webhook`"
    ),
    ("", "target"): "the service, by its name in the configuration; `default` where none is configured",
    ("", "outcome"): "who decided how an opening handshake ended",
    ("", "status"): (
        "the HTTP status of accepted and rejected handshakes; failed: `refused` (nobody listens), `closed` "
        "(dropped unanswered), `timeout`; refused_by_exporter: `limit`, `draining`"
    ),
    ("", "code"): (
        "the first Close frame's code, and each code that the target lists; `1005` is an empty Close, `1006` no "
        "Close frame, `invalid` a code that must not be on the wire, `reserved` 1016-2999, `3xxx` and `4xxx` all "
        "codes of these ranges that are neither registered nor listed, `unknown` a Close frame that may have been "
        "missed; see [close codes](close-codes.md)"
    ),
    ("", "class"): "what kind of close; a function of target and code, so it adds no series",
    ("", "initiator"): (
        "who sent the first Close frame, or whose end of TCP came first where there was none; `client` and "
        "`server` mean the hop on that side (behind an ingress the client is often the ingress); `exporter` ended "
        "it itself; `unknown` was not told"
    ),
    ("", "side"): "who ended the TCP connection first",
    ("", "direction"): "who sent the message to whom",
    ("", "compressed"): (
        "whether the message was compressed by permessage-deflate: its size on the wire is then not the size that "
        "limits apply to"
    ),
    ("", "peer"): "who answered the Ping",
    ("", "origin"): (
        "how the limit came to be known: `configured` in the target's `limits`; the real one lies between the largest "
        "message that was `accepted` and the smallest that was `rejected`, as far as there were any lately"
    ),
    (catalogue.TRANSPORT_ENDS.name, "kind"): "how TCP ended",
    (catalogue.FRAME_ANOMALIES.name, "kind"): "which rule of RFC 6455 the frame broke",
    (catalogue.EVENTS_DROPPED.name, "reason"): "why the effect was lost",
    (catalogue.UNPARSED_STREAMS.name, "reason"): "why the connection is not understood",
    ("", "evidence"): (
        "what shows that the message was refused for its size: the close was a 1009 (`close_1009`), or the receiver "
        "ended the connection over the largest message yet (`suspected`); never add the two together"
    ),
    ("", "after"): (
        "what kind of close the client comes back after: `going_away`, `abnormal` and `too_big` are the classes of "
        "this name, `other` is all the rest"
    ),
    ("", "verdict"): (
        "how the mass close went on this replica, the first that applies: `moved` (the clients came back elsewhere, or "
        "this exporter was being shut down), `too_few` (under 50 returns: no judgement), `unrecovered` (under 80 % "
        "were back at the end), `amplified` (over twice as many handshakes answered as clients returned, or over 20 % "
        "of them rejected), `herd` (over half of the returns in one second), `healthy`"
    ),
    ("", "build"): "the pattern in the target's `client_builds` that the client's User-Agent fits",
    (catalogue.MASS_CLOSE_RETURNS.name, "within"): "time from the mass close's first close until the service accepted",
    (catalogue.BUILD_RECONNECTS.name, "within"): "time from the client's close to its next opening handshake",
    (catalogue.PROBE_FAILURES.name, "reason"): "why the probe failed; see probe.md",
    ("", "ring"): "`lifecycle` has what begins and ends connections, `size` everything; see capture.md",
    (catalogue.CAPTURE_IGNORED.name, "reason"): "why the packet was not looked at",
    (catalogue.WEBHOOK_EVENTS.name, "result"): "what became of the event",
    (catalogue.WEBHOOK_EVENTS.name, "reason"): "why it was rejected; `none` where it was not; see webhook.md",
    (catalogue.CLOSE_CODE_INFO.name, "name"): "the registered name of the code",
    (catalogue.BUILD_INFO.name, "version"): "the exporter's version",
    (catalogue.LABEL_OVERFLOW.name, "label"): "the name of the label that was folded",
    (catalogue.HTTP_ERRORS.name, "error"): "the error token of the answer, from a fixed set",
}
"""The meaning of each label, by (family, label); the family is "" where all agree."""

_METRICS_INTRO: Final = """\
Every family that `/metrics` serves, beside the usual `process_*` and `python_*`. Durations are seconds, sizes are
bytes. More may be added; none of these is renamed.

## Before you query

- **Never sum over `source`.** Every `websocket_*` family carries `source`, how a connection was seen, and `target`,
  which service it belongs to. A connection seen by the tap and reported by the webhook is one connection, counted
  once under each source. Aggregate `by (job, target, source)`, which sums over replicas and nothing else.
- **Born at zero.** For every source and target in use, the counters and histograms exist at 0 from the start, for
  every value that can be foreseen, so that the first event is an increase which `increase()` and `rate()` see.
  Not foreseen are `reserved` and `unknown` codes and the initiators `exporter` and `unknown`.
- **Bounded.** No client can create series: label values come from fixed sets and from the configuration. Codes that
  are neither registered nor listed share `3xxx` and `4xxx`, other HTTP statuses share `other`, and each folded value
  is counted in `{overflow}`. Addresses, paths, reasons and user agents are in the log line of
  the close, never in labels.
- **Each WebSocket is closed exactly once**: code and initiator are those of the first Close frame; replies to it are
  not counted.
- `job`, `instance`, `namespace`, `pod`, `container`, `service` and `endpoint` belong to Prometheus: no family has
  them.
- There are no `_created` series. `le` is spelled as Prometheus client libraries do: 64 KiB is `65536.0`, 1 MiB is
  `1.048576e+06`.
"""

_CODES_INTRO: Final = """\
What a WebSocket's close code says, when it is really seen, and how to fix it. The same in a terminal:
`websocket-exporter codes`, `websocket-exporter codes 1009`, and two side by side: `websocket-exporter codes 1001 1009`.

Numbers and names are those of RFC 6455 section 7.4 and of IANA's WebSocket Close Code Number Registry.
"""

_CODES_LABELS: Final = """\
## How codes become labels

`{closes}` counts every WebSocket once, by the first Close frame, whoever sent it.

- Registered codes that may be on the wire keep their number. `1005` means that the Close frame was empty, `1006` that
  there was none. As *numbers inside a Close frame* 1005, 1006 and 1015 are illegal, like everything below 1000, 1004,
  and 5000 and above: they count as `invalid`.
- 1016-2999 count as `reserved`. Other codes count as `3xxx` or `4xxx`, unless the target lists them:

```yaml
targets:
  chat:
    codes: [4001, 4404]       # counted by themselves
    going_away_codes: [3001]  # counted by themselves, with class="going_away"
```

- `class` says what kind of close it was. `going_away_codes` may also name a registered code, where a service uses
  1000 or 1011 to say that it restarts.
"""


def render_metrics() -> str:
    """docs/metrics.md: what every family in the catalogue means."""
    own = [metric for metric in catalogue.METRICS if metric.labels[:2] != catalogue.ORIGIN_LABELS]
    others = [metric for metric in catalogue.METRICS if metric not in own]
    return _page(
        "Metrics",
        "exporter/metrics/catalogue.py",
        _METRICS_INTRO.replace("{overflow}", catalogue.LABEL_OVERFLOW.name),
        "## Connections\n",
        *map(_family, others),
        "## About names and the exporter itself\n",
        *map(_family, own),
        "## Labels\n",
        _table(("label", "of", "values", "meaning"), map(_label_row, MEANINGS)),
    )


def render_close_codes() -> str:
    """docs/close-codes.md: everything that is known about every close code."""
    return _page(
        "Close codes",
        "exporter/closecodes.py",
        _CODES_INTRO,
        _table(("code", "name", "class", "meaning"), map(_code_row, closecodes.ENTRIES)),
        _CODES_LABELS.replace("{closes}", catalogue.CLOSES.name),
        _comparison(1001, 1009),
        "## Often confused\n",
        *(f"**{a} and {b}.** {text}\n" for (a, b), text in closecodes.CONTRASTS.items() if (a, b) != (1001, 1009)),
        "## Each code\n",
        *map(_code, closecodes.ENTRIES),
    )


def write(folder: Path = HERE) -> None:
    """Write both pages into `folder`."""
    (folder / "metrics.md").write_text(render_metrics(), encoding="utf-8")
    (folder / "close-codes.md").write_text(render_close_codes(), encoding="utf-8")


def _page(title: str, origin: str, *parts: str) -> str:
    head = f"<!-- Generated by docs/generate.py from {origin}: change that and run `make docs`. -->\n\n# {title}\n"
    return "\n".join((head, *parts))


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = (head, ("---",) * len(head), *(tuple(cell.replace("|", "\\|") for cell in row) for row in rows))
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _code_spans(values: Iterable[str]) -> str:
    return " ".join(f"`{value}`" for value in values)


def _family(metric: Metric) -> str:
    lines = [f"### `{metric.name}`\n", f"{metric.help}\n", f"- type: {metric.type}"]
    lines.append(f"- labels: {_code_spans(metric.labels) or 'none'}")
    if metric.bounds:
        lines.append(f"- buckets: {', '.join(_bucket(metric, value) for value in metric.bounds)}")
    if metric.labels[:2] == catalogue.ORIGIN_LABELS:
        lines.append(f"- series for each source and target: {_most(metric)}")
    return "\n".join(lines) + "\n"


def _most(metric: Metric) -> str:
    if "build" in metric.labels:
        return f"{len(events.BUILD_WITHINS)} for each listed client build"
    listed = f", and {len(events.INITIATORS)} for each listed code" if "code" in metric.labels else ""
    return f"at most {bounds.most_series(metric)}{listed}"


def _bucket(metric: Metric, value: float) -> str:
    if not metric.name.endswith("_bytes"):
        return f"{value:g} s" if metric.name.endswith("_seconds") else f"{value:g}"
    unit, size = next(((u, s) for u, s in (("MiB", MIB), ("KiB", KIB)) if value >= s), ("B", 1))
    return f"{value / size:g} {unit}"


def _label_row(key: tuple[str, str]) -> tuple[str, str, str, str]:
    family, label = key
    values = bounds.VALUES.get(key, ())
    return f"`{label}`", f"`{family}`" if family else "all that have it", _code_spans(values), MEANINGS[key]


def _code_row(entry: CloseCode | CodeRange) -> tuple[str, str, str, str]:
    return entry.span, entry.name, f"`{entry.close_class}`", entry.meaning


def _code(entry: CloseCode | CodeRange) -> str:
    return (
        f"### {entry.span} {entry.name}\n\n{entry.meaning}\n\n"
        f"- **When you see it**: {entry.seen_when}\n- **How to fix it**: {entry.fix}\n"
        f"- **Class**: `{entry.close_class}`\n"
    )


def _comparison(a: int, b: int) -> str:
    left, right = closecodes.lookup(a), closecodes.lookup(b)
    heads = (f"{a} {left.name}", f"{b} {right.name}")
    rows = [("class", f"`{left.close_class}`", f"`{right.close_class}`"), *closecodes.conduct_rows(a, b)]
    return "\n".join(
        (
            f"## {heads[0]} or {heads[1]}?\n",
            closecodes.CONTRASTS[a, b] + "\n",
            _table(("", *heads), rows),
            f"### Which remedy when: {heads[0]}\n",
            _table(("when", "do"), ((remedy.when, remedy.do) for remedy in closecodes.remedies(a))),
            f"### Which remedy when: {heads[1]}\n",
            _table(("when", "do"), ((remedy.when, remedy.do) for remedy in closecodes.remedies(b))),
        )
    )


if __name__ == "__main__":
    write()
