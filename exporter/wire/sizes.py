"""Message sizes of one direction, counted without an object or a call per message.

A small message costs one list increment, keyed by the second byte of its frame header; every other one falls into
a power of two. The exposition's bounds are powers of two, so nothing is lost between here and a scrape.
"""

from bisect import bisect_left
from collections.abc import Sequence
from fractions import Fraction
from operator import sub
from typing import Final, NamedTuple, Protocol

SMALL_SLOTS: Final = 256
"""One slot for each second header byte: mask bit and 7-bit payload length (RFC 6455 section 5.2)."""

POWER_SLOTS: Final = 65
"""Slot SMALL_SLOTS + k counts sizes in (2**(k-1), 2**k]; payload lengths have at most 64 bits."""

TOTAL_SLOT: Final = SMALL_SLOTS + POWER_SLOTS
"""Bytes of all messages counted in the power slots; the small slots know their own."""

UNLIMITED: Final = 1 << 64
"""More than any payload length."""

MOST_WAITING: Final = 1000
"""Silent connections that are looked at with each tick; of more, the next message or the end of each tells."""

KNOWN_FOR: Final = 120
"""Ticks for which what was accepted need not be found anew: a minute, since evidence has an age."""

TICKS_PER_SECOND: Final = 2
"""How often `DirectionSizes.tick` advances: sizes are remembered with their age in ticks."""

SHORTEST_EXTENDED: Final = 126
"""The first payload length that no longer fits the second header byte."""


class MessageSizes:
    """Counts of complete messages by payload size in bytes, shared by all connections of one series.

    `slots` is laid open for the frame meter's inner loop; everybody else calls `add` and `cumulative`.
    """

    __slots__ = ("slots",)

    def __init__(self) -> None:
        self.slots: list[int] = [0] * (TOTAL_SLOT + 1)

    def add(self, size: int) -> None:
        """Count one message of `size` payload bytes."""
        if size < SHORTEST_EXTENDED:
            self.slots[size] += 1
        else:
            self.slots[SMALL_SLOTS + (size - 1).bit_length()] += 1
            self.slots[TOTAL_SLOT] += size

    def copy(self) -> "MessageSizes":
        """This moment's counts, on their own."""
        other = MessageSizes()
        other.slots = self.slots[:]
        return other

    def since(self, before: "MessageSizes") -> "MessageSizes":
        """What was counted since the copy `before` was made."""
        other = MessageSizes()
        other.slots = list(map(sub, self.slots, before.slots))
        return other

    def small(self) -> list[int]:
        """How many messages there are of each size under SHORTEST_EXTENDED."""
        return [self.slots[size] + self.slots[0x80 | size] for size in range(SHORTEST_EXTENDED)]

    def cumulative(self, bounds: Sequence[float]) -> tuple[list[int], int, int]:
        """Cumulative counts at each of `bounds` (powers of two from 128 up), the count of all, and their bytes."""
        small = self.small()
        powers = self.slots[SMALL_SLOTS:TOTAL_SLOT]
        few = sum(small)
        counts = [few + sum(powers[: (int(bound) - 1).bit_length() + 1]) for bound in bounds]
        total = self.slots[TOTAL_SLOT] + sum(size * count for size, count in enumerate(small))
        return counts, few + sum(powers), total


class Headroom:
    """Sizes of the plain messages of one direction as shares of a configured limit, counted in buckets at `bounds`.

    Messages within the first bound are not counted one by one: they are what `plain` has more. Nor are the small ones,
    of which `plain` knows each size. Counts outlive a change of the limit, each as a share of the limit of its time.
    """

    __slots__ = ("_bounds", "_counts", "_large", "_limit", "_plain", "_since", "_thresholds", "_total")

    def __init__(self, plain: MessageSizes, bounds: Sequence[float]) -> None:
        self._plain = plain
        self._bounds = bounds
        self._limit: int | None = None
        self._thresholds: list[int] = []  # the largest size within each bound
        self._since = plain.copy()  # what had been counted when this limit came into force
        self._large = self._none()  # messages that were given to `add` under this limit
        self._counts: list[int] | None = None  # messages under earlier limits
        self._total = 0.0

    def _none(self) -> list[int]:
        return [0] * (len(self._bounds) + 1)

    def copy(self) -> "Headroom":
        """This moment's counts, on their own."""
        other = Headroom(self._plain, self._bounds)
        other._plain = other._since  # the copy that has just been made
        other._limit = self._limit
        other._thresholds = self._thresholds
        other._since = self._since
        other._large = self._large[:]
        other._counts = self._counts
        other._total = self._total
        return other

    def change(self, limit: int | None) -> int:
        """Take this limit in bytes from now on, None for none. Returns the size above which `add` is to be called."""
        if limit != self._limit:
            shares = self.shares()
            if shares is not None:
                self._counts, self._total = shares
            self._limit = limit
            self._since = self._plain.copy()
            self._large = self._none()
            # As decimals, for 0.1 is no tenth in binary: of 30 bytes, 3 are within it.
            self._thresholds = [] if limit is None else [int(Fraction(str(bound)) * limit) for bound in self._bounds]
        return UNLIMITED if limit is None else max(self._thresholds[0], SHORTEST_EXTENDED - 1)

    def add(self, size: int) -> None:
        """Count one message above what `change` returned."""
        self._large[bisect_left(self._thresholds, size)] += 1

    def shares(self) -> tuple[list[int], float] | None:
        """Counts per bucket, the last one above all bounds, and the sum of all shares; None without any limit yet."""
        if self._limit is None:
            return None if self._counts is None else (self._counts, self._total)
        counts = [before + large for before, large in zip(self._counts or self._none(), self._large, strict=True)]
        new = self._plain.since(self._since)
        small = new.small()
        for size, number in enumerate(small):
            if number:
                counts[bisect_left(self._thresholds, size)] += number
        _, messages, total = new.cumulative(())
        counts[0] += messages - sum(small) - sum(self._large)
        return counts, self._total + total / self._limit


