"""The demo's service: a chat of the library `websockets` with a message limit, restarted again and again."""

import asyncio
import random
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Final

import structlog
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from exporter.config import Address
from exporter.demo.messages import message
from exporter.demo.scenario import Scenario
from exporter.demo.score import Board
from exporter.listening import address_of, listen

_BACKLOG: Final = 128
_PING_INTERVAL: Final = 5.0
_PATIENCE: Final = 1.0  # with clients that do not end their handshakes: no deploy waits longer, nor does Ctrl-C

_log = structlog.get_logger(__name__)


@contextmanager
def reserved_port() -> Iterator[Address]:
    """A port on loopback that others do not get while nobody listens on it: it stays bound.

    Else another program could take it during a deploy, or a connection to it could be given that very port as its
    own and meet itself.
    """
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", 0))
        yield address_of(sock)


class Service:
    """Answers each message with another, and is deployed anew from time to time."""

    def __init__(self, address: Address, scenario: Scenario, board: Board, chance: random.Random) -> None:
        self._address = address
        self._scenario = scenario
        self._board = board
        self._chance = chance
        self._window = float("-inf")
        self._admitted = 0

    async def run(self) -> None:
        """Serve and deploy until cancelled; whoever is connected then gets 1001 too."""
        due = time.monotonic() + self._scenario.first_deploy
        while True:
            self._board.next_deploy = due
            await self._serve_until(due)
            await asyncio.sleep(self._scenario.away)
            due = self._board.last_deploy + self._scenario.deploy_every

    async def _serve_until(self, deploy: float) -> None:
        sock = await listen(self._address, _BACKLOG)
        async with serve(
            self._answer,
            sock=sock,
            process_request=self._admit,
            max_size=self._scenario.message_limit,
            compression=None,
            ping_interval=_PING_INTERVAL,
            open_timeout=_PATIENCE,
            close_timeout=_PATIENCE,
        ) as server:
            await asyncio.sleep(deploy - time.monotonic())
            self._board.deploy(time.monotonic())
            _log.info(
                "deploy: the service closes every connection with 1001 and is away",
                number=self._board.deploys,
                connections=len(server.connections),
                away_seconds=self._scenario.away,
            )

    def _admit(self, connection: ServerConnection, _: Request) -> Response | None:
        """Refuse what comes faster than the service can take, as one does whose caches are cold after a deploy."""
        now = time.monotonic()
        if now - self._window >= 1.0:
            self._window, self._admitted = now, 0
        self._admitted += 1
        if self._admitted <= self._scenario.admitted_per_second or not self._board.deploys:
            return None
        refusal = connection.respond(HTTPStatus.SERVICE_UNAVAILABLE, "too many at once, come back later\n")
        refusal.headers["Retry-After"] = "1"
        return refusal

    async def _answer(self, connection: ServerConnection) -> None:
        try:
            async for _ in connection:
                await connection.send(message(self._chance, typical=900, most=self._scenario.message_limit))
        except ConnectionClosed:
            pass  # with which code is for the tap to say
