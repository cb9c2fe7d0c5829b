"""What a program says of itself on /metrics."""

import contextlib
from collections.abc import Sequence
from http.client import HTTPConnection
from typing import Final

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

MESSAGES: Final = "websocket_message_size_bytes_count"
ACTIVE: Final = "websocket_connections_active"
BUFFERED: Final = "websocket_exporter_tap_buffered_bytes"
WEBHOOK_EVENTS: Final = "websocket_exporter_webhook_events_total"
WEBHOOK_IDS: Final = "websocket_exporter_webhook_ids"
LAG_BUCKET: Final = "websocket_exporter_event_loop_lag_seconds_bucket"


def scrape(web_port: int) -> list[Sample]:
    """Every sample of this moment."""
    with contextlib.closing(HTTPConnection("127.0.0.1", web_port, timeout=20)) as connection:
        connection.request("GET", "/metrics", headers={"Connection": "close"})
        body = connection.getresponse().read().decode()
    return [sample for family in text_string_to_metric_families(body) for sample in family.samples]


def total(samples: Sequence[Sample], name: str, **labels: str) -> float:
    """The sum of the samples with this name and these labels, over all others."""
    return sum(sample.value for sample in samples if sample.name == name and labels.items() <= sample.labels.items())


def lag_buckets(samples: Sequence[Sample]) -> dict[float, float]:
    """How often the event loop woke up so many seconds late or less."""
    return {float(sample.labels["le"]): sample.value for sample in samples if sample.name == LAG_BUCKET}


def quantile(share: float, buckets: dict[float, float]) -> float:
    """A quantile of a histogram, as Prometheus' histogram_quantile has it: linear within a bucket; NaN if empty."""
    rank = share * max(buckets.values(), default=0.0)
    if not rank:
        return float("nan")
    lower, below = 0.0, 0.0
    for bound, count in sorted(buckets.items()):
        if count >= rank:
            return lower if bound == float("inf") else lower + (bound - lower) * (rank - below) / (count - below)
        lower, below = bound, count
    raise AssertionError("the last bucket counts everything")
