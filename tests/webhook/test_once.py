"""Each event is counted once, however often it comes, and whatever happens to the exporter in between."""

import asyncio
import contextlib
import json
import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.support.loops import conversation
from tests.support.reporting import (
    ACTIVE,
    CLOSES,
    CREATED,
    DURATION,
    EVENTS,
    HANDSHAKES,
    NDJSON,
    REFUSED_SIZE,
    Desk,
    closing,
    configured,
    counts,
    growth,
    ndjson,
    outcome,
    post,
    reporting,
)
from tests.web.support import connected

AT_ONCE = 100


@pytest.fixture(params=["memory", "storage"])
def either_desk(request: pytest.FixtureRequest) -> Desk:
    """An exporter that remembers ids in memory, and one that stores them."""
    found: Desk = request.getfixturevalue("desk" if request.param == "memory" else "strict_desk")
    return found


@pytest.mark.parametrize("size", [1, 20])
@conversation
async def test_the_same_at_once(either_desk: Desk, size: int) -> None:
    """Of 100 that report the same events at the same moment one is told that they are new, all others are not."""
    events = [closing(1000, id=f"at-once-{size}-{number}") for number in range(size)]
    request = post(events, path="/api/v1/closes?target=chat")
    before = await either_desk.scrape()
    async with contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(connected(either_desk.address)) for _ in range(AT_ONCE)]
        for client in clients:
            await client.send(request[:-1])
        for client in clients:
            client.writer.write(request[-1:])
        outcomes = Counter([outcome(await client.answer()) for client in clients])
    assert outcomes == {(size, 0, 0): 1, (0, size, 0): AT_ONCE - 1}
    after = await either_desk.scrape()
    assert growth(before, after, CLOSES, "code") == {("1000",): size}
    assert growth(before, after, EVENTS, "result") == {("accepted",): size, ("duplicate",): size * (AT_ONCE - 1)}


@conversation
async def test_different_ones_at_once(either_desk: Desk) -> None:
    """What is reported at the same moment and overlaps is counted once each, in whatever order it is taken."""
    batches = [[closing(1001, id=f"overlap-{number}") for number in range(start, start + 10)] for start in range(90)]
    before = await either_desk.scrape()
    answers = await asyncio.gather(*(either_desk.report(batch, target="chat") for batch in batches))
    assert sum(outcome(answer)[0] for answer in answers) == 99
    assert growth(before, await either_desk.scrape(), CLOSES, "code") == {("1001",): 99}


@conversation
async def test_the_same_within_a_batch(either_desk: Desk) -> None:
    """The first of two events with one id counts, also where they differ, in an array as in lines."""
    first, again, other = closing(1000, id="twice"), closing(1011, id="twice"), closing(1000, id="once")
    before = await either_desk.scrape()
    answer = await either_desk.report([first, again, other, first], target="chat")
    assert outcome(answer) == (2, 2, 0)
    assert [item["index"] for item in json.loads(answer.body)["items"]] == [1, 3]
    answer = await either_desk.report(ndjson([again, other, closing(1000, id="third")]), target="chat", kind=NDJSON)
    assert outcome(answer) == (1, 2, 0)
    assert growth(before, await either_desk.scrape(), CLOSES, "code") == {("1000",): 3}


@conversation
async def test_what_makes_an_event_the_same(strict_desk: Desk) -> None:
    """Target, source and id together; nothing else, and not run together."""
    same = [
        closing(1000, target="chat", id="a"),
        closing(1011, target="chat", id="a", source="", reason="other", initiator="client", duration=5),
        {"event": "open", "target": "chat", "id": "a"},
    ]
    different = [
        closing(1000, target="rooms", id="a"),
        closing(1000, target="chat", id="a", source="b"),
        closing(1000, target="chat", id="ab"),
        closing(1000, target="chat", id="A"),
        closing(1000, target="chat", id="a "),
        closing(1000, target="chat", id=" a"),
        closing(1000, target="chat", id="b", source="a"),
        closing(1000, target="chat", id="a\u0020b"),
        closing(1000, target="chat", id="a", source="\nb"),
        closing(1000, target="chat", id="a", source="b\n"),
        closing(1000, target="chat", id="a", source="é"),
        closing(1000, target="chat", id="a", source="e\u0301"),
    ]
    assert outcome(await strict_desk.report(same)) == (1, 2, 0)
    assert outcome(await strict_desk.report(different)) == (len(different), 0, 0)
    assert outcome(await strict_desk.report(same + different)) == (0, len(same + different), 0)


@conversation
async def test_without_an_id(desk: Desk) -> None:
    """An event without an id is counted as often as it is sent."""
    before = await desk.scrape()
    for _ in range(3):
        assert outcome(await desk.report([closing(1000), closing(1000)])) == (2, 0, 0)
    assert growth(before, await desk.scrape(), CLOSES, "code") == {("1000",): 6}


