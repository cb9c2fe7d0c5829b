"""Entries, clocks and folders for the tests of the storage."""

import contextlib
import hashlib
import os
import resource
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from exporter.events import Count
from exporter.storage import Storage

HOUR: Final = 3600.0
WINDOW: Final = 72 * HOUR
START: Final = 1_700_000_000.0
FILE: Final = "websocket-exporter.db"
LOG: Final = f"{FILE}-wal"

CLOSES: Final = Count("chat", "closes", "1001 server")
DURATION: Final = Count("chat", "duration", "sum")

NOBODY: Final = 65534


@dataclass(slots=True)
class Clock:
    """A wall clock that somebody else sets."""

    time: float = START

    def __call__(self) -> float:
        return self.time


def key(name: object) -> bytes:
    """The digest of an id."""
    return hashlib.blake2b(str(name).encode(), digest_size=16).digest()


def keys(name: object, count: int) -> list[bytes]:
    """So many digests of their own."""
    digest = hashlib.shake_128(str(name).encode()).digest(16 * count)
    return [digest[start : start + 16] for start in range(0, len(digest), 16)]


@dataclass(frozen=True, slots=True)
class Closes:
    """A request that reports a close for each of its keys, and `anonymous` closes without an id."""

    keys: Sequence[bytes]
    anonymous: int = 0
    count: Count = CLOSES

    def counts(self, duplicates: frozenset[int]) -> Mapping[Count, float]:
        new = len(self.keys) - len(duplicates) + self.anonymous
        return {self.count: float(new)} if new else {}


@dataclass(frozen=True, slots=True)
class Adds:
    """A request of one event without an id that adds whatever it likes."""

    added: Mapping[Count, float]
    keys: Sequence[bytes] = field(default=())

    def counts(self, duplicates: frozenset[int]) -> Mapping[Count, float]:
        return self.added


def opened(folder: Path, clock: Clock | None = None, *, window: float = WINDOW, max_ids: int = 100_000) -> Storage:
    """The storage in `folder`, which the caller closes."""
    return Storage.open(folder, window=window, max_ids=max_ids, now=clock or Clock())


def closing(folder: Path, clock: Clock | None = None, *, max_ids: int = 100_000) -> contextlib.closing[Storage]:
    """The same, closed at the end of the block."""
    return contextlib.closing(opened(folder, clock, max_ids=max_ids))


def content(folder: Path) -> dict[str, bytes]:
    """Every file of the storage but its lock."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "lock"}


def query(file: Path, sql: str) -> list[tuple[object, ...]]:
    """What SQLite itself finds in a file that nobody has open."""
    with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as connection:
        return connection.execute(sql).fetchall()


@contextlib.contextmanager
def unprivileged() -> Iterator[int]:
    """As a user to whom permissions apply; the number of that user."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(NOBODY)
    try:
        yield os.geteuid()
    finally:
        os.seteuid(user)


@contextlib.contextmanager
def no_file_longer_than(size: int) -> Iterator[None]:
    """Writing beyond that fails, which is an I/O error to SQLite."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
