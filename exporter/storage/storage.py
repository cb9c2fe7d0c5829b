"""Events are counted once: their ids and what they add are committed together, before anyone is told so."""

import contextlib
import sqlite3
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Final, NamedTuple, Protocol

from exporter.events import Count
from exporter.storage import database
from exporter.storage.errors import CommitFailed, committing, damaged, opening
from exporter.storage.folder import FILE, Lock, prepare
from exporter.storage.generations import Bounds
from exporter.storage.ids import Ids

_ROWS: Final = 64  # of counts in one statement

_LOAD_COUNTS: Final = "SELECT target, what, key, value FROM counts"
_LOAD_TARGETS: Final = "SELECT target, created FROM targets"
_SAVE_TARGET: Final = "INSERT INTO targets(target, created) VALUES (?, ?)"
_CLOSED: Final = "UPDATE state SET in_use = 0"
_CHECKPOINT: Final = "PRAGMA wal_checkpoint(PASSIVE)"


class Entry(Protocol):
    """The events of one request."""

    @property
    def keys(self) -> Sequence[bytes]:
        """For each event that has an id, in order, a 16-byte digest of its target, source and id."""
        ...

    def counts(self, duplicates: frozenset[int]) -> Mapping[Count, float]:
        """What the events add to the counts, without those at these positions of `keys`."""
        ...


class Committed(NamedTuple):
    """What became of an entry: positions in its `keys` that were known already, and what the others added."""

    duplicates: frozenset[int]
    counts: Mapping[Count, float]


