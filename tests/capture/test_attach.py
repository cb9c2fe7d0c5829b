"""An exporter that starts while connections run: how they end is told exactly, and no message in a wrong size."""

import sys
from typing import Final

import pytest

from tests.capture.exporting import ACTIVE, BYTES, CAPTURED, CLOSES, MESSAGES, SIZES, exporting
from tests.capture.rights import needs_packet_sockets
from tests.capture.traffic import PATTERNS
from tests.peers.processes import program
from tests.support.scraping import Page

pytestmark = needs_packet_sockets

CONNECTIONS: Final = 10
SEEN: Final = 8 * CONNECTIONS
"""Messages counted in each direction by which every connection is taken to be followed."""
RTT: Final = "websocket_ping_rtt_seconds_count"


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    "pattern", [pytest.param(name, marks=[] if name == "20-a-second" else pytest.mark.matrix) for name in PATTERNS]
)
def test_connections_that_run_already(pattern: str) -> None:
    """Half of them are closed by their clients, half by the server's end; all are marked as attached."""
    talked = PATTERNS[pattern]
    module = (sys.executable, "-m", "tests.capture.traffic")
    with program([*module, "serve"]) as server:
        port = server.line("listening")
        with program([*module, "talk", port, pattern, str(CONNECTIONS)]) as clients:
            clients.line("talking")
            with exporting(f"--capture=lo:{port}") as exporter:
                exporter.page_when(lambda page: followed(page, pings=not talked.burst), "all are followed", 40)
                clients.tell("close")
                exporter.page_when(
                    lambda page: page.value(CLOSES, **CAPTURED) >= CONNECTIONS // 2, "half of them are closed"
                )
                server.terminate()
                page = exporter.closed(CONNECTIONS)
                closes = exporter.closes()
    assert page.counted(CLOSES, "source", "code", "initiator") == {
        ("capture", "1000", "client"): CONNECTIONS // 2,
        ("capture", "1001", "server"): CONNECTIONS // 2,
    }
    assert [close.get("attached") for close in closes] == [True] * CONNECTIONS
    for direction, size in (("client_to_server", talked.to_server), ("server_to_client", talked.to_client)):
        assert sizes(page, direction) == (wholly_of(page, direction, size) if talked.burst else {})


def followed(page: Page, *, pings: bool) -> bool:
    """Whether every connection is known, and enough has been counted."""
    if page.value(ACTIVE, **CAPTURED) != CONNECTIONS:
        return False
    if pings:
        return page.value(RTT, **CAPTURED) >= SEEN
    return all(
        page.value(MESSAGES, **CAPTURED, direction=direction) >= SEEN
        for direction in ("client_to_server", "server_to_client")
    )


def sizes(page: Page, direction: str) -> dict[str, float]:
    """What is counted of the messages of one direction: by bound, and their bytes; what is 0 left out."""
    found = page.counted(SIZES, "source", "direction", "le")
    counts = {le: value for (source, way, le), value in found.items() if (source, way) == ("capture", direction)}
    total = page.value(BYTES, **CAPTURED, direction=direction)
    return counts | ({"sum": total} if total else {})


def wholly_of(page: Page, direction: str, size: int) -> dict[str, float]:
    """The same if as many messages were all of this size."""
    number = page.value(MESSAGES, **CAPTURED, direction=direction)
    bounds = {sample.labels["le"] for sample in page.samples[SIZES]}
    return {bound: number for bound in bounds if float(bound) >= size} | {"sum": number * size}
