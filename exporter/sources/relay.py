"""A relay of bytes between two sockets, observed: what leaves is what came in, and ends as it ended.

It works on the sockets themselves rather than on event-loop transports, for the sake of one fact: a peer that refuses
a message often sends its Close frame and then resets the connection (a 1009 above all). A transport whose write
fails drops what is still unread, so that the reason would be lost to the client and to us; here a failed write
only stops the writing, and the peer's last words are read first.

FIN is relayed as FIN, so half-closed connections stay so; RST is relayed as RST. A side is read only while the other
has taken everything, so at most one read (READ_SIZE) waits per direction.
"""

import contextlib
import errno
import socket
import struct
from time import perf_counter
from typing import Final, Protocol

from exporter.events import EndKind, Side
from exporter.sources.lingering import Linger, queued
from exporter.sources.pace import LEAST_READ, READ_SIZE, Pace
from exporter.sources.poller import ENDED, FAILED, READ, WRITE, Poller
from exporter.wire.connection import ConnectionObserver
from exporter.wire.frames import LONGEST_HEADER, Chunk

# One buffer for every socket: reading into a new one of this size each time would have malloc map and unmap it,
# which makes a small message cost three to four times as much, depending on how the heap happens to look.
_BUFFER: Final = memoryview(bytearray(READ_SIZE))

_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)
_KINDS: Final[dict[int | None, EndKind]] = {
    errno.ECONNRESET: "reset",
    errno.EPIPE: "reset",
    errno.ETIMEDOUT: "timeout",
}


