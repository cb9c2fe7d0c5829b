"""Is this a WebSocket now? The HTTP/1.1 conversation of one connection, up to a believed 101.

Requests are paired with their answers, so that the 101 to a WebSocket upgrade is told from any other. A WebSocket
exists when a valid opening handshake (RFC 6455 section 4.1) was answered 101 with the matching accept value
(section 4.2.2). Whatever else passes is left unparsed, for a bounded reason.
"""

import hashlib
import re
from binascii import a2b_base64, b2a_base64
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field
from typing import Final, NamedTuple, Protocol

from exporter.events import Side, UnparsedReason, record
from exporter.wire import http1
from exporter.wire.frames import Chunk

MAX_PIPELINED: Final = 100
"""Requests awaiting their answers on one connection; beyond it the connection is relayed unread."""

MAX_EARLY: Final = 16 * 1024
"""Bytes kept that a client sent behind an upgrade request before it was answered. All of them are looked at at once."""

_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_HTTP2_PREFACE: Final = b"PRI * HTTP/2"
_TLS_HANDSHAKE: Final = b"\x16\x03"
_STATUS_START: Final = b"HTTP/1."
_NO_LINE_END: Final = re.compile(rb"[^\r\n]")
_METHOD: Final = re.compile(http1.METHOD + rb"(?: |\Z)")


def accept_value(key: bytes) -> bytes:
    """The Sec-WebSocket-Accept that answers a Sec-WebSocket-Key (RFC 6455 section 4.2.2)."""
    return b2a_base64(hashlib.sha1(key + _GUID, usedforsecurity=False).digest(), newline=False)


def _is_key(key: bytes) -> bool:
    try:
        return len(a2b_base64(key, strict_mode=True)) == 16
    except ValueError:
        return False


@record
class UpgradeRequest:
    """An attempted opening handshake: a GET whose Upgrade contains `websocket`.

    `key` is None where the attempt is not a valid one, so that no answer can make a WebSocket of it. `query` is what
    follows the path's question mark, and `fields` are the head's by lower-case name: only to recognise the client by.
    """

    key: bytes | None
    host: str
    path: str
    user_agent: str
    query: bytes = field(default=b"", repr=False)
    fields: Mapping[bytes, Sequence[bytes]] = field(default_factory=dict, repr=False)


class UpgradeResponse(NamedTuple):
    """What the service agreed to in its 101."""

    deflate: bool
    subprotocol: str


def upgrade_request(head: http1.RequestHead, *, has_body: bool) -> UpgradeRequest | None:
    """The opening handshake that this request attempts, None if it attempts none."""
    fields = head.fields
    if head.method != b"GET" or b"websocket" not in http1.tokens(fields, b"upgrade"):
        return None
    keys = fields.get(b"sec-websocket-key", [])
    valid = (
        head.minor_version == 1
        and b"upgrade" in http1.tokens(fields, b"connection")
        and fields.get(b"sec-websocket-version") == [b"13"]
        and len(keys) == 1
        and _is_key(keys[0])
        and not has_body
    )
    path, _, query = head.target.partition(b"?")
    return UpgradeRequest(
        key=keys[0] if valid else None,
        host=http1.first(fields, b"host"),
        path=_path(path),
        user_agent=http1.first(fields, b"user-agent"),
        query=query,
        fields=fields,
    )


def _path(path: bytes) -> str:
    """A request target without its query and, in absolute form (RFC 9112 section 3.2.2), from its path on.

    What is left out may carry credentials.
    """
    if not path.startswith(b"/"):
        _, scheme, rest = path.partition(b"://")
        path = b"/" + rest.partition(b"/")[2] if scheme else path
    return http1.text(path)


class UpgradeListener(Protocol):
    """Who hears how the conversation went. After `upgraded` or `unparsed` nothing more comes."""

    def upgrade_requested(self, request: UpgradeRequest) -> None:
        """The head of an opening handshake has passed."""
        ...

    def upgrade_rejected(self, status: int) -> None:
        """The opening handshake got its final answer, and it was not a believable 101."""
        ...

    def upgraded(self, request: UpgradeRequest, response: UpgradeResponse, early: bytes, rest: bytes) -> None:
        """This is a WebSocket now; `early` and `rest` are what client and server already sent of their frames."""
        ...

    def unparsed(self, reason: UnparsedReason) -> None:
        """The connection is not understood from here on."""
        ...


