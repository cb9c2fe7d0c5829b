"""Which connection does a packet belong to? All connections of one captured port.

Nothing is kept of a SYN, which anybody can send: a connection begins with the service's answer to it. One that began
before the capture did is followed as soon as its frames can be told.
"""

import socket
from collections.abc import Callable, Collection, Iterator, Set
from typing import Final

from exporter.wire.connection import ConnectionObserver
from exporter.wire.flow import Direction, Flow, Losses, PacketClock
from exporter.wire.frames import Chunk
from exporter.wire.packet import ACK, FIN, RST, SYN, Segment
from exporter.wire.tcp import MASK, NEVER

ENDED_FOR: Final = 10_000_000_000
"""Nanoseconds for which an ended connection is remembered: late duplicates of its packets are no new one."""

MOST_OPENED: Final = 16_384
"""Connections remembered that were opened and have not said anything yet; of more, the oldest are forgotten."""

MOST_RIVALS: Final = 1024
"""SYNs remembered for the addresses of connections that are there already."""

MOST_FLOWS: Final = 200_000
"""Connections followed at a time. Of more nothing is looked at: so many are made up."""

MOST_HELD: Final = 32 << 20
"""Bytes that all connections together hold for what comes before."""

UNKNOWN_FOR: Final = 60_000_000_000
"""Nanoseconds for which something is kept that has said nothing, is no WebSocket and unknown to the kernel."""

_PORTS: Final = 4  # bytes of both
_NEVER: Final = 1 << 63
_TLS_STARTS: Final = (b"\x16\x03", b"\x17\x03")
_MAPPED: Final = bytes(10) + b"\xff\xff"


def reversed_key(key: bytes) -> bytes:
    """The key of the other direction (`packet.Segment`)."""
    ports = len(key) - _PORTS
    width = ports // 2
    return key[width:ports] + key[:width] + key[-2:] + key[ports:-2]


def address_text(address: bytes) -> str:
    """An IP address in words; a mapped IPv4 address is one."""
    if len(address) == 16 and address.startswith(_MAPPED):
        address = address[len(_MAPPED) :]
    return socket.inet_ntop(socket.AF_INET if len(address) == 4 else socket.AF_INET6, address)


