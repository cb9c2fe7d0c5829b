"""Renders the alert rules from their template, the values and the dashboards: `make alerts`.

`python render.py --values my-values.yaml --out FOLDER` renders rules of your own; values that are not named keep their
defaults. It needs PyYAML and Jinja2, and nothing of the exporter.
"""

import argparse
import functools
import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import jinja2
import yaml

HERE: Final = Path(__file__).parent
GRAFANA: Final = HERE.parent / "dashboards/grafana"

OVERVIEW: Final = "websocket-overview"
TOO_BIG: Final = "websocket-too-big"
RECONNECTS: Final = "websocket-reconnects"

SERVICE: Final = ("job", "target", "source")
PANELS: Final[Mapping[str, tuple[str, str, tuple[str, ...]]]] = {
    "WebSocketMessageTooBigSpike": (TOO_BIG, "Closes with 1009 by initiator", SERVICE),
    "WebSocketMessageTooBigSustained": (TOO_BIG, "Closes with 1009 by initiator", SERVICE),
    "WebSocketMessageTooBigFirstSeen": (TOO_BIG, "Closes with 1009 by initiator", SERVICE),
    "WebSocketMessageTooBigLoop": (TOO_BIG, "Refused again within 5 minutes", SERVICE),
    "WebSocketMessageSizeNearLimit": (TOO_BIG, "Messages near the limit", SERVICE),
    "WebSocketReconnectStorm": (RECONNECTS, "Handshakes against connections lost", SERVICE),
    "WebSocketReconnectSurgeAfterRestart": (RECONNECTS, "Handshakes against connections lost", SERVICE),
    "WebSocketReconnectHerd": (RECONNECTS, "Busiest second of the last minute", SERVICE),
    "WebSocketAbnormalCloseSurge": (RECONNECTS, "Closes without a Close frame", SERVICE),
    "WebSocketServiceNotAccepting": (OVERVIEW, "Handshakes not accepted", SERVICE),
    "WebSocketProbeFailing": (OVERVIEW, "Probe connected", ("job", "target")),
    "WebSocketProbeStalled": (OVERVIEW, "Since the probe's last run", ("job", "target")),
    "WebSocketTapConnectionLimit": (OVERVIEW, "Connections beside the limit", ("job",)),
    "WebSocketCaptureDown": (OVERVIEW, "Captures by replica", ("job", "target")),
    "WebSocketCaptureLosing": (OVERVIEW, "Packets dropped by ring", ("job",)),
    "WebSocketEventsRejected": (OVERVIEW, "Reported events", ("job",)),
    "WebSocketStorageFailing": (OVERVIEW, "Failed commits (1 h)", ("job",)),
    "WebSocketEventIdsForgotten": (OVERVIEW, "Memory of ids", ("job",)),
    "WebSocketExporterDown": (OVERVIEW, "Exporter up", ("job",)),
}
"""Alert -> the dashboard and the panel that show what it watches, and the labels that choose what is shown there."""

SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
WORDS: Final = {"s": "second", "m": "minute", "h": "hour", "d": "day"}


class ValuesError(Exception):
    """What is wrong with a values file, in one sentence."""


def seconds(duration: str) -> int:
    """The seconds of a duration such as `5m`."""
    return int(duration[:-1]) * SECONDS[duration[-1]]


def words(duration: str) -> str:
    """A duration as people write it: `5m` is `5 minutes`."""
    count = int(duration[:-1])
    return f"{count} {WORDS[duration[-1]]}{'' if count == 1 else 's'}"


def span(duration: str) -> str:
    """A duration after `the last`: `5m` is `5 minutes`, `1h` is `hour`."""
    return words(duration).removeprefix("1 ")


def minus(longer: str, shorter: str) -> str:
    """The difference of two durations, in the largest unit that keeps it whole."""
    left = seconds(longer) - seconds(shorter)
    unit = next(unit for unit in "dhms" if left % SECONDS[unit] == 0)
    return f"{left // SECONDS[unit]}{unit}"


