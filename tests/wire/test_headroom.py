"""Sizes as shares of a configured limit: exact, whatever the sizes, the limit, and what changes when."""

from collections.abc import Iterable, Sequence
from fractions import Fraction

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from exporter.metrics.catalogue import MESSAGE_LIMIT_RATIO
from exporter.wire.sizes import UNLIMITED, Headroom, MessageSizes
from tests.wire.support import BINARY, CONTINUATION, RATIOS, TEXT, Metered, close, frame, no_sizes

LARGEST = (1 << 63) - 1
"""The largest payload, and limit (RFC 6455 section 5.2)."""


def shares(sizes: Iterable[tuple[int, int]]) -> list[int]:
    """What counting each size as a share of its limit gives, bucket by bucket; the last one is above all bounds."""
    counts = [0] * (len(RATIOS) + 1)
    for size, limit in sizes:
        within = [Fraction(size, limit) <= Fraction(str(bound)) for bound in RATIOS]
        counts[within.index(True) if any(within) else len(RATIOS)] += 1
    return counts


def counted(limit: int, *sizes: int) -> list[int]:
    """What a meter counts of plain messages with these sizes, without their payloads."""
    metered = Metered("server")
    metered.sizes.limit(limit)
    for size in sizes:
        whole = frame(BINARY, length=size)
        metered.meter.feed(whole + bytes(size) if size < 1 << 17 else whole)
        if size >= 1 << 17:
            metered.meter.feed(Endless(size))  # type: ignore[arg-type]
    found = metered.sizes.headroom.shares()
    assert found is not None
    assert found[1] == pytest.approx(sum(size / limit for size in sizes))
    return found[0]


class Endless:
    """So many bytes of payload, which a meter skips by their number alone."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size


def test_bounds_are_those_of_the_catalogue() -> None:
    """The tests of this floor use what is exposed."""
    assert MESSAGE_LIMIT_RATIO.bounds == RATIOS


@pytest.mark.parametrize(
    ("limit", "size", "bucket"),
    [
        (1 << 20, 0, 0),
        (1 << 20, 104_857, 0),
        (1 << 20, 104_858, 1),
        (1 << 20, (1 << 18), 1),
        (1 << 20, (1 << 18) + 1, 2),
        (1 << 20, 1 << 19, 2),
        (1 << 20, (1 << 19) + 1, 3),
        (1000, 100, 0),
        (1000, 101, 1),
        (1000, 125, 1),
        (1000, 126, 1),
        (1000, 800, 3),
        (1000, 801, 4),
        (1000, 950, 5),
        (1000, 1000, 6),
        (1000, 1001, 7),
        (30, 3, 0),
        (30, 4, 1),
        (1, 0, 0),
        (1, 1, 6),
        (1, 2, 7),
        (1259, 125, 0),
        (1259, 126, 1),
        (1260, 126, 0),
        (1260, 127, 1),
        (655_350, 65_535, 0),
        (655_350, 65_536, 1),
    ],
)
def test_a_share_within_a_bound_is_in_its_bucket(limit: int, size: int, bucket: int) -> None:
    """Bounds are decimal shares and included: exactly at the limit is a share of 1, one byte more is above all."""
    assert counted(limit, size) == [int(index == bucket) for index in range(len(RATIOS) + 1)]


@settings(deadline=None)
@given(st.lists(st.one_of(st.integers(0, 130), st.integers(0, 70_000), st.integers(0, 1 << 60))), st.data())
def test_any_sizes_under_any_limit(sizes: list[int], data: st.DataObject) -> None:
    """The buckets are what an exact division of each size gives."""
    near = st.sampled_from(sizes or [1]).flatmap(
        lambda size: st.sampled_from(
            [max(1, size * numerator // 100 + more) for numerator in (100, 105, 125, 200, 1000) for more in (-1, 0, 1)]
        )
    )
    limit = data.draw(st.one_of(st.integers(1, 2000), st.integers(1, LARGEST), near))
    assert counted(limit, *sizes) == shares((size, limit) for size in sizes)


Step = tuple[str, int]
steps: st.SearchStrategy[Step] = st.one_of(
    st.tuples(st.just("limit"), st.one_of(st.just(0), st.integers(1, 2000), st.integers(1, 1 << 20))),
    st.tuples(st.just("message"), st.one_of(st.integers(0, 130), st.integers(0, 2000), st.integers(65_000, 66_000))),
    st.tuples(st.just("fragments"), st.one_of(st.integers(0, 130), st.integers(0, 66_000))),
    st.tuples(st.just("compressed"), st.integers(0, 2000)),
    st.tuples(st.just("tick"), st.integers(1, 20)),
    st.tuples(st.just("ask"), st.just(0)),
)


def wire(kind: str, size: int) -> bytes:
    """A message on the wire; `compressed` has RSV1."""
    if kind == "fragments":
        first = frame(TEXT, bytes(size // 3), fin=False)
        return first + frame(CONTINUATION, bytes(size - size // 3))
    return frame(BINARY, bytes(size), rsv=4 if kind == "compressed" else 0)


@settings(deadline=None)
@example([("limit", 1000), ("message", 200)], [3], 1)
@example([("message", 5), ("limit", 30), ("message", 4), ("limit", 0), ("message", 3), ("limit", 10)], [0], 2)
@given(st.lists(steps, max_size=20), st.lists(st.integers(0, 1 << 20), min_size=1, max_size=4), st.integers(1, 3))
def test_against_each_message_divided(script: Sequence[Step], places: list[int], connections: int) -> None:
    """Each plain message counts once, as a share of the limit that is in force when its last byte has passed.

    Over changes of the limit (0 is none), splits, ticks, several connections, and compressed messages in between.
    """
    sizes = no_sizes()
    meters = [Metered("server", deflate=True, sizes=sizes) for _ in range(connections)]
    limit, limited, told = 0, False, []
    for number, (kind, value) in enumerate(script):
        if kind == "limit":
            limit = value
            limited = limited or bool(value)
            sizes.limit(value or None)
        elif kind == "tick":
            sizes.tick += value
        elif kind == "ask":
            sizes.headroom.shares()
        else:
            data = wire(kind, value)
            place = places[number % len(places)] % (len(data) + 1)
            meter = meters[number % connections].meter
            meter.feed(data[:place])
            meter.feed(data[place:])
            if limit and kind != "compressed":
                told.append((value, limit))
    found = sizes.headroom.shares()
    if not limited:
        assert found is None
        return
    assert found is not None
    counts, total = found
    assert counts == shares(told)
    assert total == pytest.approx(sum(size / limit for size, limit in told))


@pytest.mark.parametrize("size", [5, 1000, 66_000])
def test_a_message_under_way_is_a_share_of_the_limit_at_its_end(size: int) -> None:
    """Whoever raises a limit while it passes sees it as one of the new limit's."""
    metered = Metered("server")
    metered.sizes.limit(size)
    data = frame(BINARY, bytes(size))
    metered.meter.feed(data[:-1])
    metered.sizes.limit(2 * size)
    metered.meter.feed(data[-1:])
    assert metered.sizes.headroom.shares() == ([0, 0, 1, 0, 0, 0, 0, 0], 0.5)


