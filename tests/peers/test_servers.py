"""Every way in which real servers end a WebSocket, or see it ended, through the tap.

The client is made of bytes, so that it can break the protocol. Every row asserts one close, its code and initiator,
how TCP ended, and that no byte changed; the witnesses beside the tap must agree.
"""

import contextlib
import signal
from collections.abc import Callable
from typing import Final

import pytest

from tests.peers import truth
from tests.peers.peers import LIMIT, SERVERS, Server, server
from tests.peers.raw import BAD_UTF8, BINARY, PING, PONG, RESERVED, TEXT, Over, Raw, connected
from tests.peers.rows import cells, row
from tests.peers.servers.commands import REFUSED
from tests.peers.stack import Chain, eventually
from tests.peers.witness import Kind, Side

Act = Callable[[Raw, Server], None]

OVERSIZE: Final = 4 * LIMIT
GRANIAN_OVERSIZE: Final = (16 << 20) + LIMIT
"""granian's limit cannot be configured."""
FLOOD: Final = 32 << 20
"""More than all buffers on the way hold."""

FIRST_CLOSE: Final = """
                          sigterm oversize utf8 opcode unmasked no-pong raise return close 1000 4000    1005     999
websockets                   1001     1009 1007   1002     1002    1011  1011   1000  1000 1000 4000    1011    1011
uvicorn-websockets           1012     1009 1007   1002     1002    1011  1006   1006  1000 1000 4000    1006    1006
uvicorn-websockets-sansio    1012     1009 1007   1002     1002    1011  1006   1006  1000 1000 4000    1006    1006
uvicorn-wsproto              1012     1009 1006   1006     1006    1011  1006   1006  1000 1000 4000    1000 invalid
hypercorn                    1011     1009 1006   1006     1006       -  1011   1011  1000 1000 4000    1000 invalid
granian                      1006     1005 1005   1005     1005       -  1005   1005  1000 1000 4000 invalid invalid
aiohttp                      1006     1009 1007   1002     open    1006  1006   1000  1000 1000 4000 invalid invalid
tornado                      1006     1009 1006   1006     open    1000  1006      -  1005 1000 4000 invalid invalid
sanic                        1000     1009 open   1002     1002    1011  1000   1000  1000 1000 4000    1000    1000
ws                           1006     1009 1007   1002     1002    1006  1006      -  1005 1000 4000    1006    1006
uwebsockets                  1006     1006 1006   1006     mute    1006  1006      -  1005 1000 4000    1005 invalid
"""
"""The code that a server ends with, by what it meets: SIGTERM, frames that it must refuse, silence, an application that
fails, returns, or closes with no code, a legal or an illegal one. `open`: it accepts the frame. `mute`: it takes the
frame for a longer one and waits for the rest. `-`: cannot be had."""

MEETINGS: Final[dict[str, Act]] = {
    "sigterm": lambda client, server: server.program.terminate(),
    "oversize": lambda client, server: client.frame(BINARY, bytes(OVERSIZE)),
    "utf8": lambda client, server: client.frame(TEXT, BAD_UTF8),
    "opcode": lambda client, server: client.frame(RESERVED, b"?"),
    "unmasked": lambda client, server: client.frame(TEXT, b"?", masked=False),
    "no-pong": lambda client, server: client.fall_silent(),
    "raise": lambda client, server: client.text("raise"),
    "return": lambda client, server: client.text("return"),
    "close": lambda client, server: client.text("close"),
    "1000": lambda client, server: client.text("close 1000"),
    "4000": lambda client, server: client.text("close 4000"),
    "1005": lambda client, server: client.text("close 1005"),
    "999": lambda client, server: client.text("close 999"),
}
"""How a server is brought to what a column of FIRST_CLOSE is about."""


def kill_with_unread_data(client: Raw, server: Server) -> None:
    server.program.signal(signal.SIGSTOP)
    client.text("never read")
    eventually(lambda: unread(server.port), "the message waits in the server's socket")
    server.program.signal(signal.SIGKILL)


def unread(port: int) -> bool:
    """Whether bytes wait to be read on a connection of the server at `port` (proc(5): local address, queues)."""
    with open("/proc/net/tcp") as table:
        fields = (line.split() for line in table)
        return any(each[1].endswith(f":{port:04X}") and int(each[4][9:], 16) and each[3] == "01" for each in fields)