def read_values(path: Path, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """`defaults` with what the file at `path` says instead.

    Raises ValuesError for a key that there is not, and for a value of another kind than its default.
    """
    given = yaml.safe_load(path.read_text(encoding="utf-8"))
    return dict(_merged({} if given is None else given, defaults, ""))


def _merged(given: object, defaults: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    if not isinstance(given, dict):
        raise ValuesError(f"{prefix.rstrip('.') or 'the file'} must be a mapping")
    for key in given.keys() - defaults.keys():
        raise ValuesError(f"there is no value {prefix}{key}")
    for key, default in defaults.items():
        name, value = prefix + key, given.get(key, default)
        if isinstance(default, dict):
            value = dict(_merged(value, default, f"{name}."))
        elif isinstance(default, str) and re.fullmatch(r"\d+[smhd]", default):
            if not isinstance(value, str) or not re.fullmatch(r"[1-9]\d*[smhd]", value):
                raise ValuesError(f"{name} must be a duration such as {default}")
        elif isinstance(default, str):
            if not isinstance(value, str) or not re.fullmatch(r"https?://\S+[^\s/]", value):
                raise ValuesError(f"{name} must be an address such as {default}")
        elif isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
            raise ValuesError(f"{name} must be a number such as {default}")
        yield key, value


def panel_ids(grafana: Path) -> dict[tuple[str, str], int]:
    """(dashboard uid, panel title) -> the panel's id, of every dashboard in the folder."""
    found = {}
    for path in sorted(grafana.glob("*.json")):
        board = json.loads(path.read_text(encoding="utf-8"))
        for panel in _panels(board["panels"]):
            found[board["uid"], panel["title"]] = panel["id"]
    return found


def _panels(panels: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for panel in panels:
        yield panel
        yield from _panels(panel.get("panels", []))


def panel_address(alert: str, grafana_base: str, panels: Mapping[tuple[str, str], int]) -> str:
    """Where Grafana shows the alert's panel; its whole dashboard where there is no such panel."""
    uid, title, _ = PANELS[alert]
    number = panels.get((uid, title))
    return f"{grafana_base}/d/{uid}" + ("" if number is None else f"?viewPanel={number}")


def dashboard_url(alert: str, grafana_base: str, panels: Mapping[tuple[str, str], int]) -> str:
    """The address of the panel, with the labels of the alert filled in by Prometheus."""
    address = panel_address(alert, grafana_base, panels)
    chosen = "&".join(f"var-{label}={{{{ $labels.{label} | urlquery }}}}" for label in PANELS[alert][2])
    return f"{address}{'&' if '?' in address else '?'}{chosen}"


def render_rules(values: Mapping[str, Any], panels: Mapping[tuple[str, str], int]) -> str:
    """The rule file. Raises jinja2.UndefinedError where the template asks for a value that there is not."""

    def links(alert: str) -> str:
        return (
            f"          runbook_url: {values['runbook_base']}/{alert}.md\n"
            f"          dashboard_url: {dashboard_url(alert, values['grafana_base'], panels)}"
        )

    return _template().render(**values, links=links)


@functools.cache
def _template() -> jinja2.Template:
    # Neither PromQL nor Prometheus' own templates have these delimiters.
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE / "templates"),
        variable_start_string="<<",
        variable_end_string=">>",
        block_start_string="<%",
        block_end_string="%>",
        comment_start_string="<#",
        comment_end_string="#>",
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
        autoescape=False,
    )
    environment.filters |= {"seconds": seconds, "words": words, "span": span, "minus": minus}
    return environment.get_template("websocket.yaml.jinja")


OPERATOR_HEAD: Final = """\
# The rules of ../rules/ for the Prometheus Operator, generated by `make alerts`. Set the namespace, and the labels that
# your Prometheus selects rules by (`kubectl get prometheus -A -o jsonpath='{..ruleSelector}'`).
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: websocket-exporter
  labels:
    app.kubernetes.io/name: websocket-exporter
    release: prometheus
spec:
"""


def render_operator(rules: str) -> str:
    """The same rules as a PrometheusRule."""
    body = rules[rules.index("groups:\n") :]
    return OPERATOR_HEAD + "".join(f"  {line}" if line.strip() else line for line in body.splitlines(keepends=True))


def with_links(test: str, alert: str, address: str) -> str:
    """A promtool test of `alert`, whose expected annotations lead to `address`."""
    return re.sub(r"(dashboard_url: )https?://\S+?/d/[\w-]+(?:\?viewPanel=\d+[&]|\?)", rf"\g<1>{address}", test)


def rendered(values: Mapping[str, Any], grafana: Path = GRAFANA) -> dict[str, str]:
    """What `values` make of the template: path below the output folder -> text."""
    rules = render_rules(values, panel_ids(grafana))
    return {"rules/websocket.yaml": rules, "operator/prometheusrule.yaml": render_operator(rules)}


def relinked(values: Mapping[str, Any], folder: Path = HERE / "tests", grafana: Path = GRAFANA) -> dict[str, str]:
    """The promtool tests, whose expected links are those of the rules: path below alerts/ -> text."""
    panels, tests = panel_ids(grafana), {}
    for path in sorted(folder.glob("*.yaml")):
        alert = path.name.split(".")[0]
        address = panel_address(alert, values["grafana_base"], panels)
        joined = address + ("&" if "?" in address else "?")
        tests[f"tests/{path.name}"] = with_links(path.read_text(encoding="utf-8"), alert, joined)
    return tests


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--values", type=Path, help="a YAML file with what is to differ from values.yaml")
    parser.add_argument("--out", type=Path, default=HERE, help="the folder to write to (default: this one)")
    options = parser.parse_args(arguments)
    values = yaml.safe_load((HERE / "values.yaml").read_text(encoding="utf-8"))
    try:
        values = read_values(options.values, values) if options.values else values
    except (ValuesError, OSError, yaml.YAMLError) as error:
        print(f"{options.values}: {error}", file=sys.stderr)
        return 2
    files = rendered(values)
    if options.out == HERE and not options.values:
        files |= relinked(values)
    for name, text in files.items():
        path = options.out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
