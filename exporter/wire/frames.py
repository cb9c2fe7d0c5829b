"""The frame meter: walks the frame headers of one direction of a WebSocket (RFC 6455 section 5).

It never sees more of a payload than it must: message payloads are skipped by their length, control payloads
(at most 125 bytes) are unmasked and handed on. It counts what peers really send: a frame the RFC forbids is an
anomaly to report, and its length is believed, so that the stream never loses sync.
"""

from typing import Final, NamedTuple, Protocol, overload

from exporter.events import AnomalyKind, Passing, Side
from exporter.wire.sizes import SHORTEST_EXTENDED, SMALL_SLOTS, TICKS_PER_SECOND, TOTAL_SLOT, DirectionSizes

Chunk = bytes | memoryview
"""Bytes as they passed. A view may be of a buffer that is used again: it is good only until the call returns."""

FIN: Final = 0x80
RSV1: Final = 0x40
RSV: Final = 0x70
OPCODE: Final = 0x0F
CONTROL_BIT: Final = 0x08
CONTINUATION: Final = 0x0
TEXT: Final = 0x1
BINARY: Final = 0x2
CLOSE: Final = 0x8
PING: Final = 0x9
PONG: Final = 0xA
MASK: Final = 0x80
LENGTH: Final = 0x7F
LENGTH_16: Final = 126
LENGTH_64: Final = 127
MASKING_KEY: Final = 4
LONGEST_HEADER: Final = 14
LONGEST_CONTROL: Final = 125


class Readable(Protocol):
    """Memory in which a few bytes are looked at."""

    @overload
    def __getitem__(self, at: int, /) -> int: ...

    @overload
    def __getitem__(self, some: slice, /) -> Chunk: ...


PIECE: Final = 16 * 1024
"""Bytes copied at once where small frames may be. Where a large one may be that is as many as a header has: its payload
is never even copied."""

SETTLED: Final = 5 * TICKS_PER_SECOND
"""Ticks after which a message counts as accepted, if the connection is still open: a refusal comes sooner."""

_REGULAR: Final = frozenset(
    opcode | fin
    for opcode in (CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG)
    for fin in (0, FIN)
    if fin or not opcode & CONTROL_BIT
)
"""First header bytes in which nothing is forbidden."""

_ALL_SLOW: Final[list[list[int] | None]] = [None] * 256
_HELD: Final = -1


_Layout = tuple[Side, list[int], int, int]
"""What a side's frames look like.

Behind the side come the bytes from one frame to the next by the second byte of its header, of short frames with the
side's proper masking, else 0; then the second byte behind which a 16-bit length follows, and the size of such a header.
"""


def _layout(side: Side) -> _Layout:
    mask, key = (MASK, MASKING_KEY) if side == "client" else (0, 0)
    steps = [0] * 256
    steps[mask : mask + SHORTEST_EXTENDED] = range(2 + key, 2 + key + SHORTEST_EXTENDED)
    return side, steps, mask | LENGTH_16, 4 + key


_LAYOUTS: Final[dict[Side, _Layout]] = {"client": _layout("client"), "server": _layout("server")}


