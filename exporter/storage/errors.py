"""What can go wrong with the storage, each fault as one sentence for the operator."""

import contextlib
import errno
import os
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

REMEDY: Final = "move it away to begin anew, or restore a backup"

NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT)
_PROBE: Final = bytes(4096)


class StorageError(Exception):
    """The storage cannot be used; the text is one sentence that names the folder or file and says why."""


class StorageHeld(StorageError):
    """Another process has it open; it may let go."""


class StorageFull(StorageError):
    """There is no room on the disk, or none left for this user. Nothing of the commit is stored or counted."""


class CommitFailed(StorageError):
    """A commit failed for another reason. Nothing of it is counted."""


@contextlib.contextmanager
def opening(file: Path) -> Iterator[None]:
    """Turns what SQLite and the system say while `file` is opened into a StorageError."""
    try:
        yield
    except sqlite3.Error as fault:
        if _code(fault) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise StorageHeld(f"cannot use {file}: another process has it open") from fault
        if is_full(fault, file.parent):
            raise StorageFull(f"cannot use {file}: its disk is full") from fault
        if _code(fault) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            raise damaged(file, str(fault)) from fault
        raise StorageError(f"cannot use {file}: {fault}") from fault
    except OSError as fault:
        kind = StorageFull if fault.errno in NO_ROOM else StorageError
        raise kind(f"cannot use {file}: {(fault.strerror or str(fault)).lower()}") from fault


@contextlib.contextmanager
def committing(file: Path) -> Iterator[None]:
    """Turns what SQLite and the system say while something is committed to `file` into StorageFull or CommitFailed."""
    try:
        yield
    except sqlite3.Error as fault:
        if is_full(fault, file.parent):
            raise StorageFull(f"cannot write {file}: its disk is full") from fault
        raise CommitFailed(f"cannot write {file}: {fault}") from fault
    except MemoryError as fault:
        raise CommitFailed(f"cannot write {file}: out of memory") from fault


def damaged(file: Path, how: str) -> StorageError:
    """The error for a file whose content is wrong; `how` may have several lines."""
    return StorageError(f"cannot use {file}: it is damaged ({' '.join(how.split())}); {REMEDY}")


def is_full(fault: sqlite3.Error, folder: Path) -> bool:
    """Whether the fault is a lack of room. To SQLite a quota that is used up is an I/O error like any other."""
    return _code(fault) == sqlite3.SQLITE_FULL or (_code(fault) == sqlite3.SQLITE_IOERR and no_room(folder))


def no_room(folder: Path) -> bool:
    """Whether a page more would not fit into `folder`, as far as this user is concerned."""
    try:
        with tempfile.TemporaryFile(dir=folder, buffering=0) as probe:
            probe.write(_PROBE)
            os.fsync(probe.fileno())
    except OSError as fault:
        return fault.errno in NO_ROOM
    return False


def _code(fault: sqlite3.Error) -> int:
    """SQLite's primary result code; 0 for faults that Python's module found by itself."""
    code: int = getattr(fault, "sqlite_errorcode", 0)
    return code & 0xFF
