"""How long the dashboards' queries take: a day of 200 services with three replicas each, in a real Prometheus.

Every series that an exporter has is there, born as a real one is: three in ten count something, the others stay 0. One
service is chosen, as by whoever looks for a fault; the time range is 24 hours, the window and the resolution are what
Grafana takes for it.
"""

import json
import random
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from prometheus_client.samples import Sample

from benchmarks import blocks, peers
from benchmarks.bench import Bench, Rows
from benchmarks.exposition import scrape
from benchmarks.processes import ROOT
from benchmarks.report import Table

SERVICES: Final = 200
REPLICAS: Final = 3
CHOSEN: Final = 7

SCRAPE: Final = 15
DAY: Final = 86_400
STEP: Final = 120
"""Seconds between two points of a panel: Grafana's own choice for a day on a panel of half a screen."""

BUSY: Final = 0.3
"""Share of the series that are not 0 all day."""
KINDS: Final = 8

QUERIES: Final = f"queries over 24 h, {SERVICES} services x {REPLICAS}, ms"
SLOWEST: Final = "slowest query of any panel"
TILES: Final = "slowest tile of the first row, all chosen"
ONE: Final = "one service"

VARIABLES: Final = {
    "$job": f"job-{CHOSEN}",
    "$target": f"service-{CHOSEN}",
    "$source": ".+",
    "$__rate_interval": f"{STEP + SCRAPE}s",
    "$__range": "24h",
}
EVERYTHING: Final = VARIABLES | {"$job": ".+", "$target": ".+"}


class Asked(NamedTuple):
    dashboard: str
    title: str
    expr: str
    instant: bool
    first_row: bool


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
            took = {asked: seconds(prometheus.web_port, asked, VARIABLES, end) for asked in panels()}
            tiles = [asked for asked in panels() if asked.first_row and asked.dashboard == "overview"]
            wide = max(seconds(prometheus.web_port, asked, EVERYTHING, end) for asked in tiles)
            if number == 0:
                continue  # reads the block from the disk
            rows.setdefault(SLOWEST, {}).setdefault(ONE, []).append(1e3 * max(took.values()))
            for name in sorted({asked.dashboard for asked in took}):
                own = {asked: value for asked, value in took.items() if asked.dashboard == name}
                rows.setdefault(f"  {name}: slowest", {}).setdefault(ONE, []).append(1e3 * max(own.values()))
                rows.setdefault(f"  {name}: all {len(own)} in turn", {}).setdefault(ONE, []).append(
                    1e3 * sum(own.values())
                )
            rows.setdefault(TILES, {}).setdefault(ONE, []).append(1e3 * wide)
    return [Table(QUERIES, rows)]


def panels() -> list[Asked]:
    """Every query of the committed dashboards, with its variables."""
    return [asked for path in sorted((ROOT / "dashboards/grafana").glob("*.json")) for asked in _asked(path)]


def _asked(path: Path) -> Iterator[Asked]:
    rows = 0
    for panel in json.loads(path.read_text())["panels"]:
        rows += panel["type"] == "row"
        for target in panel.get("targets", ()):
            instant = bool(target.get("instant"))
            yield Asked(path.stem, panel["title"], target["expr"], instant, rows == 1 and panel["type"] == "stat")


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


def seconds(port: int, asked: Asked, variables: dict[str, str], end: int) -> float:
    """How long Prometheus takes for the answer, to its last byte."""
    expr = asked.expr
    for name, value in variables.items():
        expr = expr.replace(name, value)
    if asked.instant:
        path, times = "query", {"time": end}
    else:
        path, times = "query_range", {"start": end - DAY + STEP, "end": end, "step": STEP}
    form = urllib.parse.urlencode({"query": expr, **times}).encode()
    begin = time.perf_counter()
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/{path}", form, timeout=60) as answer:
        answer.read()
    return time.perf_counter() - begin
