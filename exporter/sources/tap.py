"""The tap: an inline pass-through on TCP that observes the WebSockets it relays (DESIGN: never worse than its absence).

One client connection is one connection to the upstream, dialled at once: no pooling, no retries, no rewriting. When
the upstream cannot be reached, an HTTP client gets a plain 502 or 504. Nothing else here ever answers, and only a
drain ends connections.
"""

import asyncio
import contextlib
import errno
import random
import socket
from collections.abc import Callable
from typing import Final

import structlog

from exporter.config import Address, TapConfig, UnixPath
from exporter.events import Origin, Sink
from exporter.listening import address_of, listen
from exporter.sources.relay import READ_SIZE, Relay
from exporter.wire.connection import ConnectionObserver
from exporter.wire.upgrade import UpgradeRequest
from exporter.wire.websocket import Watch

BACKLOG: Final = 4096
ACCEPT_BATCH: Final = 64
"""Connections accepted before other sockets get their turn."""

CONNECT_TIMEOUT: Final = 5.0
"""Seconds until an upstream that does not answer is given up."""

REFUSAL_TIMEOUT: Final = 5.0
"""Seconds that a client which cannot be served has to send its request and take the answer."""

CHECK_INTERVAL: Final = 1.0
"""Seconds between looks at connections that are not being read: a reset of theirs goes unnoticed otherwise."""

ACCEPT_PAUSE: Final = 0.5
"""Seconds without accepting after the process ran out of descriptors or memory."""

_KEEPALIVE: Final = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 15),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4),
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
)

_log = structlog.get_logger(__name__)


def refusal(status: str, sentence: str) -> bytes:
    """A whole HTTP/1.1 answer in place of an upstream that cannot be reached."""
    body = f"websocket-exporter: {sentence}\n"
    return (
        f"HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {len(body)}\r\n"
        f"Connection: close\r\n\r\n{body}"
    ).encode()


_BAD_GATEWAY: Final = refusal("502 Bad Gateway", "the service behind this tap refuses connections")
_GATEWAY_TIMEOUT: Final = refusal("504 Gateway Timeout", "the service behind this tap does not answer")


def spread(count: int, window: float, uniform: Callable[[float, float], float]) -> list[float]:
    """Ascending moments in `window` seconds for `count` closes: evenly, each at random within its slot.

    No second holds more than count/window of them, one more or less.
    """
    slot = window / max(count, 1)
    return [(number + uniform(0.0, 1.0)) * slot for number in range(count)]


async def dial(upstream: Address | UnixPath) -> socket.socket:
    """Connect to the upstream, trying each of its addresses in turn.

    Raises OSError: TimeoutError after CONNECT_TIMEOUT, else the last address's own.
    """
    failure = OSError(errno.EHOSTUNREACH, "no address")
    async with asyncio.timeout(CONNECT_TIMEOUT):
        for family, destination in await _resolve(upstream):
            sock = socket.socket(family, socket.SOCK_STREAM)
            try:
                sock.setblocking(False)
                if family != socket.AF_UNIX:
                    _set_options(sock)
                await asyncio.get_running_loop().sock_connect(sock, destination)
            except OSError as error:
                sock.close()
                failure = error
            except BaseException:
                sock.close()
                raise
            else:
                return sock
    raise failure


async def _resolve(upstream: Address | UnixPath) -> list[tuple[int, tuple[str, int] | str]]:
    if isinstance(upstream, UnixPath):
        return [(socket.AF_UNIX, upstream.path)]
    for family in (socket.AF_INET, socket.AF_INET6):
        with contextlib.suppress(OSError):
            socket.inet_pton(family, upstream.host)
            return [(family, (upstream.host, upstream.port))]
    found = await asyncio.get_running_loop().getaddrinfo(upstream.host, upstream.port, type=socket.SOCK_STREAM)
    return [(family, sockaddr[:2]) for family, _, _, _, sockaddr in found]  # type: ignore[misc]


def _set_options(sock: socket.socket) -> None:
    for level, option, value in _KEEPALIVE:
        sock.setsockopt(level, option, value)


