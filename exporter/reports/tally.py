"""Reports become counts: many events, one small table of how much each number grows."""

import math
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Mapping, Sequence, Set
from typing import Final

from prometheus_client.utils import floatToGoString

from exporter.closecodes import Vocabulary
from exporter.events import Count
from exporter.metrics.catalogue import CONNECTION_DURATION, OVERSIZE
from exporter.reports.report import Report

SUM: Final = "sum"
"""Key of the sum of a histogram, beside those of its buckets."""

MAX_SIZE: Final = 1 << 30
"""Bytes to which a refused size is clamped: any sender can claim any number, and one would drown the sum of all."""


FEW: Final = 8
"""Reports that are looked at one by one: to find out which of them are alike would cost more."""

NOBODY: Final[frozenset[str]] = frozenset()


def _keys(bounds: Sequence[float]) -> tuple[str, ...]:
    """The key of each bucket: its upper bound as exposed."""
    return (*map(floatToGoString, bounds), "+Inf")


_DURATION_BOUNDS: Final = CONNECTION_DURATION.bounds
_DURATION_KEYS: Final = _keys(_DURATION_BOUNDS)
_SIZE_KEYS: Final = _keys(OVERSIZE.bounds)


class Tally:
    """Adds up reports of targets, whose codes have the labels of `vocabularies`.

    What a code is called is worked out once: 5,000 codes of three initiators at most, for each target.
    """

    def __init__(self, vocabularies: Mapping[str, Vocabulary]) -> None:
        self._vocabularies = vocabularies
        self._closes: dict[tuple[str, int, str], Count] = {}
        self._durations = {
            target: tuple(Count(target, "duration", key) for key in (*_DURATION_KEYS, SUM)) for target in vocabularies
        }

    def __call__(self, reports: Sequence[Report], otherwise: str, opened: Set[str] = NOBODY) -> dict[Count, float]:
        """What `reports` add. Those that name no target with a vocabulary are `otherwise`'s, which must have one.

        `opened` are the targets whose services have reported opens, these reports included: only there does a close end
        something that was counted as active.
        """
        if len(reports) <= FEW:
            return self._each(reports, otherwise, opened)
        # Most reports of a request are alike in all but their durations: what is the same is looked at once.
        alike: defaultdict[tuple[str, int | None, str], list[float | None]] = defaultdict(list)
        for report in reports:
            alike[report.target, report.code, report.initiator].append(report.duration)
        targets, known = self._durations, self._closes
        durations: dict[str, list[float | None]] = {}
        counts: dict[Count, float] = {}
        refusals = False
        for (named, code, initiator), lived in alike.items():
            target = named if named in targets else otherwise
            if code is None:
                _add(counts, Count(target, "opens"), len(lived))
                continue
            count = known.get((target, code, initiator)) or self._close(target, code, initiator)
            counts[count] = counts.get(count, 0.0) + len(lived)
            if target in opened:
                _add(counts, Count(target, "closes_since_open"), len(lived))
            if target in durations:
                durations[target] += lived
            else:
                durations[target] = lived
            if code == 1009:
                refusals = True
        for target, values in durations.items():
            _add_durations(counts, targets[target], [value for value in values if value is not None])
        if refusals:
            for report in reports:
                if report.code == 1009 and report.message_size is not None:
                    target = report.target if report.target in targets else otherwise
                    _add_refused(counts, target, str(report.direction), min(report.message_size, MAX_SIZE))
        return counts

    def _each(self, reports: Sequence[Report], otherwise: str, opened: Set[str]) -> dict[Count, float]:
        targets, known = self._durations, self._closes
        counts: dict[Count, float] = {}
        for report in reports:
            target = report.target if report.target in targets else otherwise
            code, lived = report.code, report.duration
            if code is None:
                _add(counts, Count(target, "opens"), 1)
                continue
            _add(counts, known.get((target, code, report.initiator)) or self._close(target, code, report.initiator), 1)
            if target in opened:
                _add(counts, Count(target, "closes_since_open"), 1)
            if lived is not None:
                keys = targets[target]
                _add(counts, keys[bisect_left(_DURATION_BOUNDS, lived)], 1)
                _add(counts, keys[-1], lived)
            if code == 1009 and report.message_size is not None:
                _add_refused(counts, target, str(report.direction), min(report.message_size, MAX_SIZE))
        return counts

    def _close(self, target: str, code: int, initiator: str) -> Count:
        label = self._vocabularies[target].reported_label(code)
        count = self._closes[target, code, initiator] = Count(target, "closes", f"{label} {initiator}")
        return count


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


def _add_refused(counts: dict[Count, float], target: str, direction: str, size: int) -> None:
    bound = _SIZE_KEYS[bisect_left(OVERSIZE.bounds, size)]
    _add(counts, Count(target, "refused_size", f"{direction} {bound}"), 1)
    _add(counts, Count(target, "refused_size", f"{direction} {SUM}"), size)


def _add(counts: dict[Count, float], count: Count, number: float) -> None:
    counts[count] = counts.get(count, 0.0) + number
