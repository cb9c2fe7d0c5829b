"""The exporter stands still for a moment, as a process without CPU does: no end is lost for it."""

import signal
import sys
import time
from typing import Final

from benchmarks import load
from benchmarks.workload import Workload
from tests.capture.exporting import CAPTURED, CLOSES, DROPS, exporting
from tests.capture.rights import needs_packet_sockets
from tests.peers.processes import program

pytestmark = needs_packet_sockets

STALL: Final = 0.8
"""Seconds."""
PACE: Final = 0.01
"""Seconds from one connection to the next: few packets, but at no time none for long."""


def test_few_connections_come_and_go_meanwhile() -> None:
    """They are far from filling a ring; each is told, with its code."""
    path = Workload(64).path
    with (
        program([sys.executable, "-m", "benchmarks.echo"]) as service,
        exporting(f"--capture=lo:{(port := int(service.line('')))}") as exporter,
    ):
        exporter.program.signal(signal.SIGSTOP)
        visits, begin = 0, time.monotonic()
        while (due := visits * PACE) < STALL:
            time.sleep(max(0.0, begin + due - time.monotonic()))
            load.close(load.connect(port, path, 1))
            visits += 1
        exporter.program.signal(signal.SIGCONT)
        page = exporter.closed(visits)
    assert page.counted(DROPS, "ring") == {}
    assert page.counted(CLOSES, "source", "code", "initiator") == {("capture", "1000", "client"): visits}
    assert page.value(CLOSES, **CAPTURED) == visits
