"""One TCP connection as a capture sees it: two streams, their observer, and honesty about what was missed.

A direction with a gap in it is *lost* until frames are found in it again. What a lost direction may have said is
`unknown`, never a number.
"""

from dataclasses import dataclass
from typing import Final

from exporter.events import Side
from exporter.wire.connection import ConnectionObserver
from exporter.wire.frames import Chunk, FrameMeter
from exporter.wire.resync import Search, is_close
from exporter.wire.tcp import FEW_HELD_BYTES, NEVER, UNREAD, WIDE_WINDOW, WINDOW, Stream, ahead_of
from exporter.wire.websocket import OutOfStep, WebSocket

NEAR: Final = 1 << 20
"""Bytes ahead of what was seen that an acknowledgment may be while nothing is missed. Beyond, it is forged, or of a
connection that was before."""

MOST_OUTSIDE: Final = 8
"""Segments in a row out of the window after which they are believed, and not the window."""

_NANOSECONDS: Final = 1_000_000_000


class PacketClock:
    """The time of the packet that is being looked at, in seconds on the monotonic clock.

    `at` is its stamp (Unix time in nanoseconds), `offset` how much later than the monotonic clock that one is.
    """

    __slots__ = ("at", "offset")

    def __init__(self) -> None:
        self.at = 0
        self.offset = 0

    def __call__(self) -> float:
        """Now, for whoever watches what the packets bring."""
        return (self.at - self.offset) / _NANOSECONDS


@dataclass(slots=True)
class Losses:
    """What a capture missed, since it began: the whole truth about its own gaps.

    `directions` were lost, of which `resyncs` were found again; `missed_bytes` of TCP payload were not looked at;
    `malformed` packets made no sense, those `out_of_window` are no receiver's to believe, and there were `too_many`
    connections to look at others. `recent` is whether the kernel has dropped packets lately (then a gap is
    no network's), `ever` whether it has at all.
    """

    directions: int = 0
    resyncs: int = 0
    missed_bytes: int = 0
    malformed: int = 0
    out_of_window: int = 0
    too_many: int = 0  # connections to follow
    recent: bool = False
    ever: bool = False
    by_design: bool = False  # closes only: what is not looked at is not missed

    def hesitant(self) -> bool:
        """Whether what is seen first may not have happened first."""
        return self.recent or self.by_design


class Direction(Stream["Flow"]):
    """One side's stream, and while it is not understood the search for frames in it.

    `outside` is how many segments in a row were out of its window.
    """

    __slots__ = ("outside", "search")

    def __init__(self, owner: "Flow", side: Side, first: int) -> None:
        super().__init__(owner, side, first)
        self.search: Search | None = None
        self.outside = 0


