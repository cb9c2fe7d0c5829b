"""Faults while it runs: what fails is not counted, what was counted stays, and it goes on by itself afterwards."""

import errno
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

from exporter.events import Count
from exporter.storage import CommitFailed, StorageFull
from exporter.storage.errors import no_room
from tests.storage.conftest import Disk
from tests.storage.support import (
    CLOSES,
    FILE,
    LOG,
    Clock,
    Closes,
    closing,
    content,
    key,
    keys,
    no_file_longer_than,
    opened,
)


def fill(folder: Path) -> Path:
    """Leave no room on the disk; the file that took it."""
    ballast = folder / "ballast"
    with ballast.open("ab", buffering=0) as file, pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        while True:
            file.write(bytes(4096))
    return ballast


@pytest.mark.needs("mount")
def test_a_full_disk(disk: Disk) -> None:
    """A commit fails as a whole and says that the disk is full; with room again the same commit succeeds."""
    folder = disk(1024)
    entries = [Closes(keys("some", 3000)), Closes([], anonymous=5)]
    with closing(folder) as storage:
        storage.commit([Closes([key("before")])])
        ballast = fill(folder)
        for _ in range(3):
            with pytest.raises(StorageFull) as full:
                storage.commit(entries)
            assert str(full.value) == f"cannot write {folder}/{FILE}: its disk is full"
            assert (storage.totals(), storage.ids) == ({CLOSES: 1.0}, 1)
        ballast.unlink()
        assert [done.counts for done in storage.commit(entries)] == [{CLOSES: 3000.0}, {CLOSES: 5.0}]
        assert storage.totals() == {CLOSES: 3006.0}
    with closing(folder) as storage:
        assert (storage.totals(), storage.ids) == ({CLOSES: 3006.0}, 3001)


@pytest.mark.needs("mount")
def test_a_disk_that_fills_up_and_is_freed_again(disk: Disk) -> None:
    """Commit after commit, with merges and generations: whichever fails leaves no trace, all others stay."""
    folder = disk(8192)
    counted = failed = 0
    storage = opened(folder, max_ids=10_000)
    for number in range(150):
        if number % 15 == 0:
            fill(folder)
        new = Closes(keys(number, 400))
        try:
            (done,) = storage.commit([new])
        except StorageFull:
            failed += 1
            assert storage.totals().get(CLOSES, 0.0) == counted
            (folder / "ballast").unlink()
            (done,) = storage.commit([new])
        counted += 400
        assert done.duplicates == frozenset()
        assert storage.totals() == {CLOSES: float(counted)}
        if number % 40 == 39:
            storage.close()
            storage = opened(folder, max_ids=10_000)
    storage.close()
    assert failed >= 8
    with closing(folder, max_ids=10_000) as storage:
        assert storage.totals() == {CLOSES: float(counted)}


@pytest.mark.needs("mount")
def test_a_disk_with_little_room(disk: Disk) -> None:
    """Too little for the log to grow as it likes: it begins anew instead, and what failed for it succeeds then."""
    folder = disk(2048)
    for start in range(0, 40, 10):
        with closing(folder, max_ids=4000) as storage:
            for number in range(start, start + 10):
                storage.commit([Closes(keys(number, 300))])
    room = os.statvfs(folder).f_bavail * os.statvfs(folder).f_bsize
    (folder / "ballast").write_bytes(bytes(room - (300 << 10)))
    failed = 0
    with closing(folder, max_ids=4000) as storage:
        for number in range(100, 200):
            try:
                storage.commit([Closes(keys(number, 300))])
            except StorageFull:
                failed += 1
                storage.commit([Closes(keys(number, 300))])
        assert storage.totals() == {CLOSES: 140 * 300.0}
    assert failed > 0


@pytest.mark.needs("mount")
def test_a_restart_while_the_disk_is_full(disk: Disk) -> None:
    """It opens with what was committed, closes, and opens again; only commits fail until there is room."""
    folder = disk(1024)
    storage = opened(folder)
    storage.commit([Closes([key("a")])])
    storage.commit([Closes([key("b")])])
    ballast = fill(folder)
    storage.close()
    for _ in range(2):
        with closing(folder) as storage:
            assert storage.totals() == {CLOSES: 2.0}
            with pytest.raises(StorageFull):
                storage.commit([Closes(keys("many", 10_000))])
    ballast.unlink()
    with closing(folder) as storage:
        assert storage.commit([Closes([key("a"), key("c")])])[0].duplicates == {0}
        assert storage.recovered is None


