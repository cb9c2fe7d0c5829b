"""The bound on the number of series."""

import pytest

from exporter import closecodes, events
from exporter.closecodes import Vocabulary
from exporter.metrics import catalogue
from exporter.metrics.bounds import most_series, most_series_of
from exporter.metrics.catalogue import Metric
from exporter.metrics.recorder import Recorder


@pytest.mark.parametrize(
    ("metric", "most"),
    [
        (catalogue.HANDSHAKES, 1 + 11 + 3 + 2),
        (catalogue.CONNECTIONS_ACTIVE, 1),
        (catalogue.CONNECTION_DURATION, 11 + 3),
        (catalogue.CLOSES, (15 + 2 + 3 + 3) * len(events.INITIATORS)),
        (catalogue.MESSAGE_SIZE, 2 * 2 * (17 + 3)),
        (catalogue.MESSAGE_SIZE_LIMIT, 2 * 3),
        (catalogue.MESSAGE_LIMIT_RATIO, 2 * (7 + 3)),
        (catalogue.OVERSIZE, 2 * 2 * (17 + 3)),
        (catalogue.RECONNECT_DELAY, 4 * (12 + 3)),
        (catalogue.MASS_CLOSES, 6),
        (catalogue.MASS_CLOSE_RETURNS, 5),
        (catalogue.BUILD_RECONNECTS, 0),
        (catalogue.CLOSE_CODE_INFO, len(closecodes.REGISTRY)),
        (catalogue.BUILD_INFO, 1),
    ],
    ids=lambda value: value.name if isinstance(value, Metric) else "",
)
def test_most_series_of_a_family(metric: Metric, most: int) -> None:
    """What labels can be combined: a class per code and an outcome per status add nothing.

    A histogram has a series for each bucket, one for +Inf, its sum and its count.
    """
    assert most_series(metric) == most


def test_a_label_without_a_bound() -> None:
    """A family with a label whose values nobody bounded has no bound, which must not go unnoticed."""
    strange = Metric("websocket_strange_total", "counter", "Strange.", (*catalogue.ORIGIN_LABELS, "colour"))
    with pytest.raises(LookupError, match="colour"):
        most_series(strange)


def test_most_series_of_everything() -> None:
    """Each target adds the same number, and each code that it lists one more for every initiator."""
    plain = Vocabulary(frozenset(), frozenset())
    listing = Vocabulary(frozenset({4001, 4002}), frozenset({3001}))
    none, one, two = (most_series_of([plain] * count, 12) for count in range(3))
    assert two - one == one - none > 200
    assert most_series_of([listing], 12) - one == 3 * len(events.INITIATORS)
    assert most_series_of([], 13) - none == 1


@pytest.mark.parametrize("sources", [1, 3])
def test_most_series_of_builds(sources: int) -> None:
    """Each client build that any target lists adds one for each `within`, under each source."""
    plain = Vocabulary(frozenset(), frozenset())
    without = most_series_of([plain], 12, sources)
    assert most_series_of([plain], 12, sources, builds=7) - without == sources * 7 * 4


def test_everything_that_is_born_is_within_the_bound() -> None:
    """With limits, builds and listed codes, after every gauge that insights set."""
    recorder = Recorder(lambda: 0.0)
    origin = events.Origin("tap", "chat")
    recorder.watch(origin, Vocabulary(frozenset({4001}), frozenset()), ("acme-app/*", "okhttp/*"))
    brackets = dict.fromkeys(events.DIRECTIONS, events.Bracket(1, 2))
    recorder.standings = lambda: {origin: events.Standing(1, 1, True, 1, 1, brackets)}
    for direction in events.DIRECTIONS:
        recorder.message_size_limit(origin, direction, 1000)
    found = {family.name: len(family.samples) for family in recorder.collect()}
    listed = {catalogue.BUILD_RECONNECTS: 2 * 4, catalogue.CLOSES: len(events.INITIATORS)}
    for metric in catalogue.METRICS:
        if metric.labels[:2] == catalogue.ORIGIN_LABELS:
            most = most_series(metric) + listed.get(metric, 0)
            assert found[metric.name.removesuffix("_total")] <= most, metric.name
