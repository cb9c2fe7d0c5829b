"""The listener of the exporter's own HTTP: uvicorn in the loop of the relay, without its hands on the process."""

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from functools import partial
from typing import Any, Final, cast

import uvicorn
from starlette.types import ASGIApp

from exporter import listening
from exporter.config import Address
from exporter.web.errors import ErrorAnswers
from exporter.web.protocol import Door, GuardedProtocol, Limits

BACKLOG: Final = 512
GRACE: Final = 1.0
"""Seconds that answers under way get when the listener stops."""


class Listener:
    """Clients may connect from now on; they are served while `run` runs. `address` is where."""

    def __init__(self, sock: socket.socket, app: ASGIApp, answers: ErrorAnswers, limits: Limits) -> None:
        self.address = listening.address_of(sock)
        self._socket = sock
        self._server = _Server(_config(app, Door(limits, answers)))
        self._begun = False

    async def run(self) -> None:
        """Serve until `stop` is called and the answers under way are out, GRACE seconds at most."""
        self._begun = True
        try:
            if not self._server.stopping.is_set():
                await self._server.serve(sockets=[self._socket])
        finally:
            self._server.cut()
            self._socket.close()

    def stop(self) -> None:
        """Have `run` end; where it never began, stop listening."""
        self._server.stopping.set()
        if not self._begun:
            self._socket.close()


async def listen(app: ASGIApp, address: Address, answers: ErrorAnswers, limits: Limits | None = None) -> Listener:
    """Listen on `address`. `answers` makes and counts the errors below HTTP, which `app` never sees.

    Raises ListenError.
    """
    return Listener(await listening.listen(address, BACKLOG), app, answers, limits or Limits())


class _Server(uvicorn.Server):
    """Takes no signals, and wakes up once a second, for the Date field, instead of ten times."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.stopping = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def main_loop(self) -> None:
        while not self.stopping.is_set():
            await self.on_tick(0)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.stopping.wait(), 1.0)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GRACE):
                while self.server_state.connections:
                    await asyncio.sleep(0.01)

    def cut(self) -> None:
        """End at once whatever is still there."""
        for server in getattr(self, "servers", ()):
            server.close()
        for connection in list(self.server_state.connections):
            connection.transport.abort()


def _config(app: ASGIApp, door: Door) -> uvicorn.Config:
    return uvicorn.Config(
        cast(Any, app),
        http=cast(Any, partial(GuardedProtocol, door=door)),
        ws="none",
        interface="asgi3",
        lifespan="off",
        workers=1,
        proxy_headers=False,
        server_header=False,
        log_config=None,
        log_level="error",
        access_log=False,
        backlog=BACKLOG,
        timeout_keep_alive=door.limits.idle,
    )
