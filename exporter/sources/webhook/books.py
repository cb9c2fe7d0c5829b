"""Where reported events are entered, each once: a book remembers their ids.

A request is one entry: all its acceptable events are counted, or none. The book is in memory, or in the storage, where
it outlives the process.
"""

import asyncio
import hashlib
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from itertools import compress
from typing import Final, NamedTuple, Protocol

import structlog

from exporter.events import Count, Rejection
from exporter.reports import Report
from exporter.reports.tally import Kind, Refusal, add_up
from exporter.storage import Committed, Storage, StorageError

MEMORY_IDS: Final = 200_000
"""Ids remembered without storage."""

GENERATIONS: Final = 3
"""Into which these are divided. Sets of that size take 2 MiB and grow for the last time at a third of it, quickly."""

LONG_ID: Final = 64
"""Characters of an identity from which on its digest is remembered instead: 200,000 take 60 MiB at most."""

LONG: Final = 250
"""Events from which on a request is entered in steps, so that the relay gets its turn in between."""

GROUP_EVENTS: Final = 5_000
"""Events that are committed together at most: those behind them must not wait for ever."""

TOLD_AGAIN: Final = 10.0
"""Seconds after which the log says again why commits fail."""

CLOCK_STEP: Final = 0.001
"""Seconds by which the clock may be set back between two readings without ids seeming to have been forgotten."""

_NOTHING: Final = hashlib.blake2b(digest_size=16)
_NOBODY: Final[frozenset[str]] = frozenset()
_NONE: Final[frozenset[int]] = frozenset()

_log = structlog.get_logger(__name__)


class Noted(NamedTuple):
    """An event that tells of a client, or of a message that was refused: its place, and the target it counts for."""

    place: int
    target: str
    report: Report


class Batch:
    """The events of one request, as they were judged, and as a book enters them.

    In columns, so that reports need not be kept. An acceptable event has a place: `kinds` and `durations` have one item
    for each, `ids` the identities of those that have one, `unnamed` the places of those that have none, `refusals` the
    places of those that tell of a refused message, with it, and `noted` what has to be told of clients. `refused` has
    the index in the request of each event that is not acceptable, and why.

    `opens` are the targets of which opens are among them, or were counted before: a book may know of more.
    `since` (Unix seconds) is what the times of events were held against, at the moment `judged` of the same clock.
    """

    __slots__ = (
        "_all",
        "durations",
        "ids",
        "judged",
        "kinds",
        "noted",
        "opens",
        "refusals",
        "refused",
        "since",
        "unnamed",
    )

    def __init__(self, since: float, judged: float) -> None:
        self._all: Mapping[Count, float] | None = None
        self.since = since
        self.judged = judged
        self.kinds: list[Kind] = []
        self.durations: list[float | None] = []
        self.ids: list[str] = []
        self.unnamed: list[int] = []
        self.refusals: list[tuple[int, Refusal]] = []
        self.noted: list[Noted] = []
        self.refused: list[tuple[int, Rejection]] = []
        self.opens: Set[str] = _NOBODY

    @property
    def events(self) -> int:
        """How many events there are by now, each in a place or refused."""
        return len(self.kinds) + len(self.refused)

    def refuse(self, reason: Rejection) -> None:
        """Take note that the next event is not acceptable."""
        self.refused.append((self.events, reason))

    def opened(self, targets: Set[str]) -> None:
        """Learn of targets of which opens are counted."""
        self.opens = self.opens | targets if self.opens else targets

    @property
    def keys(self) -> list[bytes]:
        """A digest of each id, 16 bytes long: as good as the id itself, and short."""
        return [_digest(one).digest() for one in self.ids]

    @property
    def places(self) -> Sequence[int]:
        """The place of the event of each of `ids`."""
        places = range(len(self.kinds))
        if not self.unnamed:
            return places
        unnamed = frozenset(self.unnamed)
        return [place for place in places if place not in unnamed]

    def counts(self, duplicates: frozenset[int] = frozenset()) -> Mapping[Count, float]:
        """What the events add, without those whose ids are at these positions of `ids`."""
        if duplicates:
            places = self.places
            left_out = {places[position] for position in duplicates}
            kept = [place not in left_out for place in range(len(self.kinds))]
            refusals = [refusal for place, refusal in self.refusals if place not in left_out]
            return add_up([*compress(self.kinds, kept)], [*compress(self.durations, kept)], refusals, self.opens)
        if self._all is None:
            refusals = [refusal for _, refusal in self.refusals] if self.refusals else []
            self._all = add_up(self.kinds, self.durations, refusals, self.opens)
        return self._all


class Book(Protocol):
    """Where batches are entered, and ids remembered."""

    @property
    def ids(self) -> int:
        """How many ids are remembered."""
        ...

    @property
    def since(self) -> float:
        """The Unix time since which every id is remembered."""
        ...

    def enter_at_once(self, batch: Batch) -> Committed | None:
        """Count a batch without waiting; None where that cannot be, and then nothing is counted."""
        ...

    async def enter(self, batch: Batch) -> Committed | None:
        """Count a batch, all of it or nothing. Raises StorageError.

        None where ids have been forgotten since it was judged: nothing is counted, and it has to be judged again.
        """
        ...


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
    return [_digest(one).hexdigest() if len(one) > LONG_ID else one for one in ids]


