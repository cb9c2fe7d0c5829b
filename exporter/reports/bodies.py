"""Takes the body of a request apart: into one event, the elements of a JSON array, or the lines of NDJSON."""

import json
import re
from collections.abc import Callable
from functools import lru_cache
from typing import Final, Literal, NoReturn, get_args

import msgspec

from exporter.reports.report import Item

MAX_EVENTS: Final = 1000
"""Events in one request."""

MAX_LINE: Final = 64 * 1024
"""Bytes of one line of NDJSON."""

SEPARATORS: Final = 16 * MAX_EVENTS
"""Commas or line ends beyond which a body is taken apart piece by piece, which stops at MAX_EVENTS.

As many events as have room in a body would otherwise all be decoded, only to be refused for their number.
"""

JSON: Final = "application/json"
NDJSON: Final = frozenset({"application/x-ndjson", "application/ndjson"})

Read = Callable[[bytes], Item]
"""Reads one event from well-formed JSON; of malformed JSON it may say anything but an event."""

Fault = Literal["invalid_json", "too_many_events", "unsupported_media_type"]
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


def each(body: bytes, content_type: str, read: Read) -> list[Item]:
    """The events of a body of JSON, one or an array of them, or NDJSON. Raises BodyFault."""
    kind = media_type(content_type)
    if kind == JSON:
        return many(body, read) if is_array(body) else [one(body, read)]
    if kind in NDJSON:
        return lines(body, read)
    raise BodyFault("unsupported_media_type")


def is_array(body: bytes) -> bool:
    """Whether the body is a JSON array, if it is JSON at all."""
    return body[:1] == b"[" or body.lstrip(b" \t\r\n")[:1] == b"["


def one(body: bytes, read: Read) -> Item:
    """The one event that the body is. Raises BodyFault."""
    item = _judged(body, read)
    if item == "invalid_json":
        raise BodyFault("invalid_json")
    return item


def many(body: bytes, read: Read) -> list[Item]:
    """The events of the array that the body is. Raises BodyFault."""
    try:
        text = body.decode()
        elements = _elements_at_once(body)
        if elements is None:
            elements = _elements(text)
    except (ValueError, RecursionError):
        raise BodyFault("invalid_json") from None
    if len(elements) > MAX_EVENTS:
        raise BodyFault("too_many_events")
    return [read(element) for element in elements]


def lines(body: bytes, read: Read) -> list[Item]:
    """The events of the lines of the body; blank ones are none. Raises BodyFault."""
    items: list[Item] = []
    start = _blank_end(body, 0)
    while start < len(body):
        if len(items) == MAX_EVENTS:
            raise BodyFault("too_many_events")
        end = body.find(b"\n", start)
        if end < 0:
            end = len(body)
        items.append("line_too_long" if end - start > MAX_LINE else _judged(body[start:end], read))
        start = _blank_end(body, end)
    return items


def has_long_line(body: bytes) -> bool:
    """Whether a line is longer than MAX_LINE. Looks at one place in 64 KiB."""
    start = 0
    while len(body) - start > MAX_LINE:
        # The last line end that a line from `start` may have.
        start = body.rfind(b"\n", start, start + MAX_LINE + 1) + 1
        if not start:
            return True
    return False


def _judged(text: bytes, read: Read) -> Item:
    item = read(text)
    if isinstance(item, str) and not _is_json(text):
        return "invalid_json"
    return item


def _is_json(text: bytes) -> bool:
    try:
        characters = text.decode()
        try:
            _raw.decode(text)
        except msgspec.DecodeError:
            if b"\\u" not in text:  # no surrogates either
                return False
            _json.decode(characters)
    except (ValueError, RecursionError):
        return False
    return True


def _elements_at_once(body: bytes) -> list[bytes] | None:
    """The elements of a JSON array, each as it is spelled; None where it has to be looked at more closely."""
    if body.count(b",") > SEPARATORS:
        return None
    try:
        return [bytes(raw) for raw in _raws.decode(body)]
    except msgspec.DecodeError:
        return None


def _elements(text: str) -> list[bytes]:
    """The elements of a JSON array, each as it is spelled, up to one more than MAX_EVENTS.

    Raises ValueError, RecursionError.
    """
    elements: list[bytes] = []
    place = _space_end(text, _space_end(text, 0) + 1)
    more = not text.startswith("]", place)
    while more:
        _, end = _json.raw_decode(text, place)
        elements.append(text[place:end].encode())
        if len(elements) > MAX_EVENTS:
            return elements
        place = _space_end(text, end)
        more = text.startswith(",", place)
        if more:
            place = _space_end(text, place + 1)
        elif not text.startswith("]", place):
            raise ValueError("neither , nor ]")
    if _space_end(text, place + 1) != len(text):
        raise ValueError("more behind the array")
    return elements


def _refuse(constant: str) -> NoReturn:
    raise ValueError(constant)


# msgspec is the quicker parser, but takes half a surrogate pair, wherever it is, for malformed JSON. The standard
# library's takes it as RFC 8259 does, and more: NaN and Infinity, which are refused here. What numbers are worth does
# not matter, and could take long to work out.
_raw: Final = msgspec.json.Decoder(msgspec.Raw)
_raws: Final = msgspec.json.Decoder(list[msgspec.Raw])
_json: Final = json.JSONDecoder(parse_constant=_refuse, parse_int=len, parse_float=len)
_SPACE: Final = re.compile(r"[ \t\r\n]*")
_BLANK: Final = re.compile(rb"[ \t\r\n]*")


def _space_end(text: str, start: int) -> int:
    match = _SPACE.match(text, start)
    return match.end() if match else start


def _blank_end(body: bytes, start: int) -> int:
    match = _BLANK.match(body, start)
    return match.end() if match else start
