"""How old messages are: which the receiver may be refusing, and which it has accepted."""

from collections.abc import Callable, Sequence
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.events import Passing, Side
from exporter.wire.frames import SETTLED
from exporter.wire.sizes import TICKS_PER_SECOND
from tests.wire.support import BINARY, CLOSE, CONTINUATION, KEY, PING, TEXT, Metered, frame, splits

KEYS: dict[Side, bytes | None] = {"client": KEY, "server": None}


def message(size: int, side: Side = "client") -> bytes:
    """One unfragmented message."""
    return frame(BINARY, bytes(size), key=KEYS[side])


def fragments(*sizes: int, side: Side = "client") -> bytes:
    """One message in fragments of these sizes."""
    last = len(sizes) - 1
    return b"".join(
        frame(CONTINUATION if number else TEXT, bytes(size), fin=number == last, key=KEYS[side])
        for number, size in enumerate(sizes)
    )


class Aged(Metered):
    """A meter whose clock goes on by hand."""

    def at(self, tick: int, data: bytes = b"") -> "Aged":
        """Let `data` pass in this tick; an empty read, or nothing that completes a message, only shows the time."""
        self.sizes.tick = tick
        self.meter.feed(data)
        return self

    @property
    def accepted(self) -> int:
        return self.sizes.accepted

    def seen(self) -> tuple[int, int, int]:
        """The sizes of `Passing`."""
        passing = self.meter.passing()
        return passing.unfinished, passing.last_second, passing.recent


def test_a_tick_is_half_a_second() -> None:
    """A message is settled after 5 seconds, counted in ticks."""
    assert TICKS_PER_SECOND == 2
    assert SETTLED == 10


SHAPES: dict[str, Callable[[Side], bytes]] = {
    "short": lambda side: message(100, side),
    "16-bit length": lambda side: message(300, side),
    "64-bit length": lambda side: frame(BINARY, bytes(70_000), key=KEYS[side]),
    "64-bit length where 16 would do": lambda side: frame(BINARY, bytes(300), key=KEYS[side], width=8),
    "fragments": lambda side: fragments(100, 0, 200, side=side),
    "fragments around a Ping": lambda side: (
        frame(TEXT, bytes(5), fin=False, key=KEYS[side])
        + frame(PING, b"?", key=KEYS[side])
        + frame(CONTINUATION, bytes(6), key=KEYS[side])
    ),
}
SIZES = {
    "short": 100,
    "16-bit length": 300,
    "64-bit length": 70_000,
    "64-bit length where 16 would do": 300,
    "fragments": 300,
    "fragments around a Ping": 11,
}


@pytest.mark.parametrize("side", ["client", "server"])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_life_of_a_message(shape: str, side: Side) -> None:
    """However it comes: of the last second, of the last 5 s, of neither, and accepted after more than 5 s."""
    size = SIZES[shape]
    for pieces in splits(SHAPES[shape](side)):
        if len(pieces) > 1000:
            continue  # byte by byte is what the shorter ones are for
        aged = Aged(side)
        aged.sizes.tick = 7
        for piece in pieces:
            aged.meter.feed(piece)
        told = []
        for tick in range(7, 20):
            aged.sizes.tick = tick
            passing = aged.meter.passing()
            told.append((passing.last_second, passing.recent, aged.accepted))
        assert told == [(size, size, 0)] * 2 + [(0, size, 0)] * 8 + [(0, 0, 0)] + [(0, 0, size)] * 2
        assert aged.meter.largest_message == size


@pytest.mark.parametrize(("later", "accepted"), [(10, 0), (11, 500), (1000, 500)])
def test_whatever_passes_shows_the_time(later: int, accepted: int) -> None:
    """An empty read, a Ping, half a header: no message is needed to learn that one was accepted."""
    for data in (b"", frame(PING, key=KEY), b"\x82"):
        assert Aged("client").at(3, message(500)).at(3 + later, data).accepted == accepted


def test_a_connection_that_begins_late_is_not_old() -> None:
    """The clock runs for all connections; a meter begins with the time of its own."""
    first = Aged("client").at(1000)
    second = Aged("client", sizes=first.sizes)
    assert second.at(1000, message(9)).at(1001).seen() == (0, 9, 9)
    assert second.at(1010).accepted == 0
    assert second.at(1011).accepted == 9


def test_age_counts_from_the_last_byte() -> None:
    """While it passes a message is unfinished, for as long as that takes; then it is as young as any other."""
    data = message(500)
    aged = Aged("client").at(0, data[:20]).at(100, data[20:-1])
    assert aged.seen() == (500, 0, 0)
    assert aged.at(101, data[-1:]).seen() == (0, 500, 500)
    assert aged.at(111).accepted == 0
    assert aged.at(112).accepted == 500