class Flows:
    """The connections of one captured port. `streams` are by the key of their direction.

    `observe` makes the observer of a client's address.
    """

    def __init__(
        self, port: int, observe: Callable[[str], ConnectionObserver], clock: PacketClock, losses: Losses
    ) -> None:
        self._port = port.to_bytes(2)  # as it is in a key
        self._observe = observe
        self._clock = clock
        self._losses = losses
        self.streams: dict[bytes, Direction] = {}
        self._waiting: dict[Flow, int] = {}  # with the bytes that each holds
        self._held = 0  # bytes that all of them hold
        self._missing: set[Flow] = set()  # that the kernel did not know when it was asked last
        self._opened: dict[bytes, tuple[int, int]] = {}  # the next sequence numbers of client and server
        self._rivals: dict[bytes, int] = {}
        self._here = False  # the kernel knows connections of this port
        self._ended: dict[bytes, tuple[int, int]] = {}  # when, and where the server's stream began

    def __len__(self) -> int:
        """How many connections there are."""
        return len(self.streams) // 2

    @property
    def waiting(self) -> Collection[Flow]:
        """Those that wait for what they have not seen."""
        return self._waiting.keys()

    def segment(self, segment: Segment, data: Chunk, at: int) -> None:
        """Take a segment whose bytes are `data`, seen `at` that time."""
        key, flags = segment.key, segment.flags
        to_server = key[-2:] == self._port
        if not to_server and key[-4:-2] != self._port:
            return
        if flags & SYN:
            self._syn(key if to_server else reversed_key(key), segment, at, to_server=to_server)
            return
        if not flags & (ACK | RST):
            return  # no kernel takes it either (RFC 9293 section 3.10.7.4)
        stream = self.streams.get(key)
        if stream is None:
            stream = self._begin(key, key if to_server else reversed_key(key), segment, data, at)
            if stream is None:
                return
        flow = stream.owner
        if to_server and data[:4] == b"GET " and flow.undetermined:
            flow = self._begin_http(flow, segment)
            stream = flow.client
        acknowledgment = segment.acknowledgment if flags & ACK else None
        if flags & RST:
            flow.reset(stream, segment.sequence, acknowledgment, at)
        else:
            end = segment.sequence + segment.size & MASK if flags & FIN else None
            flow.segment(stream, segment.sequence, data, at, end=end, acknowledgment=acknowledgment)
        self.settle(flow)

    def settle(self, flow: Flow) -> None:
        """Put a connection where it belongs by what has become of it."""
        if flow.over:
            self._remove(flow)
            flow.finish()
        elif flow.waits or flow in self._waiting:
            self._note_held(flow)
            if self._held > MOST_HELD and flow.held_bytes:  # all together hold too much
                flow.give_up(_NEVER)
                self.settle(flow)

    def _note_held(self, flow: Flow) -> None:
        held = flow.held_bytes
        self._held += held - self._waiting.pop(flow, 0)
        if flow.waits:
            self._waiting[flow] = held

    def give_up(self, flow: Flow, before: int) -> None:
        """Have a connection that waits do so no longer for what was missed before that time (nanoseconds)."""
        if flow in self._waiting:
            flow.give_up(before)
            self.settle(flow)

    def forget_ended(self, now: int) -> None:
        """Forget what ended long enough ago."""
        ended = self._ended
        while ended:
            oldest = next(iter(ended))
            if now - ended[oldest][0] < ENDED_FOR:
                return
            del ended[oldest]

    def vanished(self, known: Set[bytes], asked: int) -> Iterator[Flow | None]:
        """Those that the kernel does not know (any more) for the second time; `known` are its own, by the client's key.

        Only what has been silent since before it was `asked` (nanoseconds): what is new may not have been there yet.
        Only where it knows any of these connections at all: they may be those of another network namespace. And only
        the second time, because the end may still be in a ring.

        Yields None for every direction that tells of no such connection: there may be hundreds of thousands, and others
        by the time the next one is asked for.
        """
        self._here = self._here or not self.streams.keys().isdisjoint(known)
        missing: set[Flow] = set()
        for stream in [*self.streams.values()]:
            flow = stream.owner
            vanished = False
            if stream.side == "client" and flow.key not in known:
                if not flow.is_websocket:
                    vanished = flow.seen_at < asked - UNKNOWN_FOR
                elif self._here and flow.seen_at < asked:
                    missing.add(flow)
                    vanished = flow in self._missing
            yield flow if vanished else None
        self._missing = {flow for flow in missing if self._live(flow.key) is flow}

    @property
    def any_missing(self) -> bool:
        """Whether the kernel has to be asked once more."""
        return bool(self._missing)

    def forget(self, flow: Flow) -> None:
        """End what has vanished, if it has not ended meanwhile."""
        if self._live(flow.key) is flow:
            self._remove(flow)
            if flow.is_websocket:
                flow.finish(vanished=True)

    def step(self) -> None:
        """The clock that packets are stamped by was set: times before and after cannot be compared."""
        self._ended.clear()

    def _live(self, client_key: bytes) -> Flow | None:
        stream = self.streams.get(client_key)
        return stream.owner if stream is not None and stream.side == "client" else None

    def _syn(self, client_key: bytes, segment: Segment, at: int, *, to_server: bool) -> None:
        """A connection is asked for, or begins (RFC 9293 section 3.5)."""
        live = self._live(client_key)
        if live is not None and at <= live.began_at:
            return  # its own, by the other ring
        if to_server:
            if live is not None:
                self._rivals[client_key] = segment.sequence + 1 & MASK
                _shorten(self._rivals, MOST_RIVALS)
            return
        if not segment.flags & ACK:
            return
        server_next = segment.sequence + 1 & MASK
        ended = self._ended.get(client_key)
        if ended is not None and ended[1] == server_next:
            return
        if live is not None:
            # Only if the client has asked anew is an answer the end of what was there: anybody may send one.
            if live.server_began == server_next or self._rivals.get(client_key) != segment.acknowledgment:
                return
            self._remove(live)
            live.finish(vanished=True)
        self._opened[client_key] = (segment.acknowledgment, server_next)
        _shorten(self._opened, MOST_OPENED)

    def _begin(self, key: bytes, client_key: bytes, segment: Segment, data: Chunk, at: int) -> Direction | None:
        """The first segment of a connection behind its SYNs; None if it is none to follow."""
        opened = self._opened.pop(client_key, None)
        if opened is None and (not data or client_key in self._ended or not segment.flags & ACK):
            return None
        if segment.flags & (FIN | RST) and not data:
            return None  # it ended before anything was said
        if len(self) >= MOST_FLOWS:
            self._losses.too_many += 1
            return None
        self._clock.at = at
        if opened is None:
            mine, other = segment.sequence, segment.acknowledgment
            opened = (mine, other) if key == client_key else (other, mine)
            begins = key == client_key and data[:4] == b"GET "
            flow = self._add(client_key, opened, fresh=begins)
            if bytes(data[:2]) in _TLS_STARTS:
                flow.is_tls()
        else:
            self._add(client_key, opened, fresh=True)
        return self.streams[key]

    def _begin_http(self, flow: Flow, segment: Segment) -> Flow:
        """What was not understood so far begins a request: that is where to start, and the server's answer is next."""
        self._remove(flow)
        return self._add(segment.key, (segment.sequence, segment.acknowledgment), fresh=True)

    def _add(self, client_key: bytes, opened: tuple[int, int], *, fresh: bool) -> Flow:
        self._ended.pop(client_key, None)
        self._rivals.pop(client_key, None)
        width = (len(client_key) - _PORTS) // 2
        observer = self._observe(address_text(client_key[:width]))
        flow = Flow(client_key, observer, self._clock, self._losses, *opened, fresh=fresh)
        self.streams[client_key] = flow.client
        self.streams[reversed_key(client_key)] = flow.server
        return flow

    def _remove(self, flow: Flow) -> None:
        del self.streams[flow.key]
        del self.streams[reversed_key(flow.key)]
        self._held -= self._waiting.pop(flow, 0)
        self._missing.discard(flow)
        if flow.server_began != NEVER:
            self._ended.pop(flow.key, None)
        self._ended[flow.key] = (self._clock.at, flow.server_began)


def _shorten(remembered: dict[bytes, int] | dict[bytes, tuple[int, int]], most: int) -> None:
    if len(remembered) > most:
        del remembered[next(iter(remembered))]
