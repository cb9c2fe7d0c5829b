"""How long the dashboards' queries take: a day of 200 services with three replicas each, in a real Prometheus.

Every series that an exporter has is there, born as a real one is: three in ten count something, the others stay 0. One
service is chosen, as by whoever looks for a fault, or all of them, as they are when a dashboard is opened: of those the
panels show the few that rank highest. The time range is 24 hours, window and resolution are what Grafana takes for it.
"""

import json
import random
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from prometheus_client.samples import Sample

from benchmarks import blocks, peers
from benchmarks.bench import Bench, Rows
from benchmarks.exposition import scrape
from benchmarks.processes import ROOT
from benchmarks.report import Table
from dashboards.queries import fill_in, variable_queries

SERVICES: Final = 200
REPLICAS: Final = 3
CHOSEN: Final = 7

SCRAPE: Final = 15
DAY: Final = 86_400
HALF_A_SCREEN: Final = 800
"""Points of a panel that does not ask for fewer: its width in pixels."""
NICE: Final = {150: 120, 450: 300, 750: 600, 1200: 900}
"""What Grafana makes of the seconds between two points: up to each of the first, the second."""

BUSY: Final = 0.3
"""Share of the series that are not 0 all day."""
KINDS: Final = 8

QUERIES: Final = f"queries over 24 h, {SERVICES} services x {REPLICAS}, ms"
SLOWEST: Final = "slowest query of any panel"
RANKING: Final = "slowest ranking"
ONE: Final = "one service"
ALL: Final = "all services"

CHOICES: Final[Mapping[str, Mapping[str, str]]] = {
    ONE: {"job": f"job-{CHOSEN}", "target": f"service-{CHOSEN}", "source": ".+"},
    ALL: {"job": ".+", "target": ".+", "source": ".+"},
}


class Asked(NamedTuple):
    """A query; `step` is seconds between two points of its answer, None where it has but one."""

    dashboard: str
    title: str
    expr: str
    step: int | None


def dashboards(bench: Bench) -> list[Table]:
    """The slowest query of each dashboard, and of all of them."""
    if peers.prometheus_program() is None:
        print("prometheus is missing: the dashboards' queries are not measured", file=sys.stderr)
        return []
    with bench.programs.tap(bench.echo.port) as tap:
        samples = scrape(tap.web_port)
    data = bench.programs.folder("data")
    print(f"dashboards: writing {SERVICES * REPLICAS * len(samples):,} series", file=sys.stderr, flush=True)
    end = fill(data, samples, int(time.time()))
    rows: Rows = {}
    with bench.programs.prometheus(data) as prometheus:
        for number in range(bench.effort.rounds + 1):
            for choice, variables in CHOICES.items():
                figures = _measured(prometheus.web_port, variables, end)
                if number:  # the first one reads the block from the disk
                    for name, milliseconds in figures.items():
                        rows.setdefault(name, {}).setdefault(choice, []).append(milliseconds)
    return [Table(QUERIES, rows)]


def _measured(port: int, chosen: Mapping[str, str], end: int) -> dict[str, float]:
    """Milliseconds that each figure took, with so much chosen."""
    panels: dict[str, list[float]] = {}
    rankings = []
    for path in sorted((ROOT / "dashboards/grafana").glob("*.json")):
        variables, took = _resolved(port, path, chosen, end)
        rankings.append(took)
        panels[path.stem] = [seconds(port, asked, variables, end) for asked in queries(path)]
    figures = {SLOWEST: max(map(max, panels.values()))}
    for name, took_each in panels.items():
        figures[f"  {name}: slowest"] = max(took_each)
        figures[f"  {name}: all {len(took_each)} in turn"] = sum(took_each)
    figures[RANKING] = max(rankings)
    return {name: 1e3 * took for name, took in figures.items()}


def _resolved(port: int, path: Path, chosen: Mapping[str, str], end: int) -> tuple[dict[str, str], float]:
    """The variables with the services shown of those chosen, and how many seconds their ranking took."""
    variables = {**chosen, "__range": "24h", "shown": "", "instance": ""}
    asks = dict(variable_queries(path.read_text(), variables))
    begin = time.perf_counter()
    variables["shown"] = _any_of(query(port, asks["shown"], end), "target")
    took = time.perf_counter() - begin
    asks = dict(variable_queries(path.read_text(), variables))
    variables["instance"] = _any_of(query(port, asks["instance"], end), "instance")
    return variables, took


def _any_of(answer: bytes, label: str) -> str:
    """A regular expression, as Grafana writes it for All, for this label's values; within a string of PromQL."""
    values = [series["metric"][label] for series in json.loads(answer)["data"]["result"]]
    return "|".join(value.replace(".", r"\\.") for value in values)


def queries(path: Path) -> list[Asked]:
    """Every query of a committed dashboard's panels, with its variables."""
    return [
        Asked(path.stem, panel["title"], target["expr"], None if target.get("instant") else step(panel))
        for panel in json.loads(path.read_text())["panels"]
        for target in panel.get("targets", ())
    ]


def step(panel: dict[str, Any]) -> int:
    """Seconds between two points of this panel, over a day."""
    exactly = DAY / panel.get("maxDataPoints", HALF_A_SCREEN)
    return next(nice for bound, nice in NICE.items() if exactly < bound)


def fill(data: Path, samples: list[Sample], now: int) -> int:
    """Write a day that ends now, of all replicas; returns the time of the last sample."""
    chance = random.Random(7)
    count = DAY // SCRAPE
    start = now - now % SCRAPE - (count - 1) * SCRAPE
    kinds = [chance.randrange(1, KINDS) if chance.random() < BUSY else 0 for _ in samples]
    values = [[0] * count, *(_growing(chance, count) for _ in range(1, KINDS))]
    series = (
        (_labels(sample, service, replica), kind)
        for service in range(SERVICES)
        for replica in range(REPLICAS)
        for sample, kind in zip(samples, kinds, strict=True)
    )
    blocks.write(data, series, start * 1000, SCRAPE * 1000, values)
    return start + (count - 1) * SCRAPE


def _growing(chance: random.Random, count: int) -> list[int]:
    """A counter with bursts and pauses."""
    value, found = 0, []
    for _ in range(count):
        value += chance.choice((0, 0, 0, 1, 2, 5))
        found.append(value)
    return found


def _labels(sample: Sample, service: int, replica: int) -> blocks.Labels:
    labels = {**sample.labels, "__name__": sample.name}
    labels |= {"job": f"job-{service}", "instance": f"10.0.{service}.{replica}:11009"}
    if "target" in labels:
        labels["target"] = f"service-{service}"
    return tuple(sorted(labels.items()))


def seconds(port: int, asked: Asked, variables: Mapping[str, str], end: int) -> float:
    """How long Prometheus takes for the answer, to its last byte."""
    interval = {"__rate_interval": f"{(asked.step or SCRAPE) + SCRAPE}s"}
    expr = fill_in(asked.expr, {**variables, **interval})
    begin = time.perf_counter()
    query(port, expr, end, asked.step)
    return time.perf_counter() - begin


def query(port: int, expr: str, end: int, step: int | None = None) -> bytes:
    """What Prometheus answers: as of `end`, or with a `step` for the day before it."""
    if step is None:
        path, times = "query", {"time": end}
    else:
        path, times = "query_range", {"start": end - DAY + step, "end": end, "step": step}
    form = urllib.parse.urlencode({"query": expr, **times}).encode()
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/{path}", form, timeout=60) as answer:
        body: bytes = answer.read()
    return body
