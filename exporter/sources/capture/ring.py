"""A ring of blocks that the kernel fills with packets: TPACKET_V3 of linux/if_packet.h.

The layout is native: what is read here was written by the same machine's kernel.
"""

import mmap
import select
import socket
import struct
from typing import Final, NamedTuple

SOL_PACKET: Final = 263
_PACKET_RX_RING: Final = 5
_PACKET_STATISTICS: Final = 6
_PACKET_VERSION: Final = 10
_TPACKET_V3: Final = 2

# struct tpacket_req3: block size and number, frame size and number, time-out, private area, features.
_REQUEST: Final = struct.Struct("=7I")
_STATISTICS: Final = struct.Struct("=3I")  # struct tpacket_stats_v3: packets, drops, times that the ring was full

# struct tpacket_block_desc: version, private area's offset; status, packets, first packet's offset, length, ...
_STATUS: Final = 8
_PACKETS: Final = struct.Struct("=3I")  # at _STATUS + 4: how many, where in the block the first one's header is, length
_LAST: Final = struct.Struct("=2I")  # at _STATUS + 32: when the last packet was seen, in seconds and nanoseconds
_STATUS_KERNEL: Final = 0
_STATUS_USER: Final = 1

ETH_P_ALL: Final = 0x0003

LARGEST_BLOCK: Final = 1 << 20
"""Bytes to which blocks grow with their ring: more saves next to nothing."""

# struct tpacket3_hdr, and behind it (at 48) struct sockaddr_ll.

PACKET: Final = struct.Struct("@I8xI10xH")
"""Of a packet's header: bytes to the next one (0 behind the last), bytes captured, and where the network header is."""

STAMP: Final = struct.Struct("@4x2I")
"""Of a packet's header: when it was seen, in seconds and nanoseconds."""

ETHERTYPE: Final = struct.Struct(">50xH")
"""Of a packet's header: the ethertype."""

_SECOND: Final = 1_000_000_000


def seen_at(memory: bytes | mmap.mmap | memoryview, offset: int) -> int:
    """When the packet whose header is at `offset` was seen: Unix time in nanoseconds."""
    seconds, nanoseconds = STAMP.unpack_from(memory, offset)
    return int(seconds * _SECOND + nanoseconds)


class Block(NamedTuple):
    """The packets of one block, copied: where the first one's header is in `data`, how many, and when the last came."""

    data: bytes
    first: int
    packets: int
    last_at: int


class Ring:
    """The packets of one cooked packet socket, by the block; whoever holds a block reads it in place in `memory`.

    A packet is in it before its receiver gets it, so that none comes before one that it acknowledges. Its stamp is a
    little older: those of different senders are not in order (on two busy cores 3 % of 700,000 packets of the loopback
    were older than the one before, and none was acknowledged before it was there).

    The kernel hands over a block when it is full, or `timeout_ms` milliseconds after its first packet. While user space
    holds all of them, packets are dropped and counted.
    """

    memory: mmap.mmap
    size: int
    _next: int

    def __init__(self, sock: socket.socket, size: int, block: int, blocks: int, timeout_ms: int) -> None:
        """Make the ring: `size` bytes in blocks of `block` at least, which is a power of two and no less than a page.

        Where twice as many as `blocks` of these would fit, they are larger instead, up to LARGEST_BLOCK: each block is
        a time that somebody wakes.
        Takes over the socket. Raises OSError, with ENOMEM where the kernel has no memory for it.
        """
        self._sock = sock
        self._least_block = block
        self._least_blocks = blocks
        self._timeout_ms = timeout_ms
        sock.setsockopt(SOL_PACKET, _PACKET_VERSION, _TPACKET_V3)
        self._map(size)
        # An interface that goes down is an error of the socket, at which libuv stops watching a descriptor for ever.
        # From the outside a poll set within the loop's own is only ever readable.
        self._poll = select.epoll()
        self._poll.register(sock.fileno(), select.EPOLLIN)

    def bind(self, interface: str) -> None:
        """Receive what passes on an interface. Raises OSError."""
        self._sock.bind((interface, ETH_P_ALL))

    def fileno(self) -> int:
        """A descriptor that is readable while there is a block, or an error that `block` has not cleared yet."""
        return self._poll.fileno()

    def block(self) -> tuple[int, int] | None:
        """The next block: where in `memory` its first packet's header begins, and how many packets it has.

        None if the kernel has not handed it over yet. The same one again until it is released.
        """
        if not self._status[self._next * self._block + _STATUS >> 2] & _STATUS_USER:
            self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)  # that of an interface that went down
            return None
        start = self._next * self._block
        packets, first, _ = _PACKETS.unpack_from(self.memory, start + _STATUS + 4)
        return start + first, packets

    def copy(self) -> Block | None:
        """The next block, to be kept longer than the kernel can spare it. None if there is none yet."""
        if self.block() is None:
            return None
        start = self._next * self._block
        packets, first, length = _PACKETS.unpack_from(self.memory, start + _STATUS + 4)
        seconds, nanoseconds = _LAST.unpack_from(self.memory, start + _STATUS + 32)
        return Block(self.memory[start : start + length], first, packets, seconds * _SECOND + nanoseconds)

    def release(self) -> None:
        """Give the block back to the kernel."""
        self._status[self._next * self._block + _STATUS >> 2] = _STATUS_KERNEL
        self._next = (self._next + 1) % self._blocks

    def drops(self) -> int:
        """Packets that the kernel dropped since this was last asked, for want of a free block."""
        # The third figure is how often the ring became full. The first, packets, has the dropped ones in it.
        _, drops, _ = _STATISTICS.unpack(self._sock.getsockopt(SOL_PACKET, _PACKET_STATISTICS, _STATISTICS.size))
        return int(drops)

    def resize(self, size: int) -> None:
        """Replace the ring by one of `size` bytes, on the same socket; this needs no capability.

        `memory` is another one then, and no view of the former may be left. Packets in the former, also those in the
        block that is being filled, and those that arrive meanwhile, are lost without being counted as drops.
        Raises OSError where the kernel has no memory for it, with the former ring in place again.
        """
        former = self.size
        self._unmap()
        try:
            self._map(size)
        except OSError:
            self._map(former)
            raise

    def close(self) -> None:
        """Give everything back; the kernel forgets the ring with its socket."""
        self._poll.close()
        self._unmap()
        self._sock.close()

    def _map(self, size: int) -> None:
        self._block = self._least_block
        while size >= 2 * self._least_blocks * self._block and self._block < LARGEST_BLOCK:
            self._block *= 2
        self._blocks = max(2, size // self._block)  # with one alone, each look at it would drop what arrives meanwhile
        self.size = self._blocks * self._block
        # Version 3 packs packets of any length into a block: frames are only there to be checked.
        request = (self._block, self._blocks, self._block, self._blocks, self._timeout_ms, 0, 0)
        self._sock.setsockopt(SOL_PACKET, _PACKET_RX_RING, _REQUEST.pack(*request))
        try:
            self.memory = mmap.mmap(self._sock.fileno(), self.size)
        except OSError:
            self._forget()
            raise
        self._status = memoryview(self.memory).cast("I")  # whole words: the kernel must see no half of one
        self._next = 0

    def _unmap(self) -> None:
        self._status.release()
        self.memory.close()
        self._forget()

    def _forget(self) -> None:
        self._sock.setsockopt(SOL_PACKET, _PACKET_RX_RING, bytes(_REQUEST.size))
