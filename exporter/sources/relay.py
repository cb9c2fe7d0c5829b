"""A relay of bytes between two sockets, observed: what leaves is what came in, and ends as it ended.

It works on the sockets themselves rather than on event-loop transports, for the sake of one fact: a peer that refuses
a message often sends its Close frame and then resets the connection (a 1009 above all). A transport whose write
fails drops what is still unread, so that the reason would be lost to the client and to us; here a failed write
only stops the writing, and the peer's last words are read first.

FIN is relayed as FIN, so half-closed connections stay so; RST is relayed as RST. A side is read only while the other
has taken everything, so at most one read (READ_SIZE) waits per direction.
"""

import asyncio
import contextlib
import errno
import os
import select
import socket
import struct
from typing import Final, Protocol

from exporter.events import EndKind, Side
from exporter.wire.connection import ConnectionObserver

READ_SIZE: Final = 256 * 1024
"""Bytes read at once; also the most that waits in memory per direction."""

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
        "_getsockopt",
        "_recv",
        "_relay",
        "_send",
        "error",
        "finished",
        "other",
        "reading",
        "side",
        "sock",
        "unsent",
    )

    other: "_End"

    def __init__(self, relay: "Relay", side: Side, sock: socket.socket) -> None:
        self._relay = relay
        self.side = side
        self.sock = sock
        self._fd = sock.fileno()
        self._recv = sock.recv
        self._send = sock.send
        self._getsockopt = sock.getsockopt
        self.reading = False
        self.unsent = b""  # taken from the other side, not yet taken by this one
        self.finished = False  # its FIN has been read
        self.error: OSError | None = None  # why it takes nothing any more

    def readable(self) -> None:
        """Forward what this side sent, then observe it."""
        try:
            data = self._recv(READ_SIZE)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._relay.reset(self, self.error or error)
            return
        other = self.other
        if not data:
            if self.error is None:
                self._relay.fin(self)
            else:
                self._relay.reset(self, self.error)
            return
        try:
            sent = other._send(data)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError as error:
            self.pause()
            other.broken(error)
            return
        if sent != len(data):
            self.pause()
            other.hold(data[sent:])
        elif self.error or (number := self._getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)):
            self.read_to_end(self.error or OSError(number, os.strerror(number)))
        self.observe(data)

    def observe(self, data: bytes) -> None:
        """Show the observer what has been forwarded."""
        raise NotImplementedError

    def hold(self, data: bytes) -> None:
        """Keep what this side would not take yet; it is sent as soon as the side reads on."""
        self.unsent = data
        self._relay.stalled(self)
        self._relay.loop.add_writer(self._fd, self.writable)

    def writable(self) -> None:
        """Send what was held, then let the other side go on."""
        try:
            sent = self._send(self.unsent)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self.release()
            self.broken(error)
            return
        self.unsent = self.unsent[sent:]
        if self.unsent:
            return
        self.release()
        if self.other.finished:
            self._relay.pass_fin(self)
        else:
            self.other.resume()

    def release(self) -> None:
        """Hold nothing any more."""
        self.unsent = b""
        self._relay.loop.remove_writer(self._fd)

    def broken(self, error: OSError) -> None:
        """Writing to this side failed. It is gone, but what it said last may still be unread and comes first."""
        self.error = self.error or error
        if self.finished:
            self._relay.reset(self, error)
        else:
            self.resume()

    def resume(self) -> None:
        """Read this side, unless it ended or the other side has not taken what was read before."""
        if not (self.reading or self.finished or self.other.unsent or self.other.error):
            self.reading = True
            self._relay.loop.add_reader(self._fd, self.readable)

    def read_to_end(self, error: OSError) -> None:
        """This side has failed, and may have said more than was read.

        uvloop calls for a failed socket just once, however much is left to read in it.
        """
        self.error = error
        self._relay.loop.remove_reader(self._fd)
        self._relay.loop.call_soon(self.readable)

    def pause(self) -> None:
        """Stop reading this side."""
        if self.reading:
            self.reading = False
            self._relay.loop.remove_reader(self._fd)
            self._relay.stalled(self)

    def close(self, *, with_reset: bool = False) -> None:
        """Close the socket: by RST if so asked, else as the kernel finds right."""
        self.pause()
        self.release()
        if with_reset and self.sock.family != socket.AF_UNIX:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self.sock.close()

    def vanished(self) -> bool:
        """Whether this side has reset the connection, which nobody notices while it is not read."""
        if self.reading:
            return False
        poll = select.poll()
        poll.register(self._fd, 0)
        gone = select.POLLERR if self.error is None else select.POLLERR | select.POLLHUP
        return any(events & gone for _, events in poll.poll(0))


