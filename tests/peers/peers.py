"""The peers that rows are about: how each is started, and what it needs."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from tests.peers.processes import Program, program

LIMIT: Final = 1024
"""Bytes that a message to a server may have, unless it is started without a limit."""


@dataclass(frozen=True)
class Peer:
    """A server or client program, and the programs and packages without which it is skipped."""

    command: tuple[str, ...]
    needs: tuple[str, ...]


def _python(module: str, *arguments: str, needs: tuple[str, ...] = ()) -> Peer:
    return Peer((sys.executable, "-m", f"tests.peers.{module}", *arguments), needs)


def _node(script: str, package: str) -> Peer:
    return Peer(("node", f"tests/peers/{script}"), ("node", package))


SERVERS: Final = {
    "websockets": _python("servers.websockets_server"),
    "uvicorn-websockets": _python("servers.asgi", "websockets"),
    "uvicorn-websockets-sansio": _python("servers.asgi", "websockets-sansio"),
    "uvicorn-wsproto": _python("servers.asgi", "wsproto", needs=("wsproto",)),
    "hypercorn": _python("servers.asgi", "hypercorn", needs=("hypercorn",)),
    "granian": _python("servers.granian_server", needs=("granian",)),
    "aiohttp": _python("servers.aiohttp_server", needs=("aiohttp",)),
    "tornado": _python("servers.tornado_server", needs=("tornado",)),
    "sanic": _python("servers.sanic_server", needs=("sanic",)),
    "ws": _node("servers/ws_server.js", "ws"),
    "uwebsockets": _node("servers/uwebsockets_server.js", "uwebsockets"),
}

CLIENTS: Final = {
    "websockets": _python("clients.websockets_client"),
    "aiohttp": _python("clients.aiohttp_client", needs=("aiohttp",)),
    "websocket-client": _python("clients.websocket_client", needs=("websocket-client",)),
    "ws": _node("clients/ws_client.js", "ws"),
}

FUZZED_CLIENTS: Final = {
    "websockets": _python("clients.autobahn_websockets"),
    "ws": _node("clients/autobahn_ws.js", "ws"),
}
"""Clients that echo whatever an Autobahn fuzzing server has for them."""


@dataclass(frozen=True)
class Server:
    """A running server."""

    program: Program
    port: int


@contextmanager
def server(name: str, *options: str) -> Iterator[Server]:
    """A running server, with a message size limit unless other options are given."""
    with program([*SERVERS[name].command, *(options or (f"--limit={LIMIT}",))]) as started:
        yield Server(started, int(started.line("listening")))


@contextmanager
def client(name: str, port: int, *options: str, path: str = "/") -> Iterator[Program]:
    """A client that is connecting to `port` on this machine."""
    with program([*CLIENTS[name].command, f"ws://127.0.0.1:{port}{path}", *options]) as started:
        yield started
