"""Real WebSocket services and clients: the `websockets` library, in this process or in one that can be killed."""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, Final

from websockets.asyncio.client import ClientConnection
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from exporter.config import Address

ROOT: Final = Path(__file__).parents[2]


async def echo(connection: ServerConnection) -> None:
    with contextlib.suppress(ConnectionClosed):
        async for message in connection:
            await connection.send(message)


@contextlib.asynccontextmanager
async def service(
    handler: Callable[[ServerConnection], Awaitable[None]] = echo, *, port: int = 0, **options: Any
) -> AsyncIterator[tuple[Server, Address]]:
    """A service on loopback, on a free port unless one is given."""
    async with serve(handler, "127.0.0.1", port, **options) as server:
        yield server, Address(*next(iter(server.sockets)).getsockname())


async def close_empty(connection: ClientConnection | ServerConnection) -> None:
    """Send a Close frame without a body, which the library's own `close` never does."""
    async with connection.send_context():
        connection.protocol.send_close()


@contextlib.asynccontextmanager
async def program(*arguments: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """A module of the tests as a process of its own, and the first line that it printed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", *arguments, cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        yield process, (await process.stdout.readline()).decode().strip()
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
