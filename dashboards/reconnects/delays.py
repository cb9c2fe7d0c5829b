"""How long clients wait before they come back: spread out is healthy, a line is a fixed timer."""

from dashboards.panels import bucket_heatmap
from dashboards.pieces import Heading, Panel
from dashboards.promql import shown
from exporter.metrics import catalogue


def panels() -> list[Panel]:
    return [
        bucket_heatmap(
            Heading(
                "Delay after a loss",
                "Time from a close of class going_away or abnormal to the client's next attempt, all shown targets "
                "together. A broad cloud: jitter works. A line: a fixed timer. Everything in the lowest rows: no "
                "delay.",
            ),
            "s",
            shown.buckets(catalogue.RECONNECT_DELAY, after=("going_away", "abnormal")),
            width=12,
        ),
        bucket_heatmap(
            Heading(
                "Delay after other closes",
                "The same after a 1009 and after all other closes. A line after too_big is a loop: see Message too "
                "big.",
            ),
            "s",
            shown.buckets(catalogue.RECONNECT_DELAY, after=("too_big", "other")),
            width=12,
        ),
    ]
