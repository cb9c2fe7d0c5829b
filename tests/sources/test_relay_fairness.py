"""One client must not keep the loop from the others, whatever it sends."""

import asyncio
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import TypeVar

import pytest

from exporter.closecodes import Vocabulary
from exporter.events import Event, Origin, Side
from exporter.sources import pace
from exporter.sources.pace import FIRST_READ, LEAST_READ, READ_SIZE
from exporter.sources.poller import Poller
from exporter.sources.relay import Relay
from exporter.wire.connection import ConnectionObserver
from exporter.wire.frames import LONGEST_HEADER, Chunk
from exporter.wire.upgrade import UpgradeRequest
from exporter.wire.websocket import Watch
from tests.support.loops import conversation, eventually, in_both_loops
from tests.support.peers import Peer
from tests.wire.support import BINARY, CONTINUATION, KEY, PING, accepts, asks, frame, head, no_sizes


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
    """An observer that notes how much it was shown at once, and takes its time over it.

    The first `known` bytes need no looking at. `surprises` are how many of each read's bytes did.
    """

    __slots__ = ("cost", "known", "sizes", "surprises")

    def attach(self, cost: float, known: int) -> None:
        self.cost = cost
        self.known = known
        self.sizes: list[int] = []
        self.surprises: list[int] = []
        self.from_client = self.weigh

    def ahead(self, side: Side, begin: Chunk = b"") -> int:
        return self.known if side == "client" else 0

    def weigh(self, data: Chunk) -> None:
        self.sizes.append(len(data))
        self.surprises.append(max(0, len(data) - self.known))
        self.known = max(0, self.known - len(data))
        end = perf_counter() + self.cost
        while perf_counter() < end:
            pass


def watch_nothing(request: UpgradeRequest) -> Watch:
    return Watch(Origin("tap", "x"), Vocabulary(frozenset(), frozenset()), no_sizes(), no_sizes())


def no_handshake(request: UpgradeRequest) -> Watch:
    raise AssertionError(f"no handshake was sent: {request}")


Kind = TypeVar("Kind", bound=ConnectionObserver)


@contextmanager
def relaying(kind: type[Kind], choose: Callable[[UpgradeRequest], Watch]) -> Iterator[tuple[Peer, Peer, Kind]]:
    """A relay between two socket pairs, not started yet: its client, its server, and its observer."""
    (client, near), (far, server) = socket.socketpair(), socket.socketpair()
    for sock in (client, near, far, server):
        sock.setblocking(False)
    owner = Silent()
    observer = kind(choose, origin=Origin("tap", "x"), sink=owner, clock=perf_counter)
    poller = Poller(asyncio.get_running_loop())
    relay = Relay(near, far, observer, poller, owner)
    asyncio.get_running_loop().call_soon(relay.start)
    try:
        yield Peer(client), Peer(server), observer
    finally:
        client.close()
        server.close()
        relay.cut()
        poller.close()


@contextmanager
def weighed(cost: float = 0.0, known: int = 0) -> Iterator[tuple[Peer, Peer, Weighed]]:
    """A relay whose observer takes `cost` seconds for what it is shown, and has `known` bytes ahead."""
    with relaying(Weighed, no_handshake) as (client, server, observer):
        observer.attach(cost, known)
        yield client, server, observer


async def push(client: Peer, server: Peer, data: bytes) -> None:
    """Send `data` through, reading it on the other side."""
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(client.send(data))
        assert await server.read(len(data)) == data


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing takes long, whatever else the machine is doing."""
    monkeypatch.setattr(pace, "LONG", 60.0)


@in_both_loops
@conversation
async def test_a_stream_that_is_slow_to_observe_is_read_in_small_pieces(loop: str) -> None:
    """Each read that took long is followed by a smaller one, down to a kilobyte."""
    with weighed(cost=2 * pace.LONG) as (client, server, observer):
        await push(client, server, bytes(64 * 1024))
        assert observer.sizes[0] <= FIRST_READ
        assert max(observer.sizes[4:]) <= LEAST_READ


@in_both_loops
@conversation
async def test_a_stream_that_was_slow_is_forgiven(loop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """When reads have not taken long for a while, as much is read at once as before, and no more."""
    with weighed(cost=2 * pace.LONG) as (client, server, observer):
        monkeypatch.setattr(pace, "FORGIVEN", 0.0)
        await push(client, server, bytes(64 * 1024))
        monkeypatch.setattr(pace, "LONG", 60.0)
        before = len(observer.sizes)
        observer.cost = 0.0
        await push(client, server, bytes(128 * 1024))
        assert max(observer.sizes[before:]) == FIRST_READ


@in_both_loops
@conversation
async def test_a_stream_that_was_slow_is_not_forgiven_at_once(loop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reads that are quick again do not make the next ones larger before that while is over."""
    with weighed(cost=2 * pace.LONG) as (client, server, observer):
        await push(client, server, bytes(64 * 1024))
        monkeypatch.setattr(pace, "LONG", 60.0)
        before = len(observer.sizes)
        observer.cost = 0.0
        await push(client, server, bytes(128 * 1024))
        assert max(observer.sizes[before:]) == LEAST_READ


@pytest.mark.usefixtures("unhurried")
@in_both_loops
@conversation
async def test_what_needs_no_looking_at_is_read_in_large_pieces(loop: str) -> None:
    """What is known to be payload is read as it comes, up to the most that is read at once."""
    with weighed(known=16 * READ_SIZE) as (client, server, observer):
        await push(client, server, bytes(16 * READ_SIZE))
        assert 4 * FIRST_READ < max(observer.sizes) <= READ_SIZE