@pytest.mark.parametrize(
    ("data", "unfinished"),
    [
        (b"", 0),
        (message(500), 0),
        (message(500)[:7], 0),
        (message(500)[:8], 500),
        (message(500)[:-1], 500),
        (frame(BINARY, length=1 << 40, key=KEY), 1 << 40),
        (frame(TEXT, bytes(100), fin=False, key=KEY), 100),
        (frame(TEXT, bytes(100), fin=False, key=KEY) + frame(PING, b"?", key=KEY), 100),
        (frame(TEXT, bytes(100), fin=False, key=KEY) + frame(CONTINUATION, length=60, fin=False, key=KEY), 160),
        (frame(TEXT, bytes(100), fin=False, key=KEY) + frame(CONTINUATION, length=1 << 20, key=KEY), 100 + (1 << 20)),
        (fragments(100, 60), 0),
    ],
)
def test_the_message_under_way(data: bytes, unfinished: int) -> None:
    """Its declared size with the fragments before: a receiver refuses by the header, before the payload has come."""
    assert Aged("client").at(0, data).meter.passing().unfinished == unfinished


def test_the_largest_of_a_tick_is_what_counts() -> None:
    """In any order, whatever they look like."""
    for sizes in ([5, 300, 70_000], [70_000, 300, 5], [300, 5, 70_000]):
        aged = Aged("server").at(4, b"".join(message(size, "server") for size in sizes))
        assert aged.seen() == (0, 70_000, 70_000)
        assert aged.at(15).accepted == 70_000


def test_what_a_larger_one_displaces_is_forgotten() -> None:
    """Three ages are remembered, and of what is older than a second one message: the largest, until it is settled."""
    aged = Aged("client").at(0, message(10)).at(3, message(20)).at(6, message(15)).at(8)
    assert aged.seen() == (0, 0, 20)
    assert aged.at(13).accepted == 0
    assert aged.at(14).accepted == 20
    assert aged.seen() == (0, 0, 0)


def test_of_a_steady_stream_each_is_accepted_in_time() -> None:
    """Equal sizes displace nothing, so that a busy connection reports as soon as a quiet one, and again and again."""
    aged = Aged("client")
    when = []
    for tick in range(40):
        aged.at(tick, message(200))
        if aged.accepted:
            when.append(tick)
            aged.sizes.accepted = 0
    assert when == [11, 20, 29, 38]


def test_the_largest_of_all_connections_is_accepted() -> None:
    """They share what is known of their direction; a smaller one later changes nothing."""
    one = Aged("client").at(0, message(300))
    other = Aged("client", sizes=one.sizes).at(0, message(200))
    one.at(11)
    assert one.accepted == 300
    other.at(11)
    assert one.accepted == 300
    one.sizes.accepted = 0
    other.at(11, message(1)).at(22)
    assert one.accepted == 1


def test_nothing_is_accepted_after_the_end() -> None:
    """A refused message must not come to be accepted because TCP lasts a while longer, nor what is sent behind it."""
    aged = Aged("client").at(0, message(300))
    assert aged.meter.end() == Passing(0, 300, 300, False, 300)
    aged.at(5, message(400)).at(100)
    assert aged.accepted == 0
    assert (aged.meter.messages, aged.meter.largest_message) == (2, 400)


def test_what_was_old_enough_is_accepted_at_the_end() -> None:
    """Also where nothing passed in this direction since."""
    aged = Aged("client").at(0, message(300))
    aged.sizes.tick = 10
    assert aged.meter.end().recent == 0
    assert aged.accepted == 0
    aged = Aged("client").at(0, message(300))
    aged.sizes.tick = 11
    assert aged.meter.end().recent == 0
    assert aged.accepted == 300


@pytest.mark.parametrize("rsv", [0, 4])
def test_sizes_of_compressed_messages_say_nothing(rsv: int) -> None:
    """Where permessage-deflate was negotiated any message may be compressed: none is accepted, and all say so."""
    aged = Aged("client", deflate=True).at(0, frame(BINARY, bytes(300), rsv=rsv, key=KEY))
    assert aged.meter.passing() == Passing(0, 300, 300, True, 300)
    aged.at(50)
    assert aged.accepted == 0
    assert aged.meter.largest_message == 300


STRAYS = {
    "a Ping": frame(PING, length=70_000, key=KEY),
    "a continuation of nothing": frame(CONTINUATION, length=70_000, key=KEY),
    "a reserved opcode": frame(0x3, length=70_000, key=KEY),
    "a Ping between fragments": frame(TEXT, bytes(100), fin=False, key=KEY) + frame(PING, length=70_000, key=KEY),
}


@pytest.mark.parametrize("stray", STRAYS.values(), ids=STRAYS)
def test_a_frame_of_no_message_may_be_what_is_refused(stray: bytes) -> None:
    """With its declared length, while it is under way, however long that takes, and for 5 s after it.

    A message that was complete before must not be taken for the refused one. Of the message that it interrupts it is no
    part, nor the largest message.
    """
    for pieces in splits(stray):
        aged = Aged("client").at(0, message(20))
        for piece in pieces:
            aged.meter.feed(piece)
        unfinished = 100 if stray == STRAYS["a Ping between fragments"] else 0
        assert aged.seen() == (unfinished, 20, 70_000)
        assert aged.at(100).seen() == (unfinished, 0, 70_000)
        aged.meter.feed(bytes(70_000))
        assert aged.seen() == (unfinished, 0, 70_000)
        assert aged.at(109).seen() == (unfinished, 0, 70_000)
        assert aged.at(110).seen() == (unfinished, 0, 0)
        assert aged.meter.largest_message == 20


