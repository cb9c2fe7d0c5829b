"""Managed platforms: their own events become reports."""

import json
from pathlib import Path
from typing import Any, Final

import pytest

from exporter.events import Rejection
from exporter.reports import MAX_EVENTS, PLATFORMS, BodyFault, Item, Report
from exporter.reports.report import LONGEST
from tests.reports.support import JSON, NDJSON, STRUCTURED, finish

TESTDATA: Final = Path(__file__).parent / "testdata"
DISCONNECT: Final = (TESTDATA / "aws-apigateway-disconnect.json").read_bytes()
CONNECT: Final = (TESTDATA / "aws-apigateway-connect.json").read_bytes()
CONTEXT: Final[dict[str, Any]] = json.loads(DISCONNECT)["requestContext"]

SOURCE: Final = "abcd1234.execute-api.eu-central-1.amazonaws.com/production"

CLOSED: Final = Report(
    code=1005,
    reason="Client-side close frame status not set",
    initiator="unknown",
    id="PJqB0fHsqRcCHlw=",
    source=SOURCE,
    time=1_772_366_404_314,
    duration=2.518,
    user_agent="Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
)


def aws(body: bytes, content_type: str = JSON) -> list[Item] | str:
    try:
        return finish(PLATFORMS["aws-apigateway"].decode(body, content_type, {}))
    except BodyFault as fault:
        return f"<{fault.token}>"


def aws_context(**changes: object) -> list[Item] | str:
    """What becomes of the recorded context with these fields changed, or without those that are ...."""
    fields = {name: value for name, value in {**CONTEXT, **changes}.items() if value is not ...}
    return aws(json.dumps(fields).encode())


def test_a_recorded_disconnect_is_a_close() -> None:
    """What Lambda gets from a $disconnect route can be posted as it is: code, reason, lifetime and who it was."""
    assert aws(DISCONNECT) == [CLOSED]


def test_a_request_context_alone_will_do() -> None:
    """The part of it that matters is enough."""
    assert aws_context() == [CLOSED]


def test_a_recorded_connect_is_an_open() -> None:
    """Its id is never that of the close of the same connection, and it has no code."""
    opened = Report(event="open", id="PJqB0fHsqRcCHlw=/connect", source=SOURCE, time=1_772_366_401_797)
    assert aws(CONNECT) == [opened]
    assert aws_context(eventType="CONNECT", identity=None, requestTimeEpoch=1_772_366_401_797) == [opened]


def test_several_at_once() -> None:
    """Arrays and lines are taken like those of other events, each judged by itself."""
    lines = b"\n".join(json.dumps(json.loads(event)).encode() for event in (DISCONNECT, CONNECT, DISCONNECT))
    items = aws(lines, NDJSON)
    assert isinstance(items, list)
    assert [item.event for item in items if isinstance(item, Report)] == ["close", "open", "close"]
    assert aws(b"[%s, {}, %s]" % (DISCONNECT, DISCONNECT)) == [CLOSED, "invalid_event", CLOSED]
    assert aws(b"[" + b",".join([DISCONNECT] * (MAX_EVENTS + 1)) + b"]") == "<too_many_events>"


