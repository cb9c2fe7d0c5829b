"""uvicorn's httptools protocol, made fit for strangers: bounded requests, deadlines, and one error shape below HTTP."""

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import httptools
from starlette.types import Scope
from uvicorn import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from exporter.web.errors import ErrorAnswers, ErrorToken

CONNECTIONS: Final = 256
"""Connections that are served at a time, by default."""
LINGERING: Final = 64
"""Connections that may linger at a time after an error; file descriptors are the relay's to use."""

_HOST: Final = re.compile(rb"[\w.~!$&'()*+,;=%:\[\]-]*", re.ASCII)  # RFC 3986 section 3.2.2, loosely
_OF_UPGRADES: Final = frozenset({b"connection", b"upgrade", b"http2-settings"})
_DELIVERED: Final = "websocket_exporter.delivered"

Fields = list[tuple[bytes, bytes]]
"""Of a head, with names in lower case, in their order."""

_State = Literal["head", "body", "answer"]
"""What the connection is waiting for: a head (or anything at all), the rest of a body, or the application."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one listener takes; sizes in bytes, times in seconds."""

    connections: int = CONNECTIONS
    head: int = 16 * 1024
    fields: int = 100
    uri: int = 8 * 1024
    body: int = 16 * 1024
    """Of a request's body as it stands on the wire, chunk sizes and trailers included."""
    chunks: int = 1024
    """Of a body, trailers included: each takes longer than hundreds of bytes in one piece."""
    head_time: float = 10.0
    """From the first byte of a head (of a connection's first one: from the connection) to its end."""
    body_stall: float = 10.0
    write_stall: float = 30.0
    """For a client to take what it was sent."""
    idle: int = 75
    """Between requests: longer than scrapes are usually apart, so that they can share a connection."""
    linger: float = 1.0


Respond = Callable[[bytes], tuple[int, bytes] | None]
"""Given the body of a request, returns the status, and the answer from its own fields on; None has the application
handle the request.
"""


@dataclass(frozen=True, slots=True)
class Prompt:
    """What small POST requests to these `paths` may be answered with at once, without the application.

    `judge` is given the path and the fields of a head, and returns what answers a body behind it, and behind all
    further heads of the very same bytes; None has the application handle the request.
    """

    paths: frozenset[bytes]
    judge: Callable[[bytes, Fields], Respond | None]


@dataclass(slots=True)
class Door:
    """What the connections of one listener share."""

    limits: Limits
    answers: ErrorAnswers
    lingering: set["GuardedProtocol"] = field(default_factory=set)
    prompt: "Prompt | None" = None
    admits: Callable[[asyncio.BaseTransport], bool] = lambda _: True
    """Whether whoever is at the other end of a new connection may ask anything."""


def delivered(scope: Scope) -> bool:
    """Whether the answer to this request has been handed, whole, to a connection that was up in both directions."""
    return _DELIVERED in scope["state"]


