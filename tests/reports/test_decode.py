"""Every form in which events may come, every bad input with its exact token, and bodies made to do harm."""

import json
from typing import Any, Final

import pytest

from exporter.events import Rejection
from exporter.reports import MAX_EVENT, MAX_EVENTS, Report, is_readable
from exporter.reports.bodies import FAULTS, STEP_EVENTS
from tests.reports.support import BATCHED, CLOSE, JSON, NDJSON, STRUCTURED, body_of, lines_of, only, outcome

REPORT: Final = Report(**CLOSE)

DIGITS: Final = "9" * 5000

BAD_EVENTS: Final[list[tuple[str, Rejection]]] = [
    ("5", "invalid_event"),
    ("null", "invalid_event"),
    ('"close"', "invalid_event"),
    ("true", "invalid_event"),
    ("[[]]", "invalid_event"),
    ('{"event": "message", "code": 1000}', "invalid_event"),
    ('{"event": null, "code": 1000}', "invalid_event"),
    ('{"event": "open", "code": 1000}', "invalid_event"),
    ('{"code": 1000, "reason": 5}', "invalid_event"),
    ('{"code": 1000, "target": 5}', "invalid_event"),
    ('{"code": 1000, "target": null}', "invalid_event"),
    ('{"code": 1000, "source": null}', "invalid_event"),
    ('{"code": 1000, "source": "' + "s" * 257 + '"}', "invalid_event"),
    ('{"code": 1000, "client": {}}', "invalid_event"),
    ('{"code": 1000, "user_agent": []}', "invalid_event"),
    ('{"code": 1000, "colour": "red"}', "unknown_field"),
    ('{"Code": 1000}', "unknown_field"),
    ('{"": 1000}', "unknown_field"),
    ('{"code` - at `$.id": 1000}', "unknown_field"),
    ('{"code": 1000, "x": ' + DIGITS + "}", "unknown_field"),
    ('{"code": 1000, "x": ' + DIGITS + ', "y": "\\ud800"}', "unknown_field"),
    ("{}", "missing_code"),
    ('{"event": "close"}', "missing_code"),
    ('{"code": null}', "missing_code"),
    ('{"code": true}', "invalid_code"),
    ('{"code": false}', "invalid_code"),
    ('{"code": 1000.0}', "invalid_code"),
    ('{"code": 1e3}', "invalid_code"),
    ('{"code": "1000"}', "invalid_code"),
    ('{"code": -1}', "invalid_code"),
    ('{"code": 5000}', "invalid_code"),
    ('{"code": 70000}', "invalid_code"),
    ('{"code": 18446744073709551616}', "invalid_code"),
    ('{"code": [1000]}', "invalid_code"),
    ('{"code": 1000, "reason": "\\ud800"}', "invalid_string"),
    ('{"code": 1000, "reason": "\\udc00 and more behind it"}', "invalid_string"),
    ('{"code": 1000, "reason": "\\ud83d\\\\ude00"}', "invalid_string"),
    ('{"code": 1000, "reason": "\\ude00\\ud83d"}', "invalid_string"),
    ('{"code": 1000, "id": "\\uDFFF"}', "invalid_string"),
    ('{"code": 1000, "target": "\\ud800"}', "invalid_string"),
    ('{"code": 1000, "initiator": "\\ud800"}', "invalid_string"),
    ('{"code": 1000, "time": "\\ud800"}', "invalid_string"),
    ('{"code": 1000, "\\ud800": 1}', "invalid_string"),
    ('{"code": 1000, "initiator": "exporter"}', "invalid_initiator"),
    ('{"code": 1000, "initiator": "Client"}', "invalid_initiator"),
    ('{"code": 1000, "initiator": null}', "invalid_initiator"),
    ('{"code": 1000, "initiator": "x - at `$.code`"}', "invalid_initiator"),
    ('{"code": 1000, "initiator": "Object contains unknown field `x`"}', "invalid_initiator"),
    ('{"code": 1000, "id": ""}', "invalid_id"),
    ('{"code": 1000, "id": "' + "i" * 257 + '"}', "invalid_id"),
    ('{"code": 1000, "id": 5}', "invalid_id"),
    ('{"code": 1000, "id": "a\\nb"}', "invalid_id"),
    ('{"code": 1000, "id": "ab\\n"}', "invalid_id"),
    ('{"code": 1000, "id": "naïve"}', "invalid_id"),
    ('{"code": 1000, "time": "2026-03-01T12:00:00"}', "invalid_time"),
    ('{"code": 1000, "time": "2026-03-01"}', "invalid_time"),
    ('{"code": 1000, "time": "2026-02-29T12:00:00Z"}', "invalid_time"),
    ('{"code": 1000, "time": "2026-03-01T23:59:60Z"}', "invalid_time"),
    ('{"code": 1000, "time": "1772366400250"}', "invalid_time"),
    ('{"code": 1000, "time": 1772366400.25}', "invalid_time"),
    ('{"code": 1000, "time": -1}', "invalid_time"),
    ('{"code": 1000, "time": 1772366400250000}', "invalid_time"),
    ('{"code": 1000, "time": true}', "invalid_time"),
    ('{"code": 1000, "duration": -0.001}', "invalid_duration"),
    ('{"code": 1000, "duration": "5"}', "invalid_duration"),
    ('{"code": 1000, "duration": true}', "invalid_duration"),
    ('{"code": 1000, "duration": 1e300}', "invalid_duration"),
    ('{"code": 1009, "message_size": 5}', "invalid_size"),
    ('{"code": 1009, "message_size": -1, "direction": "client_to_server"}', "invalid_size"),
    ('{"code": 1009, "message_size": 1.5, "direction": "client_to_server"}', "invalid_size"),
    ('{"code": 1009, "message_size": 9223372036854775808, "direction": "client_to_server"}', "invalid_size"),
    ('{"code": 1009, "message_size": 5, "direction": "up"}', "invalid_size"),
    ('{"code": 1009, "message_size": 5, "direction": null}', "invalid_size"),
    ('{"code": 1009, "largest_message": "5"}', "invalid_size"),
]
"""Well-formed JSON that is no event, and why."""