class Storage:
    """The storage of one process, which holds its lock. To be used by one thread at a time; `ids` and `since` by any.

    A commit that fails changes nothing, here or in memory, and the next may succeed: after a full disk there is
    nothing to be done but to make room. (When the very last step of a commit fails, fsync, and then the process dies,
    the commit may be there after all: its ids and its counts, both.)

    `recovered` is a sentence when the last process did not close it: what was committed then is here, too.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        lock: Lock,
        file: Path,
        bounds: Bounds,
        now: Callable[[], float],
        logged: bool,
    ) -> None:
        """For `open`."""
        self._connection = connection
        self._lock = lock
        self._file = file
        self._now = now
        self._ids = Ids(connection, bounds)
        self._totals = {Count(*labels): value for *labels, value in connection.execute(_LOAD_COUNTS)}
        self._created: dict[str, float] = dict(connection.execute(_LOAD_TARGETS))
        self._identity = _identity(file)
        self._marked = False
        self._torn = False
        self.recovered: Final = _recovered(file, self._ids.in_use, logged)

    @classmethod
    def open(cls, folder: Path, *, window: float, max_ids: int, now: Callable[[], float]) -> "Storage":
        """The storage in `folder`, which is created if only it is missing, and so is its file.

        Ids are remembered for `window` seconds at least, unless there are more than `max_ids` of them; each takes about
        25 bytes on the disk, and the log another 16 MiB at most. `now` is the wall clock, in Unix seconds. What is
        checked before a file is used, `database.inspect` says.
        Raises StorageHeld while another process has it open, and StorageError with what to do when the folder cannot
        be written or the file not be used; that is then left as it is.
        """
        prepare(folder)
        file = folder / FILE
        with contextlib.ExitStack() as undo, opening(file):
            lock = Lock(folder)
            undo.callback(lock.release)
            if not file.exists():
                database.create(file, now())
            logged = database.inspect(file)
            connection = database.connect(file)
            undo.callback(connection.close)
            try:
                storage = cls(connection, lock, file, Bounds(window, max_ids), now, logged)
            except (TypeError, ValueError) as fault:
                raise damaged(file, str(fault)) from fault
            undo.pop_all()
        return storage

    @property
    def ids(self) -> int:
        """How many ids are remembered."""
        return len(self._ids)

    @property
    def since(self) -> float:
        """The moment (Unix seconds) since which every id is remembered; whether an older event was counted is unknown.

        That is `window` ago, or later when there were too many ids.
        """
        return self._ids.since(self._now())

    def totals(self) -> Mapping[Count, float]:
        """Every count, as of the last commit."""
        return dict(self._totals)

    def created(self) -> Mapping[str, float]:
        """When the counts of each target began (Unix seconds)."""
        return dict(self._created)

    def born(self, targets: Iterable[str]) -> None:
        """Note that the counts of these targets begin now, unless they did before. Raises as `commit` does."""
        now = self._now()
        new = {target: now for target in targets if target not in self._created}
        if new:
            with committing(self._file):
                self._write((), {}, new)

    def commit(self, entries: Sequence[Entry]) -> list[Committed]:
        """Count these entries, all in one transaction, and remember their ids; what became of each, in order.

        An event is a duplicate if its key is remembered, or came earlier in the same entry or in one before it.
        Raises StorageFull or CommitFailed; then none of them is counted and none of their ids remembered.
        """
        with committing(self._file):
            duplicates, added = self._sift(entries)
            done = [
                Committed(positions, entry.counts(positions))
                for entry, positions in zip(entries, duplicates, strict=True)
            ]
            totals = self._add(done)
            if added or totals:
                self._write(added, totals, {})
        return done

    def close(self) -> None:
        """Move everything into one file and let go of it. What was committed is safe without it, too."""
        self._empty_log()
        with contextlib.suppress(sqlite3.Error):  # no room: then the log stays and is read when it is opened again
            self._connection.execute(_CLOSED)
        self._connection.close()
        self._lock.release()

    def _sift(self, entries: Sequence[Entry]) -> tuple[list[frozenset[int]], list[bytes]]:
        """The positions of each entry's duplicates, and the keys that are new."""
        keys_of_each = [entry.keys for entry in entries]  # which are worked out only now
        keys = dict.fromkeys(chain.from_iterable(keys_of_each))
        seen = self._ids.known(keys)
        if not seen and len(keys) == sum(map(len, keys_of_each)):
            return [frozenset()] * len(entries), list(keys)
        added = [key for key in keys if key not in seen]
        duplicates = []
        for keys_of_one in keys_of_each:
            again = []
            for position, key in enumerate(keys_of_one):
                if key in seen:
                    again.append(position)
                seen.add(key)
            duplicates.append(frozenset(again))
        return duplicates, added

    def _add(self, done: Iterable[Committed]) -> dict[Count, float]:
        """The new values of the counts that grow."""
        totals: dict[Count, float] = {}
        for committed in done:
            for count, by in committed.counts.items():
                before = totals[count] if count in totals else self._totals.get(count, 0.0)
                totals[count] = before + by
        return totals

    def _write(self, added: Collection[bytes], totals: Mapping[Count, float], created: Mapping[str, float]) -> None:
        if self._torn:
            raise CommitFailed(f"cannot write {self._file}: memory ran out after a commit; restart to go on with it")
        if _identity(self._file) != self._identity:
            raise CommitFailed(f"cannot write {self._file}: it was moved or removed while in use")
        with self._transaction():
            change = self._ids.write(added, self._now())
            self._save_counts(totals)
            for target in created.items():
                self._connection.execute(_SAVE_TARGET, target)
        try:
            self._ids.committed(change)
            self._totals.update(totals)
            self._created.update(created)
        except BaseException:
            # It is on the disk, but not here: another commit would overwrite it.
            self._torn = True
            raise
        if not self._marked:
            # From here on the file itself says that it is in use, so that a log that vanishes is missed.
            self._marked = True
            self._empty_log()

    def _save_counts(self, totals: Mapping[Count, float]) -> None:
        rows = [(*count, value) for count, value in totals.items()]
        for start in range(0, len(rows), _ROWS):
            chunk = rows[start : start + _ROWS]
            places = ", ".join(["(?, ?, ?, ?)"] * len(chunk))
            values = [value for row in chunk for value in row]
            self._connection.execute(f"REPLACE INTO counts(target, what, key, value) VALUES {places}", values)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:  # of some faults SQLite has rolled back by itself
                self._connection.execute("ROLLBACK")
            # When the disk is full, the log may have room for the next commit once it begins anew.
            self._empty_log()
            raise

    def _empty_log(self) -> None:
        """Move what is in the log into the file, as every so many commits do anyway; it may fail as they do."""
        with contextlib.suppress(sqlite3.Error):
            self._connection.execute(_CHECKPOINT).fetchall()


def _identity(file: Path) -> tuple[int, int] | None:
    """Which file it is, whatever its name; None when there is none."""
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _recovered(file: Path, in_use: bool, logged: bool) -> str | None:
    if logged:
        return f"{file} was not closed by the last process: recovered to its last commit"
    if in_use:
        return f"{file} was not closed by the last process, and its log is gone: the last commits may be missing"
    return None