class _ClientEnd(_End):
    __slots__ = ()

    def observe(self, data: bytes) -> None:
        try:
            self._relay.observer.from_client(data)
        except Exception as fault:
            self._relay.observing_failed(fault)


class _ServerEnd(_End):
    __slots__ = ()

    def observe(self, data: bytes) -> None:
        try:
            self._relay.observer.from_server(data)
        except Exception as fault:
            self._relay.observing_failed(fault)


class RelayOwner(Protocol):
    """Who started a relay."""

    def relay_stalled(self, relay: "Relay") -> None:
        """One of its sides is not being read: `relay.check` must be called about once a second."""
        ...

    def relay_closed(self, relay: "Relay") -> None:
        """It is over."""
        ...

    def observing_failed(self, fault: Exception) -> None:
        """Observing raised, which is a fault of ours; the stream is relayed on unobserved."""
        ...


class Relay:
    """Two connected sockets and the observer of what passes between them. Owns both, and closes both."""

    __slots__ = ("_client", "_owner", "_server", "loop", "observer")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        client: socket.socket,
        server: socket.socket,
        observer: ConnectionObserver,
        owner: RelayOwner,
    ) -> None:
        self.loop = loop
        self.observer = observer
        self._owner = owner
        self._client = _ClientEnd(self, "client", client)
        self._server = _ServerEnd(self, "server", server)
        self._client.other = self._server
        self._server.other = self._client

    def start(self) -> None:
        """Relay from now on."""
        self._client.resume()
        self._server.resume()

    @property
    def buffered(self) -> int:
        """Bytes held for sides that do not read."""
        return len(self._client.unsent) + len(self._server.unsent)

    def check(self) -> bool:
        """Notice a reset by a side that is not being read. Returns whether it must be checked again."""
        for end in (self._client, self._server):
            if end.sock.fileno() < 0:
                return False
            if end.vanished():
                self.reset(end, OSError(errno.ECONNRESET, "reset while not read"))
                return False
        return not (self._client.reading and self._server.reading)

    def cut(self) -> None:
        """End both connections because the exporter ends; the clients see no Close frame, which is the truth."""
        self.observer.transport_ended("exporter", "fin")
        self._close()

    # Told by the two ends.

    def fin(self, end: _End) -> None:
        """`end` has sent its FIN: pass it on behind everything before it."""
        end.finished = True
        end.pause()
        self.observer.transport_ended(end.side, "fin")
        if not end.other.unsent:
            self.pass_fin(end.other)

    def pass_fin(self, end: _End) -> None:
        """Everything has been sent to `end`: send it the other side's FIN too."""
        with contextlib.suppress(OSError):  # already gone: reading it will tell
            end.sock.shutdown(socket.SHUT_WR)
        if end.finished and not end.other.unsent:
            self._close()

    def reset(self, end: _End, error: OSError) -> None:
        """`end` has broken the connection off: so is the other side's."""
        self.observer.transport_ended(end.side, _KINDS.get(error.errno, "error"))
        self._close(reset=end.other)

    def stalled(self, end: _End) -> None:
        """`end` is not read for now."""
        self._owner.relay_stalled(self)

    def observing_failed(self, fault: Exception) -> None:
        """Go on unobserved."""
        self.observer.fail()
        self._owner.observing_failed(fault)

    def _close(self, reset: _End | None = None) -> None:
        if self._client.sock.fileno() < 0:
            return  # a callback that was already due when the other side closed both
        for end in (self._client, self._server):
            end.close(with_reset=end is reset)
        try:
            self.observer.finish()
        except Exception as fault:
            self._owner.observing_failed(fault)
        self._owner.relay_closed(self)
