"""The webhook, assembled: its storage, its book, what it counts, its pages and its listener."""

import asyncio
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import structlog

from exporter.closecodes import Vocabulary
from exporter.config import DEFAULT_TARGET, Address, Config
from exporter.events import Count, Event, Sink
from exporter.listening import StartError
from exporter.metrics.recorder import Recorder
from exporter.sources.webhook import MEMORY_IDS, MemoryBook, Rules, StorageBook, Webhook
from exporter.storage import Storage, StorageError, StorageHeld
from exporter.web.errors import ErrorAnswers
from exporter.web.listener import Listener, listen
from exporter.web.webhook import LIMITS, RateLimit, Reception, build
from exporter.wire.client_key import Hasher

if TYPE_CHECKING:
    from exporter.web.gate import Gate

HELD_INTERVAL: Final = 0.2
"""Seconds between two attempts to get a storage that another process holds."""

SWITCH_INTERVAL: Final = 0.0005
"""Seconds after which one thread lets another one run."""

QUIET: Final = 3.0
"""Seconds without a request after which, once the exporter is to end, no more are expected."""

_log = structlog.get_logger(__name__)


class WebhookService:
    """The webhook of one exporter. `open` it, `run` it, `drain` it, `stop` it; `address` is where it listens.

    Where there are `secrets`, one of them must have signed each report; `gate` guards the listener as it does others.
    `hasher` makes the keys by which reported clients are recognised.
    """

    def __init__(
        self,
        address: Address,
        config: Config,
        secrets: Sequence[bytes],
        gate: "Gate | None",
        recorder: Recorder,
        sink: Sink,
        hasher: Hasher,
    ) -> None:
        self.address = address
        self._config = config
        self._secrets = secrets
        self._gate = gate
        self._recorder = recorder
        self._sink = sink
        self._hasher = hasher
        self._accepting = True
        self._last_event = time.monotonic()
        self._book: MemoryBook | StorageBook = MemoryBook(config.storage_window, time.time)
        self._without_series: Mapping[Count, float] = {}
        self._webhook: Webhook | None = None
        self._listener: Listener | None = None

    async def open(self) -> None:
        """Open the storage, restore what it counted, and listen. Raises StartError.

        A storage that another process holds is waited for, as long as that one may take to end.
        """
        config = self._config
        totals: Mapping[Count, float] = {}
        created: Mapping[str, float] = {}
        limit = MEMORY_IDS
        if config.storage_path is not None:
            storage = await self._storage(config.storage_path)
            if storage.recovered:
                _log.warning(storage.recovered)
            totals, limit = storage.totals(), config.storage_max_ids
            self._book = StorageBook(storage, self._recorder.storage_failed)
            # While it prepares a commit, the storage's thread would keep the loop waiting for 5 ms at a time.
            sys.setswitchinterval(SWITCH_INTERVAL)
            try:
                created = await self._book.born(config.targets)
            except StorageError as error:
                raise StartError(str(error)) from error
        rules = _rules(config)
        self._webhook = Webhook(rules, self._book, self, hasher=self._hasher)
        self._restore(rules, totals, created, config)
        self._recorder.webhook_born(limit)
        self._recorder.known_ids = lambda: (self._book.ids, self._book.since)
        durable = config.storage_path is not None
        reception = Reception(
            take=self._webhook.take,
            take_at_once=self._webhook.take_at_once,
            durable=durable,
            secrets=lambda: self._secrets,
            rate=RateLimit(config.webhook_rate_limit, time.monotonic),
            accepts=lambda: self._accepting,
            now=time.time,
        )
        answers = ErrorAnswers(self._recorder.http_error)
        app, prompt = build(reception, answers)
        # What has to wait for the disk cannot be answered at once.
        self._listener = await listen(app, self.address, answers, LIMITS, self._gate, None if durable else prompt)
        self.address = self._listener.address

    def emit(self, event: Event) -> None:
        """Pass an event on, and note that one came."""
        self._last_event = time.monotonic()
        self._sink.emit(event)

    async def update(self, config: Config, secrets: Sequence[bytes]) -> None:
        """Take these targets and secrets from now on. Raises StorageError."""
        rules = _rules(config)
        created: Mapping[str, float] = {}
        if isinstance(self._book, StorageBook):
            created = await self._book.born(rules.targets)
        self._restore(rules, self._without_series, created, config)
        if self._webhook is not None:
            self._webhook.rules = rules
        self._secrets = secrets

    async def run(self) -> None:
        """Serve until `stop`."""
        if self._listener is None:
            raise RuntimeError("run needs open first")
        durably = f"kept in {self._config.storage_path}" if self._config.storage_path else "in memory only"
        _log.info("webhook listening", address=str(self.address), events=durably)
        async with asyncio.TaskGroup() as tasks:
            committing = tasks.create_task(self._book.run()) if isinstance(self._book, StorageBook) else None
            await self._listener.run()
            if committing is not None:
                committing.cancel()

    async def drain(self, grace: float) -> None:
        """Go on until services have fallen silent: their last closes come while they stop too.

        Two thirds of the grace (seconds) at most, so that what came can still be scraped.
        """
        ends = time.monotonic() + grace * 2 / 3
        self._last_event = max(self._last_event, time.monotonic())
        while (now := time.monotonic()) < min(self._last_event + QUIET, ends):
            await asyncio.sleep(min(self._last_event + QUIET, ends) - now)
        self._accepting = False

    def stop(self) -> None:
        """Have `run` end."""
        if self._listener is not None:
            self._listener.stop()

    def close(self) -> None:
        """Let go of the storage."""
        if isinstance(self._book, StorageBook):
            self._book.close()

    def _restore(
        self, rules: Rules, totals: Mapping[Count, float], created: Mapping[str, float], config: Config
    ) -> None:
        """Go on with what was counted before, as far as it has series now; the rest may get some by a reload."""
        for target, vocabulary in rules.targets.items():
            builds = config.targets[target].client_builds
            self._recorder.watch_reports(target, vocabulary, created.get(target), builds)
        known = _known(totals, rules.targets)
        self._without_series = {count: number for count, number in totals.items() if count not in known}
        self._recorder.restore(known)
        if self._webhook is not None:
            self._webhook.restored(known)

    async def _storage(self, folder: Path) -> Storage:
        config = self._config
        deadline = time.monotonic() + config.shutdown_grace
        waited = False
        while True:
            try:
                return await asyncio.to_thread(
                    Storage.open,
                    folder,
                    window=config.storage_window,
                    max_ids=config.storage_max_ids,
                    now=time.time,
                )
            except StorageHeld as held:
                if time.monotonic() >= deadline:
                    raise StartError(str(held)) from held
                if not waited:
                    _log.warning("waiting for the storage", reason=str(held))
                waited = True
                await asyncio.sleep(HELD_INTERVAL)
            except StorageError as error:
                raise StartError(str(error)) from error


def _rules(config: Config) -> Rules:
    targets = {name: target.vocabulary() for name, target in config.targets.items()}
    only = next(iter(targets)) if len(targets) == 1 else None
    otherwise = DEFAULT_TARGET if DEFAULT_TARGET in targets else only
    return Rules(targets, otherwise, strict=config.targets_listed, require_ids=config.webhook_require_ids)


def _known(totals: Mapping[Count, float], targets: Mapping[str, Vocabulary]) -> dict[Count, float]:
    """The counts of what has series today; a target or code that is no longer configured stays in the storage."""
    return {
        count: number
        for count, number in totals.items()
        if count.target in targets
        and (count.what != "closes" or _has_series(count.key.partition(" ")[0], targets[count.target]))
    }


def _has_series(label: str, vocabulary: Vocabulary) -> bool:
    return not label.isdecimal() or vocabulary.reported_label(int(label)) == label
