"""The walk of the rings: each packet to the connection that it belongs to, in the order of time.

What comes by the lifecycle ring is kept, by the block, until the size ring has come as far. While that one drops
nothing it alone is looked at. Else both feed the same streams, to which what they have already seen is a repetition: so
nothing needs to know which ring a packet came by.
"""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from mmap import mmap
from struct import error
from typing import Final

from exporter.sources.capture.flows import Flows
from exporter.sources.capture.opening import Rings
from exporter.sources.capture.ring import ETHERTYPE, PACKET, Block, seen_at
from exporter.sources.capture.turns import TURN
from exporter.wire.flow import Direction, Losses, PacketClock
from exporter.wire.frames import PIECE
from exporter.wire.packet import (
    ACKNOWLEDGMENT,
    DATA_SHAPES,
    IPV6_VERSION,
    PLAIN_IPV4,
    PLAIN_IPV4_FIRST,
    PLAIN_IPV4_SIZE,
    PLAIN_IPV6,
    PLAIN_IPV6_SIZE,
    TCP,
    TELLS_TCP,
    Malformed,
    parse,
)
from exporter.wire.tcp import MASK
from exporter.wire.websocket import OutOfStep

AT_ONCE: Final = 256
"""Segments of one message each, for 1 µs, taken before looking at the time; it is looked at behind any other."""

BLOCKS_AT_ONCE: Final = 2
"""Blocks of the lifecycle ring that are emptied in a turn."""

MOST_KEPT: Final = 16 << 20
"""Bytes of the lifecycle ring's packets that wait for the size ring: thousands of connections that begin at once. Of
more, the oldest do not wait any longer."""

MOVED: Final = 1_000_000
"""Nanoseconds by which the two clocks must have moved apart, of which reading them may take half."""

NEVER: Final = 1 << 63
"""Nanoseconds that no packet is as late as."""

_KEPT_SIZE: Final = 200  # bytes that keeping a block costs besides its own
_NO_KEY: Final = b""


@dataclass(slots=True)
class _Kept:
    """A block of the lifecycle ring: what of it has not been taken yet, and when it was read (monotonic nanoseconds).

    Its packets up to `passed` were in the size ring too.
    """

    data: bytes
    offset: int
    packets: int
    last_at: int
    read_at: int
    passed: int = 0

    def begins_at(self) -> int:
        """When its next packet was seen that has not passed."""
        while (at := seen_at(self.data, self.offset)) <= self.passed and self.packets > 1:
            self._skip()
        return at

    def _skip(self) -> None:
        following, _, _ = PACKET.unpack_from(self.data, self.offset)
        self.offset += following
        self.packets -= 1


