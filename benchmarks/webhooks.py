"""The webhook beside Prometheus' Pushgateway and the usual receiver of reports; and with its storage, as it fills."""

import contextlib
import math
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from benchmarks import machine, peers, posting
from benchmarks.bench import Bench, Rows, in_turns
from benchmarks.exposition import WEBHOOK_EVENTS, WEBHOOK_IDS, scrape, total
from benchmarks.load import LoadError
from benchmarks.posting import Post
from benchmarks.processes import ROOT, Process, poll
from benchmarks.report import Table

EXPORTER: Final = "exporter"
PUSHGATEWAY: Final = "pushgateway"
PUSHGATEWAY_FILE: Final = "pushgateway, file"
RECEIVER: Final = "receiver"
BESIDE: Final = (PUSHGATEWAY, PUSHGATEWAY_FILE, RECEIVER)

CPU: Final = "webhook: CPU per event, µs"
SINGLE: Final = "single events"
BATCHES: Final = "JSON arrays of 100"
LINES: Final = "NDJSON of 1,000"
CONNECTIONS: Final = {SINGLE: 16, BATCHES: 8, LINES: 4}

RATE: Final = "webhook: requests per second"
LOAD: Final = "webhook: load's core used by wrk, %"

STORED: Final = "webhook with storage"
STORED_LINES: Final = f"{LINES}, CPU per event, µs"
FILLED: Final = 1_000_000
"""Ids stored before the CPU is measured."""

LEVELS: Final = (100_000, 1_000_000, 2_000_000)
"""Ids stored when the resident memory is looked at."""

GROWTH: Final = f"RSS growth by {LEVELS[-1] - LEVELS[0]:,} ids, MiB"
WARM_UP: Final = 1
"""Seconds of load before each measurement; wrk knows whole ones only."""


@dataclass(frozen=True)
class Subject:
    """What takes reports: what it is sent, by workload, and which of its counters must have grown by the events."""

    process: Process
    posts: Mapping[str, Post]
    counter: str
    labels: Mapping[str, str]

    def counted(self) -> int:
        """Events that it says it has counted."""
        return int(total(scrape(self.process.web_port), self.counter, **self.labels))


def _posts(path: str) -> dict[str, Post]:
    return {SINGLE: posting.single(path), BATCHES: posting.batch(path, 100), LINES: posting.ndjson(path, 1000)}


def exporter(process: Process) -> Subject:
    """The webhook."""
    return Subject(process, _posts("/api/v1/closes"), WEBHOOK_EVENTS, {"result": "accepted"})


def pushgateway(process: Process) -> Subject:
    """The Pushgateway, which takes one sample at a time."""
    labels = {"handler": "push", "method": "put", "code": "200"}
    return Subject(process, {SINGLE: posting.push()}, "pushgateway_http_requests_total", labels)


def receiver(process: Process) -> Subject:
    """The usual receiver."""
    return Subject(process, _posts("/closes"), "websocket_closes_total", {})


@contextlib.contextmanager
def subjects(bench: Bench) -> Iterator[Mapping[str, Subject]]:
    """The webhook in memory and those of its peers that are there, started anew."""
    programs = bench.programs
    with contextlib.ExitStack() as stack:
        found = {EXPORTER: exporter(stack.enter_context(programs.webhook()))}
        if peers.pushgateway_program():
            found[PUSHGATEWAY] = pushgateway(stack.enter_context(programs.pushgateway()))
            found[PUSHGATEWAY_FILE] = pushgateway(stack.enter_context(programs.pushgateway(persistent=True)))
        if peers.receiver_present():
            found[RECEIVER] = receiver(stack.enter_context(programs.receiver()))
        yield found


@dataclass(frozen=True)
class Used:
    """One measurement: CPU time per event in microseconds, requests per second, the share of its core that wrk used."""

    cpu: float
    rate: float
    busy: float


def load(subject: Subject, label: str, seconds: int, connections: int | None = None) -> Used:
    """A closed loop of one workload. Raises LoadError unless what is counted is what was answered.

    Requests under way when the time is up may be counted too.
    """
    process, post = subject.process, subject.posts[label]
    connections = connections or CONNECTIONS[label]
    descriptors = process.descriptors()
    posting.drive(process.port, post, connections, WARM_UP)
    _settle(process, descriptors)
    counted, used = subject.counted(), process.cpu_ns()
    driven = posting.drive(process.port, post, connections, seconds)
    _settle(process, descriptors)
    used, counted = process.cpu_ns() - used, subject.counted() - counted
    answered = driven.answered * post.events
    if not answered <= counted <= answered + connections * post.events:
        raise LoadError(f"{counted:,} events were counted, {answered:,} answered")
    return Used(used / counted / 1e3, driven.answered / driven.seconds, driven.busy)


