"""The frame meter against independent readers of the same bytes: a whole-buffer one below, and websockets' own."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode
from websockets.protocol import CLIENT, SERVER, Protocol, State

from exporter.events import AnomalyKind, Side
from exporter.wire import frames
from tests.wire.support import CLOSE, KEY, PING, PONG, Account, Heard, account, expected, frame


@dataclass(frozen=True)
class Seen:
    """One frame found in a buffer; `passed` of its `length` payload bytes are in it, behind `header` bytes."""

    header: int
    fin: bool
    rsv: int
    opcode: int
    masked: bool
    width: int
    length: int
    passed: int
    payload: bytes

    @property
    def control(self) -> bool:
        return self.opcode >= 8

    @property
    def short(self) -> bool:
        return self.length <= 125


def frames_in(buffer: bytes) -> Iterator[Seen]:
    """Every frame whose header is whole. A whole buffer needs no state: each frame starts where the last one ended."""
    while len(buffer) >= 2:
        bits = f"{buffer[0]:08b}{buffer[1]:08b}"
        length = int(bits[9:], 2)
        width = {126: 2, 127: 8}.get(length, 0)
        start = 2 + width + 4 * int(bits[8])
        if len(buffer) < start:
            return
        if width:
            length = int(buffer[2 : 2 + width].hex(), 16)
        payload = buffer[start : start + length]
        if bits[8] == "1":
            key = buffer[start - 4 : start]
            payload = bytes(octet ^ key[place % 4] for place, octet in enumerate(payload[:126])) + payload[126:]
        rsv, opcode = int(bits[1:4], 2), int(bits[4:8], 2)
        yield Seen(start, bits[0] == "1", rsv, opcode, bits[8] == "1", width, length, len(payload), payload)
        buffer = buffer[start + length :]


def without_torn_header(buffer: bytes) -> bytes:
    """`buffer` up to its last whole header: inside of one, a length may be known already or not yet."""
    return buffer[: sum(seen.header + seen.passed for seen in frames_in(buffer))]


def forbidden(seen: Seen, side: Side, *, deflate: bool) -> list[Heard]:
    """What RFC 6455 sections 5.1 to 5.5 and RFC 7692 forbid of a frame by itself."""
    rules: dict[AnomalyKind, bool] = {
        "wrong_masking": seen.masked is not (side == "client"),
        "rsv_without_extension": seen.rsv not in ({0, 0b100} if deflate and 1 <= seen.opcode <= 7 else {0}),
        "reserved_opcode": seen.opcode in {3, 4, 5, 6, 7, 11, 12, 13, 14, 15},
        "fragmented_control": seen.control and not seen.fin,
        "oversized_control": seen.control and not seen.short,
        "illegal_length": not {0: 0, 2: 126, 8: 65536}[seen.width] <= seen.length < 2**63,
    }
    return [kind for kind, broken in rules.items() if broken]


def reference(side: Side, buffer: bytes, *, deflate: bool) -> Account:
    """What is to be said of `buffer`, by the whole of it."""
    seen_frames = [
        seen for seen in frames_in(buffer) if not (seen.control and seen.short) or seen.passed == seen.length
    ]
    closes = [place for place, seen in enumerate(seen_frames) if seen.opcode == CLOSE]
    alive = closes[0] if closes else len(seen_frames)
    notes = [forbidden(seen, side, deflate=deflate) for seen in seen_frames]
    for place, seen in enumerate(seen_frames):
        if place > alive and seen.opcode not in (PING, PONG):
            notes[place].append("second_close" if seen.opcode == CLOSE else "data_after_close")
        elif seen.opcode in (CLOSE, PING, PONG):
            notes[place].append((seen.opcode, seen.payload if seen.short else None))

    plain: list[int] = []
    compressed: list[int] = []
    fragments: list[Seen] = []
    for place, seen in enumerate(seen_frames[:alive]):
        if seen.opcode > 2:
            continue
        if seen.opcode == 0 and not fragments:
            notes[place].append("unexpected_continuation")
            continue
        if seen.opcode > 0 and fragments:
            notes[place].append("interrupted_message")
            fragments = []
        fragments.append(seen)
        if seen.fin and seen.passed == seen.length:
            kind = compressed if deflate and fragments[0].rsv & 0b100 else plain
            kind.append(sum(fragment.length for fragment in fragments))
            fragments = []
    return expected(
        plain,
        [note for frame_notes in notes for note in frame_notes],
        compressed=compressed,
        passed=len(buffer),
        unfinished=sum(fragment.length for fragment in fragments),
        closed=bool(closes),
    )


sizes = st.one_of(st.sampled_from([0, 1, 2, 124, 125, 126, 127, 128, 129, 1000, 65535, 65536]), st.integers(0, 300))
flags = st.sampled_from([False] * 9 + [True])


@st.composite
def any_frame(draw: st.DrawFn, side: Side) -> bytes:
    """Mostly a data frame, mostly legal; anything a header can say is possible."""
    opcode = draw(st.sampled_from([0, 0, 0, 1, 1, 2, 2, 8, 9, 10]) if not draw(flags) else st.integers(0, 15))
    size = draw(sizes if opcode < 8 or draw(flags) else st.integers(0, 125))
    widths = [width for width, most in ((0, 125), (2, 65535), (8, 65536)) if size <= most]
    masked = (side == "client") is not draw(flags)
    return frame(
        opcode,
        bytes(size),
        fin=draw(st.booleans()) if opcode < 8 else not draw(flags),
        rsv=draw(st.integers(0, 7)) if draw(flags) else draw(st.sampled_from([0, 0, 4])),
        key=draw(st.sampled_from([KEY, bytes(4)])) if masked else None,
        width=draw(st.sampled_from(widths)) if draw(flags) else widths[0],
    )


sides: st.SearchStrategy[Side] = st.sampled_from(["client", "server"])


def cut(data: bytes, places: list[float]) -> list[bytes]:
    """`data` in pieces: at each of `places`, given as shares of its length."""
    marks = [0, *sorted(int(place * len(data)) for place in places), len(data)]
    return [data[start:end] for start, end in pairwise(marks)]


cuts = st.lists(st.floats(0, 1), max_size=12)


@settings(max_examples=300, deadline=None)
@given(st.data(), sides, st.booleans(), cuts, st.integers(0, 40))
def test_any_frames_in_any_pieces(
    data: st.DataObject, side: Side, deflate: bool, places: list[float], missing: int
) -> None:
    """Legal or not, complete or not: sizes, totals, control frames and anomalies are those of the whole buffer."""
    stream = b"".join(data.draw(st.lists(any_frame(side), max_size=12)))
    stream = without_torn_header(stream[: max(0, len(stream) - missing)])
    assert account(side, cut(stream, places), deflate=deflate) == reference(side, stream, deflate=deflate)


@settings(max_examples=300, deadline=None)
@given(st.data(), sides, st.booleans(), cuts, st.integers(1, 40))
def test_pieces_of_any_length(data: st.DataObject, side: Side, deflate: bool, places: list[float], piece: int) -> None:
    """However much of a read is looked at together, the account is that of the whole buffer."""
    stream = without_torn_header(b"".join(data.draw(st.lists(any_frame(side), max_size=12))))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(frames, "PIECE", piece)
        assert account(side, cut(stream, places), deflate=deflate) == reference(side, stream, deflate=deflate)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200).map(without_torn_header), sides, st.booleans(), cuts)
def test_any_bytes_in_any_pieces(stream: bytes, side: Side, deflate: bool, places: list[float]) -> None:
    """Noise is read as frames too: nothing raises, and every split says the same."""
    assert account(side, cut(stream, places), deflate=deflate) == reference(side, stream, deflate=deflate)


@st.composite
def legal_messages(draw: st.DrawFn) -> list[Frame]:
    """Messages in fragments with control frames between them, as websockets would send them."""
    sent: list[Frame] = []
    for size in draw(st.lists(st.lists(sizes, min_size=1, max_size=4), max_size=6)):
        for place, part in enumerate(size):
            opcode = Opcode.CONT if place else draw(st.sampled_from([Opcode.TEXT, Opcode.BINARY]))
            sent.append(Frame(opcode, bytes(part), fin=place == len(size) - 1))
            if draw(flags):
                control = draw(st.sampled_from([Opcode.PING, Opcode.PONG]))
                sent.append(Frame(control, draw(st.binary(max_size=125))))
    return sent


@settings(max_examples=100, deadline=None)
@given(legal_messages(), sides, cuts)
def test_legal_messages_are_those_that_websockets_receives(sent: list[Frame], side: Side, places: list[float]) -> None:
    """A stream that websockets wrote is counted as websockets reads it, and holds no anomaly."""
    stream = b"".join(one.serialize(mask=side == "client") for one in sent)
    receiver = Protocol(SERVER if side == "client" else CLIENT, state=State.OPEN, max_size=None)
    receiver.receive_data(stream)
    messages: list[int] = []
    fragments = 0
    control: list[Heard] = []
    for event in receiver.events_received():
        assert isinstance(event, Frame)
        if event.opcode in (Opcode.PING, Opcode.PONG):
            control.append((event.opcode, bytes(event.data)))
            continue
        fragments += len(event.data)
        if event.fin:
            messages.append(fragments)
            fragments = 0
    assert account(side, cut(stream, places)) == expected(messages, control, passed=len(stream))
