"""How big messages are, in each direction; compressed ones apart."""

from dashboards.panels import bucket_heatmap, time_series
from dashboards.pieces import Heading, Panel
from dashboards.promql import shown
from dashboards.quantiles import quantiles
from exporter.metrics import catalogue


def panels() -> list[Panel]:
    columns = [
        (direction, label, compressed)
        for direction, label in (("client_to_server", "Client to server"), ("server_to_client", "Server to client"))
        for compressed in ("false", "true")
    ]
    heatmaps: list[Panel] = []
    sizes: list[Panel] = []
    for direction, label, compressed in columns:
        title = f"{label}, compressed" if compressed == "true" else label
        caveat = (
            "Sizes on the wire after compression: limits apply to what they expand to, so 1009 can come from far below "
            "the limit."
            if compressed == "true"
            else "These sizes are what the receiver's limit applies to."
        )
        heatmaps.append(
            bucket_heatmap(
                Heading(
                    title,
                    "Messages per size bucket, all shown targets together. A band that creeps upwards will meet the "
                    f"limit one day. {caveat}",
                ),
                "bytes",
                shown.buckets(catalogue.MESSAGE_SIZE, direction=direction, compressed=compressed),
                width=6,
            )
        )
        sizes.append(
            time_series(
                Heading(
                    f"{title}: p50, p99, largest",
                    "Quantiles of the message size; largest is the upper bound of the largest bucket in use. Largest "
                    f"far above p99: a few outliers are the ones to send in chunks. {caveat}",
                ),
                "bytes",
                *quantiles(catalogue.MESSAGE_SIZE, (0.5, 0.99, 1), direction=direction, compressed=compressed),
                width=6,
                log_base=2,
            )
        )
    return heatmaps + sizes
