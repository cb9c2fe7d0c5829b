"""One direction of a TCP connection, put together again from the segments that a capture saw (RFC 9293 section 3.4).

Bytes come out in order and once. What came early is held until the gap before it closes: networks repair what they
lose, a capture does not. A gap that will not close is given up, and said. Times are nanoseconds, as packets are
stamped.
"""

from bisect import bisect_left
from typing import Any, Final, Generic, Protocol, TypeVar

from exporter.events import Side
from exporter.wire.frames import Chunk, Readable

MODULUS: Final = 1 << 32
MASK: Final = MODULUS - 1
_HALF: Final = MODULUS // 2

MOST_HELD: Final = 1024
"""Segments held of one direction. 64 were too few where a network loses 5 % and reorders 20 %."""

MOST_HELD_BYTES: Final = 1 << 20
"""Bytes held of one direction."""

FEW_HELD: Final = 16
FEW_HELD_BYTES: Final = 32 << 10
"""The same where packets were dropped: more than networks put out of order in a moment. Whoever has dropped has no time
to hold what comes behind it; a larger segment is not held at all."""

WINDOW: Final = 64 << 20
"""Bytes ahead of what has been seen that a segment may be: more than kernels let a peer send unacknowledged."""

WIDE_WINDOW: Final = 1 << 30
"""The same while packets are being missed: whole windows may have gone by unseen. TCP's own largest window."""

MOST_BRIDGED: Final = 8 << 20
"""Bytes of a gap that is passed over because it is payload: more would take long."""

NEVER: Final = -1
"""A sequence number that no segment has."""

_ZEROS: Final = memoryview(bytes(1 << 20))


def ahead_of(sequence: int, reference: int) -> int:
    """How many bytes `sequence` is ahead of `reference`; negative if it is behind."""
    return (sequence - reference + _HALF & MASK) - _HALF


class StreamOwner(Protocol):
    """Who takes the bytes of both directions."""

    def take(self, stream: Any, data: Chunk, at: int) -> None:
        """The next bytes, which were seen `at` that time."""
        ...

    def known_payload(self, stream: Any) -> int:
        """How many of the next bytes need not be seen."""
        ...

    def gap(self, stream: Any, size: int) -> None:
        """The next `size` bytes will never be seen; what comes next comes after them."""
        ...


Owner = TypeVar("Owner", bound=StreamOwner)


class Meter(Protocol):
    """Who may be given the bytes of a stream without its owner: see `frames.FrameMeter`."""

    def feed(self, data: Chunk) -> None:
        """Take the next bytes."""
        ...

    def glance(self, memory: Readable, begin: int, end: int) -> bool:
        """Take the next bytes, those from `begin` to `end` (two at least), if they are of one message, or tell."""
        ...


class Unread:
    """The meter of bytes that nobody reads."""

    def feed(self, data: Chunk) -> None:
        """Take the next bytes."""

    def glance(self, memory: Readable, begin: int, end: int) -> bool:
        """Take them."""
        return True


UNREAD: Final = Unread()


