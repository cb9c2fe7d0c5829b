"""A wall clock that jumps: ids stay known, time limits are kept, and signatures follow it."""

import base64
import json
import signal
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import pytest
from standardwebhooks import Webhook

from tests.support.loops import conversation
from tests.support.reporting import CLOSES, CREATED, Answer, Desk, closing, counts, outcome, post, reporting, written
from tests.web.support import connected
from tests.webhook.refusals import assert_refused

HOURS: Final = 3600.0
SECRET: Final = "whsec_" + base64.b64encode(bytes(range(24))).decode()
LIBRARIES: Final = "/usr/lib/*/faketime/libfaketimeMT.so.1"


@pytest.fixture
def fake_clock(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Programs that are started from now on have a wall clock that can be set; the monotonic one is the real one."""
    [library] = Path("/").glob(LIBRARIES.removeprefix("/"))
    monkeypatch.setenv("LD_PRELOAD", str(library))
    monkeypatch.setenv("FAKETIME_DONT_FAKE_MONOTONIC", "1")
    return monkeypatch


@pytest.fixture
def set_clock(fake_clock: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], object]:
    """Sets their clocks while they run: `+2h`."""
    file = written(tmp_path / "clock", "+0")
    fake_clock.setenv("FAKETIME_TIMESTAMP_FILE", str(file))
    fake_clock.setenv("FAKETIME_NO_CACHE", "1")
    return lambda offset: written(file, offset)


async def signed(desk: Desk, name: str, offset: float, **fields: object) -> Answer:
    """A close with this id, signed by a sender whose clock is so many seconds ahead."""
    body = json.dumps(closing(1001, id=name, **fields))
    moment = datetime.fromtimestamp(int(time.time() + offset), UTC)
    return await desk.ask(
        post(
            body.encode(),
            f"webhook-id: {name}",
            f"webhook-timestamp: {int(moment.timestamp())}",
            f"webhook-signature: {Webhook(SECRET).sign(name, moment, body)}",
        )
    )


async def accepted(desk: Desk, name: str, offset: float, **fields: object) -> tuple[int, int]:
    return outcome(await signed(desk, name, offset, **fields))[:2]


@pytest.mark.needs("faketime")
@conversation
async def test_a_clock_that_jumps(set_clock: Callable[[str], object], tmp_path: Path) -> None:
    """Two hours ahead, then two back: no id is forgotten and no connection cut, while signatures go by the new time."""
    secrets = written(tmp_path / "secrets", SECRET)
    flags = (f"--storage.path={tmp_path / 'state'}", f"--webhook.secrets-file={secrets}")
    async with reporting(tmp_path, *flags) as desk, connected(desk.address) as kept, connected(desk.address) as half:
        for client, sent in ((kept, post(method="OPTIONS")), (half, post(method="OPTIONS")[:-2])):
            await client.send(sent)
        assert (await kept.answer()).status == 204
        created = (await desk.scrape()).value(CREATED)

        assert await accepted(desk, "before", 0) == (1, 0)
        set_clock("+2h")
        assert_refused(await signed(desk, "before", 0), 401, "timestamp_out_of_range")
        assert await accepted(desk, "before", 2 * HOURS) == (0, 1)
        assert await accepted(desk, "ahead", 2 * HOURS) == (1, 0)
        set_clock("-2h")
        assert_refused(await signed(desk, "before", 0), 401, "timestamp_out_of_range")
        assert_refused(await signed(desk, "before", 2 * HOURS), 401, "timestamp_out_of_range")
        assert await accepted(desk, "before", -2 * HOURS) == (0, 1)
        assert await accepted(desk, "ahead", -2 * HOURS) == (0, 1)
        now = int(time.time() * 1000)
        assert await accepted(desk, "behind", -2 * HOURS, time=now) == (1, 0)
        set_clock("+0")
        for name in ("before", "ahead", "behind"):
            assert await accepted(desk, name, 0) == (0, 1)

        await half.send(b"\r\n")
        assert (await half.answer()).status == 204
        await kept.send(post(method="OPTIONS"))
        assert (await kept.answer()).status == 204
        page = await desk.scrape()
        assert page.value(CLOSES) == 3
        assert page.value(CREATED) == created


@pytest.mark.needs("faketime")
@pytest.mark.parametrize("offset", ["-2h", pytest.param("+2h", marks=pytest.mark.matrix)])
@conversation
async def test_a_restart_at_another_time(offset: str, fake_clock: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What was stored before the clock was set is known after it, either way, and its counts began when they did."""
    flags = (f"--storage.path={tmp_path / 'state'}",)
    now = int(time.time() * 1000)
    events = [closing(1001, id=f"{number}", time=now) for number in range(10)]
    async with reporting(tmp_path, *flags) as desk:
        assert outcome(await desk.report(events)) == (10, 0, 0)
        before = await desk.scrape()
        desk.exporter.signal(signal.SIGKILL)
        await desk.exporter.ended()
    fake_clock.setenv("FAKETIME", offset)
    async with reporting(tmp_path, *flags) as desk:
        page = await desk.scrape()
        assert counts(page) == counts(before)
        assert outcome(await desk.report(events)) == (0, 10, 0)
        assert outcome(await desk.report(closing(1001, id="new", time=now))) == (1, 0, 0)
        since = page.value("websocket_exporter_webhook_ids_since_timestamp_seconds")
        assert abs(since + 72 * HOURS - time.time() - (2 * HOURS if offset == "+2h" else -2 * HOURS)) < 60


@pytest.mark.needs("faketime")
@conversation
async def test_events_that_are_too_old(set_clock: Callable[[str], object], tmp_path: Path) -> None:
    """After a day's jump with a window of an hour, an old event is refused rather than counted again."""
    flags = (f"--storage.path={tmp_path / 'state'}", "--storage.window=1h")
    now = int(time.time() * 1000)
    async with reporting(tmp_path, *flags) as desk:
        assert outcome(await desk.report(closing(1001, id="old", time=now))) == (1, 0, 0)
        set_clock("+24h")
        for _ in range(2):
            answer = await desk.report([closing(1001, id="old", time=now), closing(1001, id="old", time="+")])
            assert [item["error"] for item in json.loads(answer.body)["items"]] == ["too_old", "invalid_time"]
        assert (await desk.scrape()).value(CLOSES) == 1
