"""The capture: the packets of one port, read in place from the kernel's rings, and nothing in the data path.

Two rings see the same port. The *lifecycle ring* gets what begins and ends connections, and Close frames, which message
data can never displace; the *size ring* gets everything, and may drop. The walk takes their packets to the connections
whenever there are some. Here is when, and all that looks after them: what was dropped is noted and the size ring grown
or given up, gaps are not waited for too long, what the kernel knows no more is ended, and the interface may come back.
"""

import asyncio
import contextlib
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import structlog

from exporter.config import CaptureConfig
from exporter.events import Event, Origin, Sink, StreamUnparsed
from exporter.sources.capture import sockets
from exporter.sources.capture.flows import Flows
from exporter.sources.capture.opening import Rings
from exporter.sources.capture.walk import NEVER, TURN, Walk
from exporter.wire.connection import ConnectionObserver
from exporter.wire.flow import Losses, PacketClock
from exporter.wire.upgrade import UpgradeRequest
from exporter.wire.websocket import Watch

CATCH_UP: Final = 0.2
"""Seconds at most in which what has passed is looked at before the last scrape."""

FLOWS_AT_ONCE: Final = 16
"""Connections that are ended or given up before others get their turn."""

SWEEP: Final = 0.1
CALM: Final = 1.0
"""Seconds between looks at what waits, and where nothing does."""

LATE: Final = 90_000_000
"""Nanoseconds for which a packet of the lifecycle ring waits for the size ring, which may be 60 ms behind."""

DROPS_MATTER: Final = 10_000_000_000
"""Nanoseconds after a drop in which a gap is taken for one of the capture's own."""

DROPPED_GAP: Final = 300_000_000
NETWORK_GAP: Final = 10_000_000_000
"""Nanoseconds for which a gap is held where packets were dropped, and where the network alone can have lost them: what
it lost is sent again. 0.3 s were too short for that."""

RECONCILE: Final = 30.0
RECONCILE_AFTER_DROPS: Final = 2.0
"""Seconds between looks at the kernel's own connections: as a rule, and after packets were dropped."""

GROWTH: Final = 2
GROWTH_PAUSE: Final = 1.0
"""By what the size ring grows when it drops, and seconds between two growths."""

SHED_AFTER: Final = 30.0
SHED_FOR: Final = 60.0
"""Seconds of ceaseless drops after which sizes are given up, and for how long."""

_SECOND: Final = 1_000_000_000

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Heard:
    """Passes events on, and notes what tells whether there is anything to understand."""

    sink: Sink
    tls: int = 0
    understood: bool = False

    def emit(self, event: Event) -> None:
        """Take one event."""
        if isinstance(event, StreamUnparsed):
            self.tls += event.reason == "tls"
        else:
            self.understood = True
        self.sink.emit(event)


