"""What the rings of a capture drop, and what follows: the size ring grows, or sizes are given up for a while."""

import asyncio
import time
from collections.abc import Callable
from typing import Final

import structlog

from exporter.sources.capture.opening import Rings
from exporter.wire.flow import Losses

DROPS_MATTER: Final = 10.0
"""Seconds after a drop in which a gap is taken for one of the capture's own."""

GROWTH: Final = 2
GROWTH_PAUSE: Final = 1.0
"""By what the size ring grows when it drops, and seconds between two growths."""

CEASED: Final = 1.0
"""Seconds without a drop after which they have ceased."""

SHED_AFTER: Final = 30.0
SHED_FOR: Final = 60.0
"""Seconds of ceaseless drops after which sizes are given up, and for how long."""

_NEVER: Final = float("-inf")

_log = structlog.get_logger(__name__)


class Drops:
    """Counts what the rings of one capture drop, tells `losses` of it, and acts on it.

    `counted` are packets, by ring. The size ring grows up to `limit` bytes. `shed` is whether sizes are given up for
    now; `news` is set at each drop. `capture` is what the log calls it; `clock` is monotonic, in seconds.
    """

    def __init__(
        self,
        rings: Rings,
        losses: Losses,
        *,
        limit: int,
        capture: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rings = rings
        self._losses = losses
        self._limit = limit
        self._capture = capture
        self._clock = clock
        self.counted = {"lifecycle": 0, "size": 0}
        self.news: Final = asyncio.Event()
        self._last_at = _NEVER
        self._since: float | None = None  # they have not ceased
        self._short_of_room = False
        self._grown_at = _NEVER
        self._shed_until: float | None = None

    @property
    def shed(self) -> bool:
        """Whether there was no keeping up with the packets, so that sizes are not looked at for a while."""
        return self._shed_until is not None

    def note(self) -> None:
        """Take note of what was dropped since this was last done."""
        lifecycle, size = self._rings
        dropped = lifecycle.drops()
        self.counted["lifecycle"] += dropped
        if size is not None:
            of_size = size.drops()
            self.counted["size"] += of_size
            dropped += of_size
            self._short_of_room |= of_size > 0
        if dropped:
            self._last_at = self._clock()
            self._losses.recent = self._losses.ever = True
            self.news.set()

    def age(self) -> None:
        """Take note of the time: what was dropped long ago explains no gap."""
        self._losses.recent = self._clock() - self._last_at < DROPS_MATTER

    def make_room(self) -> None:
        """Have the size ring grow if it dropped something; all that it has handed over has to have been looked at.

        A larger ring begins empty: what the former still had would be missed without need.
        """
        if not self._short_of_room:
            return
        self._short_of_room = False
        ring, now = self._rings.size, self._clock()
        if ring is None or ring.size >= self._limit or now - self._grown_at < GROWTH_PAUSE:
            return
        self._grown_at = now
        try:
            ring.resize(min(self._limit, ring.size * GROWTH))
        except OSError as error:
            self._limit = ring.size
            _log.warning("size ring of a capture cannot grow", capture=self._capture, reason=str(error.strerror))
            return
        _log.info("size ring of a capture has grown", capture=self._capture, bytes=ring.size)

    def shed_or_not(self) -> bool:
        """Give sizes up if drops do not cease, and take them up again later. Returns whether that has changed."""
        now = self._clock()
        if self._shed_until is not None:
            if now < self._shed_until:
                return False
            self._shed_until = self._since = None
            self._losses.by_design = False
            _log.info("sizes are captured again", capture=self._capture)
            return True
        if self._rings.size is None:
            return False
        if now - self._last_at > CEASED:
            self._since = None
        elif self._since is None:
            self._since = now
        elif now - self._since > SHED_AFTER:
            self._shed_until = now + SHED_FOR
            self._losses.by_design = True
            _log.warning(
                "sizes are not captured for a while, there is no keeping up with the packets",
                capture=self._capture,
                seconds=SHED_FOR,
            )
            return True
        return False
