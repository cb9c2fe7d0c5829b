"""One observed connection, whatever it turns out to speak: both directions, and how TCP ended."""

from collections.abc import Callable
from typing import Final, NamedTuple

from exporter.events import (
    Attached,
    ClientKey,
    EndKind,
    HandshakeEnded,
    HandshakeOutcome,
    Initiator,
    Origin,
    Peer,
    Side,
    Sink,
    StreamUnparsed,
    TransportEnd,
    UnparsedReason,
)
from exporter.wire.frames import Chunk
from exporter.wire.http1 import FOREVER
from exporter.wire.upgrade import HttpConversation, UpgradeRequest, UpgradeResponse
from exporter.wire.websocket import Watch, WebSocket

Consumer = Callable[[Chunk], None]

REJECTED_STATUSES: Final = (400, 401, 403, 404, 426, 429, 500, 502, 503, 504)
"""HTTP statuses that are a label value of their own; any other is `other`."""

MAX_PEER_TEXT: Final = 1024
"""Characters kept of each text that a client said of itself."""


class _Pending(NamedTuple):
    """An opening handshake that is not answered yet: `requested` is when its head was complete."""

    watch: Watch
    requested: float
    client: ClientKey | None
    user_agent: str


def status_label(status: int) -> str:
    """The bounded label of the HTTP status that rejected a handshake."""
    return str(status) if status in REJECTED_STATUSES else "other"


def _ignore(data: Chunk) -> None:
    """Take bytes that are not understood."""