class Walk:
    """Takes the packets of one capture's rings to its connections.

    `complain` logs a sentence, and what else it is given.
    """

    def __init__(
        self, rings: Rings, flows: Flows, clock: PacketClock, losses: Losses, complain: Callable[..., None]
    ) -> None:
        self._lifecycle = rings.lifecycle
        self._size = rings.size
        self._flows = flows
        self._streams = flows.streams
        self._clock = clock
        clock.offset = time.time_ns() - time.monotonic_ns()
        self._losses = losses
        self._complain = complain
        self._kept: deque[_Kept] = deque()
        self._kept_bytes = 0
        self._block: tuple[int, int] | None = None  # of the size ring: where the next packet is, and how many are left

    @property
    def keeps(self) -> bool:
        """Whether there is something of the lifecycle ring that the size ring has not come to yet."""
        return bool(self._kept)

    @property
    def _complete(self) -> bool:
        """Whether the size ring had everything that the lifecycle ring has."""
        return not self._losses.hesitant()

    def read_lifecycle(self) -> None:
        """Keep what the lifecycle ring has until the size ring has come as far; a part at a time."""
        read_at = time.monotonic_ns()
        for _ in range(BLOCKS_AT_ONCE):
            if self._kept_bytes >= MOST_KEPT or (block := self._lifecycle.copy()) is None:
                break
            self._lifecycle.release()
            self._keep(block, read_at)
        if self._losses.by_design or self._kept_bytes >= MOST_KEPT:
            self.settle(NEVER, TURN)

    def take_sizes(self, turn: float) -> bool:
        """Take what the size ring has, for about a `turn` (seconds). Returns whether there may be more.

        If not, no block of it is held.
        """
        deadline = time.perf_counter() + turn
        self._set_clock()
        while more := self._take_sizes(deadline):
            if time.perf_counter() > deadline:
                break
        return more

    def _take_sizes(self, deadline: float) -> bool:
        """Take the next packets of the size ring. Returns whether there may be more."""
        ring, kept = self._size, self._kept
        block = None if ring is None else self._block or ring.block()
        if ring is None or block is None:
            return False
        offset, packets = block
        due = kept[0].begins_at() if kept and not self._complete else NEVER
        offset, taken = self._take(ring.memory, offset, min(packets, AT_ONCE), due, deadline)
        if taken < packets:
            self._block = (offset, packets - taken)
            if due < NEVER:
                self.settle(seen_at(ring.memory, offset), TURN)
            return True
        self._block = None
        if kept:
            self.settle(seen_at(ring.memory, offset), TURN)
        ring.release()
        return True

    def forget_sizes(self) -> None:
        """What the size ring has is long past."""
        self._block = None
        while self._size is not None and self._size.block() is not None:
            self._size.release()

    def settle(self, until: int, turn: float, read_before: int = 0) -> None:
        """Take what the lifecycle ring has seen up to that time, for about a `turn` (seconds).

        And what was read before that time on the monotonic clock (both nanoseconds).
        """
        deadline = time.perf_counter() + turn
        self._set_clock()
        complete = self._complete
        kept = self._kept
        while kept:
            block = kept[0]
            limit = NEVER if block.read_at < read_before else until
            if complete:
                if block.last_at > limit:
                    block.passed = max(block.passed, limit)
                    return
            else:
                if block.begins_at() > limit:
                    return
                many = min(block.packets, AT_ONCE)
                block.offset, taken = self._take(block.data, block.offset, many, limit + 1, deadline)
                block.packets -= taken
            if complete or not block.packets:
                kept.popleft()
                self._kept_bytes -= len(block.data) + _KEPT_SIZE
            if time.perf_counter() > deadline:
                return

    def waits_for_sizes(self) -> bool:
        """Whether the size ring has something, behind which what is kept will be taken."""
        return self._block is not None or (self._size is not None and self._size.block() is not None)

    def overdue(self, before: int) -> bool:
        """Whether something is kept that was read before that time on the monotonic clock (nanoseconds)."""
        return bool(self._kept) and self._kept[0].read_at < before

    def _keep(self, block: Block, read_at: int) -> None:
        self._kept.append(_Kept(*block, read_at))
        self._kept_bytes += len(block.data) + _KEPT_SIZE

    def _set_clock(self) -> None:
        """Tell the clock of packets when Unix time has moved. Smaller errors would disturb the order of packets."""
        before = time.monotonic_ns()
        offset = time.time_ns() - before
        took = time.monotonic_ns() - before
        if abs(offset - self._clock.offset) > MOVED > 2 * took:
            self._clock.offset = offset

    def _take(self, memory: bytes | mmap, offset: int, packets: int, until: int, deadline: float) -> tuple[int, int]:
        """Take so many packets, the first of which has its header at `offset`, but none seen at that time or later.

        Returns where the next one is (the last, if there is none), and how many have been taken: fewer too where the
        deadline was met.

        This is the hot path. A segment goes straight to the meter of its stream if it is the next one and nothing but
        its data matters, in a whole packet without options and extension headers.
        """
        header, ipv4, ipv6 = PACKET.unpack_from, PLAIN_IPV4.unpack_from, PLAIN_IPV6.unpack_from
        stream_of, tcp_size = self._streams.get, DATA_SHAPES.get
        timed = until < NEVER
        for number in range(packets):
            if timed and seen_at(memory, offset) >= until:
                return offset, number
            following, captured, net = header(memory, offset)
            ip = offset + net
            try:
                first, length, tells, key, sequence, shape = ipv4(memory, ip)
                tcp = ip + PLAIN_IPV4_SIZE
                if first != PLAIN_IPV4_FIRST:
                    first, length, tells, key, sequence, shape = ipv6(memory, ip)
                    tcp = ip + PLAIN_IPV6_SIZE
                    length += PLAIN_IPV6_SIZE
                    if first >> 4 != IPV6_VERSION:
                        key = _NO_KEY
            except error:  # shorter than all that, at the very end of the memory
                key, length, tells, sequence, shape, tcp = _NO_KEY, 0, 0, 0, 0, 0
            stream = stream_of(key)
            if (
                stream is not None
                and sequence == stream.expected
                and (size := tcp_size(shape))
                and tells & TELLS_TCP == TCP
                and length <= captured
                and (begin := tcp + size) + 1 < (end := ip + length)
            ):
                if stream.meter.glance(memory, begin, end):
                    stream.expected = sequence + end - begin & MASK
                    offset += following
                    continue
                self._straight(stream, memory, offset, tcp, begin, end)
            else:
                self._any(memory, offset)
            offset += following
            if time.perf_counter() > deadline:
                return offset, number + 1
        return offset, packets

    def _straight(self, stream: Direction, memory: bytes | mmap, offset: int, tcp: int, begin: int, end: int) -> None:
        """Take a segment that is the next one, but not of one message alone: several, or a control frame.

        Its header is at `offset`, that of TCP at `tcp`, its data from `begin` to `end`. Does it tell that something of
        the other side was missed, that comes first: a Close may be the answer to one.
        """
        flow = stream.owner
        (acknowledgment,) = ACKNOWLEDGMENT.unpack_from(memory, tcp)
        if flow.tells_news(stream, acknowledgment):
            self._any(memory, offset)
            return
        stream.expected = stream.expected + end - begin & MASK
        self._clock.at = seen_at(memory, offset)
        try:
            if end - begin <= PIECE:  # to copy that costs less than to look at it in place
                stream.meter.feed(memory[begin:end])
            else:
                with memoryview(memory)[begin:end] as data:
                    stream.meter.feed(data)
        except OutOfStep:
            flow.out_of_step(stream)
        except Exception as fault:
            flow.fail()
            self._complain("following a connection failed, it is not followed any more", exc_info=fault)

    def _any(self, memory: bytes | mmap, offset: int) -> None:
        """Take any packet, whose header is at `offset`."""
        _, captured, net = PACKET.unpack_from(memory, offset)
        (ethertype,) = ETHERTYPE.unpack_from(memory, offset)
        try:
            segment = parse(memory, offset + net, captured, ethertype)
        except Malformed:
            self._losses.malformed += 1
            return
        if segment is None:
            return
        try:
            if segment.end - segment.begin <= PIECE:
                self._flows.segment(segment, memory[segment.begin : segment.end], seen_at(memory, offset))
            else:
                with memoryview(memory)[segment.begin : segment.end] as data:
                    self._flows.segment(segment, data, seen_at(memory, offset))
        except Exception as fault:
            self._complain("following a connection failed", exc_info=fault)
