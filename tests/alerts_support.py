"""Services simulated second by second, as Prometheus scrapes them, and promtool judging the alert rules over them.

A `Service` is told what happens to it (accept, reject, close, a replica starts or ends) at which second; it turns
that into the series a scraper would have stored: counters born at zero, a phase of its own for each replica, stale
markers where a replica left. `promtool` then evaluates the shipped rules over these series.
"""

import bisect
import json
import os
import random
import re
import subprocess
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

from exporter.events import EVIDENCES
from exporter.metrics import catalogue
from tests.alerts_promql import family

ALERTS: Final = Path(__file__).parent.parent / "alerts"
RULES: Final = ALERTS / "rules/websocket.yaml"

TARGET: Final = "chat"

Labels = tuple[tuple[str, str], ...]

_CLASSES: Final = {
    "1000": "normal",
    "1001": "going_away",
    "1006": "abnormal",
    "1009": "too_big",
    "1011": "internal_error",
}
_BORN: Final = (
    (catalogue.MASS_CLOSE_CONNECTIONS.name, ()),
    *(
        (catalogue.CLOSES.name, (("code", code), ("class", close_class), ("initiator", initiator)))
        for code, close_class in _CLASSES.items()
        for initiator in ("client", "server")
    ),
    *(
        (catalogue.HANDSHAKES.name, (("outcome", outcome), ("status", status)))
        for outcome, status in (
            ("accepted", "101"),
            ("rejected", "401"),
            ("rejected", "500"),
            ("rejected", "503"),
            ("failed", "refused"),
            ("failed", "closed"),
            ("failed", "timeout"),
            ("refused_by_exporter", "limit"),
        )
    ),
)
_ANSWERED: Final = (("outcome", "accepted"), ("outcome", "rejected"))
_NEAR: Final = (("direction", "client_to_server"),)
_OPTIONAL: Final[Mapping[str, tuple[Labels, ...]]] = {
    catalogue.TOO_BIG_REPEATS.name: tuple((("evidence", evidence),) for evidence in EVIDENCES),
    f"{catalogue.MESSAGE_LIMIT_RATIO.name}_count": (_NEAR,),
    f"{catalogue.MESSAGE_LIMIT_RATIO.name}_bucket": ((*_NEAR, ("le", "0.9")),),
}
"""What is born at zero, too, but written down only where it ever counts: series are what a simulation costs."""


