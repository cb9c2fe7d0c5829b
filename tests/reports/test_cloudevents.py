"""CloudEvents 1.0 in all three modes, as the CloudEvents SDK writes them, and what is none."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

import pytest
from cloudevents.core.bindings.http import HTTPMessage, to_binary_event, to_structured_event
from cloudevents.core.v1.event import CloudEvent
from hypothesis import given
from hypothesis import strategies as st

from exporter.events import Rejection
from exporter.reports import MAX_EVENTS, Item, Report
from tests.reports.support import BATCHED, JSON, NDJSON, STRUCTURED, body_of, only, outcome

TIME: Final = datetime(2026, 3, 1, 12, 0, 0, 250_000, tzinfo=UTC)

ATTRIBUTES: Final = {
    "specversion": "1.0",
    "id": "a-1",
    "source": "/chat/pod-7",
    "type": "com.example.websocket.closed",
    "time": TIME,
    "datacontenttype": "application/json",
    "subject": "a room",
    "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
}

DATA: Final = {"code": 1009, "reason": "too big", "message_size": 5, "direction": "client_to_server"}

REPORT: Final = Report(
    code=1009,
    reason="too big",
    message_size=5,
    direction="client_to_server",
    id="a-1",
    source="/chat/pod-7",
    time=TIME,
)

ENVELOPE: Final[Mapping[str, Any]] = {"specversion": "1.0", "id": "a-1", "source": "s", "type": "t", "data": DATA}


def taken(message: HTTPMessage) -> Item:
    """What becomes of a request as the SDK writes it."""
    headers = {name.lower(): value for name, value in message.headers.items()}
    return only(message.body, headers["content-type"], headers)


def test_structured_mode() -> None:
    """One CloudEvent in JSON is one event, with the envelope's id, source and time."""
    message = to_structured_event(CloudEvent(ATTRIBUTES, DATA))
    assert message.headers["content-type"] == STRUCTURED
    assert taken(message) == REPORT


def test_binary_mode() -> None:
    """So is a body of JSON with the envelope in its headers."""
    message = to_binary_event(CloudEvent(ATTRIBUTES, DATA))
    assert message.headers["content-type"] == JSON
    assert taken(message) == REPORT


def test_batched_mode() -> None:
    """An array of CloudEvents is as many events, each judged by itself."""
    written = [to_structured_event(CloudEvent(ATTRIBUTES | {"id": f"a-{n}"}, DATA)).body for n in range(3)]
    body = b"[" + b",".join([*written, b'{"specversion": "1.0"}']) + b"]"
    items = outcome(body, f"{BATCHED}; charset=UTF-8")
    assert isinstance(items, list)
    assert [item if isinstance(item, str) else item.id for item in items] == ["a-0", "a-1", "a-2", "invalid_cloudevent"]
    assert outcome(b"[]", BATCHED) == []


# The SDK takes no control characters; ids of events are printable ASCII and sources at most 256 characters.
@given(
    identity=st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=1, max_size=256),
    source=st.text(st.characters(exclude_categories=["Cs", "Cc", "Cn"]), min_size=1, max_size=256),
    time=st.datetimes(timezones=st.just(UTC)),
    code=st.integers(0, 4999),
    reason=st.text(st.characters(exclude_categories=["Cs"])),
)
def test_whatever_the_sdk_writes_is_read(identity: str, source: str, time: datetime, code: int, reason: str) -> None:
    """Any id, source, time and text survives each mode, headers with percent encoding included."""
    event = CloudEvent({**ATTRIBUTES, "id": identity, "source": source, "time": time}, {"code": code, "reason": reason})
    expected = Report(code=code, reason=reason, id=identity, source=source, time=time)
    assert taken(to_structured_event(event)) == expected
    assert taken(to_binary_event(event)) == expected


