"""Services simulated second by second, as Prometheus scrapes them, and promtool judging the alert rules over them.

A `Service` is told what happens to it (accept, reject, close, a replica starts or ends) at which second; it turns
that into the series a scraper would have stored: counters born at zero, a phase of its own for each replica, stale
markers where a replica left. `promtool` then evaluates the shipped rules over these series.
"""

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

from exporter.metrics import catalogue

ALERTS: Final = Path(__file__).parent.parent / "alerts"
RULES: Final = ALERTS / "rules/websocket.yaml"

TARGET: Final = "chat"

Labels = tuple[tuple[str, str], ...]
Test = dict[str, Any]

_CLASSES: Final = {
    "1000": "normal",
    "1001": "going_away",
    "1006": "abnormal",
    "1009": "too_big",
    "1011": "internal_error",
}
_BORN: Final = tuple(
    (catalogue.CLOSES.name, (("code", code), ("class", close_class), ("initiator", initiator)))
    for code, close_class in _CLASSES.items()
    for initiator in ("client", "server")
) + tuple(
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
)


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
        before = [labels[0] for time, _, labels in self.events if time < at]
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

    def samples(self, times: Iterable[int]) -> dict[tuple[str, Labels], list[tuple[int, int]]]:
        """Series (name, own labels) -> (time, value) of each scrape at `times`, of this life alone."""
        counters: Counter[tuple[str, Labels]] = Counter()
        pending = sorted(self.events, reverse=True)
        series: dict[tuple[str, Labels], list[tuple[int, int]]] = {}
        for time in times:
            while pending and pending[-1][0] <= time:
                counters[pending.pop()[1:]] += 1
            closed = sum(count for (name, _), count in counters.items() if name == catalogue.CLOSES.name)
            accepted = counters[(catalogue.HANDSHAKES.name, (("outcome", "accepted"), ("status", "101")))]
            for key in {*_BORN, *counters}:
                series.setdefault(key, []).append((time, counters[key]))
            series.setdefault((catalogue.CONNECTIONS_ACTIVE.name, ()), []).append((time, accepted - closed))
            series.setdefault((catalogue.TARGET_CREATED.name, ()), []).append((time, self.born))
            series.setdefault((catalogue.TAP_CONNECTION_LIMIT.name, ()), []).append((time, self.limit))
        return series


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
                known = ("job", "instance", *catalogue.BY_NAME[name].labels)
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
    """The real promtool; never raises for its verdict. It lives for seconds: collecting its garbage is half of them."""
    environment = {**os.environ, "GOGC": "800", "GOMAXPROCS": "1"}
    command = ["promtool", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=220, check=False, env=environment)


def rules_behind(alert: str) -> dict[str, Any]:
    """The shipped rules without those that `alert` does not rest on, and without other alerts."""
    groups = yaml.safe_load(RULES.read_text())["groups"]
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


def judge(tests: list[Test], folder: Path, rules: Path = RULES, evaluation_interval: str = "15s") -> str:
    """Let promtool run `tests` over `rules`; return what it has to say, "" where all of them hold."""
    groups = [group["name"] for group in yaml.safe_load(rules.read_text())["groups"]]
    file = folder / "scenario.json"
    document = {
        "rule_files": [str(rules)],
        "evaluation_interval": evaluation_interval,
        "group_eval_order": groups,
        "tests": tests,
    }
    file.write_text(json.dumps(document))  # JSON is YAML
    done = promtool("test", "rules", file)
    return "" if done.returncode == 0 else done.stdout + done.stderr
