"""The folder in which reports are kept: when its disk is full or read-only, or when it is no folder."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from websockets.asyncio.client import connect

from tests.support.loops import conversation, eventually
from tests.support.processes import exporter_process, tap_flag
from tests.support.reporting import (
    BATCH,
    CLOSES,
    ERRORS,
    EVENTS,
    STORAGE_ERRORS,
    WEBHOOK,
    Desk,
    Event,
    batch,
    closing,
    counts,
    growth,
    outcome,
    post,
    reporting,
    said,
)
from tests.support.scraping import fetch
from tests.support.services import service
from tests.web.support import connected
from tests.webhook.refusals import assert_refused


@contextlib.contextmanager
def _mounted(folder: Path, options: str) -> Iterator[None]:
    if os.geteuid() != 0:
        pytest.skip("needs root, to mount a file system")
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("needs the right to mount a file system")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MiB."""
    with _mounted(tmp_path / "disk", "size=2m"):
        yield tmp_path / "disk"


def fill(disk: Path) -> Path:
    """Take all that is free; the file that does."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    return filler


async def report_until_full(desk: Desk) -> tuple[int, list[Event]]:
    """How many batches were taken, and the first that was not."""
    for number in range(1000):
        answer = await desk.report(batch(number))
        if answer.status != 200:
            assert_refused(answer, 507, "storage_full")
            assert int(answer.fields["retry-after"]) > 0
            return number, batch(number)
        assert outcome(answer) == (BATCH, 0, 0)
    raise AssertionError("the disk never became full")


@conversation
async def test_a_full_disk(small_disk: Path, tmp_path: Path) -> None:
    """Reports get 507 and are not counted, everything else goes on; with room again it recovers by itself."""
    storage = (f"--storage.path={small_disk / 'state'}", "--webhook.rate-limit=0")
    async with service() as (_, upstream), reporting(tmp_path, *storage, tap_flag(upstream)) as desk:
        tap = await desk.exporter.address("tap")
        assert outcome(await desk.report(closing(1000, id="first"))) == (1, 0, 0)
        filler = fill(small_disk)
        taken, refused = await report_until_full(desk)
        before = await desk.scrape()
        assert before.value(CLOSES, code="1000", source="webhook") == 1
        assert before.value(CLOSES, code="1001") == taken * BATCH
        async with connect(f"ws://{tap}/") as tapped:
            await tapped.send("still here?")
            assert await tapped.recv() == "still here?"
        await eventually(lambda: seen_by_tap(desk))
        before = await desk.scrape()
        for _ in range(5):
            assert_refused(await desk.report(refused), 507, "storage_full")
        page = await desk.scrape()
        assert counts(page) == counts(before)
        assert growth(before, page, EVENTS, "result") == {}
        assert growth(before, page, ERRORS, "error") == {("storage_full",): 5}
        assert page.value(STORAGE_ERRORS) >= 6
        assert (await fetch(desk.web, "/-/healthy"))[0] == 200
        assert (await fetch(desk.address, "/-/healthy"))[0] == 200
        filler.unlink()
        assert outcome(await desk.report(refused)) == (BATCH, 0, 0)
        assert outcome(await desk.report(refused)) == (0, BATCH, 0)
        page = await desk.scrape()
        assert page.value(CLOSES, source="webhook") == 1 + (taken + 1) * BATCH
        desk.exporter.signal(signal.SIGKILL)
        await desk.exporter.ended()
    async with reporting(tmp_path, *storage) as desk:
        assert (await desk.scrape()).counted(CLOSES, "code") == {("1000",): 1, ("1001",): (taken + 1) * BATCH}


async def seen_by_tap(desk: Desk) -> bool:
    return (await desk.scrape()).value(CLOSES, source="tap") == 1


@conversation
async def test_killed_while_the_disk_is_full(small_disk: Path, tmp_path: Path) -> None:
    """An exporter that starts on a full disk says so and ends, or has all its counts: it never begins anew."""
    flags = (f"--storage.path={small_disk / 'state'}", "--webhook.rate-limit=0", WEBHOOK)
    async with reporting(tmp_path, *flags) as desk:
        await desk.report(batch(-1))
        filler = fill(small_disk)
        await report_until_full(desk)
        before = counts(await desk.scrape())
        desk.exporter.signal(signal.SIGKILL)
        await desk.exporter.ended()
    fill(small_disk)
    async with exporter_process(tmp_path, *flags) as exporter:
        await eventually(lambda: exporter.process.returncode is not None or "webhook listening" in said(tmp_path), 15)
        if exporter.process.returncode is None:
            assert counts(await exporter.scrape()) == before
        else:
            assert exporter.process.returncode == 2
            assert "its disk is full" in said(tmp_path)
    filler.unlink()
    async with reporting(tmp_path, *flags) as desk:
        assert counts(await desk.scrape()) == before


@conversation
async def test_a_read_only_disk(small_disk: Path, tmp_path: Path) -> None:
    """A folder that cannot be written is told in one sentence, with status 2, whether or not it was used before."""
    state = small_disk / "state"
    async with reporting(tmp_path, f"--storage.path={state}") as desk:
        await desk.report(closing(1000))
    remount("ro", small_disk)
    async with exporter_process(tmp_path, WEBHOOK, f"--storage.path={state}") as exporter:
        assert await exporter.ended() == 2
        assert f"cannot store in {state}: its file system is read-only\n" in said(tmp_path)


def remount(mode: str, disk: Path) -> None:
    subprocess.run(["mount", "-o", f"remount,{mode}", disk], check=True)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda state: state.write_text("x"), "cannot store in {state}: it is not a folder"),
        (lambda state: (state.parent).rmdir(), "cannot store in {state}: {state.parent} does not exist"),
        (
            lambda state: (state.parent.rmdir(), state.parent.write_text("x")),
            "cannot store in {state}: {state.parent} is not a folder",
        ),
    ],
    ids=["a file", "no parent", "a file for a parent"],
)
@conversation
async def test_no_folder(make: Callable[[Path], object], sentence: str, tmp_path: Path) -> None:
    """What is no folder is told in one sentence, with status 2."""
    state = tmp_path / "states" / "state"
    state.parent.mkdir()
    make(state)
    async with exporter_process(tmp_path, WEBHOOK, f"--storage.path={state}") as exporter:
        assert await exporter.ended() == 2
        assert sentence.format(state=state) + "\n" in said(tmp_path)


@conversation
async def test_nobody_else_reads_it(tmp_path: Path) -> None:
    """The folder and its files are their owner's alone, whatever the umask."""
    state = tmp_path / "state"
    before = os.umask(0)
    try:
        async with reporting(tmp_path, f"--storage.path={state}") as desk:
            async with connected(desk.address) as client:
                await client.send(post(closing(1000)))
                assert outcome(await client.answer()) == (1, 0, 0)
            for path in (state, *state.iterdir()):
                assert path.stat().st_mode & 0o077 == 0, path
    finally:
        os.umask(before)
