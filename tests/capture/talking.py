"""`serve HOST` and `talk HOST PORT COUNT SEED`: conversations that end in every way, and what each end knows of them.

A connection's path says its number and how it ends. Both programs print a line `ended {...}` for each connection, with
what their library told them; the client exits when all are over.
"""

import asyncio
import contextlib
import json
import math
import socket
import struct
import sys
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass
from random import Random
from typing import Final

from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

LARGEST: Final = 70_000
MESSAGES: Final = 6
"""Sent by each client, and answered by as many."""
BYTEWISE: Final = 5
"""Of so many clients one writes its bytes one by one. Its messages are small: each byte is a packet."""
BYTEWISE_LARGEST: Final = 300
PING: Final = 0.5
"""Seconds between Pings, by which an end whose RST or FIN was lost is found out. Nobody minds a Pong that is late."""
RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)

ENDINGS: Final = {
    "client-1000": ("1000", "client"),
    "client-4000": ("4xxx", "client"),
    "client-hurries": ("1000", "client"),
    "client-fin": ("1006", "client"),
    "client-reset": ("1006", "client"),
    "server-1001": ("1001", "server"),
    "server-fin": ("1006", "server"),
    "server-reset": ("1006", "server"),
}
"""How each connection ends, by its number, and what is to be counted: code and initiator. Who hurries sends its last
message and its Close frame at once, and does not wait for the answer."""

DUAL: Final = "dual"
"""In the place of a host: both versions of IP."""

LAST: Final = "last"
"""The message by which a client asks the server to end the connection."""


@dataclass
class Told:
    """What one end knows of a connection: the messages that it has received and sent, and their payloads' bytes."""

    path: str
    received: int = 0
    received_bytes: int = 0
    sent: int = 0
    sent_bytes: int = 0

    def has_received(self, message: str | bytes) -> None:
        self.received += 1
        self.received_bytes += len(message)

    def has_sent(self, message: str | bytes) -> None:
        self.sent += 1
        self.sent_bytes += len(message)

    def tell(self) -> None:
        print(f"ended {json.dumps(asdict(self))}", flush=True)


def path_of(number: int) -> str:
    """The path of one connection."""
    return f"/{number}/{list(ENDINGS)[number % len(ENDINGS)]}"


def ending_of(path: str) -> str:
    return path.rpartition("/")[2]


def some_size(random: Random, largest: int) -> int:
    """From 0 to `largest` bytes: small and large ones alike, and the borders of the three lengths of a header."""
    if random.random() < 0.2:
        return random.choice([size for size in (0, 1, 125, 126, 65_535, 65_536, largest) if size <= largest])
    return (
        int(math.exp(random.uniform(0, math.log(largest + 1)))) - 1
        if random.random() < 0.5
        else random.randint(0, largest)
    )


def break_off(connection: ClientConnection | ServerConnection, *, reset: bool) -> None:
    """End TCP without a Close frame."""
    if not reset:
        connection.transport.close()
        return
    peer: socket.socket = connection.transport.get_extra_info("socket")
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
    connection.transport.abort()


async def answer(connection: ServerConnection) -> None:
    assert connection.request is not None
    told = Told(connection.request.path)
    ending = ending_of(told.path)
    random = Random(told.path)
    with contextlib.suppress(ConnectionClosed):
        async for message in connection:
            told.has_received(message)
            if message == LAST:
                if ending == "server-1001":
                    await connection.close(1001)
                else:
                    break_off(connection, reset=ending == "server-reset")
                continue
            reply = random.randbytes(some_size(random, LARGEST))
            await connection.send(reply)
            told.has_sent(reply)
    await connection.wait_closed()
    told.tell()


class Bytewise(ClientConnection):
    """A client whose every byte is a packet of its own."""

    def send_data(self) -> None:
        for data in self.protocol.data_to_send():
            if data:
                for byte in data:
                    self.transport.write(bytes([byte]))
            elif self.transport.can_write_eof():
                self.transport.write_eof()


async def talk(url: str, number: int, seed: int) -> None:
    told = Told(path_of(number))
    ending = ending_of(told.path)
    random = Random(seed * 1000 + number)
    bytewise = number % BYTEWISE == 0
    largest = BYTEWISE_LARGEST if bytewise else LARGEST
    async with connected(url + told.path, Bytewise if bytewise else ClientConnection) as connection:
        with contextlib.suppress(ConnectionClosed):
            for _ in range(MESSAGES):
                message = random.randbytes(some_size(random, largest))
                await connection.send(message)
                told.has_sent(message)
                told.has_received(await connection.recv())
            if ending == "client-hurries":
                message = random.randbytes(largest)
                await connection.send(message)
                told.has_sent(message)
            if ending.startswith("server"):
                await connection.send(LAST)
                told.has_sent(LAST)
                await connection.recv()
            elif ending in ("client-fin", "client-reset"):
                break_off(connection, reset=ending == "client-reset")
            else:
                await connection.close(4000 if ending == "client-4000" else 1000)
        await connection.wait_closed()
    told.tell()


@contextlib.asynccontextmanager
async def connected(url: str, kind: type[ClientConnection]) -> AsyncIterator[ClientConnection]:
    patience = {"open_timeout": 60, "close_timeout": 60, "ping_interval": PING, "ping_timeout": None}
    async with connect(url, create_connection=kind, compression=None, max_size=None, **patience) as connection:
        yield connection


def listening(host: str) -> socket.socket:
    """On a free port of `host`; of all addresses of both IP versions by one socket for `DUAL`."""
    if host == DUAL:
        return socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True, backlog=1000)
    return socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=1000)


async def serve_for_ever(host: str) -> None:
    patience = {"open_timeout": 60, "close_timeout": 60, "ping_interval": PING, "ping_timeout": None}
    async with serve(answer, sock=listening(host), compression=None, max_size=None, **patience) as server:
        print(f"listening {next(iter(server.sockets)).getsockname()[1]}", flush=True)
        await asyncio.Future()


async def talk_to(host: str, port: str, count: str, seed: str) -> None:
    url = f"ws://[{host}]:{port}" if ":" in host else f"ws://{host}:{port}"
    async with asyncio.TaskGroup() as tasks:
        for number in range(int(count)):
            tasks.create_task(talk(url, number, int(seed)))


if __name__ == "__main__":
    asyncio.run(serve_for_ever(sys.argv[2]) if sys.argv[1] == "serve" else talk_to(*sys.argv[2:]))