def test_what_the_data_says_of_time_comes_first() -> None:
    """The envelope's time is that of an event that has none itself; none at all is fine."""
    assert only(body_of(ENVELOPE), STRUCTURED).time is None  # type: ignore[union-attr]
    timed = {**ENVELOPE, "time": "2026-03-01T12:00:00.250Z"}
    assert only(body_of(timed), STRUCTURED).time == TIME  # type: ignore[union-attr]
    both = {**timed, "data": {**DATA, "time": 5}}
    assert only(body_of(both), STRUCTURED).time == 5  # type: ignore[union-attr]


def test_the_data_may_repeat_its_id_and_source() -> None:
    """Who sends the same event with and without an envelope need not take them out."""
    repeating = {**ENVELOPE, "data": {**DATA, "id": "a-1", "source": "s"}}
    assert only(body_of(repeating), STRUCTURED) == only(body_of(ENVELOPE), STRUCTURED)


BAD: Final[list[tuple[dict[str, Any], Rejection]]] = [
    ({"specversion": None}, "invalid_cloudevent"),
    ({"specversion": "0.3"}, "invalid_cloudevent"),
    ({"specversion": "1.0.2"}, "invalid_cloudevent"),
    ({"specversion": 1.0}, "invalid_cloudevent"),
    ({"id": None}, "invalid_cloudevent"),
    ({"id": ""}, "invalid_cloudevent"),
    ({"id": 5}, "invalid_cloudevent"),
    ({"source": None}, "invalid_cloudevent"),
    ({"source": ""}, "invalid_cloudevent"),
    ({"type": None}, "invalid_cloudevent"),
    ({"type": ""}, "invalid_cloudevent"),
    ({"time": "yesterday"}, "invalid_cloudevent"),
    ({"time": 1_772_366_400_250}, "invalid_cloudevent"),
    ({"time": "2026-03-01T12:00:00"}, "invalid_cloudevent"),
    ({"data": None}, "invalid_cloudevent"),
    ({"data": "1000"}, "invalid_cloudevent"),
    ({"data": [DATA]}, "invalid_cloudevent"),
    ({"data": 1000}, "invalid_cloudevent"),
    ({"data": {**DATA, "id": "a-2"}}, "invalid_cloudevent"),
    ({"data": {**DATA, "source": "elsewhere"}}, "invalid_cloudevent"),
    ({"id": "i" * 257}, "invalid_id"),
    ({"id": "naïve"}, "invalid_id"),
    ({"source": "s" * 257}, "invalid_event"),
    ({"data": {}}, "missing_code"),
    ({"data": {"code": True}}, "invalid_code"),
    ({"data": {"code": 1000, "x": 1}}, "unknown_field"),
    ({"data": {"event": "open", "code": 1000}}, "invalid_event"),
]


@pytest.mark.parametrize(("change", "rejection"), BAD)
def test_what_is_no_cloudevent_with_an_event(change: dict[str, Any], rejection: Rejection) -> None:
    """A fault of the envelope is one thing, a fault of the event in it another."""
    event = {**ENVELOPE, **change}
    assert only(body_of(event), STRUCTURED) == rejection
    absent = {name: value for name, value in event.items() if value is not None}
    assert only(body_of(absent), STRUCTURED) == rejection
    assert outcome(b"[%s,%s]" % (body_of(event), body_of(ENVELOPE)), BATCHED) == [
        rejection,
        only(body_of(ENVELOPE), STRUCTURED),
    ]


def test_lone_surrogates_in_envelopes() -> None:
    """Wherever it is, in attributes that nobody reads too, half a pair makes its own event a bad string."""
    for bad in ({"id": "\ud800"}, {"subject": "\ud800"}, {"data": {"code": 1000, "reason": "\ud800"}}):
        assert only(body_of({**ENVELOPE, **bad}), STRUCTURED) == "invalid_string"


