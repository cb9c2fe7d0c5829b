"""The frame meter on frames that RFC 6455 forbids: each is named, its length is believed, and sync is never lost."""

from dataclasses import dataclass, field

import pytest

from exporter.events import Side
from exporter.wire.frames import FrameMeter
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
    no_sizes,
    splits,
)

NEXT = frame(TEXT, b"next")
"""A message of four bytes: counted behind the case, it shows that sync was kept."""
LATE: Heard = "data_after_close"


@dataclass(frozen=True)
class Case:
    """What the server sends, and what to hear and count of it."""

    id: str
    wire: bytes
    heard: list[Heard] = field(default_factory=list)
    plain: list[int] = field(default_factory=list)
    compressed: list[int] = field(default_factory=list)
    deflate: bool = False
    closed: bool = False


RSV = [
    Case("RSV1 without an extension", frame(TEXT, b"abc", rsv=4), ["rsv_without_extension"], [3]),
    Case("RSV2 although deflate", frame(TEXT, b"abc", rsv=2), ["rsv_without_extension"], [3], deflate=True),
    Case("RSV3 although deflate", frame(TEXT, b"abc", rsv=1), ["rsv_without_extension"], [3], deflate=True),
    Case(
        "RSV1 with RSV3, deflate", frame(BINARY, b"ab", rsv=5), ["rsv_without_extension"], compressed=[2], deflate=True
    ),
    Case(
        "RSV1 on a control frame (RFC 7692 section 6)",
        frame(PING, b"x", rsv=4),
        ["rsv_without_extension", (PING, b"x")],
        deflate=True,
    ),
    Case(
        "RSV1 on a continuation (RFC 7692 section 6.1)",
        frame(TEXT, b"ab", fin=False) + frame(CONTINUATION, b"c", rsv=4),
        ["rsv_without_extension"],
        [3],
        deflate=True,
    ),
    Case("all RSV bits on a Close", frame(CLOSE, rsv=7), ["rsv_without_extension", (CLOSE, b"")], closed=True),
]

CONTROL = [
    Case("Ping of 126 bytes", frame(PING, bytes(126)), ["oversized_control", (PING, None)]),
    Case("Pong of 65536 bytes", frame(PONG, bytes(65536)), ["oversized_control", (PONG, None)]),
    Case("Close of 126 bytes", frame(CLOSE, bytes(126)), ["oversized_control", (CLOSE, None)], closed=True),
    Case("a fragmented Ping", frame(PING, b"a", fin=False), ["fragmented_control", (PING, b"a")]),
    Case("a fragmented Close", frame(CLOSE, fin=False), ["fragmented_control", (CLOSE, b"")], closed=True),
    Case(
        "a Ping fragmented, oversized and with RSV",
        frame(PING, bytes(200), fin=False, rsv=4),
        ["rsv_without_extension", "fragmented_control", "oversized_control", (PING, None)],
    ),
    Case(
        "an oversized Ping between fragments",
        frame(TEXT, b"ab", fin=False) + frame(PING, bytes(126)) + frame(CONTINUATION, b"c"),
        ["oversized_control", (PING, None)],
        [3],
    ),
]

OPCODES = [
    Case(f"reserved opcode {opcode:#x}", frame(opcode, b"abc"), ["reserved_opcode"])
    for opcode in (0x3, 0x4, 0x5, 0x6, 0x7, 0xB, 0xC, 0xD, 0xE, 0xF)
] + [
    Case("a reserved control opcode, oversized", frame(0xB, bytes(126)), ["reserved_opcode", "oversized_control"]),
    Case("a reserved opcode of 64 KiB", frame(0x3, bytes(65536)), ["reserved_opcode"]),
    Case(
        "reserved opcodes between fragments",
        frame(TEXT, b"ab", fin=False) + frame(0x3, b"??") + frame(0xF, b"!") + frame(CONTINUATION, b"c"),
        ["reserved_opcode", "reserved_opcode"],
        [3],
    ),
]