class _Asked(NamedTuple):
    """A request on its way: what pairing its answer needs."""

    method: bytes
    switches: bool  # an answer may end HTTP on this connection
    upgrade: UpgradeRequest | None
    expects: bool


class _Unparsed(Exception):
    def __init__(self, reason: UnparsedReason) -> None:
        super().__init__(reason)
        self.reason: UnparsedReason = reason


class HttpConversation:
    """Reads both directions of one connection until it is a WebSocket, or turns out to be something else.

    Feed `from_client` and `from_server` every byte in the order it passed, in any split.
    """

    __slots__ = ("_asked", "_held", "_listener", "_request_body", "_response_body", "_response_head", "_waiting")

    def __init__(self, listener: UpgradeListener) -> None:
        self._listener = listener
        self._held = bytearray()  # of the client: an incomplete head, or what came behind a request that may switch
        self._response_head = bytearray()
        self._asked: deque[_Asked] = deque()
        self._waiting = False  # a request that may switch protocols has not been answered
        self._request_body = self._response_body = http1.NO_BODY

    @property
    def awaiting_answer(self) -> bool:
        """Whether a request has passed and is not answered yet."""
        return bool(self._asked)

    @property
    def incomplete(self) -> bool:
        """Whether part of a request head has passed without its end."""
        return bool(self._held) and not self._waiting

    def ahead(self, side: Side) -> int:
        """How many of the bytes that `side` sends next need no looking at: they are the rest of a body."""
        return self._request_body.ahead if side == "client" else self._response_body.ahead

    def from_client(self, data: Chunk) -> None:
        """Take the next bytes of the client."""
        try:
            self._requests(bytes(data))
        except _Unparsed as fault:
            self._listener.unparsed(fault.reason)

    def from_server(self, data: Chunk) -> None:
        """Take the next bytes of the server."""
        try:
            self._responses(bytes(data))
        except _Unparsed as fault:
            self._listener.unparsed(fault.reason)

    def _requests(self, data: bytes) -> None:
        pos = 0
        while pos < len(data):
            if not self._request_body.done:
                pos = _skip(self._request_body, data, pos, "bad_request_head")
                continue
            if self._waiting:
                self._held += data[pos:]
                if len(self._held) > MAX_EARLY:
                    raise _Unparsed("early_data")
                return
            head, pos = _take_head(self._held, data, pos, _check_request_start)
            if head is None:
                return
            self._request(head)

    def _request(self, raw: bytes) -> None:
        head = http1.parse_request(raw)
        if head is None:
            _check_request_start(raw + http1.CRLF)
            raise _Unparsed("bad_request_head")
        if len(self._asked) >= MAX_PIPELINED:
            raise _Unparsed("too_many_requests")
        try:
            self._request_body = http1.request_body(head)
        except http1.Ambiguous:
            raise _Unparsed("bad_request_head") from None
        upgrade = upgrade_request(head, has_body=not self._request_body.done)
        self._waiting = head.method == b"CONNECT" or b"upgrade" in head.fields
        self._asked.append(_Asked(head.method, self._waiting, upgrade, b"expect" in head.fields))
        if upgrade is not None:
            self._listener.upgrade_requested(upgrade)

    def _responses(self, data: bytes) -> None:
        pos = 0
        while pos < len(data):
            if not self._response_body.done:
                pos = _skip(self._response_body, data, pos, "bad_response_head")
                continue
            head, pos = _take_head(self._response_head, data, pos, _check_response_start)
            if head is None:
                return
            response = http1.parse_response(head)
            if response is None:
                _check_response_start(head)
                raise _Unparsed("bad_response_head")
            if response.status == 101:
                self._switched(response, data[pos:])
                return
            if response.status >= 200:
                self._answered(response)

    def _answered(self, response: http1.ResponseHead) -> None:
        """A final answer: the next request's turn."""
        if not self._asked:
            raise _Unparsed("bad_response_head")  # an answer to nothing
        asked = self._asked.popleft()
        if asked.upgrade is not None:
            self._listener.upgrade_rejected(response.status)
        if asked.method == b"CONNECT" and response.status < 300:
            raise _Unparsed("connect")
        if asked.expects and not (self._asked or self._request_body.done):
            raise _Unparsed("early_answer")  # the client may send the body or not (RFC 9110 section 10.1.1)
        try:
            self._response_body = http1.response_body(response, asked.method)
        except http1.Ambiguous:
            raise _Unparsed("bad_response_head") from None
        if asked.switches:
            self._waiting = False
            held, self._held = self._held, bytearray()
            self._requests(bytes(held))

    def _switched(self, response: http1.ResponseHead, rest: bytes) -> None:
        """A 101: believed only as the answer to a valid opening handshake with the accept value of its key."""
        asked = self._asked.popleft() if self._asked else None
        upgrade = asked.upgrade if asked else None
        if upgrade is None:
            raise _Unparsed("other_upgrade" if asked and asked.switches else "unexpected_101")
        if upgrade.key is None:
            self._listener.upgrade_rejected(101)
            raise _Unparsed("unexpected_101")
        if response.fields.get(b"sec-websocket-accept") != [accept_value(upgrade.key)]:
            self._listener.upgrade_rejected(101)
            raise _Unparsed("accept_mismatch")
        extensions = http1.tokens(response.fields, b"sec-websocket-extensions")
        deflate = b"permessage-deflate" in [extension.split(b";")[0].strip() for extension in extensions]
        subprotocol = http1.first(response.fields, b"sec-websocket-protocol")
        self._listener.upgraded(upgrade, UpgradeResponse(deflate, subprotocol), bytes(self._held), rest)


