"""One client must not keep the loop from the others, whatever it sends."""

import asyncio
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter

import pytest

from exporter.events import Event, Origin
from exporter.sources import relay as module
from exporter.sources.poller import Poller
from exporter.sources.relay import FIRST_READ, LEAST_READ, READ_SIZE, Relay
from exporter.wire.connection import ConnectionObserver
from exporter.wire.upgrade import UpgradeRequest
from exporter.wire.websocket import Watch
from tests.support.loops import conversation, eventually, in_both_loops


class Silent:
    """A sink and a relay's owner, neither of which does anything."""

    buffered = 0

    def __init__(self) -> None:
        self.closed = False

    def emit(self, event: Event) -> None:
        pass

    def relay_closed(self, relay: Relay) -> None:
        self.closed = True

    def observing_failed(self, fault: Exception) -> None:
        raise fault


class Weighed(ConnectionObserver):
    """An observer that notes how much it was shown at once, and takes its time over it."""

    __slots__ = ("cost", "sizes")

    def attach(self, cost: float) -> None:
        self.cost = cost
        self.sizes: list[int] = []
        self.from_client = self.weigh

    def weigh(self, data: bytes) -> None:
        self.sizes.append(len(data))
        end = perf_counter() + self.cost
        while perf_counter() < end:
            pass


def nothing_to_watch(request: UpgradeRequest) -> Watch:
    raise AssertionError(f"no handshake was sent: {request}")


@contextmanager
def weighed(cost: float) -> Iterator[tuple[socket.socket, socket.socket, Weighed, Silent]]:
    """A relay between two socket pairs whose observer takes `cost` seconds for what it is shown."""
    (client, near), (far, server) = socket.socketpair(), socket.socketpair()
    for sock in (client, near, far, server):
        sock.setblocking(False)
    owner = Silent()
    observer = Weighed(
        lambda _: pytest.fail("no handshake was sent"), origin=Origin("tap", "x"), sink=owner, clock=perf_counter
    )
    observer.attach(cost)
    poller = Poller(asyncio.get_running_loop())
    Relay(near, far, observer, poller, owner).start()
    try:
        yield client, server, observer, owner
    finally:
        client.close()
        server.close()
        poller.close()
        near.close()
        far.close()


async def push(client: socket.socket, server: socket.socket, size: int) -> None:
    """Send `size` bytes through, reading them on the other side."""
    loop = asyncio.get_running_loop()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(loop.sock_sendall(client, bytes(size)))
        while size:
            size -= len(await loop.sock_recv(server, size))


@in_both_loops
@conversation
async def test_a_stream_that_is_slow_to_observe_is_read_in_small_pieces(loop: str) -> None:
    """Each read that took long is followed by a smaller one, down to a kilobyte."""
    with weighed(cost=2 * module.LONG) as (client, server, observer, _):
        await push(client, server, 64 * 1024)
        assert observer.sizes[0] <= FIRST_READ
        assert max(observer.sizes[4:]) <= LEAST_READ


@in_both_loops
@conversation
async def test_a_stream_that_is_quick_to_observe_is_read_in_large_pieces(
    loop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reads that fill their room and are quickly observed grow, up to the most that is read at once."""
    monkeypatch.setattr(module, "LONG", 60.0)  # whatever else the machine is doing
    with weighed(cost=0.0) as (client, server, observer, _):
        await push(client, server, 16 * READ_SIZE)
        assert FIRST_READ < max(observer.sizes) <= READ_SIZE


@in_both_loops
@conversation
async def test_the_last_words_of_a_side_are_heard_a_read_at_a_time(loop: str) -> None:
    """What a side said before it broke off, while nobody took it, is observed without keeping the loop to itself."""
    near_door = socket.create_server(("127.0.0.1", 0))
    client = socket.create_connection(near_door.getsockname())
    near, _ = near_door.accept()
    far, server = socket.socketpair()
    for sock in (client, near, far, server):
        sock.setblocking(False)
    owner = Silent()
    observer = Weighed(
        lambda _: pytest.fail("no handshake was sent"), origin=Origin("tap", "x"), sink=owner, clock=perf_counter
    )
    observer.attach(0.0)
    poller = Poller(asyncio.get_running_loop())
    Relay(near, far, observer, poller, owner).start()
    try:
        sent = 0
        for _ in range(200):  # the server reads nothing: fill everything on the way
            try:
                sent += client.send(bytes(1 << 16))
            except BlockingIOError:
                await asyncio.sleep(0.001)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()

        async def over() -> bool:
            return owner.closed

        await eventually(over, 5.0)
        assert max(observer.sizes) <= READ_SIZE
        assert len(observer.sizes) > 2
    finally:
        server.close()
        poller.close()
        near_door.close()
