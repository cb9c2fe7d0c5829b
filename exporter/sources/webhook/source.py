"""Takes decoded requests: refuses what cannot be counted, has the rest entered once, and gives the sums to the sink."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final, NamedTuple

from exporter.closecodes import Vocabulary
from exporter.events import ClientReport, ClientsReported, Count, Origin, Rejection, Reported, Sink
from exporter.reports import Report
from exporter.reports.tally import Tally
from exporter.sources.webhook.books import LONG, Batch, Book
from exporter.storage import Committed
from exporter.wire.client_key import Hasher

TOO_BIG: Final = 1009

SLICE: Final = 32
"""Reports of clients that are told at once: what is derived from one takes up to 40 µs."""


class Outcome(NamedTuple):
    """What became of one request. `items` has the index of each event not accepted, and why; None for a duplicate."""

    accepted: int
    items: Sequence[tuple[int, Rejection | None]]

    @property
    def duplicate(self) -> int:
        """Events that were counted before."""
        return sum(reason is None for _, reason in self.items)

    @property
    def rejected(self) -> int:
        """Events that cannot be counted."""
        return len(self.items) - self.duplicate


@dataclass(frozen=True, slots=True)
class Rules:
    """What is asked of events. `targets` are those that they may name, with the labels of their codes.

    `otherwise` is the target of events that name none; None where that would be a guess. `strict` refuses events that
    name a target which is none of these; else they are `otherwise`'s.
    """

    targets: Mapping[str, Vocabulary]
    otherwise: str | None
    strict: bool = True
    require_ids: bool = False


class Webhook:
    """Takes decoded requests, under `rules`, which may be replaced at any time. `now` is the wall clock of the book.

    `hasher` makes the keys by which clients are recognised; without it they are not.
    """

    def __init__(
        self,
        rules: Rules,
        book: Book,
        sink: Sink,
        now: Callable[[], float] = time.time,
        *,
        hasher: Hasher | None = None,
    ) -> None:
        self._rules = rules
        self._tally = Tally(rules.targets)
        self._book = book
        self._sink = sink
        self._hasher = hasher
        self._now = now
        self._opened: set[str] = set()

    @property
    def rules(self) -> Rules:
        """What is asked of events from now on."""
        return self._rules

    @rules.setter
    def rules(self, rules: Rules) -> None:
        self._rules = rules
        self._tally = Tally(rules.targets)

    def restored(self, counts: Mapping[Count, float]) -> None:
        """Learn of counts from before this process."""
        self._opened |= {count.target for count in counts if count.what == "opens"}

    async def take(self, items: Sequence[Report | Rejection], target: str | None = None) -> Outcome:
        """Count the events of one request; those that name no target are `target`'s. Raises StorageError.

        Then none of them is counted, and the request may be sent again.
        """
        if len(items) > LONG:
            await asyncio.sleep(0)
        while True:
            rules, batch, refused = self._begin(target)
            for start in range(0, len(items), LONG):
                if start:
                    await asyncio.sleep(0)
                _judge(items[start : start + LONG], start, rules, batch, refused)
            batch.opened(self._opened)
            committed = await self._book.enter(batch) if batch.reports else Committed(frozenset(), {})
            if committed is None:
                continue
            outcome = self._counted(batch, refused, committed)
            await self._tell_clients(self._clients(batch, committed.duplicates), batch.otherwise, rules)
            return outcome

    def take_at_once(self, items: Sequence[Report | Rejection]) -> Outcome | None:
        """As `take`, without waiting; None where that cannot be, and then nothing is counted."""
        rules, batch, refused = self._begin(None)
        _judge(items, 0, rules, batch, refused)
        if len(batch.of_clients) > SLICE:
            return None
        batch.opened(self._opened)
        committed = self._book.enter_at_once(batch)
        if committed is None:
            return None
        outcome = self._counted(batch, refused, committed)
        if batch.of_clients:
            self._tell(self._clients(batch, committed.duplicates), batch.otherwise, rules)
        return outcome

    def _begin(self, target: str | None) -> tuple[Rules, Batch, list[tuple[int, Rejection]]]:
        """By which rules a request is judged, and where its events go."""
        rules = self._rules
        if target is not None and (rules.strict or target in rules.targets):
            rules = replace(rules, otherwise=target)
        judged = self._now()  # before `since` is read: see `_is_stale`
        return rules, Batch(self._tally, self._book.since, judged, rules.otherwise or ""), []

    def _counted(
        self,
        batch: Batch,
        refused: list[tuple[int, Rejection]],
        committed: Committed,
    ) -> Outcome:
        self._opened |= batch.opens
        duplicates = committed.duplicates
        accepted = len(batch.reports) - len(duplicates)
        if not (refused or duplicates):
            self._sink.emit(Reported(committed.counts, accepted))
            return Outcome(accepted, [])
        rejected = Counter(reason for _, reason in refused)
        self._sink.emit(Reported(committed.counts, accepted, len(duplicates), rejected))
        left_out = {index for index, _ in refused}
        places = [index for index in range(len(batch.reports) + len(refused)) if index not in left_out]
        keyed = batch.keyed
        known = [(places[keyed[position]], None) for position in duplicates]
        return Outcome(accepted, sorted([*refused, *known], key=lambda item: item[0]))

    def _clients(self, batch: Batch, duplicates: frozenset[int]) -> list[Report]:
        """The new events of clients that can be recognised, and refused messages, in the order of their times."""
        if self._hasher is None or not batch.of_clients:
            return []
        keyed, now = batch.keyed, self._now()
        known = {keyed[position] for position in duplicates}
        reports = [batch.reports[index] for index in batch.of_clients if index not in known]
        return sorted(reports, key=lambda report: _moment(report, now))

    async def _tell_clients(self, reports: Sequence[Report], otherwise: str, rules: Rules) -> None:
        """Tell what is known of clients, a few at a time, so that the relay gets its turn in between."""
        for start in range(0, len(reports), SLICE):
            if start:
                await asyncio.sleep(0)
            self._tell(reports[start : start + SLICE], otherwise, rules)

    def _tell(self, reports: Sequence[Report], otherwise: str, rules: Rules) -> None:
        """Tell of these clients. `rules` are those by which they were judged: meanwhile there may have come others."""
        if self._hasher is not None and reports:
            now, hasher = self._now(), self._hasher
            self._sink.emit(ClientsReported([_client(report, otherwise, rules, now, hasher) for report in reports]))


def _judge(
    items: Sequence[Report | Rejection],
    first: int,
    rules: Rules,
    batch: Batch,
    refused: list[tuple[int, Rejection]],
) -> None:
    """Put acceptable events into `batch` and the others, of which the first is number `first`, among the `refused`.

    Runs once for each event: no calls but the unavoidable.
    """
    targets, otherwise = rules.targets, rules.otherwise
    lenient = not rules.strict and otherwise in targets
    since_ms = batch.since * 1000
    since_moment: datetime | None = None
    reports, ids = batch.reports, batch.ids
    for index, item in enumerate(items, first):
        if isinstance(item, str):
            refused.append((index, item))
            continue
        target = item.target or otherwise
        known = target in targets
        if not known and not lenient:
            refused.append((index, "unknown_target"))
            continue
        time = item.time
        if time is not None:
            if isinstance(time, int):
                old = time < since_ms
            else:
                since_moment = since_moment or datetime.fromtimestamp(max(batch.since, 0.0), UTC)
                old = time < since_moment
            if old:
                refused.append((index, "too_old"))
                continue
        identity = item.id
        if identity is not None:
            # Neither a known target nor an id can hold a newline: no two identities are spelled alike.
            ids.append(f"{target}\n{identity}\n{item.source}" if known else f"\n{identity}\n{(item.source, target)!r}")
        elif rules.require_ids:
            refused.append((index, "missing_id"))
            continue
        if item.code is None:
            batch.opened({str(target if known else otherwise)})
        if item.client is not None or (item.code == TOO_BIG and item.direction is not None):
            batch.of_clients.append(len(reports))
        reports.append(item)


def _moment(report: Report, now: float) -> float:
    """When it happened; now, if it does not say."""
    moment = report.unix_time
    return now if moment is None else moment


def _client(report: Report, otherwise: str, rules: Rules, now: float, hasher: Hasher) -> ClientReport:
    target = report.target if report.target in rules.targets else otherwise
    ago = now - _moment(report, now)
    client = None if report.client is None else hasher(report.client.encode())
    origin, user_agent = Origin("webhook", target), report.user_agent or ""
    if report.event == "open":
        return ClientReport(origin, "open", ago, client, user_agent)
    vocabulary = rules.targets[target]
    code = vocabulary.reported_label(report.code or 0)
    return ClientReport(
        origin,
        "close",
        ago,
        client,
        user_agent,
        code,
        vocabulary.close_class(code),
        report.initiator,
        report.message_size,
        report.direction,
    )
