"""Conversations in packets of every kind that capture has to understand; only it sees them, no kernel does."""

import itertools
import struct
from collections.abc import Callable, Iterator
from typing import Final

import pytest

from tests.capture import packets
from tests.capture.exporting import CLOSES, IGNORED, MESSAGES, exporting
from tests.capture.namespaces import ETH_P_IP, ETH_P_IPV6, INTERFACE, land
from tests.capture.packets import ACK, FIN, PSH, SYN, Segment, extension, ipv4, ipv6
from tests.capture.rights import needs_namespaces
from tests.peers.raw import BINARY, CLOSE, frame
from tests.wire.support import accepts, asks

pytestmark = [needs_namespaces, pytest.mark.needs("ip")]

PORT: Final = 8080
CLIENTS_PORT: Final = 40_000
NEAR_THE_END: Final = 0xFFFFFF80
"""A sequence number that is past its largest value before the handshake is over."""
TIMESTAMPS: Final = b"\x01\x01\x08\x0a" + bytes(8)

Wrapped = tuple[bytes, int]


def plain(one: Segment) -> Wrapped:
    packet = one.packet()
    return packet, ETH_P_IP if packet[0] >> 4 == 4 else ETH_P_IPV6


def with_ip_options(one: Segment) -> Wrapped:
    return ipv4(one.source, one.destination, one.tcp(), options=b"\x94\x04\x00\x00" * 10), ETH_P_IP


def without_a_length(one: Segment) -> Wrapped:
    """As kernels hand packets of more than 64 KiB around (BIG TCP)."""
    make = ipv6 if ":" in one.source else ipv4
    return make(one.source, one.destination, one.tcp(), length=0), plain(one)[1]


def padded(one: Segment) -> Wrapped:
    """Ethernet frames have 60 bytes at least; what is behind the packet is not of it."""
    packet, protocol = plain(one)
    return packet + b"\x88\x02\x03\xe9" * 2, protocol


def tagged(kind: int) -> Callable[[Segment], Wrapped]:
    def wrap(one: Segment) -> Wrapped:
        packet, protocol = plain(one)
        return struct.pack("!HH", 7, protocol) + packet, kind

    return wrap


def behind(*kinds: int) -> Callable[[Segment], Wrapped]:
    """Behind extension headers of IPv6."""

    def wrap(one: Segment) -> Wrapped:
        chain = b"".join(extension(following) for following in (*kinds[1:], packets.TCP))
        return ipv6(one.source, one.destination, chain + one.tcp(), kinds[0]), ETH_P_IPV6

    return wrap


WRAPPINGS: Final[dict[str, tuple[int, Callable[[Segment], Wrapped]]]] = {
    "ipv4": (4, plain),
    "ipv4-options": (4, with_ip_options),
    "ipv4-without-a-length": (4, without_a_length),
    "ipv4-padded": (4, padded),
    "ipv4-vlan": (4, tagged(0x8100)),
    "ipv4-service-vlan": (4, tagged(0x88A8)),
    "ipv6": (6, plain),
    "ipv6-without-a-length": (6, without_a_length),
    "ipv6-padded": (6, padded),
    "ipv6-vlan": (6, tagged(0x8100)),
    "ipv6-hop-by-hop": (6, behind(packets.HOP_BY_HOP)),
    "ipv6-destination": (6, behind(packets.DESTINATION)),
    "ipv6-routing": (6, behind(packets.ROUTING)),
    "ipv6-atomic-fragments": (6, behind(packets.FRAGMENT)),
    "ipv6-all-of-them": (6, behind(packets.HOP_BY_HOP, packets.DESTINATION, packets.ROUTING, packets.DESTINATION)),
}

ENDS: Final = {4: ("198.18.0.1", "198.18.0.2"), 6: ("fd99::1", "fd99::2")}
"""None of the server's own: its kernel would have something to say too."""


def conversation(version: int) -> Iterator[Segment]:
    """A handshake, a message each way, and a close by the client."""
    said = [
        ("client", asks()[1]),
        ("server", accepts()[1]),
        ("client", frame(BINARY, bytes(200), masked=True)),
        ("server", frame(BINARY, bytes(1200), masked=False)),
        ("client", frame(CLOSE, (4000).to_bytes(2), masked=True)),
        ("server", frame(CLOSE, (4000).to_bytes(2), masked=False)),
    ]
    client, server = ENDS[version]
    from_client = Segment(client, server, CLIENTS_PORT, PORT, NEAR_THE_END, 0, SYN)
    from_server = Segment(server, client, PORT, CLIENTS_PORT, NEAR_THE_END - 9, from_client.end, SYN | ACK)
    yield from_client
    yield from_server
    last = {"client": from_client, "server": from_server}
    ends = (("server", FIN), ("client", FIN))
    for side, payload, flags in itertools.chain(((*one, PSH) for one in said), ((s, b"", f) for s, f in ends)):
        other = last["server" if side == "client" else "client"]
        last[side] = last[side].but(
            sequence=last[side].end,
            acknowledgement=other.end,
            flags=flags | ACK,
            payload=payload,
            options=TIMESTAMPS,
        )
        yield last[side]


@pytest.mark.parametrize(
    "wrapping",
    [
        pytest.param(name, marks=[] if name in ("ipv4-vlan", "ipv6-hop-by-hop") else pytest.mark.matrix)
        for name in WRAPPINGS
    ],
)
def test_a_conversation(wrapping: str) -> None:
    """It is one close with the client's code, one message each way, and nothing is ignored."""
    version, wrap = WRAPPINGS[wrapping]
    with land(version) as made, exporting(f"--capture={INTERFACE}:{PORT}", where=made.server) as exporter:
        for one in conversation(version):
            packet, protocol = wrap(one)
            made.wire.inject(packet, protocol)
        page = exporter.closed(1)
    assert page.counted(CLOSES, "source", "code", "initiator") == {("capture", "4xxx", "client"): 1}
    assert page.counted(MESSAGES, "source", "direction") == {
        ("capture", "client_to_server"): 1,
        ("capture", "server_to_client"): 1,
    }
    assert page.counted(IGNORED, "reason") == {}


def test_sizes_are_those_of_the_frames() -> None:
    """The bytes counted of the conversation are its payloads."""
    with land(4) as made, exporting(f"--capture={INTERFACE}:{PORT}", where=made.server) as exporter:
        for one in conversation(4):
            made.wire.inject(*plain(one))
        page = exporter.closed(1)
    sums = page.counted("websocket_message_size_bytes_sum", "direction")
    assert sums == {("client_to_server",): 200, ("server_to_client",): 1200}
