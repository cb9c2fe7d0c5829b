"""A ring has the packets of its socket, in their order, by the block; what does not fit is dropped and counted."""

import mmap
import os
import resource
import select
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from exporter.sources.capture import ring
from exporter.sources.capture.ring import PACKET, Ring, seen_at
from tests.capture.namespaces import Namespace, namespace
from tests.capture.rights import needs_namespaces
from tests.sources.test_capture_bpf import attach

pytestmark = needs_namespaces

ETHERTYPE = 0x88B5  # for local experiments (IEEE 802)
ETH_P_ALL = 3
ONLY_OURS = struct.pack(
    "=" + "HBBI" * 4, 0x28, 0, 0, 0xFFFFF000, 0x15, 0, 1, ETHERTYPE, 0x06, 0, 0, 1 << 18, 0x06, 0, 0, 0
)
LENGTH = struct.Struct("=16xI")  # of struct tpacket3_hdr: what the packet's length was before it was captured
BLOCK = 1 << 16
NEAR = "near"
FAR = "far"


@pytest.fixture
def here() -> Iterator[Namespace]:
    """A namespace with a cable from `near` to `far`."""
    with namespace() as made:
        made.ip("link", "add", "name", NEAR, "type", "veth", "peer", "name", FAR)
        for interface in (NEAR, FAR):
            made.ip("link", "set", interface, "mtu", "65535", "up")
        made.await_signal(NEAR, FAR)
        yield made


class Line:
    """Sends packets along the cable, and has the ring in which they are seen as they leave."""

    def __init__(self, here: Namespace, size: int = 4 * BLOCK, timeout_ms: int = 4) -> None:
        self._sender, sock = here.run(lambda: (packet_socket(), packet_socket()))
        attach(sock, ONLY_OURS)
        self.ring = Ring(sock, size, BLOCK, 4, timeout_ms)
        sock.bind((NEAR, ETH_P_ALL))
        self._number = 0

    def send(self, packets: int, size: int = 1000) -> None:
        for _ in range(packets):
            self._sender.sendto(self._packet(self._number, size), (NEAR, ETHERTYPE, 0, 0, b"\xff" * 6))
            self._number += 1

    def _packet(self, number: int, size: int) -> bytes:
        return number.to_bytes(4) * (size // 4)

    def wait(self) -> tuple[int, int]:
        """The next block."""
        assert select.select([self.ring], [], [], 5)[0] == [self.ring]
        block = self.ring.block()
        assert block is not None
        return block

    def read(self, packets: int) -> list[int]:
        """The numbers of so many packets, whose blocks are released."""
        numbers: list[int] = []
        while len(numbers) < packets:
            position, count = self.wait()
            numbers += self.numbers(position, count)
            self.ring.release()
        return numbers

    def numbers(self, position: int, count: int) -> list[int]:
        """Of a block's packets, each of which is as it was sent."""
        return self.numbers_in(self.ring.memory, position, count)

    def numbers_in(self, memory: bytes | mmap.mmap, position: int, count: int) -> list[int]:
        """Of so many packets in that memory."""
        found = []
        for left in range(count, 0, -1):
            following, captured, net = PACKET.unpack_from(memory, position)
            data = memory[position + net : position + net + captured]
            number = int.from_bytes(data[:4])
            assert data == self._packet(number, *LENGTH.unpack_from(memory, position))
            assert ring.ETHERTYPE.unpack_from(memory, position) == (ETHERTYPE,)
            assert bool(following) == (left > 1)
            found.append(number)
            position += following
        return found

    def close(self) -> None:
        self._sender.close()
        self.ring.close()


def packet_socket() -> socket.socket:
    return socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)


@pytest.fixture
def line(here: Namespace) -> Iterator[Line]:
    with closing(Line(here)) as made:
        yield made


def test_packets_come_whole_and_in_order(line: Line) -> None:
    """Many times around the ring, no packet is missing, cut or out of order."""
    for _ in range(20):
        line.send(60)
        line.send(1, 60_000)
        numbers = line.read(61)
        assert numbers == list(range(numbers[0], numbers[0] + 61))
    assert numbers[-1] == 20 * 61 - 1
    assert line.ring.drops() == 0


