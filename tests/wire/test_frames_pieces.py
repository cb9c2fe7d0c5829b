"""The frame meter on large reads, taken in pieces: no header is lost between two, and nothing is kept of a read."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

import pytest

from exporter.events import Side
from exporter.wire.frames import PIECE
from tests.wire.support import (
    BINARY,
    CLOSE,
    CONTINUATION,
    KEY,
    PING,
    PONG,
    TEXT,
    Account,
    Heard,
    Metered,
    close,
    expected,
    frame,
)

READ: Final = 256 * 1024
UNIT: Final = 1024
"""Bytes of a filling frame, header included: pieces are a multiple of it, so that no filling frame lies in two."""

AROUND: Final = range(-14, 15)
"""Distances from a multiple of PIECE: the longest header is 14 bytes long."""

SIDES: Final[tuple[Side, ...]] = ("client", "server")


@dataclass
class Stream:
    """What one side sends, and what is to be said of it."""

    side: Side
    wire: bytearray = field(default_factory=bytearray)
    sizes: list[int] = field(default_factory=list)
    heard: list[Heard] = field(default_factory=list)
    closed: bool = False

    @property
    def key(self) -> bytes | None:
        return KEY if self.side == "client" else None

    @property
    def header(self) -> int:
        """Bytes of a filling frame's header."""
        return 8 if self.key else 4

    def message(self, size: int, opcode: int = BINARY) -> None:
        self.wire += frame(opcode, b"", key=self.key, length=size) + b"\x88" * size  # a payload that looks like Closes
        self.sizes.append(size)

    def ping(self, payload: bytes) -> None:
        self.wire += frame(PING, payload, key=self.key)
        self.heard.append((PING, payload))

    def close(self, code: int) -> None:
        self.wire += close(code, key=self.key)
        self.heard.append((CLOSE, code.to_bytes(2)))
        self.closed = True

    def fill_to(self, end: int) -> None:
        """Messages of UNIT bytes, header included; the last of them is longer, so that all end at `end`."""
        missing = end - len(self.wire)
        assert missing >= 2 * UNIT
        count = missing // UNIT - 1
        size = UNIT - self.header
        self.wire += (frame(TEXT, b"", key=self.key, length=size) + bytes(size)) * count
        self.sizes += [size] * count
        self.message(missing - count * UNIT - self.header)

    @property
    def account(self) -> Account:
        return expected(self.sizes, self.heard, passed=len(self.wire), closed=self.closed)


def read(stream: Stream, size: int) -> Account:
    """What a meter says that is shown reads of `size` bytes, in one buffer that is overwritten after each."""
    metered = Metered(stream.side)
    for start in range(0, len(stream.wire), size):
        data = stream.wire[start : start + size]
        buffer = bytearray(data)
        with memoryview(buffer) as view:
            metered.meter.feed(view)
        buffer[:] = b"\x8a" * len(buffer)
        buffer.clear()  # BufferError if anybody still has a view of it
    return metered.account()


def long_message(stream: Stream) -> None:
    stream.message(PIECE + 5)


def longest_header(stream: Stream) -> None:
    stream.message(1 << 16)


def fragments(stream: Stream) -> None:
    key = stream.key
    stream.wire += frame(TEXT, b"ab", fin=False, key=key) + frame(PONG, b"!", key=key)
    stream.wire += frame(CONTINUATION, b"c" * 200, fin=False, key=key) + frame(CONTINUATION, key=key)
    stream.sizes.append(202)
    stream.heard.append((PONG, b"!"))


KINDS: Final[dict[str, Callable[[Stream], None]]] = {
    "an empty message": lambda stream: stream.message(0),
    "a short message": lambda stream: stream.message(10),
    "a message with a 16-bit length": lambda stream: stream.message(300),
    "a message longer than a piece": long_message,
    "a message with a 64-bit length": longest_header,
    "a Ping": lambda stream: stream.ping(b"are you there"),
    "a Ping of 125 bytes": lambda stream: stream.ping(bytes(range(125))),
    "fragments": fragments,
}


def streams(side: Side, pieces: int, kind: Callable[[Stream], None]) -> Iterator[Stream]:
    """The header of one frame at and around a multiple of PIECE, and much behind it, with a Close at the end."""
    for distance in AROUND:
        stream = Stream(side)
        stream.fill_to(pieces * PIECE + distance)
        kind(stream)
        stream.fill_to(len(stream.wire) + 3 * PIECE + 7)
        kind(stream)
        stream.close(1009)
        yield stream


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("pieces", [1, 2, 15, 22])
def test_a_header_between_two_pieces(side: Side, pieces: int, kind: Callable[[Stream], None]) -> None:
    """Wherever a header lies in a read of any size, it counts as in a stream that comes byte by byte."""
    for stream in streams(side, pieces, kind):
        account = stream.account
        for size in (len(stream.wire), READ, PIECE + 1):
            assert read(stream, size) == account


@pytest.mark.parametrize("side", SIDES)
def test_a_header_in_two_reads(side: Side) -> None:
    """What one read began and the next one ends may be followed by any number of pieces."""
    for distance in AROUND:
        stream = Stream(side)
        stream.fill_to(READ + distance)
        stream.ping(b"between two reads")
        stream.fill_to(2 * READ + distance)
        stream.message(70_000)
        stream.close(1001)
        assert read(stream, READ) == stream.account


@pytest.mark.parametrize("behind", [0, 1, 124, 125, 126, PIECE, 1 << 16, READ])
@pytest.mark.parametrize("side", SIDES)
def test_a_close_behind_data(side: Side, behind: int) -> None:
    """The last frame of a large read is a Close, right behind a message of any length."""
    stream = Stream(side)
    stream.fill_to(2 * PIECE - 3)
    stream.message(behind)
    stream.close(1009)
    assert read(stream, len(stream.wire)) == read(stream, READ) == stream.account


@pytest.mark.parametrize("count", [1, 2, PIECE])
@pytest.mark.parametrize("side", SIDES)
def test_empty_messages_at_the_end(side: Side, count: int) -> None:
    """A message without payload has passed with its header, also when nothing follows."""
    stream = Stream(side)
    stream.fill_to(3 * PIECE - 1)
    for _ in range(count):
        stream.message(0)
    assert read(stream, len(stream.wire)) == read(stream, READ) == stream.account


@pytest.mark.parametrize("missing", range(1, 14))
def test_an_unfinished_header_at_the_end_of_a_large_read(missing: int) -> None:
    """It counts for nothing yet, and is completed by the next read."""
    stream = Stream("client")
    stream.fill_to(2 * PIECE + 100)
    before = expected(stream.sizes, passed=0)
    header = frame(BINARY, key=KEY, length=1 << 16)
    stream.wire += header
    metered = Metered("client")
    with memoryview(bytearray(stream.wire)) as view:
        metered.meter.feed(view[: len(view) - missing])
    account = metered.account()
    assert (account.plain, account.unfinished) == (before.plain, 0)
    metered.meter.feed(header[-missing:])
    assert metered.meter.unfinished == metered.meter.ahead() == 1 << 16
