"""The tap: an inline pass-through on TCP that observes the WebSockets it relays, and is never worse than its absence.

One client connection is one connection to the upstream, dialled at once: no pooling, no retries, no rewriting. When
the upstream cannot be had, an HTTP client gets a plain 502, 503 or 504. Nothing else here ever answers, and only a
drain ends connections.
"""

import asyncio
import contextlib
import os
import random
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

import structlog

from exporter.config import Address, TapConfig
from exporter.events import Origin, Sink
from exporter.listening import address_of, listen
from exporter.sources.dial import Dialler, is_connected, set_options
from exporter.sources.poller import READ, Poller
from exporter.sources.refusal import FULL, refusal, refuse
from exporter.sources.relay import Relay
from exporter.wire.connection import ConnectionObserver
from exporter.wire.upgrade import UpgradeRequest
from exporter.wire.websocket import Watch

BACKLOG: Final = 4096
ACCEPT_BATCH: Final = 8
"""Connections accepted before other sockets get their turn."""

REFUSED_AT_ONCE: Final = 128
"""Clients over the limit that are being told so. Of more, who has been longest about it is dropped: clients that ask
nothing must not use up the descriptors that scrapes and health checks need."""

ACCEPT_PAUSE: Final = 0.5
"""Seconds without accepting after the process ran out of descriptors or memory."""

CLOSING_SHARE: Final = 0.8
"""Of the last third of the grace, the part in which connections are closed. The rest is for scrapers: what they have
not fetched by the end is lost. The closes come 1.25 times as fast, within the 1.5 that is promised."""

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Capacity:
    """How many connections all taps together may relay, how many they do, and who is being refused, oldest first."""

    limit: int
    refused_at_once: int = REFUSED_AT_ONCE
    used: int = 0
    refusing: dict[asyncio.Task[None], None] = field(default_factory=dict)


def spread(count: int, window: float, uniform: Callable[[float, float], float]) -> list[float]:
    """Ascending moments in `window` seconds for `count` closes: evenly, each at random within its slot.

    No second holds more than count/window of them, one more or less.
    """
    slot = window / max(count, 1)
    return [(number + uniform(0.0, 1.0)) * slot for number in range(count)]


