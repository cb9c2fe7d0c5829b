"""A storage that is not what it was: damaged, of a newer version, or copied."""

import contextlib
import os
import re
import shutil
import signal
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from tests.support.loops import conversation, eventually
from tests.support.processes import Exporter, exporter_process
from tests.support.reporting import (
    BATCH,
    CLOSES,
    CREATED,
    WEBHOOK,
    Desk,
    batch,
    closing,
    counts,
    growth,
    outcome,
    reporting,
    said,
)
from tests.support.scraping import Page


def database(state: Path) -> Path:
    [file] = state.glob("*.db")
    return file


def wal(state: Path) -> Path:
    return database(state).with_name(database(state).name + "-wal")


def overwrite(file: Path, start: int, data: bytes) -> None:
    with file.open("r+b") as opened:
        opened.seek(start)
        opened.write(data)


def set_version(state: Path, version: int) -> None:
    with contextlib.closing(sqlite3.connect(database(state))) as connection:
        connection.execute(f"PRAGMA user_version = {version}")


def of_another_program(state: Path) -> None:
    wal(state).unlink(missing_ok=True)
    file = database(state)
    file.unlink()
    with contextlib.closing(sqlite3.connect(file)) as connection:
        connection.executescript("CREATE TABLE cookies (name); PRAGMA user_version = 1")