@dataclass
class Replica:
    """One life of one replica: `born` and `died` are seconds; events at or after `died` are nobody's.

    A later life with the same `instance` is a restart in place. `limit` is the most connections it may relay.
    """

    instance: str
    born: int = 0
    died: int | None = None
    source: str = "tap"
    limit: int = 10_000
    events: list[tuple[float, str, Labels]] = field(default_factory=list)

    def alive(self, at: float) -> bool:
        return self.born <= at and (self.died is None or at < self.died)

    def open_at(self, at: float) -> int:
        """Connections accepted before `at` and not closed by then."""
        accepted = ("outcome", "accepted")
        before = [labels[0] for time, _, labels in self.events if time < at and labels]
        return sum(first == accepted for first in before) - sum(first[0] == "code" for first in before)

    def close(self, at: float, code: str = "1001", initiator: str = "server", count: int = 1) -> None:
        labels = (("code", code), ("class", _CLASSES[code]), ("initiator", initiator))
        self.events += [(at, catalogue.CLOSES.name, labels)] * count

    def handshake(self, at: float, outcome: str = "accepted", status: str = "101", count: int = 1) -> None:
        self.events += [(at, catalogue.HANDSHAKES.name, (("outcome", outcome), ("status", status)))] * count

    def reject(self, at: float, status: str = "503", count: int = 1) -> None:
        self.handshake(at, "rejected", status, count)

    def fail(self, at: float, status: str, count: int = 1) -> None:
        self.handshake(at, "failed", status, count)

    def refuse_again(self, at: float, evidence: str = "close_1009") -> None:
        """A client that was refused a message for its size within 5 minutes before is refused another."""
        self.events.append((at, catalogue.TOO_BIG_REPEATS.name, (("evidence", evidence),)))

    def message_near_limit(self, at: float) -> None:
        self.events.append((at, f"{catalogue.MESSAGE_LIMIT_RATIO.name}_count", _NEAR))

    def arrivals(self) -> list[float]:
        """When handshakes were attempted, but for those that the exporter refused itself."""
        refused = ("outcome", "refused_by_exporter")
        return sorted(
            time for time, name, labels in self.events if name == catalogue.HANDSHAKES.name and labels[0] != refused
        )

    def lost_at_once(self) -> list[float]:
        """When connections ended in mass closes: 5 or more, and a quarter of the most of 10 minutes, in 10 seconds."""
        ends = sorted(
            time
            for time, name, labels in self.events
            if name == catalogue.CLOSES.name
            and (dict(labels)["initiator"] != "client" or dict(labels)["code"] == "1006")
        )
        lost: set[int] = set()
        for first, time in enumerate(ends):
            after = bisect.bisect_right(ends, time + 10)
            if after - first >= 5 and after - first >= 0.25 * self._most_open(time):
                lost |= set(range(first, after))
        return [ends[number] for number in sorted(lost)]

    def _most_open(self, at: float) -> int:
        """The most connections that were open at once in the 10 minutes up to `at`."""
        accepted = ("outcome", "accepted")
        steps = sorted(
            (time, 1 if labels[0] == accepted else -1)
            for time, name, labels in self.events
            if time <= at and (labels[0] == accepted or name == catalogue.CLOSES.name)
        )
        count = most = 0
        for time, step in steps:
            count += step
            most = max(most, count) if time > at - 600 else count
        return most

    def samples(self, times: Iterable[int]) -> dict[tuple[str, Labels], list[tuple[int, int]]]:
        """Series (name, own labels) -> (time, value) of each scrape at `times`, of this life alone."""
        counters: Counter[tuple[str, Labels]] = Counter()
        lost = [(time, catalogue.MASS_CLOSE_CONNECTIONS.name, ()) for time in self.lost_at_once()]
        pending = sorted([*self.events, *lost], reverse=True)
        arrivals = self.arrivals()
        used = {name for _, name, _ in self.events}
        born = {*_BORN, *((name, labels) for name in _OPTIONAL if _twin(name) in used for labels in _OPTIONAL[name])}
        series: dict[tuple[str, Labels], list[tuple[int, int]]] = {}
        for time in times:
            while pending and pending[-1][0] <= time:
                counters[pending.pop()[1:]] += 1
            closed = sum(count for (name, _), count in counters.items() if name == catalogue.CLOSES.name)
            accepted = counters[(catalogue.HANDSHAKES.name, (("outcome", "accepted"), ("status", "101")))]
            answered = sum(count for (_, own), count in counters.items() if own and own[0] in _ANSWERED)
            for key in {*born, *counters}:
                series.setdefault(key, []).append((time, counters[key]))
            series.setdefault((f"{catalogue.CONNECTION_DURATION.name}_count", ()), []).append((time, closed))
            series.setdefault((f"{catalogue.HANDSHAKE_DURATION.name}_count", ()), []).append((time, answered))
            series.setdefault((catalogue.CONNECTIONS_ACTIVE.name, ()), []).append((time, accepted - closed))
            series.setdefault((catalogue.TARGET_CREATED.name, ()), []).append((time, self.born))
            series.setdefault((catalogue.TAP_CONNECTION_LIMIT.name, ()), []).append((time, self.limit))
            minute = arrivals[bisect.bisect_right(arrivals, time - 60) : bisect.bisect_right(arrivals, time)]
            series.setdefault((catalogue.HANDSHAKES_LAST_MINUTE.name, ()), []).append((time, len(minute)))
            series.setdefault((catalogue.HANDSHAKES_PEAK.name, ()), []).append((time, _busiest_second(minute)))
        return series


def _twin(name: str) -> str:
    """The bucket of messages that are not near the limit counts nothing here; it is there where their count is."""
    return name.replace("_bucket", "_count")


def _busiest_second(arrivals: list[float]) -> int:
    return max(
        (bisect.bisect_left(arrivals, time + 1) - number for number, time in enumerate(arrivals)),
        default=0,
    )


@dataclass
class Service:
    """The replicas of one service, dead and alive."""

    replicas: list[Replica] = field(default_factory=list)

    def start(self, instance: str, at: int = 0, source: str = "tap", limit: int = 10_000) -> Replica:
        replica = Replica(instance, born=at, source=source, limit=limit)
        self.replicas.append(replica)
        return replica

    def anyone(self, at: float, rng: random.Random) -> Replica | None:
        """A replica that is up at `at`, as a load balancer picks one; None where nobody listens."""
        alive = [replica for replica in self.replicas if replica.alive(at)]
        return rng.choice(alive) if alive else None

    def input_series(self, job: str, interval: int, end: int, rng: random.Random) -> list[dict[str, str]]:
        """promtool's `input_series`, one value a second: each instance is scraped every `interval` s, off the grid."""
        phases = {replica.instance: rng.randrange(1, interval) for replica in self.replicas}
        points: dict[tuple[str, Labels], list[tuple[int, str]]] = {}
        for replica in self.replicas:
            times = [time for time in range(phases[replica.instance], end, interval) if replica.alive(time)]
            for (name, labels), values in replica.samples(times).items():
                place = {"job": job, "instance": replica.instance, "source": replica.source, "target": TARGET}
                known = ("job", "instance", *catalogue.BY_NAME[family(name)].labels)
                own = tuple((label, place[label]) for label in place if label in known)
                points.setdefault((name, (*own, *labels)), []).extend((time, str(value)) for time, value in values)
        gone = {name: self._stale(name, phases, interval, end) for name in phases}
        for (_, labels), samples in points.items():
            samples += [(time, "stale") for time in gone[dict(labels)["instance"]]]
        return [{"series": _series(*key), "values": _notation(sorted(samples))} for key, samples in points.items()]

    def _stale(self, instance: str, phases: Mapping[str, int], interval: int, end: int) -> list[int]:
        """The first failed scrape after each life that no other life follows at once."""
        lives = [replica for replica in self.replicas if replica.instance == instance]
        misses = [
            next(time for time in range(phases[instance], end + interval, interval) if time >= replica.died)
            for replica in lives
            if replica.died is not None
        ]
        return [time for time in misses if time < end and not any(replica.alive(time) for replica in lives)]