class Tap:
    """Relays the connections of one listener to one upstream.

    `choose` finds what to watch for an opening handshake; streams that are not understood count for `origin`.
    `clock` is monotonic, in seconds.
    """

    def __init__(
        self,
        config: TapConfig,
        choose: Callable[[UpgradeRequest], Watch],
        *,
        origin: Origin,
        sink: Sink,
        clock: Callable[[], float],
    ) -> None:
        self._config = config
        self._choose = choose
        self._origin = origin
        self._sink = sink
        self._clock = clock
        self._listener: socket.socket | None = None
        self._relays: set[Relay] = set()
        self._stalled: set[Relay] = set()
        self._checking: asyncio.TimerHandle | None = None
        self._tasks: asyncio.TaskGroup | None = None
        self._serving: set[asyncio.Task[None]] = set()
        self._upstream_down = False
        self._last_complaint = float("-inf")
        self.idle = asyncio.Event()
        self.idle.set()

    async def open(self) -> Address:
        """Listen; clients wait until `run`. Returns where. Raises ListenError."""
        self._listener = await listen(self._config.listen, BACKLOG)
        _set_options(self._listener)  # accepted sockets inherit them
        return address_of(self._listener)

    async def run(self) -> None:
        """Accept and relay until cancelled; then whatever is left is cut."""
        try:
            async with asyncio.TaskGroup() as self._tasks:
                self._accept_again()
                await asyncio.Future()
        finally:
            self.stop_accepting()
            for relay in list(self._relays):
                relay.cut()

    def stop_accepting(self) -> None:
        """Close the listener. Connections that exist go on."""
        listener, self._listener = self._listener, None
        if listener is not None:
            asyncio.get_running_loop().remove_reader(listener.fileno())
            listener.close()

    async def drain(self, grace: float) -> None:
        """Accept no more and let connections end by themselves; over the last third of `grace` seconds close the rest.

        Their closing is spread, so that this process does not cause the storm it watches for.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + grace
        self.stop_accepting()
        try:
            async with asyncio.timeout(grace * 2 / 3):
                await self.idle.wait()
                return
        except TimeoutError:
            pass
        start = loop.time()
        relays = list(self._relays)
        for relay, moment in zip(relays, spread(len(relays), end - start, random.uniform), strict=True):
            await asyncio.sleep(max(0.0, start + moment - loop.time()))
            if relay in self._relays:
                relay.cut()

    @property
    def buffered(self) -> int:
        """Bytes held for peers that do not read."""
        return sum(relay.buffered for relay in self._stalled)

    # Told by the relays (relay.RelayOwner).

    def relay_stalled(self, relay: Relay) -> None:
        """Look after a relay whose resets go unnoticed."""
        self._stalled.add(relay)
        if self._checking is None:
            self._checking = asyncio.get_running_loop().call_later(CHECK_INTERVAL, self._check_stalled)

    def relay_closed(self, relay: Relay) -> None:
        """Forget a relay."""
        self._relays.discard(relay)
        self._stalled.discard(relay)
        self._note_idle()

    def observing_failed(self, fault: Exception) -> None:
        """Complain of a fault of ours, once a second at most: one cause may hit every connection."""
        if self._complaint_due():
            _log.error("observing a connection failed, it is relayed unobserved", exc_info=fault)

    # Connections.

    def _accept_again(self) -> None:
        if self._listener is not None:
            asyncio.get_running_loop().add_reader(self._listener.fileno(), self._accept)

    def _accept(self) -> None:
        for _ in range(ACCEPT_BATCH):
            if self._listener is None or self._tasks is None:
                return
            try:
                client, peer = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                # Out of descriptors or memory: the client waits in the backlog, which must not be polled meanwhile.
                loop = asyncio.get_running_loop()
                loop.remove_reader(self._listener.fileno())
                loop.call_later(ACCEPT_PAUSE, self._accept_again)
                if self._complaint_due():
                    _log.error("cannot accept connections", reason=error.strerror, retry_seconds=ACCEPT_PAUSE)
                return
            client.setblocking(False)
            task = self._tasks.create_task(self._serve(client, str(peer[0])))
            self._serving.add(task)
            task.add_done_callback(self._served)
            self.idle.clear()

    def _served(self, task: asyncio.Task[None]) -> None:
        self._serving.discard(task)
        self._note_idle()

    def _note_idle(self) -> None:
        if not self._relays and not self._serving:
            self.idle.set()

    async def _serve(self, client: socket.socket, address: str) -> None:
        observer = ConnectionObserver(
            self._choose, origin=self._origin, sink=self._sink, clock=self._clock, address=address
        )
        try:
            server = await dial(self._config.upstream)
        except OSError as error:
            self._note_upstream(error)
            late = isinstance(error, TimeoutError)
            await _refuse(client, observer, _GATEWAY_TIMEOUT if late else _BAD_GATEWAY)
            observer.unanswered("failed", "timeout" if late else "refused")
            observer.finish()
        except BaseException:
            client.close()
            raise
        else:
            self._note_upstream(None)
            relay = Relay(asyncio.get_running_loop(), client, server, observer, self)
            self._relays.add(relay)
            relay.start()

    def _note_upstream(self, error: OSError | None) -> None:
        """Log when the upstream goes and when it is back, not each client that finds it gone."""
        if error is not None and not self._upstream_down:
            _log.warning(
                "upstream does not accept connections",
                target=self._origin.target,
                upstream=str(self._config.upstream),
                reason=error.strerror or "timed out",
            )
        elif error is None and self._upstream_down:
            _log.info(
                "upstream accepts connections again",
                target=self._origin.target,
                upstream=str(self._config.upstream),
            )
        self._upstream_down = error is not None

    def _check_stalled(self) -> None:
        self._stalled = {relay for relay in list(self._stalled) if relay.check()} & self._relays
        self._checking = None
        if self._stalled:
            self._checking = asyncio.get_running_loop().call_later(CHECK_INTERVAL, self._check_stalled)

    def _complaint_due(self) -> bool:
        due = self._clock() - self._last_complaint >= 1.0
        if due:
            self._last_complaint = self._clock()
        return due


async def _refuse(client: socket.socket, observer: ConnectionObserver, answer: bytes) -> None:
    """Read a client's request, so that it can be counted and answered, and answer it in the upstream's place.

    What is not HTTP gets no answer.
    """
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(REFUSAL_TIMEOUT):
            while not observer.awaiting_answer:
                data = await loop.sock_recv(client, READ_SIZE)
                if not data:
                    return
                observer.from_client(data)
            await loop.sock_sendall(client, answer)
            client.shutdown(socket.SHUT_WR)
            while await loop.sock_recv(client, READ_SIZE):
                pass
    except OSError:
        pass  # it did not wait for the answer, or took too long over it
    finally:
        client.close()
