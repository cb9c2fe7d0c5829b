"""Many connections at once: thousands that have fallen silent, and a thousand whose clients have stopped reading."""

import time
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Final

from benchmarks import load
from benchmarks.bench import BESIDE, TAP, WARM_UP, Bench, in_turns
from benchmarks.exposition import ACTIVE, BUFFERED, scrape, total
from benchmarks.processes import Process, Starter
from benchmarks.report import Table
from benchmarks.workload import FLOOD_PATH, Workload
from exporter.sources.relay import READ_SIZE

MEMORY: Final = "RSS per connection, KiB"
IDLE: Final = "idle after one message each way"
HELD: Final = "connections held"
STILL_ANSWERING: Final = "answering after silence"
SILENCE: Final = 2.0
"""Seconds."""

STOPPED: Final = "RSS growth by stopped readers, MiB"
WATCHED: Final = 6
"""Seconds for which growth is watched."""

GROWN: Final = f"after {WATCHED} s"
LATER: Final = f"  of it in the last {WATCHED // 2} s"
LEFT: Final = "after they have gone"
SAID: Final = "the tap says it buffers"
BOUND: Final = "documented bound"


def idle(bench: Bench) -> list[Table]:
    """How a fresh relay grows by connections that exchange one message each way and fall silent, and whether it holds
    them: after the silence each must answer again, and the tap's own count of them must be exact.
    """
    workload, count = Workload(64), bench.effort.idle_connections

    def measure(start: Starter) -> Mapping[str, float]:
        with start(bench.echo.port) as relay:
            with load.websockets(relay.port, workload, load.BATCH) as first:
                load.exchange(first, workload, WARM_UP)
                before = relay.rss()
                with load.websockets(relay.port, workload, count) as connections:
                    load.exchange(connections, workload, 0)
                    grown = relay.rss() - before
                    time.sleep(SILENCE)
                    answering = load.exchange(connections, workload, 0)
                    _check_count(relay, load.BATCH + count)
            return {IDLE: grown / count / 1024, STILL_ANSWERING: answering}

    rounds = min(bench.effort.rounds, 2)  # memory hardly varies
    rows = in_turns(f"{count:,} idle connections", rounds, lambda: nullcontext(bench.starters), [measure])
    return [Table(MEMORY, {IDLE: rows[IDLE]}, BESIDE), Table(HELD, {STILL_ANSWERING: rows[STILL_ANSWERING]})]


def _check_count(relay: Process, open_now: int) -> None:
    if relay.web_port and (counted := total(scrape(relay.web_port), ACTIVE)) != open_now:
        raise load.LoadError(f"the tap counts {counted:.0f} of {open_now} open WebSockets")


def stopped_readers(bench: Bench) -> list[Table]:
    """How a fresh relay grows while a service sends without end to clients that read nothing."""
    count = bench.effort.stopped_readers

    def measure(start: Starter) -> Mapping[str, float]:
        with start(bench.echo.port) as relay:
            load.close(load.connect(relay.port, Workload(64).path, load.BATCH))
            descriptors, before = relay.descriptors(), relay.rss()
            connections = load.connect(relay.port, FLOOD_PATH, count, load.dial_narrow)
            try:
                growth = []
                for _ in range(WATCHED):
                    time.sleep(1.0)
                    growth.append(relay.rss() - before)
                told = {SAID: total(scrape(relay.web_port), BUFFERED)} if relay.web_port else {}
            finally:
                load.disconnect(connections)
            relay.settle(descriptors)
            found: dict[str, float] = {f"after {second} s": grown for second, grown in enumerate(growth, 1)}
            found |= {LATER: growth[-1] - growth[-1 - WATCHED // 2]} | told | {LEFT: relay.rss() - before}
            return {label: size / 2**20 for label, size in found.items()}

    rows = in_turns(f"{count:,} stopped readers", 1, lambda: nullcontext(bench.starters), [measure])
    rows[BOUND] = {TAP: [count * READ_SIZE / 2**20]}
    return [Table(STOPPED, rows)]