OUT_OF_RANGE: Final = [
    '{"code": 1000, "duration": 1e999}',
    '{"code": 1000, "duration": -1e999}',
    '{"code": 1e999}',
    '{"code": ' + DIGITS + "}",
    '{"code": 1000, "duration": ' + DIGITS + "}",
    '{"code": 1000, "time": ' + DIGITS + "}",
    '{"code": 1000, "reason": ' + DIGITS + "}",
]
"""Numbers that the grammar allows, and nothing can hold."""

MALFORMED: Final = [
    b"{",
    b"}",
    b"nul",
    b"{} {}",
    b'{"code": 1000,}',
    b'{"code" 1000}',
    b"{'code': 1000}",
    b'{"code": 01000}',
    b'{"code": +1000}',
    b'{"code": 1000.}',
    b'{"code": 0x3E8}',
    b'{"code": 1000} // done',
    b'{"code": NaN}',
    b'{"duration": NaN}',
    b'{"duration": Infinity}',
    b'{"duration": -Infinity}',
    b'{"x": NaN}',
    b'{"code": true, "x": NaN}',
    b'{"reason": "line\nend"}',
    b'{"reason": "\x00"}',
    b'{"reason": "\\x41"}',
    b'{"reason": "\\u12"}',
    b'{"reason": "\\ud800", }',
    b'{"reason": "\\ud800"',
    b'{"reason": "\xff"}',
    b'{"reason": "\xed\xa0\x80"}',
    b'{"time": "\xff"}',
    b'{"x": "\xff"}',
    b"\xef\xbb\xbf{}",
    '{"code": 1000}'.encode("utf-16"),
    b"{}\x00",
    b"\x0b{}",
    b'{"code": true, ',
    b'{"colour": ',
    b'{"x": ' + b"[" * 5000 + b"]" * 5000 + b"}",
    b'{"reason": ' + b"[" * 5000 + b"]" * 5000 + b"}",
    b'{"a":' * 5000 + b"1" + b"}" * 5000,
]
"""No JSON in UTF-8; on a line of its own, none of these has an effect on its neighbours."""


@pytest.mark.parametrize(("text", "rejection"), BAD_EVENTS)
def test_a_bad_event_gets_its_token(text: str, rejection: Rejection) -> None:
    """Each fault of an event has one name, alone, among good ones in an array, and on a line."""
    event = text.encode()
    assert outcome(event) == [rejection]
    assert outcome(b"[%s, %s ,%s]" % (body_of(CLOSE), event, body_of(CLOSE))) == [REPORT, rejection, REPORT]
    assert outcome(b"%s\n%s\n%s" % (body_of(CLOSE), event, body_of(CLOSE)), NDJSON) == [REPORT, rejection, REPORT]


