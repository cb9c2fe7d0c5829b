"""The events of a request, in any of the forms in which they may come."""

import re
from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from exporter.reports import cloudevents
from exporter.reports.bodies import JSON, MAX_EVENTS, NDJSON, SEPARATORS, BodyFault, each, has_long_line, media_type
from exporter.reports.report import Item, Report, check_all, read_report

SHORT: Final = 32 * 1024
"""Bytes of a body that does not have to be looked at first: the 10,000 empty objects that fit take a millisecond."""

_BEGINNINGS: Final = re.compile(rb"\n\{")  # finds them in two thirds of the time that bytes.count takes

_reports: Final = msgspec.json.Decoder(Report | list[Report])
_report: Final = msgspec.json.Decoder(Report)

# RecursionError is none of them: as long as its types hold, a report has no depth.
_UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError)


def decode(body: bytes, content_type: str, headers: Mapping[str, str]) -> list[Item]:
    """The events of a request, each as a Report or as the reason why it cannot be counted. Raises BodyFault.

    JSON (one event, or an array), NDJSON, and CloudEvents 1.0 in structured, batched and binary mode, by
    `content_type`. The names in `headers` are in lower case. Of fields that an object has twice, the last counts.

    A body of good events is decoded in one call; only where that fails are they read one by one, to say which are bad.
    """
    kind = media_type(content_type)
    if kind == JSON or kind in NDJSON:
        if not headers.keys().isdisjoint(cloudevents.HEADERS):
            return cloudevents.decode_binary(body, kind, headers)
        reports = _at_once(body) if kind == JSON else _lines_at_once(body)
        if reports is None:
            return each(body, content_type, read_report)
        if len(reports) > MAX_EVENTS:
            raise BodyFault("too_many_events")
        return check_all(reports, body)
    decode_cloudevents = _CLOUDEVENTS.get(kind)
    if decode_cloudevents is None:
        raise BodyFault("unsupported_media_type")
    return decode_cloudevents(body)


def is_readable(content_type: str) -> bool:
    """Whether a body of this Content-Type is one that `decode` can take apart."""
    try:
        kind = media_type(content_type)
    except BodyFault:
        return False
    return kind == JSON or kind in NDJSON or kind in _CLOUDEVENTS


_CLOUDEVENTS: Final[Mapping[str, Callable[[bytes], list[Item]]]] = {
    cloudevents.STRUCTURED: cloudevents.decode_structured,
    cloudevents.BATCHED: cloudevents.decode_batched,
}


def _at_once(body: bytes) -> list[Report] | None:
    """The events of a body of JSON; None where it has to be looked at more closely."""
    if len(body) > SHORT and body.count(b"{") > MAX_EVENTS:
        return None
    try:
        reports = _reports.decode(body)
    except _UNREADABLE:
        return None
    return reports if isinstance(reports, list) else [reports]


def _lines_at_once(body: bytes) -> list[Report] | None:
    """The events of a body of NDJSON; None where it has to be looked at more closely."""
    lines = body.count(b"\n") + (body[-1:] != b"\n")
    if lines > SEPARATORS or has_long_line(body):
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