class Stream(Generic[Owner]):
    """What one side sends. `next` is the sequence number of the byte that comes next.

    `expected` is the same while a segment that begins there may go straight to the `meter`, else NEVER: the owner
    allows it by `direct`, nothing is held, and no end is near. Whoever does so sets `expected` to what follows.
    """

    __slots__ = ("_held", "_next", "_since", "_size", "direct", "end", "expected", "meter", "owner", "side")

    def __init__(self, owner: Owner, side: Side, first: int) -> None:
        self.owner = owner
        self.side: Side = side
        self.meter: Meter = UNREAD
        self.direct = False
        self.expected = NEVER
        self.end = NEVER  # the sequence number behind the last byte, once a FIN has told it
        self._next = first  # while nothing is expected
        self._held: list[tuple[int, bytes, int]] | None = None  # sequence number, bytes, when seen; in order
        self._size = 0
        self._since = 0

    @property
    def next(self) -> int:
        """Sequence number of the next byte."""
        return self._next if self.expected == NEVER else self.expected

    @property
    def waiting_since(self) -> int | None:
        """When the gap that is waited for was first seen; None if there is none."""
        if self._held or (self.end != NEVER and not self.finished):
            return self._since
        return None

    @property
    def finished(self) -> bool:
        """Whether all up to the FIN has been taken."""
        return self.end != NEVER and ahead_of(self.end, self.next) <= 0

    def may_be_reset_at(self, sequence: int) -> bool:
        """Whether a RST of that sequence number is one its receiver believes: exactly behind all that was sent.

        Any other is answered with a challenge (RFC 5961 section 3.2).
        """
        if self.end != NEVER:
            # A kernel whose socket is gone resets at whatever its peer has acknowledged so far.
            return -WINDOW <= ahead_of(sequence, self.end) <= 1
        if sequence == self.next:
            return True
        if not self._held:
            return False
        last, data, _ = self._held[-1]
        return sequence == last + len(data) & MASK

    @property
    def held_bytes(self) -> int:
        """Bytes that wait for what comes before them."""
        return self._size

    def slow(self) -> None:
        """Nothing goes straight to the meter for now."""
        if self.expected != NEVER:
            self._next, self.expected = self.expected, NEVER

    def segment(self, sequence: int, data: Chunk, at: int, end: int | None = None) -> None:
        """Take a segment that was seen `at` that time and is within the window; `end` is where its FIN is, if any."""
        self.slow()
        ahead = ahead_of(sequence, self._next)
        # One behind: its own number has been acknowledged already.
        if end is not None and self.end == NEVER and ahead_of(end, self._next) >= -1:
            self.end = end
            if not self._held:
                self._since = at
        if ahead > 0 and self._bridge(ahead, at):
            ahead = 0
        if ahead > 0:
            self._hold(sequence, bytes(data), at)
        elif len(data) > -ahead:
            self._take(data[-ahead:] if ahead < 0 else data, at)
            self._drain()
        self.straighten()

    def jump(self, sequence: int) -> None:
        """So much was missed that sequence numbers do not tell how much; what comes next is of this one."""
        self.slow()
        self._held = None
        self._size = 0
        size = sequence - self._next & MASK
        self._next = sequence
        self.owner.gap(self, size)

    def sent(self, sequence: int) -> None:
        """Learn that all before a sequence number was sent, and what of it has not been seen never will be.

        Whoever acknowledges bytes has them, so nobody sends them again.
        """
        while ahead_of(sequence, self.next) > 0 and self.waiting_since is not None:
            self.give_up()
        self.slow()
        size = ahead_of(sequence, self._next) - (self.end != NEVER)  # a FIN takes up a sequence number
        if size > 0 and not self._bridge(size, self._since):
            self._next = sequence
            self.owner.gap(self, size)
        self.straighten()

    def give_up(self) -> None:
        """Wait no longer for the gap: what is behind it comes next."""
        self.slow()
        target = self._held[0][0] if self._held else self.end
        size = ahead_of(target, self._next)
        if size > 0:
            self._next = target
            self.owner.gap(self, size)
        self._drain()

    def hold_few(self) -> None:
        """Wait no longer for gaps behind which much is held already."""
        while self._held and (len(self._held) > FEW_HELD or self._size > FEW_HELD_BYTES):
            self.give_up()
        self.straighten()

    def straighten(self) -> None:
        """What comes next may go straight to the meter, if nothing is in the way."""
        if self.direct and self.expected == NEVER and not self._held and self.end == NEVER:
            self.expected, self._next = self._next, NEVER

    def _bridge(self, size: int, at: int) -> bool:
        """Pass over a gap whose bytes are all known to be payload. Returns whether that was so."""
        if size > MOST_BRIDGED or self.owner.known_payload(self) < size:
            return False
        while size:
            zeros = _ZEROS[:size]
            size -= len(zeros)
            self._take(zeros, at)
        return True

    def _take(self, data: Chunk, at: int) -> None:
        self._next = (self._next + len(data)) & MASK
        self.owner.take(self, data, at)

    def _hold(self, sequence: int, data: bytes, at: int) -> None:
        held = self._held = self._held or []
        place = bisect_left(held, ahead_of(sequence, self._next), key=lambda one: ahead_of(one[0], self._next))
        if not data or (place < len(held) and held[place][0] == sequence and len(held[place][1]) >= len(data)):
            return
        if not held:
            self._since = at
        held.insert(place, (sequence, data, at))
        self._size += len(data)
        if len(held) > MOST_HELD or self._size > MOST_HELD_BYTES:
            self.give_up()

    def _drain(self) -> None:
        """Take what is held as far as it comes next, overlaps, or comes behind payload that need not be seen."""
        held = self._held
        if not held:
            return
        taken = 0
        for sequence, data, at in held:
            ahead = ahead_of(sequence, self._next)
            if ahead > 0 and not self._bridge(ahead, at):
                self._since = at
                break
            taken += 1
            self._size -= len(data)
            rest = data[max(0, -ahead) :]
            if rest:
                self._take(rest, at)
        del held[:taken]
