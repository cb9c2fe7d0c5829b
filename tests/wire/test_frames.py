"""The frame meter on legal streams: literal bytes of RFC 6455 section 5.7, and lengths at every edge."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from exporter.events import Side
from exporter.wire.frames import CloseFrame, parse_close, unmask
from tests.wire.support import (
    BINARY,
    CLOSE,
    CONTINUATION,
    KEY,
    PING,
    PONG,
    TEXT,
    Heard,
    Metered,
    account,
    close,
    expected,
    frame,
    splits,
)

B256 = bytes(range(256))
KIB64 = bytes(65536)


@dataclass(frozen=True)
class Case:
    """What `side` sends, as hexadecimal or bytes, and the sizes and frames to hear of it."""

    id: str
    side: Side
    wire: bytes
    plain: list[int] = field(default_factory=list)
    compressed: list[int] = field(default_factory=list)
    heard: list[Heard] = field(default_factory=list)
    deflate: bool = False
    closed: bool = False


def octets(text: str) -> bytes:
    return bytes.fromhex(text.replace("0x", ""))


RFC_6455_5_7 = [
    Case("single-frame unmasked text", "server", octets("0x81 0x05 0x48 0x65 0x6c 0x6c 0x6f"), [5]),
    Case("single-frame masked text", "client", octets("0x81 0x85 0x37 0xfa 0x21 0x3d 0x7f 0x9f 0x4d 0x51 0x58"), [5]),
    Case("fragmented unmasked text", "server", octets("0x01 0x03 0x48 0x65 0x6c") + octets("0x80 0x02 0x6c 0x6f"), [5]),
    Case("unmasked Ping", "server", octets("0x89 0x05 0x48 0x65 0x6c 0x6c 0x6f"), heard=[(PING, b"Hello")]),
    Case(
        "masked Pong",
        "client",
        octets("0x8a 0x85 0x37 0xfa 0x21 0x3d 0x7f 0x9f 0x4d 0x51 0x58"),
        heard=[(PONG, b"Hello")],
    ),
    Case("256 bytes binary", "server", octets("0x82 0x7E 0x0100") + B256, [256]),
    Case("64KiB binary", "server", octets("0x82 0x7F 0x0000000000010000") + KIB64, [65536]),
]

RFC_7692_7_2_3 = [
    Case(
        "7.2.3.1 one compressed message",
        "server",
        octets("0xc1 0x07 0xf2 0x48 0xcd 0xc9 0xc9 0x07 0x00"),
        compressed=[7],
        deflate=True,
    ),
    Case(
        "7.2.3.1 compressed in two fragments",
        "server",
        octets("0x41 0x03 0xf2 0x48 0xcd") + octets("0x80 0x04 0xc9 0xc9 0x07 0x00"),
        compressed=[7],
        deflate=True,
    ),
    Case("uncompressed although negotiated", "server", octets("0x81 0x05 0x48 0x65 0x6c 0x6c 0x6f"), [5], deflate=True),
    Case(
        "compressed and plain in turn",
        "client",
        frame(TEXT, b"x" * 200, rsv=4, key=KEY) + frame(BINARY, b"y" * 130, key=KEY) + frame(TEXT, rsv=4, key=KEY),
        [130],
        [200, 0],
        deflate=True,
    ),
    Case(
        "a plain message right behind a compressed one in fragments",
        "client",
        frame(TEXT, b"ab", fin=False, rsv=4, key=KEY) + frame(CONTINUATION, b"c", key=KEY) + frame(TEXT, b"d", key=KEY),
        [1],
        [3],
        deflate=True,
    ),
]

FRAGMENTED = [
    Case(
        "control frames between fragments (RFC 6455 section 5.4)",
        "client",
        frame(TEXT, b"ab", fin=False, key=KEY)
        + frame(PING, b"now", key=KEY)
        + frame(CONTINUATION, b"cde", fin=False, key=KEY)
        + frame(PONG, key=KEY)
        + frame(CONTINUATION, b"f", key=KEY)
        + frame(TEXT, b"after", key=KEY),
        [6, 5],
        heard=[(PING, b"now"), (PONG, b"")],
    ),
    Case(
        "empty fragments",
        "server",
        frame(BINARY, fin=False) + frame(CONTINUATION, fin=False) + frame(CONTINUATION),
        [0],
    ),
    Case(
        "fragments of every width",
        "server",
        frame(BINARY, bytes(125), fin=False) + frame(CONTINUATION, bytes(126), fin=False) + frame(CONTINUATION, KIB64),
        [125 + 126 + 65536],
    ),
    Case(
        "Close between fragments ends what was under way",
        "server",
        frame(TEXT, fin=False) + close(1001),
        heard=[(CLOSE, b"\x03\xe9")],
        closed=True,
    ),
]

ENDS: Sequence[tuple[Side, int, bytes | None]] = (("client", TEXT, KEY), ("server", BINARY, None))

LENGTHS = [
    Case(f"{size} bytes from the {side}", side, frame(opcode, bytes(size), key=key), [size])
    for size in (0, 1, 2, 124, 125, 126, 127, 128, 129, 255, 256, 257, 65535, 65536, 65537)
    for side, opcode, key in ENDS
]

BURSTS = [
    Case(
        "a burst of all widths",
        side,
        b"".join(frame(BINARY, bytes(size), key=key) for size in (7, 0, 300, 125, 126, 70000, 1, 300)),
        [7, 0, 300, 125, 126, 70000, 1, 300],
    )
    for side, _, key in ENDS
]

CLOSES = [
    Case("empty Close", "client", frame(CLOSE, key=KEY), heard=[(CLOSE, b"")], closed=True),
    Case("Close with a code", "client", close(1000, key=KEY), heard=[(CLOSE, b"\x03\xe8")], closed=True),
    Case("Close with a reason", "server", close(1001, b"bye"), heard=[(CLOSE, b"\x03\xe9bye")], closed=True),
    Case(
        "Close of 125 bytes",
        "client",
        close(1011, bytes(123), key=KEY),
        heard=[(CLOSE, b"\x03\xf3" + bytes(123))],
        closed=True,
    ),
    Case(
        "Close behind 64 KiB",
        "server",
        frame(BINARY, KIB64) + close(1009),
        [65536],
        heard=[(CLOSE, b"\x03\xf1")],
        closed=True,
    ),
]

CASES = [*RFC_6455_5_7, *RFC_7692_7_2_3, *FRAGMENTED, *LENGTHS, *BURSTS, *CLOSES]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_a_stream_counts_the_same_however_it_is_split(case: Case) -> None:
    """Whole, byte by byte, and cut in two anywhere: sizes, control frames and totals are the same."""
    outcome = expected(case.plain, case.heard, compressed=case.compressed, passed=len(case.wire), closed=case.closed)
    for pieces in splits(case.wire):
        assert account(case.side, pieces, deflate=case.deflate) == outcome


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_trailing_bytes_change_nothing_before_them(case: Case) -> None:
    """A frame may come with the next ones behind it: a Ping then is heard as well, the first byte of one is not."""
    ping = frame(PING, b"tail", key=KEY if case.side == "client" else None)
    for tail, more in ((ping, [(PING, b"tail")]), (ping[:1], [])):
        wire = case.wire + tail
        outcome = expected(
            case.plain, [*case.heard, *more], compressed=case.compressed, passed=len(wire), closed=case.closed
        )
        for pieces in ([wire], [case.wire, tail], [case.wire[:-1], case.wire[-1:] + tail]):
            assert account(case.side, pieces, deflate=case.deflate) == outcome


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_nothing_counts_before_its_last_byte_has_passed(case: Case) -> None:
    """One byte short, the last message or control frame of a stream is not there yet."""
    metered = Metered(case.side, deflate=case.deflate)
    metered.meter.feed(case.wire[:-1])
    before = metered.account()
    metered.meter.feed(case.wire[-1:])
    after = metered.account()
    assert (after.messages + len(after.heard)) - (before.messages + len(before.heard)) == 1
    assert before.bytes + 1 == after.bytes == len(case.wire)


@pytest.mark.parametrize("key", [None, KEY])
@pytest.mark.parametrize("size", [1, 125, 126, 65535, 65536, (1 << 63) - 1])
def test_unfinished_is_the_declared_length_of_the_message_under_way(size: int, key: bytes | None) -> None:
    """From the end of its header on, a message has the length it declared; a claim allocates nothing."""
    side: Side = "client" if key else "server"
    wire = frame(BINARY, b"", key=key, length=size)
    for pieces in splits(wire):
        assert account(side, pieces) == expected(passed=len(wire), unfinished=size)


def test_unfinished_sums_the_fragments_before_and_ends_with_the_message() -> None:
    """Fragments count by what they declared; control frames between them, even unfinished ones, take no part."""
    metered = Metered("server")
    told = []
    for wire in (
        frame(TEXT, b"abc", fin=False),
        frame(PING, b"?")[:2],
        frame(PING, b"?")[2:],
        frame(CONTINUATION, length=200, fin=False),
        bytes(200),
        frame(CONTINUATION, length=10),
        bytes(9),
        bytes(1),
        frame(TEXT, b"next"),
        b"\x81",
    ):
        metered.meter.feed(wire)
        told.append(metered.meter.unfinished)
    assert told == [3, 3, 3, 203, 203, 213, 213, 0, 0, 0]
    assert metered.meter.messages == 2


def test_ahead_is_what_is_left_of_the_payload_under_way() -> None:
    """Of a header or a control frame nothing is ahead: every byte of those is looked at."""
    metered = Metered("server")
    told = []
    for wire in (
        frame(BINARY, length=1000)[:3],
        frame(BINARY, length=1000)[3:],
        bytes(400),
        bytes(599),
        b"\0" + frame(PING, b"?")[:2],
        frame(PING, b"?")[2:] + frame(TEXT, length=10, fin=False),
        bytes(10) + frame(CONTINUATION, length=(1 << 63) - 1),
        bytes(7),
    ):
        metered.meter.feed(wire)
        told.append(metered.meter.ahead())
    assert told == [0, 1000, 600, 1, 0, 10, (1 << 63) - 1, (1 << 63) - 8]


@pytest.mark.parametrize("key", [None, KEY])
@pytest.mark.parametrize("size", [0, 8, 125, 126, 300, 65535, 65536, (1 << 63) - 1])
def test_ahead_of_a_frame_that_is_about_to_begin(size: int, key: bytes | None) -> None:
    """A header that is seen before it is taken tells of its payload, and changes nothing."""
    metered = Metered("client" if key else "server")
    header = frame(BINARY, length=size, key=key)
    begin = (header + bytes(14))[:14]
    assert metered.meter.ahead(begin) == size
    assert metered.meter.ahead(memoryview(begin)) == size
    assert metered.meter.ahead(begin[:13]) == metered.meter.ahead() == 0
    metered.meter.feed(header)
    assert metered.meter.ahead(begin) == metered.meter.ahead() == size
    assert metered.meter.bytes == len(header)


def test_ahead_of_a_header_under_way() -> None:
    """Where a header has begun already, what comes next is no header."""
    metered = Metered("server")
    metered.meter.feed(b"\x82")
    assert metered.meter.ahead(b"\x82\x7e" + b"\xff" * 12) == 0


def test_empty_reads_change_nothing() -> None:
    """A read of no bytes may come at any time, also inside a header, a payload or a control frame."""
    wire = frame(TEXT, b"Hello", key=KEY) + frame(PING, b"x", key=KEY) + frame(BINARY, bytes(300), key=KEY)
    pieces = [piece for place in range(len(wire)) for piece in (b"", wire[place : place + 1])]
    assert account("client", [*pieces, b""]) == expected([5, 300], [(PING, b"x")], passed=len(wire))


def test_directions_of_one_series_share_their_histogram_and_keep_their_own_totals() -> None:
    """The histogram is the series'; `messages` and `largest_message` are the connection's."""
    one = Metered("server")
    two = Metered("server", sizes=one.sizes)
    one.meter.feed(frame(TEXT, bytes(10)))
    two.meter.feed(frame(TEXT, bytes(200)) + frame(TEXT, bytes(20)))
    assert one.account().plain == two.account().plain == expected([10, 200, 20], passed=0).plain
    assert (one.meter.messages, one.meter.largest_message) == (1, 10)
    assert (two.meter.messages, two.meter.largest_message) == (2, 200)


def test_largest_message_is_kept_over_reads() -> None:
    """It never shrinks, whichever path counted it: short, 16-bit, 64-bit or in fragments."""
    metered = Metered("server")
    told = []
    for size in (3, 100, 20, 126, 5, 70000, 400, 65536):
        metered.meter.feed(frame(BINARY, bytes(size)))
        told.append(metered.meter.largest_message)
    assert told == [3, 100, 100, 126, 126, 70000, 70000, 70000]


@pytest.mark.parametrize("size", [0, 1, 3, 4, 5, 125])
def test_unmask_repeats_the_key(size: int) -> None:
    """Octet i is XORed with octet i modulo 4 of the masking key (RFC 6455 section 5.3)."""
    payload = bytes(range(100, 100 + size))
    assert unmask(payload, KEY) == bytes(octet ^ KEY[place % 4] for place, octet in enumerate(payload))


@pytest.mark.parametrize(
    ("payload", "said"),
    [
        (b"", CloseFrame(None)),
        (b"\x03", CloseFrame(None, malformed=True)),
        (None, CloseFrame(None, malformed=True)),
        (b"\x03\xe8", CloseFrame(1000)),
        (b"\x00\x00", CloseFrame(0)),
        (b"\xff\xff", CloseFrame(65535)),
        (b"\x03\xf1too big", CloseFrame(1009, "too big")),
        (b"\x0f\xa1" + "für dich".encode(), CloseFrame(4001, "für dich")),
        (b"\x03\xefcut \xe2\x82", CloseFrame(1007, "cut \ufffd")),
    ],
)
def test_close_bodies(payload: bytes | None, said: CloseFrame) -> None:
    """A code in network order, then UTF-8 (RFC 6455 section 5.5.1); bad UTF-8 is replaced, a bad length malformed."""
    assert parse_close(payload) == said
