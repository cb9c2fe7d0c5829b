"""Packets that no kernel sends, among those of a connection that lives on: counted, never a crash, never believed."""

import contextlib
import socket
import struct
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from random import Random
from typing import Final

import pytest

from tests.capture import packets
from tests.capture.exporting import (
    ACTIVE,
    CAPTURED,
    CLOSES,
    DROPS,
    HANDSHAKES,
    IGNORED,
    MESSAGES,
    Exporter,
    exporting,
    started,
)
from tests.capture.namespaces import ETH_P_IP, ETH_P_IPV6, INTERFACE, Land, land
from tests.capture.packets import ACK, FIN, PSH, RST, SYN, Segment, extension, ipv4, ipv6, segment_of
from tests.capture.rights import needs_namespaces
from tests.peers.raw import Raw
from tests.peers.stack import eventually

pytestmark = [needs_namespaces, pytest.mark.needs("ip")]

PATH: Final = "/0/client-1000"
ETH_P_8021Q: Final = 0x8100
ETH_P_8021AD: Final = 0x88A8
HALF_OPEN: Final = 100_000
MOST_GROWTH: Final = 64
"""MiB by which the exporter may grow in a flood of half-open connections."""

PacketsOf = Callable[[Segment], Iterator[tuple[bytes, int]]]
"""Packets and their protocols, like a given segment."""


@dataclass
class Live:
    """A connection that goes on whatever else comes in."""

    client: Raw
    land: Land
    exporter: Exporter
    exchanged: int = 0

    def exchange(self) -> None:
        """A message each way."""
        self.client.text("still here")
        self.client.message()
        self.exchanged += 1

    def last(self, side: str = "client") -> Segment:
        """What a side has sent last."""
        found = segment_of(self.land.wire.last[side])
        assert found is not None
        return found

    def inject(self, packet: bytes, protocol: int) -> None:
        """What the kernel does not even let into the interface does not matter here."""
        with contextlib.suppress(OSError):
            self.land.wire.inject(packet, protocol)


@contextlib.contextmanager
def live(version: int = 4) -> Iterator[Live]:
    """A connection, which must be counted exactly when the block ends: one close, and its messages.

    Of these some may be missing, but only if packets came faster than they could be looked at, and it is said.
    """
    with land(version) as made:
        host = made.addresses.server
        with started(made.server, (sys.executable, "-m", "tests.capture.talking", "serve", host)) as server:
            port = int(server.line("listening"))
            with exporting(f"--capture={INTERFACE}:{port}", where=made.server) as exporter:
                sock = made.client.run(lambda: socket.create_connection((host, port), 20))
                with Raw(sock, client=True) as client:
                    assert client.ask(PATH) == 101
                    connection = Live(client, made, exporter)
                    connection.exchange()
                    yield connection
                    connection.exchange()
                    client.close(1000)
                    client.until_over()
                page = exporter.closed(1)
                [close] = exporter.closes()
    assert page.counted(CLOSES, "source", "code", "initiator") == {("capture", "1000", "client"): 1}
    assert page.counted(HANDSHAKES, "source", "outcome", "status") == {("capture", "accepted", "101"): 1}
    assert page.value(ACTIVE, **CAPTURED) == 0
    for direction in ("client_to_server", "server_to_client"):
        counted = page.value(MESSAGES, **CAPTURED, direction=direction)
        assert counted == connection.exchanged or (page.value(DROPS) > 0 and counted < connection.exchanged)
    assert (close["path"], close.get("attached", False)) == (PATH, False)


# Packets that make no sense. They are of another connection, so that whoever believes one invents a connection.


def stranger(like: Segment) -> Segment:
    """A segment that could be the first that is seen of a running connection, as far as anybody can tell."""
    source = str(like.source)[:-1] + "9"
    return like.but(source=source, source_port=4711, flags=PSH | ACK, payload=b"\x82\x84abcd" + bytes(4))


def truncated(like: Segment) -> Iterator[tuple[bytes, int]]:
    whole = stranger(like).packet()
    for size in range(len(whole)):
        yield whole[:size], ip_of(whole)


