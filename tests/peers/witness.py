"""A relay that writes down what it saw: the tap's answers are judged by two of these, one on either side of it.

It knows nothing of WebSockets and shares no code with the exporter. What it reads it passes on, FIN as FIN and RST
as RST, and the order in which it read everything is the record.
"""

import contextlib
import selectors
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final, Literal

Side = Literal["client", "server"]
Kind = Literal["data", "fin", "reset"]

READ_SIZE: Final = 1 << 18
MOST_HELD: Final = 1 << 20
RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)


@dataclass(frozen=True, slots=True)
class Seen:
    """One thing that `side` did."""

    side: Side
    kind: Kind
    data: bytes = b""


@dataclass
class Record:
    """Everything that one connection carried, in the order in which it was read; `over` once both sides are closed."""

    seen: list[Seen] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    def sent_by(self, side: Side) -> bytes:
        """All bytes of one direction."""
        return b"".join(seen.data for seen in self.seen if seen.side == side)

    def was_reset_by(self, side: Side) -> bool:
        return Seen(side, "reset") in self.seen


class _End:
    """One socket of a relayed connection."""

    def __init__(self, side: Side, sock: socket.socket) -> None:
        self.side = side
        self.sock = sock
        self.held = bytearray()
        self.finished = False
        self.broken = False


class _Link:
    """One relayed connection: its two ends and its record."""

    def __init__(self, selector: selectors.BaseSelector, client: socket.socket, server: socket.socket) -> None:
        self.record = Record()
        self._selector = selector
        self._ends = {"client": _End("client", client), "server": _End("server", server)}
        for end in self._ends.values():
            end.sock.setblocking(False)
            end.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._select()

    def ready(self, side: Side, events: int) -> None:
        """Go on with one end."""
        end = self._ends[side]
        if self.record.over.is_set():
            return
        if events & selectors.EVENT_WRITE:
            self._flush(end)
        if events & selectors.EVENT_READ and not self.record.over.is_set():
            self._read(end)
        if not self.record.over.is_set():
            self._select()

    def close(self, reset: Side | None = None) -> None:
        """Close both ends, one of them by RST if so asked."""
        for end in self._ends.values():
            with contextlib.suppress(KeyError):
                self._selector.unregister(end.sock)
            if end.side == reset:
                end.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
            end.sock.close()
        self.record.over.set()

    def _other(self, end: _End) -> _End:
        return self._ends["server" if end.side == "client" else "client"]

    def _read(self, end: _End) -> None:
        other = self._other(end)
        try:
            data = end.sock.recv(READ_SIZE)
        except BlockingIOError:
            return
        except OSError:
            self._reset(end)
            return
        if data:
            self.record.seen.append(Seen(end.side, "data", data))
            other.held += data
        elif end.broken:  # the write that failed took the error with it, so that the reset reads like a FIN
            self._reset(end)
            return
        else:
            self.record.seen.append(Seen(end.side, "fin"))
            end.finished = True
        self._flush(other)

    def _flush(self, end: _End) -> None:
        try:
            while end.held:
                del end.held[: end.sock.send(end.held)]
        except BlockingIOError:
            return
        except OSError:
            # It takes nothing any more, but what it said last may still be unread.
            end.broken = True
            end.held.clear()
            if end.finished:
                self._reset(end)
            return
        if self._other(end).finished:
            with contextlib.suppress(OSError):
                end.sock.shutdown(socket.SHUT_WR)
            if end.finished and not self._other(end).held:
                self.close()

    def _reset(self, end: _End) -> None:
        self.record.seen.append(Seen(end.side, "reset"))
        self.close(reset=self._other(end).side)

    def _select(self) -> None:
        for end in self._ends.values():
            other = self._other(end)
            reads = not end.finished and not other.broken and len(other.held) < MOST_HELD
            events = (selectors.EVENT_READ if reads else 0) | (selectors.EVENT_WRITE if end.held else 0)
            with contextlib.suppress(KeyError):
                self._selector.unregister(end.sock)
            if events:
                self._selector.register(end.sock, events, (self, end.side))


class Witness:
    """Relays every connection to wherever `upstream` says by then, in a thread of its own."""

    def __init__(self, upstream: Callable[[], int]) -> None:
        self._upstream = upstream
        self._selector = selectors.DefaultSelector()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=100)
        self._waker, self._wakes = socket.socketpair()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._selector.register(self._wakes, selectors.EVENT_READ)
        self._links: list[_Link] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.port: int = self._listener.getsockname()[1]

    @property
    def records(self) -> list[Record]:
        """Every connection since `forget`, oldest first."""
        return [link.record for link in self._links]

    def forget(self) -> None:
        """Begin anew; connections that are still open go unrecorded from here on."""
        self._links = []

    def _run(self) -> None:
        while True:
            for key, events in self._selector.select():
                if key.fileobj is self._wakes:
                    return
                if key.fileobj is self._listener:
                    self._accept()
                else:
                    link, side = key.data
                    link.ready(side, events)

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        try:
            server = socket.create_connection(("127.0.0.1", self._upstream()))
        except OSError:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
            client.close()
            return
        self._links.append(_Link(self._selector, client, server))

    @contextlib.contextmanager
    def running(self) -> Iterator["Witness"]:
        """Relay until the block ends."""
        self._thread.start()
        try:
            yield self
        finally:
            self._waker.send(b"x")
            self._thread.join()
            for link in self._links:
                if not link.record.over.is_set():
                    link.close()
            for sock in (self._listener, self._waker, self._wakes):
                sock.close()
            self._selector.close()