def test_a_block_stays_until_it_is_released(line: Line) -> None:
    """The same block is the next one until it is given back, and then there is none."""
    line.send(1)  # more may be in two blocks, where this machine is busy
    block = line.wait()
    assert line.ring.block() == block
    assert line.numbers(*block) == [0]
    line.ring.release()
    assert line.ring.block() is None
    assert select.select([line.ring], [], [], 0)[0] == []


def test_a_copied_block_has_the_same_packets(line: Line) -> None:
    """They are there when the ring's own block has long been given back, and so is the time of the last."""
    assert line.ring.copy() is None
    before = time.time_ns()
    line.send(3)
    position, count = line.wait()
    last_at = max(seen_at(line.ring.memory, position), before)
    block = line.ring.copy()
    assert block is not None
    line.ring.release()
    line.send(200)
    assert line.numbers_in(block.data, block.first, block.packets) == list(range(count))
    assert last_at <= block.last_at <= time.time_ns()


def test_a_block_that_is_not_full_comes_when_its_time_is_over(here: Namespace) -> None:
    """A lone packet waits as long as it was told, not until others have filled the block."""
    with closing(Line(here, timeout_ms=200)) as line:
        line.send(1)
        assert line.ring.block() is None
        began = time.monotonic()
        line.wait()
        assert 0.1 < time.monotonic() - began < 3


def test_what_does_not_fit_is_dropped_and_counted(line: Line) -> None:
    """Packets that find no free block are counted until asked for; those that did are all there."""
    line.send(1000)
    dropped = line.ring.drops()
    assert dropped > 500
    assert line.ring.drops() == 0
    assert line.read(1000 - dropped) == list(range(1000 - dropped))
    line.send(10)
    assert line.read(10) == list(range(1000, 1010))


def test_a_ring_has_two_blocks_at_least(here: Namespace) -> None:
    """While one block is read, there is another for what arrives."""
    with closing(Line(here, size=1)) as line:
        assert line.ring.size == 2 * BLOCK
        line.send(10)
        line.wait()
        line.send(10)
        assert line.read(20) == list(range(20))


def test_resizing_gives_a_larger_ring(line: Line) -> None:
    """What was read stays read, and from then on more packets fit."""
    line.send(10)
    line.read(10)
    line.ring.resize(32 * BLOCK)
    assert line.ring.size == len(line.ring.memory) == 32 * BLOCK
    line.send(1000)
    assert line.read(1000) == list(range(10, 1010))
    assert line.ring.drops() == 0


def test_a_larger_ring_has_larger_blocks(here: Namespace) -> None:
    """Whoever reads it is not woken more often."""
    with closing(Line(here, timeout_ms=500)) as line:
        line.ring.resize(32 * BLOCK)
        line.send(4 * BLOCK // 1000)
        assert line.wait()[1] == 4 * BLOCK // 1000


def test_a_ring_that_cannot_grow_stays_what_it_was(line: Line) -> None:
    """Where the kernel has no memory for a larger ring, the former goes on."""
    with pytest.raises(OSError, match="Cannot allocate memory"):
        without_address_space(lambda: line.ring.resize(1024 * BLOCK))
    assert line.ring.size == 4 * BLOCK
    line.send(10)
    assert line.read(10) == list(range(10))


def test_an_interface_that_goes_down_is_not_the_end(here: Namespace, line: Line) -> None:
    """It wakes up whoever watches, once; when the interface is back, so are its packets."""
    here.ip("link", "set", NEAR, "down")
    assert select.select([line.ring], [], [], 5)[0] == [line.ring]
    assert line.ring.block() is None
    assert select.select([line.ring], [], [], 0)[0] == []
    here.ip("link", "set", NEAR, "up")
    deadline = time.monotonic() + 10
    while not select.select([line.ring], [], [], 0.05)[0] and time.monotonic() < deadline:
        line.send(1)  # until the cable has its signal again, nothing leaves
    position, count = line.wait()
    assert line.numbers(position, count)


def test_closing_gives_everything_back(here: Namespace) -> None:
    """Neither descriptors nor memory stay."""
    before = os.listdir("/proc/self/fd")
    line = Line(here)
    memory = line.ring.memory
    line.close()
    assert memory.closed
    assert os.listdir("/proc/self/fd") == before


def without_address_space(act: Callable[[], None]) -> None:
    """Call it while this process may map at most 32 MiB more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + (32 << 20), hard))
    try:
        act()
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
