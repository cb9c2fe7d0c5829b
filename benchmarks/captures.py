"""The capture, beside the relays that do the same work in the data path, and what it costs the service it watches.

The load talks to the service directly, and the capture sees it on the loopback. Only one subject runs at a time: a
capture would see the upstream connections of a relay too.
"""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from functools import partial
from statistics import median, quantiles
from typing import Final

from benchmarks import load
from benchmarks.bench import DIRECT, NGINX, TAP, WARM_UP, Bench, in_turns
from benchmarks.exposition import ACTIVE, scrape, total
from benchmarks.exposition import MESSAGES as COUNTED
from benchmarks.limits import limited
from benchmarks.processes import Process, Starter, poll
from benchmarks.programs import SILENT
from benchmarks.relays import CONNECTIONS_MEASURED, LARGE, LARGEST, P50, P99, RATE, SET_UP_AND_CLOSE, SMALL, WORKLOADS
from benchmarks.report import Samples, Table
from benchmarks.workload import Workload

CAPTURE: Final = "capture"
CLOSES_ONLY: Final = "closes only"
SILENT_CAPTURE: Final = "silent capture"
BESIDE: Final = (NGINX, TAP)

CLOSES: Final = "websocket_closes_total"
DROPS: Final = "websocket_exporter_capture_drops_total"
LIFECYCLE_ONLY: Final = "websocket_exporter_capture_lifecycle_only"
RING_BYTES: Final = "websocket_exporter_capture_ring_bytes"

MESSAGES: Final = "CPU of capture per message, µs"
CONNECTIONS: Final = "CPU of capture per connection, µs"
PACED: Final = "CPU of capture per message at 4,000/s, µs"
LATENCY: Final = "the service at 4,000 messages/s, µs"
ADDED: Final = "  p50, more than without"
SERVICE: Final = "CPU per message of a service and its clients, µs"
MORE: Final = "more than directly, %"
QUICK_SMALL: Final = "at 40,000 messages/s, 10 % of a core"
SEEN: Final = "messages seen, %"
MEMORY: Final = "RSS per captured connection, KiB"
IDLE: Final = "idle after one message each way"

CAPTURED: Final = (SMALL, LARGE, LARGEST)
LIMIT: Final = 0.1
FAST: Final = 20_000.0
"""Round trips a second, two messages each."""
IDLE_CONNECTIONS: Final = 8000
STEP: Final = 500
"""Connections that are opened before the next: as fast as they can be opened, a capture need not keep up."""
SETTLED: Final = 0.5
"""Seconds in which a capture has looked at everything that has passed: several times the time-out of a ring's block.
Asking it would cost as much as what is measured."""


@contextlib.contextmanager
def _directly(service: Process) -> Iterator[Process]:
    yield service


def _subjects(bench: Bench, *names: str) -> dict[str, Starter]:
    """How each is started, by name; what is missing is left out."""
    programs = bench.programs
    known: dict[str, Starter] = {
        CAPTURE: programs.capture,
        CLOSES_ONLY: lambda service: programs.capture(service, ["--capture.mode=lifecycle"]),
        SILENT_CAPTURE: lambda service: programs.capture(service, SILENT),
        DIRECT: lambda _: _directly(bench.echo),
        **bench.starters,
    }
    return {name: known[name] for name in names if name in known}


def _turns(
    bench: Bench, what: str, subjects: Mapping[str, Starter], measures: list[Callable[[Starter], Mapping[str, float]]]
) -> dict[str, dict[str, list[float]]]:
    return in_turns(what, bench.effort.rounds, lambda: nullcontext(subjects), measures)


def _ready(process: Process, connections: int) -> None:
    """Wait until it knows all connections."""
    if process.web_port:
        _counted(process, ACTIVE, connections)


def _counted(process: Process, name: str, number: int) -> None:
    """Wait until it counts so many. Raises StartError."""
    what = f"{name} is not {number}"
    poll(lambda: total(scrape(process.web_port), name) == number, load.TIMEOUT, what, 0.05)