@pytest.mark.parametrize(
    ("body", "content_type", "expected"),
    [
        (b"[]", STRUCTURED, ["invalid_cloudevent"]),
        (b"[%s]" % body_of(ENVELOPE), STRUCTURED, ["invalid_cloudevent"]),
        (b"1000", STRUCTURED, ["invalid_cloudevent"]),
        (body_of(ENVELOPE), BATCHED, ["invalid_cloudevent"]),
        (b"[1, [], null]", BATCHED, ["invalid_cloudevent"] * 3),
        (b"", STRUCTURED, "<invalid_json>"),
        (b"", BATCHED, "<invalid_json>"),
        (b"{", BATCHED, "<invalid_json>"),
        (b"[{]", BATCHED, "<invalid_json>"),
        (body_of(ENVELOPE)[:-1], STRUCTURED, "<invalid_json>"),
        (
            body_of({**ENVELOPE, "data": {"code": 1000, "duration": 5}}).replace(b"5}", b"1e999}"),
            STRUCTURED,
            "<invalid_json>",
        ),
        (b"[" + b",".join([body_of(ENVELOPE)] * (MAX_EVENTS + 1)) + b"]", BATCHED, "<too_many_events>"),
    ],
)
def test_bodies_of_the_wrong_form(body: bytes, content_type: str, expected: object) -> None:
    """What is no JSON is unreadable; what is JSON of another form is no CloudEvent."""
    assert outcome(body, content_type) == expected


HEADERS: Final = {"ce-specversion": "1.0", "ce-id": "a-1", "ce-source": "s", "ce-type": "t"}


@pytest.mark.parametrize("missing", HEADERS)
def test_any_of_its_headers_makes_a_request_a_cloudevent(missing: str) -> None:
    """Required attributes are required: a request with some of them is not read as if it had none."""
    some = {name: value for name, value in HEADERS.items() if name != missing}
    assert outcome(body_of(DATA), JSON, some) == ["invalid_cloudevent"]
    assert outcome(body_of(DATA), JSON, {missing: HEADERS[missing]}) == ["invalid_cloudevent"]
    assert outcome(b"{", JSON, some) == "<invalid_json>"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"ce-id": "%20%7e"}, " ~"),
        ({"ce-id": '"a \\"b\\" c"'}, 'a "b" c'),
        ({"ce-id": "100%"}, "100%"),
        ({"ce-id": "%C3%A9"}, "invalid_id"),
        ({"ce-id": "%FF"}, "invalid_cloudevent"),
        ({"ce-id": "%ED%A0%80"}, "invalid_cloudevent"),
        ({"ce-id": ""}, "invalid_cloudevent"),
        ({"ce-specversion": "0.3"}, "invalid_cloudevent"),
        ({"ce-time": "yesterday"}, "invalid_cloudevent"),
        ({"ce-time": "2026-03-01T12:00:00Z"}, "a-1"),
        ({"ce-anything": "\xff"}, "a-1"),
    ],
)
def test_attributes_in_headers(change: dict[str, str], expected: str) -> None:
    """Values are unquoted, then decoded once from percent encoding and UTF-8."""
    item = only(body_of(DATA), JSON, HEADERS | change)
    assert (item if isinstance(item, str) else item.id) == expected


@pytest.mark.parametrize("body", [b"[]", b"[%s]" % body_of(DATA), b"1000", b"null"])
def test_binary_mode_has_one_object(body: bytes) -> None:
    """An envelope is that of one event."""
    assert outcome(body, JSON, HEADERS) == ["invalid_cloudevent"]


def test_white_space_around_the_data_does_not_matter() -> None:
    """The body is JSON like any other."""
    assert only(b" \r\n" + body_of(DATA) + b"\n", JSON, HEADERS) == only(body_of(DATA), JSON, HEADERS)


def test_lines_are_no_data_of_a_cloudevent() -> None:
    """A CloudEvent cannot hold NDJSON, whatever its lines say."""
    assert outcome(body_of(DATA), NDJSON, HEADERS) == ["invalid_cloudevent"]


def test_headers_do_not_matter_to_the_other_modes() -> None:
    """In structured mode the envelope is in the body, even if a proxy copied it to the headers."""
    assert only(body_of(ENVELOPE), STRUCTURED, {"ce-id": "b", "ce-specversion": "9"}) == only(
        json.dumps(ENVELOPE).encode(), STRUCTURED
    )
