"""What the insights cost: microseconds of CPU for each open and close, and bytes for each client remembered."""

import time
import tracemalloc
from collections.abc import Iterator, Sequence
from typing import Final

from benchmarks.bench import Bench
from benchmarks.processes import on_core
from benchmarks.report import Table
from exporter.events import ClientKey, Ending, Event, HandshakeEnded, Origin, Passing
from exporter.insight.insight import MOST_CLIENTS, Insight

TITLE: Final = "insights, µs of CPU"
MEMORY: Final = "insights, bytes per remembered client"
INSIGHT: Final = "insight"
OPEN: Final = "an open"
CLOSE: Final = "a close by the client"
RETURN: Final = "an open of a client that comes back"
LEFT: Final = "a client that left"
CLIENTS: Final = 20_000
"""Clients of one round: all of them are remembered."""

_ORIGIN: Final = Origin("tap", "bench")


class _Unheard:
    """What is derived is somebody else's cost: the recorder's."""

    def emit(self, event: Event) -> None:
        """Nobody listens."""


def _insight() -> Insight:
    insight = Insight(_Unheard(), time.monotonic)
    insight.watch(_ORIGIN, lambda user_agent: None)
    return insight


def _keys(number: int) -> Iterator[ClientKey]:
    """As the hash of client keys makes them: spread over 56 bits."""
    return (ClientKey(client * 0x9E3779B97F4A7C15 % (1 << 56)) for client in range(number))


def _opens(keys: Sequence[ClientKey]) -> list[Event]:
    return [HandshakeEnded(_ORIGIN, "accepted", "101", 0.001, key, "acme-app/3.1") for key in keys]


def _closes(keys: Sequence[ClientKey]) -> list[Event]:
    return [Ending(_ORIGIN, "1000", "normal", "client", Passing(), key, "acme-app/3.1") for key in keys]


def _timed(insight: Insight, events: Sequence[Event]) -> float:
    emit = insight.emit
    began = time.thread_time()
    for event in events:
        emit(event)
    return (time.thread_time() - began) / len(events) * 1e6


def insights(bench: Bench) -> list[Table]:
    """Both tables."""
    keys = list(_keys(CLIENTS))
    opens, closes = _opens(keys), _closes(keys)
    rows: dict[str, dict[str, list[float]]] = {label: {INSIGHT: []} for label in (OPEN, CLOSE, RETURN)}
    with on_core(bench.programs.cores.measured):
        for _ in range(bench.effort.rounds):
            insight = _insight()
            for label, events in ((OPEN, opens), (CLOSE, closes), (RETURN, opens)):
                rows[label][INSIGHT].append(_timed(insight, events))
    return [Table(TITLE, rows), Table(MEMORY, {LEFT: {INSIGHT: [_bytes_per_client()]}})]


def _bytes_per_client() -> float:
    """What Python allocates for as many clients as are surely remembered."""
    number = MOST_CLIENTS // 2
    insight = _insight()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for key in _keys(number):
            insight.emit(_opens([key])[0])
            insight.emit(_closes([key])[0])
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return (after - before) / number