DAMAGES: Final[dict[str, Callable[[Path], object]]] = {
    "truncated to nothing": lambda state: os.truncate(database(state), 0),
    "truncated in its first page": lambda state: os.truncate(database(state), 100),
    "truncated to a page": lambda state: os.truncate(database(state), 4096),
    "truncated to half": lambda state: os.truncate(database(state), database(state).stat().st_size // 2),
    "truncated by a byte": lambda state: os.truncate(database(state), database(state).stat().st_size - 1),
    "its first page zeroed": lambda state: overwrite(database(state), 0, bytes(4096)),
    "its second page zeroed": lambda state: overwrite(database(state), 4096, bytes(4096)),
    "all of it zeroed": lambda state: overwrite(database(state), 0, bytes(database(state).stat().st_size)),
    "its last half zeroed": lambda state: overwrite(
        database(state), database(state).stat().st_size // 2, bytes((database(state).stat().st_size + 1) // 2)
    ),
    "something else": lambda state: database(state).write_text("counters: 7\n" * 1000),
    "another program's database": of_another_program,
}


@dataclass(frozen=True)
class Kept:
    """The folder of an exporter that took 5 batches, and what it counted."""

    folder: Path
    page: Page

    def copy(self, state: Path) -> None:
        shutil.copytree(self.folder, state)


@pytest.fixture(scope="module", params=["killed", pytest.param("ended", marks=pytest.mark.matrix)])
def kept(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Kept:
    folder = tmp_path_factory.mktemp("kept")
    pages = []

    @conversation
    async def report() -> None:
        async with reporting(folder, f"--storage.path={folder / 'state'}", "--shutdown.grace=0") as desk:
            for number in range(5):
                assert outcome(await desk.report(batch(number))) == (BATCH, 0, 0)
            pages.append(await desk.scrape())
            desk.exporter.signal(signal.SIGKILL if request.param == "killed" else signal.SIGTERM)
            await desk.exporter.ended()

    report()
    return Kept(folder / "state", pages[0])


async def started(exporter: Exporter, folder: Path) -> bool:
    """Whether it takes reports, as soon as that is certain; else it has ended with status 2, and one sentence."""
    await eventually(lambda: exporter.process.returncode is not None or "webhook listening" in said(folder), within=15)
    if exporter.process.returncode is None:
        return True
    assert exporter.process.returncode == 2
    assert re.fullmatch(r"websocket-exporter: cannot use .*\n", said(folder))
    return False


BRIEF: Final = ("truncated to nothing", "truncated to half", "its first page zeroed", "another program's database")


@pytest.mark.parametrize(
    "name", [name if name in BRIEF else pytest.param(name, marks=pytest.mark.matrix) for name in DAMAGES]
)
@conversation
async def test_a_damaged_file(name: str, kept: Kept, tmp_path: Path) -> None:
    """It is refused with status 2 and a sentence, or all of it is there; counts never silently begin at 0."""
    state = tmp_path / "state"
    kept.copy(state)
    DAMAGES[name](state)
    async with exporter_process(tmp_path, f"--storage.path={state}", WEBHOOK) as exporter:
        if await started(exporter, tmp_path) and counts(await exporter.scrape()) != counts(kept.page):
            assert [line for line in exporter.lines if line["level"] == "warning" and "recover" in line["event"]]


@pytest.mark.parametrize("how", ["truncated to nothing", "missing", "truncated to half", "its end zeroed"])
@conversation
async def test_a_damaged_log_of_changes(how: str, kept: Kept, tmp_path: Path) -> None:
    """Where the file of what is not yet in the database is cut off, what was committed before the cut is there."""
    state = tmp_path / "state"
    kept.copy(state)
    size = wal(state).stat().st_size if wal(state).exists() else 0
    match how:
        case "missing":
            wal(state).unlink(missing_ok=True)
        case "truncated to nothing":
            wal(state).write_bytes(b"")
        case "truncated to half" if size:
            os.truncate(wal(state), size // 2)
        case _ if size:
            overwrite(wal(state), size - size // 4, bytes(size // 4))
    async with exporter_process(tmp_path, f"--storage.path={state}", WEBHOOK) as exporter:
        if not await started(exporter, tmp_path):
            assert size > 0
            return
        desk = Desk(exporter, await exporter.address("webhook"), await exporter.address("metrics"))
        found = (await desk.scrape()).value(CLOSES)
        assert found % BATCH == 0
        known = int(found) // BATCH
        assert known == 5 or size > 0
        repeated = [outcome(await desk.report(batch(number))) for number in range(5)]
        assert repeated == [(0, BATCH, 0)] * known + [(BATCH, 0, 0)] * (5 - known)


@conversation
async def test_a_newer_version(tmp_path: Path) -> None:
    """A file of a newer exporter is refused, by both versions, and left as it is."""
    state = tmp_path / "state"
    async with reporting(tmp_path, f"--storage.path={state}", "--shutdown.grace=0") as desk:
        await desk.report(closing(1000))
        desk.exporter.signal(signal.SIGTERM)
        await desk.exporter.ended()
    with contextlib.closing(sqlite3.connect(database(state))) as connection:
        [[ours]] = connection.execute("PRAGMA user_version")
    set_version(state, 7977)
    content = database(state).read_bytes()
    async with exporter_process(tmp_path, WEBHOOK, f"--storage.path={state}") as exporter:
        assert await exporter.ended() == 2
    assert "7977" in said(tmp_path)
    assert f" {ours}" in said(tmp_path)
    assert database(state).read_bytes() == content
    set_version(state, ours)
    async with reporting(tmp_path, f"--storage.path={state}") as desk:
        assert (await desk.scrape()).value(CLOSES) == 1


@conversation
async def test_a_copy_of_the_folder(tmp_path: Path) -> None:
    """A backup, which is a copy of the folder of an exporter that has ended, is as good as the folder."""
    async with reporting(tmp_path, f"--storage.path={tmp_path / 'state'}", "--shutdown.grace=0") as desk:
        await desk.report([closing(1000, id="1"), closing(1001)])
        page = await desk.scrape()
        desk.exporter.signal(signal.SIGTERM)
        assert await desk.exporter.ended() == 0
    shutil.copytree(tmp_path / "state", tmp_path / "backup")
    async with reporting(tmp_path, f"--storage.path={tmp_path / 'backup'}") as desk:
        assert counts(await desk.scrape()) == counts(page)
        assert growth(page, await desk.scrape(), CREATED) == {}
        assert outcome(await desk.report(closing(1000, id="1"))) == (0, 1, 0)
