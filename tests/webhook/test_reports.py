"""Sound events, and what is counted of them."""

import json
import time
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any, Final

import pytest

from exporter.events import DIRECTIONS, EVIDENCES
from tests.support.loops import conversation
from tests.support.reporting import (
    ACTIVE,
    CLOSES,
    DURATION,
    EVENTS,
    HANDSHAKES,
    REFUSED_SIZE,
    Desk,
    closing,
    configured,
    growth,
    outcome,
    reporting,
)

LABELS: Final = {
    0: ("invalid", "invalid"),
    999: ("invalid", "invalid"),
    1000: ("1000", "normal"),
    1001: ("1001", "going_away"),
    1004: ("invalid", "invalid"),
    1005: ("1005", "normal"),
    1006: ("1006", "abnormal"),
    1009: ("1009", "too_big"),
    1011: ("1011", "internal_error"),
    1012: ("1012", "going_away"),
    1015: ("1015", "abnormal"),
    1016: ("reserved", "invalid"),
    2999: ("reserved", "invalid"),
    3000: ("3000", "policy"),
    3001: ("3xxx", "application"),
    4000: ("4xxx", "application"),
    4999: ("4xxx", "application"),
}


@conversation
async def test_codes(desk: Desk) -> None:
    """Codes from 0 to 4999 are taken; those that applications say but wires never carry have their own labels."""
    before = await desk.scrape()
    events = [closing(code) for code in LABELS for _ in range(code % 3 + 1)]
    assert outcome(await desk.report(events)) == (len(events), 0, 0)
    expected: dict[tuple[str, ...], float] = {}
    for code, labels in LABELS.items():
        expected[labels] = expected.get(labels, 0) + code % 3 + 1
    after = await desk.scrape()
    assert growth(before, after, CLOSES, "code", "class") == expected
    assert growth(before, after, "websocket_exporter_label_overflow_total", "label") == {
        ("code",): sum(expected[folded] for folded in expected if folded[0] in ("reserved", "3xxx", "4xxx"))
    }


@conversation
async def test_codes_of_a_target(strict_desk: Desk) -> None:
    """Listed codes count under their own labels, for the target that lists them."""
    before = await strict_desk.scrape()
    events = [
        closing(code, target=target, id=f"listed-{code}") for code in (4001, 3001, 4404) for target in ("chat", "rooms")
    ]
    assert outcome(await strict_desk.report(events)) == (6, 0, 0)
    assert growth(before, await strict_desk.scrape(), CLOSES, "source", "target", "code", "class") == {
        ("webhook", "chat", "4001", "application"): 1,
        ("webhook", "chat", "3001", "going_away"): 1,
        ("webhook", "chat", "4xxx", "application"): 1,
        ("webhook", "rooms", "4xxx", "application"): 2,
        ("webhook", "rooms", "3xxx", "application"): 1,
    }


@conversation
async def test_who_closed(desk: Desk) -> None:
    """The initiator is as reported; where nothing is said it is `unknown`."""
    before = await desk.scrape()
    events = [closing(), *(closing(initiator=who) for who in ("client", "server", "server", "unknown"))]
    assert outcome(await desk.report(events)) == (5, 0, 0)
    assert growth(before, await desk.scrape(), CLOSES, "initiator") == {("client",): 1, ("server",): 2, ("unknown",): 2}


FULL: Final[dict[str, Any]] = {
    "event": "close",
    "code": 1009,
    "reason": "frame with 4096 bytes exceeds limit",
    "initiator": "server",
    "target": "default",
    "id": "a close with everything",
    "source": "/eu-1/7",
    "duration": 12.5,
    "message_size": 4096,
    "direction": "client_to_server",
    "largest_message": 1000,
    "client": "user-7",
    "user_agent": "acme/1.0 (\u202eevil\x1b[31m)",
}


@conversation
async def test_every_field(desk: Desk) -> None:
    """An event with all there is to say counts with its duration and the size that was refused."""
    before = await desk.scrape()
    answer = await desk.report(FULL | {"time": datetime.now(UTC).isoformat()})
    assert (answer.status, json.loads(answer.body)) == (
        202,
        {"accepted": 1, "duplicate": 0, "rejected": 0, "items": []},
    )
    assert answer.fields["content-type"] == "application/json"
    assert answer.fields["x-content-type-options"] == "nosniff"
    after = await desk.scrape()
    assert growth(before, after, CLOSES, "source", "target", "code", "class", "initiator") == {
        ("webhook", "default", "1009", "too_big", "server"): 1
    }
    assert growth(before, after, f"{DURATION}_bucket", "le") == {
        (le,): 1 for le in ("15.0", "60.0", "300.0", "900.0", "3600.0", "14400.0", "43200.0", "86400.0", "+Inf")
    }
    assert growth(before, after, f"{DURATION}_sum") == {(): 12.5}
    assert growth(before, after, f"{REFUSED_SIZE}_sum", "direction", "evidence") == {
        ("client_to_server", "close_1009"): 4096
    }
    assert growth(before, after, f"{REFUSED_SIZE}_bucket", "le", "direction")[("4096.0", "client_to_server")] == 1
    assert ("2048.0", "client_to_server") not in growth(before, after, f"{REFUSED_SIZE}_bucket", "le", "direction")
    assert growth(before, after, EVENTS, "result", "reason") == {("accepted", "none"): 1}


