"""Takes the events of requests: refuses what cannot be counted, has the rest entered once, and tells the sink the sums.

Events are judged as they are decoded, and let go of: what is kept of them is a batch.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final, NamedTuple

from exporter.closecodes import Vocabulary
from exporter.events import ClientReport, ClientsReported, Count, Origin, Rejection, Reported, Sink
from exporter.reports import Events, Item, Report
from exporter.reports.tally import Kinds, Refusal
from exporter.sources.webhook.batch import Batch, Noted
from exporter.sources.webhook.book import Book
from exporter.storage import Committed
from exporter.wire.client_key import Hasher

SLICE: Final = 32
"""Reports of clients that are told at once: what is derived from one takes up to 40 µs."""


TOO_BIG: Final = 1009

_NONE: Final[frozenset[int]] = frozenset()


class Outcome(NamedTuple):
    """What became of one request. `items` has the index of each event not accepted, and why; None for a duplicate."""

    accepted: int
    items: Sequence[tuple[int, Rejection | None]]

    @property
    def duplicate(self) -> int:
        """Events that were counted before."""
        return sum(reason is None for _, reason in self.items)

    @property
    def events(self) -> int:
        """All events of the request."""
        return self.accepted + len(self.items)

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
    """Takes requests, under `rules`, which may be replaced at any time. `now` is the wall clock of the book.

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
        self._kinds = Kinds(rules.targets)
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
        self._kinds = Kinds(rules.targets)

    def restored(self, counts: Mapping[Count, float]) -> None:
        """Learn of counts from before this process."""
        self._opened |= {count.target for count in counts if count.what == "opens"}

    async def take(self, decode: Callable[[], Events], target: str | None = None) -> Outcome:
        """Count the events of one request, which `decode` begins to decode, once more where they are judged again.

        Those that name no target are `target`'s. Raises what decoding raises, and StorageError: then none of them is
        counted, and the request may be sent again.
        """
        while True:
            rules, batch = await self._judged(decode, target)
            committed = await self._book.enter(batch) if batch.kinds else Committed(_NONE, {})
            if committed is not None:
                outcome = self._counted(batch, committed)
                await self._tell_clients(self._clients(batch, committed.duplicates), rules)
                return outcome

    def take_at_once(self, events: Events) -> Outcome | None:
        """As `take`, without waiting; None where that cannot be, and then nothing is counted."""
        items = next(events, ())
        if next(events, None) is not None:
            return None
        rules, kinds, batch = self._begin(None)
        self._judge(items, rules, kinds, batch)
        if len(batch.noted) > SLICE:
            return None
        batch.opened(self._opened)
        committed = self._book.enter_at_once(batch)
        if committed is None:
            return None
        outcome = self._counted(batch, committed)
        if batch.noted:
            self._tell(self._clients(batch, committed.duplicates), rules)
        return outcome

    async def _judged(self, decode: Callable[[], Events], target: str | None) -> tuple[Rules, Batch]:
        rules, kinds, batch = self._begin(target)
        for items in decode():
            self._judge(items, rules, kinds, batch)
            await asyncio.sleep(0)
        batch.opened(self._opened)
        return rules, batch

    def _begin(self, target: str | None) -> tuple[Rules, Kinds, Batch]:
        """By which rules a request is judged, and what becomes of it."""
        rules = self._rules
        if target is not None and (rules.strict or target in rules.targets):
            rules = replace(rules, otherwise=target)
        judged = self._now()  # before `since` is read: see `StorageBook`
        return rules, self._kinds, Batch(self._book.since, judged)

    def _judge(self, items: Sequence[Item], rules: Rules, kinds: Kinds, batch: Batch) -> None:
        """Put the next events of a request into the columns of its batch, or among what was refused.

        Runs once for each event: no calls but the unavoidable.
        """
        otherwise, find, recognises = rules.otherwise or "", kinds.find, self._hasher is not None
        since_ms = batch.since * 1000
        since_moment: datetime | None = None
        ids, columns, durations = batch.ids, batch.kinds, batch.durations
        for item in items:
            if not isinstance(item, Report):
                batch.refuse(item)
                continue
            target = item.target or otherwise
            code = item.code
            kind = known = find((target, code, item.initiator))
            if kind is None:
                kind = known = kinds.of(target, code, item.initiator)
                if kind is None and not rules.strict:
                    kind = kinds.of(otherwise, code, item.initiator)
                if kind is None:
                    batch.refuse("unknown_target")
                    continue
            time = item.time
            if time is not None:
                if isinstance(time, datetime):  # before `int`: that it is none takes as long to find out as all of this
                    since_moment = since_moment or datetime.fromtimestamp(max(batch.since, 0.0), UTC)
                    old = time < since_moment
                else:
                    old = time < since_ms
                if old:
                    batch.refuse("too_old")
                    continue
            identity = item.id
            if identity is not None:
                # Neither a known target nor an id can hold a newline: no two identities are spelled alike.
                ids.append(
                    f"{target}\n{identity}\n{item.source}"
                    if known is not None
                    else f"\n{identity}\n{(item.source, target)!r}"
                )
            elif rules.require_ids:
                batch.refuse("missing_id")
                continue
            else:
                batch.unnamed.append(len(columns))
            if code is None:
                batch.opened({kind.target})
            direction = item.direction if code == TOO_BIG else None
            if direction is not None and item.message_size is not None:
                batch.refusals.append((len(columns), Refusal(kind.target, direction, item.message_size)))
            if recognises and (direction is not None or item.client is not None):
                batch.noted.append(Noted(len(columns), kind.target, item))
            columns.append(kind)
            durations.append(item.duration)

    def _counted(self, batch: Batch, committed: Committed) -> Outcome:
        self._opened |= batch.opens
        duplicates, refused = committed.duplicates, batch.refused
        accepted = len(batch.kinds) - len(duplicates)
        if not (refused or duplicates):
            self._sink.emit(Reported(committed.counts, accepted))
            return Outcome(accepted, [])
        rejected = Counter(reason for _, reason in refused)
        self._sink.emit(Reported(committed.counts, accepted, len(duplicates), rejected))
        left_out = {index for index, _ in refused}
        indices = [index for index in range(batch.events) if index not in left_out]
        places = batch.places
        known = [(indices[places[position]], None) for position in duplicates]
        return Outcome(accepted, sorted([*refused, *known], key=lambda item: item[0]))

    def _clients(self, batch: Batch, duplicates: frozenset[int]) -> list[Noted]:
        """The new events of clients that can be recognised, and refused messages, in the order of their times."""
        if not batch.noted:
            return []
        places, now = batch.places, self._now()
        known = {places[position] for position in duplicates}
        new = [noted for noted in batch.noted if noted.place not in known]
        return sorted(new, key=lambda noted: _moment(noted.report, now))

    async def _tell_clients(self, noted: Sequence[Noted], rules: Rules) -> None:
        """Tell what is known of clients, a few at a time, so that the relay gets its turn in between."""
        for start in range(0, len(noted), SLICE):
            if start:
                await asyncio.sleep(0)
            self._tell(noted[start : start + SLICE], rules)

    def _tell(self, noted: Sequence[Noted], rules: Rules) -> None:
        """Tell of these clients. `rules` are those by which they were judged: meanwhile there may have come others."""
        if self._hasher is not None and noted:
            now, hasher = self._now(), self._hasher
            self._sink.emit(ClientsReported([_client(one, rules, now, hasher) for one in noted]))


def _moment(report: Report, now: float) -> float:
    """When it happened; now, if it does not say."""
    moment = report.unix_time
    return now if moment is None else moment


def _client(noted: Noted, rules: Rules, now: float, hasher: Hasher) -> ClientReport:
    target, report = noted.target, noted.report
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
