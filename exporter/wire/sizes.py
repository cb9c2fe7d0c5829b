"""Message sizes of one direction, counted without an object or a call per message.

A small message costs one list increment, keyed by the second byte of its frame header; every other one falls into
a power of two. The exposition's bounds are powers of two, so nothing is lost between here and a scrape.
"""

from bisect import bisect_left
from collections.abc import Sequence
from typing import Final

SMALL_SLOTS: Final = 256
"""One slot for each second header byte: mask bit and 7-bit payload length (RFC 6455 section 5.2)."""

POWER_SLOTS: Final = 65
"""Slot SMALL_SLOTS + k counts sizes in (2**(k-1), 2**k]; payload lengths have at most 64 bits."""

TOTAL_SLOT: Final = SMALL_SLOTS + POWER_SLOTS
"""Bytes of all messages counted in the power slots; the small slots know their own."""

UNLIMITED: Final = 1 << 64
"""More than any payload length."""

NEAR: Final = 10
"""A message over a tenth of the limit is looked at by itself; below, the first bucket holds them all."""

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

    def small(self, since: "MessageSizes") -> list[int]:
        """How many messages of each size under SHORTEST_EXTENDED came since that copy was made."""
        return [now - before for now, before in zip(self._small(), since._small(), strict=True)]

    def _small(self) -> list[int]:
        return [self.slots[size] + self.slots[0x80 | size] for size in range(SHORTEST_EXTENDED)]

    def cumulative(self, bounds: Sequence[float]) -> tuple[list[int], int, int]:
        """Cumulative counts at each of `bounds` (powers of two from 128 up), the count of all, and their bytes."""
        small = self._small()
        powers = self.slots[SMALL_SLOTS:TOTAL_SLOT]
        few = sum(small)
        counts = [few + sum(powers[: (int(bound) - 1).bit_length() + 1]) for bound in bounds]
        total = self.slots[TOTAL_SLOT] + sum(size * count for size, count in enumerate(small))
        return counts, few + sum(powers), total


class Headroom:
    """Sizes of the plain messages of one direction as shares of a configured limit, counted in buckets at `bounds`.

    The first bound must be a tenth: what is under it is not counted one by one, but is what `plain` has more. Counts
    outlive a change of the limit, each as a share of the limit of its time.
    """

    __slots__ = ("_bounds", "_counts", "_large", "_limit", "_since", "_total", "plain")

    def __init__(self, plain: MessageSizes, bounds: Sequence[float]) -> None:
        self.plain = plain
        self._bounds = bounds
        self._limit: int | None = None
        self._since = plain.copy()  # what had been counted when this limit came into force
        self._large = self._none()  # messages over a tenth of this limit, except the small ones
        self._counts = self._none()  # messages under earlier limits
        self._total = 0.0

    def _none(self) -> list[int]:
        return [0] * (len(self._bounds) + 1)

    def change(self, limit: int | None) -> int:
        """Take this limit in bytes from now on, None for none. Returns the size above which `add` is to be called."""
        if limit != self._limit:
            self._counts, self._total = self._now()
            self._limit = limit
            self._since = self.plain.copy()
            self._large = self._none()
        return UNLIMITED if limit is None else max(limit // NEAR, SHORTEST_EXTENDED - 1)

    def add(self, size: int) -> None:
        """Count one message above what `change` returned."""
        if self._limit:
            self._large[bisect_left(self._bounds, size / self._limit)] += 1

    def shares(self) -> tuple[list[int], float] | None:
        """Counts per bucket, the last one above all bounds, and the sum of all shares; None without any limit yet."""
        counts, total = self._now()
        return (counts, total) if self._limit is not None or any(counts) else None

    def _now(self) -> tuple[list[int], float]:
        limit = self._limit
        if limit is None:
            return self._counts[:], self._total
        counts = [before + large for before, large in zip(self._counts, self._large, strict=True)]
        small = self.plain.small(self._since)
        for size, number in enumerate(small):
            counts[bisect_left(self._bounds, size / limit)] += number
        _, messages, total = self.plain.cumulative(())
        _, messages_before, total_before = self._since.cumulative(())
        counts[0] += messages - messages_before - sum(small) - sum(self._large)
        return counts, self._total + (total - total_before) / limit


class DirectionSizes:
    """The two histograms of one direction: wire sizes of plain messages, and of compressed ones.

    They are kept apart because limits apply to what a receiver inflates, not to what the wire carries.
    `by_first_byte` finds the slots for an unfragmented data frame by its first header byte, None for any other frame;
    `by_first_byte_deflate` is the same where permessage-deflate was negotiated (RFC 7692 section 6: RSV1 marks it).

    `tick` is the time in steps (TICKS_PER_SECOND), which whoever has a clock keeps. `accepted` is the largest plain
    message, in bytes, whose connection stayed open for 5 seconds after it; whoever asks sets it back to 0. A plain
    message larger than `near` is counted in `headroom` too.
    """

    __slots__ = (
        "accepted",
        "by_first_byte",
        "by_first_byte_deflate",
        "compressed",
        "headroom",
        "near",
        "plain",
        "tick",
    )

    def __init__(self, plain: MessageSizes, compressed: MessageSizes, headroom: Headroom) -> None:
        self.plain = plain
        self.compressed = compressed
        self.headroom = headroom
        self.near = UNLIMITED
        self.tick = 0
        self.accepted = 0
        slots = {0x81: plain.slots, 0x82: plain.slots}
        slots_deflate = slots | {0xC1: compressed.slots, 0xC2: compressed.slots}
        self.by_first_byte = [slots.get(byte) for byte in range(256)]
        self.by_first_byte_deflate = [slots_deflate.get(byte) for byte in range(256)]

    def messages(self) -> int:
        """How many plain messages have passed."""
        _, messages, _ = self.plain.cumulative(())
        return messages

    def limit(self, limit: int | None) -> None:
        """Hold sizes against this configured limit in bytes from now on; None for none."""
        self.near = self.headroom.change(limit)
