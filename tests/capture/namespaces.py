"""Network namespaces, and a wire between two of them that loses, doubles and overtakes packets as it is told."""

import contextlib
import fcntl
import heapq
import os
import select
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from random import Random
from typing import Final, TypeVar

from tests.capture.rights import TUN, unshare_network

T = TypeVar("T")

TUNSETIFF: Final = 0x400454CA
IFF_TUN: Final = 0x0001
SIOCGIFFLAGS: Final = 0x8913
IFF_RUNNING: Final = 0x40
INTERFACE: Final = "wire"
MTU: Final = 1500

ETH_P_IP: Final = 0x0800
ETH_P_IPV6: Final = 0x86DD

OVERTAKEN: Final = (0.002, 0.03)
"""Seconds by which a packet comes late that others overtake."""
SECOND_COPY: Final = (0.0, 0.5)
"""Seconds after which a doubled packet comes again: some when its connection has long ended."""


class Namespace:
    """A network namespace, gone with its last process: what `run` runs is in it, and so is whatever that starts."""

    def __init__(self, thread: ThreadPoolExecutor) -> None:
        self._thread = thread

    def run(self, act: Callable[[], T]) -> T:
        """What `act` returns, called from inside."""
        return self._thread.submit(act).result()

    def ip(self, *arguments: str) -> None:
        """Configure it with ip(8)."""
        self.run(lambda: subprocess.run(["ip", *arguments], check=True))

    def await_signal(self, *interfaces: str, within: float = 10.0) -> None:
        """Wait until a cable has its signal, some time after both its ends are up: what is sent before is lost."""
        deadline = time.monotonic() + within
        for interface in interfaces:
            while not self.run(lambda name=interface: _flags(name)) & IFF_RUNNING:  # type: ignore[misc]
                assert time.monotonic() < deadline, f"{interface} has no signal"
                time.sleep(0.005)


def _flags(interface: str) -> int:
    """Those of an interface in this namespace, of netdevice(7)."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        answer = fcntl.ioctl(sock, SIOCGIFFLAGS, struct.pack("16sh22x", interface.encode(), 0))
    (flags,) = struct.unpack_from("h", answer, 16)
    return int(flags)


@contextlib.contextmanager
def namespace() -> Iterator[Namespace]:
    """A new namespace with a loopback interface of its own."""
    with ThreadPoolExecutor(1, initializer=unshare_network) as thread:
        made = Namespace(thread)
        made.ip("link", "set", "lo", "up")
        yield made


@dataclass(frozen=True)
class Weather:
    """The shares of packets that a wire loses, brings late (so that others overtake them), and brings twice."""

    loss: float = 0.0
    reordering: float = 0.0
    duplication: float = 0.0


CALM: Final = Weather()


@dataclass(frozen=True)
class Addresses:
    """The two ends of a wire."""

    client: str
    server: str
    prefix: int


ADDRESSES: Final = {4: Addresses("10.77.0.1", "10.77.0.2", 30), 6: Addresses("fd77::1", "fd77::2", 64)}
"""By IP version."""


class Wire:
    """Carries packets between two namespaces, in a thread of its own. Every decision comes from `seed`."""

    def __init__(self, client: int, server: int, weather: Weather, seed: int) -> None:
        self._client = client
        self._server = server
        self._weather = weather
        self._random = Random(seed)
        self._late: list[tuple[float, int, int, bytes]] = []
        self._number = 0
        self._stop, self._stopped = os.pipe()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.last: dict[str, bytes] = {}
        """The last TCP packet that each side has sent, without the header of the TUN device."""

    @contextlib.contextmanager
    def running(self) -> Iterator["Wire"]:
        self._thread.start()
        try:
            yield self
        finally:
            os.write(self._stopped, b"x")
            self._thread.join()
            for descriptor in (self._stop, self._stopped, self._client, self._server):
                os.close(descriptor)

    def inject(self, packet: bytes, protocol: int = ETH_P_IP) -> None:
        """Bring the server a packet that no client has sent."""
        os.write(self._server, struct.pack("!HH", 0, protocol) + packet)

    def _run(self) -> None:
        poll = select.poll()
        for descriptor in (self._stop, self._client, self._server):
            poll.register(descriptor, select.POLLIN)
        while True:
            wait = None if not self._late else max(0.0, self._late[0][0] - time.monotonic()) * 1e3
            ready = {descriptor for descriptor, _ in poll.poll(wait)}
            if self._stop in ready:
                return
            for side, source, sink in (
                ("client", self._client, self._server),
                ("server", self._server, self._client),
            ):
                if source in ready:
                    self._carry(side, source, sink)
            now = time.monotonic()
            while self._late and self._late[0][0] <= now:
                _, _, sink, packet = heapq.heappop(self._late)
                self._bring(sink, packet)

    def _carry(self, side: str, source: int, sink: int) -> None:
        packet = os.read(source, 1 << 17)
        if _is_tcp(packet[4:]):
            self.last[side] = packet[4:]
        weather, random = self._weather, self._random
        # All are drawn for each packet: what befalls one does not depend on another's kind of fate.
        lost, late, twice = random.random(), random.random(), random.random()
        if twice < weather.duplication:
            self._bring_later(random.uniform(*SECOND_COPY), sink, packet)
        if lost < weather.loss:
            return
        if late < weather.reordering:
            self._bring_later(random.uniform(*OVERTAKEN), sink, packet)
        else:
            self._bring(sink, packet)

    def _bring_later(self, delay: float, sink: int, packet: bytes) -> None:
        self._number += 1
        heapq.heappush(self._late, (time.monotonic() + delay, self._number, sink, packet))

    def _bring(self, sink: int, packet: bytes) -> None:
        with contextlib.suppress(BlockingIOError):  # a full queue loses packets, as on any wire
            os.write(sink, packet)


def _is_tcp(packet: bytes) -> bool:
    return packet[9 if packet[0] >> 4 == 4 else 6] == socket.IPPROTO_TCP


def _tun() -> int:
    """The device of the namespace that this is called in; every packet comes with four bytes before it."""
    descriptor = os.open(TUN, os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(descriptor, TUNSETIFF, struct.pack("16sH22x", INTERFACE.encode(), IFF_TUN))
    return descriptor


@dataclass(frozen=True)
class Land:
    """Two namespaces and the wire between them."""

    client: Namespace
    server: Namespace
    wire: Wire
    addresses: Addresses


@contextlib.contextmanager
def land(version: int = 4, weather: Weather = CALM, seed: int = 1) -> Iterator[Land]:
    """A client's and a server's namespace; both know the wire by the interface INTERFACE."""
    addresses = ADDRESSES[version]
    with namespace() as client, namespace() as server:
        ends = []
        for each, address in ((client, addresses.client), (server, addresses.server)):
            ends.append(each.run(_tun))
            flags = ("nodad",) if version == 6 else ()
            each.ip("address", "add", f"{address}/{addresses.prefix}", "dev", INTERFACE, *flags)
            each.ip("link", "set", INTERFACE, "up", "mtu", str(MTU))
        with Wire(ends[0], ends[1], weather, seed).running() as wire:
            yield Land(client, server, wire, addresses)
