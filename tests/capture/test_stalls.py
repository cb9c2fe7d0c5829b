"""The exporter stands still for a moment, as a process without CPU does: no end is lost for it."""

import signal
import socket
import struct
import sys
import time
from typing import Final

from benchmarks import load
from benchmarks.workload import Workload
from tests.capture.exporting import ACTIVE, CAPTURED, CLOSES, DROPS, exporting
from tests.capture.rights import needs_packet_sockets
from tests.peers.processes import program
from tests.wire.support import KEY, accepts, asks, close

pytestmark = needs_packet_sockets

STALL: Final = 0.8
"""Seconds."""
RING_BYTES: Final = "websocket_exporter_capture_ring_bytes"
LARGE: Final = 12 << 20
"""Bytes: half as many again as the size ring holds; of more than 8 MiB that are missed, no end can be told."""
PIECE: Final = 60_000
"""Bytes that one segment of the loopback has room for."""
RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)
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


def test_the_ring_is_read_before_it_grows() -> None:
    """A server refuses a large message at its header; so much follows that the size ring drops some of it, and grows.

    What it held by then shows that the client was still within that message, and had not sent a Close.
    """
    with (
        socket.create_server(("127.0.0.1", 0)) as service,
        exporting(f"--capture=lo:{service.getsockname()[1]}") as exporter,
        socket.create_connection(service.getsockname()) as client,
    ):
        server, _ = service.accept()
        say(client, server, asks()[1])
        say(server, client, accepts()[1])
        before = exporter.page_when(lambda page: page.value(ACTIVE, **CAPTURED) == 1, "it is open")
        exporter.program.signal(signal.SIGSTOP)
        say(client, server, b"\x82\xff" + (LARGE * 4).to_bytes(8) + KEY)
        say(server, client, close(1009))
        say(client, server, bytes(LARGE))
        server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        server.close()
        exporter.program.signal(signal.SIGCONT)
        page = exporter.closed(1)
    assert page.value(DROPS, ring="size") > 0
    assert page.value(RING_BYTES, ring="size") > before.value(RING_BYTES, ring="size")
    assert page.counted(CLOSES, "source", "code", "initiator") == {("capture", "1009", "server"): 1}


def say(sender: socket.socket, receiver: socket.socket, data: bytes) -> None:
    """All of it, which the other end reads."""
    for begin in range(0, len(data), PIECE):
        piece = data[begin : begin + PIECE]
        sender.sendall(piece)
        assert receiver.recv(len(piece), socket.MSG_WAITALL) == piece
