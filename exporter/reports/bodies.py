"""Takes the body of a request apart: into one event, the elements of a JSON array, or the lines of NDJSON.

In steps: what a sender may make slow is bounded, not by time but by how many bytes and events are looked at before the
event loop gets its turn.
"""

import re
from collections.abc import Callable, Generator, Sequence
from functools import lru_cache
from typing import Final, Literal, TypeVar, get_args

import msgspec

from exporter.reports.report import Item

MAX_EVENTS: Final = 1000
"""Events in one request."""

MAX_EVENT: Final = 64 * 1024
"""Bytes of one event, without blanks around it, or of a line of NDJSON."""

STEP: Final = 64 * 1024
"""Bytes that are looked at in one step, or one event. Measured: the slowest, half surrogate pairs, take 0.5 ms."""

STEP_EVENTS: Final = 250
"""Events of one step at most, of those that are decoded at once."""

SHORT: Final = 32 * 1024
"""Bytes that are decoded as they are: the 10,000 empty objects that fit take a millisecond."""

EVENT_COST: Final = 1024
"""Bytes that can be looked at while the fault of an event is found out and named, however short the event is."""

JSON: Final = "application/json"
NDJSON: Final = frozenset({"application/x-ndjson", "application/ndjson"})

Read = Callable[[bytes], Item]
"""Reads one event from well-formed JSON; of malformed JSON it may say anything but an event."""

ReadLines = Callable[[bytes], Sequence[Item] | None]
"""Reads one event from each of some lines, at once; None where one of them has to be looked at more closely."""

T = TypeVar("T")
Steps = Generator[Sequence[Item], None, T]
"""Yields the events of each step, of which there may be none, and returns something else. Raises BodyFault."""

Events = Steps[None]
"""The events of a request, step by step."""

Fault = Literal["body_too_large", "invalid_json", "too_many_events", "unsupported_media_type"]
FAULTS: Final[tuple[Fault, ...]] = get_args(Fault)


class BodyFault(Exception):
    """The body as a whole cannot be taken; `token` says why."""

    def __init__(self, token: Fault) -> None:
        super().__init__(token)
        self.token: Final = token


@lru_cache(maxsize=32)
def media_type(content_type: str) -> str:
    """The media type of a Content-Type, in lower case. Raises BodyFault for a charset that is not UTF-8."""
    name, *parameters = content_type.split(";")
    for parameter in parameters:
        key, _, value = parameter.partition("=")
        if key.strip().lower() == "charset" and value.strip().strip('"').lower() != "utf-8":
            raise BodyFault("unsupported_media_type")
    return name.strip().lower()


def each(body: bytes, content_type: str, read: Read) -> Events:
    """The events of a body of JSON, one or an array of them, or NDJSON. Raises BodyFault."""
    kind = media_type(content_type)
    if kind == JSON:
        array = yield from is_array(body)
        yield from many(body, read) if array else one(body, read)
    elif kind in NDJSON:
        yield from lines(body, read)
    else:
        raise BodyFault("unsupported_media_type")


def is_array(body: bytes) -> Steps[bool]:
    """Whether the body is a JSON array, if it is JSON at all."""
    start = yield from _past_blanks(body, 0)
    return body[start : start + 1] == b"["


def one(body: bytes, read: Read) -> Events:
    """The one event that the body is. Raises BodyFault."""
    if len(body) > MAX_EVENT:
        text = (yield from _without_escapes(body)) if b"\\" in body else body
        start = yield from _past_blanks(text, 0)
        end = start + _value_end(text, start)
        if (yield from _past_blanks(text, end)) < len(text):
            raise BodyFault("invalid_json")
        body = body[start:end]
    item = _judged(body, read)
    if item == "invalid_json":
        raise BodyFault("invalid_json")
    yield [item]


def many(body: bytes, read: Read) -> Events:
    """The events of the array that the body is. Raises BodyFault."""
    items: list[Item] = []
    events = work = 0
    text = (yield from _without_escapes(body)) if b"\\" in body else body
    place = (yield from _past_blanks(text, 0)) + 1
    start = yield from _past_blanks(text, place)
    more = text[start : start + 1] != b"]"
    while more:
        if events == MAX_EVENTS:
            raise BodyFault("too_many_events")
        events += 1
        end = start + _value_end(text, start)
        element = body[start:end]
        work += len(element) + EVENT_COST
        if work > STEP:
            yield items
            items = []
            work = len(element) + EVENT_COST
        item = read(element)
        if not _is_utf8(element) or (isinstance(item, str) and not _has_sound_escapes(element)):
            raise BodyFault("invalid_json")
        items.append(item)
        start = yield from _past_blanks(text, end)
        more = text[start : start + 1] == b","
        if more:
            start = yield from _past_blanks(text, start + 1)
    if text[start : start + 1] != b"]" or (yield from _past_blanks(text, start + 1)) < len(text):
        raise BodyFault("invalid_json")
    yield items


