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

Destination = tuple[str, int] | str


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
        self._timeout = timeout
        self._unix_queue = asyncio.Lock()
        self._sources = {
            family: itertools.cycle([source for source in sources if (":" in source) == colons] or [None])
            for family, colons in ((socket.AF_INET, False), (socket.AF_INET6, True))
        }

    async def dial(self) -> socket.socket:
        """A connected, non-blocking socket.

        Raises OSError: TimeoutError when the time is up, else the last address's own.
        """
        failure = OSError(errno.EHOSTUNREACH, "no address")
        async with asyncio.timeout(self._timeout) as deadline:
            for family, destination in await self._resolve():
                sock = socket.socket(family, socket.SOCK_STREAM)
                try:
                    sock.setblocking(False)
                    await self._connect(sock, destination)
                except OSError as error:
                    sock.close()
                    failure = error
                except BaseException:
                    # A process that was stopped for a while finds the time up and the connection made.
                    if deadline.expired() and _is_connected(sock, destination):
                        return sock
                    sock.close()
                    raise
                else:
                    return sock
        raise failure

    async def _resolve(self) -> list[tuple[int, Destination]]:
        upstream = self._upstream
        if isinstance(upstream, UnixPath):
            return [(socket.AF_UNIX, upstream.path)]
        for family in (socket.AF_INET, socket.AF_INET6):
            with contextlib.suppress(OSError):
                socket.inet_pton(family, upstream.host)
                return [(family, (upstream.host, upstream.port))]
        try:
            found = await asyncio.get_running_loop().getaddrinfo(upstream.host, upstream.port, type=socket.SOCK_STREAM)
        except UnicodeError as fault:  # a label that is empty or over 63 bytes long
            raise socket.gaierror(socket.EAI_NONAME, "not a host name") from fault
        return [(family, sockaddr[:2]) for family, _, _, _, sockaddr in found]  # type: ignore[misc]

    async def _connect(self, sock: socket.socket, destination: Destination) -> None:
        if sock.family == socket.AF_UNIX:
            # In turn, so that one client at a time looks for room, however many wait.
            async with self._unix_queue:
                await _connect_unix(sock, destination)
            return
        set_options(sock)
        source = next(self._sources[sock.family])
        if source is not None:
            sock.setsockopt(socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
            sock.bind((source, 0))
        await _connect_tcp(sock, destination)


def _is_connected(sock: socket.socket, destination: Destination) -> bool:
    """Whether `sock` is connected by now. That of a Unix socket is never under way: it is tried once more."""
    try:
        if sock.family == socket.AF_UNIX:
            sock.connect(destination)
        else:
            sock.getpeername()
    except OSError:
        return False
    return True


async def _connect_tcp(sock: socket.socket, destination: Destination) -> None:
    """Connect to an address. uvloop's own would have a thread resolve it, and abort the process if it gets none."""
    error = sock.connect_ex(destination)
    if error == errno.EINPROGRESS:
        if _is_connected(sock, destination):  # mostly so where the upstream is on the same machine
            return
        await _writable(sock)
        error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if error not in (0, errno.ECONNRESET):  # accepted and dropped at once: its last words can be read
        raise OSError(error, os.strerror(error))


async def _writable(sock: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_writer(sock.fileno(), ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_writer(sock.fileno())


async def _connect_unix(sock: socket.socket, path: Destination) -> None:
    """Connect, or wait for room in a full backlog: the event loops take that for a connection under way."""
    while True:
        try:
            sock.connect(path)
        except BlockingIOError:
            await asyncio.sleep(BACKLOG_PAUSE)
        else:
            return
