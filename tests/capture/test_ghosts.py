"""Connections whose end was dropped do not stay, and those that are only silent do."""

import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Final

import pytest

from benchmarks import load
from tests.capture.exporting import ACTIVE, CAPTURED, CLOSES, DROPS, Exporter, exporting
from tests.capture.rights import needs_packet_sockets
from tests.capture.talking import DUAL
from tests.peers.processes import program
from tests.peers.raw import PATIENCE, Raw

pytestmark = [needs_packet_sockets, pytest.mark.timeout(120)]

DOOMED: Final = 20
SILENT: Final = ("127.0.0.1", "127.0.0.1", "::1", "::1")
"""To where connections are opened that stay: for the server's kernel all of them are IPv6."""
VISITS: Final = 6000
"""Connections that come and go meanwhile, enough for any lifecycle ring."""
PATH: Final = "/0/client-1000"
GHOSTS_GONE: Final = 45.0
"""Seconds."""


@pytest.mark.matrix
def test_ends_that_were_dropped() -> None:
    """While the exporter stands still, more connections come and go than it can be told of, and some end that it knew.

    Those are closed as `unknown`, or as what they were; the silent ones stay, and are followed to their end.
    """
    with ExitStack() as stack:
        server = stack.enter_context(program([sys.executable, "-m", "tests.capture.talking", "serve", DUAL]))
        port = int(server.line("listening"))
        exporter = stack.enter_context(exporting(f"--capture=lo:{port}"))
        silent = [stack.enter_context(opened(host, port)) for host in SILENT]
        doomed = [stack.enter_context(opened("127.0.0.1", port)) for _ in range(DOOMED)]
        exporter.page_when(lambda page: page.value(ACTIVE, **CAPTURED) == len(SILENT) + DOOMED, "all are open")
        exporter.program.signal(signal.SIGSTOP)
        visit(port)
        for connection in doomed:
            connection.close(1000)
            connection.until_over()
        exporter.program.signal(signal.SIGCONT)
        page = exporter.page_when(lambda page: page.value(DROPS, ring="lifecycle") > 0, "ends were dropped")
        page = exporter.page_when(
            lambda page: page.value(ACTIVE, **CAPTURED) == len(SILENT), "no ghosts are left", GHOSTS_GONE
        )
        closes = page.counted(CLOSES, "source", "code", "initiator")
        assert set(closes) <= {("capture", "1000", "client"), ("capture", "unknown", "unknown")}
        assert closes["capture", "unknown", "unknown"] > 0
        stays(exporter)
        ended = page.value(CLOSES)
        for connection in silent:
            connection.text("still here")
            connection.message()
            connection.close(1000)
            connection.until_over()
        page = exporter.closed(int(ended) + len(SILENT))
        closes[("capture", "1000", "client")] = closes.get(("capture", "1000", "client"), 0) + len(SILENT)
        assert page.counted(CLOSES, "source", "code", "initiator") == closes


@contextmanager
def opened(host: str, port: int) -> Iterator[Raw]:
    with Raw(socket.create_connection((host, port), PATIENCE), client=True) as client:
        assert client.ask(PATH) == 101
        yield client


def visit(port: int) -> None:
    """Come and go, as many as the kernel has to tell of."""
    for _ in range(VISITS // load.BATCH):
        load.close(load.connect(port, PATH, load.BATCH))


def stays(exporter: Exporter) -> None:
    """The silent ones are there for longer than the kernel is left unasked behind a drop."""
    looks = 0

    def enough(page: object) -> bool:
        nonlocal looks
        looks += 1
        return looks > 50

    page = exporter.page_when(enough, "it has been looked at for a while")
    assert page.value(ACTIVE, **CAPTURED) == len(SILENT)
