"""The recorder's memory, and what becomes of it in the exposition."""

import pytest
from prometheus_client import CollectorRegistry, Metric, generate_latest

from exporter.metrics import catalogue
from exporter.metrics.series import Histogram, Values, histogram_family

COUNTER = catalogue.Metric("things_total", "counter", "Things.", ("kind",))
GAUGE = catalogue.Metric("heat", "gauge", "Heat.")
SIZES = catalogue.Metric("size_bytes", "histogram", "Sizes.", ("side",), (128.0, 65536.0, 1048576.0))


class One:
    """A collector of one family."""

    def __init__(self, family: Metric) -> None:
        self.family = family

    def collect(self) -> list[Metric]:
        return [self.family]


def exposed(family: Metric) -> list[str]:
    """The lines of one family in the classic text format."""
    registry = CollectorRegistry()
    registry.register(One(family))
    return generate_latest(registry).decode().splitlines()


def test_a_counter() -> None:
    """A counter's series are exposed under the name that the catalogue spells, with their labels in its order."""
    things = Values(COUNTER)
    things.born("rare")
    things.add("common")
    things.add("common", by=2)
    assert exposed(things.family()) == [
        "# HELP things_total Things.",
        "# TYPE things_total counter",
        'things_total{kind="rare"} 0.0',
        'things_total{kind="common"} 3.0',
    ]


def test_a_gauge_without_labels() -> None:
    """A gauge can be set, and go down."""
    heat = Values(GAUGE)
    heat.set(5.0)
    heat.add(by=-2.0)
    assert exposed(heat.family()) == ["# HELP heat Heat.", "# TYPE heat gauge", "heat 3.0"]


def test_being_born_again() -> None:
    """A series that exists keeps its value when it is born once more, as at a reload."""
    things, sizes = Values(COUNTER), Histogram(SIZES)
    things.add("common")
    things.born("common")
    sizes.observe(1.0, "client")
    sizes.born("client")
    assert things.values == {("common",): 1.0}
    assert sizes.series["client",].counts == [1, 0, 0, 0]


@pytest.mark.parametrize(
    ("value", "counts"),
    [
        (0.0, [1, 0, 0, 0]),
        (128.0, [1, 0, 0, 0]),
        (128.1, [0, 1, 0, 0]),
        (65536.0, [0, 1, 0, 0]),
        (1048576.0, [0, 0, 1, 0]),
        (1e12, [0, 0, 0, 1]),
    ],
)
def test_the_bucket_of_a_value(value: float, counts: list[int]) -> None:
    """A value counts for the smallest bound that it does not exceed."""
    sizes = Histogram(SIZES)
    sizes.observe(value, "client")
    assert sizes.series["client",].counts == counts
    assert sizes.series["client",].total == value


def test_a_histogram() -> None:
    """Buckets are cumulative; bounds are spelled as prometheus_client spells them, so that rules can name them."""
    sizes = Histogram(SIZES)
    for value in (1.0, 70000.0, 2e6):
        sizes.observe(value, "client")
    assert exposed(sizes.family()) == [
        "# HELP size_bytes Sizes.",
        "# TYPE size_bytes histogram",
        'size_bytes_bucket{le="128.0",side="client"} 1.0',
        'size_bytes_bucket{le="65536.0",side="client"} 1.0',
        'size_bytes_bucket{le="1.048576e+06",side="client"} 2.0',
        'size_bytes_bucket{le="+Inf",side="client"} 3.0',
        'size_bytes_count{side="client"} 3.0',
        'size_bytes_sum{side="client"} 2.070001e+06',
    ]


def test_a_histogram_from_cumulative_counts() -> None:
    """Buckets that were counted elsewhere are exposed as they are."""
    family = histogram_family(SIZES, [(("server",), [1, 2, 3, 4], 5.0)])
    values = {sample.labels.get("le", sample.name): sample.value for sample in family.samples}
    assert values == {
        "128.0": 1,
        "65536.0": 2,
        "1.048576e+06": 3,
        "+Inf": 4,
        "size_bytes_count": 4,
        "size_bytes_sum": 5,
    }


def test_copies_stand_on_their_own() -> None:
    """What happens after a copy was taken does not show in it."""
    things, sizes = Values(COUNTER), Histogram(SIZES)
    sizes.born("client")
    copied_things, copied_sizes = things.copy(), sizes.copy()
    things.add("common")
    sizes.observe(1.0, "client")
    sizes.observe(1.0, "server")
    assert copied_things.values == {}
    assert [*copied_sizes.series] == [("client",)]
    assert copied_sizes.series["client",].counts == [0, 0, 0, 0]
