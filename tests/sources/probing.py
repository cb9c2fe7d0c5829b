"""A probe against whatever a test lets answer it, and what it says of that."""

import asyncio
import contextlib
import socket
import ssl
import struct
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from itertools import cycle
from typing import Any, Final, TypeVar

import msgspec

from exporter.closecodes import Vocabulary
from exporter.config import Address
from exporter.config.probes import ProbeConfig, parse_url
from exporter.events import Closed, Event, HandshakeEnded, ProbeFailed
from exporter.sources.probe import Probes
from exporter.wire.upgrade import accept_value
from tests.support.loops import eventually
from tests.support.services import program
from tests.wire.support import CLOSE, PING, PONG, frame

VOCABULARY: Final = Vocabulary(frozenset({4001}), frozenset({3001}))

E = TypeVar("E", bound=Event)
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def least(low: float, high: float) -> float:
    """The randomness of most tests: an attempt at once, another at once after the first end, then 7 s later."""
    return low


def soon(low: float, high: float) -> float:
    """One attempt after the other."""
    return 0.1


class Seen:
    """A Sink that keeps what it gets."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def emit(self, event: Event) -> None:
        self.events.append(event)

    def of(self, kind: type[E]) -> list[E]:
        return [event for event in self.events if isinstance(event, kind)]

    async def first(self, kind: type[E], within: float = 10.0) -> E:
        """The first event of this kind, as soon as there is one."""
        return (await self.several(kind, 1, within))[0]

    async def several(self, kind: type[E], count: int, within: float = 10.0) -> list[E]:
        return await eventually(lambda: self.of(kind)[:count] if len(self.of(kind)) >= count else [], within)


def configured(address: Address | str, path: str = "/ws", scheme: str = "ws", **settings: Any) -> ProbeConfig:
    config = ProbeConfig("chat", parse_url(f"{scheme}://{address}{path}"), interval=0.05, timeout=1.0)
    return msgspec.structs.replace(config, **settings)


class Probing(Seen):
    """A running probe, and what it has emitted."""

    def __init__(self, probes: Probes) -> None:
        super().__init__()
        self.probes = probes


@contextlib.asynccontextmanager
async def probing(
    config: ProbeConfig, uniform: Callable[[float, float], float] = least, **clocks: Any
) -> AsyncIterator[Probing]:
    """Run a probe, and cut it off in the end."""
    seen = Seen()
    probes = Probes([config], {config.target: VOCABULARY}, seen, uniform=uniform, **clocks)
    found = Probing(probes)
    found.events = seen.events
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(probes.run())
        try:
            yield found
        finally:
            running.cancel()


def holding(address: Address, **settings: Any) -> contextlib.AbstractAsyncContextManager[Probing]:
    """Run a probe of this address with these settings."""
    return probing(configured(address, **settings))


async def failure(config: ProbeConfig) -> tuple[str, str, str]:
    """How the first attempt fails: the reason, and the outcome and status of its handshake."""
    async with probing(config) as seen:
        failed = await seen.first(ProbeFailed)
        handshake = seen.of(HandshakeEnded)[0]
        return failed.reason, handshake.outcome, handshake.status


async def close_of(config: ProbeConfig) -> tuple[Closed, str]:
    """How the first connection ends, and why that is a failure."""
    async with probing(config) as seen:
        closed = await seen.first(Closed)
        return closed, (await seen.first(ProbeFailed)).reason


@contextlib.asynccontextmanager
async def serving(handler: Handler, context: ssl.SSLContext | None = None) -> AsyncIterator[Address]:
    """A raw server. What it has open is cut in the end."""
    conversations: list[asyncio.Task[object]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        conversations.extend(filter(None, [asyncio.current_task()]))
        try:
            await handler(reader, writer)
            writer.close()
        except (ConnectionError, asyncio.IncompleteReadError, ssl.SSLError, asyncio.CancelledError):
            writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        yield Address(*server.sockets[0].getsockname())
    finally:
        server.close()
        for task in conversations:
            task.cancel()
        if conversations:
            await asyncio.wait(conversations)


@contextlib.asynccontextmanager
async def killable() -> AsyncIterator[tuple[asyncio.subprocess.Process, Address]]:
    """A service in a process of its own."""
    async with program("tests.support.killable", "serve") as (process, port):
        yield process, Address("127.0.0.1", int(port))


async def request(reader: asyncio.StreamReader) -> dict[str, str]:
    """The fields of a request head by their lower-case names; the request line is that of the empty name."""
    line, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().rstrip().split("\r\n")
    return {"": line} | {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}


def accepting(key: str, *fields: str) -> bytes:
    """The head that makes a WebSocket (RFC 6455 section 4.2.2)."""
    lines = [
        "HTTP/1.1 101 Switching Protocols",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Accept: {accept_value(key.encode()).decode()}",
        *fields,
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def answering(answer: str | bytes, *, stay: bool = True) -> Handler:
    """Answers a request with these bytes, and then says no more."""
    data = answer if isinstance(answer, bytes) else answer.encode()

    async def answer_it(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request(reader)
        writer.write(data)
        if stay:
            await reader.read()

    return answer_it


def upgrading(*sent: bytes, fields: tuple[str, ...] = (), stay: bool = True, pongs: bool = True) -> Handler:
    """Accepts a WebSocket, sends these frames with the 101, answers Pings, and ends TCP when it gets a Close frame."""

    async def upgrade(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = await request(reader)
        writer.write(accepting(asked["sec-websocket-key"], *fields) + b"".join(sent))
        async for opcode, payload in frames(reader) if stay else nothing():
            if opcode == CLOSE:
                return
            if opcode == PING and pongs:
                writer.write(frame(PONG, payload))

    return upgrade


async def frames(reader: asyncio.StreamReader) -> AsyncIterator[tuple[int, bytes]]:
    """The opcode and the unmasked payload of each frame of a client, which are small."""
    while True:
        first, second = await reader.readexactly(2)
        key = await reader.readexactly(4)
        payload = await reader.readexactly(second & 0x7F)
        yield first & 0x0F, bytes(byte ^ mask for byte, mask in zip(payload, cycle(key), strict=False))


async def nothing() -> AsyncIterator[tuple[int, bytes]]:
    for item in ():
        yield item


@contextlib.contextmanager
def flooding(tiny: bytes) -> Iterator[tuple[Address, list[int]]]:
    """A server with threads of its own, which accepts WebSockets and sends these frames as fast as they are taken.

    Yields its address, and the codes of the Close frames that it gets.
    """
    closes: list[int] = []
    server = socket.create_server(("127.0.0.1", 0))
    clients: list[socket.socket] = []
    threads: list[threading.Thread] = []

    def listen(client: socket.socket) -> None:
        with contextlib.suppress(OSError), client.makefile("rb") as file:
            while head := file.read(2):
                key, masked = file.read(4), file.read(head[1] & 0x7F)
                payload = bytes(byte ^ mask for byte, mask in zip(masked, cycle(key), strict=False))
                if head[0] & 0x0F == CLOSE:
                    closes.append(struct.unpack("!H", payload[:2])[0])
                    client.shutdown(socket.SHUT_RDWR)

    def flood(client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            asked = b""
            while not asked.endswith(b"\r\n\r\n"):
                asked += client.recv(4096)
            key = asked.lower().index(b"sec-websocket-key: ") + len("sec-websocket-key: ")
            client.sendall(accepting(asked[key : asked.index(b"\r", key)].decode()))
            threads.append(threading.Thread(target=listen, args=(client,)))
            threads[-1].start()
            while True:
                client.sendall(tiny * 30_000)

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                clients.append(server.accept()[0])
                threads.append(threading.Thread(target=flood, args=(clients[-1],)))
                threads[-1].start()

    accepts = threading.Thread(target=serve)
    accepts.start()
    try:
        yield Address(*server.getsockname()), closes
    finally:
        server.shutdown(socket.SHUT_RDWR)
        accepts.join()
        for each in (*clients, server):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join()
        for each in (*clients, server):
            each.close()