class GuardedProtocol(HttpToolsProtocol):
    """One connection, on which one request is handled at a time.

    A request that comes before its predecessor is answered ends the connection after that answer: RFC 9112 section
    9.3.2 allows it, no scraper pipelines, and nothing queues up.
    """

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        door: Door,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._door = door
        self._limits = door.limits
        self._reading = Deadline(self.loop)
        self._writing = Deadline(self.loop)
        self._state: _State = "head"
        self._room = self._limits.head  # bytes that this head or body may still take
        self._room_renewed = False
        self._chunks = 0  # of the body under way, and trailers
        self._pieces: list[bytes] = []  # of it, that came with this read
        self._uncounted = False  # whether the head began behind a body, in bytes that count as the body's
        self._fault: ErrorToken = "bad_request"
        self._deaf = False
        self._half_closed = False

    # The transport's callbacks

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the clock of the first request, or turn the client away."""
        super().connection_made(transport)
        # Whatever a client leaves unread then counts as a pause, and runs into the time limit for writing. Over TLS,
        # event loops take nothing at all for more than a limit of 0.
        transport.set_write_buffer_limits(high=0 if transport.can_write_eof() else 1)
        if not self._door.admits(transport):
            self._deaf = True
            transport.abort()
        elif len(self.connections) - len(self._door.lingering) > self._limits.connections:
            self._refuse("overloaded")
        else:
            self._reading.set(self._limits.head_time, self._too_late)

    def connection_lost(self, exc: Exception | None) -> None:
        """Let go of everything that would keep this connection in memory."""
        super().connection_lost(exc)
        self._unset_keepalive_if_required()
        self._reading.end()
        self._writing.end()
        self._door.lingering.discard(self)

    def data_received(self, data: bytes) -> None:
        """Parse no more at once than the head or body under way may still take."""
        if self._deaf:
            return
        self._unset_keepalive_if_required()
        if self._state == "head":
            self._reading.set_unless_running(self._limits.head_time, self._too_late)
        while data and not self._deaf:
            piece, data = data[: self._room], data[self._room :]
            self._feed(piece)
        if self._state == "body" and not self._deaf:
            # Once for all chunks that came together: a timer for each would cost more than the rest of the request.
            self._reading.set(self._limits.body_stall, self._too_late)

    def eof_received(self) -> bool:  # type: ignore[override]
        """A client that only half-closes still gets the answer under way; one that has left looks just the same.

        Over TLS no event loop can half-close: the connection ends.
        """
        if self._state != "answer":
            return False
        self._half_closed = True
        self._make_last()
        return self.transport.can_write_eof()

    def pause_writing(self) -> None:
        """The client does not take what it was sent: it has so long to do so."""
        super().pause_writing()
        self._writing.set(self._limits.write_stall, self.transport.abort)

    def resume_writing(self) -> None:
        """The client took everything."""
        super().resume_writing()
        self._writing.clear()

    def shutdown(self) -> None:
        """The server stops: end after the answer under way, or now."""
        if self._state == "answer":
            self._make_last()
        else:
            self.transport.close()

    # The parser's callbacks; what they raise ends the parsing

    def on_message_begin(self) -> None:
        """A request begins."""
        if self._state == "answer":
            self._make_last()
            raise _Stop
        self._unset_keepalive_if_required()
        self._reading.set_unless_running(self._limits.head_time, self._too_late)
        self._uncounted = self._room_renewed
        self._begin()

    def on_url(self, url: bytes) -> None:
        """A part of the request target."""
        self.url += url
        if len(self.url) > self._limits.uri:
            self._fail("uri_too_long")

    def on_header(self, name: bytes, value: bytes) -> None:
        """A field; trailers are dropped (RFC 9110 section 6.5.1), they would pass for fields of the head."""
        if self._state == "body":
            self.on_chunk_header()
            return
        name = name.lower()
        if name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """The head is complete: judge it, then have the request handled."""
        fault = head_fault(self.parser.get_http_version(), self.headers, self._limits.body)
        if fault:
            self._fail(fault)
        if len(self.headers) > self._limits.fields:
            self._fail("head_too_large")
        if self._uncounted and sum(len(name) + len(value) for name, value in self.headers) > self._limits.head:
            self._fail("head_too_large")
        if self._wishes():
            return  # and read it again
        self._handle()
        self._state = "body"
        self._renew_room(self._limits.body)
        self._chunks = 0
        self._reading.set(self._limits.body_stall, self._too_late)

    def on_chunk_header(self) -> None:
        """A chunk begins."""
        self._chunks += 1
        if self._chunks > self._limits.chunks:
            self._fail("body_too_large")

    def on_body(self, body: bytes) -> None:
        """A part of the body. Given on one by one, each would be added to a copy of all before it."""
        self._pieces.append(body)

    def on_message_complete(self) -> None:
        """The request is complete."""
        if self._wishes():
            return
        self._give_on()
        super().on_message_complete()
        self._state = "head" if self.cycle.response_complete else "answer"
        self._renew_room(self._limits.head)
        self._reading.clear()
        if self._state == "head":  # it was answered before its body was there
            self._unset_keepalive_if_required()
            self.timeout_keep_alive_task = self.loop.call_later(self._limits.idle, self.timeout_keep_alive_handler)

    def _begin(self) -> None:
        """Prepare for a request."""
        super().on_message_begin()

    def _handle(self) -> None:
        """Have the request handled whose head is complete and sound."""
        super().on_headers_complete()

    # Endings

    def on_response_complete(self) -> None:
        """The whole answer has been handed to the transport."""
        if not self._half_closed:
            self.scope["state"][_DELIVERED] = True
        if self._state == "answer":
            self._state = "head"
        super().on_response_complete()

    def _feed(self, piece: bytes) -> None:
        self._room_renewed = False
        try:
            self.parser.feed_data(piece)
        except httptools.HttpParserUpgrade as upgrade:
            if self._wishes():
                self._read_again(piece[upgrade.args[0] :])
            else:
                self._make_last()  # CONNECT: what follows is no request
        except httptools.HttpParserError:
            if not self._deaf:
                self._refuse(self._fault)
        else:
            self._give_on()
            if not self._room_renewed:
                self._room -= len(piece)
            if not self._room:
                self._refuse("body_too_large" if self._state == "body" else "head_too_large")

    def _give_on(self) -> None:
        """Give the application what has come of the body."""
        pieces, self._pieces = self._pieces, []
        if pieces:
            super().on_body(pieces[0] if len(pieces) == 1 else b"".join(pieces))

    def _wishes(self) -> bool:
        """Whether the request asks for another protocol, which it need not get."""
        return self.parser.should_upgrade() and self.parser.get_method() != b"CONNECT"

    def _read_again(self, rest: bytes) -> None:
        """Have a request that asks to upgrade handled as if it had not (RFC 9110 section 7.8 allows it).

        Java's HttpClient asks so with every first request. The parser takes what follows for another protocol, so it
        gets the head once more without the wish, and then the body. The connection ends with the answer: its client
        may have gone on in that other protocol.
        """
        method, version = self.parser.get_method(), self.parser.get_http_version().encode()
        lines = [b"%b %b HTTP/%b\r\n" % (method, self.url, version)]
        lines += [b"%b: %b\r\n" % (name, value) for name, value in self.headers if name not in _OF_UPGRADES]
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn's: else the answer is lost
        self._state = "head"
        self._feed(b"".join((*lines, b"connection: close\r\n\r\n", rest)))

    def _renew_room(self, room: int) -> None:
        self._room = room
        self._room_renewed = True

    def _fail(self, token: ErrorToken) -> None:
        self._fault = token
        raise _Stop

    def _too_late(self) -> None:
        if self._state == "head" and self._room == self._limits.head and not self._uncounted:
            self.transport.close()  # a connection on which nothing was asked
        else:
            self._refuse("request_timeout")

    def _make_last(self) -> None:
        """Hear no more, and close after the answer under way."""
        self._deaf = True
        self.cycle.keep_alive = False
        if self.cycle.response_complete:
            self.transport.close()

    def _refuse(self, token: ErrorToken) -> None:
        """Answer an error instead of handling the request, and close."""
        self._deaf = True
        if self._state != "head":
            if self.cycle.response_started:
                self._make_last()  # too late to answer anything else
                return
            # The application may wait for a body that it will not get.
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.transport.write(self._door.answers.raw(token, self.server_state.default_headers))
        self._linger()

    def _linger(self) -> None:
        """Half-close, and read on for a moment.

        A close with unread bytes makes the kernel send an RST, which can take the answer away from the client
        (RFC 9112 section 9.6).
        """
        if len(self._door.lingering) >= LINGERING:
            self.transport.close()
            return
        self._door.lingering.add(self)
        self.flow.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._reading.set(self._limits.linger, self.transport.close)


def head_fault(version: str, fields: Fields, body_limit: int) -> ErrorToken | None:
    """What is wrong with a head that the parser found well-formed.

    RFC 9112 section 3.2: one Host field, which HTTP/1.0 may lack; section 6.1: no Transfer-Encoding in HTTP/1.0.
    """
    values: dict[bytes, list[bytes]] = {}
    for name, value in fields:
        values.setdefault(name, []).append(value)
    hosts = values.get(b"host", [])
    if version not in ("1.0", "1.1") or len(hosts) > 1 or not all(map(_HOST.fullmatch, hosts)):
        return "bad_request"
    if version == "1.1" and not hosts:
        return "bad_request"
    if version == "1.0" and b"transfer-encoding" in values:
        return "bad_request"
    if any(int(length) > body_limit for length in values.get(b"content-length", [])):
        return "body_too_large"
    return None


class _Stop(Exception):
    """Ends the parsing: what has to be done is done, or noted."""


class Deadline:
    """One thing to do unless it is called off in time.

    Most are: a timer of the loop is not cancelled with them, but looks when it fires what there is to do by then.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._due: float | None = None
        self._then: Callable[[], None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._fires = 0.0

    @property
    def running(self) -> bool:
        """Whether there is something to do."""
        return self._due is not None

    def set(self, delay: float, then: Callable[[], None]) -> None:
        """Do this in `delay` seconds, and not what was to be done before."""
        due = self._loop.time() + delay
        self._due = due
        self._then = then
        if self._timer is None or due < self._fires:
            self._start(due)

    def set_unless_running(self, delay: float, then: Callable[[], None]) -> None:
        """Do this in `delay` seconds unless there is something to do already."""
        if self._due is None:
            self.set(delay, then)

    def clear(self) -> None:
        """Call it off."""
        self._due = None

    def end(self) -> None:
        """There will be nothing to do any more."""
        self._due = self._then = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _start(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._fires = at
        self._timer = self._loop.call_at(at, self._fire)

    def _fire(self) -> None:
        self._timer = None
        if self._due is None or self._then is None:
            return
        if self._due > self._fires:
            self._start(self._due)
        else:
            self._due = None
            self._then()