@pytest.mark.parametrize("text", OUT_OF_RANGE)
def test_a_number_that_nothing_can_hold_is_no_json(text: str) -> None:
    """Alone it makes the body unreadable; among others, the one event."""
    event = text.encode()
    assert outcome(event) == "<invalid_json>"
    assert outcome(b"[%s,%s]" % (body_of(CLOSE), event)) == [REPORT, "invalid_json"]
    assert outcome(b"%s\n%s" % (body_of(CLOSE), event), NDJSON) == [REPORT, "invalid_json"]


@pytest.mark.parametrize("text", MALFORMED)
def test_malformed_json_is_told_from_a_bad_event(text: bytes) -> None:
    """What is no JSON spoils a body of JSON as a whole, wherever it stands in it, and of NDJSON its own lines only."""
    assert outcome(text) == "<invalid_json>"
    assert outcome(b"[%s]" % text) == "<invalid_json>"
    assert outcome(b"[%s,%s" % (body_of(CLOSE), text)) == "<invalid_json>"
    items = outcome(b"%s\n%s\n%s" % (body_of(CLOSE), text, body_of(CLOSE)), NDJSON)
    assert items == [REPORT, *["invalid_json"] * (1 + text.count(b"\n")), REPORT]


@pytest.mark.parametrize("body", [b"", b" ", b"\r\n\t "])
def test_an_empty_body_is_no_json(body: bytes) -> None:
    """Nothing at all is no JSON, while it is NDJSON of no lines."""
    assert outcome(body) == "<invalid_json>"
    assert outcome(body, NDJSON) == []


@pytest.mark.parametrize("body", [b"[]", b" [ ] ", b"\n[\n]\n"])
def test_an_empty_array_is_no_events(body: bytes) -> None:
    """Nothing to count is nothing wrong."""
    assert outcome(body) == []


@pytest.mark.parametrize(
    "body", [b"[", b"]", b"[,]", b"[{}", b"[{},", b"[{},]", b"[{}] x", b"[{}]]", b"[{} {}]", b"{},{}"]
)
def test_a_broken_array_is_no_json(body: bytes) -> None:
    """An array that is not closed, or goes on behind its end, is refused as a whole, with half a pair in it or not."""
    assert outcome(body) == "<invalid_json>"
    assert outcome(body.replace(b"{}", b'{"reason": "\\ud800"}')) == "<invalid_json>"


def test_of_fields_given_twice_the_last_counts() -> None:
    """JSON leaves it open; this is what most readers do."""
    assert only(b'{"code": 1000, "code": 1001}') == Report(code=1001)


def test_a_field_name_may_be_spelled_with_escapes() -> None:
    r"""`code` is `code`."""
    assert only(b'{"c\\u006fde": 1000}') == Report(code=1000)


def test_a_surrogate_pair_is_a_character() -> None:
    """Escaped pairs are text; only a half of one is not."""
    assert only(b'{"code": 1000, "reason": "\\ud83d\\ude00"}') == Report(code=1000, reason="\U0001f600")


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json",
        "Application/JSON",
        "application/json; charset=utf-8",
        'application/json;charset="UTF-8"',
        "application/json ; profile=x; Charset=Utf-8 ",
        "application/json;",
    ],
)
def test_json_is_told_by_its_content_type(content_type: str) -> None:
    """Types and charsets are compared without case; other parameters do not matter."""
    assert outcome(body_of(CLOSE), content_type) == [REPORT]
    assert is_readable(content_type)


@pytest.mark.parametrize(
    "content_type",
    [
        "",
        "text/plain",
        "text/json",
        "application/xml",
        "application/problem+json",
        "application/x-www-form-urlencoded",
        "application/cloudevents+avro",
        "application/cloudevents",
        "application/json; charset=latin-1",
        "application/json; charset=utf-16",
        "application/json; charset=",
        "application/x-ndjson; charset=us-ascii",
        "application/cloudevents+json; charset=iso-8859-1",
        "application/json, text/plain",
        "*/*",
    ],
)
def test_other_types_and_charsets_are_unsupported(content_type: str) -> None:
    """What is not JSON, NDJSON or CloudEvents in UTF-8 is not looked at, whatever it holds."""
    assert outcome(body_of(CLOSE), content_type) == "<unsupported_media_type>"
    assert not is_readable(content_type)


@pytest.mark.parametrize("content_type", [JSON, NDJSON, "application/ndjson", STRUCTURED, BATCHED])
def test_a_content_type_alone_says_whether_a_body_can_be_read(content_type: str) -> None:
    """Each form is announced by its type, so that a request can be refused before its body is there."""
    assert is_readable(content_type)
    assert not is_readable(f"{content_type}; charset=latin-1")


