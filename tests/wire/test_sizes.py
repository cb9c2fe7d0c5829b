"""Message sizes in slots, against counting them one by one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.metrics.catalogue import SIZE_BOUNDS
from exporter.wire.sizes import MessageSizes
from tests.wire.support import POWERS, histogram, no_sizes

EDGES = sorted({max(0, (1 << power) + near) for power in range(64) for near in (-1, 0, 1)} | {(1 << 64) - 1})

any_size = st.one_of(st.integers(0, 200), st.sampled_from(EDGES), st.integers(0, (1 << 64) - 1))


def counted(sizes: list[int]) -> MessageSizes:
    counts = MessageSizes()
    for size in sizes:
        counts.add(size)
    return counts


@given(st.lists(any_size, max_size=60))
def test_cumulative_counts_are_those_of_counting_each_size_at_each_bound(sizes: list[int]) -> None:
    """At every exported bound, and at every power of two, the count is the number of sizes up to it, exactly."""
    expected = [sum(size <= bound for size in sizes) for bound in SIZE_BOUNDS]
    assert counted(sizes).cumulative(SIZE_BOUNDS) == (expected, len(sizes), sum(sizes))
    assert counted(sizes).cumulative(POWERS) == histogram(sizes)


@pytest.mark.parametrize("bound", SIZE_BOUNDS)
def test_a_size_equal_to_a_bound_counts_below_it_and_the_next_size_above(bound: float) -> None:
    """Bounds are inclusive, as `le` says."""
    place = SIZE_BOUNDS.index(bound)
    at, above = counted([int(bound)]), counted([int(bound) + 1])
    assert at.cumulative(SIZE_BOUNDS)[0] == [0] * place + [1] * (len(SIZE_BOUNDS) - place)
    assert above.cumulative(SIZE_BOUNDS)[0] == [0] * (place + 1) + [1] * (len(SIZE_BOUNDS) - place - 1)


@pytest.mark.parametrize("size", [0, 1, 125])
def test_small_slots_count_by_second_header_byte_masked_or_not(size: int) -> None:
    """A meter may count a small message under its second header byte, mask bit included: it is one message of it."""
    counts = MessageSizes()
    counts.slots[size] += 1
    counts.slots[0x80 | size] += 1
    assert counts.cumulative(POWERS) == histogram([size, size])


def test_nothing_counted_is_zero_everywhere() -> None:
    """Series are born at zero."""
    assert MessageSizes().cumulative(SIZE_BOUNDS) == ([0] * len(SIZE_BOUNDS), 0, 0)


def test_a_copy_stays_what_it_was() -> None:
    """A snapshot has this moment's counts, and later ones do not reach it."""
    counts = counted([1, 1000])
    snapshot = counts.copy()
    counts.add(2)
    assert snapshot.cumulative(POWERS) == histogram([1, 1000])
    assert counts.cumulative(POWERS) == histogram([1, 1000, 2])


@given(st.lists(st.sampled_from(EDGES)), st.lists(st.sampled_from(EDGES)))
def test_what_came_since_a_copy(before: list[int], after: list[int]) -> None:
    """It counts as if nothing had been there before, small sizes one by one."""
    counts = counted(before)
    snapshot = counts.copy()
    for size in after:
        counts.add(size)
    new = counts.since(snapshot)
    assert new.cumulative(POWERS) == histogram(after)
    assert new.small() == [after.count(size) for size in range(126)]


def test_first_byte_finds_the_histogram_of_unfragmented_data_frames_only() -> None:
    """FIN with text or binary has one; RSV1 with them only where permessage-deflate was negotiated (RFC 7692)."""
    sizes = no_sizes()
    plain, compressed = sizes.plain.slots, sizes.compressed.slots
    without = {byte: row for byte, row in enumerate(sizes.by_first_byte) if row is not None}
    negotiated = {byte: row for byte, row in enumerate(sizes.by_first_byte_deflate) if row is not None}
    assert without.keys() == {0x81, 0x82}
    assert negotiated.keys() == {0x81, 0x82, 0xC1, 0xC2}
    assert all(row is plain for row in without.values())
    assert all(negotiated[byte] is (compressed if byte & 0x40 else plain) for byte in negotiated)
