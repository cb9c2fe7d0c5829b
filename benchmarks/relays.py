"""The tap and its peers, measured in turns: CPU per message and per connection, latency, start."""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from functools import partial
from statistics import median, quantiles
from typing import Final

from benchmarks import load
from benchmarks.bench import BESIDE, DIRECT, TAP, WARM_UP, Bench, in_turns
from benchmarks.exposition import MESSAGES as COUNTED
from benchmarks.exposition import scrape, total
from benchmarks.processes import Process, Starter, get
from benchmarks.report import Table
from benchmarks.workload import Workload

EXPORTER: Final = "exporter"
SILENT_TAP: Final = "silent tap"
PYTHON: Final = "python -c pass"

MESSAGES: Final = "CPU per relayed message, µs"
SMALL: Final = "64 B, 50 connections"
BURSTS: Final = "1 KiB, bursts of 16, 50 connections"
LARGE: Final = "64 KiB, 50 connections"
LARGEST: Final = "1 MiB, 10 connections"
WORKLOADS: Final = {
    SMALL: (Workload(64), 50),
    BURSTS: (Workload(1024, 16), 50),
    LARGE: (Workload(64 * 1024), 50),
    LARGEST: (Workload(1024 * 1024), 10),
}
TURNS: Final = 2

CONNECTIONS: Final = "CPU per connection, µs"
SET_UP_AND_CLOSE: Final = "set-up and close"
LOG_LINE: Final = "  of it the log line of the close"
CONNECTIONS_MEASURED: Final = 500

RATE: Final = 2000.0
P50: Final = "p50"
P99: Final = "p99"
LATENCY: Final = "latency at 2,000 round trips/s, µs"
ADDED: Final = "latency added by the relay, µs"
PACED: Final = "CPU per relayed message at that rate, µs"

START: Final = "start and rest"
UNTIL_LISTENING: Final = "until it answers, ms"
RESTING: Final = "RSS at rest, MiB"


def counted_by(relay: Process) -> int:
    """Messages that the tap says it has relayed; 0 for relays that do not count."""
    return int(total(scrape(relay.web_port), COUNTED)) if relay.web_port else 0


def messages(bench: Bench) -> list[Table]:
    """A closed loop of bursts on every connection, in several short turns a round: machines change quickly."""
    seconds = bench.effort.seconds / TURNS

    def measure(relay: Process, label: str) -> Mapping[str, float]:
        workload, count = WORKLOADS[label]
        descriptors, counted = relay.descriptors(), counted_by(relay)
        with load.websockets(relay.port, workload, count) as connections:
            warm_up = load.exchange(connections, workload, seconds * WARM_UP)
            before = relay.cpu_ns()
            done = load.exchange(connections, workload, seconds)
            used = relay.cpu_ns() - before
        relay.settle(descriptors)
        passed = (warm_up + done) * workload.messages
        if relay.web_port and (counted := counted_by(relay) - counted) != passed:
            raise load.LoadError(f"the tap counted {counted} of {passed} messages")
        return {label: used / (done * workload.messages) / 1e3}

    measures = [partial(measure, label=label) for _ in range(TURNS) for label in WORKLOADS]
    return [Table(MESSAGES, in_turns("messages", bench.effort.rounds, bench.relays, measures), BESIDE)]


def connections(bench: Bench) -> list[Table]:
    """WebSockets opened and closed again by a Close frame, 50 side by side, without a message."""
    path = Workload(64).path

    def measure(relay: Process) -> Mapping[str, float]:
        descriptors = relay.descriptors()
        load.close(load.connect(relay.port, path, load.BATCH))
        relay.settle(descriptors)
        before = relay.cpu_ns()
        for _ in range(CONNECTIONS_MEASURED // load.BATCH):
            load.close(load.connect(relay.port, path, load.BATCH))
        relay.settle(descriptors)
        return {SET_UP_AND_CLOSE: (relay.cpu_ns() - before) / CONNECTIONS_MEASURED / 1e3}

    @contextlib.contextmanager
    def subjects() -> Iterator[Mapping[str, Process]]:
        with bench.relays() as relays, bench.programs.silent_tap(bench.echo.port) as silent:
            yield {TAP: relays.pop(TAP), SILENT_TAP: silent, **relays}

    rows = in_turns("connections", bench.effort.rounds, subjects, [measure])
    row = rows[SET_UP_AND_CLOSE]
    silent = row.pop(SILENT_TAP)
    rows[LOG_LINE] = {TAP: [loud - quiet for loud, quiet in zip(row[TAP], silent, strict=True)]}
    return [Table(CONNECTIONS, rows, BESIDE)]


def latency(bench: Bench) -> list[Table]:
    """An open loop of 64-byte messages at a fixed rate; what a relay adds is its median less the direct one's."""
    workload, count = Workload(64), 50

    def measure(process: Process) -> Mapping[str, float]:
        descriptors = process.descriptors()
        with load.websockets(process.port, workload, count) as connections:
            load.paced(connections, workload, RATE, bench.effort.seconds * WARM_UP)
            before = process.cpu_ns()
            times = load.paced(connections, workload, RATE, bench.effort.seconds * 2)
            cost = (process.cpu_ns() - before) / (len(times) * workload.messages)
        process.settle(descriptors)
        return {P50: median(times) * 1e6, P99: quantiles(times, n=100)[98] * 1e6, SMALL: cost / 1e3}

    rows = in_turns("latency", bench.effort.rounds, bench.relays_and_none, [measure])
    paced = {SMALL: rows.pop(SMALL)}
    del paced[SMALL][DIRECT]
    direct = rows[P50][DIRECT]
    added = {
        name: [through - without for through, without in zip(samples, direct, strict=True)]
        for name, samples in rows[P50].items()
        if name != DIRECT
    }
    return [Table(LATENCY, rows), Table(ADDED, {P50: added}, BESIDE), Table(PACED, paced, BESIDE)]


def start(bench: Bench) -> list[Table]:
    """From the start of the process to its first answer, and what it holds then; the exporter after one scrape."""

    def measure(start: Starter) -> Mapping[str, float]:
        begin = time.perf_counter()
        with start(bench.echo.port) as process:
            taken = time.perf_counter() - begin
            used, waited = process.cpu_ns(), process.waited_ns()
            if process.web_port:
                get(process.web_port, "/metrics")
            return {
                UNTIL_LISTENING: taken * 1e3,
                "  of it CPU": used / 1e6,
                "  of it waiting for a busy core": waited / 1e6,
                RESTING: process.rss() / 2**20,
            }

    def bare_python() -> Mapping[str, float]:
        begin = time.perf_counter()
        with bench.programs.bare_python():
            return {UNTIL_LISTENING: (time.perf_counter() - begin) * 1e3}

    subjects: dict[str, Callable[[], Mapping[str, float]]] = {
        EXPORTER if name == TAP else name: partial(measure, start) for name, start in bench.starters.items()
    }
    subjects[PYTHON] = bare_python
    rows = in_turns("start", bench.effort.starts, lambda: nullcontext(subjects), [lambda subject: subject()])
    return [Table(START, rows)]