def _skip(body: http1.Body, data: bytes, pos: int, reason: UnparsedReason) -> int:
    try:
        return body.skip(data, pos)
    except http1.Ambiguous:
        raise _Unparsed(reason) from None


def _take_head(
    held: bytearray, data: bytes, pos: int, check_start: Callable[[bytes], None]
) -> tuple[bytes | None, int]:
    """Take a head that begins in `held` or, where that is empty, in `data` at `pos`.

    Returns it without its empty line, and the position of what follows it in `data`; None of an incomplete one, which
    is then in `held`. Empty lines before a head are passed over (RFC 9112 section 2.2). Of a head that is not whole
    `check_start` tells whether it may become one; of one that is, whoever parses it in vain is to call it first, so
    that the verdict does not depend on how the bytes were split. Time is linear whether a head comes byte by byte (the
    search resumes where it left off) or hundreds come in one read (what follows is not copied).
    """
    before = len(held)
    if before:
        held += data[pos:]
        where: bytes | bytearray = held
        begin, searched = 0, max(before - 3, 0)
    else:
        where, begin = data, pos
        if data[pos] in http1.CRLF:
            line = _NO_LINE_END.search(data, pos)
            begin = line.start() if line else len(data)
        searched = begin
    end = where.find(http1.HEAD_END, searched)
    shortest = (end if end >= 0 else len(where) - 3) - begin  # up to three bytes of the end may have passed
    if end < 0 or shortest > http1.MAX_HEAD:
        check_start(bytes(where[begin : begin + 32]))
        if shortest > http1.MAX_HEAD:
            raise _Unparsed("head_too_large")
        if not before:
            held += data[begin:]
        return None, len(data)
    head = bytes(where[begin:end])
    held.clear()
    return head, end + len(http1.HEAD_END) + (pos - before if before else 0)


def _check_response_start(start: bytes) -> None:
    """Tell from its first bytes what is no HTTP/1 response; an undecided start passes."""
    if not _STATUS_START.startswith(start[: len(_STATUS_START)]):
        raise _Unparsed("bad_response_head")


def _check_request_start(start: bytes) -> None:
    """Tell from its first bytes what is no HTTP/1 request; an undecided start passes."""
    if start.startswith(_TLS_HANDSHAKE):
        raise _Unparsed("tls")
    if start.startswith(_HTTP2_PREFACE):
        raise _Unparsed("http2")
    if start and start != _TLS_HANDSHAKE[:1] and not _METHOD.match(start):
        raise _Unparsed("not_http")