def _settle(process: Process, descriptors: int) -> None:
    """Wait until it is through with all connections, and with what it had taken from them."""
    process.settle(descriptors)
    seen = [process.cpu_ns()]

    def rests() -> bool:
        time.sleep(0.05)
        seen.append(process.cpu_ns())
        return seen[-1] - seen[-2] < 1_000_000

    poll(rests, 15, "it does not come to rest")


def webhook(bench: Bench) -> list[Table]:
    """Single events and batches in memory, then the storage."""
    if not peers.wrk_program():
        print("wrk is missing: the webhook is not measured", file=sys.stderr)
        return []
    return [*in_memory(bench), *stored(bench)]


def in_memory(bench: Bench) -> list[Table]:
    """CPU per event beside the peers', and how fast all were driven."""
    for name, present in ((PUSHGATEWAY, peers.pushgateway_program()), (RECEIVER, peers.receiver_present())):
        if not present:
            print(f"{name} is missing: measured without it", file=sys.stderr)

    def measure(subject: Subject, label: str) -> Mapping[str, float]:
        if label not in subject.posts:
            return {}
        found = load(subject, label, _seconds(bench))
        return {f"{CPU}{label}": found.cpu, f"{RATE}{label}": found.rate, f"{LOAD}{label}": found.busy * 100}

    measures = [partial(measure, label=label) for label in CONNECTIONS]
    rows = in_turns("webhook", bench.effort.rounds, partial(subjects, bench), measures)
    return [Table(CPU, _of(CPU, rows), BESIDE), Table(RATE, _of(RATE, rows)), Table(LOAD, _of(LOAD, rows))]


def _of(title: str, rows: Rows) -> Rows:
    return {label.removeprefix(title): row for label, row in rows.items() if label.startswith(title)}


def _seconds(bench: Bench) -> int:
    return math.ceil(bench.effort.seconds * 2)


def stored(bench: Bench) -> list[Table]:
    """The webhook with storage: memory as it fills, then, in another one, CPU per event once it has filled."""
    rows: dict[str, list[float]] = {}
    with storage(bench) as (subject, folder):
        for level in LEVELS:
            _fill(subject, level)
            rows[f"RSS with {level:,} ids, MiB"] = [subject.process.rss() / 2**20]
        first, *_, last = (samples[0] for samples in rows.values())
        rows[GROWTH] = [last - first]
        rows[f"on disk with {LEVELS[-1]:,} ids, MiB"] = [_size(folder) / 2**20]
    with storage(bench) as (subject, folder):
        _fill(subject, FILLED)
        for number in range(1, bench.effort.rounds + 1):
            print(f"webhook with storage: round {number} of {bench.effort.rounds}", file=sys.stderr, flush=True)
            for label, value in _durable(subject, _seconds(bench), folder).items():
                rows.setdefault(label, []).append(value)
    return [Table(STORED, {label: {EXPORTER: samples} for label, samples in rows.items()})]


@contextlib.contextmanager
def storage(bench: Bench) -> Iterator[tuple[Subject, Path]]:
    """The webhook with a new storage, and its folder: on the disk of this repository, as others may be in memory."""
    cache = ROOT / ".cache"
    cache.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="benchmarks-", dir=cache) as name:
        folder = Path(name)
        with bench.programs.webhook(folder) as process:
            yield exporter(process), folder


def _durable(subject: Subject, seconds: int, folder: Path) -> Mapping[str, float]:
    lines, many = load(subject, LINES, seconds), load(subject, SINGLE, seconds)
    alone = load(subject, SINGLE, seconds, connections=1)
    return {
        STORED_LINES: lines.cpu,
        f"{LINES}, requests/s": lines.rate,
        f"{SINGLE}, CPU per event, µs": many.cpu,
        f"{SINGLE}, {CONNECTIONS[SINGLE]} connections, per s": many.rate,
        f"{SINGLE}, 1 connection, per s": alone.rate,
        f"fdatasync of 4 KiB on {machine.file_system(folder)}, ms": machine.sync_time(folder) * 1e3,
    }


def _fill(subject: Subject, level: int) -> None:
    """Report events until so many ids are remembered, to the last thousand."""
    print(f"webhook with storage: {level:,} ids", file=sys.stderr, flush=True)
    process, post = subject.process, subject.posts[LINES]
    missing = level - int(total(scrape(process.web_port), WEBHOOK_IDS))
    posting.send(process.port, post, missing // post.events)
    _settle(process, process.descriptors())


def _size(folder: Path) -> int:
    """Bytes of all files."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