class _End:
    """One socket of a relay: what is read from it goes to `other`, and then to the observer."""

    __slots__ = (
        "_fd",
        "_gone",
        "_linger",
        "_pace",
        "_recv_into",
        "_relay",
        "_send",
        "error",
        "finished",
        "other",
        "reading",
        "side",
        "sock",
        "unheard",
        "unsent",
    )

    other: "_End"

    def __init__(self, relay: "Relay", side: Side, sock: socket.socket) -> None:
        self._relay = relay
        self.side = side
        self.sock = sock
        self._fd = sock.fileno()
        self._recv_into = sock.recv_into
        self._send = sock.send
        self._pace = Pace()
        self._gone = False  # its Unix socket has been closed by its peer
        self._linger: Linger | None = None
        self.reading = False
        self.unsent = b""  # taken from the other side, not yet taken by this one
        self.finished = False  # its FIN has been read
        self.error: OSError | None = None  # why it takes nothing any more
        self.unheard = False  # what it still says is only observed

    def ready(self, events: int) -> None:
        """Act on what the poller saw."""
        try:
            if events == READ:
                self._read()
                return
            if events & WRITE and self.unsent:
                self._write()
            if self._relay.closed:
                return
            if self.reading:
                # Errors too are read, behind what came before them.
                if events & (READ | FAILED | ENDED):
                    self._read()
            elif events & FAILED or (events & ENDED and self.error):
                self.hear_out()
            elif events & ENDED:
                self._relay.poller.forget(self._fd)  # it would be called for without end; `resume` watches it again
                self._gone = True
                self._relay.look_later()
        except (MemoryError, OSError):
            # What the sockets themselves raise is handled below; this process has run out of something.
            self._relay.starve()

    def _read(self) -> None:
        """Forward what this side sent, then observe it."""
        pace = self._pace
        try:
            if pace.large and pace.usual:
                self._foresee()
            size = self._recv_into(_BUFFER, pace.most)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._relay.reset(self, self.error or error)
            return
        if not size:
            if self.error is None and not self.unheard:
                self._relay.fin(self)
            else:
                self._relay.reset(self, self.error or OSError(errno.ECONNRESET, "reset while not read"))
            return
        data = _BUFFER[:size]
        if self.unheard:
            self._observe_timed(data)
            return
        other = self.other
        try:
            sent = other._send(data)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError as error:
            self.observe(data)  # it was said, although nobody is left to hear it
            self.pause()
            other.broken(error)
            return
        if sent != size:
            self.pause()
            other.hold(bytes(data[sent:]))
        if size < LEAST_READ and pace.usual:
            self.observe(data)
        else:
            self._observe_timed(data)

    def observe(self, data: memoryview) -> None:
        """Show the observer what has been forwarded."""
        raise NotImplementedError

    def _observe_timed(self, data: memoryview) -> None:
        """Observe a read, and fit the next one to it."""
        began = perf_counter()
        self.observe(data)
        ended = perf_counter()
        self._pace.observed(began, ended, self._ahead())

    def _foresee(self) -> None:
        """Fit the next read to the frame that begins it. Raises OSError as reading does."""
        self._pace.foreseen(self._ahead(self.sock.recv(LONGEST_HEADER, socket.MSG_PEEK)))

    def _ahead(self, begin: Chunk = b"") -> int:
        try:
            return self._relay.observer.ahead(self.side, begin)
        except Exception as fault:
            self._relay.observing_failed(fault)
            return READ_SIZE

    def hear_out(self) -> None:
        """This side is gone, and the other takes nothing: observe what this one said before, it may say why."""
        self.unheard = True
        self.other.take_nothing()
        self.reading = True
        self._watch()

    def take_nothing(self) -> None:
        """Drop what waits for this side."""
        self._keep(b"")
        self._watch()

    def hold(self, data: bytes) -> None:
        """Keep what this side would not take yet; it is sent as soon as the side reads on."""
        self._keep(data)
        self._watch()

    def _write(self) -> None:
        """Send what was held, then let the other side go on."""
        try:
            sent = self._send(self.unsent)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self.take_nothing()
            self.broken(error)
            return
        self._keep(self.unsent[sent:])
        if self.unsent:
            return
        self._watch()
        self.other.resume()

    def _keep(self, data: bytes) -> None:
        self._relay.owner.buffered += len(data) - len(self.unsent)
        self.unsent = data

    def broken(self, error: OSError) -> None:
        """Writing to this side failed. It is gone, but what it said last may still be unread and comes first."""
        self.error = self.error or error
        self._relay.ended(self, self.error)
        if self.finished:
            self._relay.reset(self, self.error)
        elif self.other.error:
            self.hear_out()
            self.other.hear_out()
        else:
            self.resume()

    def resume(self) -> None:
        """Read this side, unless it ended or the other side has not taken what was read before."""
        if not (self.reading or self.finished or self.other.unsent or self.other.error):
            self.reading = True
            self._watch()

    def pause(self) -> None:
        """Stop reading this side."""
        if self.reading:
            self.reading = False
            self._watch()
            self._relay.look_later()

    def look(self) -> bool:
        """See what becomes of this side once it has ended or while it is not read. Returns whether to look again."""
        other = self.other
        lingers = self.finished or bool(other.unsent)
        waiting = len(other.unsent) + queued(other.sock) if lingers else 0
        gone = lingers and self._gone
        if self._linger is None:
            if not (waiting or gone):
                return False
            self._linger = Linger(self.sock)
        if self._linger.look(waiting, gone=gone):
            if self.finished:
                self._relay.reset(self, OSError(errno.ECONNRESET, "closed a while ago"))
            else:
                self.hear_out()
            return False
        return waiting > 0 or gone

    def _watch(self) -> None:
        events = (READ if self.reading else 0) | (WRITE if self.unsent else 0)
        self._relay.poller.watch(self._fd, events, self.ready)

    def finish_writing(self) -> None:
        """Send this side a FIN."""
        with contextlib.suppress(OSError):  # already gone: reading it will tell
            self.sock.shutdown(socket.SHUT_WR)

    def close(self, *, with_reset: bool = False) -> None:
        """Close the socket: by RST if so asked, else as the kernel finds right."""
        if self.unsent:
            self._keep(b"")
        self._relay.poller.closing(self._fd)
        if with_reset and self.sock.family != socket.AF_UNIX:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self.sock.close()


