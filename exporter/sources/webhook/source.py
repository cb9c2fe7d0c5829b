"""Takes decoded requests: refuses what cannot be counted, has the rest entered once, and gives the sums to the sink."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final, NamedTuple

from exporter.closecodes import Vocabulary
from exporter.events import ClientReport, ClientsReported, Count, Origin, Rejection, Reported, Sink
from exporter.reports import Report
from exporter.reports.tally import Tally
from exporter.sources.webhook.books import LONG, Batch, Book, Stale
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
            # Nothing else may happen between judging and entering, or it is judged again.
            rules = self._rules
            batch, refused = self._sorted(items, target)
            try:
                committed = await self._book.enter(batch) if batch.reports else Committed(frozenset(), {})
            except Stale:
                continue
            outcome = self._counted(batch, refused, committed)
            await self._tell_clients(self._clients(batch, committed.duplicates, rules))
            return outcome

    async def _tell_clients(self, reports: Sequence[ClientReport]) -> None:
        """Tell what is known of clients, a few at a time, so that the relay gets its turn in between."""
        for start in range(0, len(reports), SLICE):
            if start:
                await asyncio.sleep(0)
            self._sink.emit(ClientsReported(reports[start : start + SLICE]))

    def take_at_once(self, items: Sequence[Report | Rejection]) -> Outcome | None:
        """As `take`, without waiting; None where that cannot be, and then nothing is counted."""
        batch, refused = self._sorted(items, None)
        committed = self._book.enter_at_once(batch)
        if committed is None:
            return None
        clients = self._clients(batch, committed.duplicates, self._rules)
        outcome = self._counted(batch, refused, committed)
        if clients:
            self._sink.emit(ClientsReported(clients))
        return outcome

    def _sorted(
        self, items: Sequence[Report | Rejection], target: str | None
    ) -> tuple[Batch, list[tuple[int, Rejection]]]:
        rules = self._rules
        if target is not None and (rules.strict or target in rules.targets):
            rules = replace(rules, otherwise=target)
        return _sort(
            items,
            rules,
            self._tally,
            self._book.since,
            self._now(),
            self._opened,
        )

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

    def _clients(self, batch: Batch, duplicates: frozenset[int], rules: Rules) -> list[ClientReport]:
        """The new events of clients that can be recognised, and refused messages, in the order in which they happened.

        `rules` are those under which the batch was judged: while it waited for the disk there may have come others.
        """
        hasher = self._hasher
        if hasher is None:
            return []
        named = [
            index
            for index, report in enumerate(batch.reports)
            if report.client is not None or (report.code == TOO_BIG and report.direction is not None)
        ]
        if not named:
            return []
        keyed = batch.keyed
        known = {keyed[position] for position in duplicates}
        now = self._now()
        found = [
            _client(batch.reports[index], batch.otherwise, rules, now, hasher) for index in named if index not in known
        ]
        return sorted(found, key=lambda one: -one.ago)


def _sort(
    items: Sequence[Report | Rejection],
    rules: Rules,
    tally: Tally,
    since: float,
    judged: float,
    opened: Set[str],
) -> tuple[Batch, list[tuple[int, Rejection]]]:
    """The acceptable events as a batch, and the others with where they are in `items`.

    Runs once for each event: no calls but the unavoidable.
    """
    targets, otherwise = rules.targets, rules.otherwise
    lenient = not rules.strict and otherwise in targets
    since_ms = since * 1000
    since_moment: datetime | None = None
    reports: list[Report] = []
    ids: list[str] = []
    refused: list[tuple[int, Rejection]] = []
    opens: set[str] = set()
    for index, item in enumerate(items):
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
                since_moment = since_moment or datetime.fromtimestamp(max(since, 0.0), UTC)
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
            opens.add(str(target if known else otherwise))
        reports.append(item)
    opens_ever = opened | opens if opens else opened
    return Batch(tally, since, judged, reports, ids, opens_ever, otherwise or ""), refused


def _client(report: Report, otherwise: str, rules: Rules, now: float, hasher: Hasher) -> ClientReport:
    target = report.target if report.target in rules.targets else otherwise
    moment = report.unix_time
    ago = 0.0 if moment is None else now - moment
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
