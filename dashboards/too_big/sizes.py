"""The sizes of messages beside the limit, in each direction, and the sizes of refused ones.

Grafana draws no line over a heatmap. So the limit is a line among quantiles of the same sizes, right beneath the
heatmap of its direction, over the same time.
"""

from dashboards.panels import bucket_heatmap, time_series
from dashboards.pieces import Heading, Panel, Query
from dashboards.promql import ORIGIN, shown
from dashboards.quantiles import quantiles
from dashboards.style import WHO
from exporter.events import DIRECTIONS, EVIDENCES
from exporter.metrics import catalogue


def panels() -> list[Panel]:
    return [
        *(_heatmap(direction) for direction in DIRECTIONS),
        *(_beside_the_limit(direction) for direction in DIRECTIONS),
        *(_refused(evidence) for evidence in EVIDENCES),
    ]


def _heatmap(direction: str) -> Panel:
    return bucket_heatmap(
        Heading(
            f"Message sizes, {direction}",
            "Uncompressed messages per size bucket, all shown targets together; the limit is the red line in the "
            "panel beneath. A separate band at the top is a kind of payload of its own, worth its own way of sending.",
        ),
        "bytes",
        shown.buckets(catalogue.MESSAGE_SIZE, direction=direction, compressed="false"),
        width=12,
    )


def _beside_the_limit(direction: str) -> Panel:
    limit = shown.gauge("min", catalogue.MESSAGE_SIZE_LIMIT, ORIGIN, direction=direction, origin="configured")
    return time_series(
        Heading(
            f"Sizes beside the limit, {direction}",
            "Quantiles of the sizes above, and the configured limit as a red line. largest is the upper bound of the "
            "largest bucket in use, so it may pass the line although nothing was refused: see Headroom.",
        ),
        "bytes",
        *quantiles(catalogue.MESSAGE_SIZE, (0.5, 0.99, 1), direction=direction, compressed="false"),
        Query(limit, f"limit {WHO}"),
        log_base=2,
        colours={"^limit ": "red"},
        dashed="^limit ",
    )


def _refused(evidence: str) -> Panel:
    return bucket_heatmap(
        Heading(
            f"Refused sizes, {evidence}",
            "Refused messages per size bucket, both directions and all shown targets together. One row: one kind of "
            "payload. Many rows: whatever is above the limit.",
        ),
        "bytes",
        shown.buckets(catalogue.OVERSIZE, evidence=evidence),
        width=12,
    )
