"""One exporter at a time has a storage: the next one waits for it, and takes over all there is."""

import asyncio
import signal
from pathlib import Path

from tests.support.loops import conversation, eventually
from tests.support.processes import exporter_process
from tests.support.reporting import (
    CLOSES,
    WEBHOOK,
    Desk,
    closing,
    outcome,
    reporting,
    said,
)


@conversation
async def test_another_that_stays(tmp_path: Path) -> None:
    """A storage that another exporter has is waited for, as long as that may take to end; then it is refused."""
    state = tmp_path / "state"
    async with reporting(tmp_path, f"--storage.path={state}") as desk:
        (tmp_path / "second").mkdir()
        flags = (WEBHOOK, f"--storage.path={state}", "--shutdown.grace=1s")
        start = asyncio.get_running_loop().time()
        async with exporter_process(tmp_path / "second", *flags) as second:
            assert await second.ended() == 2
            assert asyncio.get_running_loop().time() - start >= 1.0
        text = said(tmp_path / "second")
        assert "waiting for the storage" in text
        assert text.count("\n") == 2
        assert f"cannot store in {state}: another process holds its lock\n" in text
        assert (await desk.report(closing(1000))).status == 200


@conversation
async def test_another_that_ends(tmp_path: Path) -> None:
    """As in an update on one volume the newer exporter takes over all there is as soon as the older has ended."""
    state = tmp_path / "state"
    (tmp_path / "newer").mkdir()
    async with reporting(tmp_path, f"--storage.path={state}", "--shutdown.grace=1s") as older:
        await older.report([closing(1000, id="1"), closing(1006)])
        async with exporter_process(tmp_path / "newer", WEBHOOK, f"--storage.path={state}") as exporter:
            await eventually(lambda: exporter.said("waiting for the storage"))
            assert outcome(await older.report(closing(1009, id="last"))) == (1, 0, 0)
            older.exporter.signal(signal.SIGTERM)
            newer = Desk(exporter, await exporter.address("webhook"), await exporter.address("metrics"))
            assert await older.exporter.ended() == 0
            assert (await newer.scrape()).counted(CLOSES, "code") == {("1000",): 1, ("1006",): 1, ("1009",): 1}
            assert outcome(await newer.report([closing(1000, id="1"), closing(1009, id="last")])) == (0, 2, 0)


@conversation
async def test_another_that_is_killed(tmp_path: Path) -> None:
    """A killed exporter holds nothing."""
    state = tmp_path / "state"
    async with reporting(tmp_path, f"--storage.path={state}") as desk:
        await desk.report(closing(1000))
        desk.exporter.signal(signal.SIGKILL)
        await desk.exporter.ended()
    async with reporting(tmp_path, f"--storage.path={state}", "--shutdown.grace=0") as desk:
        assert not desk.exporter.said("waiting for the storage")
        assert (await desk.scrape()).value(CLOSES) == 1