async def _keys_in_turns(ids: Sequence[str]) -> Sequence[str]:
    """The same; where some are long, so that the relay gets its turn in between."""
    if len(ids) <= LONG or max(map(len, ids)) <= LONG_ID:
        return _keys(ids)
    keys: list[str] = []
    for start in range(0, len(ids), LONG):
        keys += _keys(ids[start : start + LONG])
        await asyncio.sleep(0)
    return keys


def _digest(identity: str) -> hashlib.blake2b:
    """As good as the identity itself, and short: 16 bytes."""
    digest = _NOTHING.copy()  # in two thirds of the time that a new one takes
    digest.update(identity.encode())
    return digest


class StorageBook:
    """Enters batches in the storage, from a thread of its own: what arrives while a commit runs goes into the next.

    `failed` is called for each commit that failed; `now` is the wall clock of the storage.
    """

    def __init__(self, storage: Storage, failed: Callable[[], None], now: Callable[[], float] = time.time) -> None:
        self._storage = storage
        self._failed = failed
        self._now = now
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="storage")
        self._waiting: list[tuple[Batch, asyncio.Future[Committed | None]]] = []
        self._wanted = asyncio.Event()
        self._settled = asyncio.Event()
        self._settled.set()
        self._opened: Set[str] = frozenset()
        self._silent_until = float("-inf")

    @property
    def ids(self) -> int:
        """How many ids are remembered."""
        return self._storage.ids

    @property
    def since(self) -> float:
        """The Unix time since which every id is remembered."""
        return self._storage.since

    def enter_at_once(self, batch: Batch) -> None:
        """Nothing is on disk at once."""

    async def enter(self, batch: Batch) -> Committed | None:
        """Count a batch; returns once it is on disk, or None where it has to be judged again. Raises StorageError."""
        future: asyncio.Future[Committed | None] = asyncio.get_running_loop().create_future()
        self._waiting.append((batch, future))
        self._settled.clear()
        self._wanted.set()
        try:
            return await future
        finally:
            # Its exception's traceback refers to this frame: the batch would be kept until garbage is collected, which
            # is seldom.
            del future

    async def settled(self) -> None:
        """Wait until no batch waits for a commit any more."""
        await self._settled.wait()

    async def born(self, targets: Iterable[str]) -> Mapping[str, float]:
        """Remember since when new targets are counted. Returns the Unix time of each. Raises StorageError."""

        def remember() -> Mapping[str, float]:
            self._storage.born(targets)
            return self._storage.created()

        return await asyncio.get_running_loop().run_in_executor(self._thread, remember)

    async def run(self) -> None:
        """Commit what waits, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await self._wanted.wait()
            group = self._take()
            group = [(batch, future) for batch, future in group if not self._stale(batch, future)]
            batches = [batch for batch, _ in group]
            opened = _tell_of_opens(batches, self._opened)
            try:
                committed = await loop.run_in_executor(self._thread, self._storage.commit, batches)
            except StorageError as error:
                self._failed()
                self._tell(error)
                for _, future in group:
                    _settle(future, error)
            else:
                self._opened = opened
                for (_, future), result in zip(group, committed, strict=True):
                    _settle(future, result)
            if not self._waiting:
                self._settled.set()

    def _stale(self, batch: Batch, future: "asyncio.Future[Committed | None]") -> bool:
        """Whether ids were dropped while the batch waited, which then has to be judged anew.

        But for those that time itself made too old: the storage keeps all a while longer than the window. `since` is
        read before `now`, as the batch's was before `judged`: so time between them is no reason. Within one commit
        nothing is dropped before all of it has been compared.
        """
        since, now = self._storage.since, self._now()
        if since - batch.since <= now - batch.judged + CLOCK_STEP:
            return False
        _settle(future, None)
        return True

    def _tell(self, error: StorageError) -> None:
        """Log why commits fail: a sender that tries again and again must not fill the log."""
        now = time.monotonic()
        if now >= self._silent_until:
            self._silent_until = now + TOLD_AGAIN
            _log.error("the storage cannot be written, reported events are refused", reason=str(error))

    def close(self) -> None:
        """Let go of the storage, after the commit under way."""
        self._thread.submit(self._storage.close).result()
        self._thread.shutdown()

    def _take(self) -> list[tuple[Batch, asyncio.Future[Committed | None]]]:
        """The batches to be committed next."""
        events = taken = 0
        while taken < len(self._waiting) and (not taken or events < GROUP_EVENTS):
            events += len(self._waiting[taken][0].kinds)
            taken += 1
        group, self._waiting = self._waiting[:taken], self._waiting[taken:]
        if not self._waiting:
            self._wanted.clear()
        return group


def _tell_of_opens(batches: Iterable[Batch], opened: Set[str]) -> Set[str]:
    """Have each batch know of the opens before it: they come to light only when the commit is done.

    `opened` are the targets of those in earlier commits; returns them with those in `batches`.
    """
    for batch in batches:
        if not batch.opens <= opened:
            opened = opened | batch.opens
        batch.opened(opened)
    return opened


def _settle(future: "asyncio.Future[Committed | None]", result: Committed | StorageError | None) -> None:
    if future.done():  # whoever asked has been cancelled; what was committed counts all the same
        return
    if isinstance(result, StorageError):
        future.set_exception(result)
    else:
        future.set_result(result)
