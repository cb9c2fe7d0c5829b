"""The SQLite file: how it is made, what is checked before it is used, and how it is connected to.

Format 1. `ids_0` and `ids_1` are the generations of ids, `recent` has the ids that wait to be merged into them (one row
for each commit, by the turn of merging at which it came), `counts` and `targets` what is counted and since when,
`state` the rest in its one row; `in_use` says there that the last process has not closed the file.
"""

import contextlib
import os
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from exporter.storage.errors import REMEDY, StorageError, damaged
from exporter.storage.folder import check_access

FORMAT: Final = 1
APPLICATION_ID: Final = 0x57734578  # WsEx

CHECK_TIME: Final = 5.0
"""Seconds that checking the ids at open may take. Measured: 5 million take 0.4 s, or 2 s when nothing is cached."""

_MAGIC: Final = b"SQLite format 3\0"
_WAL_MAGIC: Final = (0x377F0682, 0x377F0683)
_HEADER_SIZE: Final = 100  # https://www.sqlite.org/fileformat.html section 1.3
_PAGE_SIZE: Final = 4096
_CACHE: Final = 1024  # KiB; four times as much saves nothing that can be measured, as ids are spread over all pages
_CHECKPOINT: Final = 1024  # pages in the log from which on a commit moves them into the file
_LOG_SIZE: Final = 16 << 20  # bytes that the log keeps on the disk after a burst
_SMALL_TABLES: Final = ("state", "counts", "targets", "recent")
_TABLES: Final = frozenset({*_SMALL_TABLES, "ids_0", "ids_1"})

_SCHEMA: Final = f"""
PRAGMA page_size = {_PAGE_SIZE};
PRAGMA locking_mode = EXCLUSIVE;
PRAGMA journal_mode = WAL;
PRAGMA synchronous = OFF;
BEGIN;
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {FORMAT};
CREATE TABLE ids_0(id BLOB PRIMARY KEY) STRICT, WITHOUT ROWID;
CREATE TABLE ids_1(id BLOB PRIMARY KEY) STRICT, WITHOUT ROWID;
CREATE TABLE recent(
    turn INTEGER, number INTEGER, ids BLOB NOT NULL, crc INTEGER NOT NULL, PRIMARY KEY (turn, number)
) STRICT, WITHOUT ROWID;
CREATE TABLE counts(
    target TEXT, what TEXT, key TEXT, value REAL NOT NULL, PRIMARY KEY (target, what, key)
) STRICT, WITHOUT ROWID;
CREATE TABLE targets(target TEXT PRIMARY KEY, created REAL NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE state(
    one INTEGER PRIMARY KEY CHECK (one = 1),
    in_use INTEGER NOT NULL,
    turn INTEGER NOT NULL,
    current INTEGER NOT NULL CHECK (current IN (0, 1)),
    began REAL NOT NULL,
    rows INTEGER NOT NULL,
    older_rows INTEGER NOT NULL,
    forgotten REAL NOT NULL
) STRICT;
"""
_FIRST_STATE: Final = "INSERT INTO state VALUES (1, 0, 0, 0, ?, 0, 0, 0)"


def log_of(file: Path) -> Path:
    """SQLite's write-ahead log of `file`: it has the last commits, and is there until the file is closed."""
    return file.with_name(f"{file.name}-wal")


