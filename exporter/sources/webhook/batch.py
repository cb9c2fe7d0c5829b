"""The events of one request on their way into a book: judged, and as columns."""

import hashlib
from collections.abc import Mapping, Sequence, Set
from itertools import compress
from typing import Final, NamedTuple

from exporter.events import Count, Rejection
from exporter.reports import Report
from exporter.reports.tally import Kind, Refusal, add_up

LONG: Final = 250
"""Events from which on a request is entered in steps, so that the relay gets its turn in between."""

_NOTHING: Final = hashlib.blake2b(digest_size=16)
_NOBODY: Final[frozenset[str]] = frozenset()


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
        return [digest(one).digest() for one in self.ids]

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


def digest(identity: str) -> hashlib.blake2b:
    """As good as the identity itself, and short: 16 bytes."""
    found = _NOTHING.copy()  # in two thirds of the time that a new one takes
    found.update(identity.encode())
    return found
