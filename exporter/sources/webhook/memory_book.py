"""The book of an exporter without storage: ids are remembered in memory, so many of them and for so long."""

import asyncio
import math
from collections.abc import Callable, Sequence
from typing import Final

from exporter.sources.webhook.batch import LONG, Batch, digest
from exporter.storage import Committed

MEMORY_IDS: Final = 200_000
"""Ids remembered without storage."""

GENERATIONS: Final = 3
"""Into which these are divided. Sets of that size take 2 MiB and grow for the last time at a third of it, quickly."""

LONG_ID: Final = 64
"""Characters of an identity from which on its digest is remembered instead: 200,000 take 60 MiB at most."""

_NONE: Final[frozenset[int]] = frozenset()


class MemoryBook:
    """Remembers ids in generations, of which the oldest is forgotten as a whole when the newest is full or old."""

    def __init__(self, window: float, now: Callable[[], float], limit: int = MEMORY_IDS) -> None:
        self._window = window
        self._now = now
        self._most = limit // GENERATIONS
        self._generations: list[set[str]] = [set() for _ in range(GENERATIONS)]  # the newest first
        self._began = [-math.inf] * GENERATIONS
        self._ends = now() + self._lasts
        self._forgotten: list[set[str]] = []

    @property
    def ids(self) -> int:
        """How many ids are remembered."""
        return sum(map(len, self._generations))

    @property
    def since(self) -> float:
        """The Unix time since which every id is remembered."""
        return max(self._now() - self._window, self._began[-1])

    async def enter(self, batch: Batch) -> Committed | None:
        """Count a batch, all of it or nothing; None where it has to be judged again."""
        keys = await _keys_in_turns(batch.ids)
        if len(batch.kinds) > LONG:
            await asyncio.sleep(0)
        # Ids from before the oldest generation are forgotten, and it may have judged such events acceptable.
        return None if self._began[-1] > batch.since else self._enter(batch, keys)

    def enter_at_once(self, batch: Batch) -> Committed:
        """Count a batch. Never raises: nothing else happens in between."""
        return self._enter(batch, _keys(batch.ids))

    def _enter(self, batch: Batch, keys: Sequence[str]) -> Committed:
        # Before anything is added: what was judged acceptable was so by what is known now.
        if len(self._generations[0]) + len(keys) > self._most or self._now() > self._ends:
            self._turn_after(keys)
        if self._forgotten:
            self._let_go(len(keys))
        duplicates = self._add(keys)
        return Committed(duplicates, batch.counts(duplicates))

    @property
    def _lasts(self) -> float:
        """Seconds after which a generation is old: those behind the newest then span the window."""
        return self._window / (GENERATIONS - 1)

    def _add(self, keys: Sequence[str]) -> frozenset[int]:
        """Remember these keys. Returns the positions of those that were known, or came before among them."""
        current, previous, oldest = self._generations
        if current.isdisjoint(keys) and previous.isdisjoint(keys) and oldest.isdisjoint(keys):
            size = len(current)
            current.update(keys)
            if len(current) - size == len(keys):
                return _NONE
            first = {one: position for position, one in reversed(list(enumerate(keys)))}
            return frozenset(position for position, one in enumerate(keys) if first[one] < position)
        duplicates = []
        for position, one in enumerate(keys):
            if one in current or one in previous or one in oldest:
                duplicates.append(position)
            else:
                current.add(one)
        return frozenset(duplicates)

    def _turn_after(self, keys: Sequence[str]) -> None:
        """Begin a new generation, and take along those of `keys` that only the one to be forgotten knows."""
        *kept, oldest = self._generations
        self._forgotten.append(oldest)
        self._generations = [oldest.intersection(keys), *kept]
        self._began = [self._now(), *self._began[:-1]]
        self._ends = self._began[0] + self._lasts

    def _let_go(self, number: int) -> None:
        """Give back so many of the ids that were forgotten: all at once would take milliseconds."""
        forgotten = self._forgotten[-1]
        for _ in range(min(number, len(forgotten))):
            forgotten.pop()
        if not forgotten:
            self._forgotten.pop()


def _keys(ids: Sequence[str]) -> Sequence[str]:
    """Identities as a memory book knows them: a sender chooses how long those are."""
    if not ids or max(map(len, ids)) <= LONG_ID:
        return ids
    return [digest(one).hexdigest() if len(one) > LONG_ID else one for one in ids]


async def _keys_in_turns(ids: Sequence[str]) -> Sequence[str]:
    """The same; where some are long, so that the relay gets its turn in between."""
    if len(ids) <= LONG or max(map(len, ids)) <= LONG_ID:
        return _keys(ids)
    keys: list[str] = []
    for start in range(0, len(ids), LONG):
        keys += _keys(ids[start : start + LONG])
        await asyncio.sleep(0)
    return keys
