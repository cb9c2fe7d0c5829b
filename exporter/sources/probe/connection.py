"""One connection of a probe: what `websockets` says of the protocol, on a transport of the event loop.

The library's own connection buffers messages, has a task for its Pings, reads the body of an answer that is no 101, and
takes about twice the memory of this one. Its protocol core is made for use without it.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Final, cast

from websockets.client import ClientProtocol
from websockets.exceptions import ConnectionClosed
from websockets.frames import CloseCode, Frame, Opcode
from websockets.protocol import State

from exporter.wire.http1 import HEAD_END, ResponseHead, parse_response

MAX_HEAD: Final = 32 * 1024
"""Bytes of an answer's head that are read; a body is never read."""

CLOSE_TIMEOUT: Final = 5.0
"""Seconds that a service has to end TCP once a Close frame has been sent or received."""

BUFFERED: Final = 64 * 1024
"""Bytes that may wait for a service that does not read, beside the first message; then it is not read either."""

SLICE: Final = 512
"""Bytes that the library is given at once: the smallest frames have two, and each costs it some microseconds."""

STEP: Final = 64
"""Frames after which the event loop has its turn; with those of a last slice 320, or some milliseconds."""

FRAMES_PER_SECOND: Final = 5_000
"""What is read of a service in the long run, less than a tenth of a core. Then TCP holds the service back. `BYTES` of a
large frame, and each read, count as a frame."""

BYTES: Final = 16 * 1024

BURST: Final = 1.0
"""Seconds of that rate that are read as fast as they come."""

LOGGER: Final = logging.getLogger(__name__)
"""For the library. At its debug level it would log every header, secrets included."""
LOGGER.setLevel(logging.ERROR)

_START: Final = b"HTTP/1."


