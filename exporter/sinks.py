"""One event to all who want it, and no fault of one of them is another's: least of all the relay's."""

from collections.abc import Callable
from typing import Any, Final, TypeVar

import structlog

from exporter.events import Event, Listener

T = TypeVar("T")

TOLD_AGAIN: Final = 1.0
"""Seconds after which the log says again that something failed: one cause may hit every event."""

_log = structlog.get_logger(__name__)


class Sinks:
    """Gives every event to each listener that has a handler for it, and knows when the last one came.

    That is in seconds on `clock`. `dropped` is called for each event that a listener failed at. What a listener derives
    from events it may emit here too.
    """

    def __init__(self, clock: Callable[[], float], dropped: Callable[[], None]) -> None:
        self.last_event = float("-inf")
        self._handlers: dict[type, list[Callable[[Any], None]]] = {}
        self._clock = clock
        self._dropped = dropped
        self._silent_until = float("-inf")

    def add(self, listener: Listener) -> None:
        """Give events to `listener` too, behind those that were added before."""
        for kind, handler in listener.handlers.items():
            self._handlers.setdefault(kind, []).append(handler)

    def emit(self, event: Event) -> None:
        """Pass an event on. Never raises."""
        self.last_event = self._clock()
        for handler in self._handlers.get(type(event), ()):
            try:
                handler(event)
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
