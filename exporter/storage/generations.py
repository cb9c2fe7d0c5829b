"""Which ids are remembered, and since when: two generations, of which the older is dropped whole; pure.

The newer takes all new ids. When it has lasted long enough or is full, the older one is dropped and it becomes the
older. So every id is remembered for one generation at least and for two at most.

The clock is the wall clock, because it has to go on over restarts and is compared with times that others wrote down.
It may be wrong by `SLACK` either way without an id being dropped that an acceptable event could still carry: a
generation lasts so much longer than the window. That slack there is not while ids are dropped because they are too
many; a sender whose clock is ahead may then be counted twice, if it repeats an event after a whole generation.
"""

from dataclasses import dataclass, replace
from typing import Final

SLACK: Final = 2 * 3600.0
"""Seconds by which the wall clock may jump, and by which senders' clocks may be ahead."""

_ROUNDING: Final = 0.001  # the times of events may have been rounded up to whole milliseconds


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much is remembered: events up to `window` seconds old, and `max_ids` ids however young they are."""

    window: float
    max_ids: int

    @property
    def most_rows(self) -> int:
        """Ids in one generation, at most; a single commit that brings more than that is still kept whole."""
        return self.max_ids // 2

    @property
    def nearly_full(self) -> int:
        """Ids in the newer generation from which on those that only the older one has do not count as remembered.

        So an event that was judged acceptable just before the older generation is dropped cannot slip through.
        """
        return self.most_rows - self.most_rows // 8


@dataclass(frozen=True, slots=True)
class Generations:
    """Both of them. `began` (Unix seconds) is when the newer took its first id, or could have.

    `current` is the number of its table, `rows` are the ids in there and `older_rows` those of the other table.
    Ids of events before `forgotten` may have been dropped.
    """

    current: int
    began: float
    rows: int = 0
    older_rows: int = 0
    forgotten: float = 0.0

    @property
    def older(self) -> int:
        """The number of the older one's table."""
        return 1 - self.current

    def since(self, now: float, bounds: Bounds, rows: int) -> float:
        """The moment since which every id is remembered, with so many `rows` in the newer generation."""
        believed = self.believed(now, bounds)
        dropped = believed.forgotten
        if self.older_rows and rows >= bounds.nearly_full:
            dropped = max(dropped, believed.began + _ROUNDING)
        return max(now - bounds.window, dropped)

    def expired(self, now: float, bounds: Bounds) -> bool:
        """Whether the newer one has lasted long enough."""
        return now - self.began >= bounds.window + SLACK

    def next(self, now: float, bounds: Bounds) -> "Generations":
        """As it is after the older one was dropped and a new one began."""
        forgotten = self.forgotten
        if self.older_rows:
            # As much of the slack as is older than the window costs nothing.
            forgotten = max(forgotten, self.began + _ROUNDING, min(self.began + SLACK, now - bounds.window))
        return Generations(current=self.older, began=now, older_rows=self.rows, forgotten=forgotten)

    def believed(self, now: float, bounds: Bounds) -> "Generations":
        """The same without moments so far ahead of the clock that it must have been wrong when they were noted.

        Otherwise a clock that was once years ahead would have every event refused for years.
        """
        began = self.began if self.began <= now + SLACK else now
        forgotten = self.forgotten if self.forgotten <= now + bounds.window + SLACK else now - bounds.window
        return replace(self, began=began, forgotten=forgotten)
