"""The listener of the exporter's own HTTP: uvicorn in the loop of the relay, without its hands on the process."""

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, Final, cast

import uvicorn
from starlette.types import ASGIApp

from exporter import listening
from exporter.config import Address
from exporter.web.errors import ErrorAnswers
from exporter.web.protocol import Door, GuardedProtocol, Limits, Prompt

if TYPE_CHECKING:
    from exporter.web.gate import Gate
    from exporter.web.tls import Handshakes

BACKLOG: Final = 512
GRACE: Final = 1.0
"""Seconds that answers under way get when the listener stops."""


class Listener:
    """Clients may connect from now on; they are served while `run` runs. `address` is where."""

    def __init__(self, sock: socket.socket, app: ASGIApp, door: Door, gate: "Gate | None") -> None:
        self.address = listening.address_of(sock)
        self._socket = sock
        self._server = _Server(_config(app, door), gate)
        self._handshakes = self._tls(gate, door) if gate is not None and gate.config.tls is not None else None
        self._begun = False

    async def run(self) -> None:
        """Serve until `stop` is called and the answers under way are out, GRACE seconds at most."""
        self._begun = True
        try:
            if not self._server.stopping.is_set():
                async with asyncio.TaskGroup() as tasks:
                    if self._handshakes is not None:
                        self._server.accepting = tasks.create_task(self._handshakes.run())
                    await self._server.serve(sockets=[self._socket])
        finally:
            self._server.cut()
            self._socket.close()

    def stop(self) -> None:
        """Have `run` end; where it never began, stop listening."""
        self._server.stopping.set()
        if not self._begun:
            self._socket.close()

    def _tls(self, gate: "Gate", door: Door) -> "Handshakes":
        from exporter.web.tls import Handshakes

        handshakes = Handshakes(
            self._socket,
            gate,
            door.limits,
            self._server.protocol,
            served=lambda: len(self._server.server_state.connections) - len(door.lingering),
            refused=lambda: door.answers.count("overloaded"),
        )
        door.admits = handshakes.admits
        return handshakes


async def listen(
    app: ASGIApp,
    address: Address,
    answers: ErrorAnswers,
    limits: Limits | None = None,
    gate: "Gate | None" = None,
    prompt: Prompt | None = None,
) -> Listener:
    """Listen on `address`. `answers` makes and counts the errors below HTTP, which `app` never sees.

    `gate` has the web configuration: it guards `app`, asks for TLS and sets headers. `prompt` answers some requests
    without `app`, unless there is a gate, which it would get round. Raises ListenError.
    """
    if gate is not None:
        from exporter.web.auth import guard

        app = guard(app, gate, answers)
        prompt = None
    door = Door(limits or Limits(), answers, prompt=prompt)
    return Listener(await listening.listen(address, BACKLOG), app, door, gate)


class _Server(uvicorn.Server):
    """Takes no signals, and wakes up once a second, for the Date field, instead of ten times.

    Over TLS a task is `accepting` the connections.
    """

    def __init__(self, config: uvicorn.Config, gate: "Gate | None") -> None:
        super().__init__(config)
        self._gate = gate
        self.accepting: asyncio.Task[None] | None = None
        self.stopping = asyncio.Event()

    def protocol(self) -> GuardedProtocol:
        """What serves one more connection."""
        make = cast(Any, self.config.http_protocol_class)
        return cast(GuardedProtocol, make(config=self.config, server_state=self.server_state, app_state={}))

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets if self.accepting is None else [])

    async def main_loop(self) -> None:
        while not self.stopping.is_set():
            if self._gate is not None:
                headers = self._gate.config.headers
                self.config.encoded_headers = [
                    (name.lower().encode(), value.encode()) for name, value in headers.items()
                ]
            await self.on_tick(0)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.stopping.wait(), 1.0)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if self.accepting is not None:
            self.accepting.cancel()
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
    protocol: Callable[..., GuardedProtocol] = partial(GuardedProtocol, door=door)
    if door.prompt is not None:
        from exporter.web.prompt import Heads, PromptProtocol

        protocol = partial(PromptProtocol, door=door, heads=Heads())
    return uvicorn.Config(
        cast(Any, app),
        http=cast(Any, protocol),
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