def test_without_a_limit_there_is_nothing() -> None:
    """Not even zeros: a share of nothing says nothing. Taking a limit away keeps what was counted, for good."""
    metered = Metered("server")
    metered.meter.feed(frame(BINARY, bytes(500)))
    assert metered.sizes.headroom.shares() is None
    metered.sizes.limit(1000)
    assert metered.sizes.headroom.shares() == ([0] * 8, 0.0)
    metered.sizes.limit(None)
    assert metered.sizes.headroom.shares() == ([0] * 8, 0.0)
    metered.meter.feed(frame(BINARY, bytes(500)))
    assert metered.sizes.headroom.shares() == ([0] * 8, 0.0)


def test_the_same_limit_again_changes_nothing() -> None:
    """As at a reload of an unchanged file."""
    metered = Metered("server")
    for _ in range(3):
        metered.sizes.limit(1000)
        metered.meter.feed(frame(BINARY, bytes(500)) + frame(BINARY, bytes(100)))
    assert metered.sizes.headroom.shares() == ([3, 0, 3, 0, 0, 0, 0, 0], pytest.approx(1.8))


def test_a_copy_has_the_shares_of_its_moment() -> None:
    """Neither later messages nor another limit reach it, over earlier limits too."""
    metered = Metered("server")
    metered.sizes.limit(500)
    metered.meter.feed(frame(BINARY, bytes(400)))
    metered.sizes.limit(1000)
    metered.meter.feed(frame(BINARY, bytes(100)) + frame(BINARY, bytes(900)))
    moment = metered.sizes.headroom.copy()
    metered.meter.feed(frame(BINARY, bytes(100)) + frame(BINARY, bytes(900)))
    metered.sizes.limit(2000)
    assert moment.shares() == ([1, 0, 0, 1, 1, 0, 0, 0], pytest.approx(1.8))
    assert metered.sizes.headroom.shares() == ([2, 0, 0, 1, 2, 0, 0, 0], pytest.approx(2.8))


@pytest.mark.parametrize(
    ("limit", "near"),
    [(None, UNLIMITED), (1, 125), (1259, 125), (1260, 126), (1 << 20, 104_857), (LARGEST, LARGEST // 10)],
)
def test_what_is_looked_at_by_itself(limit: int | None, near: int) -> None:
    """Only messages over a tenth of the limit, and of these not the small ones, whose sizes are known anyway."""
    assert Headroom(MessageSizes(), RATIOS).change(limit) == near


def test_compressed_messages_are_not_held_against_a_limit() -> None:
    """A limit applies to what the receiver inflates; of plain ones on the same connection the size is known."""
    metered = Metered("server", deflate=True)
    metered.sizes.limit(1000)
    compressed = [frame(BINARY, bytes(size), rsv=4) for size in (100, 600, 70_000)]
    fragmented = frame(TEXT, bytes(400), fin=False, rsv=4) + frame(CONTINUATION, bytes(400))
    metered.meter.feed(b"".join(compressed) + fragmented + frame(BINARY, bytes(600)))
    assert metered.sizes.headroom.shares() == ([0, 0, 0, 1, 0, 0, 0, 0], 0.6)
    assert metered.sizes.compressed.cumulative(())[1] == 4


def test_what_is_not_counted_has_no_share() -> None:
    """Data behind a Close frame, and messages that never end."""
    metered = Metered("server")
    metered.sizes.limit(1000)
    metered.meter.feed(frame(TEXT, bytes(600), fin=False))
    metered.meter.feed(close(1009) + frame(BINARY, bytes(600)))
    assert metered.sizes.headroom.shares() == ([0] * 8, 0.0)
