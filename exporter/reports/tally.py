"""Reports become counts: many events, one small table of how much each number grows."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
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
        self._closes: dict[tuple[str, int | None, str], Count] = {}
        self._durations = {
            target: tuple(Count(target, "duration", key) for key in (*_DURATION_KEYS, SUM)) for target in vocabularies
        }

    def __call__(self, reports: Iterable[Report], otherwise: str, opened: Set[str] = NOBODY) -> dict[Count, float]:
        """What `reports` add. Those that name no target with a vocabulary are `otherwise`'s, which must have one.

        `opened` are the targets whose services have reported opens before: only there does a close end something that
        was counted as active. An open among the reports makes its target one of them.
        """
        targets = self._durations
        closes: dict[tuple[str, int | None, str], int] = {}
        durations: dict[str, list[float]] = {}
        opens: dict[str, int] = {}
        counts: dict[Count, float] = {}
        for report in reports:
            target = report.target
            if target not in targets:
                target = otherwise
            if report.event == "open":
                opens[target] = opens.get(target, 0) + 1
                continue
            kind = (target, report.code, report.initiator)
            closes[kind] = closes.get(kind, 0) + 1
            duration = report.duration
            if duration is not None:
                values = durations.get(target)
                if values is None:
                    durations[target] = [duration]
                else:
                    values.append(duration)
            if report.message_size is not None and report.code == 1009:
                _add_refused(counts, target, str(report.direction), min(report.message_size, MAX_SIZE))
        for close, number in closes.items():
            _add(counts, self._closes.get(close) or self._close(close), number)
            if close[0] in opened or close[0] in opens:
                _add(counts, Count(close[0], "closes_since_open"), number)
        for target, values in durations.items():
            keys = targets[target]
            if len(values) == 1:
                counts[keys[bisect_left(_DURATION_BOUNDS, values[0])]] = 1
            else:
                for bucket, number in Counter(bisect_left(_DURATION_BOUNDS, value) for value in values).items():
                    counts[keys[bucket]] = number
            counts[keys[-1]] = sum(values)
        for target, number in opens.items():
            counts[Count(target, "opens")] = number
        return counts

    def _close(self, close: tuple[str, int | None, str]) -> Count:
        target, code, initiator = close
        label = self._vocabularies[target].reported_label(code or 0)
        count = self._closes[close] = Count(target, "closes", f"{label} {initiator}")
        return count


def _add_refused(counts: dict[Count, float], target: str, direction: str, size: int) -> None:
    bound = _SIZE_KEYS[bisect_left(OVERSIZE.bounds, size)]
    _add(counts, Count(target, "refused_size", f"{direction} {bound}"), 1)
    _add(counts, Count(target, "refused_size", f"{direction} {SUM}"), size)


def _add(counts: dict[Count, float], count: Count, number: float) -> None:
    counts[count] = counts.get(count, 0.0) + number
