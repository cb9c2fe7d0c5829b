"""HTTP/1.1 heads and bodies, read only as far as a relay needs (RFC 9112).

A head is parsed strictly: what is not plainly well-formed is None, and the connection is then left alone. Where two
parsers might disagree about where a message ends, this one declines to say.
"""

import re
from functools import lru_cache
from typing import Final, NamedTuple

MAX_HEAD: Final = 64 * 1024
"""Bytes of a head that are looked at; a longer one is relayed unread."""

MAX_FIELDS: Final = 256
"""Field lines of a head; one with more is no head that is worth the time."""

FOREVER: Final = 1 << 64
"""More bytes than any connection carries."""

SHARED: Final = 256
"""Bytes of a value that is read once for all connections; longer ones are by each, so that what is kept stays small."""

CRLF: Final = b"\r\n"
HEAD_END: Final = b"\r\n\r\n"

_TOKEN: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]"

METHOD: Final = _TOKEN + rb"{1,24}"
"""What may be a request's method. Of a longer word it is not believed that HTTP comes of it."""

_REQUEST_LINE: Final = re.compile(rb"(" + METHOD + rb") ([!-~\x80-\xff]+) HTTP/1\.([01])(?=\r\n|\Z)")
_STATUS_LINE: Final = re.compile(rb"HTTP/1\.[01] ([1-9][0-9]{2})(?: [\t -~\x80-\xff]*)?(?=\r\n|\Z)")
_FIELD_LINE: Final = re.compile(CRLF + rb"(" + _TOKEN + rb"++):[ \t]*+([\t -~\x80-\xff]*+)")
# Deleting what may be there, to see whether anything else is, takes a tenth of the time of an expression.
_TEXT_BYTES: Final = bytes((*b"\t", *range(0x20, 0x7F), *range(0x80, 0x100)))
_CHUNK_LINE: Final = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[\t -~\x80-\xff]*)?")
_MAX_LINE: Final = 8 * 1024

Fields = dict[bytes, list[bytes]]


class RequestHead(NamedTuple):
    """A request head. `target` is the request target as sent, `fields` maps lower-case names to their values."""

    method: bytes
    target: bytes
    minor_version: int
    fields: Fields


class ResponseHead(NamedTuple):
    """A response head. `fields` maps lower-case names to their values."""

    status: int
    fields: Fields


def _fields(head: bytes, begin: int) -> Fields | None:
    """The fields of a head whose first line ends at `begin`."""
    if head.count(CRLF, begin) > MAX_FIELDS:
        return None
    lines = _FIELD_LINE.findall(head, begin)
    # Where there is nothing else but text, and one line end for each of them, these are all there is.
    if head.translate(None, _TEXT_BYTES) != CRLF * len(lines):
        return None
    fields: Fields = {}
    for name, value in lines:
        fields.setdefault(name.lower(), []).append(value.rstrip())
    return fields


def parse_request(head: bytes) -> RequestHead | None:
    """Parse a request head, given without its closing empty line; None if it is not plainly well-formed."""
    match = _REQUEST_LINE.match(head)
    fields = match and _fields(head, match.end())
    if match is None or fields is None:
        return None
    return RequestHead(match[1], match[2], int(match[3]), fields)


def parse_response(head: bytes) -> ResponseHead | None:
    """Parse a response head, given without its closing empty line; None if it is not plainly well-formed."""
    match = _STATUS_LINE.match(head)
    fields = match and _fields(head, match.end())
    if match is None or fields is None:
        return None
    return ResponseHead(int(match[1]), fields)


def tokens(fields: Fields, name: bytes) -> tuple[bytes, ...]:
    """The lower-case members of a comma-separated list field, over all its lines (RFC 9110 section 5.6.1)."""
    values = fields.get(name)
    if values is None:
        return ()
    whole = b",".join(values)
    return _shared_members(whole) if len(whole) <= SHARED else _members(whole)


def _members(whole: bytes) -> tuple[bytes, ...]:
    return tuple(filter(None, map(bytes.strip, whole.lower().split(b","))))


_shared_members: Final = lru_cache(maxsize=1024)(_members)


def first(fields: Fields, name: bytes) -> str:
    """The first value of a field as text, bytes beyond ASCII escaped; empty when absent."""
    values = fields.get(name)
    return text(values[0]) if values else ""


