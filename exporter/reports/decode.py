"""The events of a request, in any of the forms in which they may come."""

import re
from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from exporter.reports import cloudevents
from exporter.reports.bodies import (
    JSON,
    MAX_EVENT,
    MAX_EVENTS,
    NDJSON,
    SHORT,
    STEP_EVENTS,
    BodyFault,
    Events,
    each,
    lines,
    media_type,
)
from exporter.reports.report import Item, Report, check_all, read_report

LONG: Final = 192 * 1024
"""Bytes of a body of JSON from which on it is taken apart in steps: 1,000 events of usual size are shorter."""

# Begins an object, and is in no string: a quote within one is escaped, and its own is not followed by a letter.
_OBJECT: Final = re.compile(rb'\{[ \t\r\n]*+"[a-z]')

_reports: Final = msgspec.json.Decoder(Report | list[Report])
_report: Final = msgspec.json.Decoder(Report)

# RecursionError is none of them: as long as its types hold, a report has no depth.
_UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError)


def decode(body: bytes, content_type: str, headers: Mapping[str, str]) -> Events:
    """The events of a request, each as a Report or as the reason why it cannot be counted. Raises BodyFault.

    JSON (one event, or an array), NDJSON, and CloudEvents 1.0 in structured, batched and binary mode, by
    `content_type`. The names in `headers` are in lower case. Of fields that an object has twice, the last counts.

    Only where a body, or some lines, have a bad event are they read one by one, to say which are bad.
    """
    kind = media_type(content_type)
    if kind == JSON or kind in NDJSON:
        if not headers.keys().isdisjoint(cloudevents.HEADERS):
            return cloudevents.decode_binary(body, kind, headers)
        return _decode_json(body) if kind == JSON else lines(body, read_report, _read_lines)
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


_CLOUDEVENTS: Final[Mapping[str, Callable[[bytes], Events]]] = {
    cloudevents.STRUCTURED: cloudevents.decode_structured,
    cloudevents.BATCHED: cloudevents.decode_batched,
}


def _decode_json(body: bytes) -> Events:
    """The event that a body of JSON is, or those of the array. Raises BodyFault."""
    reports = _at_once(body) if len(body) < LONG else None
    if reports is None:
        if len(body) > SHORT:
            yield []
        yield from each(body, JSON, read_report)
        return
    if len(reports) > MAX_EVENTS:
        raise BodyFault("too_many_events")
    items = check_all(reports, body)
    if len(items) > STEP_EVENTS:
        yield []  # to decode so many was a step by itself
    for start in range(0, len(items), STEP_EVENTS):
        yield items[start : start + STEP_EVENTS]


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


def _read_lines(text: bytes) -> list[Item] | None:
    """The events of these lines; None where one has to be looked at more closely."""
    try:
        reports = [*map(_report.decode, filter(None, text.split(b"\n")))]
    except _UNREADABLE:
        return None
    return check_all(reports, text)