FRAGMENTS = [
    Case("a continuation of nothing", frame(CONTINUATION, b"abc"), ["unexpected_continuation"]),
    Case("a continuation of nothing, without FIN", frame(CONTINUATION, fin=False), ["unexpected_continuation"]),
    Case(
        "a message inside another: the first is not counted",
        frame(TEXT, b"lost", fin=False) + frame(TEXT, b"ab"),
        ["interrupted_message"],
        [2],
    ),
    Case(
        "a fragmented message inside another",
        frame(TEXT, b"lost", fin=False, rsv=4) + frame(TEXT, b"ab", fin=False) + frame(CONTINUATION, b"c"),
        ["interrupted_message"],
        [3],
        deflate=True,
    ),
]

LENGTHS = [
    Case(f"{size} in {width} bytes", frame(BINARY, bytes(size), width=width), ["illegal_length"], [size])
    for size, width in ((0, 2), (1, 2), (125, 2), (0, 8), (125, 8), (126, 8), (65535, 8))
] + [
    Case("a Ping of 3 in 2 bytes", frame(PING, b"abc", width=2), ["illegal_length", (PING, b"abc")]),
    Case("a Pong of 0 in 8 bytes", frame(PONG, width=8), ["illegal_length", (PONG, b"")]),
    Case(
        "a Close of 2 in 8 bytes", frame(CLOSE, b"\3\xe8", width=8), ["illegal_length", (CLOSE, b"\3\xe8")], closed=True
    ),
]

CASES = [*RSV, *CONTROL, *OPCODES, *FRAGMENTS, *LENGTHS]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_a_forbidden_frame_is_named_and_passed_over(case: Case) -> None:
    """However it is split: heard once, counted if it is a message, and what follows it is understood."""
    wire = case.wire + NEXT
    plain, heard = (case.plain, [*case.heard, LATE]) if case.closed else ([*case.plain, 4], case.heard)
    outcome = expected(plain, heard, compressed=case.compressed, passed=len(wire), closed=case.closed)
    for pieces in splits(wire):
        assert account("server", pieces, deflate=case.deflate) == outcome


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_a_forbidden_frame_at_the_end_of_a_read_is_complete(case: Case) -> None:
    """Nothing needs to follow for it to count."""
    outcome = expected(case.plain, case.heard, compressed=case.compressed, passed=len(case.wire), closed=case.closed)
    for pieces in splits(case.wire):
        assert account("server", pieces, deflate=case.deflate) == outcome


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536])
@pytest.mark.parametrize(("side", "key"), [("client", None), ("server", KEY)])
def test_wrong_masking_is_named_for_each_frame_and_the_message_counts(side: Side, key: bytes | None, size: int) -> None:
    """Clients must mask and servers must not (RFC 6455 section 5.1), but several peers accept either."""
    right = None if key else KEY
    wire = frame(TEXT, bytes(size), key=key) + frame(PING, b"ping", key=key) + frame(TEXT, b"right", key=right)
    outcome = expected([size, 5], ["wrong_masking", "wrong_masking", (PING, b"ping")], passed=len(wire))
    for pieces in splits(wire):
        assert account(side, pieces) == outcome


@pytest.mark.parametrize("length", [1 << 63, (1 << 64) - 1])
@pytest.mark.parametrize("opcode", [BINARY, 0x3])
def test_a_length_with_its_highest_bit_set_is_illegal_and_believed(opcode: int, length: int) -> None:
    """ "The most significant bit MUST be 0" (RFC 6455 section 5.2): the rest of the stream is that frame."""
    wire = frame(opcode, b"", length=length) + NEXT
    data = opcode == BINARY
    outcome = expected(
        heard=["illegal_length"] if data else ["reserved_opcode", "illegal_length"],
        passed=len(wire),
        unfinished=length if data else 0,
    )
    for pieces in splits(wire):
        assert account("server", pieces) == outcome


def test_an_oversized_close_is_a_close_from_its_header_on() -> None:
    """Its length alone makes it malformed, so that a claim of 2**63-1 bytes is not waited for."""
    wire = frame(CLOSE, b"", length=(1 << 63) - 1)
    outcome = expected(heard=["oversized_control", (CLOSE, None)], passed=len(wire), closed=True)
    for pieces in splits(wire):
        assert account("server", pieces) == outcome


