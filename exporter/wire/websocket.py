"""One open WebSocket: two frame meters, and what their control frames say about its end."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from exporter.closecodes import INVALID, NO_CLOSE, UNKNOWN, Vocabulary
from exporter.events import (
    AnomalyKind,
    AnomalySeen,
    ClientKey,
    Closed,
    Ending,
    Initiator,
    Origin,
    Passing,
    Peer,
    PingAnswered,
    Side,
    Sink,
    Traffic,
    TransportEnd,
    opposite,
)
from exporter.wire.frames import CLOSE, PING, CloseFrame, FrameMeter, parse_close
from exporter.wire.sizes import DirectionSizes
from exporter.wire.upgrade import UpgradeRequest

ANSWERS_TO_ANY: Final = (None, 1000, 1002, 1007)
"""Codes with which peers answer a Close of another (None: an empty one): to any, 1000 or none; to one that is
malformed, 1002 or 1007. Every other answer repeats the code that it answers."""

MAX_PINGS: Final = 16
"""Unanswered Pings remembered per side; of more, the oldest are forgotten."""


_NEITHER: Final[frozenset[Side]] = frozenset()  # one for all: each empty set is an object of its own


class OutOfStep(Exception):
    """What a side sends makes no sense, and not all of it was seen: what looks like a frame is none."""


class Witness(Protocol):
    """Through whom a WebSocket is seen."""

    def hesitant(self) -> bool:
        """Whether what is seen first may not have happened first."""
        ...


class _Relay:
    """Whom every byte passes through, in order."""

    def hesitant(self) -> bool:
        return False


_RELAY: Final = _Relay()


def unrecognised(address: str, request: UpgradeRequest) -> ClientKey | None:
    """No client is told from another."""
    return None


@dataclass(frozen=True, slots=True)
class Watch:
    """What observing a WebSocket of one target needs: its labels, its code vocabulary, and where sizes are counted.

    `identify` finds the key by which the client at an address is recognised, from its opening handshake.
    """

    origin: Origin
    vocabulary: Vocabulary
    client_to_server: DirectionSizes
    server_to_client: DirectionSizes
    identify: Callable[[str, UpgradeRequest], ClientKey | None] = unrecognised


class WebSocket:
    """Follows one WebSocket from its 101 to its end. `client` and `server` meter what each side sends.

    Where bytes may have been missed it is told so: a side in `incomplete` is one of which not all was seen, ever, and
    one in `lost` is not understood now. While the `witness` is hesitant the first Close seen may not be the first sent.
    """

    __slots__ = (
        "_attached",
        "_client",
        "_clock",
        "_close",
        "_closed_at",
        "_closed_by",
        "_ending",
        "_opened",
        "_passing",
        "_peer",
        "_pings",
        "_sink",
        "_watch",
        "client",
        "incomplete",
        "lost",
        "server",
        "witness",
    )

    def __init__(
        self,
        watch: Watch,
        peer: Peer,
        client: ClientKey | None = None,
        *,
        deflate: bool,
        sink: Sink,
        clock: Callable[[], float],
        attached: bool = False,
    ) -> None:
        self._watch = watch
        self._attached = attached
        self._peer = peer
        self._client = client
        self._sink = sink
        self._clock = clock
        self._opened = clock()
        self._close: CloseFrame | None = None
        self._closed_by: Side | None = None  # who sent it, as long as that decides nothing yet
        self._closed_at = 0.0
        self._ending: Ending | None = None
        self._passing: dict[Initiator, Passing] | None = None  # towards each side, when the first of them ended it
        self._pings: dict[Side, dict[bytes, float]] | None = None
        self.client = FrameMeter("client", watch.client_to_server, deflate=deflate, listener=self)
        self.server = FrameMeter("server", watch.server_to_client, deflate=deflate, listener=self)
        self.incomplete = self.lost = _NEITHER
        self.witness: Witness = _RELAY

    def control_frame(self, side: Side, opcode: int, payload: bytes | None) -> None:
        """Follow a Close, Ping or Pong from `side`."""
        if opcode == CLOSE:
            self._close_frame(side, parse_close(payload))
        elif payload is None:
            return
        elif opcode == PING:
            self._ping(side, payload)
        else:
            self._pong(side, payload)

    def anomaly(self, side: Side, kind: AnomalyKind) -> None:
        """Pass on that `side` sent a forbidden frame.

        Raises:
            OutOfStep: more likely it is no frame at all.
        """
        if side in self.incomplete:
            raise OutOfStep
        self._sink.emit(AnomalySeen(self._watch.origin, side, kind))

    def transport_ended(self) -> None:
        """A side has ended its half of TCP: it may have refused what had passed by then, and nothing later."""
        self._remember_passing()

    def finish(self, end: TransportEnd | None, *, unparsed: bool = False) -> None:
        """Emit what is owed of this WebSocket, whose TCP connection `end`ed; `unparsed` if it was not followed so far.

        Code and initiator are those of the first Close frame that passed. Without one, the initiator is the side
        that ended TCP first. A Close frame that may have been missed makes either `unknown`.
        """
        if self._close is not None and self._closed_by is not None:
            self._settle_alone(self._close, self._closed_by)
        ending = self._ending
        if ending is None:
            by = "unknown" if unparsed or self.lost or end is None else end.side
            ending = self._ended(by, UNKNOWN if by == "unknown" else NO_CLOSE)
        closed = Closed(
            ending.origin,
            ending.code,
            ending.close_class,
            ending.initiator,
            duration=self._clock() - self._opened,
            wire_code=self._close.code if self._close else None,
            reason=self._close.reason if self._close else "",
            peer=self._peer,
            client_to_server=_traffic(self.client),
            server_to_client=_traffic(self.server),
            transport_end=end,
            attached=self._attached,
        )
        self._sink.emit(closed)
        self.client.finish()
        self.server.finish()

    def _ended(self, by: Initiator, code: str) -> Ending:
        """`by` has ended the WebSocket, in a way of this label."""
        passing = self._remember_passing().get(by)
        close_class = self._watch.vocabulary.close_class(code)
        ending = Ending(self._watch.origin, code, close_class, by, passing, self._client, self._peer.user_agent)
        self._ending = ending
        self._sink.emit(ending)
        return ending

    def _remember_passing(self) -> dict[Initiator, Passing]:
        if self._passing is None:
            self._passing = {"client": self.server.end(), "server": self.client.end()}
        return self._passing

    def _close_frame(self, side: Side, close: CloseFrame) -> None:
        label = self._label(close)
        if label == INVALID:
            self.anomaly(side, "illegal_close_code")
        if self._close is None:
            self._close = close
            self._remember_passing()
            if self.witness.hesitant() or opposite(side) in self.lost or side in self.incomplete:
                self._closed_by, self._closed_at = side, self._clock()
            else:
                self._ended(side, label)
            return
        if side in (self._closed_by, self._ending.initiator if self._ending else None):
            return  # the same once more
        if self._closed_by is not None:
            first = self._closed_by
            if self._clock() < self._closed_at:
                close, self._close = self._close, close
                first, side = side, first
            self._closed_by = None
            self._ended(first, self._label(self._close))
        if close.code != self._close.code:
            # Several libraries answer 1000 to anything: worth counting, never the truth about the close.
            self._sink.emit(AnomalySeen(self._watch.origin, side, "echo_mismatch"))

    def lose(self, side: Side, *, contradicted: bool) -> None:
        """What a side sends is not understood any more.

        If that `contradicted` what was understood, a Close of its own that was not decided upon was none: it was read
        behind a gap.
        """
        self.incomplete |= {side}
        self.lost |= {side}
        self.client.doubt()
        self.server.doubt()
        if contradicted and self._closed_by == side:
            self._close = self._closed_by = None

    def _label(self, close: CloseFrame) -> str:
        return INVALID if close.malformed else self._watch.vocabulary.wire_label(close.code)

    def _settle_alone(self, close: CloseFrame, by: Side) -> None:
        """Only one Close was seen, and the other side's may have been missed, before or after it."""
        self._closed_by = None
        if opposite(by) not in self.lost:
            self._ended(by, self._label(close))
        elif close.code not in ANSWERS_TO_ANY:
            self._ended("unknown", self._label(close))
        else:
            self._close = None

    def _ping(self, side: Side, payload: bytes) -> None:
        if self._pings is None:
            self._pings = {"client": {}, "server": {}}
        pings = self._pings[side]
        # Of Pings with equal payloads the oldest is the one that the next Pong answers.
        pings.setdefault(payload, self._clock())
        if len(pings) > MAX_PINGS:
            del pings[next(iter(pings))]

    def _pong(self, side: Side, payload: bytes) -> None:
        """Match a Pong with the Ping it answers; unsolicited ones are allowed (RFC 6455 section 5.5.3).

        A Pong may stand for all Pings up to the one it answers: those before it are forgotten.
        """
        pings = self._pings[opposite(side)] if self._pings else {}
        sent = None
        while payload in pings:
            sent = pings.pop(next(iter(pings)))
        if sent is not None:
            self._sink.emit(PingAnswered(self._watch.origin, side, self._clock() - sent))


def _traffic(meter: FrameMeter) -> Traffic:
    return Traffic(meter.bytes, meter.messages, meter.largest_message)
