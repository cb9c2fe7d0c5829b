"""The newest ids, in memory, until they are merged into the big table of their generation.

Ids are digests, so each belongs on a random page of that table, and a commit of a thousand would write nearly a
thousand pages to the disk. Here they wait instead, by slice of the range of ids; when there are too many, the next
slice in turn is merged: ids that lie side by side. On the disk they wait in the table `recent`, one row for each
commit. With a million ids stored this writes a tenth of the bytes and takes less than half of the CPU time.
"""

from collections.abc import Collection, Iterable, Iterator
from typing import Final

KEY_SIZE: Final = 16
"""Bytes of an id: a digest."""
SLICES: Final = 64
_SHIFT: Final = 2  # the number of a slice is the first six bits of its ids


class Recent:
    """Ids that no table has. Holds at most `limit`, and what the last commit brought."""

    def __init__(self, limit: int) -> None:
        self.limit: Final = limit
        self.size = 0
        self._slices: list[set[bytes]] = [set() for _ in range(SLICES)]

    def unknown(self, keys: Iterable[bytes]) -> list[bytes]:
        """Those of `keys` that are not here, in order."""
        slices = self._slices
        return [key for key in keys if key not in slices[key[0] >> _SHIFT]]

    def add(self, keys: Collection[bytes]) -> None:
        """Take new ids: none that are here already."""
        slices = self._slices
        for key in keys:
            slices[key[0] >> _SHIFT].add(key)
        self.size += len(keys)

    def slice(self, turn: int) -> list[bytes]:
        """The ids of the slice whose turn it is, in ascending order."""
        return sorted(self._slices[turn % SLICES])

    def forget(self, turns: Iterable[int]) -> None:
        """Let go of the slices of these turns: they have been merged."""
        for turn in turns:
            self.size -= len(self._slices[turn % SLICES])
            self._slices[turn % SLICES] = set()

    def turns(self, turn: int, coming: int) -> range:
        """The turns due, from `turn` on, so that as many ids as are `coming` fit below the limit, if they do at all."""
        size = self.size + coming
        end = turn
        while size > self.limit and end < turn + SLICES:
            size -= len(self._slices[end % SLICES])
            end += 1
        return range(turn, end)


def split(keys: bytes) -> Iterator[bytes]:
    """The ids that `keys` is made of."""
    return (keys[start : start + KEY_SIZE] for start in range(0, len(keys), KEY_SIZE))


def merged(key: bytes, since: int, turn: int) -> bool:
    """Whether an id that came when it was the turn of `since` has been merged before `turn`."""
    return ((key[0] >> _SHIFT) - since) % SLICES < turn - since