@conversation
async def test_200_where_it_is_stored(strict_desk: Desk) -> None:
    """With storage the answer is 200, also for an empty batch: what it counts is on disk."""
    assert (await strict_desk.report(closing(target="chat", id="stored"))).status == 200
    assert (await strict_desk.report([])).status == 200


@conversation
async def test_mixed_results(strict_desk: Desk) -> None:
    """Only what was not accepted is listed, by its place in the request, whatever the reason."""
    assert outcome(await strict_desk.report(closing(target="chat", id="known"))) == (1, 0, 0)
    events = [
        closing(target="chat", id="fresh-1"),
        closing(target="chat", id="known"),
        closing(target="nowhere", id="fresh-2"),
        closing(target="chat", id="fresh-1"),
        closing(target="chat"),
        closing(target="rooms", id="known"),
        "close",
    ]
    before = await strict_desk.scrape()
    answer = await strict_desk.report(events)
    assert (answer.status, json.loads(answer.body)) == (
        200,
        {
            "accepted": 2,
            "duplicate": 2,
            "rejected": 3,
            "items": [
                {"index": 1, "result": "duplicate"},
                {"index": 2, "result": "rejected", "error": "unknown_target"},
                {"index": 3, "result": "duplicate"},
                {"index": 4, "result": "rejected", "error": "missing_id"},
                {"index": 6, "result": "rejected", "error": "invalid_event"},
            ],
        },
    )
    after = await strict_desk.scrape()
    assert growth(before, after, CLOSES, "target") == {("chat",): 1, ("rooms",): 1}
    assert growth(before, after, EVENTS, "result", "reason") == {
        ("accepted", "none"): 2,
        ("duplicate", "none"): 2,
        ("rejected", "unknown_target"): 1,
        ("rejected", "missing_id"): 1,
        ("rejected", "invalid_event"): 1,
    }


@conversation
async def test_a_target_for_all(strict_desk: Desk) -> None:
    """`?target=` is the target of those events that name none."""
    before = await strict_desk.scrape()
    events = [closing(id="for-all-1"), closing(id="for-all-2", target="chat"), closing(id="for-all-3")]
    assert outcome(await strict_desk.report(events, target="rooms")) == (3, 0, 0)
    assert outcome(await strict_desk.report(closing(id="for-all-1", target="rooms"))) == (0, 1, 0)
    assert growth(before, await strict_desk.scrape(), CLOSES, "target") == {("chat",): 1, ("rooms",): 2}


@conversation
async def test_the_only_target(tmp_path: Path) -> None:
    """Where one target alone is configured, events need not name it."""
    async with reporting(tmp_path, configured(tmp_path, {"chat": {}})) as desk:
        assert outcome(await desk.report([closing(), closing(target="chat")])) == (2, 0, 0)
        assert (await desk.scrape()).counted(CLOSES, "target") == {("chat",): 2}


@conversation
async def test_opens(tmp_path: Path) -> None:
    """With a target's first open its handshakes and what is active appear, for it alone; they never go below zero."""
    async with reporting(tmp_path, configured(tmp_path, {"chat": {}, "rooms": {}})) as desk:
        await desk.report([closing(target=target) for target in ("chat", "rooms")])
        page = await desk.scrape()
        assert page.samples[ACTIVE] == page.samples[HANDSHAKES] == []
        opens = [{"event": "open", "target": "chat", "id": f"{number}"} for number in range(5)]
        assert outcome(await desk.report([*opens, opens[0], closing(target="rooms")])) == (6, 1, 0)
        await desk.report([closing(target="chat"), closing(target="chat")])
        page = await desk.scrape()
        assert page.counted(ACTIVE, "source", "target") == {("webhook", "chat"): 3}
        assert page.counted(HANDSHAKES, "source", "target", "outcome", "status") == {
            ("webhook", "chat", "accepted", "101"): 5
        }
        assert page.counted(CLOSES, "target") == {("chat",): 3, ("rooms",): 2}
        await desk.report([closing(target="chat")] * 7)
        page = await desk.scrape()
        assert page.counted(ACTIVE, "target") == {}
        assert len(page.samples[ACTIVE]) == 1
        assert len(page.samples[HANDSHAKES]) == 1