class Connection(asyncio.Protocol):
    """Made by the event loop's `create_connection`; sends its request at once.

    `accepted` is whether the answer made a WebSocket of the connection; if not, `answer` is its head, None where there
    is none or it is not HTTP. `requested` is when TCP (and TLS) was ready, `answered` when the head was complete, both
    on `clock`. `lost_by` is what TCP or TLS ended with, `aborted` whether the probe ended it. Sizes are bytes.
    """

    __slots__ = (
        "_assembling",
        "_at",
        "_choked",
        "_deadline",
        "_head",
        "_headers",
        "_loop",
        "_next",
        "_paid_until",
        "_pending",
        "_protocol",
        "_size",
        "_transport",
        "_waiter",
        "aborted",
        "accepted",
        "answer",
        "answered",
        "clock",
        "largest_message",
        "lost",
        "lost_by",
        "message",
        "on_pong",
        "received_bytes",
        "received_messages",
        "requested",
        "sent_bytes",
        "sent_message",
    )

    def __init__(
        self, protocol: ClientProtocol, headers: Iterable[tuple[str, str]], clock: Callable[[], float]
    ) -> None:
        self.clock: Final = clock
        self._loop = asyncio.get_running_loop()
        self._protocol = protocol
        self._headers = headers
        self._transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._head = b""
        self._pending = b""
        self._at = 0
        self._next: asyncio.TimerHandle | None = None
        self._paid_until = 0.0
        self._choked = False
        self._size = 0
        self._assembling: bytearray | None = bytearray()
        self.answer: ResponseHead | None = None
        self.accepted = False
        self.aborted = False
        self.requested: float | None = None
        self.answered: float | None = None
        self.lost = False
        self.lost_by: Exception | None = None
        self.message: bytes | None = None
        self.on_pong: Callable[[bytes], None] | None = None
        self.sent_bytes = 0
        self.sent_message: int | None = None
        self.received_bytes = 0
        self.received_messages = 0
        self.largest_message = 0

    # What a probe does with it

    async def answer_or_end(self) -> None:
        """Wait for the answer, or for the end of TCP without one."""
        await self._until(lambda: self.answered is not None or self.lost)

    @property
    def is_open(self) -> bool:
        """Whether no Close frame has passed and TCP stands."""
        return self._protocol.state is State.OPEN

    @property
    def subprotocol(self) -> str | None:
        """The subprotocol that the service has chosen."""
        return self._protocol.subprotocol

    def send(self, text: str) -> None:
        """Send a message. Does nothing once the connection is closing."""
        if self._protocol.state is State.OPEN:
            data = text.encode()
            self.sent_message = len(data)
            self._connected.set_write_buffer_limits(high=len(data) + BUFFERED)
            self._protocol.send_text(data)
            self._flush()

    async def first_message(self) -> bytes | None:
        """The first message of the service; None if the connection ended without any."""
        await self._until(lambda: self.message is not None or self.lost)
        return self.message

    def discard(self) -> None:
        """Keep no message any more."""
        self._assembling = self.message = None

    def ping(self, payload: bytes) -> None:
        """Send a Ping; `on_pong` is called with the payload of each Pong. Does nothing on a closing connection."""
        if self._protocol.state is State.OPEN:
            self._protocol.send_ping(payload)
            self._flush()

    async def close(self) -> None:
        """End the WebSocket with 1000 unless it has ended, and wait for the end of TCP. Cancelled, it ends TCP."""
        if self._protocol.state is State.OPEN and not self.aborted:
            self._protocol.send_close(CloseCode.NORMAL_CLOSURE)
            self._flush()
        try:
            await self.wait_closed()
        except BaseException:
            self.abort()
            raise

    @property
    def ended(self) -> ConnectionClosed:
        """How the WebSocket ended, as far as that is known. To be asked after `close` alone."""
        self._protocol.receive_eof()
        return self._protocol.close_exc

    def leave(self) -> None:
        """End a connection on which nothing is heard: without a word, as nobody listens.

        A service that sends more than is read listens perhaps: it is told 1008 (RFC 6455 section 7.4.1).
        """
        if self._next is None or self._choked or not self.is_open:
            self.abort()
            return
        self._protocol.fail(CloseCode.POLICY_VIOLATION, "more frames than the probe reads")
        self._flush()

    def abort(self) -> None:
        """End TCP without a word."""
        self.aborted = True
        self._pending, self._at = b"", 0
        if self._transport is not None:
            self._transport.abort()

    async def wait_closed(self) -> None:
        """Wait for the end of TCP."""
        await self._until(lambda: self.lost)

    # What the event loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the request."""
        self._transport = cast(asyncio.Transport, transport)
        request = self._protocol.connect()
        for name, value in self._headers:
            request.headers[name] = value
        self._headers = ()
        self.requested = self.clock()
        self._protocol.send_request(request)
        self._flush()

    def data_received(self, data: bytes) -> None:
        """Take what the service sent."""
        if self.answered is None:
            self._read_head(data)
        else:
            self._read(data)

    def eof_received(self) -> None:
        """Learn that no more will come; the transport then closes by itself."""
        if not self._pending:
            self._protocol.receive_eof()
            self._flush()

    def connection_lost(self, exc: Exception | None) -> None:
        """Learn that the transport has ended. What came before is looked at first: a Close frame may be in it."""
        self.lost_by = exc
        if self._deadline is not None:
            self._deadline.cancel()
        if self._next is not None:
            self._next.cancel()
        self._drain()

    def pause_writing(self) -> None:
        """Read nothing that may have to be answered while no answer goes out."""
        self._choked = True
        self._connected.pause_reading()

    def resume_writing(self) -> None:
        """Read on."""
        self._choked = False
        if self._next is None and not self._connected.is_closing():
            self._go_on()

    # How it works

    @property
    def _connected(self) -> asyncio.Transport:
        if self._transport is None:
            raise RuntimeError("not connected yet")
        return self._transport

    def _read_head(self, data: bytes) -> None:
        self._head += data
        end = self._head.find(HEAD_END)
        is_http = self._head.startswith(_START[: len(self._head)])
        if end < 0 and is_http and len(self._head) <= MAX_HEAD:
            return
        head, self._head = self._head, b""
        self.answered = self.clock()
        self.sent_bytes = 0  # of the WebSocket, as what is received
        answer = parse_response(head[:end]) if 0 <= end <= MAX_HEAD and is_http else None
        if answer is not None and answer.status == 101:
            self._parse(head[: end + len(HEAD_END)])
            self.accepted = self._protocol.handshake_exc is None
        if not self.accepted:
            self.answer = answer
            self.abort()
        elif len(head) > end + len(HEAD_END):
            self._read(head[end + len(HEAD_END) :])
        self._wake()

    def _read(self, data: bytes) -> None:
        self.received_bytes += len(data)
        self._pending = self._pending[self._at :] + data
        self._at = 0
        if self._next is None and not self._choked:
            self._go_on()

    def _go_on(self) -> None:
        """Look at some of what has come, and at the rest later; read meanwhile no more, so that TCP holds it back."""
        self._next = None
        now = self._loop.time()
        frames = self._step()
        self._paid_until = max(self._paid_until, now) + frames / FRAMES_PER_SECOND
        wait = self._paid_until - BURST - now
        if self._connected.is_closing():
            return
        if self._pending or wait > 0:
            self._connected.pause_reading()
            if not self._choked:
                self._next = self._loop.call_later(max(0.0, wait), self._go_on)
        elif not self._choked:
            self._connected.resume_reading()

    def _drain(self) -> None:
        """Look at the rest of what came before the end, in steps."""
        if self._pending and not self.aborted:
            self._step()
            self._loop.call_soon(self._drain)
            return
        self._pending = b""
        self._protocol.receive_eof()
        self.lost = True
        self._wake()

    def _step(self) -> float:
        """Look at what takes no longer than some milliseconds. Returns for how many frames it counts."""
        frames = 1.0
        while self._pending and frames < STEP:
            data = self._pending[self._at : self._at + SLICE]
            self._at += SLICE
            if self._at >= len(self._pending):
                self._pending, self._at = b"", 0
            frames += self._parse(data) + len(data) / BYTES
        return frames

    def _parse(self, data: bytes) -> int:
        """Give the library its bytes, and take the frames. Returns how many there were."""
        self._protocol.receive_data(data)
        self._flush()
        events = self._protocol.events_received()
        for event in events:
            if isinstance(event, Frame):
                self._take(event)
            else:
                event.headers.clear()  # the library keeps the answer as long as the connection lasts
        return len(events)

    def _take(self, frame: Frame) -> None:
        if frame.opcode is Opcode.PONG:
            if self.on_pong is not None:
                self.on_pong(bytes(frame.data))
        elif frame.opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
            self._size += len(frame.data)
            if self._assembling is not None:
                self._assembling += frame.data
            if frame.fin:
                self._complete()

    def _complete(self) -> None:
        self.received_messages += 1
        self.largest_message = max(self.largest_message, self._size)
        self._size = 0
        if self._assembling is not None:
            self.message, self._assembling = bytes(self._assembling), None
            self._wake()

    def _flush(self) -> None:
        transport = self._connected
        chunks = self._protocol.data_to_send()
        data = b"".join(chunks)
        if data and not transport.is_closing():
            self.sent_bytes += len(data)
            transport.write(data)
        if chunks and not chunks[-1]:  # the end of the stream
            transport.close()
        if self._deadline is None and self._protocol.state is State.CLOSING:
            # It is for the server to end TCP first (RFC 6455 section 7.1.1), which it may fail to do.
            self._deadline = self._loop.call_later(CLOSE_TIMEOUT, self.abort)

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._waiter = self._loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
