"""What scrapes do to the relay: /metrics is asked for all the time while messages pass at a fixed rate."""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from statistics import quantiles
from typing import Final

from benchmarks import load
from benchmarks.bench import WARM_UP, Bench, Rows, in_turns
from benchmarks.exposition import lag_buckets, quantile, scrape
from benchmarks.processes import Process
from benchmarks.relays import RATE
from benchmarks.report import Table
from benchmarks.workload import Workload

SCRAPES: Final = "scraped all the time, 64 B at 2,000/s"
TARGETS: Final = 5
"""Configured, for about 1,000 series."""

SECONDS: Final = 4
"""Of one measurement, as multiples of the others'."""

TEXT: Final = "text"
GZIP: Final = "gzip"
UNDISTURBED: Final = "not scraped"
CODINGS: Final = {TEXT: "identity", GZIP: "gzip", UNDISTURBED: None}

SERIES: Final = "series"
PAGES: Final = "pages per second"
CPU: Final = "CPU of the exporter, ms per second"
PAGE_CPU: Final = "CPU per page, ms"
WAITED: Final = "core taken by others, ms per second"
LAG_P50: Final = "event-loop lag p50, ms"
LAG_P99: Final = "event-loop lag p99, ms"
LATE: Final = "event loop later than 2 ms, % of times"

_BUCKET: Final = "le="


@dataclass(frozen=True)
class _State:
    """The tap, and how it is scraped meanwhile."""

    tap: Process
    coding: str | None


def scrapes(bench: Bench) -> list[Table]:
    """Latency of messages and the exporter's own measure of its event loop, with scrapes and without."""
    seconds = bench.effort.seconds * SECONDS
    workload, count = Workload(64), 50

    def measure(state: _State) -> Mapping[str, float]:
        tap = state.tap
        with load.websockets(tap.port, workload, count) as connections, contextlib.ExitStack() as scraping:
            pages = None
            if state.coding:
                pages = scraping.enter_context(bench.programs.scraper(tap.web_port, state.coding))
            load.paced(connections, workload, RATE, seconds * WARM_UP)
            samples = scrape(tap.web_port)
            cpu, waited = tap.cpu_ns(), tap.waited_ns()
            times = load.paced(connections, workload, RATE, seconds)
            cpu, waited = tap.cpu_ns() - cpu, tap.waited_ns() - waited
            before, after = lag_buckets(samples), lag_buckets(scrape(tap.web_port))
            scraping.close()
            found = {SERIES: float(len(samples)), **_latencies(times)}
            found |= {CPU: cpu / seconds / 1e6, WAITED: waited / seconds / 1e6}
            found |= {f"{_BUCKET}{bound}": after[bound] - before[bound] for bound in after}
            return found | ({PAGES: float(pages.read_text())} if pages else {})

    @contextlib.contextmanager
    def states() -> Iterator[Mapping[str, _State]]:
        with bench.programs.tap(bench.echo.port, targets=TARGETS) as tap:
            yield {name: _State(tap, coding) for name, coding in CODINGS.items()}

    return [Table(SCRAPES, _derived(in_turns("scrapes", bench.effort.rounds, states, [measure])))]


def _latencies(times: list[float]) -> dict[str, float]:
    thousandths = quantiles(times, n=1000)
    shown = {"p50": thousandths[499], "p99": thousandths[989], "p99.9": thousandths[998], "longest": max(times)}
    return {f"latency {name}, µs": value * 1e6 for name, value in shown.items()}


def _derived(rows: Rows) -> Rows:
    """Add the cost of a page, and the quantiles of the lag: over all rounds, it is measured four times a second."""
    buckets = {float(label.removeprefix(_BUCKET)): label for label in rows if label.startswith(_BUCKET)}
    counts = {bound: rows.pop(label) for bound, label in buckets.items()}
    undisturbed = rows[CPU][UNDISTURBED]
    rows[PAGE_CPU] = {
        name: [(cpu - other) / rate for cpu, other, rate in zip(rows[CPU][name], undisturbed, rates, strict=True)]
        for name, rates in rows[PAGES].items()
    }
    for name in CODINGS:
        lag = {bound: sum(samples[name]) for bound, samples in counts.items()}
        for label, share in ((LAG_P50, 0.5), (LAG_P99, 0.99)):
            rows.setdefault(label, {})[name] = [quantile(share, lag) * 1e3]
        rows.setdefault(LATE, {})[name] = [100 * (1 - lag[0.002] / lag[float("inf")])]
    return rows