def lying_ipv4_lengths(like: Segment) -> Iterator[tuple[bytes, int]]:
    from_, tcp = stranger(like), stranger(like).tcp()
    for words in range(16):
        yield ipv4(from_.source, from_.destination, tcp, words=words), ETH_P_IP
    for length in (0, 1, 19, 20, 21, 39, 41, 0xFFFF):
        yield ipv4(from_.source, from_.destination, tcp, length=length), ETH_P_IP
    for options in (b"\x00" * 4, b"\x01" * 40, b"\x44\x00\x05\x00", b"\x83\xff\x04\x00", b"\x82\x0b\x00\x00"):
        yield ipv4(from_.source, from_.destination, tcp, options=options), ETH_P_IP


def bad_data_offsets(like: Segment) -> Iterator[tuple[bytes, int]]:
    from_ = stranger(like)
    for words in range(16):
        packet = from_.wrapped(from_.tcp(words))
        yield packet, ip_of(packet)


def garbage_options(like: Segment) -> Iterator[tuple[bytes, int]]:
    random = Random(1)
    for size, flags in product(range(4, 44, 4), (SYN, ACK, SYN | ACK, 0, 0xFF)):
        options = random.randbytes(size)
        for chosen in (
            options,
            b"\x02" + b"\x00" * (size - 1),
            b"\x03\xff" * (size // 2),
            b"\x01" * (size - 1) + b"\x02",
        ):
            # A SYN that is good but for its options opens a connection that nobody goes on with: that is no matter.
            packet = stranger(like).but(options=chosen, flags=flags, payload=b"").packet()
            yield packet, ip_of(packet)


def fragments(like: Segment) -> Iterator[tuple[bytes, int]]:
    from_, more = stranger(like), 0x2000
    tcp = from_.tcp()
    for first in (0, 8, 16, 24, len(tcp)):
        yield ipv4(from_.source, from_.destination, tcp[:first], fragment=more), ETH_P_IP
        yield ipv4(from_.source, from_.destination, tcp[first:], fragment=first // 8), ETH_P_IP
    for offset in (1, 2, 100, 0x1FFF):
        yield ipv4(from_.source, from_.destination, tcp, fragment=offset), ETH_P_IP
        yield ipv4(from_.source, from_.destination, tcp, fragment=more | offset), ETH_P_IP


def extension_chains(like: Segment) -> Iterator[tuple[bytes, int]]:
    ends = ("fd77::9", "fd77::2")
    tcp = stranger(like).tcp()
    every = (*range(256),)
    for kind in every:
        yield ipv6(*ends, extension(packets.TCP) + tcp, kind), ETH_P_IPV6
        yield ipv6(*ends, extension(packets.TCP, words=255) + tcp, kind), ETH_P_IPV6
        yield ipv6(*ends, extension(kind) + tcp, kind), ETH_P_IPV6
        yield ipv6(*ends, b"", kind), ETH_P_IPV6
        yield ipv6(*ends, extension(kind)[:3], kind), ETH_P_IPV6
    for kind in (packets.HOP_BY_HOP, packets.ROUTING, packets.FRAGMENT, packets.AH, packets.DESTINATION):
        # 100 headers, and as many as fit into a packet; to the end of it, or to a TCP header.
        for number, last in product((2, 8, 100, 8000), (kind, packets.TCP)):
            chain = extension(kind) * (number - 1) + extension(last)
            yield ipv6(*ends, chain + (tcp if last == packets.TCP else b""), kind), ETH_P_IPV6
    for length in (0, 1, 8, 0xFFFF):
        yield ipv6(*ends, tcp, length=length), ETH_P_IPV6
    for offset in (0, 1, 8, 0xFFF9):
        content = struct.pack("!HI", offset, 1)
        yield ipv6(*ends, extension(packets.TCP, 0, content) + tcp, packets.FRAGMENT), ETH_P_IPV6


def tags(like: Segment) -> Iterator[tuple[bytes, int]]:
    whole = stranger(like).packet()
    protocol = ip_of(whole)
    tagged = struct.pack("!HH", 1, protocol) + whole
    for tag in (ETH_P_8021Q, ETH_P_8021AD):
        for size in range(8):
            yield tagged[:size], tag
        yield struct.pack("!HH", 1, ETH_P_8021Q) + tagged, tag
        yield struct.pack("!HH", 1, tag) * 300, tag
        yield struct.pack("!HH", 1, 0x0806) + whole, tag
    yield whole, 0x0806
    yield whole, ETH_P_IP ^ ETH_P_IPV6 ^ protocol  # the other version's


def noise(like: Segment) -> Iterator[tuple[bytes, int]]:
    """Bytes changed at random, but not the port nor the address by which it is another connection's."""
    random = Random(7)
    whole = stranger(like).packet()
    protocol = ip_of(whole)
    fixed = range(12, 24) if protocol == ETH_P_IP else range(8, 44)
    for _ in range(3000):
        changed = bytearray(whole)
        for _ in range(random.randint(1, 6)):
            at = random.randrange(len(changed))
            if at not in fixed:
                changed[at] = random.randrange(256)
        yield bytes(changed[: random.choice((len(changed), random.randrange(len(changed) + 1)))]), protocol
    for _ in range(1000):
        yield random.randbytes(random.randrange(1500)), random.choice((ETH_P_IP, ETH_P_IPV6, ETH_P_8021Q))


def ip_of(packet: bytes) -> int:
    """The protocol number of an IP packet."""
    return ETH_P_IP if packet[0] >> 4 == 4 else ETH_P_IPV6


NONSENSE: Final[dict[str, PacketsOf]] = {
    "truncated": truncated,
    "bad-data-offsets": bad_data_offsets,
    "garbage-options": garbage_options,
    "noise": noise,
    "tags": tags,
    "lying-ipv4-lengths": lying_ipv4_lengths,
    "fragments": fragments,
    "extension-chains": extension_chains,
}
ONLY_IPV4: Final = ("lying-ipv4-lengths", "fragments")
ONLY_IPV6: Final = ("extension-chains",)
CORE_NONSENSE: Final = (("noise", 4), ("extension-chains", 6))


@pytest.mark.parametrize(
    ("kind", "version"),
    [
        pytest.param(kind, version, marks=[] if (kind, version) in CORE_NONSENSE else pytest.mark.matrix)
        for kind in NONSENSE
        for version in (4, 6)
        if kind not in (ONLY_IPV6 if version == 4 else ONLY_IPV4)
    ],
)
def test_nonsense(kind: str, version: int) -> None:
    """Nothing of it is taken for a connection, and the one that lives is followed as if nothing had been."""
    with live(version) as connection:
        for number, (packet, protocol) in enumerate(NONSENSE[kind](connection.last())):
            connection.inject(packet, protocol)
            if number % 100 == 0:
                connection.exchange()


def test_malformed_packets_are_counted() -> None:
    """A TCP header that begins in a packet and does not end in it is said to be malformed."""
    with live() as connection:
        before = connection.exporter.page().value(IGNORED, reason="malformed")
        for packet, protocol in bad_data_offsets(connection.last()):
            connection.inject(packet, protocol)
        connection.exporter.page_when(
            lambda page: page.value(IGNORED, reason="malformed") > before, "malformed packets are counted"
        )


# Packets that would make sense, if they were true.

FORGED: Final[dict[str, Callable[[Segment], Segment]]] = {
    "reset-before-the-window": lambda next_: next_.later(-70_000, flags=RST),
    "reset-behind-the-window": lambda next_: next_.later(100_000_000, flags=RST),
    "reset-with-ack-far-off": lambda next_: next_.later(1 << 31, flags=RST | ACK),
    "reset-in-the-window": lambda next_: next_.later(1000, flags=RST),
    "syn": lambda next_: next_.but(sequence=77, flags=SYN),
    "syn-in-the-window": lambda next_: next_.later(1000, flags=SYN),
    "syn-ack": lambda next_: next_.but(sequence=77, flags=SYN | ACK),
    "fin-behind-the-window": lambda next_: next_.later(100_000_000, flags=FIN | ACK),
    "fin-before-the-window": lambda next_: next_.later(-70_000, flags=FIN | ACK),
    "data-behind-the-window": lambda next_: next_.later(100_000_000, payload=b"\x88\x82abcd" + bytes(2)),
    "data-before-the-window": lambda next_: next_.later(-70_000, payload=b"\x88\x82abcd" + bytes(2)),
    "data-once-more-but-other": lambda next_: next_.later(-10, payload=bytes(10)),
    "a-request-behind-the-window": lambda next_: next_.later(50_000_000, payload=b"GET / HTTP/1.1\r\n\r\n"),
    "a-close-without-ack": lambda next_: next_.but(payload=b"\x88\x82abcd" + bytes(2), flags=PSH),
    "all-flags": lambda next_: next_.later(100_000_000, flags=0xFF),
    "no-flags": lambda next_: next_.but(flags=0),
    "a-keepalive": lambda next_: next_.later(-1, payload=b"\x00"),
}
"""Made of the segment that the client would send next, empty."""


CORE_FORGED: Final = ("reset-in-the-window", "syn", "data-once-more-but-other", "a-close-without-ack")


@pytest.mark.parametrize(
    ("forgery", "version"),
    [
        pytest.param(forgery, version, marks=[] if version == 4 and forgery in CORE_FORGED else pytest.mark.matrix)
        for forgery in FORGED
        for version in (4, 6)
    ],
)
def test_forged(forgery: str, version: int) -> None:
    """What the server's kernel does not believe, capture does not either: the connection goes on, for both."""
    with live(version) as connection:
        for _ in range(3):
            last = connection.last()
            following = last.but(sequence=last.end, flags=ACK, payload=b"")
            packet = FORGED[forgery](following).packet()
            connection.inject(packet, ip_of(packet))
            connection.exchange()


@pytest.mark.timeout(180)
@pytest.mark.matrix
def test_a_flood_of_half_open_connections() -> None:
    """Memory is bounded, and the connection that lives is followed as if nothing had been."""
    with live() as connection:
        connection.land.server.ip("route", "add", "default", "dev", INTERFACE)
        last = connection.last()
        before = rss(connection.exporter.program.pid)
        packet = bytearray(last.but(source="198.18.0.0", source_port=0, flags=SYN, payload=b"").packet())
        random = Random(3)
        for number in range(HALF_OPEN):
            packet[13:16] = (18 << 16 | random.randrange(1 << 16)).to_bytes(3)
            packet[20:22] = (1024 + number % 60_000).to_bytes(2)
            struct.pack_into("!H", packet, 10, 0)
            struct.pack_into("!H", packet, 10, packets.checksum(bytes(packet[:20])))
            connection.inject(bytes(packet), ETH_P_IP)
            if number % 10_000 == 0:
                connection.exchange()
        connection.exporter.page()
        grown = (rss(connection.exporter.program.pid) - before) / 2**20
        print(f"{HALF_OPEN:,} half-open connections: {grown:.1f} MiB")
        assert grown < MOST_GROWTH


def rss(pid: int) -> int:
    """Resident bytes of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


def test_the_kernel_sees_what_is_injected() -> None:
    """These tests can fail: a reset exactly where the client would go on ends the connection, and capture says so."""
    with land() as made:
        host = made.addresses.server
        with started(made.server, (sys.executable, "-m", "tests.capture.talking", "serve", host)) as server:
            port = int(server.line("listening"))
            sock = made.client.run(lambda: socket.create_connection((host, port), 20))
            with (
                exporting(f"--capture={INTERFACE}:{port}", where=made.server) as exporter,
                Raw(sock, client=True) as client,
            ):
                assert client.ask(PATH) == 101
                connection = Live(client, made, exporter)
                connection.exchange()
                last = eventually(lambda: segment_of(made.wire.last["client"]), "it has sent something")
                made.wire.inject(last.but(sequence=last.end, flags=RST, payload=b"").packet())
                server.line("ended")
                page = exporter.closed(1)
    assert page.counted(CLOSES, "source", "code", "initiator") == {("capture", "1006", "client"): 1}
