"""The tap and its peers, measured in turns: CPU per message and per connection, latency, memory, start."""

import contextlib
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from statistics import median, quantiles
from typing import Final, TypeVar

from benchmarks import load
from benchmarks.processes import Process, Programs, Starter, get
from benchmarks.report import Table
from benchmarks.workload import Workload

T = TypeVar("T")

TAP: Final = "tap"
EXPORTER: Final = "exporter"
NGINX: Final = "nginx"
WEBSOCKETS: Final = "websockets"
DIRECT: Final = "direct"
PYTHON: Final = "python -c pass"
BESIDE: Final = (NGINX, WEBSOCKETS)

MESSAGES: Final = "CPU per relayed message, µs"
SMALL: Final = "64 B, 50 connections"
LARGE: Final = "64 KiB, 50 connections"
WORKLOADS: Final = {
    SMALL: (Workload(64), 50),
    "1 KiB, bursts of 16, 50 connections": (Workload(1024, 16), 50),
    LARGE: (Workload(64 * 1024), 50),
    "1 MiB, 10 connections": (Workload(1024 * 1024), 10),
}
COUNTED: Final = re.compile(rb"(?m)^websocket_message_size_bytes_count\{.*\} (\S+)")
WARM_UP: Final = 0.2
"""Share of a measurement's time that goes before it, unmeasured."""

CONNECTIONS: Final = "CPU per connection, µs"
SET_UP_AND_CLOSE: Final = "set-up and close"
CONNECTIONS_MEASURED: Final = 500

RATE: Final = 2000.0
P50: Final = "p50"
P50_ADDED: Final = "p50, added by the relay"
P99: Final = "p99"
LATENCY: Final = "latency at 2,000 round trips/s, µs"
PACED: Final = "CPU per relayed message at that rate, µs"

MEMORY: Final = "RSS per connection, KiB"
IDLE: Final = "idle after one message each way"

START: Final = "start and rest"
UNTIL_LISTENING: Final = "until it answers, ms"
RESTING: Final = "RSS at rest, MiB"


@dataclass(frozen=True)
class Effort:
    """How much is measured."""

    rounds: int = 5
    seconds: float = 1.0  # of one measurement
    idle_connections: int = 3000
    starts: int = 7


Rows = dict[str, dict[str, list[float]]]
"""Samples by row and then by what was measured."""


@dataclass(frozen=True)
class Bench:
    """One run: the service behind all relays, and how each relay is started."""

    programs: Programs
    effort: Effort
    echo: Process
    starters: Mapping[str, Starter]

    @contextlib.contextmanager
    def relays(self) -> Iterator[dict[str, Process]]:
        """All relays, started anew: how a process happens to lay out its memory must not decide a whole run."""
        with contextlib.ExitStack() as stack:
            yield {name: stack.enter_context(start(self.echo.port)) for name, start in self.starters.items()}

    @contextlib.contextmanager
    def relays_and_none(self) -> Iterator[dict[str, Process]]:
        """All relays, and the service itself."""
        with self.relays() as relays:
            yield relays | {DIRECT: self.echo}


def in_turns(
    what: str,
    rounds: int,
    subjects: Callable[[], AbstractContextManager[Mapping[str, T]]],
    measures: Sequence[Callable[[T], Mapping[str, float]]],
) -> Rows:
    """Take every measure of every subject once per round, so that a disturbance meets all subjects alike."""
    rows: Rows = {}
    for number in range(1, rounds + 1):
        print(f"{what}: round {number} of {rounds}", file=sys.stderr, flush=True)
        with subjects() as present:
            for measure in measures:
                for name, subject in present.items():
                    for label, value in measure(subject).items():
                        rows.setdefault(label, {}).setdefault(name, []).append(value)
    return rows


def counted_by(relay: Process) -> int:
    """Messages that the tap says it has relayed; 0 for relays that do not count."""
    if not relay.web_port:
        return 0
    return sum(int(float(count)) for count in COUNTED.findall(get(relay.web_port, "/metrics")))


def messages(bench: Bench) -> list[Table]:
    """A closed loop of bursts on every connection."""
    seconds = bench.effort.seconds

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

    measures = [partial(measure, label=label) for label in WORKLOADS]
    return [Table(MESSAGES, in_turns("messages", bench.effort.rounds, bench.relays, measures), BESIDE)]


def connections(bench: Bench) -> list[Table]:
    """WebSockets opened and closed again by a Close frame, 50 side by side, without a message."""

    def measure(relay: Process) -> Mapping[str, float]:
        descriptors = relay.descriptors()
        load.close(load.connect(relay.port, Workload(64), load.BATCH))
        relay.settle(descriptors)
        before = relay.cpu_ns()
        for _ in range(CONNECTIONS_MEASURED // load.BATCH):
            load.close(load.connect(relay.port, Workload(64), load.BATCH))
        relay.settle(descriptors)
        return {SET_UP_AND_CLOSE: (relay.cpu_ns() - before) / CONNECTIONS_MEASURED / 1e3}

    return [Table(CONNECTIONS, in_turns("connections", bench.effort.rounds, bench.relays, [measure]), BESIDE)]


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
    direct = rows[P50][DIRECT]
    rows[P50_ADDED] = {
        name: [through - without for through, without in zip(samples, direct, strict=True)]
        for name, samples in rows[P50].items()
        if name != DIRECT
    }
    del paced[SMALL][DIRECT]
    return [Table(LATENCY, rows), Table(PACED, paced, BESIDE)]


def idle(bench: Bench) -> list[Table]:
    """How a fresh relay grows by connections that have exchanged one message each way and then fall silent."""
    workload, count = Workload(64), bench.effort.idle_connections

    def measure(start: Starter) -> Mapping[str, float]:
        with start(bench.echo.port) as relay, load.websockets(relay.port, workload, load.BATCH) as first:
            load.exchange(first, workload, WARM_UP)
            before = relay.rss()
            with load.websockets(relay.port, workload, count) as connections:
                load.exchange(connections, workload, 0)
                return {IDLE: (relay.rss() - before) / count / 1024}

    rounds = min(bench.effort.rounds, 3)  # memory hardly varies
    rows = in_turns(f"{count:,} idle connections", rounds, lambda: nullcontext(bench.starters), [measure])
    return [Table(MEMORY, rows, BESIDE)]


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
