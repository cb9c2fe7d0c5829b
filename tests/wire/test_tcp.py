"""One direction put together again, whatever the network and the capture did to its segments."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.wire.frames import Chunk
from exporter.wire.tcp import (
    FEW_HELD,
    FEW_HELD_BYTES,
    MASK,
    MOST_BRIDGED,
    MOST_HELD,
    MOST_HELD_BYTES,
    NEVER,
    Stream,
    ahead_of,
)


@dataclass
class Taker:
    """Takes what comes in order; knows the payload of so many of the next bytes."""

    known: int = 0
    taken: bytearray = field(default_factory=bytearray)
    gaps: list[tuple[int, int]] = field(default_factory=list)  # where, and of how many bytes
    times: list[int] = field(default_factory=list)

    def take(self, stream: "Stream[Taker]", data: Chunk, at: int) -> None:
        self.taken += data
        self.times.append(at)
        self.known = max(0, self.known - len(data))

    def known_payload(self, stream: "Stream[Taker]") -> int:
        return self.known

    def gap(self, stream: "Stream[Taker]", size: int) -> None:
        self.gaps.append((len(self.taken), size))


def stream_from(first: int, known: int = 0) -> tuple[Stream[Taker], Taker]:
    taker = Taker(known)
    return Stream(taker, "client", first), taker


@pytest.mark.parametrize(
    ("sequence", "reference", "ahead"),
    [(5, 3, 2), (3, 5, -2), (2, MASK, 3), (MASK, 2, -3), (1 << 31, 0, -(1 << 31)), ((1 << 31) - 1, 0, (1 << 31) - 1)],
)
def test_distance_wraps_around(sequence: int, reference: int, ahead: int) -> None:
    assert ahead_of(sequence, reference) == ahead


Cut = tuple[int, int]


@st.composite
def cuts(draw: st.DrawFn) -> tuple[bytes, int, Sequence[Cut]]:
    """A stream, where it begins, and segments of it that cover it: any order, twice, overlapping."""
    data = draw(st.binary(min_size=1, max_size=200))
    first = draw(st.one_of(st.integers(0, MASK), st.integers(MASK - 150, MASK)))
    places = sorted(draw(st.sets(st.integers(1, len(data) - 1), max_size=12))) if len(data) > 1 else []
    pieces = list(zip([0, *places], [*places, len(data)], strict=True))
    extra = draw(st.lists(st.tuples(st.integers(0, len(data) - 1), st.integers(1, 40)), max_size=6))
    pieces += [(begin, min(len(data), begin + size)) for begin, size in extra]
    return data, first, draw(st.permutations(pieces))


@given(cuts())
def test_any_order_and_any_repetition_gives_the_stream(cut: tuple[bytes, int, Sequence[Cut]]) -> None:
    data, first, pieces = cut
    stream, taker = stream_from(first)
    for at, (begin, end) in enumerate(pieces):
        stream.segment(first + begin & MASK, data[begin:end], at)
    assert bytes(taker.taken) == data
    assert taker.gaps == []
    assert (stream.next, stream.waiting_since, stream.held_bytes) == (first + len(data) & MASK, None, 0)


@given(cuts(), st.integers(0, 2**30))
def test_what_is_missing_is_said_and_nothing_else_is_wrong(cut: tuple[bytes, int, Sequence[Cut]], seed: int) -> None:
    data, first, pieces = cut
    stream, taker = stream_from(first)
    kept = [piece for piece in pieces if Random(seed).random() < 0.7 or piece[1] == len(data)]
    for begin, end in kept:
        stream.segment(first + begin & MASK, data[begin:end], 0)
    while stream.waiting_since is not None:
        stream.give_up()
    seen = set().union(*(range(begin, end) for begin, end in kept))
    last = max(seen, default=-1) + 1
    assert bytes(taker.taken) == bytes(data[place] for place in sorted(seen))
    assert sum(size for _, size in taker.gaps) == last - len(seen)


def test_a_gap_within_known_payload_is_no_gap() -> None:
    stream, taker = stream_from(1000, known=50)
    stream.segment(1030, b"x" * 20, 7)
    assert len(taker.taken) == 50
    stream.segment(1000, b"y" * 30, 8)  # sent again after all
    assert (len(taker.taken), taker.gaps, stream.next) == (50, [], 1050)


def test_a_gap_that_reaches_beyond_known_payload_is_waited_for() -> None:
    stream, taker = stream_from(1000, known=29)
    stream.segment(1030, b"x" * 20, 7)
    assert (taker.taken, stream.waiting_since) == (b"", 7)
    stream.segment(1000, b"y" * 30, 9)
    assert taker.taken == b"y" * 30 + b"x" * 20
    assert taker.times == [9, 7]


def test_payload_becomes_known_while_segments_are_held() -> None:
    """The header comes late: what is missing behind it need not come at all."""
    stream, taker = stream_from(0)
    stream.segment(100, b"z" * 10, 1)
    taker.known = 100 + 10  # as the header that comes now declares
    stream.segment(0, b"h" * 10, 2)
    assert (len(taker.taken), stream.next, taker.gaps) == (110, 110, [])


def test_a_full_hold_gives_up_the_gap() -> None:
    stream, taker = stream_from(0)
    for number in range(MOST_HELD + 1):
        stream.segment(10 + 2 * number, b"x", 0)
    assert taker.gaps[0] == (0, 10)
    assert stream.held_bytes <= MOST_HELD
    stream, taker = stream_from(0)
    for number in range(17):
        stream.segment(10 + (number << 16), bytes(1 << 16), 0)
    assert stream.held_bytes <= MOST_HELD_BYTES
    assert taker.gaps == [(0, 10)]


def test_a_hold_that_is_to_be_small_gives_up_the_gap() -> None:
    stream, taker = stream_from(0)
    for number in range(FEW_HELD):
        stream.segment(10 + number, b"x", 0)
    stream.hold_few()
    assert (stream.held_bytes, taker.gaps) == (FEW_HELD, [])
    stream.segment(10 + FEW_HELD, b"x", 0)
    stream.hold_few()
    assert (stream.held_bytes, taker.gaps, len(taker.taken)) == (0, [(0, 10)], FEW_HELD + 1)
    stream.segment(100, bytes(FEW_HELD_BYTES), 0)
    stream.hold_few()
    assert stream.held_bytes == FEW_HELD_BYTES
    stream.segment(100 + FEW_HELD_BYTES, b"x", 0)
    stream.direct = True
    stream.hold_few()
    assert (stream.held_bytes, stream.expected) == (0, 101 + FEW_HELD_BYTES)


def test_nobody_reads_what_is_unread() -> None:
    stream, _ = stream_from(0)
    assert stream.meter.glance(b"\x81\x01", 0, 2)
    stream.meter.feed(b"anything")


def test_the_same_segment_again_and_again_takes_no_room() -> None:
    stream, taker = stream_from(0)
    for _ in range(3 * MOST_HELD):
        stream.segment(10, b"early", 0)
        stream.segment(10, b"ear", 0)
    assert (stream.held_bytes, taker.gaps) == (5, [])


def test_fin_behind_a_gap() -> None:
    stream, taker = stream_from(0)
    stream.segment(10, b"last", 3, 14)
    assert (stream.finished, stream.waiting_since) == (False, 3)
    stream.segment(0, bytes(10), 4)
    assert (stream.finished, stream.waiting_since, len(taker.taken)) == (True, None, 14)


def test_a_bare_fin_whose_data_was_missed() -> None:
    stream, taker = stream_from(0)
    stream.segment(10, b"", 3, 10)
    assert (stream.finished, stream.waiting_since) == (False, 3)
    stream.give_up()
    assert (stream.finished, stream.waiting_since, taker.gaps) == (True, None, [(0, 10)])


def test_a_late_fin_of_nothing_new_is_none() -> None:
    stream, _ = stream_from(100)
    stream.segment(20, b"old", 0, 23)
    assert (stream.end, stream.finished) == (NEVER, False)


def test_straight_to_the_meter_only_while_nothing_is_in_the_way() -> None:
    stream, _ = stream_from(0)
    stream.direct = True
    stream.segment(0, b"a", 0)
    assert stream.expected == stream.next == 1
    stream.segment(5, b"b", 0)
    assert (stream.expected, stream.next) == (NEVER, 1)
    stream.segment(1, b"cccc", 0)
    assert stream.expected == stream.next == 6
    stream.segment(6, b"", 0, 6)
    assert (stream.expected, stream.next, stream.finished) == (NEVER, 6, True)


def test_what_was_acknowledged_is_not_waited_for() -> None:
    stream, taker = stream_from(0)
    stream.segment(10, b"held", 5)
    stream.sent(10)
    assert (taker.taken, taker.gaps, stream.waiting_since) == (b"held", [(0, 10)], None)
    stream.sent(20)
    assert (taker.gaps, stream.next) == ([(0, 10), (4, 6)], 20)
    stream.sent(15)
    assert stream.next == 20


def test_what_was_acknowledged_within_known_payload() -> None:
    stream, taker = stream_from(0, known=10)
    stream.direct = True
    stream.sent(8)
    assert (len(taker.taken), taker.gaps, stream.expected) == (8, [], 8)


def test_an_acknowledged_fin_is_no_byte() -> None:
    stream, taker = stream_from(0)
    stream.segment(0, b"all", 0, 3)
    stream.sent(4)
    assert (taker.gaps, stream.finished) == ([], True)


def test_a_fin_behind_what_was_cut() -> None:
    """The capture kept less than was sent: the end is not there yet."""
    stream, taker = stream_from(0)
    stream.segment(0, b"cut", 3, 50)
    assert (stream.finished, stream.waiting_since) == (False, 3)
    stream.give_up()
    assert (stream.finished, taker.gaps) == (True, [(3, 47)])


def test_a_jump_forgets_what_was_held() -> None:
    stream, taker = stream_from(1000)
    stream.segment(1010, b"held", 0)
    stream.jump(500)
    assert (stream.next, stream.waiting_since, stream.held_bytes, taker.gaps) == (500, None, 0, [(0, MASK + 1 - 500)])


def test_a_gap_too_long_to_pass_over() -> None:
    stream, taker = stream_from(0, known=1 << 40)
    stream.segment(MOST_BRIDGED + 1, b"x", 7)
    assert (taker.taken, stream.waiting_since) == (b"", 7)


def test_a_fin_whose_own_number_was_acknowledged_before_it_was_seen() -> None:
    stream, _ = stream_from(0)
    stream.segment(0, b"all", 0)
    stream.sent(4)
    stream.segment(3, b"", 0, 3)
    assert stream.finished
