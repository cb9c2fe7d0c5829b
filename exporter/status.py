"""What the status page shows: the newest closes and mass closes as they come, and one moment of everything else.

`StatusBook` keeps few events, with their texts cut, because peers choose them. `snapshot` reads the recorder's numbers
and makes a `Status` of plain, frozen values, which can be rendered whenever there is time.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final, Protocol, cast

from exporter.events import (
    DIRECTIONS,
    EVIDENCES,
    PROBE_FAILURES,
    Bracket,
    Closed,
    Direction,
    Initiator,
    Listener,
    MassClose,
    MassCloseEnded,
    Origin,
    Peer,
    Source,
    Standing,
)
from exporter.insight.advice import Advice, CloseCount, Facts, PastMassClose, advise
from exporter.insight.advice.facts import NEAR
from exporter.metrics import catalogue
from exporter.metrics.catalogue import Metric
from exporter.wire.sizes import MessageSizes

CLOSES: Final = 50
"""Closes that are kept."""
LATELY: Final = 2.0
"""Seconds in which one source may tell what another has not told yet."""

MASS_CLOSES: Final = 20
"""Mass closes that are kept."""
BUILDS: Final = 20
"""Client builds that are kept of each mass close: those that lost most."""
LONGEST_TEXT: Final = 256
"""Characters that are kept of a text that a peer chose."""
LONGEST_BUILD: Final = 64
"""Characters that are kept of a build's name."""


@dataclass(frozen=True, slots=True)
class ClosedAt:
    """A close and when it happened, in Unix seconds."""

    at: float
    closed: Closed


@dataclass(frozen=True, slots=True)
class MassClosedAt:
    """A mass close, when it began and when it was over, in Unix seconds."""

    began: float
    ended: float
    mass_close: MassClose


@dataclass(frozen=True, slots=True)
class DirectionStatus:
    """The messages of one direction: this moment's counts, on their own, by size as it was on the wire.

    `limit` is the configured one in bytes, None where there is none.
    """

    direction: Direction
    plain: MessageSizes
    compressed: MessageSizes
    limit: int | None
    bracket: Bracket


@dataclass(frozen=True, slots=True)
class TargetStatus:
    """One target as one source sees it. `directions` is empty where no messages are seen."""

    facts: Facts
    directions: tuple[DirectionStatus, ...]


@dataclass(frozen=True, slots=True)
class Status:
    """One moment, `at` Unix seconds. The newest mass close and the newest close come first."""

    at: float
    advice: tuple[Advice, ...]
    targets: tuple[TargetStatus, ...]
    mass_closes: tuple[MassClosedAt, ...]
    closes: tuple[ClosedAt, ...]


class Numbers(Protocol):
    """What is read of the recorder."""

    standings: Callable[[], Mapping[Origin, Standing]]

    def values(self, metric: Metric) -> Mapping[tuple[str, ...], float]:
        """The series of a counter or gauge, by label values."""
        ...

    def message_sizes(self) -> Mapping[tuple[str, ...], MessageSizes]:
        """Sizes by source, target, direction and whether compressed."""
        ...

    def limit_shares(self) -> Mapping[tuple[str, ...], Sequence[int]]:
        """Messages by their share of the configured limit, by source, target and direction."""
        ...


class StatusBook(Listener):
    """Remembers the newest closes and mass closes. `now` is the wall clock, in Unix seconds."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._closes: deque[tuple[float, Closed]] = deque(maxlen=CLOSES)
        self._mass_closes: deque[MassClosedAt] = deque(maxlen=MASS_CLOSES)
        self._lately: deque[tuple[float, Origin]] = deque()
        self.handlers = {Closed: self._closed, MassCloseEnded: self._mass_close_ended}

    def _closed(self, event: Closed) -> None:
        now = self._now()
        self._closes.appendleft((now, event))
        self._lately.append((now, event.origin))
        self._forget_before(now - LATELY)

    def _mass_close_ended(self, event: MassCloseEnded) -> None:
        now, mass_close = self._now(), event.mass_close
        most = sorted(mass_close.builds, key=lambda build: -build.lost)[:BUILDS]
        builds = tuple(replace(build, build=_cut(build.build, LONGEST_BUILD)) for build in most)
        self._mass_closes.appendleft(MassClosedAt(now - mass_close.lasted, now, replace(mass_close, builds=builds)))

    def snapshot(self, numbers: Numbers) -> Status:
        """This moment."""
        now = self._now()
        mass_closes = tuple(self._mass_closes)
        self._forget_before(now - LATELY)
        lately = Counter(origin for _, origin in self._lately)
        targets = tuple(_targets(numbers, now, lately))
        past = [PastMassClose(moment(one.began, now), now - one.ended, one.mass_close) for one in mass_closes]
        advice = advise([target.facts for target in targets], past)
        closes = tuple(ClosedAt(at, _bounded(closed)) for at, closed in self._closes)
        return Status(now, advice, targets, mass_closes, closes)

    def _forget_before(self, at: float) -> None:
        lately = self._lately
        while lately and lately[0][0] < at:
            lately.popleft()


def moment(at: float, now: float) -> str:
    """A time to the minute, with the date unless it is today's; the exporter's own time zone is nobody's, so UTC."""
    then, today = datetime.fromtimestamp(at, UTC), datetime.fromtimestamp(now, UTC)
    if then.date() == today.date():
        return f"{then:%H:%M} UTC"
    return f"{then.day} {then:%b}{f' {then.year}' if then.year != today.year else ''}, {then:%H:%M} UTC"


