"""Where reported events are entered, each once: a book remembers their ids.

A request is one entry: all its acceptable events are counted, or none. The book is in memory, or in the storage, where
it outlives the process.
"""

import asyncio
import hashlib
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, Protocol

import structlog

from exporter.events import Count
from exporter.reports import Report
from exporter.storage import Committed, Storage, StorageError

MEMORY_IDS: Final = 200_000
"""Ids remembered without storage."""

SHARDS: Final = 64

LONG_ID: Final = 64
"""Characters of an identity from which on its digest is remembered instead: 200,000 take 60 MiB at most."""

GROUP_EVENTS: Final = 5_000
"""Events that are committed together at most: those behind them must not wait for ever."""

TOLD_AGAIN: Final = 10.0
"""Seconds after which the log says again why commits fail."""

CLOCK_STEP: Final = 0.001
"""Seconds that two readings of the clock may be apart."""

_DIGEST: Final = 16

_log = structlog.get_logger(__name__)


class Stale(Exception):
    """Ids have been forgotten since a batch was judged: it has to be judged again."""


class Batch:
    """The acceptable events of one request, as a book enters them.

    `ids` are the identities of those events that have one, in order; `reports[keyed[n]]` is the event of `ids[n]`.
    `since` (Unix seconds) is what the times of events were held against, at the moment `judged` of the same clock.
    Those that name no target are `otherwise`'s.
    """

    __slots__ = ("_add_up", "_all", "ids", "judged", "keyed", "otherwise", "reports", "since")

    def __init__(
        self,
        add_up: Callable[[Iterable[Report]], Mapping[Count, float]],
        since: float,
        judged: float,
        otherwise: str = "",
    ) -> None:
        self._add_up = add_up
        self.otherwise = otherwise
        self.since = since
        self.judged = judged
        self._all: Mapping[Count, float] | None = None
        self.reports: list[Report] = []
        self.ids: list[str] = []
        self.keyed: list[int] = []

    @property
    def keys(self) -> list[bytes]:
        """A digest of each id, 16 bytes long: as good as the id itself, and short."""
        return [hashlib.blake2b(one.encode(), digest_size=_DIGEST).digest() for one in self.ids]

    def counts(self, duplicates: frozenset[int] = frozenset()) -> Mapping[Count, float]:
        """What the events add, without those whose ids are at these positions of `ids`."""
        if duplicates:
            left_out = {self.keyed[position] for position in duplicates}
            return self._add_up(report for index, report in enumerate(self.reports) if index not in left_out)
        if self._all is None:
            self._all = self._add_up(self.reports)
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

    async def enter(self, batch: Batch) -> Committed:
        """Count a batch, all of it or nothing. Raises StorageError, or Stale."""
        ...


class MemoryBook:
    """Remembers ids in two generations, of which the older is forgotten as a whole when the newer is full or old.

    Both are cut into SHARDS by hash: a set of a hundred thousand takes milliseconds to grow, and to be given back.
    """

    def __init__(self, window: float, now: Callable[[], float], limit: int = MEMORY_IDS) -> None:
        self._window = window
        self._now = now
        self._most = limit // 2
        self._current = _shards()
        self._previous = _shards()
        self._forgotten: list[set[str]] = []
        self._size = self._previous_size = 0
        self._began = self._previous_began = -math.inf
        self._ends = now() + window

    @property
    def ids(self) -> int:
        """How many ids are remembered."""
        return self._size + self._previous_size

    @property
    def since(self) -> float:
        """The Unix time since which every id is remembered."""
        return max(self._now() - self._window, self._previous_began)

    async def enter(self, batch: Batch) -> Committed:
        """As `enter_at_once`."""
        return self.enter_at_once(batch)

    def enter_at_once(self, batch: Batch) -> Committed:
        """Count a batch. Never raises: nothing else happens in between."""
        ids = batch.ids
        # Before anything is added: what was judged acceptable was so by what is known now.
        if self._size + len(ids) > self._most or self._now() > self._ends:
            self._turn_after(ids)
        current, previous = self._current, self._previous
        duplicates = []
        repeated = 0
        for position, one in enumerate(ids):
            if len(one) > LONG_ID:
                one = _digest(one)
            shard = hash(one) % SHARDS
            known = current[shard]
            size = len(known)
            known.add(one)  # looked up once: in a large set that is what costs
            if len(known) == size:
                duplicates.append(position)
                repeated += 1
            elif one in previous[shard]:
                duplicates.append(position)
        self._size += len(ids) - repeated
        if self._forgotten:
            self._forgotten.pop()
        return Committed(frozenset(duplicates), batch.counts(frozenset(duplicates))) if duplicates else _new(batch)

    def _turn_after(self, ids: Sequence[str]) -> None:
        """Begin a new generation, and take along those of `ids` that only the one to be forgotten knows."""
        spelled = (_digest(one) if len(one) > LONG_ID else one for one in ids)
        known = [one for one in spelled if one in self._previous[hash(one) % SHARDS]]
        self._forgotten += self._previous
        self._previous, self._current = self._current, _shards()
        self._previous_size, self._size = self._size, len(known)
        self._previous_began, self._began = self._began, self._now()
        self._ends = self._began + self._window
        for one in known:
            self._current[hash(one) % SHARDS].add(one)


