"""How many came in which second: what a scrape every 15 s cannot see.

Time is cut into slots of a twentieth of a second, and a second is any twenty of them in a row, so that the busiest one
is found wherever it begins.
"""

from array import array
from collections.abc import Mapping, Sequence
from itertools import accumulate
from operator import sub
from typing import Final

SLOTS: Final = 20
"""Slots of a second."""


def slot(moment: float) -> int:
    """The slot that a moment in seconds falls into."""
    return int(moment * SLOTS)


def busiest(counts: Sequence[int]) -> int:
    """The most in any second, from how many were in each slot."""
    totals = [0, *accumulate(counts)]
    return max(map(sub, totals[SLOTS:], totals), default=totals[-1])


def busiest_of(slots: Mapping[int, int]) -> int:
    """As `busiest`, from the slots that had any."""
    if not slots:
        return 0
    first, last = min(slots), max(slots)
    return busiest([slots.get(number, 0) for number in range(first, last + 1)])


class LastMinute:
    """How often something happened in the last 60 seconds, slot by slot."""

    __slots__ = ("_counts", "_newest")

    _SIZE: Final = 60 * SLOTS

    def __init__(self) -> None:
        self._counts = array("L", bytes(array("L").itemsize * self._SIZE))
        self._newest = -1

    def add(self, moment: float) -> None:
        """It happened at `moment` (seconds), which may lie a little behind what was added before."""
        number = int(moment * SLOTS)
        if number > self._newest:
            self._advance(number)
        if number > self._newest - self._SIZE:
            self._counts[number % self._SIZE] += 1

    def total_and_peak(self, now: float) -> tuple[int, int]:
        """How often within the last 60 seconds, and in the busiest second of them."""
        number = slot(now)
        if number >= self._newest + self._SIZE:
            return 0, 0
        self._advance(number)
        start = (self._newest + 1) % self._SIZE
        return sum(self._counts), busiest([*self._counts[start:], *self._counts[:start]])

    def _advance(self, number: int) -> None:
        """The slots up to `number` have begun, and so many old ones are over."""
        for passed in range(max(self._newest + 1, number - self._SIZE + 1), number + 1):
            self._counts[passed % self._SIZE] = 0
        self._newest = max(self._newest, number)