@pytest.mark.usefixtures("unhurried")
@in_both_loops
@conversation
async def test_what_is_not_known_is_never_read_in_large_pieces(loop: str) -> None:
    """However quick a stream has been so far, little is read of what may be thousands of frames."""
    with weighed(known=4 * READ_SIZE) as (client, server, observer):
        await push(client, server, bytes(8 * READ_SIZE))
        assert max(observer.sizes) > FIRST_READ
        assert max(observer.surprises) == FIRST_READ


@pytest.mark.usefixtures("unhurried")
@in_both_loops
@conversation
async def test_small_reads_leave_no_large_one_behind(loop: str) -> None:
    """A payload that begins in bulk and ends in drops leaves nothing that the burst behind it could use."""
    with weighed(known=READ_SIZE) as (client, server, observer):
        await push(client, server, bytes(READ_SIZE - 5000))
        for _ in range(10):
            await push(client, server, bytes(500))
        assert observer.known == 0
        await push(client, server, bytes(READ_SIZE))
        assert max(observer.surprises) == FIRST_READ


@in_both_loops
@conversation
async def test_a_slow_stream_s_payloads_are_still_read_in_large_pieces(
    loop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever sends tiny frames gets them read in small pieces, and its large messages as anybody's."""
    with weighed(cost=2 * pace.LONG) as (client, server, observer):
        await push(client, server, bytes(64 * 1024))
        monkeypatch.setattr(pace, "LONG", 60.0)
        observer.cost = 0.0
        observer.known = 8 * READ_SIZE
        before = len(observer.sizes)
        await push(client, server, bytes(9 * READ_SIZE))
        assert max(observer.sizes[before:]) > FIRST_READ
        assert max(observer.surprises[before:]) == LEAST_READ


class Noting(ConnectionObserver):
    """An observer of whatever passes, that notes for each read of the client's how much of it was not known before."""

    __slots__ = ("sizes", "surprises")

    def note(self) -> None:
        """Begin to."""
        self.sizes: list[int] = []
        self.surprises: list[int] = []
        observe = self.from_client

        def noted(data: Chunk) -> None:
            self.sizes.append(len(data))
            self.surprises.append(max(0, len(data) - self.ahead("client", data[:LONGEST_HEADER])))
            observe(data)

        self.from_client = noted


TINY = {
    "empty Pings": frame(PING, key=KEY),
    "unmasked frames": frame(PING),
    "fragments": frame(CONTINUATION, b"", fin=False, key=KEY),
    "messages of one byte": frame(BINARY, b"x", key=KEY),
    "reserved opcodes": frame(0xF, key=KEY, rsv=7),
}


@pytest.mark.usefixtures("unhurried")
@pytest.mark.parametrize("tiny", TINY.values(), ids=TINY)
@conversation
async def test_tiny_frames_behind_large_messages(tiny: bytes) -> None:
    """Megabytes are read in large pieces, and tiny frames behind them never more than a few thousand at once."""
    large = frame(BINARY, key=KEY, length=1 << 20) + bytes(1 << 20)
    with relaying(Noting, watch_nothing) as (client, server, observer):
        await push(client, server, asks()[1])
        await push(server, client, accepts()[1])
        observer.note()
        for _ in range(3):
            await push(client, server, large + tiny * (READ_SIZE // len(tiny)))
        assert max(observer.sizes) > 4 * FIRST_READ
        assert max(observer.surprises) == FIRST_READ


CHUNK = b"1\r\nx\r\n"


@pytest.mark.usefixtures("unhurried")
@pytest.mark.parametrize(
    ("large", "tiny"),
    [
        (head("POST / HTTP/1.1", "Content-Length: 1048576") + bytes(1 << 20), head("GET / HTTP/1.1")),
        (head("POST / HTTP/1.1", "Transfer-Encoding: chunked") + b"100000\r\n" + bytes(1 << 20) + b"\r\n", CHUNK),
    ],
    ids=["requests behind an upload", "chunks behind a large chunk"],
)
@conversation
async def test_tiny_things_behind_large_bodies(large: bytes, tiny: bytes) -> None:
    """The same in HTTP: bodies, or their chunks, are read as they come, and what may be many heads in small pieces."""
    with relaying(Noting, no_handshake) as (client, server, observer):
        observer.note()
        await push(client, server, large + tiny * 50)
        assert max(observer.sizes) > 4 * FIRST_READ
        assert max(observer.surprises) == FIRST_READ
        assert observer.understood


@pytest.mark.usefixtures("unhurried")
@conversation
async def test_large_messages_are_read_at_once() -> None:
    """Between large messages a look at the next header is taken, so that each is read and forwarded as one."""
    with relaying(Noting, watch_nothing) as (client, server, observer):
        await push(client, server, asks()[1])
        await push(server, client, accepts()[1])
        observer.note()
        large = frame(BINARY, key=KEY, length=1 << 16) + bytes(1 << 16)
        for _ in range(20):
            client.sock.send(large)
            assert await server.read(len(large)) == large
        assert sorted(observer.sizes)[-19:] == [len(large)] * 19
        for _ in range(20):
            await push(client, server, frame(BINARY, b"small", key=KEY))
        assert observer.sizes[-20:] == [11] * 20


@pytest.mark.usefixtures("unhurried")
@conversation
async def test_a_stream_that_is_not_understood_is_read_in_large_pieces() -> None:
    """Nobody looks at it."""
    with relaying(Noting, no_handshake) as (client, server, observer):
        await push(client, server, b"\x16\x03\x01\x00")
        assert not observer.understood
        observer.note()
        await push(client, server, bytes(16 * READ_SIZE))
        assert max(observer.sizes) > 4 * FIRST_READ


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
    observer = Weighed(no_handshake, origin=Origin("tap", "x"), sink=owner, clock=perf_counter)
    observer.attach(0.0, 0)
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
