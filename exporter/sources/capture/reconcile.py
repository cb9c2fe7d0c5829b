"""Compares what a capture follows with what the kernel knows: ends that were not seen, and the interface itself."""

import asyncio
import socket
import time
from collections.abc import Callable
from typing import Final

import structlog

from exporter.config import CaptureConfig
from exporter.sources.capture import sockets
from exporter.sources.capture.flows import Flows
from exporter.sources.capture.opening import Rings
from exporter.sources.capture.turns import in_turns, set_within

RECONCILE: Final = 30.0
RECONCILE_AFTER_DROPS: Final = 2.0
"""Seconds between looks at the kernel's own connections: as a rule, and after packets were dropped."""

_SECOND: Final = 1_000_000_000

_log = structlog.get_logger(__name__)


class Reconciler:
    """Ends what the kernel knows no more, and has the `rings` follow an interface that comes back.

    It looks soon after `news`, that packets were dropped. `up` is whether the interface is there. `complain` logs a
    sentence, and what else it is given.
    """

    def __init__(
        self, config: CaptureConfig, rings: Rings, flows: Flows, news: asyncio.Event, complain: Callable[..., None]
    ) -> None:
        self._config = config
        self._rings = rings
        self._flows = flows
        self._news = news
        self._complain = complain
        self._index = socket.if_nametoindex(config.interface)
        self.up = True

    async def run(self) -> None:
        """Compare now and then until cancelled."""
        while True:
            if not self._flows.any_missing:
                await set_within(self._news, RECONCILE)
            self._news.clear()
            await asyncio.sleep(RECONCILE_AFTER_DROPS)
            try:
                self._watch_interface()
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
        for ring in self._rings:
            if ring is not None:
                ring.bind(self._config.interface)
        self.up = True
        _log.info("the interface of a capture is there again", capture=str(self._config))

    async def _compare(self) -> None:
        """What ended unseen must not stay."""
        asked = time.time_ns() - _SECOND
        known = await asyncio.to_thread(sockets.established, self._config.port)
        if known is None:
            return
        async for flow in in_turns(self._flows.vanished(known, asked)):
            if flow is not None:
                self._flows.forget(flow)
