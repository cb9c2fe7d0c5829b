"""One event to all who want it, and no fault of one of them is another's: least of all the relay's."""

from collections.abc import Callable, Sequence
from typing import Final, TypeVar

import structlog

from exporter.events import Event, Sink

T = TypeVar("T")

TOLD_AGAIN: Final = 1.0
"""Seconds after which the log says again that something failed: one cause may hit every event."""

_log = structlog.get_logger(__name__)


class Sinks:
    """Gives every event to each of `sinks`, and knows when the last one came (seconds on `clock`).

    `dropped` is called for each event that one of them failed at. What a sink derives from events it may emit here too.
    """

    def __init__(self, clock: Callable[[], float], dropped: Callable[[], None]) -> None:
        self.sinks: Sequence[Sink] = ()
        self.last_event = float("-inf")
        self._clock = clock
        self._dropped = dropped
        self._silent_until = float("-inf")

    def emit(self, event: Event) -> None:
        """Pass an event on. Never raises."""
        self.last_event = self._clock()
        for sink in self.sinks:
            try:
                sink.emit(event)
            except Exception as fault:
                self._dropped()
                self._tell(fault)

    def guarded(self, step: Callable[[], T], otherwise: T) -> T:
        """What `step` gives, or `otherwise` if it fails, which is told like a failed event."""
        try:
            return step()
        except Exception as fault:
            self._tell(fault)
            return otherwise

    def _tell(self, fault: Exception) -> None:
        now = self._clock()
        if now >= self._silent_until:
            self._silent_until = now + TOLD_AGAIN
            _log.error("an event could not be taken in, its effect is lost", exc_info=fault)