def _digest(identity: str) -> str:
    """As good as the identity itself, and short: a sender chooses how long those are."""
    return hashlib.blake2b(identity.encode(), digest_size=_DIGEST).hexdigest()


def _shards() -> list[set[str]]:
    return [set() for _ in range(SHARDS)]


_NONE: Final[frozenset[int]] = frozenset()


def _new(batch: Batch) -> Committed:
    """What becomes of a batch that nothing is known of."""
    return Committed(_NONE, batch.counts())


class StorageBook:
    """Enters batches in the storage, from a thread of its own: what arrives while a commit runs goes into the next.

    `failed` is called for each commit that failed; `now` is the wall clock of the storage.
    """

    def __init__(self, storage: Storage, failed: Callable[[], None], now: Callable[[], float] = time.time) -> None:
        self._storage = storage
        self._failed = failed
        self._now = now
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="storage")
        self._waiting: list[tuple[Batch, asyncio.Future[Committed]]] = []
        self._wanted = asyncio.Event()
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

    async def enter(self, batch: Batch) -> Committed:
        """Count a batch; returns once it is on disk. Raises StorageError, or Stale."""
        future: asyncio.Future[Committed] = asyncio.get_running_loop().create_future()
        self._waiting.append((batch, future))
        self._wanted.set()
        return await future

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
            try:
                committed = await loop.run_in_executor(self._thread, self._storage.commit, batches)
            except StorageError as error:
                self._failed()
                self._tell(error)
                for _, future in group:
                    _settle(future, error)
            else:
                for (_, future), result in zip(group, committed, strict=True):
                    _settle(future, result)

    def _stale(self, batch: Batch, future: "asyncio.Future[Committed]") -> bool:
        """Whether ids were dropped while the batch waited, which then has to be judged anew.

        Within one commit nothing is dropped before all of it has been compared.
        """
        passed = self._now() - batch.judged
        if self._storage.since - batch.since <= passed + CLOCK_STEP:
            return False
        if not future.done():
            future.set_exception(Stale())
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

    def _take(self) -> list[tuple[Batch, asyncio.Future[Committed]]]:
        """The batches to be committed next."""
        events = taken = 0
        while taken < len(self._waiting) and (not taken or events < GROUP_EVENTS):
            events += len(self._waiting[taken][0].reports)
            taken += 1
        group, self._waiting = self._waiting[:taken], self._waiting[taken:]
        if not self._waiting:
            self._wanted.clear()
        return group


def _settle(future: "asyncio.Future[Committed]", result: Committed | StorageError) -> None:
    if future.done():  # whoever asked has been cancelled; what was committed counts all the same
        return
    if isinstance(result, StorageError):
        future.set_exception(result)
    else:
        future.set_result(result)
