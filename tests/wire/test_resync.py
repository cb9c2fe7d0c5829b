"""Finding frames again in a stream of which the beginning is not known."""

from random import Random

import pytest

from exporter.events import Side
from exporter.wire.resync import MOST_CANDIDATES, Found, Search, header_at, is_close
from tests.wire.support import BINARY, CONTINUATION, KEY, PING, PONG, TEXT, close, frame

RSV1 = 0b100


def key_of(side: Side) -> bytes | None:
    return KEY if side == "client" else None


@pytest.mark.parametrize("side", ["client", "server"])
@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536, 200_000])
def test_a_header_and_what_it_declares(side: Side, size: int) -> None:
    data = frame(BINARY, bytes(size), key=key_of(side))
    found = header_at(b"??" + data, 2, side)
    assert found is not None
    assert (found.first, found.size + found.length) == (0x82, len(data))


@pytest.mark.parametrize(
    "data",
    [
        frame(TEXT, b"hi", key=KEY),  # masked by the server
        frame(0x3, b"hi"),
        frame(0xB, b"hi"),
        frame(PING, b"hi", fin=False),
        frame(PING, bytes(126)),
        frame(TEXT, b"hi", rsv=0b010),
        frame(CONTINUATION, b"hi", rsv=RSV1),
        frame(PING, b"hi", rsv=RSV1),
        frame(TEXT, bytes(100), width=2),
        frame(TEXT, bytes(100), width=8),
        frame(TEXT, b"", length=(1 << 32) + 1),
    ],
)
def test_no_header(data: bytes) -> None:
    assert header_at(data, 0, "server") is None


@pytest.mark.parametrize("side", ["client", "server"])
def test_a_view_is_searched_like_bytes(side: Side) -> None:
    """Whatever the frames, and wherever segments begin; nothing of a view is kept."""
    random = Random(7)
    for _ in range(50):
        frames = [
            frame(random.choice([TEXT, BINARY, PING]), random.randbytes(random.choice([3, 90, 120])), key=key_of(side))
            if random.random() < 0.7
            else frame(BINARY, random.randbytes(random.choice([200, 70_000])), key=key_of(side))
            for _ in range(12)
        ]
        wire = b"".join(frames)
        searched, viewed = Search(side), Search(side)
        begin = random.randrange(100)
        while begin < len(wire):
            size = random.choice([4, 60, 1000, 30_000])
            segment = bytearray(wire[begin : begin + size])
            found, also = searched.segment(bytes(segment)), viewed.segment(memoryview(segment))
            assert (found and (found.skip, bytes(found.data))) == (also and (also.skip, bytes(also.data)))
            segment[:] = bytes(len(segment))
            if found:
                break
            begin += size


@pytest.mark.parametrize("data", [b"", b"\x81", b"\x81\x7e\x01", b"\x81\x7f" + bytes(7)])
def test_less_than_a_header(data: bytes) -> None:
    with pytest.raises(IndexError):
        header_at(data, 0, "server")


@pytest.mark.parametrize("side", ["client", "server"])
@pytest.mark.parametrize(
    ("data", "sensible"),
    [
        (lambda key: close(1001, b"bye", key=key), True),
        (lambda key: frame(8, b"", key=key), True),
        (lambda key: close(4321, key=key), True),
        (lambda key: frame(8, b"\x03", key=key), False),
        (lambda key: close(0, key=key), False),
        (lambda key: close(1005, key=key), False),
        (lambda key: close(999, key=key), False),
        (lambda key: close(1000, key=key) + b"x", False),
        (lambda key: close(1000, b"bye", key=key)[:-1], False),
        (lambda key: frame(PING, b"\x03\xe8", key=key), False),
        (lambda key: b"\x88", False),
    ],
)
def test_a_close_that_fills_its_segment(side: Side, data: object, sensible: bool) -> None:
    assert callable(data)
    segment = data(key_of(side))
    assert is_close(segment, side) is sensible
    assert (Search(side).segment(segment) == Found(0, segment)) is sensible


@pytest.mark.parametrize("side", ["client", "server"])
def test_two_frames_that_fill_their_segments(side: Side) -> None:
    search = Search(side)
    assert search.segment(frame(TEXT, b"one", key=key_of(side))) is None
    data = frame(TEXT, b"two", key=key_of(side))
    assert search.segment(data) == Found(0, data)


def test_what_else_is_in_the_segment_that_convinces_is_looked_at_too() -> None:
    """Above all a Close."""
    search = Search("server")
    search.segment(frame(TEXT, b"one"))
    data = frame(TEXT, b"two") + close(1001)
    assert search.segment(data) == Found(0, data)
    search = Search("server")
    data = frame(TEXT, b"x" * 100)
    assert search.segment(data[:60]) is None
    rest = frame(PONG) + frame(TEXT, b"two") + close(1001)
    assert search.segment(data[60:] + rest) == Found(0, rest)