def _series(name: str, labels: Labels) -> str:
    return f"{name}{{{', '.join(f'{label}={json.dumps(value)}' for label, value in labels)}}}"


def _notation(samples: list[tuple[int, str]]) -> str:
    """promtool's expanding notation for (second, value) pairs on a grid of one second."""
    return " ".join(_tokens(samples))


def _tokens(samples: list[tuple[int, str]]) -> Iterator[str]:
    last = -1
    for time, value in samples:
        if time - last > 1:
            yield f"_x{time - last - 1}"
        yield value
        last = time


def promtool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """The real promtool, or the one that PROMTOOL names; never raises for its verdict.

    It lives for seconds: collecting its garbage is half of them.
    """
    environment = {**os.environ, "GOGC": "800", "GOMAXPROCS": "1"}
    command = [os.environ.get("PROMTOOL", "promtool"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=220, check=False, env=environment)


def rules_behind(alert: str, rules: str | None = None) -> dict[str, Any]:
    """The shipped rules, or other `rules`, without those that `alert` does not rest on, and without other alerts."""
    groups = yaml.safe_load(rules or RULES.read_text())["groups"]
    needed: set[str] = set()
    wanted = {alert}
    while wanted:
        needed |= wanted
        texts = [
            text
            for group in groups
            for rule in group["rules"]
            if _name(rule) in wanted
            for text in (rule["expr"], *rule.get("annotations", {}).values())
        ]
        wanted = {name for text in texts for name in re.findall(r"\w+:\w+:\w+", text)} - needed
    return {"groups": [{**group, "rules": [one for one in group["rules"] if _name(one) in needed]} for group in groups]}


def _name(rule: Mapping[str, str]) -> str:
    return rule.get("alert") or rule["record"]


@dataclass(frozen=True, slots=True)
class Firing:
    """One alert of one job: the second at which it first fired, for how many evaluations, and whether it still does."""

    first: int
    evaluations: int
    still: bool


Firings = dict[tuple[str, str, str], Firing]
"""By job, alert and severity."""


def firings(series: list[dict[str, str]], end: int, folder: Path, every: int = 15) -> Firings:
    """What fires while the rules are evaluated every so many seconds over `series` until second `end`.

    promtool shows what an expression's samples are where they are not as expected; so none are expected.
    """
    firing, by = 'ALERTS{alertstate="firing"}', "by (job, alertname, severity)"
    asked = (
        f"min {by} (min_over_time(timestamp({firing})[{end}s:{every}s]))",
        f"max {by} (count_over_time({firing}[{end}s]))",
        f"group {by} ({firing})",
    )
    groups = [group["name"] for group in yaml.safe_load(RULES.read_text())["groups"]]
    tests = [{"expr": expr, "eval_time": f"{end}s", "exp_samples": []} for expr in asked]
    document = {
        "rule_files": [str(RULES)],
        "evaluation_interval": f"{every}s",
        "group_eval_order": groups,
        "tests": [{"interval": "1s", "input_series": series, "promql_expr_test": tests}],
    }
    file = folder / "scenarios.json"
    file.write_text(json.dumps(document))  # JSON is YAML
    done = promtool("test", "rules", file)
    said = done.stdout + done.stderr
    first, evaluations, still = (_shown(said, expr) for expr in asked)
    assert bool(first) == (done.returncode != 0), said
    return {key: Firing(int(first[key]), int(evaluations[key]), key in still) for key in first}


def _shown(said: str, expr: str) -> dict[tuple[str, str, str], float]:
    """The samples that promtool says it got for `expr`, by job, alert and severity."""
    block = said.partition(f"expr: {json.dumps(expr)}")[2].partition("got: ")[2].partition("\n")[0]
    samples = {}
    for labels, value in re.findall(r"\{([^}]*)\} ([0-9.E+-]+)", block):
        named = dict(re.findall(r'(\w+)="([^"]*)"', labels))
        samples[named["job"], named["alertname"], named["severity"]] = float(value)
    return samples
