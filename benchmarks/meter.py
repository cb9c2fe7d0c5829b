"""The frame meter alone: nanoseconds of CPU per frame, beside the parser of the `websockets` library."""

import time
from timeit import Timer
from typing import Final

from websockets.protocol import Protocol, State
from websockets.protocol import Side as Role

from benchmarks.report import Table
from benchmarks.workload import FIN_BINARY, frame
from exporter.events import AnomalyKind, Side
from exporter.metrics.catalogue import MESSAGE_LIMIT_RATIO
from exporter.wire.frames import FrameMeter
from exporter.wire.sizes import DirectionSizes, Headroom, MessageSizes

METER: Final = "frame meter"
WEBSOCKETS: Final = "websockets"
TITLE: Final = "frame parsing, ns per frame"
BURST_64: Final = "64 B, 64 per read"
SHAPES: Final = {"64 B, one per read": (64, 1), BURST_64: (64, 64), "1 KiB, 16 per read": (1024, 16)}
"""Payload size and frames per read."""


class Unheard:
    """Data frames alone have nothing to report."""

    def control_frame(self, side: Side, opcode: int, payload: bytes | None) -> None:
        raise AssertionError(opcode)

    def anomaly(self, side: Side, kind: AnomalyKind) -> None:
        raise AssertionError(kind)


def measure(rounds: int, seconds: float) -> Table:
    """Feed both parsers what clients send, in turns, `seconds` of CPU each time."""
    plain = MessageSizes()
    sizes = DirectionSizes(plain, MessageSizes(), Headroom(plain, MESSAGE_LIMIT_RATIO.bounds))
    meter = FrameMeter("client", sizes, deflate=False, listener=Unheard())
    parser = Protocol(Role.SERVER, state=State.OPEN, max_size=None)
    rows: dict[str, dict[str, list[float]]] = {}
    fed = 0
    for label, (size, burst) in SHAPES.items():
        data = frame(FIN_BINARY, b"." * size, masked=True) * burst
        subjects = {
            METER: Timer("feed(data)", globals={"feed": meter.feed, "data": data}, timer=time.thread_time),
            WEBSOCKETS: Timer(
                "receive(data); events()",
                globals={"receive": parser.receive_data, "events": parser.events_received, "data": data},
                timer=time.thread_time,
            ),
        }
        rows[label] = {name: [] for name in subjects}
        for _ in range(rounds):
            for name, timer in subjects.items():
                reads, warm_up = _reads_in(timer, seconds)
                rows[label][name].append(timer.timeit(reads) / (reads * burst) * 1e9)
                if name == METER:
                    fed += (reads + warm_up) * burst
    if meter.messages != fed:
        raise AssertionError(f"the meter counted {meter.messages} of {fed} messages")
    return Table(TITLE, rows, beside=(WEBSOCKETS,))


def _reads_in(timer: Timer, seconds: float) -> tuple[int, int]:
    """How many reads take about `seconds`, and how many were made to find that out."""
    made, reads = 0, 1
    while True:
        taken = timer.timeit(reads)
        made += reads
        if taken >= seconds / 20:
            return max(1, int(reads * seconds / taken)), made
        reads *= 4