def lines(body: bytes, read: Read, read_lines: ReadLines | None = None) -> Events:
    """The events of the lines of the body; blank ones are none. Raises BodyFault.

    Lines are read one by one where `read_lines`, if it is there, cannot read them at once.
    """
    events = 0
    start = yield from _past_blanks(body, 0)
    while start < len(body):
        end = _lines_end(body, start)
        items: Sequence[Item] | None
        if end == start:
            end = body.find(b"\n", start + MAX_EVENT) + 1 or len(body)
            items = ["line_too_long"]
        else:
            text = body[start:end]
            items = read_lines(text) if read_lines is not None else None
            if items is None:
                items = yield from _one_by_one(text, read, MAX_EVENTS - events)
        events += len(items)
        if events > MAX_EVENTS:
            raise BodyFault("too_many_events")
        for first in range(0, len(items), STEP_EVENTS):
            yield items[first : first + STEP_EVENTS]
        start = yield from _past_blanks(body, end)


def _lines_end(body: bytes, start: int) -> int:
    """Where some whole lines end that begin at `start`: SHORT bytes on, or one line. There, where it is too long."""
    if len(body) - start <= SHORT:
        return len(body)
    end = body.rfind(b"\n", start, start + SHORT) + 1 or body.find(b"\n", start, start + MAX_EVENT + 1) + 1
    return end or (len(body) if len(body) - start <= MAX_EVENT else start)


def _one_by_one(text: bytes, read: Read, most: int) -> Steps[list[Item]]:
    """The events of lines that are not too long; of more than `most` one more."""
    items: list[Item] = []
    work = start = 0
    while start < len(text) and len(items) <= most:
        end = _blank_end(text, start)
        if end == start:
            end = text.find(b"\n", start)
            if end < 0:
                end = len(text)
            items.append(_judged(text[start:end], read))
            work += EVENT_COST
        work += end - start
        start = end
        if work > STEP:
            yield []
            work = 0
    return items


def _judged(text: bytes, read: Read) -> Item:
    item = read(text)
    if isinstance(item, str) and not _is_json(text):
        return "invalid_json"
    return item


def _is_json(text: bytes) -> bool:
    if not _is_utf8(text):
        return False
    try:
        _raw.decode(text.replace(b"\\u", b"\\n"))
    except (msgspec.DecodeError, RecursionError):
        return False
    return _has_sound_escapes(text)


def _has_sound_escapes(text: bytes) -> bool:
    """Whether each `\\u` in what else is JSON has its four digits."""
    marked = text.replace(b"\\\\", b"//").translate(_HEX_AS_ZERO)
    return marked.count(b"\\u") == marked.count(b"\\u0000")


def _is_utf8(text: bytes) -> bool:
    try:
        return text.isascii() or bool(text.decode())
    except UnicodeDecodeError:
        return False


def _without_escapes(body: bytes) -> Steps[bytes]:
    """The same with a line feed for each first half of `\\u` and its digits: as long, and no less well-formed.

    msgspec takes half a surrogate pair, wherever it is, for malformed, which by RFC 8259 it is not.
    """
    parts = []
    start = 0
    while start < len(body):
        end = start + STEP
        end += body[end - 1 : end + 1] == b"\\u"
        parts.append(body[start:end].replace(b"\\u", b"\\n"))
        start = end
        yield []
    return b"".join(parts)


def _value_end(text: bytes, start: int) -> int:
    """How long the JSON value at `start` is, blanks behind it included, some of them. Raises BodyFault.

    msgspec skips a value in a thirtieth of the time that the standard library takes to build it, and where that ends it
    says in the error for what follows.
    """
    window = memoryview(text)[start : start + MAX_EVENT + 1]
    try:
        _raw.decode(window)
    except RecursionError:
        raise BodyFault("invalid_json") from None
    except msgspec.DecodeError as error:
        behind = _TRAILING.search(str(error))
        if behind is not None:
            return int(behind[1]) - 1
        truncated = len(window) > MAX_EVENT and str(error) == _TRUNCATED
        raise BodyFault("body_too_large" if truncated else "invalid_json") from None
    if len(window) > MAX_EVENT and window[-1] not in _BLANKS:
        # Unless it is a number, which then has more digits than any can have.
        raise BodyFault("invalid_json" if window[-1] in b"0123456789" else "body_too_large")
    return len(window)


def _past_blanks(text: bytes, start: int) -> Steps[int]:
    """Where blanks end that begin at `start`."""
    end = _blank_end(text, start)
    while end - start == STEP:
        yield []
        start, end = end, _blank_end(text, end)
    return end


_raw: Final = msgspec.json.Decoder(msgspec.Raw)
_TRAILING: Final = re.compile(r"trailing characters \(byte (\d+)\)$")
_TRUNCATED: Final = "Input data was truncated"
_HEX_AS_ZERO: Final = bytes.maketrans(b"123456789ABCDEFabcdef", b"0" * 21)
_BLANKS: Final = b" \t\r\n"
_BLANK: Final = re.compile(b"[%b]*" % _BLANKS)


def _blank_end(body: bytes, start: int) -> int:
    """Where the blanks end that begin at `start`, or STEP bytes on."""
    match = _BLANK.match(body, start, start + STEP)
    return match.end() if match else start
