"""The pieces of an exposition, against prometheus_client rendering it whole."""

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Enum, Gauge, Histogram, Info, Metric, Summary
from prometheus_client.core import (
    GaugeHistogramMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    UnknownMetricFamily,
)
from prometheus_client.registry import Collector

from exporter.web.exposition import OPENMETRICS, PART, TEXT, Format, negotiate, pieces

FORMATS = {"text": TEXT, "openmetrics": OPENMETRICS}


class Families(Collector):
    def __init__(self, *families: Metric) -> None:
        self.families = families

    def collect(self) -> Iterable[Metric]:
        return self.families


def gauge(series: int, *, unit: str = "") -> GaugeMetricFamily:
    family = GaugeMetricFamily("temperature", "Of many\nsensors, \\ all.", labels=["sensor"], unit=unit)
    for number in range(series):
        family.add_metric([f'"{number}"\n\\é'], number / 3)
    return family


def gauge_histogram(series: int) -> Metric:
    family = GaugeHistogramMetricFamily("queue", "Sizes.", labels=["queue"])
    for number in range(series):
        family.add_metric([str(number)], [("1.0", 1), ("+Inf", 2)], gsum_value=3)
    return family


def instrumented() -> CollectorRegistry:
    """Every kind of instrument of the library itself, `_created` samples included."""
    registry = CollectorRegistry()
    requests = Counter("requests", "All.", ["path"], registry=registry)
    latency = Histogram("latency_seconds", "Slow.", ["path"], registry=registry)
    for number in range(PART):
        requests.labels(str(number)).inc()
        latency.labels(str(number)).observe(number)
    Gauge("temperature_celsius", "Warm.", registry=registry).set(float("inf"))
    Summary("size", "Big.", registry=registry).observe(1)
    Info("build", "Of this.", registry=registry).info({"version": "1"})
    Enum("state", "Now.", states=["on", "off"], registry=registry).state("off")
    return registry


@pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize(
    "source",
    [
        Families(),
        Families(gauge(0)),
        Families(gauge(1), gauge(PART), gauge(PART + 1), gauge(7 * PART)),
        Families(gauge(3 * PART, unit="celsius")),
        Families(UnknownMetricFamily("mystery", "?", 1)),
        Families(gauge_histogram(PART)),
        instrumented(),
    ],
    ids=["nothing", "no series", "many series", "unit", "untyped", "gauge histogram", "instruments"],
)
def test_the_pieces_join_to_what_the_library_gives(source: Collector, form: Format) -> None:
    """Joined, the pieces equal prometheus_client's own exposition byte for byte, with one end mark where it has one."""
    joined = b"".join(pieces(source.collect(), form))
    assert joined == form.generate(source)
    assert joined.count(b"# EOF\n") == (form is OPENMETRICS)


@given(sizes=st.lists(st.integers(0, 3 * PART), max_size=5))
def test_any_mixture_of_sizes_joins_alike(sizes: list[int]) -> None:
    """Where the cuts fall does not show."""
    source = Families(*(gauge(size) for size in sizes))
    for form in FORMATS.values():
        assert b"".join(pieces(source.collect(), form)) == form.generate(source)


@pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS)
def test_no_piece_has_more_series_than_can_be_rendered_in_a_moment(form: Format) -> None:
    """One family of any size comes in pieces of at most PART series."""
    family = HistogramMetricFamily("sizes", "Many.", labels=["target"])
    for number in range(200):
        family.add_metric([str(number)], [(str(float(bound)), bound) for bound in range(15)] + [("+Inf", 15)], 1.0)
    assert len(family.samples) > 3000
    counts = [sum(not line.startswith(b"#") for line in piece.splitlines()) for piece in pieces([family], form)]
    assert max(counts) == PART
    assert sum(counts) == len(family.samples)


def test_families_are_asked_for_one_at_a_time() -> None:
    """A collector that builds its families lazily builds each only when it is about to be rendered."""
    built = []

    def lazily() -> Iterable[Metric]:
        for number in range(3):
            built.append(number)
            yield gauge(1)

    rendering = pieces(lazily(), TEXT)
    assert built == []
    next(rendering)
    assert built == [0]
    next(rendering)
    assert built == [0, 1]


PROMETHEUS_3 = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,"
    "text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)
PROMETHEUS_2 = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        (PROMETHEUS_3, OPENMETRICS),
        (PROMETHEUS_2, OPENMETRICS),
        ("application/openmetrics-text", OPENMETRICS),
        ("Application/OpenMetrics-Text; version=1.0.0; charset=utf-8", OPENMETRICS),
        ("application/openmetrics-text;version=2.0.0,application/openmetrics-text;q=0.5", OPENMETRICS),
        ("", TEXT),
        ("*/*", TEXT),
        ("text/plain", TEXT),
        ("text/html,application/xhtml+xml,*/*;q=0.8", TEXT),
        ("text/plain;version=0.0.4,application/openmetrics-text;q=0.9", TEXT),
        ("application/openmetrics-text;q=0,*/*", TEXT),
        ("application/openmetrics-text;q=0", TEXT),
        ("application/openmetrics-text;version=2.0.0", TEXT),
        ("application/openmetrics-text;version=x", TEXT),
        ("image/png", TEXT),
        ("application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited", TEXT),
    ],
)
def test_the_format_is_the_one_most_wanted_of_those_there_are(accept: str, form: Format) -> None:
    """OpenMetrics 1.0 where a client prefers it, by weight; the classic text in every other case."""
    assert negotiate(accept) is form
