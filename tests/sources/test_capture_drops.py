"""What is dropped is counted; the size ring grows for it, and where drops do not cease, sizes are given up."""

import socket
from collections.abc import Iterator
from contextlib import closing

import pytest
from structlog.testing import capture_logs

from exporter.config import CaptureConfig
from exporter.sources.capture.drops import DROPS_MATTER, GROWTH_PAUSE, SHED_AFTER, SHED_FOR, Drops
from exporter.sources.capture.opening import Rings
from exporter.wire.flow import Losses
from tests.capture.rights import needs_packet_sockets
from tests.peers.stack import eventually
from tests.sources.test_capture_opening import listener_at, opened
from tests.sources.test_capture_ring import without_address_space

pytestmark = needs_packet_sockets

RING = 1 << 20
LARGE = 40 << 20
"""Of this less than twice as much can be mapped `without_address_space`, the former ring given back."""


class Flooded:
    """The rings of a connection on loopback, what they drop, and a clock."""

    def __init__(self, rings: Rings, client: socket.socket, server: socket.socket, limit: int) -> None:
        self.now = 1000.0
        self.rings = rings
        self.losses = Losses(by_design=False)
        self.drops = Drops(rings, self.losses, limit=limit, capture="lo", clock=lambda: self.now)
        self._client = client
        self._server = server

    @property
    def size(self) -> int:
        """Bytes of the size ring."""
        assert self.rings.size is not None
        return self.rings.size.size

    def overflow(self) -> None:
        """Send more than the size ring holds, none of which is read, and take note of it."""
        before = self.drops.counted["size"]

        def dropped() -> bool:
            for _ in range(64):
                self._client.sendall(bytes(1 << 16))
                left = 1 << 16
                while left:
                    left -= len(self._server.recv(left))
            self.drops.note()
            return self.drops.counted["size"] > before

        eventually(dropped, "the ring overflows")

    def drain(self) -> None:
        """Read the size ring."""
        assert self.rings.size is not None
        while self.rings.size.block() is not None:
            self.rings.size.release()

    def later(self, seconds: float) -> bool:
        """Let time pass. Returns whether sizes are given up now, or taken up again."""
        self.now += seconds
        return self.drops.shed_or_not()


@pytest.fixture
def flooded(request: pytest.FixtureRequest) -> Iterator[Flooded]:
    """Its size ring, of RING bytes or as asked for, may grow to three times what it is."""
    size = getattr(request, "param", RING)
    with listener_at("127.0.0.1") as listener:
        port = listener.getsockname()[1]
        with opened(CaptureConfig("lo", port), "full", size) as rings:
            client = socket.create_connection(listener.getsockname())
            with closing(client), closing(listener.accept()[0]) as server:
                yield Flooded(rings, client, server, 3 * size)


def test_nothing_is_dropped(flooded: Flooded) -> None:
    """Then nothing follows."""
    flooded.drops.note()
    flooded.drops.age()
    flooded.drops.make_room()
    assert not flooded.later(2 * SHED_AFTER)
    assert flooded.drops.counted == {"lifecycle": 0, "size": 0}
    assert not flooded.drops.news.is_set()
    assert not flooded.losses.ever
    assert not flooded.losses.recent
    assert not flooded.drops.shed
    assert flooded.size == RING


def test_drops_are_noted(flooded: Flooded) -> None:
    """Packets count once, for their ring; gaps are blamed on them for a while, and that there were any stays known."""
    flooded.overflow()
    counted = flooded.drops.counted["size"]
    assert flooded.drops.counted["lifecycle"] == 0
    flooded.drops.note()
    assert flooded.drops.counted["size"] == counted
    assert flooded.drops.news.is_set()
    flooded.now += DROPS_MATTER - 1
    flooded.drops.age()
    assert flooded.losses.recent
    flooded.now += 2
    flooded.drops.age()
    assert not flooded.losses.recent
    assert flooded.losses.ever


def test_the_ring_grows(flooded: Flooded) -> None:
    """It doubles for drops, up to its limit, and then stays as it is."""
    with capture_logs() as logs:
        for expected in (2 * RING, 3 * RING, 3 * RING):
            flooded.overflow()
            flooded.now += GROWTH_PAUSE
            flooded.drops.make_room()
            assert flooded.size == expected
    assert [(line["event"], line["bytes"]) for line in logs] == [
        ("size ring of a capture has grown", 2 * RING),
        ("size ring of a capture has grown", 3 * RING),
    ]


def test_the_ring_grows_once_for_a_drop(flooded: Flooded) -> None:
    """Whenever that is, and not again while nothing more is dropped."""
    flooded.overflow()
    flooded.drops.note()
    for _ in range(2):
        flooded.drops.make_room()
        flooded.now += GROWTH_PAUSE
    assert flooded.size == 2 * RING


def test_the_ring_does_not_grow_at_every_drop(flooded: Flooded) -> None:
    """But once a second: what has just grown has to show whether that is enough."""
    flooded.overflow()
    flooded.drops.make_room()
    flooded.overflow()
    flooded.now += GROWTH_PAUSE / 2
    flooded.drops.make_room()
    assert flooded.size == 2 * RING
    flooded.drain()
    flooded.overflow()
    flooded.now += GROWTH_PAUSE / 2
    flooded.drops.make_room()
    assert flooded.size == 3 * RING


@pytest.mark.parametrize("flooded", [LARGE], indirect=True)
def test_a_ring_that_cannot_grow(flooded: Flooded) -> None:
    """Where there is no memory for more the log says so, once, and the ring goes on as it is."""

    def overflow_twice() -> None:
        for _ in range(2):
            flooded.overflow()
            flooded.now += GROWTH_PAUSE
            flooded.drops.make_room()

    with capture_logs() as logs:
        without_address_space(overflow_twice)
    assert flooded.size == LARGE
    assert [(line["event"], line["reason"], line["log_level"]) for line in logs] == [
        ("size ring of a capture cannot grow", "Cannot allocate memory", "warning")
    ]


def test_sizes_are_given_up(flooded: Flooded) -> None:
    """Half a minute of drops that do not cease is too much: sizes are given up for a minute, and the log says so."""
    with capture_logs() as logs:
        for _ in range(int(SHED_AFTER / 0.9) + 1):
            flooded.overflow()
            assert not flooded.later(0.9)
            flooded.drain()
        flooded.overflow()
        assert flooded.later(0.9)
    assert flooded.drops.shed
    assert flooded.losses.by_design
    assert [(line["event"], line["log_level"], line["seconds"]) for line in logs] == [
        ("sizes are not captured for a while, there is no keeping up with the packets", "warning", SHED_FOR)
    ]
    with capture_logs() as logs:
        assert not flooded.later(SHED_FOR - 1)
        assert flooded.later(2)
    assert not flooded.drops.shed
    assert not flooded.losses.by_design
    assert [line["event"] for line in logs] == ["sizes are captured again"]
    flooded.overflow()
    assert not flooded.later(0)  # that is a new half minute


def test_drops_that_cease_are_forgiven(flooded: Flooded) -> None:
    """However long there were some, with a second between them."""
    for _ in range(20):
        flooded.overflow()
        assert not flooded.later(0.5)
        assert not flooded.later(2)
        flooded.drain()
    assert not flooded.drops.shed