@pytest.mark.parametrize("content_type", ["application/x-ndjson", "application/ndjson", "APPLICATION/X-NDJSON"])
@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("last", [b"", b"\n", b"\n\n \t\r\n"])
def test_ndjson_is_an_event_a_line(content_type: str, line_end: bytes, last: bytes) -> None:
    """Lines end as they do on any system, the last may lack its end, and empty ones are nothing."""
    event = body_of(CLOSE)
    assert outcome(line_end.join([event, event]) + last, content_type) == [REPORT, REPORT]
    assert outcome(line_end.join([b"", event, b"", b"  ", event]) + last, content_type) == [REPORT, REPORT]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"code":1000} {"code":1001}\n\n', ["invalid_json"]),
        (b'{\n"code":1000}\n{"code":1001} {"code":1002}', ["invalid_json"] * 3),
        (b'{"code":1000}{"code":1001}\n{\n"code":1000}', ["invalid_json"] * 3),
        (b'[{"code":1000}]\n', ["invalid_event"]),
        (b'{"code":1000},\n{"code":1001}', ["invalid_json", Report(code=1001)]),
        (b'{"reason":"\n{"code":1000}\n"}', ["invalid_json", Report(code=1000), "invalid_json"]),
        (b"\xef\xbb\xbf{}\n", ["invalid_json"]),
    ],
)
def test_a_line_is_one_event_and_no_more(body: bytes, expected: list[object]) -> None:
    """Events spread over lines, or several on one, are no NDJSON, even where line ends and events are as many."""
    assert outcome(body, NDJSON) == expected


@pytest.mark.parametrize("more", [0, 1])
@pytest.mark.parametrize("before", [0, 1, STEP_EVENTS - 1, STEP_EVENTS])
@pytest.mark.parametrize("after", [0, 1, STEP_EVENTS])
def test_long_lines_are_found_wherever_they_are(more: int, before: int, after: int) -> None:
    """A line is long from the first byte beyond 64 KiB on, its end not counted."""
    line = b'{"code":1000,"reason":"%s"}'
    line %= b"x" * (MAX_EVENT - len(line % b"") + more)
    lines = [b'{"code":1000}'] * before + [line] + [b'{"code":1000}'] * after
    short, found = Report(code=1000), "line_too_long" if more else only(line)
    for end in (b"", b"\n", b"\n \n"):
        assert outcome(b"\n".join(lines) + end, NDJSON) == [short] * before + [found] + [short] * after


@pytest.mark.parametrize("blank", [b"\n", b" \r\n", b"\n" * STEP_EVENTS, b" " * MAX_EVENT + b"\n"])
@pytest.mark.parametrize("events", [1, 3, STEP_EVENTS + 1])
def test_blank_lines_are_no_events(blank: bytes, events: int) -> None:
    """However many there are, and wherever they are."""
    body = blank + b"".join(b'{"code":%d}\n%s' % (1000 + number, blank) for number in range(events))
    assert outcome(body, NDJSON) == [Report(code=1000 + number) for number in range(events)]


@pytest.mark.parametrize("place", [0, STEP_EVENTS - 1, STEP_EVENTS, 2 * STEP_EVENTS])
def test_a_bad_line_is_told_apart_from_its_neighbours(place: int) -> None:
    """Those before and behind it are what they are without it."""
    lines = [b'{"code":%d}' % (1000 + number) for number in range(2 * STEP_EVENTS + 1)]
    expected: list[object] = [only(line) for line in lines]
    lines[place], expected[place] = b'{"code":1000} {"code":1001}', "invalid_json"
    assert outcome(b"\n".join(lines), NDJSON) == expected


def test_a_long_line_is_refused_by_itself() -> None:
    """A line of 64 KiB is taken, one byte more is not, and its neighbours are as they were."""
    longest = b'{"code":1000,"reason":"%s"}'
    longest %= b"x" * (MAX_EVENT - len(longest) + 2)
    assert len(longest) == MAX_EVENT
    longer = longest.replace(b"xx", b"xxx", 1)
    lines = [body_of(CLOSE), longest, longer, b"x" * 200_000, body_of(CLOSE)]
    items = outcome(b"\n".join(lines), NDJSON)
    assert items == [REPORT, only(longest), "line_too_long", "line_too_long", REPORT]
    assert outcome(b"\n".join([longest] * 3), NDJSON) == [only(longest)] * 3
    assert outcome(longer, NDJSON) == ["line_too_long"]