@pytest.mark.parametrize(
    ("changes", "rejection"),
    [
        ({"eventType": "MESSAGE"}, "invalid_event"),
        ({"eventType": ...}, "invalid_event"),
        ({"eventType": 5}, "invalid_event"),
        ({"disconnectStatusCode": ...}, "missing_code"),
        ({"disconnectStatusCode": None}, "invalid_code"),
        ({"disconnectStatusCode": -1}, "invalid_code"),
        ({"disconnectStatusCode": "1005"}, "invalid_code"),
        ({"disconnectStatusCode": 70000}, "invalid_code"),
        ({"disconnectReason": 5}, "invalid_event"),
        ({"disconnectReason": "\ud800"}, "invalid_string"),
        ({"apiId": "\ud800"}, "invalid_string"),
        ({"connectionId": ...}, "missing_id"),
        ({"connectionId": None}, "invalid_id"),
        ({"connectionId": ""}, "invalid_id"),
        ({"connectionId": "é"}, "invalid_id"),
        ({"connectionId": "x" * 249}, "invalid_id"),
        ({"requestTimeEpoch": "1772366404314"}, "invalid_time"),
        ({"requestTimeEpoch": -1}, "invalid_time"),
        ({"connectedAt": 1.5}, "invalid_time"),
        ({"identity": "me"}, "invalid_event"),
        ({"identity": {"userAgent": 5}}, "invalid_event"),
        ({"domainName": 5}, "invalid_event"),
        ({"requestContext": {}}, "invalid_event"),
    ],
)
def test_what_is_no_event_of_a_route(changes: dict[str, object], rejection: Rejection) -> None:
    """Each fault has the token that the same fault of any event has."""
    assert aws_context(**changes) == [rejection]


@pytest.mark.parametrize(
    ("changes", "duration"),
    [
        ({"connectedAt": ...}, None),
        ({"connectedAt": None}, None),
        ({"requestTimeEpoch": ...}, None),
        ({"connectedAt": 1_772_366_404_314}, 0.0),
        ({"connectedAt": 1_772_366_404_315}, None),
        ({"connectedAt": 0, "requestTimeEpoch": 253_402_300_799_999}, None),
        ({"connectedAt": 0, "requestTimeEpoch": int(LONGEST * 1000)}, LONGEST),
    ],
)
def test_a_close_counts_even_if_its_times_make_no_sense(changes: dict[str, object], duration: float | None) -> None:
    """Times that contradict each other cost the duration, not the close."""
    items = aws_context(**changes)
    assert isinstance(items, list)
    (item,) = items
    assert isinstance(item, Report)
    assert item.duration == duration


@pytest.mark.parametrize(
    ("domain", "stage", "source"),
    [
        (..., "prod", "prod"),
        ("example.com", ..., "example.com"),
        (None, None, ""),
        ("d" * 253, "prod", "d" * 253 + "/pr"),
    ],
)
def test_the_source_is_what_is_known_of_it(domain: object, stage: object, source: str) -> None:
    """Connection ids are told apart by API and stage, as far as these are given and have room."""
    items = aws_context(domainName=domain, stage=stage)
    assert isinstance(items, list)
    (item,) = items
    assert isinstance(item, Report)
    assert item.source == source


@pytest.mark.parametrize(
    ("body", "content_type", "expected"),
    [
        (b"", JSON, "<invalid_json>"),
        (DISCONNECT[:-3], JSON, "<invalid_json>"),
        (b'{"requestContext": {"eventType": "MESSAGE"}', JSON, "<invalid_json>"),
        (b'{"requestContext": null}', JSON, ["invalid_event"]),
        (b'{"requestContext": "DISCONNECT"}', JSON, ["invalid_event"]),
        (b"{}", JSON, ["invalid_event"]),
        (b"5", JSON, ["invalid_event"]),
        (b"[]", JSON, []),
        (DISCONNECT, "text/plain", "<unsupported_media_type>"),
        (DISCONNECT, STRUCTURED, "<unsupported_media_type>"),
    ],
)
def test_other_bodies(body: bytes, content_type: str, expected: object) -> None:
    """JSON and NDJSON are taken, and what is no JSON is told from what is no event."""
    assert aws(body, content_type) == expected


@pytest.mark.parametrize("name", PLATFORMS)
def test_a_platforms_example_is_one_of_its_events(name: str) -> None:
    """What the documents show can be sent, and has an id by which it is counted once."""
    platform = PLATFORMS[name]
    (item,) = finish(platform.decode(json.dumps(platform.example).encode(), JSON, {}))
    assert isinstance(item, Report)
    assert item.id
    assert platform.summary
    assert platform.description
