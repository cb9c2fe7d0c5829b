"""The two ends of a relayed connection as raw sockets, which do exactly what a test says, and close when it ends."""

import asyncio
import contextlib
import hashlib
import socket
import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, Final, Self

from exporter.config import Address, UnixPath
from tests.support.watching import Watched, watching
from tests.wire.support import KEY, accepts, asks, close, frame

RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)


class Closing:
    """Closes when its block ends."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        raise NotImplementedError


class Peer(Closing):
    """One connected socket."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.sock = sock

    async def send(self, data: bytes) -> None:
        """Send all of `data`, waiting while the other end does not read."""
        await asyncio.get_running_loop().sock_sendall(self.sock, data)

    async def fill(self) -> bytes:
        """Send noise until nobody on the way takes any more. Returns the SHA-256 of what went."""
        random = Random(7)
        digest = hashlib.sha256()
        idle = 0
        while idle < 10:
            noise = random.randbytes(1 << 16)
            try:
                digest.update(noise[: self.sock.send(noise)])
                idle = 0
            except BlockingIOError:
                idle += 1
                await asyncio.sleep(0.02)
        return digest.digest()

    async def read(self, size: int) -> bytes:
        """Exactly `size` bytes; fewer only where the other end ended first."""
        parts = []
        while size:
            part = await asyncio.get_running_loop().sock_recv(self.sock, min(size, 1 << 18))
            if not part:
                break
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    async def head(self) -> bytes:
        """An HTTP head, not a byte more."""
        data = b""
        while not data.endswith(b"\r\n\r\n"):
            data += await self.read_one()
        return data

    async def read_one(self) -> bytes:
        byte = await self.read(1)
        assert byte, "the connection ended in the middle"
        return byte

    async def rest(self) -> bytes:
        """Everything up to the other end's FIN. Raises ConnectionResetError on its RST."""
        return await self.read(1 << 40)

    async def last_words(self) -> bytes:
        """Everything up to the other end's RST."""
        said = b""
        try:
            while part := await asyncio.get_running_loop().sock_recv(self.sock, 1 << 18):
                said += part
        except ConnectionResetError:
            return said
        raise AssertionError(f"a FIN instead of a RST, behind {said!r}")

    def finish(self) -> None:
        """Send a FIN, and go on reading."""
        self.sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Break off with a RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        self.sock.close()

    def close(self) -> None:
        self.sock.close()


class Door(Closing):
    """A listening socket, in the place of a service."""

    def __init__(self, sock: socket.socket, address: Address | UnixPath) -> None:
        self.sock = sock
        self.address = address
        self.peers: list[Peer] = []

    async def accept(self) -> Peer:
        sock, _ = await asyncio.get_running_loop().sock_accept(self.sock)
        self.peers.append(Peer(sock))
        return self.peers[-1]

    def close(self) -> None:
        self.sock.close()
        for peer in self.peers:
            peer.close()


def opened(backlog: int = 100, path: Path | None = None) -> Door:
    """A listening TCP socket, or with a `path` a Unix one."""
    if path is None:
        sock = socket.create_server(("127.0.0.1", 0), backlog=backlog)
        where: Address | UnixPath = Address(*sock.getsockname())
    else:
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(str(path))
        sock.listen(backlog)
        where = UnixPath(str(path))
    sock.setblocking(False)
    return Door(sock, where)


async def connected(address: Address, receive_buffer: int | None = None) -> Peer:
    """A client; with a small `receive_buffer` it takes little that it has not asked for."""
    sock = socket.socket()
    sock.setblocking(False)
    if receive_buffer is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    try:
        await asyncio.get_running_loop().sock_connect(sock, (address.host, address.port))
    except OSError:
        sock.close()
        raise
    return Peer(sock)


async def all_that_is_left(reader: Peer) -> bytes:
    """What can still be read of a connection that was reset."""
    said = b""
    with contextlib.suppress(ConnectionError):
        while part := await asyncio.get_running_loop().sock_recv(reader.sock, 1 << 18):
            said += part
    return said


@dataclass
class Pair:
    """Both ends of one relayed connection, and the exporter between them."""

    client: Peer
    server: Peer
    watched: Watched
    door: Door

    async def upgrade(self) -> None:
        """The opening handshake of RFC 6455 section 1.3."""
        _, request = asks()
        _, response = accepts()
        await self.client.send(request)
        assert await self.server.head() == request
        await self.server.send(response)
        assert await self.client.head() == response


@contextlib.asynccontextmanager
async def relayed(path: Path | None = None, **settings: Any) -> AsyncIterator[Pair]:
    """A client and a server, connected through a tap over TCP; with a `path` the server is a Unix socket there."""
    with opened(path=path) as door:
        async with watching(door.address, **settings) as watched:
            with await connected(watched.address) as client:
                yield Pair(client, await door.accept(), watched, door)


def message(payload: bytes, *, masked: bool = True) -> bytes:
    """A binary message in one frame."""
    return frame(0x2, payload, key=KEY if masked else None)


def close_frame(code: int, *, masked: bool = True) -> bytes:
    return close(code, key=KEY if masked else None)
