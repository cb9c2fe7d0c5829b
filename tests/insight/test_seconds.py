"""Counting per second, in slots of a twentieth of a second."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.insight.seconds import SLOTS, LastMinute, busiest, busiest_of, slot


def reference(moments: list[float]) -> int:
    """The most moments in any twenty slots in a row, counted one by one."""
    slots = [slot(moment) for moment in moments]
    return max((sum(first <= other < first + SLOTS for other in slots) for first in slots), default=0)


@given(st.lists(st.floats(0, 30), max_size=60))
def test_the_busiest_second_is_found_wherever_it_begins(moments: list[float]) -> None:
    """Slot by slot or from those that had any: the same as counting one by one."""
    counts: dict[int, int] = {}
    for moment in moments:
        counts[slot(moment)] = counts.get(slot(moment), 0) + 1
    assert busiest_of(counts) == reference(moments)
    assert busiest([counts.get(number, 0) for number in range(slot(31.0))]) == reference(moments)


def test_a_second_that_straddles_two() -> None:
    """Half of them late in one second and half early in the next are one second's worth."""
    assert busiest_of({SLOTS - 1: 50, SLOTS: 50}) == 100


def test_a_second_is_no_longer_than_that() -> None:
    """What is twenty slots apart is not in the same second."""
    assert busiest_of({0: 1, SLOTS - 1: 1}) == 2
    assert busiest_of({0: 1, SLOTS: 1}) == 1


@pytest.mark.parametrize("counts", [[], [3], [1] * (SLOTS - 1)])
def test_less_than_a_second(counts: list[int]) -> None:
    """Of less than a second, all is in the busiest one."""
    assert busiest(counts) == sum(counts)


@given(st.lists(st.floats(0, 200), max_size=80), st.floats(0, 30))
def test_the_last_minute_against_counting_one_by_one(moments: list[float], later: float) -> None:
    """Total and peak are of the 1,200 slots up to now, and of no others."""
    minute = LastMinute()
    for moment in sorted(moments):
        minute.add(moment)
    now = max(moments, default=0.0) + later
    within = [moment for moment in moments if slot(moment) > slot(now) - 60 * SLOTS]
    assert minute.total_and_peak(now) == (len(within), reference(within))


def test_what_comes_late_counts_in_its_own_second() -> None:
    """A handshake that was answered after 30 s was attempted then; one of over a minute ago is not counted."""
    minute = LastMinute()
    minute.add(100.0)
    minute.add(70.0)
    minute.add(70.5)
    minute.add(39.0)
    assert minute.total_and_peak(100.0) == (3, 2)
    assert minute.total_and_peak(131.0) == (1, 1)
    assert minute.total_and_peak(1000.0) == (0, 0)