@conversation
async def test_series_before_the_first_event(tmp_path: Path) -> None:
    """Every close that can be reported has its series at 0 from the start, so that the first is an increase."""
    async with reporting(tmp_path) as desk:
        page = await desk.scrape()
        assert page.counted(CLOSES, "code") == {}
        born = [sample.labels for sample in page.samples[CLOSES]]
        for who in ("client", "server", "unknown"):
            for code, name in (("1000", "normal"), ("1006", "abnormal"), ("4xxx", "application")):
                origin = {"source": "webhook", "target": "default"}
                assert origin | {"code": code, "class": name, "initiator": who} in born
        assert page.value(f"{DURATION}_count") == 0
        assert len(page.samples[f"{REFUSED_SIZE}_count"]) == len(list(product(DIRECTIONS, EVIDENCES)))
        assert time.time() - 60 < page.value("websocket_target_created_timestamp_seconds") <= time.time()
        assert page.value("websocket_exporter_webhook_ids") == 0
        assert page.value("websocket_exporter_webhook_ids_limit") > 1000


@conversation
async def test_durations(desk: Desk) -> None:
    """A duration is a number of seconds from 0 on, whole or not; without one nothing is observed."""
    before = await desk.scrape()
    events = [closing(), *(closing(duration=duration) for duration in (0, 0.0, 0.25, 1, 3600.5, 1e6))]
    assert outcome(await desk.report(events)) == (len(events), 0, 0)
    after = await desk.scrape()
    assert growth(before, after, f"{DURATION}_count") == {(): 6}
    assert growth(before, after, f"{DURATION}_sum") == {(): 0.25 + 1 + 3600.5 + 1e6}
    assert growth(before, after, f"{DURATION}_bucket", "le")[("0.1",)] == 2


@conversation
async def test_refused_sizes(desk: Desk) -> None:
    """The size of a 1009's refused message is observed by direction, at most as 1 GiB; other codes refuse none."""
    before = await desk.scrape()
    sizes = [("client_to_server", 0), ("client_to_server", 1 << 20), ("server_to_client", (1 << 63) - 1)]
    events = [closing(1009, message_size=size, direction=direction) for direction, size in sizes]
    events.append(closing(1009))
    events.append(closing(1000, message_size=77, direction="client_to_server"))
    assert outcome(await desk.report(events)) == (5, 0, 0)
    after = await desk.scrape()
    assert growth(before, after, f"{REFUSED_SIZE}_count", "direction") == {
        ("client_to_server",): 2,
        ("server_to_client",): 1,
    }
    assert growth(before, after, f"{REFUSED_SIZE}_sum", "direction") == {
        ("client_to_server",): 1 << 20,
        ("server_to_client",): 1 << 30,
    }


@pytest.mark.parametrize(
    "fields",
    [
        {"reason": "x" * 124},
        {"reason": "é" * 100},
        {"reason": "\x00\x07\x1b[31m\r\n\u202e\u2066\u200f"},
        {"reason": ""},
        {"reason": "\ud83d\ude00"},
        {"id": "!"},
        {"id": "~ " * 128},
        {"source": "s" * 256},
        {"source": ""},
        {"client": "x" * 10_000},
        {"user_agent": ""},
        {"largest_message": 0},
        {"largest_message": 1 << 40},
        {"event": "close"},
    ],
    ids=repr,
)
@conversation
async def test_unusual_fields(desk: Desk, fields: dict[str, Any]) -> None:
    """Texts of any kind and length are taken where no label is made of them."""
    before = await desk.scrape()
    answer = await desk.report(closing(1013, **fields))
    assert (answer.status, outcome(answer)) == (202, (1, 0, 0))
    assert growth(before, await desk.scrape(), CLOSES, "code") == {("1013",): 1}


@pytest.mark.parametrize("when", ["text", "text with an offset", "lower case", "milliseconds", "the future"])
@conversation
async def test_times(desk: Desk, when: str) -> None:
    """A time is RFC 3339 or milliseconds; one that is ahead is no reason to refuse."""
    now = time.time()
    told: dict[str, object] = {
        "text": datetime.fromtimestamp(now, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z"),
        "text with an offset": datetime.fromtimestamp(now).astimezone().isoformat(timespec="seconds"),
        "lower case": datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dt%H:%M:%Sz"),
        "milliseconds": int(now * 1000),
        "the future": int((now + 7200) * 1000),
    }
    assert outcome(await desk.report(closing(1001, time=told[when]))) == (1, 0, 0)
