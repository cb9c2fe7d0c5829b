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
        "_deadline",
        "_head",
        "_headers",
        "_loop",
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

    async def close(self) -> ConnectionClosed:
        """End the WebSocket with 1000 unless it has ended, wait for the end of TCP, and tell how it went."""
        if self._protocol.state is State.OPEN and not self.aborted:
            self._protocol.send_close(CloseCode.NORMAL_CLOSURE)
            self._flush()
        try:
            await self.wait_closed()
        except BaseException:
            self.abort()
            raise
        return self._protocol.close_exc

    def abort(self) -> None:
        """End TCP without a word."""
        self.aborted = True
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
        self._protocol.receive_eof()
        self._flush()

    def connection_lost(self, exc: Exception | None) -> None:
        """Learn that the transport has ended."""
        self._protocol.receive_eof()
        self.lost = True
        self.lost_by = exc
        if self._deadline is not None:
            self._deadline.cancel()
        self._wake()

    def pause_writing(self) -> None:
        """Read nothing that may have to be answered while no answer goes out."""
        self._connected.pause_reading()

    def resume_writing(self) -> None:
        """Read on."""
        if not self._connected.is_closing():
            self._connected.resume_reading()

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
            self._read(head)
            self.received_bytes -= end + len(HEAD_END)
            self.accepted = self._protocol.handshake_exc is None
        if not self.accepted:
            self.answer = answer
            self.abort()
        self._wake()

    def _read(self, data: bytes) -> None:
        self.received_bytes += len(data)
        self._protocol.receive_data(data)
        self._flush()
        for event in self._protocol.events_received():
            if isinstance(event, Frame):
                self._take(event)
            else:
                event.headers.clear()  # the library keeps the answer as long as the connection lasts

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
        for data in self._protocol.data_to_send():
            if not data:  # the end of the stream
                transport.close()
            elif not transport.is_closing():
                self.sent_bytes += len(data)
                transport.write(data)
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