class _ClientEnd(_End):
    __slots__ = ()

    def observe(self, data: memoryview) -> None:
        try:
            self._relay.observer.from_client(data)
        except Exception as fault:
            self._relay.observing_failed(fault)


class _ServerEnd(_End):
    __slots__ = ()

    def observe(self, data: memoryview) -> None:
        try:
            self._relay.observer.from_server(data)
        except Exception as fault:
            self._relay.observing_failed(fault)


class RelayOwner(Protocol):
    """Who starts relays. `buffered` is the bytes that all of its relays hold for sides that do not read."""

    buffered: int

    def relay_closed(self, relay: "Relay") -> None:
        """It is over."""
        ...

    def observing_failed(self, fault: Exception) -> None:
        """Observing raised, which is a fault of ours; the stream is relayed on unobserved."""
        ...


class Relay:
    """Two connected sockets and the observer of what passes between them. Owns both, and closes both."""

    __slots__ = ("_ends", "closed", "observer", "owner", "poller")

    def __init__(
        self,
        client: socket.socket,
        server: socket.socket,
        observer: ConnectionObserver,
        poller: Poller,
        owner: RelayOwner,
    ) -> None:
        self.observer = observer
        self.poller = poller
        self.owner = owner
        self.closed = False
        near, far = _ClientEnd(self, "client", client), _ServerEnd(self, "server", server)
        near.other, far.other = far, near
        self._ends: tuple[_End, ...] = (near, far)

    def start(self) -> None:
        """Relay from now on."""
        for end in self._ends:
            end.resume()

    def cut(self) -> None:
        """End both connections because the exporter ends; the clients see no Close frame, which is the truth."""
        try:
            self.observer.transport_ended("exporter", "fin")
            self.observer.unanswered("refused_by_exporter", "draining")
        except Exception as fault:
            self.owner.observing_failed(fault)
        self._close()

    # Told by the two ends.

    def fin(self, end: _End) -> None:
        """`end` has sent its FIN: pass it on. All before it has been taken, else `end` would not have been read."""
        end.finished = True
        self.observer.transport_ended(end.side, "fin")
        if end.other.finished:
            self._close()
        else:
            end.pause()
            end.other.finish_writing()

    def reset(self, end: _End, error: OSError) -> None:
        """`end` has broken the connection off: so is the other side's."""
        self.ended(end, error)
        self._close(end.other)

    def ended(self, end: _End, error: OSError) -> None:
        """`end` is gone, though what it said last may not have been read yet."""
        self.observer.transport_ended(end.side, _KINDS.get(error.errno, "error"))

    def look_later(self) -> None:
        """A side has ended, or cannot be read for now: see in a while what becomes of it."""
        if not self.closed:
            self.poller.lookout.add(self)

    def starve(self) -> None:
        """No memory is left to go on with: break off both sides, rather than lose a byte of what was read."""
        self.observer.transport_ended("exporter", "error")
        self._close(*self._ends)

    def observing_failed(self, fault: Exception) -> None:
        """Go on unobserved."""
        self.observer.fail()
        self.owner.observing_failed(fault)

    def look(self) -> bool:
        """See what becomes of the two sides. Returns whether to look again."""
        try:
            again = [end.look() for end in self._ends if not self.closed]
        except (MemoryError, OSError):
            self.starve()
            return False
        return any(again) and not self.closed

    def _close(self, *reset: _End) -> None:
        if self.closed:
            return
        self.closed = True
        self.poller.lookout.discard(self)
        ends, self._ends = self._ends, ()
        for end in ends:
            end.close(with_reset=end in reset)
            del end.other  # nobody refers to the other in circles now: no garbage collector is needed
        try:
            self.observer.finish()
        except Exception as fault:
            self.owner.observing_failed(fault)
        self.owner.relay_closed(self)
