"""Connecting to the upstream of a tap: one connection for each client."""

import asyncio
import contextlib
import errno
import itertools
import os
import socket
from collections.abc import Sequence
from typing import Final

from exporter.config import Address, UnixPath

BACKLOG_PAUSE: Final = 0.02
"""Seconds between looks for room in the backlog of a Unix socket, of which nothing tells."""

_OPTIONS: Final = (
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 15),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4),
    (socket.SOL_SOCKET, socket.SO_OOBINLINE, 1),
)
"""No delay; a peer that vanished without a word is noticed after two minutes of silence; urgent data is data."""

_IP_BIND_ADDRESS_NO_PORT: Final = (
    24  # linux/in.h: the port is chosen on connecting, so that it may serve many upstreams
)

Destination = tuple[int, tuple[str, int]]
"""An address family, and an address of it."""


def set_options(sock: socket.socket) -> None:
    """Set what the sockets of a relay share. Those that a listener accepts inherit it."""
    for level, option, value in _OPTIONS:
        sock.setsockopt(level, option, value)


class Dialler:
    """Connects to one upstream. `timeout` is seconds for all of its addresses together.

    Each connection comes from the next of `sources` of its family, where there are any: one address has about 28,000
    ports for an upstream address.
    """

    def __init__(self, upstream: Address | UnixPath, timeout: float, sources: Sequence[str] = ()) -> None:
        self._upstream = upstream
        self._literal = _literal(upstream)
        self._timeout = timeout
        self._unix_queue = asyncio.Lock()
        self._sources = {
            int(family): itertools.cycle([source for source in sources if (":" in source) == colons] or [None])
            for family, colons in ((socket.AF_INET, False), (socket.AF_INET6, True))
        }

    def begin(self) -> socket.socket | None:
        """A socket whose connection is under way, or already made, as mostly where the upstream is on the same machine.

        None where an address must be found first, or where nothing can be begun: `dial` waits, or tells why.
        """
        if self._literal is None:
            return None
        try:
            return self._begin(self._literal)
        except OSError:
            return None

    async def dial(self, begun: socket.socket | None = None) -> socket.socket:
        """A connected, non-blocking socket: the one that was `begun`, if any.

        Raises OSError: TimeoutError when the time is up, else the last address's own.
        """
        failure = OSError(errno.EHOSTUNREACH, "no address")
        async with asyncio.timeout(self._timeout) as deadline:
            if begun is not None:
                return await _finish(begun, deadline)
            if isinstance(self._upstream, UnixPath):
                return await self._dial_unix(self._upstream.path, deadline)
            for destination in await self._resolve(self._upstream):
                try:
                    return await _finish(self._begin(destination), deadline)
                except OSError as error:
                    failure = error
        raise failure

    async def _resolve(self, upstream: Address) -> list[Destination]:
        if self._literal is not None:
            return [self._literal]
        try:
            found = await asyncio.get_running_loop().getaddrinfo(upstream.host, upstream.port, type=socket.SOCK_STREAM)
        except UnicodeError as fault:  # a label that is empty or over 63 bytes long
            raise socket.gaierror(socket.EAI_NONAME, "not a host name") from fault
        return [(family, sockaddr[:2]) for family, _, _, _, sockaddr in found]  # type: ignore[misc]

    def _begin(self, destination: Destination) -> socket.socket:
        """Begin to connect. uvloop's own way would have a thread resolve the address, and abort if it gets none."""
        family, address = destination
        sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            set_options(sock)
            source = next(self._sources[family])
            if source is not None:
                sock.setsockopt(socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
                sock.bind((source, 0))
            error = sock.connect_ex(address)
            if error != errno.EINPROGRESS:
                _check(error)
        except BaseException:
            sock.close()
            raise
        return sock

    async def _dial_unix(self, path: str, deadline: asyncio.Timeout) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            # In turn, so that one client at a time looks for room, however many wait.
            async with self._unix_queue:
                await _connect_unix(sock, path)
        except BaseException:
            # A process that was stopped for a while finds the time up, and has not looked for room since.
            if deadline.expired():
                with contextlib.suppress(OSError):
                    sock.connect(path)
                    return sock
            sock.close()
            raise
        return sock


def _literal(upstream: Address | UnixPath) -> Destination | None:
    """What an upstream names without a name."""
    if isinstance(upstream, Address):
        for family in (socket.AF_INET, socket.AF_INET6):
            with contextlib.suppress(OSError):
                socket.inet_pton(family, upstream.host)
                return int(family), (upstream.host, upstream.port)
    return None


def is_connected(sock: socket.socket) -> bool:
    """Whether a connection that was begun is made by now."""
    try:
        sock.getpeername()
    except OSError:
        return False
    return True


async def _finish(sock: socket.socket, deadline: asyncio.Timeout) -> socket.socket:
    """Wait until the connection of `sock` is made."""
    try:
        if not is_connected(sock):
            await _writable(sock)
            _check(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
    except BaseException:
        # A process that was stopped for a while finds the time up and the connection made.
        if deadline.expired() and is_connected(sock):
            return sock
        sock.close()
        raise
    return sock


def _check(error: int) -> None:
    """Raise the OSError of a failed connect. One that was accepted and dropped at once has last words to be read."""
    if error not in (0, errno.ECONNRESET):
        raise OSError(error, os.strerror(error))


async def _writable(sock: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_writer(sock.fileno(), ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_writer(sock.fileno())


async def _connect_unix(sock: socket.socket, path: str) -> None:
    """Connect, or wait for room in a full backlog: the event loops take that for a connection under way."""
    while True:
        try:
            sock.connect(path)
        except BlockingIOError:
            await asyncio.sleep(BACKLOG_PAUSE)
        else:
            return