class ConnectionObserver:
    """Turns what passes on one connection into events: each handshake answered, each WebSocket closed once.

    `from_client` and `from_server` take each side's bytes in the order they passed. They are attributes, replaced as
    the connection turns from HTTP into a WebSocket or into something not understood, so that a message costs no
    dispatch. `choose` finds what to watch for an opening handshake; a stream that never gets so far is `origin`'s.
    """

    __slots__ = (
        "_address",
        "_choose",
        "_clock",
        "_end",
        "_http",
        "_origin",
        "_pending",
        "_sink",
        "_unparsed",
        "_websocket",
        "from_client",
        "from_server",
    )

    def __init__(
        self,
        choose: Callable[[UpgradeRequest], Watch],
        *,
        origin: Origin,
        sink: Sink,
        clock: Callable[[], float],
        address: str = "",
    ) -> None:
        self._choose = choose
        self._origin = origin
        self._sink = sink
        self._clock = clock
        self._address = address
        self._pending: _Pending | None = None
        self._websocket: WebSocket | None = None
        self._end: TransportEnd | None = None
        self._unparsed = False
        self._http: HttpConversation | None = HttpConversation(self)
        self.from_client: Consumer = self._http.from_client
        self.from_server: Consumer = self._http.from_server

    @property
    def awaiting_answer(self) -> bool:
        """Whether a request has passed and is not answered yet."""
        return self._http is not None and self._http.awaiting_answer

    @property
    def understood(self) -> bool:
        """Whether what passes is followed, and not merely relayed."""
        return self.from_client is not _ignore

    def ahead(self, side: Side, begin: Chunk = b"") -> int:
        """How many of the bytes that `side` sends next need no looking at, by what passed so far.

        They cost next to nothing, however many are shown at once; each byte beyond them may be a frame of its own.
        `begin` is how those bytes begin, where that is known: a frame's header in it tells of its payload.
        """
        if self._http is not None:
            return self._http.ahead(side)
        if self._websocket is None or self._unparsed:
            return FOREVER
        return (self._websocket.client if side == "client" else self._websocket.server).ahead(begin)

    def transport_ended(self, side: Initiator, kind: EndKind) -> None:
        """Learn that `side` ended its half of TCP. The first to do so is remembered."""
        if self._end is None:
            self._end = TransportEnd(side, kind)
            if self._websocket is not None:
                self._websocket.transport_ended()

    def unanswered(self, outcome: HandshakeOutcome, status: str) -> None:
        """Settle an opening handshake that the service will not answer; without one nothing happens."""
        self._answered(outcome, status)

    def finish(self) -> None:
        """The connection is over in both directions: emit what is still owed. Calling it again does nothing."""
        if self._websocket is not None:
            websocket, self._websocket = self._websocket, None
            websocket.finish(self._end, unparsed=self._unparsed)
        elif self._http is not None and self._http.incomplete:
            self.unparsed("incomplete_head")
        if self._pending is not None:
            # Who gave up first tells an overloaded service from one that dropped the connection.
            gave_up = self._end is not None and self._end.side == "client"
            self.unanswered("failed", "timeout" if gave_up else "closed")
        self._ignore_all()

    def fail(self) -> None:
        """Stop following after a fault of our own: the stream goes on, and a WebSocket's end is `unknown`."""
        if not self._unparsed:
            self._unparsed = True
            self.unparsed("internal_error")

    @property
    def websocket(self) -> WebSocket | None:
        """The WebSocket that this is, until it has ended."""
        return self._websocket

    def attach(self) -> WebSocket:
        """It was a WebSocket before anybody looked: follow it from here on, whoever and whatever it is."""
        request = UpgradeRequest(None, "", "", "")
        watch = self._choose(request)
        client = watch.identify(self._address, request)
        self._sink.emit(Attached(watch.origin, client))
        return self._follow(watch, Peer(self._address), client, deflate=True, attached=True)

    # What the HTTP conversation found (upgrade.UpgradeListener).

    def upgrade_requested(self, request: UpgradeRequest) -> None:
        """An opening handshake has passed."""
        watch = self._choose(request)
        client = watch.identify(self._address, request)
        self._pending = _Pending(watch, self._clock(), client, request.user_agent[:MAX_PEER_TEXT])

    def upgrade_rejected(self, status: int) -> None:
        """The opening handshake got an answer that makes no WebSocket."""
        self._answered("rejected", status_label(status))

    def upgraded(self, request: UpgradeRequest, response: UpgradeResponse, early: bytes, rest: bytes) -> None:
        """From here on the connection is a WebSocket."""
        pending = self._answered("accepted", "101")
        if pending is None:
            return
        # These live as long as the connection does, and may be as long as a head.
        peer = Peer(
            self._address,
            request.host[:MAX_PEER_TEXT],
            request.path[:MAX_PEER_TEXT],
            pending.user_agent,
            response.subprotocol[:MAX_PEER_TEXT],
        )
        websocket = self._follow(pending.watch, peer, pending.client, deflate=response.deflate)
        if early:
            self.from_client(early)
        if self._end is not None:
            websocket.transport_ended()
        if rest:
            self.from_server(rest)

    def unparsed(self, reason: UnparsedReason) -> None:
        """The connection is not understood from here on."""
        self._pending = None  # how a handshake on it went is not known
        self._ignore_all()
        self._sink.emit(StreamUnparsed(self._origin, reason))

    def _follow(
        self, watch: Watch, peer: Peer, client: ClientKey | None, *, deflate: bool, attached: bool = False
    ) -> WebSocket:
        websocket = WebSocket(
            watch, peer, client, deflate=deflate, sink=self._sink, clock=self._clock, attached=attached
        )
        self._websocket = websocket
        self._http = None
        self.from_client = websocket.client
        self.from_server = websocket.server
        return websocket

    def _answered(self, outcome: HandshakeOutcome, status: str) -> _Pending | None:
        """Settle the opening handshake under way, if there is one."""
        pending, self._pending = self._pending, None
        if pending is not None:
            took = self._clock() - pending.requested
            self._sink.emit(
                HandshakeEnded(pending.watch.origin, outcome, status, took, pending.client, pending.user_agent)
            )
        return pending

    def _ignore_all(self) -> None:
        self._http = None
        self.from_client = _ignore
        self.from_server = _ignore