def unmask(payload: bytes, key: bytes) -> bytes:
    """XOR `payload` with the repeated four-byte masking `key` (RFC 6455 section 5.3)."""
    size = len(payload)
    stream = (key * (size // MASKING_KEY + 1))[:size]
    return (int.from_bytes(payload) ^ int.from_bytes(stream)).to_bytes(size)


class CloseFrame(NamedTuple):
    """The body of a Close frame (RFC 6455 section 5.5.1).

    `code` is None when the body is empty or malformed (one byte, or over 125). Bytes of `reason` that are no UTF-8
    are replaced.
    """

    code: int | None
    reason: str = ""
    malformed: bool = False


def parse_close(payload: bytes | None) -> CloseFrame:
    """Read a Close frame's unmasked payload; None stands for one longer than the RFC allows."""
    if payload is None or len(payload) == 1:
        return CloseFrame(None, malformed=True)
    if not payload:
        return CloseFrame(None)
    return CloseFrame(int.from_bytes(payload[:2]), payload[2:].decode("utf-8", "replace"))


class FrameListener(Protocol):
    """Who hears what the meter of one direction found."""

    def control_frame(self, side: Side, opcode: int, payload: bytes | None) -> None:
        """`side` sent a control frame; `payload` is unmasked, None where it is longer than the RFC allows."""
        ...

    def anomaly(self, side: Side, kind: AnomalyKind) -> None:
        """`side` sent a frame that the RFC forbids."""
        ...


class FrameMeter:
    """Counts the messages of one direction and reports its control frames and anomalies.

    Feed it every byte that `side` sent after the handshake, in any split. `bytes`, `messages` and `largest_message`
    are this connection's own; sizes also go to `sizes`, which the connections of one series share.

    Which messages were accepted, and which may have been refused, is a matter of their age: the largest of this tick
    of `sizes`, of the tick before and of what is older but not settled yet are remembered, and nothing else. What a
    larger one displaces before it is settled does not count as accepted. Ages are looked at when something passes or
    `passing` is asked; behind a message larger than those known to be accepted, also by `sizes` itself, since nothing
    may pass any more. Where permessage-deflate was negotiated no size tells of the limit.
    """

    __slots__ = (
        "_before",
        "_compressed",
        "_deflate",
        "_earlier",
        "_earlier_tick",
        "_fragments",
        "_held",
        "_in_message",
        "_largest",
        "_layout",
        "_listener",
        "_moment",
        "_notable",
        "_pending",
        "_recent",
        "_rows",
        "_settling",
        "_sizes",
        "_skip",
        "_stray",
        "_torn",
        "bytes",
        "closed",
        "messages",
    )

    def __init__(self, side: Side, sizes: DirectionSizes, *, deflate: bool, listener: FrameListener) -> None:
        self._sizes = sizes
        self._deflate = deflate
        self._listener = listener
        self._layout = _LAYOUTS[side]
        self._rows = sizes.by_first_byte_deflate if deflate else sizes.by_first_byte
        self._held = b""  # a frame header or control frame that has not passed completely
        self._skip = 0  # bytes until the frame under way has passed
        self._pending = -1  # the message that the frame under way completes; -1 if it completes none
        self._stray = 0  # declared bytes of that frame if it is of no message at all, as far as `_frame` took it
        self._in_message = False  # between a message's first fragment and its last
        self._fragments = 0  # declared bytes of those fragments
        self._compressed = False
        self._moment = sizes.moment
        self._notable = 0  # a message must be larger to be the largest of this tick, or to be near the limit
        self._recent = 0  # the largest message of this tick
        self._before = 0  # of the tick before
        self._earlier = 0  # of the ticks before that, as far as they are not settled
        self._earlier_tick = 0
        self._largest = 0  # of all before this tick
        self._settling = not deflate  # whether a message may still come to be accepted
        self._torn = False  # the fragments that come may be the rest of a message whose beginning was not seen
        self.bytes = 0
        self.messages = 0
        self.closed = False

    @property
    def _side(self) -> Side:
        side, *_ = self._layout
        return side

    @property
    def largest_message(self) -> int:
        """Payload bytes of the largest message."""
        return self._recent if self._recent > self._largest else self._largest

    def passing(self) -> Passing:
        """The messages that the receiver may be refusing now."""
        if self._moment is not self._sizes.moment:
            self._turn()
        last_second = recent = self._recent if self._recent > self._before else self._before
        if self._earlier > recent and self._moment.tick - self._earlier_tick < SETTLED:
            recent = self._earlier
        if self._skip and self._pending < 0 and self._stray > recent:
            recent = self._stray
        return Passing(self.unfinished, last_second, recent, self._deflate, self.largest_message)

    def end(self) -> Passing:
        """The messages that the receiver may have refused by ending the WebSocket now: from here on none is accepted.

        Bytes may still come, for as long as TCP lasts, and are counted.
        """
        passing = self.passing()
        self._settling = False
        return passing

    def ahead(self, begin: Chunk = b"") -> int:
        """How many of the bytes to come are surely payload, and need no looking at: the rest of the frame under way.

        Between two frames it is the payload of the next, if `begin` is how the bytes to come begin and holds its header
        (LONGEST_HEADER bytes do).
        """
        if self._skip or self._held or len(begin) < LONGEST_HEADER:
            return self._skip
        length = begin[1] & LENGTH
        if length < LENGTH_16:
            return length
        return int.from_bytes(begin[2:4] if length == LENGTH_16 else begin[2:10])

    def resume(self, skip: int = 0) -> None:
        """Bytes were missed: the next frame begins `skip` bytes from here.

        The message under way is not counted.
        """
        self._held = b""
        self._skip = skip
        self._pending = -1
        self._stray = 0
        self._in_message = False
        self._fragments = 0
        self._torn = True
        self.closed = False
        self._rows = self._fast_rows()

    def doubt(self) -> None:
        """A refusal may have been missed: from here on nothing that passes is a witness of what was accepted."""
        self._settling = False

    def finish(self) -> None:
        """Nothing more will come. Whoever listens mostly holds this meter: that circle ends here, for less than a
        garbage collector would take to find it.
        """
        del self._listener

    @property
    def unfinished(self) -> int:
        """Declared bytes of the message under way, fragments before it included; 0 when there is none."""
        if self._skip and self._pending >= 0:
            return self._pending
        return self._fragments if self._in_message else 0

    def feed(self, data: Chunk) -> None:
        """Take the next bytes of this direction. The cost of a payload does not grow with its length."""
        end = len(data)
        if end > 1 and self.glance(data, 0, end):
            return
        self.bytes += end
        if self._moment is not self._sizes.moment:
            self._turn()
        pos = 0
        look = PIECE if end <= PIECE else LONGEST_HEADER
        while pos < end:
            skip = self._skip
            if skip > end - pos:
                self._skip = skip - (end - pos)
                return
            if skip:
                self._skip = 0
                self._message_passed()
                pos += skip
                continue
            piece = bytes(data[pos : pos + look])
            pos += look
            if self._held:
                piece = self._held + piece
                self._held = b""
            self._frames(piece)
            look = PIECE if self._skip <= PIECE else LONGEST_HEADER

    __call__ = feed  # where its bytes go, it goes itself: a bound method for each side is 128 bytes of a connection

    def glance(self, memory: Readable, begin: int, end: int) -> bool:
        """Take the next bytes, those from `begin` to `end`, if they are of one unfragmented message and nothing else.

        That may be the whole of one under 64 KiB, the beginning of a longer one than they are, or payload. Most reads
        and most segments are such; there are two bytes at least. Returns whether they are; if not, nothing has been
        taken.
        """
        size = end - begin
        if self._skip:
            return self._payload(size)
        row = self._rows[memory[begin]]
        if row is None or self._held or self._moment is not self._sizes.moment:
            return False
        _, steps, second_16, header_16 = self._layout
        second = memory[begin + 1]
        if steps[second] == size:
            row[second] += 1
            length = second & LENGTH
            if length > self._recent:
                self._recent = length
        elif second == second_16 and size > header_16:
            length = memory[begin + 2] << 8 | memory[begin + 3]
            left = header_16 + length - size
            if left < 0 or length < SHORTEST_EXTENDED:
                return False
            if left:
                self._begin(length, row, left)
                self.bytes += size
                return True
            row[SMALL_SLOTS + (length - 1).bit_length()] += 1
            row[TOTAL_SLOT] += length
            if length > self._notable:
                self._note(length, compressed=row is self._sizes.compressed.slots)
        elif second == second_16 + 1 and size >= LONGEST_HEADER:
            length = int.from_bytes(memory[begin + 2 : begin + 10])
            left = header_16 + 6 + length - size
            if left <= 0 or not 1 << 16 <= length < 1 << 63:
                return False
            self._begin(length, row, left)
            self.bytes += size
            return True
        else:
            return False
        self.bytes += size
        self.messages += 1
        return True

    def _payload(self, size: int) -> bool:
        """Take so many bytes if all of them are of the frame under way. Returns whether they are."""
        skip = self._skip
        if skip < size:
            return False
        self.bytes += size
        self._skip = skip - size
        if skip == size:
            if self._moment is not self._sizes.moment:
                self._turn()
            self._message_passed()
        return True

    def _turn(self) -> None:
        """A new moment has come: what passed before is older now, or near another limit."""
        last, moment = self._moment.tick, self._sizes.moment
        self._moment = moment
        if moment.tick != last:
            self._age(last, moment.tick)
        self._notable = min(self._recent, moment.near)

    def _age(self, last: int, tick: int) -> None:
        """A tick has begun, and `last` was the one before or an earlier one: what is old enough was accepted."""
        recent, before = self._recent, self._before
        self._recent = 0
        if recent > self._largest:
            self._largest = recent
        if tick == last + 1:
            self._before = recent
            older, older_tick = before, last - 1
        else:
            self._before = 0
            older, older_tick = (recent, last) if recent > before else (before, last - 1)
        if self._earlier:
            self._settle(tick)
        if older > self._earlier:
            self._earlier, self._earlier_tick = older, older_tick
            self._settle(tick)

    def _settle(self, tick: int) -> None:
        if tick - self._earlier_tick > SETTLED:
            if self._settling and self._earlier > self._sizes.accepted:
                self._sizes.accepted = self._earlier
            self._earlier = 0

    def _note(self, size: int, *, compressed: bool) -> None:
        """Remember a message that may be the largest, or is near the limit."""
        near = self._moment.near
        if size > near and not compressed:
            self._sizes.headroom.add(size)
        if size > self._recent:
            self._recent = size
            self._notable = min(size, near)
            if size > self._sizes.known and self._settling:
                self._sizes.wait(self)

    def waits(self) -> bool:
        """Take note of the time; whether a message larger than those known may still come to be accepted."""
        if self._moment is not self._sizes.moment:
            self._turn()
        return self._settling and max(self._recent, self._before, self._earlier) > self._sizes.known

    def _frames(self, data: bytes) -> None:
        """Take the frames that begin in `data`, the first of them where it begins."""
        end = len(data)
        pos = 0
        while pos < end:
            pos = self._run(data, pos, end)
            if pos >= end:
                return
            pos = self._frame(data, pos, end)
            if pos == _HELD:
                return

    def _run(self, data: bytes, pos: int, end: int) -> int:
        """Count a run of unfragmented data frames under 64 KiB; stop before the first of any other kind.

        This is the hot path: no call and no attribute for a message. Returns where the run ended, `end` or more
        when all was taken.
        """
        rows = self._rows
        _, steps, second_16, header_16 = self._layout
        last = end - 1
        messages = 0
        top = 0
        while pos < last:
            row = rows[data[pos]]
            if row is None:
                break
            second = data[pos + 1]
            step = steps[second]
            if step:
                pos += step
                if pos > end:
                    self._begin(second & LENGTH, row, pos - end)
                    break
                row[second] += 1
                if second > top:
                    top = second
            elif second == second_16 and pos + header_16 <= end:
                size = data[pos + 2] << 8 | data[pos + 3]
                if size < SHORTEST_EXTENDED:
                    break
                pos += header_16 + size
                if pos > end:
                    self._begin(size, row, pos - end)
                    break
                row[SMALL_SLOTS + (size - 1).bit_length()] += 1
                row[TOTAL_SLOT] += size
                if size > self._notable:
                    self._note(size, compressed=row is self._sizes.compressed.slots)
            else:
                break
            messages += 1
        self.messages += messages
        if top & LENGTH > self._recent:
            self._recent = top & LENGTH
        return pos

    def _begin(self, size: int, row: list[int], skip: int) -> None:
        """An unfragmented message of `size` bytes will be complete after `skip` more bytes of the stream."""
        self._pending = size
        self._skip = skip
        self._compressed = row is self._sizes.compressed.slots
        self._torn = False

    def _message_passed(self) -> None:
        """The frame under way has passed: count the message it completed, if it did."""
        size = self._pending
        if size < 0:
            self._stray_passed()
            return
        self._pending = -1
        (self._sizes.compressed if self._compressed else self._sizes.plain).add(size)
        self.messages += 1
        if size > self._notable:
            self._note(size, compressed=self._compressed)

    def _stray_passed(self) -> None:
        """What is no message, and longer than a control frame may be, its receiver may refuse as it does a message.

        Who sends that is no witness of what is accepted, from here on.
        """
        if self._stray > LONGEST_CONTROL:
            self._settling = False
            if self._stray > self._earlier:
                self._earlier, self._earlier_tick = self._stray, self._moment.tick

    def _frame(self, data: bytes, pos: int, end: int) -> int:
        """Take one frame of any kind. Returns the position behind it, or _HELD if it must wait for more bytes."""
        first, second = data[pos], data[pos + 1] if pos + 1 < end else 0
        opcode = first & OPCODE
        masked = second >= MASK
        length = second & LENGTH
        payload = pos + 2
        extended = 0
        if length >= LENGTH_16:
            extended = 2 if length == LENGTH_16 else 8
            payload += extended
            if payload <= end:
                length = int.from_bytes(data[payload - extended : payload])
        if masked:
            payload += MASKING_KEY
        short_control = first & CONTROL_BIT and length <= LONGEST_CONTROL
        if payload + (length if short_control else 0) > end:
            self._held = data[pos:]
            return _HELD
        after = payload + length
        if extended or first not in _REGULAR or masked != (self._side == "client"):
            self._check(first, masked, length, extended)
        self._stray = 0 if self.closed else length
        if self.closed and opcode not in (PING, PONG):
            self._after_close(opcode)
        elif not first & CONTROL_BIT:
            self._data_frame(first, length)
        elif opcode <= PONG:
            key = data[payload - MASKING_KEY : payload]
            body = data[payload:after] if short_control else None
            self._control_frame(opcode, unmask(body, key) if body and masked else body)
        if after > end:
            self._skip = after - end
        else:
            self._message_passed()
        return after

    def _check(self, first: int, masked: bool, length: int, extended: int) -> None:
        """Report what RFC 6455 section 5 forbids of a frame header, whatever came before it."""
        opcode = first & OPCODE
        rsv = first & RSV
        if masked != (self._side == "client"):
            self._listener.anomaly(self._side, "wrong_masking")
        if rsv and not (rsv == RSV1 and self._deflate and 0 < opcode < CONTROL_BIT):
            self._listener.anomaly(self._side, "rsv_without_extension")
        if BINARY < opcode < CLOSE or opcode > PONG:
            self._listener.anomaly(self._side, "reserved_opcode")
        if opcode & CONTROL_BIT and not first & FIN:
            self._listener.anomaly(self._side, "fragmented_control")
        if opcode & CONTROL_BIT and length > LONGEST_CONTROL:
            self._listener.anomaly(self._side, "oversized_control")
        if length >= 1 << 63 or (extended and length < (SHORTEST_EXTENDED if extended == 2 else 1 << 16)):
            self._listener.anomaly(self._side, "illegal_length")

    def _after_close(self, opcode: int) -> None:
        """A side that sent Close must send no data any more (RFC 6455 section 5.5.1): nothing of it is counted.

        Pings it must go on answering until it has received a Close itself (section 5.5.2).
        """
        self._listener.anomaly(self._side, "second_close" if opcode == CLOSE else "data_after_close")

    def _control_frame(self, opcode: int, payload: bytes | None) -> None:
        if opcode == CLOSE:
            self.closed = True
            self._stray = 0
            self._rows = _ALL_SLOW
        self._listener.control_frame(self._side, opcode, payload)

    def _data_frame(self, first: int, length: int) -> None:
        """Follow fragmentation (RFC 6455 section 5.4); frames with a reserved opcode carry no message."""
        opcode = first & OPCODE
        if opcode > BINARY:
            return
        if opcode == CONTINUATION:
            if not self._in_message:
                if self._torn:
                    self._stray = 0
                else:
                    self._listener.anomaly(self._side, "unexpected_continuation")
                return
        else:
            if self._in_message:
                self._listener.anomaly(self._side, "interrupted_message")
            self._compressed = bool(first & RSV1) and self._deflate
            self._fragments = 0
        self._stray = 0
        self._torn = False
        self._fragments += length
        if first & FIN:
            self._pending = self._fragments
            self._fragments = 0
        self._in_message = not first & FIN
        self._rows = _ALL_SLOW if self._in_message else self._fast_rows()

    def _fast_rows(self) -> list[list[int] | None]:
        return self._sizes.by_first_byte_deflate if self._deflate else self._sizes.by_first_byte
