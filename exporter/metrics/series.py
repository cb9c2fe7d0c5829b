"""The recorder's memory: counters, gauges and histograms as plain dicts, and how they become metric families.

Keys are label values in the catalogue's order. One dict operation counts; everything that prometheus_client needs is
built only at a scrape, from a copy, so that a scrape is one consistent moment however long its rendering takes.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.core import Metric as Family
from prometheus_client.utils import floatToGoString

from exporter.metrics.catalogue import Metric

LabelValues = tuple[str, ...]


class Values:
    """The series of one counter or gauge."""

    __slots__ = ("metric", "values")

    def __init__(self, metric: Metric) -> None:
        self.metric: Final = metric
        self.values: dict[LabelValues, float] = {}

    def add(self, *labels: str, by: float = 1.0) -> None:
        """Add `by` to one series."""
        self.values[labels] = self.values.get(labels, 0.0) + by

    def adder(self, *labels: str) -> Callable[[float], None]:
        """What adds to one series, for those who do so often."""
        self.born(*labels)
        values = self.values

        def add(by: float) -> None:
            values[labels] += by

        return add

    def set(self, value: float, *labels: str) -> None:
        """Set one series."""
        self.values[labels] = value

    def forget(self, *labels: str) -> None:
        """Let a series of a gauge be no more."""
        self.values.pop(labels, None)

    def born(self, *labels: str) -> None:
        """Let a series exist at 0, so that its first event is an increase."""
        self.values.setdefault(labels, 0.0)

    def copy(self) -> "Values":
        """This moment's values, on their own."""
        other = Values(self.metric)
        other.values = dict(self.values)
        return other

    def family(self) -> Family:
        """The metric family for prometheus_client."""
        metric = self.metric
        kind = CounterMetricFamily if metric.type == "counter" else GaugeMetricFamily
        family = kind(metric.name, metric.help, labels=metric.labels)
        for labels, value in self.values.items():
            family.add_metric(labels, value)
        return family


class Distribution:
    """One histogram series: counts per bucket (the last one is +Inf), and the sum of what was observed."""

    __slots__ = ("counts", "total")

    def __init__(self, counts: list[int], total: float = 0.0) -> None:
        self.counts = counts
        self.total = total


class Histogram:
    """The series of one histogram."""

    __slots__ = ("_bounds", "metric", "series")

    def __init__(self, metric: Metric) -> None:
        self.metric: Final = metric
        self._bounds: Final = metric.bounds
        self.series: dict[LabelValues, Distribution] = {}

    def observe(self, value: float, *labels: str) -> None:
        """Count `value` in the bucket of the smallest bound it does not exceed."""
        series = self.series.get(labels) or self.born(*labels)
        series.counts[bisect_left(self._bounds, value)] += 1
        series.total += value

    def adder(self, key: str, *labels: str) -> Callable[[float], None]:
        """What counts many values of one bucket at once, named by its upper bound, or adds to their `sum`.

        A bound that is none of ours stands for the next one.
        """
        series = self.series.get(labels) or self.born(*labels)
        if key == "sum":

            def add_to_sum(amount: float) -> None:
                series.total += amount

            return add_to_sum
        index = bisect_left(self._bounds, float(key))

        def add(number: float) -> None:
            series.counts[index] += int(number)

        return add

    def born(self, *labels: str) -> Distribution:
        """Let a series exist at 0."""
        return self.series.setdefault(labels, Distribution([0] * (len(self._bounds) + 1)))

    def copy(self) -> "Histogram":
        """This moment's values, on their own."""
        other = Histogram(self.metric)
        other.series = {labels: Distribution(one.counts[:], one.total) for labels, one in self.series.items()}
        return other

    def family(self) -> Family:
        """The metric family for prometheus_client."""
        return histogram_family(
            self.metric, ((labels, _running(one.counts), one.total) for labels, one in self.series.items())
        )


def _running(counts: list[int]) -> list[int]:
    total = 0
    return [total := total + count for count in counts]


def histogram_family(metric: Metric, series: Iterable[tuple[LabelValues, list[int], float]]) -> Family:
    """A histogram family from series of (label values, cumulative counts with +Inf last, sum)."""
    bounds = [*map(floatToGoString, metric.bounds), "+Inf"]
    family = HistogramMetricFamily(metric.name, metric.help, labels=metric.labels)
    for labels, cumulative, total in series:
        family.add_metric(labels, buckets=list(zip(bounds, cumulative, strict=True)), sum_value=total)
    return family
