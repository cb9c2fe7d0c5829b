"""Which folders and files are used, and the exact sentence for those that are not."""

import contextlib
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from exporter.storage import StorageError, StorageFull, StorageHeld, database
from tests.storage.conftest import Disk
from tests.storage.support import (
    CLOSES,
    FILE,
    LOG,
    START,
    Clock,
    Closes,
    closing,
    content,
    key,
    keys,
    no_file_longer_than,
    opened,
    query,
    unprivileged,
)

REMEDY = "move it away to begin anew, or restore a backup"


def refusal(folder: Path) -> str:
    """The sentence with which the storage in `folder` is refused."""
    with pytest.raises(StorageError) as refused:
        opened(folder)
    return str(refused.value)


def written(folder: Path) -> Path:
    """A storage with one event and a target, closed; its file."""
    with closing(folder) as storage:
        storage.born(["chat"])
        storage.commit([Closes([key("a")])])
    return folder / FILE


@contextlib.contextmanager
def held(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process has the storage open, with one event in it."""
    code = "; ".join(
        (
            "import sys, pathlib",
            "from tests.storage.support import Closes, key, opened",
            "storage = opened(pathlib.Path(sys.argv[1]))",
            "storage.commit([Closes([key('a')])])",
            "print('open', flush=True)",
            "sys.stdin.readline()",
        )
    )
    command = [sys.executable, "-c", code, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        try:
            yield process
        finally:
            process.kill()


def test_a_new_folder_is_for_this_user_alone(tmp_path: Path) -> None:
    """The folder is created if only it is missing, and nobody else can read what is in it."""
    folder = tmp_path / "new"
    with closing(folder) as storage:
        assert (storage.totals(), storage.created(), storage.ids, storage.recovered) == ({}, {}, 0, None)
        storage.commit([Closes([key("a")])])
        modes = {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()}
    assert modes == {"lock": 0o600, FILE: 0o600, LOG: 0o600}
    assert folder.stat().st_mode & 0o777 == 0o700


def test_any_name_of_a_folder(tmp_path: Path) -> None:
    """Characters that mean something in a URI, and names that are not text, are names like any other."""
    folder = tmp_path / "a?mode=memory#50%25 é"
    odd = Path(os.fsdecode(bytes(folder) + b"\xff"))
    for path in (folder, odd):
        written(path)
        with closing(path) as storage:
            assert storage.totals() == {CLOSES: 1.0}


def test_the_folder_is_a_file(tmp_path: Path) -> None:
    """A path that is something else is not replaced."""
    (tmp_path / "file").touch()
    assert refusal(tmp_path / "file") == f"cannot store in {tmp_path}/file: it is not a folder"
    assert refusal(tmp_path / "file/below") == f"cannot store in {tmp_path}/file/below: {tmp_path}/file is not a folder"


def test_the_parent_is_missing(tmp_path: Path) -> None:
    """Only one folder is created: a volume that is not mounted is not made up for."""
    assert refusal(tmp_path / "a/b") == f"cannot store in {tmp_path}/a/b: {tmp_path}/a does not exist"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("mode", [0o555, 0o355, 0o666], ids=oct)
def test_a_folder_that_may_not_be_used(mode: int, common: Path) -> None:
    """The sentence names the user, and whose folder it is with which permissions."""
    folder = common / "state"
    folder.mkdir()
    if os.geteuid() != 0:
        folder.chmod(mode)
    else:
        folder.chmod(mode & 0o077 | 0o700)
    owner, shown = folder.stat().st_uid, folder.stat().st_mode & 0o7777
    with unprivileged() as user:
        assert refusal(folder) == (
            f"cannot store in {folder}: user {user} may not write {folder},"
            f" which belongs to user {owner} (mode {shown:04o})"
        )
    folder.chmod(0o700)
    assert list(folder.iterdir()) == []


def test_a_folder_that_may_not_be_created(common: Path) -> None:
    """The sentence names the folder above it."""
    if os.geteuid() != 0:
        common.chmod(0o555)
    shown = common.stat().st_mode & 0o7777
    with unprivileged() as user:
        assert refusal(common / "state") == (
            f"cannot store in {common}/state: user {user} may not write {common},"
            f" which belongs to user {common.stat().st_uid} (mode {shown:04o})"
        )


def test_a_folder_that_may_not_even_be_seen(common: Path) -> None:
    """Then whose it is cannot be said."""
    (common / "closed/open").mkdir(parents=True)
    (common / "closed").chmod(0o700 if os.geteuid() == 0 else 0o000)
    folder = common / "closed/open/state"
    with unprivileged() as user:
        assert refusal(folder) == f"cannot store in {folder}: user {user} may not write {common}/closed/open"
    (common / "closed").chmod(0o700)


@pytest.mark.parametrize("name", ["lock", FILE])
def test_a_file_of_another_owner(name: str, common: Path) -> None:
    """A file that this user may not write is named with its owner, even in a folder that may be written."""
    written(common)
    common.chmod(0o777)
    for path in common.iterdir():
        path.chmod(0o666)
    (common / name).chmod(0o444)
    owner = (common / name).stat().st_uid
    with unprivileged() as user:
        assert refusal(common) == (
            f"cannot store in {common}: user {user} may not write {common}/{name},"
            f" which belongs to user {owner} (mode 0444)"
        )


def test_a_folder_of_another_owner_that_may_be_written(common: Path) -> None:
    """Permissions decide, not ownership: volumes often belong to root and are shared with a group."""
    (common / "state").mkdir()
    (common / "state").chmod(0o777)
    with unprivileged():
        written(common / "state")


@pytest.mark.needs("mount")
def test_a_read_only_file_system(disk: Disk) -> None:
    """Nothing can be stored there, whether there is a storage already or not; not even by root."""
    folder = disk(4096)
    written(folder)
    before = content(folder)
    subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
    assert refusal(folder) == f"cannot store in {folder}: its file system is read-only"
    new = folder / "new"
    assert refusal(new) == f"cannot store in {new}: its file system is read-only"
    assert content(folder) == before


@pytest.mark.needs("mount")
def test_no_room_to_begin(disk: Disk) -> None:
    """A storage is created whole or not at all; with room it is."""
    folder = disk(64)
    (folder / "ballast").write_bytes(bytes(40 << 10))
    with pytest.raises(StorageFull) as full:
        opened(folder / "state")
    assert str(full.value) == f"cannot use {folder}/state/{FILE}: its disk is full"
    assert not (folder / "state" / FILE).exists()
    (folder / "ballast").unlink()
    written(folder / "state")


@pytest.mark.needs("mount")
def test_no_room_for_another_file(disk: Disk) -> None:
    """A disk that has only too many files is full, too."""
    folder = disk(64, files=2)
    with pytest.raises(StorageFull) as full:
        opened(folder / "state")
    assert str(full.value) == f"cannot store in {folder}/state: no space left on device"


def test_an_io_error_at_the_beginning(tmp_path: Path) -> None:
    """A storage that cannot be written is not created; when it can be, it is."""
    with no_file_longer_than(0):
        assert refusal(tmp_path) == f"cannot use {tmp_path}/{FILE}: disk I/O error"
    assert not (tmp_path / FILE).exists()
    written(tmp_path)


def test_one_process_at_a_time(tmp_path: Path) -> None:
    """A second one is told that the lock is held, until the first ends, however it does."""
    with held(tmp_path) as process:
        with pytest.raises(StorageHeld) as refused:
            opened(tmp_path)
        assert str(refused.value) == f"cannot store in {tmp_path}: another process holds its lock"
        process.kill()
        process.wait()
        with closing(tmp_path) as storage:
            assert storage.totals() == {CLOSES: 1.0}


def test_one_storage_at_a_time_in_a_process(tmp_path: Path) -> None:
    """The lock is let go of when the storage is closed, and when it could not be opened."""
    storage = opened(tmp_path)
    with pytest.raises(StorageHeld):
        opened(tmp_path)
    storage.close()
    (tmp_path / FILE).rename(tmp_path / "away")
    (tmp_path / FILE).touch()
    assert refusal(tmp_path) == refusal(tmp_path)
    (tmp_path / "away").rename(tmp_path / FILE)
    opened(tmp_path).close()


def test_somebody_has_the_file_open(tmp_path: Path) -> None:
    """Whoever looks into the file with SQLite keeps the storage from opening it, and is named so that it waits."""
    file = written(tmp_path)
    with contextlib.closing(database.connect(file)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StorageHeld) as refused:
            opened(tmp_path)
    assert str(refused.value) == f"cannot use {file}: another process has it open"
    opened(tmp_path).close()


def test_after_a_kill(tmp_path: Path) -> None:
    """What was committed is there, and the storage says once that it was recovered."""
    with held(tmp_path) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
    with closing(tmp_path) as storage:
        assert (
            storage.recovered == f"{tmp_path}/{FILE} was not closed by the last process: recovered to its last commit"
        )
        assert storage.totals() == {CLOSES: 1.0}
        assert storage.commit([Closes([key("a")])])[0].duplicates == {0}
    with closing(tmp_path) as storage:
        assert storage.recovered is None


def test_a_kill_before_the_first_commit(tmp_path: Path) -> None:
    """There is nothing to recover, and nothing is said."""
    storage = opened(tmp_path / "one")
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    storage.close()
    with closing(tmp_path / "two") as storage:
        assert storage.recovered is None


def test_a_log_that_is_gone(tmp_path: Path) -> None:
    """Without its log the file of a process that did not close it is used, but what may be missing is said."""
    storage = opened(tmp_path / "one")
    storage.commit([Closes([key("a")])])
    storage.commit([Closes([key("b")])])
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    storage.close()
    (tmp_path / "two" / LOG).unlink()
    with closing(tmp_path / "two") as storage:
        assert storage.recovered == (
            f"{tmp_path}/two/{FILE} was not closed by the last process, and its log is gone:"
            " the last commits may be missing"
        )
        assert storage.totals() == {CLOSES: 1.0}
    with closing(tmp_path / "two") as storage:
        assert storage.recovered is None


def test_what_is_left_of_a_crash_while_creating(tmp_path: Path) -> None:
    """A draft that was never finished is made anew."""
    (tmp_path / f"{FILE}.new").write_bytes(b"half a page")
    (tmp_path / f"{FILE}.new-wal").write_bytes(b"half a log")
    written(tmp_path)
    assert sorted(content(tmp_path)) == [FILE]


def test_the_window_and_the_bound_may_change(tmp_path: Path) -> None:
    """Both are settings of the process, not of the file."""
    with closing(tmp_path, max_ids=1_000_000) as storage:
        storage.commit([Closes(keys("many", 5000))])
    with closing(tmp_path, max_ids=1000) as storage:
        assert storage.commit([Closes(keys("many", 5000))])[0].duplicates == frozenset(range(5000))
        storage.commit([Closes(keys("more", 400))])
        storage.commit([Closes(keys("yet more", 400))])
        assert storage.ids <= 1000
    storage = opened(tmp_path, window=60.0)
    assert storage.since >= START - 60
    storage.close()


# What is wrong with a file. None of these changes it.


def assert_refused(folder: Path, sentence: str) -> None:
    """It is, twice in a row, and stays as it is."""
    before = content(folder)
    assert refusal(folder) == refusal(folder) == sentence
    assert content(folder) == before


def test_an_empty_file(tmp_path: Path) -> None:
    """It is not mistaken for a storage that has not counted anything."""
    written(tmp_path).write_bytes(b"")
    assert_refused(tmp_path, f"cannot use {tmp_path}/{FILE}: it is empty; {REMEDY}")


def test_a_file_of_zeros(tmp_path: Path) -> None:
    """As some file systems leave it after a power cut."""
    file = written(tmp_path)
    file.write_bytes(bytes(file.stat().st_size))
    assert_refused(tmp_path, f"cannot use {file}: it begins with zeros; {REMEDY}")


def test_a_file_of_something_else(tmp_path: Path) -> None:
    """It is left alone."""
    (tmp_path / FILE).write_text("# notes\n" * 100)
    assert_refused(tmp_path, f"cannot use {tmp_path}/{FILE}: it is not a database; {REMEDY}")


def test_a_folder_in_place_of_the_file(tmp_path: Path) -> None:
    """It is left alone, too."""
    (tmp_path / FILE).mkdir()
    assert refusal(tmp_path) == f"cannot use {tmp_path}/{FILE}: is a directory"


def test_a_database_of_another_program(tmp_path: Path) -> None:
    """Nothing is added to it."""
    query(tmp_path / FILE, "CREATE TABLE notes(text)")
    assert_refused(tmp_path, f"cannot use {tmp_path}/{FILE}: it is another program's database; name another folder")


def test_a_newer_format(tmp_path: Path) -> None:
    """Both formats are named."""
    file = written(tmp_path)
    query(file, "PRAGMA user_version = 7")
    assert_refused(
        tmp_path,
        f"cannot use {file}: it has format 7, and this version knows formats up to 1;"
        " run a newer version, or name another folder",
    )


@pytest.mark.parametrize(
    ("change", "how"),
    [
        ("PRAGMA user_version = 0", "it has format 0 and the tables counts, ids_0, ids_1, recent, state, targets"),
        ("DROP TABLE counts", "it has format 1 and the tables ids_0, ids_1, recent, state, targets"),
        ("DELETE FROM state", "its table state has not one row"),
        ("UPDATE recent SET ids = zeroblob(16)", "its table recent has broken ids"),
    ],
)
def test_a_file_that_was_tampered_with(change: str, how: str, tmp_path: Path) -> None:
    """What does not make sense is said."""
    file = written(tmp_path)
    query(file, change)
    assert_refused(tmp_path, f"cannot use {file}: it is damaged ({how}); {REMEDY}")


def test_a_truncated_file(tmp_path: Path) -> None:
    """At whatever length it was cut, it is refused."""
    with closing(tmp_path) as storage:
        storage.commit([Closes(keys("many", 20_000))])
    file = tmp_path / FILE
    whole = file.read_bytes()
    for size in (1, 15, 16, 50, 99):
        file.write_bytes(whole[:size])
        assert_refused(tmp_path, f"cannot use {file}: it is truncated to {size} bytes; {REMEDY}")
    for size in (100, 512, 4095, 4096, 4097, len(whole) // 2, len(whole) - 4096, len(whole) - 1):
        file.write_bytes(whole[:size])
        assert_refused(tmp_path, f"cannot use {file}: it is truncated to {size} of {len(whole)} bytes; {REMEDY}")
    file.write_bytes(whole)
    with closing(tmp_path) as storage:
        assert storage.ids == 20_000


def test_a_zeroed_page(tmp_path: Path) -> None:
    """Whichever page of the file it is, of counts or of ids, the file is refused."""
    with closing(tmp_path, max_ids=10_000) as storage:
        storage.born(["chat"])
        for name in range(12):
            storage.commit([Closes(keys(name, 700))])
    file = tmp_path / FILE
    whole = file.read_bytes()
    ((free,),) = query(file, "PRAGMA freelist_count")
    assert free == 0
    assert len(whole) > 40 * 4096
    for start in range(0, len(whole), 4096):
        file.write_bytes(whole[:start] + bytes(4096) + whole[start + 4096 :])
        before = content(tmp_path)
        text = refusal(tmp_path)
        assert text.startswith(f"cannot use {file}: it ")
        assert text.endswith(f"; {REMEDY}")
        assert content(tmp_path) == before


def test_a_truncated_file_with_a_log(tmp_path: Path) -> None:
    """What the log cannot make up for is noticed, too, and neither of them is changed."""
    storage = opened(tmp_path / "one")
    storage.commit([Closes(keys("many", 20_000))])
    storage.close()
    storage = opened(tmp_path / "one")
    storage.commit([Closes([key("a")])])
    storage.commit([Closes([key("b")])])
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    storage.close()
    os.truncate(tmp_path / "two" / FILE, 40 << 10)
    before = content(tmp_path / "two")
    text = refusal(tmp_path / "two")
    assert text.startswith(f"cannot use {tmp_path}/two/{FILE}: it is damaged (")
    assert text.endswith(f"); {REMEDY}")
    assert content(tmp_path / "two") == before


@pytest.mark.parametrize("damage", [bytes(64), b"notes, not a log" * 4], ids=["zeros", "text"])
def test_a_damaged_log(damage: bytes, tmp_path: Path) -> None:
    """A log without commits is not taken for one that had none."""
    file = written(tmp_path)
    (tmp_path / LOG).write_bytes(damage)
    assert_refused(tmp_path, f"cannot use {file}: its log {file}-wal is damaged; {REMEDY}")


def test_a_truncated_log(tmp_path: Path) -> None:
    """Wherever it was cut, the storage goes back to a commit: all that came before it and nothing that came after."""
    clock = Clock()
    storage = opened(tmp_path / "one", clock)
    for number in range(10):
        storage.commit([Closes(keys(number, number + 1))])
    shutil.copytree(tmp_path / "one", tmp_path / "whole")
    storage.close()
    found = set()
    for size in range(32, (tmp_path / "whole" / LOG).stat().st_size, 5000):
        folder = tmp_path / str(size)
        shutil.copytree(tmp_path / "whole", folder)
        os.truncate(folder / LOG, size)
        with closing(folder) as storage:
            (last,) = (n for n in range(10) if storage.totals() == {CLOSES: (n + 1) * (n + 2) / 2})
            assert storage.ids == (last + 1) * (last + 2) / 2
            assert storage.recovered is not None
            for number in range(10):
                (done,) = storage.commit([Closes(keys(number, number + 1))])
                assert len(done.duplicates) == (number + 1 if number <= last else 0)
            assert storage.totals() == {CLOSES: 55.0}
        found.add(last)
    assert len(found) > 5


def test_a_log_without_its_file(tmp_path: Path) -> None:
    """Where there was a storage, none is begun anew."""
    (tmp_path / LOG).write_bytes(b"log")
    assert refusal(tmp_path) == (
        f"cannot use {tmp_path}/{FILE}: it is missing, but its log {tmp_path}/{LOG} is there; {REMEDY}"
    )
    assert content(tmp_path) == {LOG: b"log"}


def test_the_check_of_the_ids_is_bounded(tmp_path: Path) -> None:
    """With many ids it ends after its time, and the file is used; but the counts are always checked."""
    with closing(tmp_path, max_ids=1_000_000) as storage:
        storage.commit([Closes(keys("many", 300_000))])
        storage.commit([Closes(keys("more", 70_000))])
    file = tmp_path / FILE
    assert database.inspect(file, check_time=0.001) is False
    ((page,),) = query(file, "SELECT rootpage FROM sqlite_schema WHERE name = 'counts'")
    with file.open("r+b") as damaged:
        damaged.seek((page - 1) * 4096)
        damaged.write(bytes(4096))
    with pytest.raises(sqlite3.DatabaseError, match="malformed"):
        database.inspect(file, check_time=0.001)