def captures(bench: Bench) -> list[Table]:
    """Everything about captures."""
    return [*_messages(bench), *_connections(bench), *_under_a_limit(bench), *_memory(bench)]


def _messages(bench: Bench) -> list[Table]:
    """A closed loop on every connection: what the observer uses, what the service and its clients do, what is seen."""
    seconds = bench.effort.seconds

    def measure(start: Starter, label: str) -> Mapping[str, float]:
        workload, count = WORKLOADS[label]
        with start(bench.echo.port) as process, load.websockets(process.port, workload, count) as connections:
            _ready(process, count)
            load.exchange(connections, workload, seconds * WARM_UP)
            time.sleep(SETTLED)
            counted = _messages_counted(process)
            before, peers = process.cpu_ns(), _peers_ns(bench)
            passed = load.exchange(connections, workload, seconds) * workload.messages
            peers = _peers_ns(bench) - peers
            time.sleep(SETTLED)
            used = process.cpu_ns() - before
            counted = _messages_counted(process) - counted
            _check_count(process, counted, passed)
        # What was dropped has cost nothing: it must not make the rest look cheap.
        found = {_seen(label): counted / passed * 100, label: used / (counted or passed) / 1e3}
        return found | {_service(label): peers / passed / 1e3}

    subjects = _subjects(bench, CAPTURE, CLOSES_ONLY, NGINX, TAP, DIRECT)
    rows = _turns(bench, "captured messages", subjects, [partial(measure, label=label) for label in CAPTURED])
    seen = {label: {CAPTURE: rows[_seen(label)][CAPTURE]} for label in CAPTURED}
    service = {label: rows[_service(label)] for label in CAPTURED}
    for label in CAPTURED:
        del rows[label][DIRECT]
    more = {label: _more(service[label]) for label in CAPTURED}
    return [
        Table(MESSAGES, {label: rows[label] for label in CAPTURED}, BESIDE),
        Table(SEEN, seen),
        Table(SERVICE, service, (DIRECT,)),
        Table(MORE, more),
    ]


def _peers_ns(bench: Bench) -> int:
    """CPU time of the service and of this process, its client: the kernel copies what is captured in their context."""
    return bench.echo.cpu_ns() + time.process_time_ns()


def _service(label: str) -> str:
    return f"service, {label}"


def _seen(label: str) -> str:
    return f"seen, {label}"


def _more(row: Mapping[str, Samples]) -> dict[str, list[float]]:
    return {
        name: [(mine / without - 1) * 100 for mine, without in zip(row[name], row[DIRECT], strict=True)]
        for name in row
        if name != DIRECT
    }


def _messages_counted(process: Process) -> int:
    return int(total(scrape(process.web_port), COUNTED)) if process.web_port else 0


def _check_count(process: Process, counted: int, passed: int) -> None:
    """Raise LoadError where it has counted too many messages, or too few without saying why."""
    if not process.web_port or counted == passed:
        return
    samples = scrape(process.web_port)
    if counted > passed or not total(samples, DROPS) + total(samples, LIFECYCLE_ONLY):
        raise load.LoadError(f"{counted} of {passed} messages are counted, and nothing is said to be missing")