@pytest.mark.parametrize("event", [body_of(CLOSE), b'{"code": true}', b'{"reason": "\\ud800"}', b"1"])
def test_a_request_holds_a_thousand_events(event: bytes) -> None:
    """The thousandth event is taken, good or bad; one more and none is."""
    item = only(event)
    array, lines = b",".join([event] * MAX_EVENTS), b"\n".join([event] * MAX_EVENTS)
    assert outcome(b"[%s]" % array) == [item] * MAX_EVENTS
    assert outcome(lines + b"\n", NDJSON) == [item] * MAX_EVENTS
    assert outcome(b"[%s,%s]" % (array, event)) == "<too_many_events>"
    assert outcome(lines + b"\n" + event, NDJSON) == "<too_many_events>"
    assert outcome(b"[" + b"%s," % event * 20_000 + event + b"]") == "<too_many_events>"


def test_text_with_many_commas_is_still_events() -> None:
    """What looks like more events than there are is counted more closely, and taken."""
    events = [{**CLOSE, "reason": ",{" * 50} for _ in range(400)]
    assert outcome(body_of(*events)) == [Report(**events[0])] * 400
    assert outcome(lines_of(*events), NDJSON) == [Report(**events[0])] * 400
    assert outcome(b"\n" * 20_000 + lines_of(*events), NDJSON) == [Report(**events[0])] * 400


MIB: Final = 1024 * 1024
TOKENS: Final = [f"<{fault}>" for fault in FAULTS]

HOSTILE: Final[list[bytes]] = [
    b"[" * MIB,
    b"{" * MIB,
    b'{"a":' * (MIB // 5),
    b'{"x":[' + b"1," * (MIB // 2 - 10) + b"1]}",
    b"[" + b"1," * (MIB // 2) + b"1]",
    b"[" + b"{}," * (MIB // 3) + b"{}]",
    b"[" + b"9" * MIB + b"]",
    b'{"code":' + b"9" * MIB + b"}",
    b'{"duration":0.' + b"9" * MIB + b"}",
    b'{"duration":1e' + b"9" * MIB + b"}",
    b'{"' + b"k" * MIB + b'":1}',
    b'{"code":1000,"reason":"' + b"\\ud800" * (MIB // 6) + b'"}',
    b'{"code":1000,"reason":"' + b"\\" * MIB + b'"}',
    b'{"code":1000,"reason":"' + b"\xff" * MIB + b'"}',
    b'{"initiator":"' + b"` - at `$.code" * 1000 + b'"}',
    b"\n" * MIB,
    b" \n" * (MIB // 2),
    b"{}\n" * (MIB // 3),
    b"[\n" * (MIB // 2),
    b'{"x":' + b"[" * 900 + b"]" * 900 + b"}",
    b'{"x":' + b"[" * 1100 + b"]" * 1100 + b"}",
    bytes(range(256)) * 1000,
    b"\x00" * MIB,
]


@pytest.mark.parametrize("body", HOSTILE, ids=range(len(HOSTILE)))
@pytest.mark.parametrize("content_type", [JSON, NDJSON, STRUCTURED, BATCHED, "application/json;" * 2000])
def test_a_hostile_body_is_answered_like_any_other(body: bytes, content_type: str) -> None:
    """Whatever a body holds, it gets items or the token of a fault, and nothing is raised but BodyFault."""
    for headers in ({}, {"ce-id": "%" * 5000, "ce-specversion": "1.0", "ce-type": "\xff", "ce-source": "%ff"}):
        answer = outcome(body, content_type, headers)
        assert answer in TOKENS if isinstance(answer, str) else len(answer) <= MAX_EVENTS


@pytest.mark.parametrize("depth", range(850, 1050, 7))
def test_depth_is_never_taken_for_bad_text(depth: int) -> None:
    """Around the depth at which parsers give up, an event is unknown_field or no JSON, whichever parser gave up."""
    event = b'{"x":' + b"[" * depth + b"]" * depth + b"}"
    assert outcome(event) in (["unknown_field"], "<invalid_json>")
    assert outcome(b"[%s]" % event) in (["unknown_field"], "<invalid_json>")


def test_rejections_repeat_no_input() -> None:
    """Tokens are of a fixed set: nothing that a sender wrote comes back."""
    marker: dict[str, Any] = {"secret-marker": 1}
    assert "secret-marker" not in json.dumps(outcome(body_of(marker)))
