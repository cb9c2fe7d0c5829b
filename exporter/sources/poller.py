"""Readiness of many sockets through one epoll set, which the event loop watches as one descriptor.

The loops' own readers will not do for a relay. Neither asyncio's nor uvloop's says anything of a socket that is not
being read, so that a reset goes unnoticed while its data waits; and uvloop calls for a failed socket just once, however
much is left to read in it. An epoll set of our own is level-triggered throughout, reports errors whether or not they
were asked for, and costs less than a reader per socket when many are ready at once.
"""

import asyncio
import contextlib
import select
from collections.abc import Callable
from typing import Final

from exporter.sources.lingering import Lookout

BATCH: Final = 32
"""Sockets served before the rest of the event loop gets its turn."""

READ: Final = select.EPOLLIN
WRITE: Final = select.EPOLLOUT
FAILED: Final = select.EPOLLERR
ENDED: Final = select.EPOLLHUP


class Poller:
    """Calls back for sockets that are ready: `ready(events)`, with the events that hold.

    `lookout` looks at those of which no event will tell.
    """

    __slots__ = ("_epoll", "_loop", "_ready", "lookout")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._epoll = select.epoll()
        self._ready: dict[int, Callable[[int], None]] = {}
        self.lookout = Lookout(loop)
        loop.add_reader(self._epoll.fileno(), self._dispatch)

    def watch(self, fd: int, events: int, ready: Callable[[int], None]) -> None:
        """Call `ready` when any of `events` holds for `fd`, and, whatever was asked for, when FAILED or ENDED does."""
        if fd in self._ready:
            self._epoll.modify(fd, events)
        else:
            self._epoll.register(fd, events)
        self._ready[fd] = ready

    def forget(self, fd: int) -> None:
        """Never call for `fd` again, although it stays open."""
        if self._ready.pop(fd, None) is not None:
            with contextlib.suppress(OSError):
                self._epoll.unregister(fd)

    def closing(self, fd: int) -> None:
        """Never call for `fd` again, which is about to be closed: that alone ends its watch."""
        self._ready.pop(fd, None)

    def close(self) -> None:
        """Watch nothing any more."""
        self.lookout.close()
        self._loop.remove_reader(self._epoll.fileno())
        self._epoll.close()

    def _dispatch(self) -> None:
        for fd, events in self._epoll.poll(0, BATCH):
            # Whoever was served before may have closed this one.
            ready = self._ready.get(fd)
            if ready is not None:
                ready(events)