@pytest.mark.parametrize(("frames", "enough"), [(2, False), (3, True)])
def test_frames_in_one_segment(frames: int, *, enough: bool) -> None:
    data = frame(TEXT, b"one") + frame(PONG) * (frames - 1)
    assert Search("server").segment(data) == (Found(0, data) if enough else None)


def test_four_frames_wherever_the_last_ends() -> None:
    data = b"".join(frame(TEXT, b"x" * 20) for _ in range(4))
    assert Search("server").segment(data[:-5]) == Found(0, data[:-5])
    search = Search("server")
    assert search.segment(data[:30]) is None
    assert search.segment(data[30:60]) is None
    assert search.segment(data[60:-5]) == Found(0, data[66:-5])


def test_a_frame_over_many_segments() -> None:
    search = Search("server")
    data = frame(BINARY, bytes(range(1, 251)) * 100)
    assert [search.segment(data[at : at + 6000]) for at in range(0, len(data), 6000)] == [None] * 4 + [Found(0, b"")]


@pytest.mark.parametrize("side", ["client", "server"])
def test_a_large_frame_is_believed_by_its_header(side: Side) -> None:
    data = frame(BINARY, bytes(range(1, 251)) * 1000, key=key_of(side))[:60_000]
    assert Search(side).segment(data) == Found(0, data)
    assert Search(side).segment(b"A" * 100 + data) == Found(0, data)
    assert Search("server" if side == "client" else "client").segment(data) is None


@pytest.mark.parametrize(("size", "enough"), [(126, True), (4000, True), (125, False)])
def test_a_frame_that_fills_its_segment(size: int, *, enough: bool) -> None:
    """A length of 16 bits that fits is no chance; one of 7 bits may be."""
    data = frame(BINARY, b"A" * size)
    assert Search("server").segment(data) == (Found(0, data) if enough else None)


def test_a_header_over_two_segments() -> None:
    search = Search("server")
    data = frame(TEXT, b"x" * 30) + frame(TEXT, b"y" * 300) + frame(PONG)
    assert search.segment(data[:33]) is None
    assert search.segment(data[33:]) == Found(0, data[32:])


def test_the_frame_that_convinces_reaches_far() -> None:
    search = Search("server")
    search.segment(frame(TEXT, b"x" * 200)[:150])
    assert search.segment(b"x" * 54 + frame(TEXT, b"y" * 300, fin=False)[:40]) == Found(
        0, frame(TEXT, b"y" * 300, fin=False)[:40]
    )


def test_continuations_alone_prove_nothing() -> None:
    search = Search("server")
    assert search.segment(frame(CONTINUATION, b"", fin=False) * 10) is None
    assert search.segment(bytes(100)) is None


def test_fragments_in_their_order() -> None:
    data = frame(CONTINUATION, b"c") + frame(TEXT, b"a", fin=False) + frame(PING) + frame(CONTINUATION, b"b")
    assert Search("server").segment(data) == Found(0, data)
    assert Search("server").segment(frame(TEXT, b"a", fin=False) + frame(TEXT, b"b")) is None
    assert Search("server").segment(frame(TEXT, b"a") + frame(CONTINUATION, b"b")) is None


def test_large_frames_that_begin_within_segments() -> None:
    large = frame(BINARY, b"\x41" * 70_000, key=KEY)
    stream = b"A" * 1000 + large * 6
    search = Search("client")
    found, at = None, 0
    while found is None:
        found = search.segment(stream[at : at + 60_000])
        at += 60_000
    assert found.skip == 0
    assert (at - len(found.data) - 1000) % len(large) == 0


def test_a_gap_voids_what_was_believed() -> None:
    search = Search("server")
    search.segment(frame(TEXT, b"one"))
    search.gap()
    assert search.segment(frame(TEXT, b"two")) is None


@pytest.mark.parametrize("side", ["client", "server"])
def test_noise_is_no_frame(side: Side) -> None:
    random = Random(7)
    search = Search(side)
    found = [search.segment(random.randbytes(random.randrange(8, 1500))) for _ in range(20_000)]
    assert [at for at in found if at is not None] == []


def test_absurd_lengths_take_no_room() -> None:
    search = Search("server")
    for _ in range(1000):
        search.segment(frame(BINARY, b"x", fin=False, length=60_000))
    assert len(search._candidates) <= MOST_CANDIDATES
    search.segment(frame(TEXT, b"one"))
    assert search.segment(frame(TEXT, b"two")) is not None
