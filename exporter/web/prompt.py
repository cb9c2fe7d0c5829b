"""Small requests answered right where they are parsed: no scope, no task, one write.

Through an ASGI application a request costs at least 50 µs, of which counting one event is a tenth. A service that
reports each close by itself would pay that for every one of them. And a sender says the same in every head, but for
Content-Length: a head that was answered so before is not even parsed.
"""

import asyncio
from http import HTTPStatus
from typing import Any, Final, NamedTuple

from uvicorn import Config
from uvicorn.server import ServerState

from exporter.web.errors import ErrorToken
from exporter.web.protocol import Deadline, Door, Fields, GuardedProtocol, Respond

LARGEST: Final = 32 * 1024
"""Bytes of a body, as Content-Length announces it, from which on the application handles the request."""

AT_ONCE: Final = 16
"""Requests of one read of the socket that are answered so; the application makes others wait, and then the sender."""

KNOWN_HEADS: Final = 64
LONGEST_HEAD: Final = 1024
"""Bytes of a head that is remembered, at most. With their fields all of them take less than 1 MiB; what a sender says
in its head stays in memory until so many others were answered."""

_END_OF_HEAD: Final = b"\r\n\r\n"
_STATUS_LINES: Final = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}


class KnownHead(NamedTuple):
    """What was found out of a head: the Content-Length, and what answers bodies behind it."""

    length: int
    respond: Respond


class Heads:
    """The heads of one listener's requests that were answered at once, by their bytes without the empty line."""

    def __init__(self) -> None:
        self._known: dict[bytes, KnownHead] = {}
        self.find: Final = self._known.get

    def remember(self, head: bytes, known: KnownHead) -> None:
        """Know this head again; where there are too many, only this one: those that are in use soon come again."""
        if len(head) > LONGEST_HEAD:
            return
        if len(self._known) >= KNOWN_HEADS:
            self._known.clear()
        self._known[head] = known


class PromptProtocol(GuardedProtocol):
    """A connection on which `door.prompt` is asked first. What it cannot answer is handled as on any other.

    `heads` are those of all connections of the listener.
    """

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        door: Door,
        heads: Heads,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop, door=door)
        self._prompt = door.prompt
        self._heads = heads
        self._head = b""  # with which the read under way begins, if it begins with one
        self._behind = 0  # bytes of that read behind it
        self._idle = Deadline(self.loop)
        self._answered = 0  # of the read under way
        self._default_fields: Fields = []
        self._lines = b""  # these, as they are sent
        self._parts: list[bytes] | None = None  # of the body of a request that may be answered at once

    def connection_lost(self, exc: Exception | None) -> None:
        """Let go of everything that would keep this connection in memory."""
        super().connection_lost(exc)
        self._idle.end()

    def data_received(self, data: bytes) -> None:
        """Serve what came, but not for ever."""
        self._answered = 0
        self._head = b""
        if len(data) <= LARGEST and self._is_between_requests():
            head, end, body = data.partition(_END_OF_HEAD)
            known = self._heads.find(head) if end else None
            # The parser is between requests, too, and would take exactly these bytes for this one.
            if known is not None and known.length == len(body):
                answer = known.respond(body)
                if answer is not None:
                    self._unset_keepalive_if_required()
                    self._answer(*answer)
                    return
                self._answered = AT_ONCE  # it cannot be answered so: that need not be found out again
            self._head, self._behind = head, len(body)
        super().data_received(data)

    def on_body(self, body: bytes) -> None:
        """A part of the body."""
        if self._parts is None:
            super().on_body(body)
        else:
            self._parts.append(body)

    def on_message_complete(self) -> None:
        """The request is complete: answer it, or have it handled after all."""
        parts, self._parts = self._parts, None
        if parts is not None and self._prompt is not None:
            body = parts[0] if len(parts) == 1 else b"".join(parts)
            respond = self._prompt.judge(self.url, self.headers)
            answer = respond(body) if respond is not None else None
            if respond is not None and answer is not None:
                if self._head and len(body) == self._behind:
                    self._heads.remember(self._head, KnownHead(len(body), respond))
                self._state = "head"
                self._renew_room(self._limits.head)
                self._reading.clear()
                self._answer(*answer)
                return
            self._hand_over()
            super().on_body(body)
        super().on_message_complete()

    def _begin(self) -> None:
        self.url = b""
        self.headers = []
        self.expect_100_continue = False

    def _handle(self) -> None:
        if self._may_be_prompt():
            self._parts = []
        else:
            self._hand_over()

    def _may_be_prompt(self) -> bool:
        return (
            self._prompt is not None
            and self._answered < AT_ONCE
            and self.url in self._prompt.paths
            and self.parser.get_method() == b"POST"
            and _announced(self.headers) <= LARGEST
            and self.parser.should_keep_alive()
            and not self.expect_100_continue
            and not self.flow.write_paused  # else answers that nobody takes would pile up
        )

    def _hand_over(self) -> None:
        url, headers, expects = self.url, self.headers, self.expect_100_continue
        super()._begin()
        self.url, self.headers, self.expect_100_continue = url, headers, expects
        self.scope["headers"] = headers
        super()._handle()

    def _is_between_requests(self) -> bool:
        """Whether the last request was answered whole, of the next one there is no byte, and answers are taken."""
        return self._state == "head" and not (self._reading.running or self._deaf or self.flow.write_paused)

    def _answer(self, status: int, answer: bytes) -> None:
        self._answered += 1
        self._idle.set(self._limits.idle, self.transport.close)
        fields = self.server_state.default_headers
        if fields is not self._default_fields:  # a new list each second, for the Date
            self._default_fields = fields
            self._lines = b"".join(b"%b: %b\r\n" % field for field in fields)
        self.transport.write(b"".join((_STATUS_LINES[status], self._lines, answer)))

    def _refuse(self, token: ErrorToken) -> None:
        if self._parts is not None:
            self._parts = None
            self._state = "head"  # nobody else knows of the request
        super()._refuse(token)

    def _unset_keepalive_if_required(self) -> None:
        if self.timeout_keep_alive_task is not None:
            super()._unset_keepalive_if_required()
        self._idle.clear()


def _announced(fields: Fields) -> int:
    """The Content-Length; more than any where there is none."""
    return next((int(value) for name, value in fields if name == b"content-length"), LARGEST + 1)
