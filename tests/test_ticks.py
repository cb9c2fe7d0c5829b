"""The tick: two packages that may not know each other agree on it."""

from exporter.insight import insight
from exporter.wire import sizes


def test_a_tick_is_the_same_for_all() -> None:
    """Whoever has the clock tells the time in the unit by which the meters tell age."""
    assert insight.TICKS_PER_SECOND == sizes.TICKS_PER_SECOND
