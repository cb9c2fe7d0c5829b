"""When a connection of which one side has ended may be taken for over, though the other side never ends.

A process that has closed its connection completely is known by nothing but its FIN, which may as well be a half-close.
TCP's keepalive tells the two apart: after a minute or so the kernel of such a process has forgotten the connection, and
answers a probe with a RST. That gives the connection's place back. But a RST that is passed on drops what the kernel
still holds for the other side, so there must be no probes while a slow reader has not taken all of it.

A Unix socket knows at once that its peer is gone, and has no probes: there a minute is counted instead.
"""

import asyncio
import fcntl
import socket
import sys
import termios
from typing import Final, Protocol

LOOK: Final = 5.0
"""Seconds from one look to the next. Far fewer than a kernel remembers a closed connection, so that no probe is sent
between the end of a side and the first look at what waits for the other."""

FORGOTTEN: Final = 60.0
"""Seconds from which on a closed Unix socket counts as reset, like a TCP one whose kernel has forgotten it: Linux does
so after net.ipv4.tcp_fin_timeout."""

PATIENCE: Final = 600.0
"""Seconds for which a reader may take nothing at all and is still waited for. A kernel that sends what a closed process
left behind gives up after some five minutes of that."""


def queued(sock: socket.socket) -> int:
    """Bytes that the kernel holds for the peer of `sock`: not acknowledged or, of a Unix socket, not read."""
    return int.from_bytes(fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4)), sys.byteorder)


class Linger:
    """Looks after a side that has ended, or cannot be read because the other does not take what was read before."""

    __slots__ = ("_probed", "_sock", "_still", "_waiting")

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._probed = True
        self._waiting = 0
        self._still = 0.0  # seconds for which `_waiting` has not changed

    def look(self, waiting: int, *, gone: bool) -> bool:
        """Look once every LOOK seconds. Returns whether the side is to be taken for reset.

        `waiting` is how many bytes of the side's have been read and not taken by the other; `gone` whether its Unix
        socket has been closed.
        """
        self._still = self._still + LOOK if waiting == self._waiting else 0.0
        self._waiting = waiting
        patient = waiting > 0 and self._still < PATIENCE
        if self._sock.family != socket.AF_UNIX and self._probed == patient:
            self._probed = not patient
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, self._probed)
        return gone and not patient and self._still >= FORGOTTEN


class Watched(Protocol):
    """What is looked at."""

    def look(self) -> bool:
        """See what becomes of it. Returns whether to look again."""
        ...


class Lookout:
    """Looks at whatever was added every LOOK seconds, for the first time after one to two of them.

    One timer serves all: one each would be started and cancelled with nearly every connection.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._timer: asyncio.TimerHandle | None = None
        self._new: set[Watched] = set()
        self._watched: set[Watched] = set()

    def add(self, one: Watched) -> None:
        """Look at `one` from now on."""
        if one not in self._watched:
            self._new.add(one)
            self._wait()

    def discard(self, one: Watched) -> None:
        """Look at `one` no more."""
        self._new.discard(one)
        self._watched.discard(one)

    def close(self) -> None:
        """Look at nothing any more."""
        if self._timer is not None:
            self._timer.cancel()

    def _wait(self) -> None:
        if self._timer is None and (self._new or self._watched):
            self._timer = self._loop.call_later(LOOK, self._look)

    def _look(self) -> None:
        self._timer = None
        due, self._watched, self._new = self._watched, self._new, set()
        try:
            self._watched |= {one for one in due if one.look()}
        finally:
            self._new -= self._watched
            self._wait()
