"""`serve` and `talk PORT PATTERN COUNT`: connections whose messages have one size in each direction, until told to end.

`serve` ends all of its connections with 1001 on SIGTERM, as libraries do. `talk` says `talking` once all of its
connections have been answered; `close` on its standard input has half of them close with 1000.
"""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

PING: Final = 0.1
UNDER_WAY: Final = 4
"""Messages that a client who pipelines has sent and not yet been answered."""


@dataclass(frozen=True)
class Pattern:
    """Bursts of messages, the next as soon as one is answered but `interval` seconds after it at least.

    Sizes are payloads in bytes. A burst leaves in one write; where `pipelined`, bursts do not wait for answers.
    Without messages there are only Pings, from both ends.
    """

    to_server: int
    to_client: int
    interval: float = 0.0
    burst: int = 1
    pipelined: bool = False


PATTERNS: Final = {
    "20-a-second": Pattern(300, 3000, 0.05),
    "1-a-second": Pattern(300, 3000, 1.0),
    "flat-out": Pattern(64, 200),
    "bursts": Pattern(200, 1500, 0.02, burst=16),
    "64-KiB": Pattern(64 * 1024, 100_000),
    "1-MiB": Pattern(1024 * 1024, 2 * 1024 * 1024),
    "pipelined-1-MiB": Pattern(1024 * 1024, 200_000, pipelined=True),
    "pipelined-200-kB": Pattern(200_000, 1024 * 1024, pipelined=True),
    "pipelined-900-B": Pattern(900, 900, burst=7, pipelined=True),
    "pings": Pattern(0, 0, PING, burst=0),
}


OPTIONS: Final[dict[str, Any]] = {
    "compression": None,
    "max_size": None,
    "max_queue": None,  # or who closes would not read up to the answer
    "ping_timeout": None,
}


async def serve_until_terminated() -> None:
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    async with serve(answer, "127.0.0.1", 0, ping_interval=PING * 7, **OPTIONS) as server:
        print(f"listening {next(iter(server.sockets)).getsockname()[1]}", flush=True)
        await ended.wait()


async def answer(connection: ServerConnection) -> None:
    assert connection.request is not None
    pattern = PATTERNS[connection.request.path.removeprefix("/")]
    reply = os.urandom(pattern.to_client)
    with contextlib.suppress(ConnectionClosed):
        async for _ in connection:
            await connection.send(reply)


async def converse(connection: ClientConnection, pattern: Pattern, answered: Callable[[], None]) -> None:
    """Until the connection ends."""
    message = os.urandom(pattern.to_server)
    if not pattern.burst:
        await (await connection.ping())
        answered()
        await connection.wait_closed()
        return
    for _ in range(UNDER_WAY if pattern.pipelined else 1):
        await send(connection, message, pattern.burst)
    while True:
        for _ in range(pattern.burst):
            await connection.recv()
        answered()
        if pattern.interval:
            await asyncio.sleep(pattern.interval)
        await send(connection, message, pattern.burst)


async def send(connection: ClientConnection, message: bytes, burst: int) -> None:
    """So many messages in one write."""
    async with connection.send_context():
        for _ in range(burst):
            connection.protocol.send_binary(message)


async def talk(port: str, name: str, count: int) -> None:
    pattern = PATTERNS[name]
    url = f"ws://127.0.0.1:{port}/{name}"
    waiting = set(range(count))
    connections: list[ClientConnection] = []

    async def one(number: int) -> None:
        async with connect(url, ping_interval=None if pattern.burst else PING, **OPTIONS) as connection:
            connections.append(connection)
            with contextlib.suppress(ConnectionClosed):
                await converse(connection, pattern, lambda: done(number))

    def done(number: int) -> None:
        if number in waiting:
            waiting.discard(number)
            if not waiting:
                print("talking", flush=True)

    async with asyncio.TaskGroup() as tasks:
        for number in range(count):
            tasks.create_task(one(number))
        await told_to_close()
        closing: list[Awaitable[None]] = [connection.close(1000) for connection in connections[: count // 2]]
        await asyncio.gather(*closing)


async def told_to_close() -> None:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    await reader.readline()


if __name__ == "__main__":
    asyncio.run(
        serve_until_terminated() if sys.argv[1] == "serve" else talk(sys.argv[2], sys.argv[3], int(sys.argv[4]))
    )