AFTER_CLOSE: list[tuple[str, bytes, list[Heard]]] = [
    ("a message", frame(TEXT, b"late"), ["data_after_close"]),
    ("a burst of messages", frame(TEXT, b"a") + frame(BINARY, bytes(300)), ["data_after_close"] * 2),
    ("a message of 64 KiB", frame(TEXT, bytes(65536)), ["data_after_close"]),
    ("a fragment", frame(TEXT, b"a", fin=False), ["data_after_close"]),
    ("a continuation", frame(CONTINUATION, b"a"), ["data_after_close"]),
    ("a second Close", close(1001), ["second_close"]),
    ("an empty second Close", frame(CLOSE), ["second_close"]),
    ("an oversized second Close", frame(CLOSE, bytes(126)), ["oversized_control", "second_close"]),
    ("a reserved opcode", frame(0xB), ["reserved_opcode", "data_after_close"]),
    ("a masked message", frame(TEXT, b"late", key=KEY), ["wrong_masking", "data_after_close"]),
    ("an unfinished message", frame(TEXT, b"late")[:-1], ["data_after_close"]),
]


@pytest.mark.parametrize(("wire", "heard"), [case[1:] for case in AFTER_CLOSE], ids=[case[0] for case in AFTER_CLOSE])
def test_what_follows_a_close_is_an_anomaly_and_counts_for_nothing(wire: bytes, heard: list[Heard]) -> None:
    """ "The application MUST NOT send any more data frames after sending a Close frame" (RFC 6455 section 5.5.1)."""
    before = frame(TEXT, b"Hello") + close(1000)
    outcome = expected([5], [(CLOSE, b"\3\xe8"), *heard], passed=len(before + wire), closed=True)
    for pieces in splits(before + wire):
        assert account("server", pieces) == outcome


def test_pings_and_pongs_after_a_close_are_legal() -> None:
    """Who sent Close must answer Pings until it has received one (RFC 6455 section 5.5.2), and real peers do."""
    wire = close(1000) + frame(PONG, b"yes") + frame(PING, b"you?") + frame(PING, bytes(126))
    heard: list[Heard] = [(CLOSE, b"\3\xe8"), (PONG, b"yes"), (PING, b"you?"), "oversized_control", (PING, None)]
    for pieces in splits(wire):
        assert account("server", pieces) == expected(heard=heard, passed=len(wire), closed=True)


def test_a_message_under_way_at_the_close_stays_unfinished() -> None:
    """What the sender of a Close still owed is not forgotten: it may be what the other side refused."""
    wire = frame(TEXT, b"abc", fin=False) + close(1001) + frame(CONTINUATION, b"d")
    heard: list[Heard] = [(CLOSE, b"\3\xe9"), "data_after_close"]
    for pieces in splits(wire):
        assert account("server", pieces) == expected(heard=heard, passed=len(wire), unfinished=3, closed=True)


def test_only_headers_and_control_frames_are_ever_held() -> None:
    """Byte by byte, no frame makes a meter keep more than the longest control frame: memory and time stay linear."""
    wires = [case.wire for case in CASES] + [frame(BINARY, bytes(70000)), frame(PING, bytes(125), key=KEY, width=8)]
    longest = 0
    for wire in wires:
        metered = Metered("server")
        for octet in wire:
            metered.meter.feed(bytes([octet]))
            longest = max(longest, len(metered.meter._held))
    assert longest == 2 + 8 + 4 + 125 - 1


class Slow(FrameMeter):
    """A meter that tells how many frames it took one by one."""

    frames = 0

    def _frame(self, data: bytes, pos: int, end: int) -> int:
        self.frames += 1
        return super()._frame(data, pos, end)


@pytest.mark.parametrize(
    "before", [b"", frame(TEXT, b"a", fin=False) + frame(CONTINUATION, b"b"), frame(PING), frame(TEXT, b"x", key=KEY)]
)
def test_unusual_frames_do_not_slow_down_what_follows(before: bytes) -> None:
    """Behind fragments, control frames and anomalies, ordinary messages are counted in runs again."""
    meter = Slow("server", no_sizes(), deflate=False, listener=Metered("server"))
    meter.feed(before)
    taken = meter.frames
    meter.feed(NEXT * 100 + frame(BINARY, bytes(300)) * 100)
    assert meter.frames == taken
    assert meter.largest_message == 300