def _connections(bench: Bench) -> list[Table]:
    """WebSockets opened and closed again by a Close frame, 50 side by side, without a message."""
    path = Workload(64).path

    def measure(start: Starter) -> Mapping[str, float]:
        with start(bench.echo.port) as process:
            load.close(load.connect(process.port, path, load.BATCH))
            time.sleep(SETTLED)
            before = process.cpu_ns()
            for _ in range(CONNECTIONS_MEASURED // load.BATCH):
                load.close(load.connect(process.port, path, load.BATCH))
            time.sleep(SETTLED)
            used = process.cpu_ns() - before
            if process.web_port:
                _counted(process, CLOSES, load.BATCH + CONNECTIONS_MEASURED)
        return {SET_UP_AND_CLOSE: used / CONNECTIONS_MEASURED / 1e3}

    subjects = _subjects(bench, CAPTURE, SILENT_CAPTURE, CLOSES_ONLY, NGINX, TAP)
    return [Table(CONNECTIONS, _turns(bench, "captured connections", subjects, [measure]), BESIDE)]


def _under_a_limit(bench: Bench) -> list[Table]:
    """An open loop of 64-byte messages while the capture has a tenth of a core."""
    workload, count = Workload(64), 50

    def measure(start: Starter) -> Mapping[str, float]:
        with start(bench.echo.port) as process, load.websockets(process.port, workload, count) as connections:
            _ready(process, count)
            with limited(process.pid, LIMIT):
                begin = time.perf_counter()
                passed = len(load.paced(connections, workload, FAST, bench.effort.seconds * 2)) * workload.messages
                rate = passed / (time.perf_counter() - begin)
                time.sleep(SETTLED)
            counted = _messages_counted(process)
            _check_count(process, counted, passed)
            return {SEEN: counted / passed * 100, "  messages a second": rate}

    rows = _turns(bench, "a captured service under a limit", _subjects(bench, CAPTURE), [measure])
    return [Table(QUICK_SMALL, rows)]


def _memory(bench: Bench) -> list[Table]:
    """How a capture grows by connections that exchange one message each way and fall silent."""
    workload, count = Workload(64), min(IDLE_CONNECTIONS, bench.effort.idle_connections * 2)

    def measure(start: Starter) -> Mapping[str, float]:
        with start(bench.echo.port) as process, load.websockets(process.port, workload, load.BATCH) as first:
            load.exchange(first, workload, WARM_UP)
            _counted(process, ACTIVE, load.BATCH)
            before, rings = process.rss(), total(scrape(process.web_port), RING_BYTES)
            with contextlib.ExitStack() as stack:
                for opened in range(STEP, count + STEP, STEP):
                    connections = stack.enter_context(load.websockets(process.port, workload, STEP))
                    load.exchange(connections, workload, 0)
                    _counted(process, ACTIVE, load.BATCH + opened)
                grown = process.rss() - before
                grown -= int(total(scrape(process.web_port), RING_BYTES) - rings)
        return {IDLE: grown / count / 1024}

    rounds = min(bench.effort.rounds, 2)  # memory hardly varies
    subjects = _subjects(bench, CAPTURE)
    rows = in_turns(f"{count:,} captured connections", rounds, lambda: nullcontext(subjects), [measure])
    return [Table(MEMORY, rows)]


def captured_latency(bench: Bench) -> list[Table]:
    """An open loop of 64-byte messages at a fixed rate: what watching costs, and what the service feels of it."""
    workload, count = Workload(64), 50

    def measure(start: Starter) -> Mapping[str, float]:
        with start(bench.echo.port) as process, load.websockets(process.port, workload, count) as connections:
            _ready(process, count)
            load.paced(connections, workload, RATE, bench.effort.seconds * WARM_UP)
            before = process.cpu_ns()
            times = load.paced(connections, workload, RATE, bench.effort.seconds * 2)
            used = process.cpu_ns() - before
        cost = used / (len(times) * workload.messages) / 1e3
        return {P50: median(times) * 1e6, P99: quantiles(times, n=100)[98] * 1e6, SMALL: cost}

    subjects = _subjects(bench, CAPTURE, NGINX, TAP, DIRECT)
    rows = _turns(bench, "latency of a captured service", subjects, [measure])
    cost = rows.pop(SMALL)
    del cost[DIRECT]
    direct = rows[P50][DIRECT]
    added = {
        name: [through - without for through, without in zip(samples, direct, strict=True)]
        for name, samples in rows[P50].items()
        if name != DIRECT
    }
    return [Table(LATENCY, {**rows, ADDED: added}), Table(PACED, {SMALL: cost}, BESIDE)]
