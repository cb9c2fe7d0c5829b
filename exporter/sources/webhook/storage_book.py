"""The book of an exporter with storage: what it has answered is on disk."""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Set
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import structlog

from exporter.sources.webhook.batch import Batch
from exporter.storage import Committed, Storage, StorageError

GROUP_EVENTS: Final = 5_000
"""Events that are committed together at most: those behind them must not wait for ever."""

TOLD_AGAIN: Final = 10.0
"""Seconds after which the log says again why commits fail."""

CLOCK_STEP: Final = 0.001
"""Seconds by which the clock may be set back between two readings without ids seeming to have been forgotten."""

_log = structlog.get_logger(__name__)


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
