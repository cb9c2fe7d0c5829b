"""The capture: the packets of one port, read in place from the kernel's rings, and nothing in the data path.

Two rings see the same port. The *lifecycle ring* gets what begins and ends connections, and Close frames, which message
data can never displace; the *size ring* gets everything, and may drop. The walk takes their packets to the connections
whenever there are some. Here is when; what is dropped, and what ends unseen, is looked after elsewhere.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import structlog

from exporter.config import CaptureConfig
from exporter.events import Event, Origin, Sink, StreamUnparsed
from exporter.sources.capture.drops import Drops
from exporter.sources.capture.flows import Flows
from exporter.sources.capture.opening import Rings
from exporter.sources.capture.reconcile import Reconciler
from exporter.sources.capture.turns import TURN, in_turns, set_within
from exporter.sources.capture.walk import NEVER, Walk
from exporter.wire.connection import ConnectionObserver
from exporter.wire.flow import Losses, PacketClock
from exporter.wire.upgrade import UpgradeRequest
from exporter.wire.websocket import Watch

CATCH_UP: Final = 0.2
"""Seconds at most in which what has passed is looked at before the last scrape."""

SWEEP: Final = 0.1
CALM: Final = 1.0
"""Seconds between looks at what waits, and where nothing does."""

LATE: Final = 90_000_000
"""Nanoseconds for which a packet of the lifecycle ring waits for the size ring, which may be 60 ms behind."""

DROPPED_GAP: Final = 300_000_000
NETWORK_GAP: Final = 10_000_000_000
"""Nanoseconds for which a gap is held where packets were dropped, and where the network alone can have lost them: what
it lost is sent again. 0.3 s were too short for that."""

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
    `ring_limit` is to how many bytes the size ring may grow. `losses` says what was missed.
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
        self._lifecycle = rings.lifecycle
        self._size = rings.size
        self._clock = PacketClock()
        self.losses = Losses(by_design=rings.size is None)
        self._drops = Drops(rings, self.losses, limit=ring_limit, capture=str(config))
        self._flows = Flows(config.port, self._observe, self._clock, self.losses)
        self._walk = Walk(rings, self._flows, self._clock, self.losses, self._complain)
        self._reconciler = Reconciler(config, rings, self._flows, self._drops.news, self._complain)
        self._walking = False
        self._closed = False
        self._clock_offset = time.time_ns() - time.monotonic_ns()
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
        return self._size is None or self._drops.shed

    @property
    def drops(self) -> Mapping[str, int]:
        """Packets that each ring has dropped."""
        return self._drops.counted

    @property
    def up(self) -> bool:
        """Whether its interface is there."""
        return self._reconciler.up

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
                tasks.create_task(self._reconciler.run())
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
        self._drops.note()
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
        self._drops.note()  # those of all that is older than the next block
        self._walking = more = self._walk.take_sizes(TURN)
        if self._flows.waiting:
            self._stirred.set()
        if more:
            asyncio.get_running_loop().call_soon(self._walk_on)
        else:
            self._drops.make_room()

    def _walk_on(self) -> None:
        self._walking = False
        self._take_sizes()

    async def _settle_in_turns(self) -> None:
        """Take what the lifecycle ring has seen, once the size ring must have come as far."""
        read_before = NEVER if self.lifecycle_only else time.monotonic_ns() - LATE
        while self._walk.overdue(read_before):
            if not self.lifecycle_only and self._walk.waits_for_sizes():
                break  # the walk takes it along
            self._drops.note()
            self._walk.settle(0, TURN, read_before)
            await asyncio.sleep(0)

    # What happens beside the packets.

    async def _sweep(self) -> None:
        while True:
            if not (self._walk.keeps or self._flows.waiting):
                await set_within(self._stirred, CALM)
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
        self._drops.note()
        self._drops.age()
        if self._flows.waiting:
            await self._give_up(now if self.losses.by_design else now - self._gap())
        self._flows.forget_ended(now)
        if self._drops.shed_or_not():
            self._heed_shedding()
        self._see_tls()

    async def _give_up(self, before: int) -> None:
        """Wait no longer for what was missed before that time."""
        async for flow in in_turns(list(self._flows.waiting)):
            self._flows.give_up(flow, before)

    def _gap(self) -> int:
        return DROPPED_GAP if self.losses.recent else NETWORK_GAP

    def _heed_shedding(self) -> None:
        """Look at sizes no more, or again."""
        if self._size is None:
            return
        loop = asyncio.get_running_loop()
        if self._drops.shed:
            loop.remove_reader(self._size.fileno())
        else:
            self._walk.forget_sizes()
            loop.add_reader(self._size.fileno(), self._take_sizes)

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

    def _complain(self, sentence: str, **details: object) -> None:
        """Log an error, one a second at most."""
        now = time.monotonic()
        if now - self._last_complaint >= 1.0:
            self._last_complaint = now
            _log.error(sentence, capture=str(self._config), **details)
