"""A message that is all there is to take is counted at a glance; of anything else nothing is taken."""

from typing import Final

import pytest

from exporter.events import Side
from tests.wire.support import BINARY, CLOSE, CONTINUATION, KEY, PING, TEXT, Metered, account, expected, frame

SIDES: Final[dict[Side, bytes | None]] = {"client": KEY, "server": None}
AROUND: Final = b"\x82\x01"
"""What is before and behind it in the memory."""


def taken(metered: Metered, data: bytes) -> bool:
    """Whether it is taken out of the midst of other bytes."""
    return metered.meter.whole(AROUND + data + AROUND, len(AROUND), len(AROUND) + len(data))


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
        "less than a longer message",
        "one byte more",
        "a fragment",
        "a continuation",
        "a Ping",
        "a Close",
        "wrongly masked",
        "a length that is too long a form",
        "64 KiB",
    ],
)
def test_anything_else_is_left_alone(side: Side, what: str) -> None:
    """It must be fed, which then counts it as if nobody had tried."""
    key = SIDES[side]
    data = {
        "two messages": frame(TEXT, b"one", key=key) * 2,
        "less than a message": frame(TEXT, b"cut", key=key)[:-1],
        "less than a longer message": frame(TEXT, bytes(300), key=key)[:-1],
        "one byte more": frame(TEXT, bytes(300), key=key) + b"\x81",
        "a fragment": frame(TEXT, b"part", key=key, fin=False),
        "a continuation": frame(CONTINUATION, b"part", key=key),
        "a Ping": frame(PING, b"ping", key=key),
        "a Close": frame(CLOSE, b"\x03\xe8", key=key),
        "wrongly masked": frame(TEXT, b"mask", key=None if key else KEY),
        "a length that is too long a form": frame(TEXT, b"short", key=key, width=2),
        "64 KiB": frame(TEXT, bytes(1 << 16), key=key),
    }[what]
    metered = Metered(side)
    assert not taken(metered, data)
    assert metered.account() == Metered(side).account()
    metered.meter.feed(data)
    assert metered.account() == account(side, [data])


@pytest.mark.parametrize("before", [frame(TEXT, bytes(9))[:-1], b"\x81", frame(TEXT, b"part", fin=False)])
def test_what_looks_like_a_message_within_another_is_none(before: bytes) -> None:
    metered = Metered("server")
    metered.meter.feed(before)
    assert not taken(metered, frame(TEXT, b"x"))


def test_its_time_is_taken_note_of_by_feeding_it() -> None:
    metered = Metered("server")
    metered.sizes.tick = 7
    data = frame(TEXT, bytes(500))
    assert not taken(metered, data)
    metered.meter.feed(data)
    assert taken(metered, data)
    assert metered.account() == expected([500, 500], passed=2 * len(data))
