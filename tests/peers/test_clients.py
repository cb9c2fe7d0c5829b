"""Every way in which real clients end a WebSocket, or see it ended, through the tap; the server is made of bytes."""

import contextlib
import signal
import socket
from collections.abc import Callable, Iterator
from typing import Final

import pytest

from tests.peers.peers import CLIENTS, LIMIT, client
from tests.peers.processes import Program
from tests.peers.raw import BAD_UTF8, BINARY, PING, PONG, RESERVED, TEXT, Raw
from tests.peers.rows import cells, row
from tests.peers.stack import Chain
from tests.peers.witness import Kind, Side

Act = Callable[[Raw, Program], None]

FIRST_CLOSE: Final = """
                 close 1000 4000    1005     999 sigterm sigkill sigint oversize utf8 opcode masked no-pong
websockets        1000 1000 4000    1011    1011    1006    1006   1011     1009 1007   1002   1002    1011
aiohttp           1000 1000 4000 invalid invalid    1006    1006   1000     1009 1007   1002   open    1006
websocket-client  1000 1000 4000 invalid invalid    1006    1006   1000     open 1000   1000   open    1000
ws                1005 1000 4000    1006    1006    1006    1006   1006     1009 1007   1002   1002    1006
"""
"""The code that a client ends with: by its own wish (with no code, a legal or an illegal one), by a signal, and by
frames that it must refuse, or silence. `open`: it accepts the frame."""

MEETINGS: Final[dict[str, Act]] = {
    "close": lambda server, client: client.tell("close"),
    "1000": lambda server, client: client.tell("close 1000"),
    "4000": lambda server, client: client.tell("close 4000"),
    "1005": lambda server, client: client.tell("close 1005"),
    "999": lambda server, client: client.tell("close 999"),
    "sigterm": lambda server, client: client.terminate(),
    "sigkill": lambda server, client: client.signal(signal.SIGKILL),
    "sigint": lambda server, client: client.signal(signal.SIGINT),
    "oversize": lambda server, client: server.frame(BINARY, bytes(4 * LIMIT)),
    "utf8": lambda server, client: server.frame(TEXT, BAD_UTF8),
    "opcode": lambda server, client: server.frame(RESERVED, b"?"),
    "masked": lambda server, client: server.frame(TEXT, b"?", masked=True),
    "no-pong": lambda server, client: server.fall_silent(),
}
"""How a client is brought to what a column of FIRST_CLOSE is about."""

ALIKE: Final[dict[str, tuple[Act, str, tuple[Side, Kind] | None]]] = {
    "server-1000": (lambda server, client: server.close(1000), "1000 server", None),
    "server-4000": (lambda server, client: server.close(4000), "4000 server", None),
    "server-4321": (lambda server, client: server.close(4321), "4xxx server", None),
    "server-empty": (lambda server, client: server.close(None), "1005 server", None),
    "server-1005": (lambda server, client: server.close(1005), "invalid server", None),
    "server-half-close": (lambda server, client: server.finish(), "1006 server", ("server", "fin")),
    "server-reset": (lambda server, client: server.reset(), "1006 server", ("server", "reset")),
}
"""Endings that look the same whatever the client: how, the close counted, and how TCP must end first."""


@contextlib.contextmanager
def listening() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(20)
        yield listener


def accepted(listener: socket.socket) -> Raw:
    return Raw(listener.accept()[0], client=False)


def open_up(server: Raw, client: Program) -> None:
    """The opening handshake, and one message."""
    server.answer()
    client.line("open")
    client.tell("send hello")
    assert server.message() == b"hello"


def stays_open(server: Raw) -> None:
    """The client goes on: it still answers a Ping. Then the server closes."""
    server.frame(PING, b"still there?")
    while server.read() != (PONG, b"still there?"):
        pass
    server.close(1000)


def options(name: str, ending: str) -> tuple[str, ...]:
    return (f"--limit={LIMIT}", *(("--ping=1",) if ending == "no-pong" else ()))


@pytest.mark.parametrize(
    ("name", "ending", "code"),
    [
        row(CLIENTS[name].needs, name, ending, code, matrix=ending != "close")
        for (name, ending), code in cells(FIRST_CLOSE).items()
    ],
)
def test_what_ends_a_client(chain: Chain, name: str, ending: str, code: str) -> None:
    """The client's own end is counted once, with the code that this library is known to send."""
    with (
        listening() as listener,
        chain.to(listener.getsockname()[1]) as observed,
        client(name, chain.port, *options(name, ending)) as started,
        accepted(listener) as server,
    ):
        open_up(server, started)
        MEETINGS[ending](server, started)
        if code == "open":
            stays_open(server)
        server.until_over()
        verdict = observed.verdict()
    assert verdict.closed_once() == ("1000 server" if code == "open" else f"{code} client")
    verdict.assert_untouched()


@pytest.mark.parametrize(
    ("name", "ending"), [row(peer.needs, name, ending) for name, peer in CLIENTS.items() for ending in ALIKE]
)
def test_what_ends_every_client_alike(chain: Chain, name: str, ending: str) -> None:
    """Whatever the server does is the server's, with its code, however the library answers it."""
    act, close, transport = ALIKE[ending]
    with (
        listening() as listener,
        chain.to(listener.getsockname()[1]) as observed,
        client(name, chain.port, *options(name, ending)) as started,
        accepted(listener) as server,
    ):
        open_up(server, started)
        act(server, started)
        if ending != "server-reset":
            server.until_over()
        verdict = observed.verdict()
    assert verdict.closed_once() == close
    if transport is not None:
        assert verdict.transport_ends() == {transport}
    verdict.assert_untouched()


@pytest.mark.parametrize("name", [row(peer.needs, name) for name, peer in CLIENTS.items()])
def test_a_client_that_is_refused(chain: Chain, name: str) -> None:
    """A refused client has no WebSocket: a rejected handshake with its status, and no close."""
    with (
        listening() as listener,
        chain.to(listener.getsockname()[1]) as observed,
        client(name, chain.port),
        accepted(listener) as server,
    ):
        server.refuse()
        observed.verdict().assert_refused(403)