def _bounded(closed: Closed) -> Closed:
    if max(len(closed.reason), *map(len, closed.peer)) <= LONGEST_TEXT:
        return closed
    return replace(closed, reason=_cut(closed.reason), peer=Peer(*map(_cut, closed.peer)))


def _cut(text: str, longest: int = LONGEST_TEXT) -> str:
    return text if len(text) <= longest else text[: longest - 3] + "..."


def _targets(numbers: Numbers, now: float, lately: Mapping[Origin, int]) -> Iterator[TargetStatus]:
    """Every target of every source, those with most connections first."""
    closes = _closes(numbers)
    standings = numbers.standings()
    sizes, shares = numbers.message_sizes(), numbers.limit_shares()
    active, limits = numbers.values(catalogue.CONNECTIONS_ACTIVE), numbers.values(catalogue.MESSAGE_SIZE_LIMIT)
    repeats, failures = numbers.values(catalogue.TOO_BIG_REPEATS), numbers.values(catalogue.PROBE_FAILURES)
    probe_up = numbers.values(catalogue.PROBE_UP)
    created = numbers.values(catalogue.TARGET_CREATED)
    for labels in sorted(created, key=lambda labels: (-active.get(labels, 0.0), labels)):
        origin = Origin(cast(Source, labels[0]), labels[1])
        configured = {way: limits.get((*labels, way, "configured")) for way in DIRECTIONS}
        facts = Facts(
            origin,
            moment(created[labels], now),
            active=int(active[labels]) if labels in active else None,
            closes=closes.get(labels, ()),
            limits={way: int(limit) for way, limit in configured.items() if limit is not None},
            near={way: _near(shares[*labels, way]) for way in DIRECTIONS if (*labels, way) in shares},
            repeats={evidence: int(repeats.get((*labels, evidence), 0.0)) for evidence in EVIDENCES},
            standing=standings.get(origin),
            probe_up=bool(probe_up[labels]) if labels in probe_up else None,
            probe_failures={
                reason: int(failures[*labels, reason]) for reason in PROBE_FAILURES if failures.get((*labels, reason))
            },
            lately=lately.get(origin, 0),
        )
        yield TargetStatus(facts, tuple(_directions(facts, sizes)))


def _closes(numbers: Numbers) -> dict[tuple[str, ...], list[CloseCount]]:
    """What there was of each origin, the most frequent first."""
    found: dict[tuple[str, ...], list[CloseCount]] = {}
    for (source, target, code, close_class, initiator), count in numbers.values(catalogue.CLOSES).items():
        if count:
            close = CloseCount(code, close_class, cast(Initiator, initiator), int(count))
            found.setdefault((source, target), []).append(close)
    for closes in found.values():
        closes.sort(key=lambda close: -close.count)
    return found


def _near(shares: Sequence[int]) -> int:
    """How many messages were over NEAR of their limit, by counts per bucket."""
    return sum(shares[catalogue.RATIO_BOUNDS.index(NEAR) + 1 :])


def _directions(facts: Facts, sizes: Mapping[tuple[str, ...], MessageSizes]) -> Iterator[DirectionStatus]:
    for way in DIRECTIONS:
        key = (facts.origin.source, facts.origin.target, way)
        plain, compressed = sizes.get((*key, "false")), sizes.get((*key, "true"))
        if plain is not None and compressed is not None:
            bracket = facts.standing.brackets.get(way) if facts.standing is not None else None
            yield DirectionStatus(way, plain.copy(), compressed.copy(), facts.limits.get(way), bracket or Bracket())
