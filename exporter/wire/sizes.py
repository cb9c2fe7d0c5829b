"""Message sizes of one direction, counted without an object or a call per message.

A small message costs one list increment, keyed by the second byte of its frame header; every other one falls into
a power of two. The exposition's bounds are powers of two, so nothing is lost between here and a scrape.
"""

from collections.abc import Sequence
from typing import Final

SMALL_SLOTS: Final = 256
"""One slot for each second header byte: mask bit and 7-bit payload length (RFC 6455 section 5.2)."""

POWER_SLOTS: Final = 65
"""Slot SMALL_SLOTS + k counts sizes in (2**(k-1), 2**k]; payload lengths have at most 64 bits."""

TOTAL_SLOT: Final = SMALL_SLOTS + POWER_SLOTS
"""Bytes of all messages counted in the power slots; the small slots know their own."""

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

    def cumulative(self, bounds: Sequence[float]) -> tuple[list[int], int, int]:
        """Cumulative counts at each of `bounds` (powers of two from 128 up), the count of all, and their bytes."""
        small = [self.slots[size] + self.slots[0x80 | size] for size in range(SHORTEST_EXTENDED)]
        powers = self.slots[SMALL_SLOTS:TOTAL_SLOT]
        few = sum(small)
        counts = [few + sum(powers[: (int(bound) - 1).bit_length() + 1]) for bound in bounds]
        total = self.slots[TOTAL_SLOT] + sum(size * count for size, count in enumerate(small))
        return counts, few + sum(powers), total


class DirectionSizes:
    """The two histograms of one direction: wire sizes of plain messages, and of compressed ones.

    They are kept apart because limits apply to what a receiver inflates, not to what the wire carries.
    `by_first_byte` finds the slots for an unfragmented data frame by its first header byte, None for any other frame;
    `by_first_byte_deflate` is the same where permessage-deflate was negotiated (RFC 7692 section 6: RSV1 marks it).
    """

    __slots__ = ("by_first_byte", "by_first_byte_deflate", "compressed", "plain")

    def __init__(self, plain: MessageSizes, compressed: MessageSizes) -> None:
        self.plain = plain
        self.compressed = compressed
        slots = {0x81: plain.slots, 0x82: plain.slots}
        slots_deflate = slots | {0xC1: compressed.slots, 0xC2: compressed.slots}
        self.by_first_byte = [slots.get(byte) for byte in range(256)]
        self.by_first_byte_deflate = [slots_deflate.get(byte) for byte in range(256)]
