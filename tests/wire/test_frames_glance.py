"""What is of one message alone is taken at a glance; of anything else nothing is taken."""

from typing import Final

import pytest

from exporter.events import Side
from tests.wire.support import BINARY, CLOSE, CONTINUATION, KEY, PING, TEXT, Metered, account, expected, frame

SIDES: Final[dict[Side, bytes | None]] = {"client": KEY, "server": None}
AROUND: Final = b"\x82\x01"
"""What is before and behind it in the memory."""


def taken(metered: Metered, data: bytes) -> bool:
    """Whether it is taken out of the midst of other bytes."""
    return metered.meter.glance(AROUND + data + AROUND, len(AROUND), len(AROUND) + len(data))


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 1000, 65_535])
def test_a_whole_message(side: Side, opcode: int, size: int) -> None:
    metered = Metered(side)
    data = frame(opcode, bytes(size), key=SIDES[side])
    assert taken(metered, data)
    assert metered.account() == expected([size], passed=len(data))
    assert metered.account() == account(side, [data])


def test_a_compressed_message() -> None:
    data = frame(TEXT, bytes(300), rsv=4, key=KEY)
    metered = Metered("client", deflate=True)
    assert taken(metered, data)
    assert metered.account() == expected(compressed=[300], passed=len(data))
    assert not taken(Metered("client"), data)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize(
    "what",
    [
        "two messages",
        "less than a message",
        "less than a header",
        "less than a longer header",
        "one byte more",
        "a fragment",
        "a continuation",
        "a Ping",
        "a Close",
        "wrongly masked",
        "a length that is too long a form",
        "the beginning of a length that is too long a form",
        "the beginning of a length with its highest bit",
        "64 KiB",
    ],
)
def test_anything_else_is_left_alone(side: Side, what: str) -> None:
    """It must be fed, which then counts it as if nobody had tried."""
    key = SIDES[side]
    data = {
        "two messages": frame(TEXT, b"one", key=key) * 2,
        "less than a message": frame(TEXT, b"cut", key=key)[:-1],
        "less than a header": frame(TEXT, bytes(300), key=key)[:3],
        "less than a longer header": frame(TEXT, bytes(1 << 16), key=key)[:9],
        "one byte more": frame(TEXT, bytes(300), key=key) + b"\x81",
        "a fragment": frame(TEXT, b"part", key=key, fin=False),
        "a continuation": frame(CONTINUATION, b"part", key=key),
        "a Ping": frame(PING, b"ping", key=key),
        "a Close": frame(CLOSE, b"\x03\xe8", key=key),
        "wrongly masked": frame(TEXT, b"mask", key=None if key else KEY),
        "a length that is too long a form": frame(TEXT, b"short", key=key, width=2),
        "the beginning of a length that is too long a form": frame(TEXT, bytes(99), key=key, width=8)[:-1],
        "the beginning of a length with its highest bit": frame(TEXT, key=key, length=1 << 63) + bytes(9),
        "64 KiB": frame(TEXT, bytes(1 << 16), key=key),
    }[what]
    metered = Metered(side)
    assert not taken(metered, data)
    assert metered.account() == Metered(side).account()
    metered.meter.feed(data)
    assert metered.account() == account(side, [data])


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("size", [126, 127, 1000, 65_535, 65_536, 100_000])
def test_a_message_piece_by_piece(side: Side, size: int) -> None:
    """It is counted when all of it has passed, and not before."""
    metered = Metered(side)
    data = frame(BINARY, bytes(size), key=SIDES[side])
    pieces = data[:60], data[60:100], data[100:]
    for number, piece in enumerate(pieces):
        assert taken(metered, piece)
        assert metered.account() == account(side, pieces[: number + 1])
    assert metered.account() == expected([size], passed=len(data))


@pytest.mark.parametrize("size", [300, 100_000])
def test_a_compressed_message_piece_by_piece(size: int) -> None:
    metered = Metered("client", deflate=True)
    data = frame(TEXT, bytes(size), rsv=4, key=KEY)
    assert taken(metered, data[:50])
    assert taken(metered, data[50:])
    assert metered.account() == expected(compressed=[size], passed=len(data))


def test_what_follows_the_payload_is_left_alone() -> None:
    metered = Metered("server")
    data = frame(BINARY, bytes(300)) + frame(PING, b"ping")
    assert taken(metered, data[:100])
    before = metered.account()
    assert not taken(metered, data[100:])
    assert metered.account() == before
    metered.meter.feed(data[100:])
    assert metered.account() == account("server", [data])


@pytest.mark.parametrize("before", [b"\x81", frame(TEXT, b"part", fin=False)])
def test_what_looks_like_a_message_within_another_is_none(before: bytes) -> None:
    metered = Metered("server")
    metered.meter.feed(before)
    assert not taken(metered, frame(TEXT, b"x"))


def test_payload_that_looks_like_a_message_is_none() -> None:
    metered = Metered("server")
    begin, rest = frame(TEXT, bytes(9))[:-4], frame(TEXT, b"x")
    metered.meter.feed(begin)
    assert taken(metered, rest)
    assert metered.account() == account("server", [begin + rest])
    assert metered.meter.messages == 0


def test_its_time_is_taken_note_of_by_feeding_it() -> None:
    metered = Metered("server")
    metered.sizes.tick = 7
    data = frame(TEXT, bytes(500))
    assert not taken(metered, data)
    metered.meter.feed(data)
    assert taken(metered, data)
    assert metered.account() == expected([500, 500], passed=2 * len(data))