class Capture:
    """Follows the connections of one port through the rings of one interface.

    `choose` finds what to watch for an opening handshake; streams that are not understood count for `origin`.
    `ring_limit` is to how many bytes the size ring may grow. `losses` says what was missed, `drops` (packets) by ring;
    `up` is whether its interface is there.
    """

    def __init__(
        self,
        config: CaptureConfig,
        rings: Rings,
        choose: Callable[[UpgradeRequest], Watch],
        *,
        origin: Origin,
        sink: Sink,
        ring_limit: int,
    ) -> None:
        self._config = config
        self._choose = choose
        self._origin = origin
        self._heard = _Heard(sink)
        self._ring_limit = ring_limit
        self._lifecycle = rings.lifecycle
        self._size = rings.size
        self._clock = PacketClock()
        self.losses = Losses(by_design=rings.size is None)
        self.drops = {"lifecycle": 0, "size": 0}
        self._flows = Flows(config.port, self._observe, self._clock, self.losses)
        self._walk = Walk(rings, self._flows, self._clock, self.losses, self._complain)
        self._walking = False
        self._dropped_at = -NEVER  # on the monotonic clock, nanoseconds
        self._closed = False
        self.up = True
        self._index = socket.if_nametoindex(config.interface)
        self._clock_offset = time.time_ns() - time.monotonic_ns()
        self._dropping_since: float | None = None
        self._short_of_room = False
        self._grown_at = float("-inf")
        self._shed_until: float | None = None
        self._missed = asyncio.Event()
        self._stirred = asyncio.Event()
        self._complained_of_tls = False
        self._last_complaint = float("-inf")

    @property
    def connections(self) -> int:
        """Connections that are followed."""
        return len(self._flows)

    @property
    def lifecycle_only(self) -> bool:
        """Whether sizes are not looked at, by configuration or because there was no keeping up."""
        return self._size is None or self._shed_until is not None

    @property
    def ring_bytes(self) -> dict[str, int]:
        """Bytes of each ring."""
        return {"lifecycle": self._lifecycle.size, "size": 0 if self._size is None else self._size.size}

    async def run(self) -> None:
        """Follow until cancelled."""
        loop = asyncio.get_running_loop()
        loop.add_reader(self._lifecycle.fileno(), self._take_lifecycle)
        if self._size is not None:
            loop.add_reader(self._size.fileno(), self._take_sizes)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._sweep())
                tasks.create_task(self._reconcile())
        finally:
            loop.remove_reader(self._lifecycle.fileno())
            if self._size is not None:
                loop.remove_reader(self._size.fileno())
            self.close()

    def close(self) -> None:
        """Give the rings back."""
        self._closed = True
        self._lifecycle.close()
        if self._size is not None:
            self._size.close()

    def catch_up(self) -> None:
        """Take what the kernel has seen so far, or as much of it as can be looked at in a moment."""
        end = time.perf_counter() + CATCH_UP
        self._note_drops()
        while self._lifecycle.block() is not None and time.perf_counter() < end:
            self._take_lifecycle()
        if not self.lifecycle_only:
            self._walk.take_sizes(end - time.perf_counter())
        self._walk.settle(NEVER, CATCH_UP)

    def _observe(self, address: str) -> ConnectionObserver:
        return ConnectionObserver(
            self._choose, origin=self._origin, sink=self._heard, clock=self._clock, address=address
        )

    # The rings.

    def _take_lifecycle(self) -> None:
        """Keep what the lifecycle ring has, a part at a time."""
        self._walk.read_lifecycle()
        self._stirred.set()

    def _take_sizes(self) -> None:
        """Look at what the size ring has, a part at a time."""
        if self._walking or self._closed or self.lifecycle_only:
            return
        self._note_drops()  # those of all that is older than the next block
        self._walking = more = self._walk.take_sizes(TURN)
        if self._flows.waiting:
            self._stirred.set()
        if more:
            asyncio.get_running_loop().call_soon(self._walk_on)
        elif self._short_of_room:
            self._grow()

    def _walk_on(self) -> None:
        self._walking = False
        self._take_sizes()

    async def _settle_in_turns(self) -> None:
        """Take what the lifecycle ring has seen, once the size ring must have come as far."""
        read_before = NEVER if self.lifecycle_only else time.monotonic_ns() - LATE
        while self._walk.overdue(read_before):
            if not self.lifecycle_only and self._walk.waits_for_sizes():
                break  # the walk takes it along
            self._note_drops()
            self._walk.settle(0, TURN, read_before)
            await asyncio.sleep(0)

    # What happens beside the packets.

    async def _sweep(self) -> None:
        while True:
            if not (self._walk.keeps or self._flows.waiting):
                await _set_within(self._stirred, CALM)
            self._stirred.clear()
            await asyncio.sleep(SWEEP)
            try:
                await self._settle_in_turns()
                await self._look_after()
            except Exception as fault:
                self._complain("a capture could not be looked after", exc_info=fault)

    async def _look_after(self) -> None:
        """What waits is given up in time; what was dropped and missed is noted."""
        now, monotonic = time.time_ns(), time.monotonic_ns()
        if abs(now - monotonic - self._clock_offset) > _SECOND:
            self._clock_offset = now - monotonic
            self._flows.step()
            await self._give_up(NEVER)
        self._note_drops()
        self.losses.recent = monotonic - self._dropped_at < DROPS_MATTER
        if self._flows.waiting:
            await self._give_up(now if self.losses.by_design else now - self._gap())
        self._flows.forget_ended(now)
        self._shed_or_not()
        self._see_tls()

    async def _give_up(self, before: int) -> None:
        """Wait no longer for what was missed before that time."""
        for number, flow in enumerate(list(self._flows.waiting)):
            self._flows.give_up(flow, before)
            if number % FLOWS_AT_ONCE == 0:
                await asyncio.sleep(0)

    def _gap(self) -> int:
        return DROPPED_GAP if self.losses.recent else NETWORK_GAP

    def _note_drops(self) -> None:
        dropped = self._lifecycle.drops()
        self.drops["lifecycle"] += dropped
        if self._size is not None:
            of_size = self._size.drops()
            self.drops["size"] += of_size
            dropped += of_size
            self._short_of_room |= of_size > 0
        if dropped:
            self._dropped_at = time.monotonic_ns()
            self.losses.recent = self.losses.ever = True
            self._missed.set()

    def _grow(self) -> None:
        """Packets of the size ring were dropped for want of room, and all that it has handed over has been looked at.

        Not before: a larger ring begins empty, and what the former still had would be missed without need.
        """
        ring, now = self._size, time.monotonic()
        self._short_of_room = False
        if ring is None or ring.size >= self._ring_limit or now - self._grown_at < GROWTH_PAUSE:
            return
        self._grown_at = now
        try:
            ring.resize(min(self._ring_limit, ring.size * GROWTH))
        except OSError as error:
            self._ring_limit = ring.size
            _log.warning("size ring of a capture cannot grow", capture=str(self._config), reason=str(error.strerror))
            return
        _log.info("size ring of a capture has grown", capture=str(self._config), bytes=ring.size)

    def _shed_or_not(self) -> None:
        """Look at sizes no more while there is no keeping up, for a while."""
        if self._size is None:
            return
        now = time.monotonic()
        loop = asyncio.get_running_loop()
        if self._shed_until is not None:
            if now >= self._shed_until:
                self._shed_until = None
                self.losses.by_design = False
                self._dropping_since = None
                self._walk.forget_sizes()
                loop.add_reader(self._size.fileno(), self._take_sizes)
                _log.info("sizes are captured again", capture=str(self._config))
            return
        if time.monotonic_ns() - self._dropped_at > _SECOND:
            self._dropping_since = None
            return
        if self._dropping_since is None:
            self._dropping_since = now
        elif now - self._dropping_since > SHED_AFTER:
            self._shed_until = now + SHED_FOR
            self.losses.by_design = True
            loop.remove_reader(self._size.fileno())
            _log.warning(
                "sizes are not captured for a while, there is no keeping up with the packets",
                capture=str(self._config),
                seconds=SHED_FOR,
            )

    def _see_tls(self) -> None:
        """Say once that there is nothing to see."""
        if self._complained_of_tls or self._heard.understood or not self._heard.tls:
            return
        self._complained_of_tls = True
        _log.warning(
            "only TLS is seen, closes and messages cannot be: capture behind the terminator where it is plain text,"
            " or use a tap there or the webhook",
            capture=str(self._config),
            target=self._origin.target,
        )

    async def _reconcile(self) -> None:
        """Compare with the kernel's connections: what ended unseen must not stay."""
        while True:
            if not self._flows.any_missing:
                await _set_within(self._missed, RECONCILE)
            self._missed.clear()
            await asyncio.sleep(RECONCILE_AFTER_DROPS)
            try:
                await self._compare()
            except Exception as fault:
                self._complain("a capture could not be compared with the kernel's connections", exc_info=fault)

    def _watch_interface(self) -> None:
        """An interface that was taken away and made anew is another one to the kernel."""
        try:
            index = socket.if_nametoindex(self._config.interface)
        except OSError:
            index = 0
        if index == self._index:
            return
        self._index, self.up = index, False
        if not index:
            self._complain("the interface of a capture is gone")
            return
        for ring in (self._lifecycle, self._size):
            if ring is not None:
                ring.bind(self._config.interface)
        self.up = True
        _log.info("the interface of a capture is there again", capture=str(self._config))

    async def _compare(self) -> None:
        self._watch_interface()
        asked = time.time_ns() - _SECOND
        known = await asyncio.to_thread(sockets.established, self._config.port)
        if known is None:
            return
        for number, flow in enumerate(self._flows.vanished(known, asked)):
            self._flows.forget(flow)
            if number % FLOWS_AT_ONCE == 0:
                await asyncio.sleep(0)

    def _complain(self, sentence: str, **details: object) -> None:
        """Log an error, one a second at most."""
        now = time.monotonic()
        if now - self._last_complaint >= 1.0:
            self._last_complaint = now
            _log.error(sentence, capture=str(self._config), **details)


async def _set_within(event: asyncio.Event, seconds: float) -> None:
    """Wait for an event, but not longer."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