class Tap:
    """Relays the connections of one listener to one upstream.

    `choose` finds what to watch for an opening handshake; streams that are not understood count for `origin`.
    `clock` is monotonic, `connect_timeout` is seconds. `buffered` is the bytes held for peers that do not read.
    """

    def __init__(
        self,
        config: TapConfig,
        choose: Callable[[UpgradeRequest], Watch],
        *,
        origin: Origin,
        sink: Sink,
        clock: Callable[[], float],
        capacity: Capacity,
        connect_timeout: float,
    ) -> None:
        self._config = config
        self._choose = choose
        self._origin = origin
        self._sink = sink
        self._clock = clock
        self._capacity = capacity
        self._dialler = Dialler(config.upstream, connect_timeout, config.source_addresses)
        self._listener: socket.socket | None = None
        self._poller: Poller | None = None
        self._tasks: asyncio.TaskGroup | None = None
        self._serving = 0
        self._unserved: dict[socket.socket, socket.socket | None] = {}  # clients whose task has not begun, and what has
        self._relays: set[Relay] = set()
        self._upstream_down = False
        self._last_complaint = float("-inf")
        self._idle = asyncio.Event()
        self._idle.set()
        self.buffered = 0

    async def open(self) -> Address:
        """Listen; clients wait until `run`. Returns where. Raises ListenError."""
        self._listener = await listen(self._config.listen, BACKLOG)
        set_options(self._listener)
        return address_of(self._listener)

    async def run(self) -> None:
        """Accept and relay until cancelled; then whatever is left is cut."""
        self._poller = Poller(asyncio.get_running_loop())
        try:
            async with asyncio.TaskGroup() as self._tasks:
                self._accept_again()
                try:
                    await asyncio.Future()
                finally:
                    self.stop_accepting()  # while the group waits for its tasks it takes no new ones
        finally:
            for sock in (*self._unserved, *filter(None, self._unserved.values())):
                sock.close()
            for relay in list(self._relays):
                relay.cut()
            self._poller.close()

    def stop_accepting(self) -> None:
        """Close the listener. Connections that exist go on."""
        listener, self._listener = self._listener, None
        if listener is not None:
            if self._poller is not None:
                self._poller.forget(listener.fileno())
            listener.close()

    async def drain(self, grace: float) -> None:
        """Accept no more and let connections end by themselves; in the last third of `grace` seconds close the rest.

        Their closing is spread, so that this process does not cause the storm it watches for, and leaves some time.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + grace
        self.stop_accepting()
        try:
            async with asyncio.timeout(grace * 2 / 3):
                await self._idle.wait()
                return
        except TimeoutError:
            pass
        start = loop.time()
        relays = list(self._relays)
        moments = spread(len(relays), (end - start) * CLOSING_SHARE, random.uniform)
        for relay, moment in zip(relays, moments, strict=True):
            await asyncio.sleep(max(0.0, start + moment - loop.time()))
            if relay in self._relays:
                relay.cut()

    # Told by the relays (relay.RelayOwner).

    def relay_closed(self, relay: Relay) -> None:
        """Forget a relay."""
        self._relays.discard(relay)
        self._capacity.used -= 1
        self._note_idle()

    def observing_failed(self, fault: Exception) -> None:
        """Complain of a fault of ours, once a second at most: one cause may hit every connection."""
        self._complain("observing a connection failed, it is relayed unobserved", exc_info=fault)

    # Connections.

    def _accept_again(self) -> None:
        if self._listener is not None and self._poller is not None:
            self._poller.watch(self._listener.fileno(), READ, self._accept)

    def _accept(self, _: int) -> None:
        for _ in range(ACCEPT_BATCH):
            if self._listener is None or self._tasks is None or self._poller is None:
                return
            try:
                client, peer = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                # Out of descriptors or memory: the client waits in the backlog, which must not be polled meanwhile.
                self._poller.forget(self._listener.fileno())
                asyncio.get_running_loop().call_later(ACCEPT_PAUSE, self._accept_again)
                self._complain("cannot accept connections", reason=error.strerror, retry_seconds=ACCEPT_PAUSE)
                return
            client.setblocking(False)
            self._take(client, str(peer[0]).removeprefix("::ffff:"))

    def _take(self, client: socket.socket, address: str) -> None:
        """Relay for a client, at once if the upstream answers at once, as it does on the same machine."""
        assert self._tasks is not None
        observer = ConnectionObserver(
            self._choose, origin=self._origin, sink=self._sink, clock=self._clock, address=address
        )
        self._idle.clear()
        server = None
        if self._capacity.used >= self._capacity.limit:
            serving = self._turn_away(client, observer)
        else:
            self._capacity.used += 1
            server = self._dialler.begin()
            if server is not None and is_connected(server):
                self._relay(client, server, observer)
                return
            serving = self._connect(client, observer)
        self._serving += 1
        self._unserved[client] = server
        self._tasks.create_task(serving)

    @contextlib.contextmanager
    def _serve(self, client: socket.socket) -> Iterator[socket.socket | None]:
        """Give what has been begun for a client, which is dropped if serving it fails."""
        try:
            yield self._unserved.pop(client)
        except Exception as fault:
            client.close()
            self.observing_failed(fault)
        except BaseException:
            client.close()
            raise
        finally:
            self._serving -= 1
            self._note_idle()

    async def _turn_away(self, client: socket.socket, observer: ConnectionObserver) -> None:
        """Refuse a client over the limit; where many are being refused, the oldest of them makes room."""
        with self._serve(client):
            self._complain("connection limit reached, new clients are refused", limit=self._capacity.limit)
            refusing = self._capacity.refusing
            if len(refusing) >= self._capacity.refused_at_once:
                oldest = next(iter(refusing))
                del refusing[oldest]
                oldest.cancel()
            task = asyncio.current_task()
            assert task is not None
            refusing[task] = None
            try:
                await refuse(client, observer, FULL)
            finally:
                refusing.pop(task, None)

    async def _connect(self, client: socket.socket, observer: ConnectionObserver) -> None:
        """Start to relay for a client; one that is refused instead takes up its place until it is told so."""
        with self._serve(client) as begun:
            server = None
            try:
                server = await self._dial_for(client, observer, begun)
            finally:
                if server is None:
                    self._capacity.used -= 1
            if server is not None:
                self._relay(client, server, observer)

    async def _dial_for(
        self, client: socket.socket, observer: ConnectionObserver, begun: socket.socket | None
    ) -> socket.socket | None:
        """The upstream's end for a client; None where it cannot be had, and the client has been told so."""
        try:
            return await self._dialler.dial(begun)
        except OSError as error:
            refused = refusal(error)
            if refused is FULL:
                self._complain("cannot dial the upstream", reason=_reason(error))
            else:
                self._note_upstream(_reason(error))
            await refuse(client, observer, refused)
            return None

    def _relay(self, client: socket.socket, server: socket.socket, observer: ConnectionObserver) -> None:
        assert self._poller is not None
        self._note_upstream(None)
        relay = Relay(client, server, observer, self._poller, self)
        self._relays.add(relay)
        try:
            relay.start()
        except OSError as error:  # no room for another socket to watch
            self._complain("cannot relay a connection", reason=_reason(error))
            relay.cut()

    def _note_idle(self) -> None:
        if not self._relays and not self._serving:
            self._idle.set()

    def _note_upstream(self, fault: str | None) -> None:
        """Log when the upstream goes and when it is back, not each client that finds it gone."""
        down = fault is not None
        if down == self._upstream_down:
            return
        self._upstream_down = down
        where = {"target": self._origin.target, "upstream": str(self._config.upstream)}
        if down:
            _log.warning("upstream does not accept connections", **where, reason=fault)
        else:
            _log.info("upstream accepts connections again", **where)

    def _complain(self, sentence: str, **details: object) -> None:
        """Log an error, one a second at most."""
        if self._clock() - self._last_complaint >= 1.0:
            self._last_complaint = self._clock()
            _log.error(sentence, **details)


def _reason(error: OSError) -> str:
    """The kernel's own words; event loops put others in their place."""
    if isinstance(error, TimeoutError):
        return "timed out"
    if isinstance(error, socket.gaierror) or not error.errno:
        return str(error)
    return os.strerror(error.errno).lower()
