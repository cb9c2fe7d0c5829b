"""Events that cannot be counted: the exact answer to each, alone and among others."""

import json
import time
from typing import Any, Final

import pytest

from exporter.web.errors import ErrorToken
from tests.support.loops import conversation
from tests.support.reporting import (
    AWS,
    CLOSES,
    CLOUDEVENT,
    CLOUDEVENTS,
    EVENTS,
    NDJSON,
    Desk,
    closing,
    counts,
    growth,
    ndjson,
    outcome,
    post,
)
from tests.webhook.refusals import assert_none_accepted, assert_only_counted_as_error

EVENT_ERRORS: Final[dict[str, tuple[Any, ErrorToken]]] = {
    "a number for an event": (1000, "invalid_event"),
    "a text for an event": ("close", "invalid_event"),
    "null for an event": (None, "invalid_event"),
    "true for an event": (True, "invalid_event"),
    "no code": ({"reason": "bye"}, "missing_code"),
    "an empty object": ({}, "missing_code"),
    **{
        f"code {json.dumps(code)}": (closing(code), "invalid_code")
        for code in (True, False, 1000.0, 1000.5, 1e3, "1000", "", -1, 5000, 70_000, 1 << 63, [1000], {})
    },
    "code null": (closing() | {"code": None}, "missing_code"),
    "code on an open": ({"event": "open", "code": 7000}, "invalid_code"),
    "an unknown kind of event": (closing(event="reopen"), "invalid_event"),
    "event in capitals": (closing(event="CLOSE"), "invalid_event"),
    "event 1": (closing(event=1), "invalid_event"),
    **{
        f"initiator {json.dumps(initiator)}": (closing(initiator=initiator), "invalid_initiator")
        for initiator in ("proxy", "exporter", "Client", "", 1, [])
    },
    **{
        f"a lone surrogate in {field}": (closing(**{field: "a\ud800b"}), "invalid_string")
        for field in ("reason", "target", "id", "source", "client", "user_agent", "initiator", "event", "time")
    },
    "a lone low surrogate": (closing(reason="\udc00"), "invalid_string"),
    "surrogates in the wrong order": (closing(reason="\udc00\ud800"), "invalid_string"),
    "an unknown field": (closing(reasn="bye"), "unknown_field"),
    "a field in capitals": (closing(Reason="bye"), "unknown_field"),
    "a known field inside": (closing(data={"code": 1000}), "unknown_field"),
    **{
        f"{field} {json.dumps(value)}": (closing(**{field: value}), "invalid_event")
        for field, value in (("reason", 5), ("reason", []), ("client", 5), ("client", {}), ("user_agent", True))
    },
    "source 5": (closing(source=5), "invalid_event"),
    "source of 257 characters": (closing(source="s" * 257), "invalid_event"),
    **{
        f"id {name}": (closing(id=one), "invalid_id")
        for name, one in {
            "empty": "",
            "of 257 characters": "x" * 257,
            "not ASCII": "é",
            "with a tab": "a\tb",
            "with a newline": "a\n",
            "with NUL": "\0",
            "with DEL": "\x7f",
            "a number": 7,
            "a list": ["7"],
            "false": False,
        }.items()
    },
    **{
        f"time {json.dumps(when)}": (closing(time=when), "invalid_time")
        for when in (
            "yesterday",
            "",
            "2026-02-30T00:00:00Z",
            "2026-01-01",
            "2026-01-01T00:00:00",
            "2026-01-01T25:00:00Z",
            "1700000000",
            1_700_000_000_000.5,
            True,
            [],
            "20260101T000000Z",
        )
    },
    "a time of long ago": (closing(time="2001-01-01T00:00:00Z"), "too_old"),
    "milliseconds of long ago": (closing(time=978_307_200_000), "too_old"),
    "seconds for milliseconds": (closing(time=1_800_000_000), "too_old"),
    **{
        f"duration {json.dumps(duration)}": (closing(duration=duration), "invalid_duration")
        for duration in (-1, -0.001, "5", True, [], "PT5S")
    },
    **{
        f"message_size {json.dumps(size)}": (
            closing(1009, message_size=size, direction="client_to_server"),
            "invalid_size",
        )
        for size in (-1, 1.5, 100.0, "100", True, [])
    },
    "message_size without direction": (closing(1009, message_size=100), "invalid_size"),
    **{
        f"largest_message {json.dumps(size)}": (closing(largest_message=size), "invalid_size")
        for size in (-1, 0.5, "1", False)
    },
    "an unknown direction": (closing(1009, message_size=100, direction="up"), "invalid_size"),
    "direction 1": (closing(1009, message_size=100, direction=1), "invalid_size"),
    "target 5": (closing(target=5), "invalid_event"),
}
"""Each is wrong in one thing alone."""


