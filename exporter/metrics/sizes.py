"""Histograms of message sizes, whose buckets the frame meters fill: here they are only read."""

from collections.abc import Callable, Mapping
from itertools import accumulate
from typing import Final

from prometheus_client.core import Metric as Family

from exporter.events import Origin
from exporter.metrics import catalogue
from exporter.metrics.series import LabelValues, histogram_family
from exporter.wire.sizes import DirectionSizes, Headroom, MessageSizes


class MessageSizeSeries:
    """The message size histogram: frame meters fill its buckets, here they are only read."""

    def __init__(self) -> None:
        self.metric: Final = catalogue.MESSAGE_SIZE
        self.series: dict[LabelValues, MessageSizes] = {}
        self.directions: dict[LabelValues, DirectionSizes] = {}

    def born(self, origin: Origin, direction: str) -> DirectionSizes:
        """The shared buckets of one direction of one target, at 0 unless they exist."""
        plain, compressed = (
            self.series.setdefault((origin.source, origin.target, direction, value), MessageSizes())
            for value in ("false", "true")
        )
        key = (origin.source, origin.target, direction)
        sizes = self.directions.get(key)
        if sizes is None:
            headroom = Headroom(plain, catalogue.MESSAGE_LIMIT_RATIO.bounds)
            sizes = self.directions[key] = DirectionSizes(plain, compressed, headroom)
        return sizes

    def limit(self, origin: Origin, direction: str, limit: int | None) -> None:
        """Note the configured limit in bytes, as a share of which sizes are counted."""
        sizes = self.directions.get((origin.source, origin.target, direction))
        if sizes is not None:
            sizes.limit(limit)

    def headrooms(self) -> Mapping[LabelValues, Headroom]:
        """The same sizes as shares of each direction's limit."""
        return {labels: sizes.headroom for labels, sizes in self.directions.items()}

    def copy(self) -> "MessageSizeSeries":
        """This moment's values, on their own."""
        other = MessageSizeSeries()
        other.series = {labels: sizes.copy() for labels, sizes in self.series.items()}
        return other

    def family(self) -> Family:
        """The metric family for prometheus_client."""
        return histogram_family(
            self.metric,
            (
                (labels, [*counts, count], float(total))
                for labels, sizes in self.series.items()
                for counts, count, total in (sizes.cumulative(self.metric.bounds),)
            ),
        )


class LimitRatioSeries:
    """The histogram of message sizes as shares of the limit, which exists where a limit is or was configured.

    `series` gives the directions' counts at the moment of the copy.
    """

    def __init__(self, series: Callable[[], Mapping[LabelValues, Headroom]]) -> None:
        self.metric: Final = catalogue.MESSAGE_LIMIT_RATIO
        self._series = series

    def copy(self) -> "LimitRatioSeries":
        """This moment's values, on their own; what is to be made of them is left to `family`, which may take longer."""
        moment = {labels: headroom.copy() for labels, headroom in self._series().items()}
        return LimitRatioSeries(lambda: moment)

    def family(self) -> Family:
        """The metric family for prometheus_client."""
        shares = ((labels, headroom.shares()) for labels, headroom in self._series().items())
        return histogram_family(
            self.metric,
            ((labels, list(accumulate(share[0])), share[1]) for labels, share in shares if share is not None),
        )