def text(value: bytes) -> str:
    """A value as text, bytes beyond ASCII escaped. Thousands of connections say the same, and share it."""
    return _shared_text(value) if len(value) <= SHARED else _text(value)


def _text(value: bytes) -> str:
    return value.decode("ascii", "backslashreplace")


_shared_text: Final = lru_cache(maxsize=1024)(_text)


class Ambiguous(Exception):
    """The head does not say beyond doubt where its body ends (RFC 9112 section 6.3)."""


class Body:
    """What is left to pass of a message body: by length, by chunks, or until the connection ends."""

    __slots__ = ("_behind_data", "_chunked", "_line", "_remaining", "_trailer", "done", "until_close")

    def __init__(self, length: int = 0, *, chunked: bool = False, until_close: bool = False) -> None:
        self._remaining = length
        self._chunked = chunked
        self._line = b""  # of the chunked coding: a line that has not passed completely
        self._behind_data = False  # the next line is the empty one that ends a chunk's data
        self._trailer = False
        self.until_close = until_close
        self.done = not (length or chunked or until_close)

    @property
    def ahead(self) -> int:
        """How many of the bytes to come are surely the body's own: the rest of it, or of a chunk's data."""
        return FOREVER if self.until_close else self._remaining

    def skip(self, data: bytes, pos: int = 0) -> int:
        """Pass over the body's bytes in `data` from `pos` on; returns the position of what follows it.

        Raises:
            Ambiguous: the chunked coding is broken.
        """
        if self.until_close:
            return len(data)
        if self._chunked:
            return self._skip_chunks(data, pos)
        taken = min(self._remaining, len(data) - pos)
        self._remaining -= taken
        self.done = self._remaining == 0
        return pos + taken

    def _skip_chunks(self, data: bytes, pos: int) -> int:
        while pos < len(data) and not self.done:
            if self._remaining:
                taken = min(self._remaining, len(data) - pos)
                self._remaining -= taken
                pos += taken
                continue
            newline = data.find(b"\n", pos)
            stop = len(data) if newline < 0 else newline + 1
            self._line += data[pos:stop]
            pos = stop
            if len(self._line) > _MAX_LINE:
                raise Ambiguous
            if newline >= 0:
                line, self._line = self._line, b""
                self._chunk_line(line)
        return pos

    def _chunk_line(self, line: bytes) -> None:
        if not line.endswith(CRLF):
            raise Ambiguous
        if self._trailer:
            self.done = line == CRLF
        elif self._behind_data:
            self._behind_data = False
            if line != CRLF:
                raise Ambiguous
        else:
            match = _CHUNK_LINE.fullmatch(line[:-2])
            if match is None:
                raise Ambiguous
            self._remaining = int(match[1], 16)
            self._behind_data = self._remaining > 0
            self._trailer = not self._behind_data


NO_BODY: Final = Body()
"""One for all heads without a body."""


def _content_length(fields: Fields) -> int | None:
    values = fields.get(b"content-length")
    if values is None:
        return None
    if len(values) > 1 or not re.fullmatch(rb"[0-9]{1,18}", values[0]):
        raise Ambiguous
    return int(values[0])


def _is_chunked(fields: Fields) -> bool:
    if b"transfer-encoding" not in fields:
        return False
    if tokens(fields, b"transfer-encoding") != (b"chunked",) or b"content-length" in fields:
        raise Ambiguous
    return True


def request_body(head: RequestHead) -> Body:
    """The body that follows a request head.

    Raises:
        Ambiguous: the lengths given contradict each other, or the coding is not plain chunked, or HTTP/1.0 knows none
            (RFC 9112 section 6.1).
    """
    if _is_chunked(head.fields):
        if head.minor_version == 0:
            raise Ambiguous
        return Body(chunked=True)
    length = _content_length(head.fields)
    return Body(length) if length else NO_BODY


def response_body(head: ResponseHead, method: bytes) -> Body:
    """The body that follows a final response to a request with `method`.

    Raises:
        Ambiguous: as for `request_body`.
    """
    if method == b"HEAD" or head.status in (204, 304):
        return NO_BODY
    if _is_chunked(head.fields):
        return Body(chunked=True)
    length = _content_length(head.fields)
    return Body(until_close=True) if length is None else Body(length)