@pytest.mark.parametrize("name", EVENT_ERRORS)
@conversation
async def test_one_bad_event(desk: Desk, name: str) -> None:
    """Alone it is answered 422 with its error, counted as rejected, and else nothing of it is."""
    event, token = EVENT_ERRORS[name]
    before = await desk.scrape()
    answer = await desk.report(event)
    assert_none_accepted(answer, token, [(0, token)])
    assert_only_counted_as_error(before, await desk.scrape(), token, rejected=1)


@pytest.mark.parametrize("kind", ["array", "lines"])
@conversation
async def test_all_of_them_among_good_ones(desk: Desk, kind: str) -> None:
    """A bad event keeps no good one from being counted: each item is answered for itself, by its index."""
    good = closing(1011, initiator="server")
    events = [event for bad, _ in EVENT_ERRORS.values() for event in (good, bad)]
    rejected = [(2 * index + 1, token) for index, (_, token) in enumerate(EVENT_ERRORS.values())]
    before = await desk.scrape()
    answer = await (desk.report(events) if kind == "array" else desk.report(ndjson(events), kind=NDJSON))
    assert answer.status == 202
    body = json.loads(answer.body)
    assert body.keys() == {"accepted", "duplicate", "rejected", "items"}
    assert outcome(answer) == (len(rejected), 0, len(rejected))
    assert body["items"] == [{"index": index, "result": "rejected", "error": token} for index, token in rejected]
    after = await desk.scrape()
    assert growth(before, after, CLOSES, "code", "initiator") == {("1011", "server"): len(rejected)}
    assert sum(growth(before, after, EVENTS, "result", "reason").values()) == 2 * len(rejected)


@conversation
async def test_only_bad_ones(desk: Desk) -> None:
    """Where no event of several is acceptable the answer is 422, with the first one's error and every item's."""
    events = [bad for bad, _ in EVENT_ERRORS.values()]
    tokens = [token for _, token in EVENT_ERRORS.values()]
    before = await desk.scrape()
    assert_none_accepted(await desk.report(events), tokens[0], list(enumerate(tokens)))
    after = await desk.scrape()
    assert counts(after) == counts(before)
    assert growth(before, after, EVENTS, "result", "reason") == {
        ("rejected", token): tokens.count(token) for token in set(tokens)
    }


@conversation
async def test_nothing_is_echoed(desk: Desk) -> None:
    """No answer repeats anything of what was sent."""
    secret = "s3cret-" * 5
    for event in (
        closing(secret),
        closing(**{secret: 1}),
        closing(id=secret + "\n"),
        closing(event=secret),
        closing(time=secret),
        closing(initiator=secret),
    ):
        answer = await desk.report(event)
        assert answer.status == 422
        assert "s3cret" not in f"{answer.fields} {answer.body!r}"


@conversation
async def test_a_bad_line(desk: Desk) -> None:
    """Lines that are no JSON, or longer than 64 KiB, are rejected for themselves; empty lines are none."""
    long_line = json.dumps(closing(reason="x" * 65_536)).encode()
    good = json.dumps(closing(1001)).encode()
    lines = [good, b"{", b"", long_line, good, b"\xff", b'{"code": NaN}', b"[1000]", b"\r", good]
    answer = await desk.ask(post(b"\n".join(lines), kind=NDJSON))
    assert (answer.status, outcome(answer)) == (202, (3, 0, 5))
    found = {item["index"]: item["error"] for item in json.loads(answer.body)["items"]}
    assert list(found.values()) == ["invalid_json", "line_too_long", "invalid_json", "invalid_json", "invalid_event"]
    assert_none_accepted(await desk.ask(post(b"{\n", kind=NDJSON)), "invalid_json", [(0, "invalid_json")])
    assert_none_accepted(await desk.ask(post(long_line, kind=NDJSON)), "line_too_long", [(0, "line_too_long")])


@conversation
async def test_a_line_of_64_kib(desk: Desk) -> None:
    """The longest line is taken."""
    line = json.dumps(closing(1001, reason="")).encode()
    line += b" " * (65_536 - len(line))
    answer = await desk.ask(post(line + b"\n", kind=NDJSON))
    assert outcome(answer) == (1, 0, 0)


@conversation
async def test_an_unknown_target(desk: Desk, strict_desk: Desk) -> None:
    """Where targets are configured no other may be named; where none are, every other one is `default`'s."""
    before = await strict_desk.scrape()
    for answer in (
        await strict_desk.report(closing(id="1", target="elsewhere")),
        await strict_desk.report(closing(id="1"), target="elsewhere"),
        await strict_desk.report(closing(id="1")),
        await strict_desk.report(closing(id="1", target="default")),
    ):
        assert_none_accepted(answer, "unknown_target", [(0, "unknown_target")])
    assert counts(await strict_desk.scrape()) == counts(before)
    before = await desk.scrape()
    assert outcome(await desk.report([closing(target="elsewhere"), closing(target="\n"), closing()])) == (3, 0, 0)
    assert outcome(await desk.report(closing(), target="elsewhere")) == (1, 0, 0)
    assert growth(before, await desk.scrape(), CLOSES, "target") == {("default",): 4}