class Moment(NamedTuple):
    """What a frame meter has to look at anew when it changes: the time in ticks, and what counts as near the limit."""

    tick: int
    near: int


class Waiting(Protocol):
    """A meter whose connection may be silent since a message that would be the largest known to be accepted."""

    def waits(self) -> bool:
        """Take note of the time; whether there still is such a message."""
        ...


class DirectionSizes:
    """The two histograms of one direction: wire sizes of plain messages, and of compressed ones.

    They are kept apart because limits apply to what a receiver inflates, not to what the wire carries.
    `by_first_byte` finds the slots for an unfragmented data frame by its first header byte, None for any other frame;
    `by_first_byte_deflate` is the same where permessage-deflate was negotiated (RFC 7692 section 6: RSV1 marks it).

    `accepted` is the largest plain message, in bytes, whose WebSocket stayed open for 5 seconds after it; whoever asks
    sets it back to 0, as `advance` does. `known` is the largest of them lately. A plain message larger than
    `moment.near` is counted in `headroom` too. `moment` is one object that is replaced, so that a meter sees with one
    comparison that nothing has changed.
    """

    __slots__ = (
        "_known_until",
        "_waiting",
        "accepted",
        "by_first_byte",
        "by_first_byte_deflate",
        "compressed",
        "headroom",
        "known",
        "moment",
        "plain",
    )

    def __init__(self, plain: MessageSizes, compressed: MessageSizes, headroom: Headroom) -> None:
        self.plain = plain
        self.compressed = compressed
        self.headroom = headroom
        self.moment = Moment(0, UNLIMITED)
        self.accepted = 0
        self.known = 0
        self._known_until = 0
        self._waiting: set[Waiting] = set()
        slots = {0x81: plain.slots, 0x82: plain.slots}
        slots_deflate = slots | {0xC1: compressed.slots, 0xC2: compressed.slots}
        self.by_first_byte = [slots.get(byte) for byte in range(256)]
        self.by_first_byte_deflate = [slots_deflate.get(byte) for byte in range(256)]

    def messages(self) -> int:
        """How many plain messages have passed."""
        _, messages, _ = self.plain.cumulative(())
        return messages

    @property
    def tick(self) -> int:
        """The time in steps (TICKS_PER_SECOND), which whoever has a clock keeps."""
        return self.moment.tick

    @tick.setter
    def tick(self, tick: int) -> None:
        self.moment = Moment(tick, self.moment.near)

    def wait(self, meter: Waiting) -> None:
        """A meter has seen a message larger than those known to be accepted: it may fall silent before that is one."""
        if len(self._waiting) < MOST_WAITING:
            self._waiting.add(meter)

    def advance(self, tick: int) -> int:
        """Let it be `tick`. Returns the largest message that was found to be accepted since it was last asked, or 0."""
        self.tick = tick
        self._waiting = {meter for meter in self._waiting if meter.waits()}
        accepted, self.accepted = self.accepted, 0
        if tick >= self._known_until:
            self.known, self._known_until = 0, tick + KNOWN_FOR
        self.known = max(self.known, accepted)
        return accepted

    def limit(self, limit: int | None) -> None:
        """Hold sizes against this configured limit in bytes from now on; None for none."""
        self.moment = Moment(self.moment.tick, self.headroom.change(limit))