@conversation
async def test_rejected_events_are_not_remembered(strict_desk: Desk) -> None:
    """An event that was rejected can be sent again, put right."""
    assert outcome(await strict_desk.report(closing(5000, target="chat", id="fixed"))) == (0, 0, 1)
    assert outcome(await strict_desk.report(closing(4000, target="elsewhere", id="fixed"))) == (0, 0, 1)
    assert outcome(await strict_desk.report(closing(4000, target="chat", id="fixed"))) == (1, 0, 0)


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "ended"])
@conversation
async def test_a_restart(end: signal.Signals, tmp_path: Path) -> None:
    """Counters, when they began, and ids outlive the exporter; it says how many ids it remembers."""
    flags = (
        configured(tmp_path, {"chat": {"codes": [4001]}, "rooms": {}}),
        f"--storage.path={tmp_path / 'state'}",
        "--shutdown.grace=0",
    )
    events = [
        *({"event": "open", "target": "chat", "id": f"open-{number}"} for number in range(5)),
        *(closing(4001, target="chat", id=f"close-{number}", initiator="client", duration=0.1) for number in range(3)),
        closing(1009, target="rooms", message_size=70_000, direction="server_to_client", duration=1e5),
        closing(1015, target="rooms"),
        closing(2000, target="rooms"),
    ]
    async with reporting(tmp_path, *flags) as desk:
        answer = await desk.report(events)
        assert (answer.status, outcome(answer)) == (200, (len(events), 0, 0))
        before = await desk.scrape()
        assert before.value(ACTIVE, target="chat") == 2
        assert before.value("websocket_exporter_webhook_ids") == 8
        desk.exporter.signal(end)
        assert await desk.exporter.ended() == (-end if end is signal.SIGKILL else 0)
    async with reporting(tmp_path, *flags) as desk:
        page = await desk.scrape()
        assert counts(page) == counts(before)
        assert page.value("websocket_exporter_webhook_ids") == 8
        assert outcome(await desk.report(events)) == (3, 8, 0)
        after = await desk.scrape()
        assert growth(page, after, CLOSES, "target") == {("rooms",): 3}
        assert growth(page, after, ACTIVE) == growth(page, after, HANDSHAKES) == {}
        assert growth(before, after, CREATED, "target") == {}
        assert growth(before, after, EVENTS, "result") == {("accepted",): 3 - 11, ("duplicate",): 8}


@conversation
async def test_more_ids_than_may_be_kept(tmp_path: Path) -> None:
    """The oldest ids are forgotten, never more than half of them at once, and events from before then refused."""
    flags = (f"--storage.path={tmp_path / 'state'}", "--storage.max-ids=1000", "--webhook.rate-limit=0")
    since = "websocket_exporter_webhook_ids_since_timestamp_seconds"
    async with reporting(tmp_path, *flags) as desk:
        assert (await desk.scrape()).value("websocket_exporter_webhook_ids_limit") == 1000
        first = [closing(1000, id=f"first-{number}", time=int(time.time() * 1000)) for number in range(100)]
        assert outcome(await desk.report(first)) == (100, 0, 0)
        before = (await desk.scrape()).value(since)
        accepted = 100
        for start in range(0, 3000, 100):
            batch = [closing(1000, id=f"{number}") for number in range(start, start + 100)]
            assert outcome(await desk.report(batch)) == (100, 0, 0)
            assert outcome(await desk.report(batch)) == (0, 100, 0)
            accepted += 100
            page = await desk.scrape()
            assert page.value("websocket_exporter_webhook_ids") <= 1000
        assert outcome(await desk.report([closing(1000, id=f"{number}") for number in range(2600, 3000)])) == (
            0,
            400,
            0,
        )
        assert page.value(since) > before
        answer = await desk.report(first)
        assert outcome(answer) == (0, 0, 100)
        assert {item["error"] for item in json.loads(answer.body)["items"]} == {"too_old"}
        assert (await desk.scrape()).value(CLOSES) == accepted


@conversation
async def test_nothing_is_kept_in_memory_alone(tmp_path: Path) -> None:
    """Without storage an exporter begins anew at 0, and says that it began now."""
    async with reporting(tmp_path) as desk:
        assert (await desk.report(closing(1000, id="7"))).status == 202
        before = await desk.scrape()
    async with reporting(tmp_path) as desk:
        page = await desk.scrape()
        assert page.value(CLOSES) == 0
        assert before.value(CREATED) < page.value(CREATED) <= time.time()
        assert outcome(await desk.report(closing(1000, id="7"))) == (1, 0, 0)


@conversation
async def test_targets_that_change(tmp_path: Path) -> None:
    """What was counted of a target that is no longer configured is not shown, and is there when it is again."""
    storage = f"--storage.path={tmp_path / 'state'}"
    async with reporting(tmp_path, configured(tmp_path, {"chat": {"codes": [4001]}, "rooms": {}}), storage) as desk:
        events = [closing(4001, target="chat", id="1"), closing(1000, target="rooms", id="1", duration=3)]
        assert outcome(await desk.report(events)) == (2, 0, 0)
        first = await desk.scrape()
    async with reporting(tmp_path, configured(tmp_path, {"chat": {}}), storage) as desk:
        page = await desk.scrape()
        assert {sample.labels["target"] for sample in page.samples[CLOSES]} == {"chat"}
        assert outcome(await desk.report(closing(4001, target="chat", id="2"))) == (1, 0, 0)
    async with reporting(tmp_path, configured(tmp_path, {"chat": {"codes": [4001]}, "rooms": {}}), storage) as desk:
        page = await desk.scrape()
        assert page.counted(CLOSES, "target", "code") == {
            ("chat", "4001"): 1,
            ("chat", "4xxx"): 1,
            ("rooms", "1000"): 1,
        }
        assert page.value(f"{DURATION}_sum", target="rooms") == 3
        assert page.value(CREATED, target="rooms") == first.value(CREATED, target="rooms")
        assert page.value(f"{REFUSED_SIZE}_count") == 0
        assert outcome(await desk.report(events)) == (0, 2, 0)
