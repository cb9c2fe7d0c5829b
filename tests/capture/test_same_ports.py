"""One client that comes back from the port that it had, as proxies with many connections do: each time a new one."""

import socket
import sys
from typing import Final

import pytest

from tests.capture.exporting import CLOSES, HANDSHAKES, MESSAGES, exporting
from tests.capture.rights import needs_packet_sockets
from tests.peers.processes import program
from tests.peers.raw import PATIENCE, Raw
from tests.peers.stack import eventually

pytestmark = needs_packet_sockets

TIMES: Final = 10


def connected(port: int, source: int) -> Raw | None:
    """From that port, as soon as the kernel allows it."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.settimeout(PATIENCE)
    sock.bind(("127.0.0.1", source))
    try:
        sock.connect(("127.0.0.1", port))
    except OSError:
        sock.close()
        return None
    return Raw(sock, client=True)


@pytest.mark.parametrize("ending", ["client-reset", "server-1001"])
def test_the_same_ports_again(ending: str) -> None:
    """A connection between the same ports, moments after the last, is counted like any other."""
    code = "1006" if ending == "client-reset" else "1001"
    with (
        program([sys.executable, "-m", "tests.capture.talking", "serve", "127.0.0.1"]) as server,
        exporting(f"--capture=lo:{(port := int(server.line('listening')))}") as exporter,
    ):
        with socket.create_server(("127.0.0.1", 0)) as unused:
            source = unused.getsockname()[1]
        for _ in range(TIMES):
            with eventually(lambda: connected(port, source), "it may connect again") as client:
                assert client.ask(f"/0/{ending}") == 101
                client.text("hello")
                client.message()
                if ending == "client-reset":
                    client.reset()
                else:
                    client.text("last")
                    client.until_over()
            server.line("ended")
        page = exporter.closed(TIMES)
    assert page.counted(CLOSES, "code", "initiator") == {(code, "client" if code == "1006" else "server"): TIMES}
    assert page.counted(HANDSHAKES, "outcome") == {("accepted",): TIMES}
    asked = 1 if ending == "client-reset" else 2
    assert page.value(MESSAGES, direction="client_to_server") == asked * TIMES
    assert page.value(MESSAGES, direction="server_to_client") == TIMES
