"""All captures of one exporter: opened together, run together, and what there is to say of them."""

import asyncio
from collections.abc import Callable, Sequence

import structlog

from exporter.config import CaptureConfig, Config
from exporter.events import CaptureStanding, Origin, Sink
from exporter.sources.capture.capture import Capture
from exporter.sources.capture.opening import CaptureError, open_capture
from exporter.wire.upgrade import UpgradeRequest
from exporter.wire.websocket import Watch

_log = structlog.get_logger(__name__)


class Captures:
    """Opens and runs what is configured. `chooser` gives what finds the watch of a handshake, by a capture's target.

    `sockets` are the descriptors that each capture has already, for its lifecycle ring and its size ring; they are
    opened unless given.
    """

    def __init__(
        self,
        config: Config,
        chooser: Callable[[str], Callable[[UpgradeRequest], Watch]],
        sink: Sink,
        sockets: Sequence[tuple[int, int]] | None = None,
    ) -> None:
        self._sockets = sockets
        self._config = config
        self._chooser = chooser
        self._sink = sink
        self._captures: dict[CaptureConfig, Capture] = {}

    def open(self) -> None:
        """Open every capture. Raises CaptureError, with nothing left open, unless captures are optional."""
        for number, one in enumerate(self._config.capture):
            try:
                self._captures[one] = self._opened(one, number)
            except CaptureError as error:
                if not self._config.capture_optional:
                    self.close()
                    raise
                _log.error("going on without a capture", capture=str(one), target=one.target, reason=str(error))

    def close(self) -> None:
        """Give everything back that is not running."""
        for capture in self._captures.values():
            capture.close()
        self._captures.clear()

    async def run(self) -> None:
        """Follow until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for one, capture in self._captures.items():
                _log.info("capturing", interface=one.interface, port=one.port, target=one.target)
                tasks.create_task(capture.run())

    def catch_up(self) -> None:
        """Take all that has passed so far: what is about to be scraped for the last time."""
        for capture in self._captures.values():
            capture.catch_up()

    def standing(self) -> CaptureStanding:
        """What holds of all captures now."""
        captures = list(self._captures.values())
        up = dict.fromkeys((one.target for one in self._config.capture), True)
        for one in self._config.capture:
            capture = self._captures.get(one)
            up[one.target] &= capture is not None and capture.up
        return CaptureStanding(
            up=up,
            connections=sum(capture.connections for capture in captures),
            ring_bytes={ring: sum(capture.ring_bytes[ring] for capture in captures) for ring in ("lifecycle", "size")},
            lifecycle_only=any(capture.lifecycle_only for capture in captures),
            drops={ring: sum(capture.drops[ring] for capture in captures) for ring in ("lifecycle", "size")},
            lost_directions=sum(capture.losses.directions for capture in captures),
            resyncs=sum(capture.losses.resyncs for capture in captures),
            missed_bytes=sum(capture.losses.missed_bytes for capture in captures),
            ignored={
                "malformed": sum(capture.losses.malformed for capture in captures),
                "out_of_window": sum(capture.losses.out_of_window for capture in captures),
                "too_many": sum(capture.losses.too_many for capture in captures),
            },
        )

    def _opened(self, one: CaptureConfig, number: int) -> Capture:
        config = self._config
        fds = None if self._sockets is None else self._sockets[number]
        rings = open_capture(one, config.capture_mode, config.capture_ring_size, fds)
        return Capture(
            one,
            rings,
            self._chooser(one.target),
            origin=Origin("capture", one.target),
            sink=self._sink,
            ring_limit=max(config.capture_ring_size_limit, config.capture_ring_size),
        )
