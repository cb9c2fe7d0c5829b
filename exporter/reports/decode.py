"""The events of a request, in any of the forms in which they may come."""

import re
from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from exporter.reports import cloudevents
from exporter.reports.bodies import JSON, MAX_EVENT, MAX_EVENTS, NDJSON, BodyFault, Steps, each, has_gap, media_type
from exporter.reports.report import Report, check_all, read_report

SHORT: Final = 32 * 1024
"""Bytes of a body of JSON that is decoded as it is: the 10,000 empty objects that fit take a millisecond."""

LONG: Final = 192 * 1024
"""Bytes of a body from which on it is taken apart in steps: 1,000 events of usual size are shorter."""

# Begins an object, and is in no string: a quote within one is escaped, and its own is not followed by a letter.
_OBJECT: Final = re.compile(rb'\{[ \t\r\n]*+"[a-z]')
_BEGINNINGS: Final = re.compile(rb"\n\{")  # finds them in two thirds of the time that bytes.count takes

_reports: Final = msgspec.json.Decoder(Report | list[Report])
_report: Final = msgspec.json.Decoder(Report)

# RecursionError is none of them: as long as its types hold, a report has no depth.
_UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError)


def decode(body: bytes, content_type: str, headers: Mapping[str, str]) -> Steps:
    """The events of a request, each as a Report or as the reason why it cannot be counted. Raises BodyFault.

    JSON (one event, or an array), NDJSON, and CloudEvents 1.0 in structured, batched and binary mode, by
    `content_type`. The names in `headers` are in lower case. Of fields that an object has twice, the last counts.

    A body of good events is decoded in one call; only where that fails are they read one by one, to say which are bad.
    """
    kind = media_type(content_type)
    if kind == JSON or kind in NDJSON:
        if not headers.keys().isdisjoint(cloudevents.HEADERS):
            return (yield from cloudevents.decode_binary(body, kind, headers))
        reports = None
        if len(body) < LONG:
            reports = _at_once(body) if kind == JSON else _lines_at_once(body)
        if reports is None:
            if len(body) > SHORT:
                yield
            return (yield from each(body, content_type, read_report))
        if len(reports) > MAX_EVENTS:
            raise BodyFault("too_many_events")
        return check_all(reports, body)
    decode_cloudevents = _CLOUDEVENTS.get(kind)
    if decode_cloudevents is None:
        raise BodyFault("unsupported_media_type")
    return (yield from decode_cloudevents(body))


def is_readable(content_type: str) -> bool:
    """Whether a body of this Content-Type is one that `decode` can take apart."""
    try:
        kind = media_type(content_type)
    except BodyFault:
        return False
    return kind == JSON or kind in NDJSON or kind in _CLOUDEVENTS


_CLOUDEVENTS: Final[Mapping[str, Callable[[bytes], Steps]]] = {
    cloudevents.STRUCTURED: cloudevents.decode_structured,
    cloudevents.BATCHED: cloudevents.decode_batched,
}


def _at_once(body: bytes) -> list[Report] | None:
    """The events of a body of JSON; None where it has to be looked at more closely.

    A report has one brace that opens it: braces are as many as reports, or more where texts have some.
    """
    if len(body) > SHORT and body.count(b"{") > MAX_EVENTS:
        return None
    if len(body) > MAX_EVENT and _has_long_object(body):
        return None
    try:
        reports = _reports.decode(body)
    except _UNREADABLE:
        return None
    return reports if isinstance(reports, list) else [reports]


def _has_long_object(body: bytes) -> bool:
    """Whether an event may be too long; to be known before it is decoded, as it could have one field many times."""
    begin = 0
    while len(body) - begin > MAX_EVENT:
        found = _OBJECT.search(body, begin + MAX_EVENT // 2, begin + MAX_EVENT)
        if found is None:
            return True
        begin = found.start()
    return False


def _lines_at_once(body: bytes) -> list[Report] | None:
    """The events of a body of NDJSON; None where it has to be looked at more closely."""
    lines = body.count(b"\n") + (body[-1:] != b"\n")
    if lines > MAX_EVENTS or has_gap(body, b"\n"):
        return None
    try:
        reports = _report.decode_lines(body)
    except _UNREADABLE:
        return None
    # msgspec lets any white space separate events, and line ends stand within them. But reports hold no objects and
    # strings no line ends: a line that begins with a brace begins an event. If all lines do, and are as many as there
    # are events, then no line has two events or half of one.
    braces = (body[:1] == b"{") + len(_BEGINNINGS.findall(body))
    return reports if len(reports) == lines == braces else None