@pytest.mark.needs("mount")
def test_whether_there_is_room(disk: Disk) -> None:
    """Asked when SQLite saw an I/O error only: a used up quota is one to it."""
    folder = disk(64)
    assert not no_room(folder)
    fill(folder)
    assert no_room(folder)
    assert not no_room(folder / "missing")


def test_an_io_error(tmp_path: Path) -> None:
    """A commit that cannot be written fails as a whole; what was counted stays, and the next may succeed."""
    with closing(tmp_path) as storage:
        storage.commit([Closes([key("before")])])
        with no_file_longer_than((tmp_path / LOG).stat().st_size + 6000):
            for _ in range(3):
                with pytest.raises(CommitFailed) as failed:
                    storage.commit([Closes(keys("some", 3000))])
                assert str(failed.value) == f"cannot write {tmp_path}/{FILE}: disk I/O error"
                assert (storage.totals(), storage.ids) == ({CLOSES: 1.0}, 1)
        assert storage.commit([Closes([key("before"), *keys("some", 3000)])])[0].duplicates == {0}
    with closing(tmp_path) as storage:
        assert storage.totals() == {CLOSES: 3001.0}


class Immense(Closes):
    """A request whose counts do not fit into memory."""

    def counts(self, duplicates: frozenset[int]) -> Mapping[Count, float]:
        raise MemoryError


def test_no_memory(tmp_path: Path) -> None:
    """A commit for which there is no memory fails like any other."""
    with closing(tmp_path) as storage:
        with pytest.raises(CommitFailed) as failed:
            storage.commit([Closes([key("a")]), Immense([key("b")])])
        assert str(failed.value) == f"cannot write {tmp_path}/{FILE}: out of memory"
        assert storage.commit([Closes([key("a"), key("b")])])[0].counts == {CLOSES: 2.0}


def test_damage_that_is_met_while_running(tmp_path: Path) -> None:
    """Commits that meet it fail; what was counted stays as it is, in memory and in the file."""
    with closing(tmp_path, max_ids=10_000) as storage:
        for number in range(10):
            storage.commit([Closes(keys(number, 400))])
    file = tmp_path / FILE
    storage = opened(tmp_path, max_ids=10_000)
    with file.open("r+b") as damaged:
        damaged.seek(2 * 4096)
        damaged.write(bytes(file.stat().st_size - 2 * 4096))
    for _ in range(2):
        with pytest.raises(CommitFailed) as failed:
            storage.commit([Closes(keys("new", 1000))])
        assert str(failed.value) == f"cannot write {file}: database disk image is malformed"
        assert (storage.totals(), storage.ids) == ({CLOSES: 4000.0}, 4000)
    storage.close()


@pytest.mark.parametrize("fate", ["removed", "replaced"])
def test_a_file_that_is_gone(fate: str, tmp_path: Path) -> None:
    """Nothing is acknowledged that only a file without a name has."""
    folder = tmp_path / "state"
    storage = opened(folder)
    storage.commit([Closes([key("a")])])
    shutil.rmtree(folder)
    if fate == "replaced":
        folder.mkdir()
        (folder / FILE).touch()
    with pytest.raises(CommitFailed) as failed:
        storage.commit([Closes([key("b")])])
    assert str(failed.value) == f"cannot write {folder}/{FILE}: it was moved or removed while in use"
    assert storage.totals() == {CLOSES: 1.0}
    storage.close()


def test_the_log_is_bounded(tmp_path: Path) -> None:
    """However much is committed, the log does not grow with it; nor does the file when ids make room for others."""
    clock = Clock()
    sizes = []
    with closing(tmp_path, clock, max_ids=20_000) as storage:
        for number in range(300):
            storage.commit([Closes(keys(number, 1000))])
            sizes.append((tmp_path / FILE).stat().st_size)
            assert (tmp_path / LOG).stat().st_size < 8 << 20
    assert max(sizes[100:]) <= 1.2 * max(sizes[:100])
    assert set(content(tmp_path)) == {FILE}
