"""The ids of reported events, on the disk: two tables, one for each generation, and what is not yet merged into them.

Everything here happens inside the caller's transaction. What is in memory changes only when the caller says that it
was committed.
"""

import sqlite3
import zlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from exporter.storage.generations import Bounds, Generations
from exporter.storage.recent import KEY_SIZE, SLICES, Recent, merged, split

CHUNK: Final = 4096
"""Ids that one statement handles. Few statements with much work each: Python's lock is free while they run."""

_MOST_RECENT: Final = 65_536  # about 7 MB
_FEWEST_PER_RECENT: Final = 16  # of all ids, these many for each that waits in memory

# Ids come as one blob, cut into pieces inside SQLite: no object of Python's for each.
_NUMBERS: Final = "CREATE TEMP TABLE numbers(n INTEGER PRIMARY KEY) STRICT"
_FILL_NUMBERS: Final = (
    "WITH RECURSIVE counter(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM counter WHERE n + 1 < ?)"
    " INSERT INTO numbers SELECT n FROM counter"
)
_PIECE: Final = f"substr(?1, n * {KEY_SIZE} + 1, {KEY_SIZE})"
_FIND: Final = " UNION ALL ".join(
    f"SELECT n FROM numbers CROSS JOIN ids_{table} ON id = {_PIECE} WHERE n < ?2" for table in (0, 1)
)
_MERGE: Final = tuple(
    f"INSERT OR IGNORE INTO ids_{table} SELECT {_PIECE} FROM numbers WHERE n < ?2" for table in (0, 1)
)
_DROP: Final = tuple(f"DELETE FROM ids_{table}" for table in (0, 1))

_LOAD_STATE: Final = "SELECT turn, current, began, rows, older_rows, forgotten, in_use FROM state"
_SAVE_STATE: Final = (
    "UPDATE state SET turn = ?, current = ?, began = ?, rows = ?, older_rows = ?, forgotten = ?, in_use = 1"
)
_LOAD_RECENT: Final = "SELECT turn, number, ids, crc FROM recent ORDER BY turn, number"
_SAVE_RECENT: Final = "INSERT INTO recent(turn, number, ids, crc) VALUES (?, ?, ?, ?)"
_TRIM_RECENT: Final = "DELETE FROM recent WHERE turn <= ?"


@dataclass(frozen=True, slots=True)
class Change:
    """What one transaction did: to be handed to `Ids.committed` when it is."""

    generations: Generations
    turns: range
    added: Collection[bytes]


class Ids:
    """Every id that is remembered."""

    def __init__(self, connection: sqlite3.Connection, bounds: Bounds) -> None:
        """Read what there is. Raises sqlite3.Error, and ValueError for content that makes no sense."""
        self._connection = connection
        self._bounds = bounds
        connection.execute(_NUMBERS)
        connection.execute(_FILL_NUMBERS, (CHUNK,))
        rows = connection.execute(_LOAD_STATE).fetchall()
        if len(rows) != 1:
            raise ValueError("its table state has not one row")
        self._turn, *numbers, in_use = rows[0]
        self._generations = Generations(*numbers)
        self.in_use: Final = bool(in_use)
        self._recent = Recent(min(_MOST_RECENT, bounds.max_ids // _FEWEST_PER_RECENT))
        self._number = 0
        for since, number, keys, crc in connection.execute(_LOAD_RECENT):
            # These rows are longer than a page, and SQLite does not notice when the rest of a row turns to zeros.
            if zlib.crc32(keys) != crc:
                raise ValueError("its table recent has broken ids")
            self._recent.add([key for key in split(keys) if not merged(key, since, self._turn)])
            self._number = number + 1

    def __len__(self) -> int:
        """How many there are."""
        return self._rows + self._generations.older_rows

    def since(self, now: float) -> float:
        """The moment (Unix seconds) since which every id is remembered."""
        return self._generations.since(now, self._bounds, self._rows)

    def known(self, keys: Collection[bytes]) -> set[bytes]:
        """Those of `keys` that are remembered; no two of them are equal. Raises sqlite3.Error."""
        unknown = self._recent.unknown(keys)
        found = set(keys).difference(unknown) if len(unknown) < len(keys) else set()
        unknown.sort()
        for chunk, pieces in _chunks(unknown):
            found.update(chunk[n] for (n,) in self._connection.execute(_FIND, (pieces, len(chunk))))
        return found

    def write(self, added: Collection[bytes], now: float) -> Change:
        """Remember new ids, none of which is known, and drop those whose time is over. Raises sqlite3.Error."""
        generations = self._generations.believed(now, self._bounds)
        expired = generations.expired(now, self._bounds)
        turns = range(self._turn, self._turn + SLICES) if expired else self._recent.turns(self._turn, len(added))
        generations = self._merge(turns, generations)
        if expired or self._rows + len(added) > self._bounds.most_rows:
            # Too many: what has not been merged stays and comes to the next, because merging it all would take long.
            self._connection.execute(_DROP[generations.older])
            generations = generations.next(now, self._bounds)
        if added:
            keys = b"".join(added)
            self._connection.execute(_SAVE_RECENT, (turns.stop, self._number, keys, zlib.crc32(keys)))
        saved = (generations.began, generations.rows, generations.older_rows, generations.forgotten)
        self._connection.execute(_SAVE_STATE, (turns.stop, generations.current, *saved))
        return Change(generations, turns, added)

    def committed(self, change: Change) -> None:
        """The transaction that made this change has been committed."""
        self._generations = change.generations
        self._turn = change.turns.stop
        self._number += 1
        self._recent.forget(change.turns)
        self._recent.add(change.added)

    @property
    def _rows(self) -> int:
        """The ids of the newer generation."""
        return self._generations.rows + self._recent.size

    def _merge(self, turns: Iterable[int], generations: Generations) -> Generations:
        rows = generations.rows
        for turn in turns:
            for chunk, pieces in _chunks(self._recent.slice(turn)):
                rows += self._connection.execute(_MERGE[generations.current], (pieces, len(chunk))).rowcount
            self._connection.execute(_TRIM_RECENT, (turn + 1 - SLICES,))
        return replace(generations, rows=rows)


def _chunks(keys: Sequence[bytes]) -> Iterator[tuple[Sequence[bytes], bytes]]:
    """`keys` in chunks, each with its ids in one piece. Raises ValueError where one is not 16 bytes long."""
    for start in range(0, len(keys), CHUNK):
        chunk = keys[start : start + CHUNK]
        pieces = b"".join(chunk)
        if len(pieces) != KEY_SIZE * len(chunk):
            raise ValueError(f"an id's key is not {KEY_SIZE} bytes long")
        yield chunk, pieces