class Flow:
    """Follows one connection. `over` is whether it has ended; then `finish` it. `key` is what it is known by.

    `client_next` and `server_next` are the sequence numbers at which the streams begin. A flow that is not `fresh`
    began before: whether it is a WebSocket at all will show.
    """

    __slots__ = (
        "_clock",
        "_fins",
        "_losses",
        "_observer",
        "began_at",
        "client",
        "key",
        "over",
        "seen_at",
        "server",
        "server_began",
    )

    def __init__(
        self,
        key: bytes,
        observer: ConnectionObserver,
        clock: PacketClock,
        losses: Losses,
        client_next: int,
        server_next: int,
        *,
        fresh: bool = True,
    ) -> None:
        self.key = key
        self._observer = observer
        self._clock = clock
        self._losses = losses
        self.client = Direction(self, "client", client_next)
        self.server = Direction(self, "server", server_next)
        if not fresh:
            self._search()
        self._fins: tuple[Side, ...] = ()  # of the sides, in the order in which they were seen
        self.over = False
        self.began_at = self.seen_at = clock.at
        self.server_began = server_next if fresh else NEVER  # by which a repeated SYN is told from a new one

    @property
    def undetermined(self) -> bool:
        """Whether it is not known (yet, or any more) what is spoken here."""
        return self.client.search is not None and self._observer.websocket is None

    @property
    def is_websocket(self) -> bool:
        """Whether it is known to be a WebSocket."""
        return self._observer.websocket is not None

    @property
    def held_bytes(self) -> int:
        """Bytes that wait for what comes before them."""
        return self.client.held_bytes + self.server.held_bytes

    @property
    def waits(self) -> bool:
        """Whether something is held until a gap closes."""
        return self.client.waiting_since is not None or self.server.waiting_since is not None

    def hesitant(self) -> bool:
        """Whether what is seen first may not have happened first."""
        return self._losses.hesitant() or self.waits

    def segment(
        self,
        stream: Direction,
        sequence: int,
        data: Chunk,
        at: int,
        *,
        end: int | None = None,
        acknowledgment: int | None = None,
    ) -> None:
        """Take a segment of one of the two streams; what of the other it acknowledges has arrived.

        `end` is the sequence number behind its last byte if it has a FIN, also where its data was cut.
        """
        self._clock.at = self.seen_at = at
        other = self.server if stream is self.client else self.client
        losses = self._losses
        if sequence != stream.next and not self._in_window(stream, sequence):
            if not self._is_far(stream, other, acknowledgment):
                losses.out_of_window += 1
                return
            stream.jump(sequence)
        stream.outside = 0
        if acknowledgment is not None and self._is_news(other, acknowledgment):
            other.sent(acknowledgment)
        hurried = losses.recent and not self._in_handshake  # whose parts may come late, by the other ring
        if hurried and len(data) > FEW_HELD_BYTES:
            stream.sent(sequence)
        stream.segment(sequence, data, at, end)
        if hurried:
            stream.hold_few()
        if stream.end != NEVER and stream.side not in self._fins:
            self._fins += (stream.side,)
        if self._fins:
            self._ended()

    def tells_news(self, stream: Direction, acknowledgment: int) -> bool:
        """Whether what a segment of that stream acknowledges was sent by the other side and not seen.

        Then it was missed: packets are seen before their receivers get them.
        """
        other = self.server if stream is self.client else self.client
        return acknowledgment != other.expected and self._is_news(other, acknowledgment)

    def reset(self, stream: Direction, sequence: int, acknowledgment: int | None, at: int) -> None:
        """Take a RST of one side, if its receiver believes it. What it acknowledges of the other was sent.

        While packets are being missed, any that is ahead of what was seen is believed.
        """
        self._clock.at = self.seen_at = at
        missed = self._losses.by_design or (self._losses.recent and 0 <= ahead_of(sequence, stream.next) <= WIDE_WINDOW)
        if not (missed or stream.may_be_reset_at(sequence)):
            self._losses.out_of_window += 1
            return
        if self._losses.hesitant() or stream is self.server:
            stream.sent(sequence)
        if acknowledgment is not None:
            other = self.server if stream is self.client else self.client
            if ahead_of(acknowledgment, other.next) <= WIDE_WINDOW:
                other.sent(acknowledgment)
        self._catch_up()
        for side in self._fins:
            self._observer.transport_ended(side, "fin")
        self._observer.transport_ended(stream.side, "reset")
        self.over = True

    def give_up(self, before: int) -> None:
        """Wait no longer for what has been missing since before that time (nanoseconds)."""
        for stream in (self.client, self.server):
            while (since := stream.waiting_since) is not None and since < before:
                stream.give_up()
        if self._fins:
            self._ended()

    def finish(self, *, vanished: bool = False) -> None:
        """It is over: emit what is owed. One that `vanished` may have ended in any way."""
        self._catch_up()
        if vanished:
            for stream in (self.client, self.server):
                self._lose(stream)
        self._observer.finish()

    def out_of_step(self, stream: Direction) -> None:
        """What a stream says makes no sense any more, since something of it was missed."""
        self._lose(stream, contradicted=True)

    def fail(self) -> None:
        """Stop following after a fault of our own."""
        self._observer.fail()
        self._ignore()

    def is_tls(self) -> None:
        """What is spoken here cannot be understood."""
        self._observer.unparsed("tls")
        self._ignore()

    def _ignore(self) -> None:
        self.client.search = self.server.search = None
        self._go_straight()

    @property
    def _in_handshake(self) -> bool:
        return self._observer.websocket is None and self.client.search is None

    def _is_news(self, other: Direction, acknowledgment: int) -> bool:
        if acknowledgment == other.next or self._losses.recent:  # what was dropped may come by the other ring yet
            return False
        near = WIDE_WINDOW if self._losses.hesitant() else NEAR
        return 0 < ahead_of(acknowledgment, other.next) <= near

    def _in_window(self, stream: Direction, sequence: int) -> bool:
        losses = self._losses
        oldest = -NEAR if losses.by_design else -WIDE_WINDOW  # beyond it more has gone by than numbers can tell
        newest = WIDE_WINDOW if losses.hesitant() else WINDOW
        return oldest <= ahead_of(sequence, stream.next) <= newest

    def _is_far(self, stream: Direction, other: Direction, acknowledgment: int | None) -> bool:
        """Whether a segment that is out of window shows that a great deal was missed.

        Either all is that far ahead or behind; or it acknowledges what the other side is at, which hardly anybody knows
        who is no part of the connection. Where packets were never dropped it is forged.
        """
        stream.outside += 1
        known = acknowledgment is not None and -NEAR <= ahead_of(acknowledgment, other.next) <= NEAR
        many = stream.outside > MOST_OUTSIDE
        return self._losses.by_design or (self._losses.ever and (known or many))

    # What the streams tell (tcp.StreamOwner).

    def take(self, stream: Direction, data: Chunk, at: int) -> None:
        """The next bytes of a stream, seen `at` that time."""
        self._clock.at = at
        if stream.search is not None:
            self._look(stream, stream.search, data)
            return
        observer = self._observer
        try:
            (observer.from_client if stream is self.client else observer.from_server)(data)
        except OutOfStep:
            self._lose(stream, contradicted=True)
            return
        if not stream.direct:
            self._go_straight()
            other = self.server if stream is self.client else self.client
            other.straighten()

    def known_payload(self, stream: Direction) -> int:
        """How many of the next bytes need not be seen."""
        return self._observer.ahead(stream.side) if stream.search is None else 0

    def gap(self, stream: Direction, size: int) -> None:
        """Bytes of a stream will never be seen, so many at least."""
        if not self._losses.by_design and not self.undetermined:
            self._losses.missed_bytes += size
        search, websocket = stream.search, self._observer.websocket
        if search is None:
            self._lose(stream)
            return
        search.gap()
        if websocket is not None:
            websocket.lost |= {stream.side}

    def _go_straight(self) -> None:
        """Once it is a WebSocket, or nothing to be followed, segments need nobody between them and their meter."""
        websocket, understood = self._observer.websocket, self._observer.understood
        if websocket is None and understood:
            return
        if websocket is not None:
            websocket.witness = self
        for stream in (self.client, self.server):
            if stream.search is None:
                stream.meter = _meter(websocket, stream.side) if websocket is not None and understood else UNREAD
                stream.direct = True

    def _lose(self, stream: Direction, *, contradicted: bool = False) -> None:
        stream.direct = False
        stream.slow()
        websocket = self._observer.websocket
        if websocket is None:
            if self._observer.understood:
                self._observer.unparsed("packets_missed")
                self._search(missed=stream)
            return
        websocket.lose(stream.side, contradicted=contradicted)
        if stream.search is None:
            stream.search = Search(stream.side)
            if not self._losses.by_design:
                stream.search.counted = True
                self._losses.directions += 1

    def _search(self, missed: Direction | None = None) -> None:
        """Nothing is understood in either direction (yet); of one side something was missed."""
        for direction in (self.client, self.server):
            direction.search = Search(direction.side)
            if direction is missed:
                direction.search.gap()
            direction.direct = False
            direction.slow()

    def _look(self, stream: Direction, search: Search, data: Chunk) -> None:
        """See whether frames can be told again in what a lost side says."""
        found = search.segment(data)
        websocket = self._observer.websocket
        if found is None:
            if websocket is not None:
                websocket.lost |= {stream.side}
                self._losses.missed_bytes += 0 if self._losses.by_design else len(data)
            return
        if websocket is None:
            websocket = self._attach(by_close=is_close(data, stream.side))
        stream.search = None
        self._losses.resyncs += search.counted
        websocket.lost -= {stream.side}
        meter = _meter(websocket, stream.side)
        meter.resume(found.skip)
        stream.meter = meter
        stream.direct = True
        try:
            meter.feed(found.data)
        except OutOfStep:
            self._lose(stream, contradicted=True)

    def _attach(self, *, by_close: bool) -> WebSocket:
        """It has turned out to be a WebSocket that was open before it was seen.

        Of a side that has not said anything since nothing was missed; unless the first thing seen is a Close, which may
        be the answer to one.
        """
        websocket = self._observer.attach()
        websocket.witness = self
        for one in (self.client, self.server):
            websocket.incomplete |= {one.side}
            if by_close or (one.search is not None and one.search.began):
                websocket.lost |= {one.side}
        return websocket

    def _catch_up(self) -> None:
        """Nothing more will come: what is held is all there is.

        What the client sent and the network lost for good has not reached the service either: only where packets are
        dropped here may it have. What the service sent passed here first.
        """
        for stream in (self.client, self.server) if self._losses.hesitant() else (self.server,):
            while stream.waiting_since is not None:
                stream.give_up()

    def _ended(self) -> None:
        """Who ended first is who did so first, even if what came before that is still waited for."""
        for side in self._fins:
            if not (self.client if side == "client" else self.server).finished:
                break
            self._observer.transport_ended(side, "fin")
        self.over = self.over or (self.client.finished and self.server.finished)


def _meter(websocket: WebSocket, side: Side) -> FrameMeter:
    return websocket.client if side == "client" else websocket.server