def create(file: Path, now: float) -> None:
    """Make an empty storage, whole or not at all. Raises StorageError, sqlite3.Error or OSError."""
    if log_of(file).exists():
        raise StorageError(f"cannot use {file}: it is missing, but its log {log_of(file)} is there; {REMEDY}")
    draft = file.with_name(f"{file.name}.new")
    for leftover in (draft, log_of(draft)):
        leftover.unlink(missing_ok=True)
    os.close(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    with contextlib.closing(sqlite3.connect(draft, isolation_level=None)) as connection:
        connection.executescript(_SCHEMA)
        connection.execute(_FIRST_STATE, (now,))
        connection.execute("COMMIT")
    _sync(draft)
    draft.rename(file)
    _sync(file.parent)


def inspect(file: Path, check_time: float = CHECK_TIME) -> bool:
    """See that `file` is a whole storage of this format, without changing a byte of it. Returns whether it has a log.

    The first page, the size and every small table are always checked. The ids are, too, but for `check_time` seconds
    at most: what is not reached by then is found when a commit reads it, which then fails.
    Raises StorageError or sqlite3.Error.
    """
    check_access(file.parent, file)
    size = file.stat().st_size
    logged = _check_log(file)
    with file.open("rb") as content:
        _check_header(file, content.read(_HEADER_SIZE), size, logged)
    # Without SQLite's own locks, because those need to write; ours is held. Not to change it, it is opened read-only.
    uri = f"{file.absolute().as_uri()}?mode=ro&vfs=unix-none"
    with contextlib.closing(sqlite3.connect(uri, uri=True, isolation_level=None)) as connection:
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        _check_format(file, connection)
        for table in _SMALL_TABLES:
            _check_pages(file, connection, f"({table})")
        with _limited(connection, check_time):
            _check_pages(file, connection)
    return logged


def connect(file: Path) -> sqlite3.Connection:
    """A connection for one thread at a time and one process alone. Raises sqlite3.Error.

    Commits are durable: each waits for fsync. Memory is bounded: a cache of 1 MiB, no mapped file. The log is moved
    into the file by the commit that makes it 4 MiB long.
    """
    connection = sqlite3.connect(file, timeout=0.0, isolation_level=None, check_same_thread=False)
    try:
        for setting in (
            "locking_mode = EXCLUSIVE",
            "journal_mode = WAL",
            "synchronous = FULL",
            f"cache_size = -{_CACHE}",
            "mmap_size = 0",
            "temp_store = MEMORY",
            "secure_delete = OFF",
            "cell_size_check = ON",
            f"wal_autocheckpoint = {_CHECKPOINT}",
            f"journal_size_limit = {_LOG_SIZE}",
        ):
            connection.execute(f"PRAGMA {setting}")
    except BaseException:
        connection.close()
        raise
    return connection


def _check_header(file: Path, header: bytes, size: int, logged: bool) -> None:
    if not header:
        raise StorageError(f"cannot use {file}: it is empty; {REMEDY}")
    if not header.strip(b"\0"):
        raise StorageError(f"cannot use {file}: it begins with zeros; {REMEDY}")
    if header[: len(_MAGIC)] != _MAGIC[: len(header)]:
        raise StorageError(f"cannot use {file}: it is not a database; {REMEDY}")
    if len(header) < _HEADER_SIZE:
        raise StorageError(f"cannot use {file}: it is truncated to {size} bytes; {REMEDY}")
    if int.from_bytes(header[68:72]) != APPLICATION_ID:
        raise StorageError(f"cannot use {file}: it is another program's database; name another folder")
    expected = int.from_bytes(header[28:32]) * int.from_bytes(header[16:18])
    if size < expected and not logged:  # what is missing may be in the log
        raise StorageError(f"cannot use {file}: it is truncated to {size} of {expected} bytes; {REMEDY}")


def _check_log(file: Path) -> bool:
    """Whether there is a log. Raises StorageError when it is not one."""
    try:
        with log_of(file).open("rb") as content:
            magic = content.read(4)
    except FileNotFoundError:
        return False
    if not magic:
        return False
    if int.from_bytes(magic) not in _WAL_MAGIC:
        raise StorageError(f"cannot use {file}: its log {log_of(file)} is damaged; {REMEDY}")
    return True


def _check_format(file: Path, connection: sqlite3.Connection) -> None:
    ((version,),) = connection.execute("PRAGMA user_version").fetchall()
    if version > FORMAT:
        raise StorageError(
            f"cannot use {file}: it has format {version}, and this version knows formats up to {FORMAT};"
            " run a newer version, or name another folder"
        )
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    if version < FORMAT or not tables >= _TABLES:
        raise damaged(file, f"it has format {version} and the tables {', '.join(sorted(tables))}")


def _check_pages(file: Path, connection: sqlite3.Connection, table: str = "") -> None:
    try:
        faults = [text for (text,) in connection.execute(f"PRAGMA quick_check{table}")]
    except sqlite3.OperationalError as fault:
        if fault.sqlite_errorcode != sqlite3.SQLITE_INTERRUPT:
            raise
        return
    if faults != ["ok"]:
        raise damaged(file, faults[0])


@contextlib.contextmanager
def _limited(connection: sqlite3.Connection, seconds: float) -> Iterator[None]:
    """Whatever `connection` does within ends after so many seconds."""
    timer = threading.Timer(seconds, connection.interrupt)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
