"""Reports become counts: many events, one small table of how much each number grows.

Most reports of a request are alike in all but their durations. What is the same is looked at once, as their kind.
"""

import math
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import repeat
from typing import Final, NamedTuple

from prometheus_client.utils import floatToGoString

from exporter.closecodes import Vocabulary
from exporter.events import Count, Direction
from exporter.metrics.catalogue import CONNECTION_DURATION, OVERSIZE

SUM: Final = "sum"
"""Key of the sum of a histogram, beside those of its buckets."""

MAX_SIZE: Final = 1 << 30
"""Bytes to which a refused size is clamped: any sender can claim any number, and one would drown the sum of all."""


FEW: Final = 8
"""Reports that are added up one by one: to find out which of them are alike would cost more."""

NOBODY: Final[frozenset[str]] = frozenset()


def _keys(bounds: Sequence[float]) -> tuple[str, ...]:
    """The key of each bucket: its upper bound as exposed."""
    return (*map(floatToGoString, bounds), "+Inf")


_DURATION_BOUNDS: Final = CONNECTION_DURATION.bounds
_DURATION_KEYS: Final = _keys(_DURATION_BOUNDS)
_SIZE_KEYS: Final = _keys(OVERSIZE.bounds)


@dataclass(frozen=True, slots=True, eq=False)
class Kind:
    """What closes of one target, code and initiator have in common, or the opens of a target; there is one of each.

    `count` is what each of them adds 1 to. `durations` are the target's counts of durations: one for each bucket, and
    the sum; opens have none.
    """

    target: str
    count: Count
    durations: Sequence[Count]


class Refusal(NamedTuple):
    """A message that was refused with 1009: where it was going, and its bytes."""

    target: str
    direction: Direction
    size: int


class Kinds:
    """The kinds of reports there may be for targets, whose codes have the labels of `vocabularies`.

    What a code is called is worked out once: 5,000 codes of three initiators at most, for each target. `find` is given
    target, code (None for an open) and initiator, and returns what is known of them by now; `of` finds it out.
    """

    def __init__(self, vocabularies: Mapping[str, Vocabulary]) -> None:
        self._vocabularies = vocabularies
        self._durations = {
            target: tuple(Count(target, "duration", key) for key in (*_DURATION_KEYS, SUM)) for target in vocabularies
        }
        self._opens = {target: Kind(target, Count(target, "opens"), ()) for target in vocabularies}
        self._known: dict[tuple[str, int | None, str], Kind] = {}
        self.find: Final = self._known.get

    def of(self, target: str, code: int | None, initiator: str) -> Kind | None:
        """The kind of such reports; None where the target has no vocabulary."""
        known = self.find((target, code, initiator))
        if known is not None or target not in self._vocabularies:
            return known
        if code is None:
            kind = self._opens[target]
        else:
            label = self._vocabularies[target].reported_label(code)
            kind = Kind(target, Count(target, "closes", f"{label} {initiator}"), self._durations[target])
        self._known[target, code, initiator] = kind
        return kind


def add_up(
    kinds: Sequence[Kind],
    durations: Sequence[float | None],
    refusals: Iterable[Refusal] = (),
    opened: Set[str] = NOBODY,
) -> dict[Count, float]:
    """What reports add: their kinds, in the same order how long the connections lived, and what was refused.

    `opened` are the targets whose services have reported opens, these reports included: only there does a close end
    something that was counted as active.
    """
    counts: dict[Count, float] = {}
    buckets: dict[str, Sequence[Count]] = {}
    opens = False
    for kind, number in Counter(kinds).items() if len(kinds) > FEW else zip(kinds, repeat(1)):
        counts[kind.count] = counts.get(kind.count, 0.0) + number
        if not kind.durations:
            opens = True
            continue
        buckets[kind.target] = kind.durations
        if kind.target in opened:
            _add(counts, Count(kind.target, "closes_since_open"), number)
    if opens or len(buckets) > 1:
        lived: defaultdict[str, list[float]] = defaultdict(list)
        for kind, duration in zip(kinds, durations, strict=True):
            if duration is not None and kind.durations:
                lived[kind.target].append(duration)
        for target, found in lived.items():
            _add_durations(counts, buckets[target], found)
    else:
        for keys in buckets.values():
            _add_durations(counts, keys, [duration for duration in durations if duration is not None])
    sizes: defaultdict[tuple[str, Direction], list[int]] = defaultdict(list)
    for target, direction, size in refusals:
        sizes[target, direction].append(min(size, MAX_SIZE))
    for (target, direction), refused in sizes.items():
        _add_refused(counts, target, direction, refused)
    return counts


def _add_durations(counts: dict[Count, float], keys: Sequence[Count], durations: list[float]) -> None:
    """Add up durations of one target, whose counts are `keys`: one for each bucket, and that of the sum."""
    if len(durations) <= len(_DURATION_BOUNDS):
        for duration in durations:
            _add(counts, keys[bisect_left(_DURATION_BOUNDS, duration)], 1)
    else:
        durations.sort()  # so that only the bounds have to be looked up, and not each duration among them
        below = 0
        for key, bound in zip(keys, (*_DURATION_BOUNDS, math.inf), strict=False):
            reached = bisect_right(durations, bound)
            if reached > below:
                counts[key] = reached - below
            below = reached
    if durations:
        counts[keys[-1]] = sum(durations)


def _add_refused(counts: dict[Count, float], target: str, direction: Direction, sizes: list[int]) -> None:
    """Add up the sizes of messages that were refused in one direction."""
    for place, number in Counter(bisect_left(OVERSIZE.bounds, size) for size in sizes).items():
        counts[Count(target, "refused_size", f"{direction} {_SIZE_KEYS[place]}")] = number
    counts[Count(target, "refused_size", f"{direction} {SUM}")] = sum(sizes)


def _add(counts: dict[Count, float], count: Count, number: float) -> None:
    counts[count] = counts.get(count, 0.0) + number