def test_who_sends_a_frame_of_no_message_is_no_witness() -> None:
    """It does not come to be accepted, nor does anything that passes behind it."""
    for stray in STRAYS.values():
        aged = Aged("client").at(0, stray + bytes(70_000)).at(20, message(300)).at(40).at(60)
        assert aged.accepted == 0


def test_a_control_frame_as_it_should_be_is_not_refused() -> None:
    """Up to 125 bytes every receiver takes them: they tell of no limit, and their sender is a witness as before."""
    aged = Aged("client").at(0, frame(PING, bytes(125), key=KEY) + message(10))
    assert aged.seen() == (0, 10, 10)
    assert aged.at(11).accepted == 10


def test_an_endless_close_frame_is_no_message() -> None:
    """It is a Close from its header on, and nothing that follows it counts."""
    for wire in (frame(CLOSE, length=70_000, key=KEY), frame(CLOSE, key=KEY) + frame(PING, length=70_000, key=KEY)):
        assert Aged("client").at(0, message(20) + wire).seen() == (0, 20, 20)


@pytest.mark.parametrize("fin", [True, False])
def test_a_message_under_way_behind_a_frame_of_no_message(fin: bool) -> None:
    """The latter has passed: once it is old only the message counts, whole or in fragments."""
    aged = Aged("client").at(0, frame(PING, bytes(500), key=KEY))
    assert aged.at(20, frame(TEXT, length=300, fin=fin, key=KEY)).seen() == (300, 0, 0)


def test_the_largest_message_of_the_connection_is_told() -> None:
    """However old it is: what is smaller is hardly what a receiver refuses."""
    aged = Aged("client").at(0, message(3000)).at(50, message(30))
    assert aged.meter.passing() == Passing(0, 30, 30, False, 3000)


def test_a_limit_that_changes_makes_nothing_older() -> None:
    """A reload is no tick."""
    aged = Aged("client").at(0, message(300))
    for limit in (1 << 20, 1000, None, 5000):
        aged.sizes.limit(limit)
        aged.meter.feed(b"")
        assert aged.seen() == (0, 300, 300)
    assert aged.at(2).seen() == (0, 0, 300)
    assert aged.sizes.tick == 2


def test_data_behind_a_close_frame_has_no_age() -> None:
    """It is not counted at all."""
    close = frame(CLOSE, b"\x03\xe8", key=KEY)
    aged = Aged("client").at(0, close + message(300))
    assert aged.seen() == (0, 0, 0)
    assert aged.at(20).accepted == 0


class Naive:
    """Every message with the tick in which it was complete."""

    def __init__(self) -> None:
        self.messages: list[tuple[int, int]] = []

    def largest(self, begin: int, end: int) -> int:
        """Of those in these ticks, both included."""
        return max((size for tick, size in self.messages if begin <= tick <= end), default=0)


passes = st.tuples(
    st.one_of(st.integers(0, 3), st.integers(0, 25)),  # ticks after the one before
    st.lists(st.one_of(st.integers(0, 130), st.integers(0, 400), st.integers(65_500, 66_000)), max_size=4),
    st.lists(st.integers(0, 1 << 20), max_size=3),  # where the read is split
)


@settings(deadline=None)
@given(st.lists(passes, max_size=14), st.booleans())
def test_against_every_message_remembered(script: Sequence[tuple[int, list[int], list[int]]], fragmented: bool) -> None:
    """The last second is exact. Of what is older nothing is claimed too early, too late or too large.

    The largest of all is accepted as soon as anything shows the time.
    """
    aged, naive = Aged("server"), Naive()
    tick = 0

    def shape(size: int) -> bytes:
        return fragments(size // 2, size - size // 2, side="server") if fragmented else message(size, "server")

    for gap, sizes, places in script:
        tick += gap
        data = b"".join(shape(size) for size in sizes)
        cuts = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
        for begin, end in pairwise(cuts):
            aged.at(tick, data[begin:end])
        naive.messages += [(tick, size) for size in sizes]
        unfinished, last_second, recent = aged.seen()
        assert unfinished == 0
        assert last_second == naive.largest(tick - 1, tick)
        assert last_second <= recent <= naive.largest(tick - SETTLED + 1, tick)
        assert aged.meter.largest_message == naive.largest(0, tick)
        old = naive.largest(0, tick - SETTLED - 1)
        assert aged.accepted <= old
        assert aged.accepted in {0, *(size for _, size in naive.messages)}
        if old == naive.largest(0, tick):
            assert aged.accepted == old
