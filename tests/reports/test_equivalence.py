"""Decoding at once, one by one, as JSON and as NDJSON: hypothesis compares the ways, and others' parsers with ours."""

import json
from typing import NoReturn

from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.reports import Item
from exporter.reports.bodies import BodyFault, each
from exporter.reports.report import read_report
from tests.reports.support import JSON, NDJSON, finish, outcome

SPACES = st.sampled_from(["", "", " ", "\t", "\r\n", "\n\n", "  \r "])

FIELDS = st.sampled_from(
    [
        '"code":1000',
        '"code": 4999',
        '"code":true',
        '"code":1e3',
        '"code":1e999',
        '"event":"open"',
        '"event" : "close"',
        '"reason":"{\\"code\\":1000},"',
        '"reason":"\\ud83d\\ude00"',
        '"reason":"\\ud800"',
        '"reason":"\\\\ud800"',
        '"reason":null',
        '"id":"a"',
        '"id":"é"',
        '"time":1772366400250',
        '"time":"2026-03-01T12:00:00Z"',
        '"time":"soon"',
        '"duration":0.5',
        '"duration":-1',
        '"message_size":5',
        '"direction":"client_to_server"',
        '"x":{"code":[1,{}]}',
        '"x":"\\udc00"',
    ]
)


@st.composite
def objects(draw: st.DrawFn, *, good: bool = False) -> str:
    """The text of an object that may be an event; of a good one if `good`."""
    if good:
        return '{"code":1000,"id":"' + draw(st.sampled_from(["a", "b", "}{", ","])) + '"}'
    fields = draw(st.lists(FIELDS, max_size=4))
    return "{" + draw(SPACES) + ",".join(field + draw(SPACES) for field in fields) + "}"


EVENTS = st.one_of(
    objects(good=True), objects(), st.sampled_from(["1", "null", "[]", '"\\ud800"', "[{}]", "1e999", "{", "}", "NaN"])
)


def one_by_one(body: bytes, content_type: str) -> list[Item] | str:
    """What reading each event by itself makes of a body."""
    try:
        return finish(each(body, content_type, read_report))
    except BodyFault as fault:
        return f"<{fault.token}>"


@settings(max_examples=300, deadline=None)
@given(st.lists(EVENTS | objects(good=True), max_size=6), st.sampled_from([",", " , ", ",\n", ",,", ""]), SPACES)
def test_an_array_decoded_at_once_is_its_events_read_one_by_one(events: list[str], comma: str, space: str) -> None:
    """Whether a batch took the quick way cannot be told from what comes out."""
    body = (space + "[" + space + comma.join(events) + space + "]" + space).encode()
    assert outcome(body) == one_by_one(body, JSON)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(EVENTS | objects(good=True), max_size=6), st.sampled_from(["\n", "\n", "\r\n", "\n\n", " ", ""]), SPACES
)
def test_lines_decoded_at_once_are_their_events_read_one_by_one(events: list[str], end: str, space: str) -> None:
    """So too with lines, also where events stand on several, or several on one."""
    body = (space + end.join(events) + end).encode()
    assert outcome(body, NDJSON) == one_by_one(body, NDJSON)


@settings(max_examples=300, deadline=None)
@given(st.lists(objects(good=True) | objects() | st.sampled_from(["1", '"\\ud800"', "1e999"]), max_size=6))
def test_an_event_is_the_same_alone_in_an_array_and_on_a_line(events: list[str]) -> None:
    """What an event is does not depend on its neighbours, nor on the form in which it came."""
    alone = []
    for event in events:
        result = outcome(event.encode())
        alone += ["invalid_json"] if isinstance(result, str) else result
    assert outcome(f"[{','.join(events)}]".encode()) == alone
    assert outcome("\n".join(event.replace("\n", " ") for event in events).encode(), NDJSON) == alone


@settings(max_examples=300, deadline=None)
@given(st.text(st.characters() | st.characters(categories=["Cs"])))
def test_text_is_refused_for_lone_surrogates_and_for_nothing_else(reason: str) -> None:
    """What Python's own parser makes of a text can be encoded, or is refused here, in every form."""
    event = json.dumps({"code": 1000, "reason": reason}).encode()
    expected = json.loads(event)["reason"]
    for body, content_type in ((event, JSON), (b"[%s]" % event, JSON), (event, NDJSON)):
        (item,) = outcome(body, content_type)
        if any("\ud800" <= character <= "\udfff" for character in expected):
            assert item == "invalid_string"
        else:
            assert not isinstance(item, str)
            assert item.reason == expected


def refuse(constant: str) -> NoReturn:
    raise ValueError(constant)


def is_json(body: bytes) -> bool:
    """Whether Python's own parser, held to RFC 8259, reads a body."""
    try:
        json.loads(body.decode(), parse_constant=refuse)
    except ValueError:
        return False
    return True


# A number that the grammar allows and nothing can hold is no JSON to us: none can come of these.
# fmt: off
TOKENS = [
    "{", "}", "[", "]", ":", ",", '"', "\\", " ", "\n", "\t", "\x00", "\x7f", "\ufeff", "é",
    '"code"', '"x"', '""', "{}", "[]", '{"code":1000}', "true", "null", "NaN", "Infinity",
    "1000", "0", "-", ".5", "e1 ", "\\ud800", "\\u00e9", "\\u12", "\\x",
]
# fmt: on


@settings(max_examples=500, deadline=None)
@given(st.lists(st.sampled_from(TOKENS), max_size=12).map("".join))
def test_what_is_json_is_not_for_us_to_say(text: str) -> None:
    """A body is unreadable if and only if it is no JSON; so too for each element and each line."""
    body = text.encode()
    assert (outcome(body) != "<invalid_json>") == is_json(body)
    assert (outcome(b"[%s]" % body) != "<invalid_json>") == is_json(b"[%s]" % body)
    lines = [line for line in body.split(b"\n") if line.strip(b" \t\r")]
    assert [item == "invalid_json" for item in outcome(body, NDJSON)] == [not is_json(line) for line in lines]


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=40) | st.binary(max_size=8).map(lambda noise: b'{"code": 1000, "reason": "' + noise + b'"}'))
def test_bytes_that_are_no_utf_8_are_no_json(body: bytes) -> None:
    """Whatever the bytes, the same is unreadable here as there."""
    assert (outcome(body) != "<invalid_json>") == is_json(body)
    assert (outcome(b"[%s]" % body) != "<invalid_json>") == is_json(b"[%s]" % body)