@conversation
async def test_a_missing_id(strict_desk: Desk) -> None:
    """Where ids are required, an event without one is rejected."""
    answer = await strict_desk.report([closing(target="chat"), closing(target="chat", id="here")])
    assert outcome(answer) == (1, 0, 1)
    assert json.loads(answer.body)["items"] == [{"index": 0, "result": "rejected", "error": "missing_id"}]
    assert_none_accepted(await strict_desk.report(closing(target="chat")), "missing_id", [(0, "missing_id")])


@conversation
async def test_the_age_of_an_event(desk: Desk) -> None:
    """Events are taken for as long as ids are remembered, 72 hours, whatever way their time is told."""
    now = time.time()
    inside, outside = now - 72 * 3600 + 60, now - 72 * 3600 - 60

    def iso(moment: float) -> str:
        return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(moment))

    fine = [int(inside * 1000), f"{iso(inside)}Z", f"{iso(inside + 5.5 * 3600)}.25+05:30", f"{iso(inside)}-00:00"]
    old = [int(outside * 1000), f"{iso(outside)}Z", f"{iso(outside + 5.5 * 3600)}+05:30", 0, "1969-12-31T23:59:59Z"]
    answer = await desk.report([closing(time=when) for when in fine + old])
    assert outcome(answer) == (len(fine), 0, len(old))
    assert {item["error"] for item in json.loads(answer.body)["items"]} == {"too_old"}


CLOUD: Final[dict[str, Any]] = {
    "specversion": "1.0",
    "id": "1",
    "source": "/gateway",
    "type": "websocket.close",
    "datacontenttype": "application/json",
    "data": {"code": 1001},
}

CLOUD_ERRORS: Final[dict[str, Any]] = {
    **{f"without {name}": {k: v for k, v in CLOUD.items() if k != name} for name in ("specversion", "id", "source")},
    "without type": {k: v for k, v in CLOUD.items() if k != "type"},
    "without data": {k: v for k, v in CLOUD.items() if k != "data"},
    "of another version": CLOUD | {"specversion": "0.3"},
    "with a number for a version": CLOUD | {"specversion": 1.0},
    "with an empty source": CLOUD | {"source": ""},
    "with an empty type": CLOUD | {"type": ""},
    "with data in base64": {k: v for k, v in CLOUD.items() if k != "data"} | {"data_base64": "e30="},
    "with data of another type": CLOUD | {"datacontenttype": "application/xml", "data": "<close/>"},
    "a list": [],
    "a text": "1.0",
}


@pytest.mark.parametrize("name", CLOUD_ERRORS)
@conversation
async def test_a_bad_cloudevent(desk: Desk, name: str) -> None:
    """What is no CloudEvent of version 1.0 with JSON data is rejected, alone and in a batch."""
    bad = CLOUD_ERRORS[name]
    before = await desk.scrape()
    answer = await desk.report([bad], kind=CLOUDEVENTS)
    assert_none_accepted(answer, "invalid_cloudevent", [(0, "invalid_cloudevent")])
    assert_only_counted_as_error(before, await desk.scrape(), "invalid_cloudevent", rejected=1)
    assert_none_accepted(await desk.report(bad, kind=CLOUDEVENT), "invalid_cloudevent", [(0, "invalid_cloudevent")])


@pytest.mark.parametrize(
    ("data", "token"),
    [
        ({"code": "1001"}, "invalid_code"),
        ({}, "missing_code"),
        ({"code": 1001, "colour": "red"}, "unknown_field"),
        ({"code": 1001, "reason": "\ud800"}, "invalid_string"),
    ],
)
@conversation
async def test_a_bad_event_in_a_cloudevent(desk: Desk, data: object, token: ErrorToken) -> None:
    """Its data is held to the same rules."""
    assert_none_accepted(await desk.report(CLOUD | {"data": data}, kind=CLOUDEVENT), token, [(0, token)])


@pytest.mark.parametrize(
    "body",
    [{}, [], {"requestContext": 5}, {"requestContext": {}}, {"requestContext": {"eventType": "DISCONNECT"}}, "x", 5],
    ids=json.dumps,
)
@conversation
async def test_a_bad_request_context(desk: Desk, body: object) -> None:
    """What is no request context of API Gateway is refused with one of the errors for events, and not counted."""
    before = await desk.scrape()
    answer = await desk.report(body, path=AWS)
    after = await desk.scrape()
    assert counts(after) == counts(before)
    if body == []:
        assert (answer.status, outcome(answer)) == (202, (0, 0, 0))
    else:
        assert answer.status == 422
        [token] = [token for (token,) in growth(before, after, "websocket_exporter_http_errors_total", "error")]
        assert token in ("invalid_event", "missing_id")