ALIKE: Final[dict[str, tuple[Act, str, tuple[Side, Kind] | None]]] = {
    "sigkill": (lambda client, server: server.program.signal(signal.SIGKILL), "1006 server", ("server", "fin")),
    "sigkill-unread": (kill_with_unread_data, "1006 server", ("server", "reset")),
    "client-1000": (lambda client, server: client.close(1000), "1000 client", None),
    "client-4000": (lambda client, server: client.close(4000), "4000 client", None),
    "client-4321": (lambda client, server: client.close(4321), "4xxx client", None),
    "client-2999": (lambda client, server: client.close(2999), "reserved client", None),
    "client-empty": (lambda client, server: client.close(None), "1005 client", None),
    "client-1005": (lambda client, server: client.close(1005), "invalid client", None),
    "client-half-close": (lambda client, server: client.finish(), "1006 client", ("client", "fin")),
    "client-reset": (lambda client, server: client.reset(), "1006 client", ("client", "reset")),
}
"""Endings that look the same whatever the server: how, the close counted, and how TCP must end first."""


def stays_open(client: Raw) -> None:
    """The server goes on: it still answers a Ping. Then the client closes."""
    client.frame(PING, b"still there?")
    while client.read() != (PONG, b"still there?"):
        pass
    client.close(1000)


def options(name: str, ending: str) -> tuple[str, ...]:
    return (f"--limit={LIMIT}", *(("--ping=1",) if ending == "no-pong" else ()))


@pytest.mark.parametrize(
    ("name", "ending", "code"),
    [
        row(SERVERS[name].needs, name, ending, code, matrix=ending != "oversize")
        for (name, ending), code in cells(FIRST_CLOSE).items()
        if code != "-"
    ],
)
def test_what_ends_a_server(chain: Chain, name: str, ending: str, code: str) -> None:
    """The server's own end is counted once, with the code that this framework is known to send."""
    with server(name, *options(name, ending)) as started, chain.to(started.port) as observed:
        with connected(chain.port) as client:
            assert client.ask() == 101
            client.text("hello")
            assert client.message() == b"hello"
            with contextlib.suppress(Over):  # it may refuse before all is sent
                if (name, ending) == ("granian", "oversize"):
                    client.frame(BINARY, bytes(GRANIAN_OVERSIZE))
                else:
                    MEETINGS[ending](client, started)
            if code == "open":
                stays_open(client)
            elif code == "mute":
                client.close(1000)
                client.finish()
            client.until_over()
        verdict = observed.verdict()
    assert verdict.closed_once() == ("1000 client" if code in ("open", "mute") else f"{code} server")
    verdict.assert_untouched()


@pytest.mark.parametrize(
    ("name", "ending"), [row(peer.needs, name, ending) for name, peer in SERVERS.items() for ending in ALIKE]
)
def test_what_ends_every_server_alike(chain: Chain, name: str, ending: str) -> None:
    """A killed server and whatever the client does are told apart by who was first, and TCP ends as it ended."""
    act, close, transport = ALIKE[ending]
    with server(name) as started, chain.to(started.port) as observed:
        with connected(chain.port) as client:
            assert client.ask() == 101
            client.text("hello")
            assert client.message() == b"hello"
            act(client, started)
            if ending != "client-reset":
                client.until_over()
        verdict = observed.verdict()
    assert verdict.closed_once() == close
    if transport is not None:
        assert verdict.transport_ends() == {transport}
    verdict.assert_untouched()


@pytest.mark.parametrize("name", [row(peer.needs, name) for name, peer in SERVERS.items()])
def test_last_words(chain: Chain, name: str) -> None:
    """What a server says when it breaks off in the middle of a message is counted, though nobody listens any more."""
    with server(name) as started, chain.to(started.port) as observed:
        with connected(chain.port) as client:
            assert client.ask() == 101
            with contextlib.suppress(Over):
                client.flood(FLOOD)
                client.read()
        started.program.signal(signal.SIGKILL)  # some read no more, but would stay for ever
        verdict = observed.verdict()
    assert verdict.closed_once() == f"{cells(FIRST_CLOSE)[name, 'oversize']} server"
    verdict.assert_untouched()


@pytest.mark.parametrize("name", [row(peer.needs, name) for name, peer in SERVERS.items()])
def test_a_refused_upgrade(chain: Chain, name: str) -> None:
    """A server that refuses makes no WebSocket: a rejected handshake with its status, and no close."""
    with server(name) as started, chain.to(started.port) as observed:
        with connected(chain.port) as client:
            assert client.ask(REFUSED) == 403
        observed.verdict().assert_refused(403)


def test_every_server_is_in_the_table() -> None:
    """No server is left out of the table."""
    assert [line.split()[0] for line in FIRST_CLOSE.strip().splitlines()[1:]] == list(SERVERS)
    assert truth.LISTED == 4000
