"""Quantiles of a histogram, one series for each rank, job, target and source."""

from dashboards.pieces import Query
from dashboards.promql import ORIGIN, shown
from dashboards.style import WHO
from exporter.metrics.catalogue import Metric


def quantiles(metric: Metric, ranks: tuple[float, ...], *by: str, **match: str) -> list[Query]:
    prefix = "".join(f"{{{{{label}}}}} " for label in by)
    return [
        Query(
            shown.quantile(rank, metric, (*ORIGIN, *by), **match),
            f"{'largest' if rank == 1 else f'p{rank * 100:g}'} {prefix}{WHO}",
        )
        for rank in ranks
    ]
