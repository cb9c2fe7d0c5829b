"""Segments out of packets, and nothing but a clear no out of what only looks like one."""

import struct
from collections.abc import Sequence
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.wire.packet import ACK, FIN, IPV4, IPV6, RST, SYN, TCP, VLANS, Malformed, Segment, parse

A4, B4 = bytes([192, 0, 2, 1]), bytes([198, 51, 100, 2])
A6, B6 = bytes(range(16)), bytes(range(16, 32))
PORTS: Final = struct.pack(">HH", 40000, 8080)
UDP: Final = 17
HOP_BY_HOP, ROUTING, FRAGMENT, AUTHENTICATION, DESTINATION, NONE = 0, 43, 44, 51, 60, 59


def tcp(data: bytes = b"", flags: int = ACK, *, options: bytes = b"", offset: int | None = None) -> bytes:
    words = (20 + len(options)) // 4 if offset is None else offset
    return struct.pack(">HHIIHHHH", 40000, 8080, 1000, 2000, words << 12 | flags, 512, 0, 0) + options + data


def ipv4(
    payload: bytes,
    *,
    options: bytes = b"",
    total: int | None = None,
    fragment: int = 0,
    protocol: int = TCP,
    first: int | None = None,
) -> bytes:
    size = 20 + len(options)
    first = 0x40 | size // 4 if first is None else first
    total = size + len(payload) if total is None else total
    return struct.pack(">BBHHHBBH", first, 0, total, 7, fragment, 64, protocol, 0) + A4 + B4 + options + payload


def ipv6(payload: bytes, chain: Sequence[tuple[int, bytes]] = (), *, last: int = TCP, size: int | None = None) -> bytes:
    """A packet whose extension headers are given by type and content behind their first byte (the next header)."""
    kinds = [*(kind for kind, _ in chain), last]
    extensions = b"".join(bytes([following]) + body for (_, body), following in zip(chain, kinds[1:], strict=True))
    size = len(extensions) + len(payload) if size is None else size
    return struct.pack(">IHBB", 6 << 28, size, kinds[0], 64) + A6 + B6 + extensions + payload


def parsed(packet: bytes, protocol: int) -> tuple[Segment, bytes]:
    """What is parsed from the midst of other bytes, and its data."""
    memory = b"\xff" * 5 + packet + b"\xff" * 70
    segment = parse(memory, 5, len(packet), protocol)
    assert segment is not None
    return segment, memory[segment.begin : segment.end]


@pytest.mark.parametrize("flags", [ACK, SYN, SYN | ACK, FIN | ACK, RST])
@pytest.mark.parametrize("options", [b"", b"\x01" * 40])
@pytest.mark.parametrize("data", [b"", b"\x88\x02\x03\xe9"])
def test_ipv4(flags: int, options: bytes, data: bytes) -> None:
    segment, found = parsed(ipv4(tcp(data, flags, options=options), options=options), IPV4)
    assert segment[:4] == (A4 + B4 + PORTS, 1000, 2000, flags)
    assert (found, segment.size) == (data, len(data))


def test_padding_behind_the_packet_is_no_data() -> None:
    segment, found = parsed(ipv4(tcp(b"hi")) + bytes(20), IPV4)
    assert (found, segment.size) == (b"hi", 2)


def test_a_cut_packet_says_how_much_there_was() -> None:
    packet = ipv4(tcp(b"x" * 1000))
    memory = packet[:140]
    segment = parse(memory, 0, len(memory), IPV4)
    assert segment is not None
    assert (segment.end - segment.begin, segment.size) == (100, 1000)


def test_big_tcp_says_no_length() -> None:
    segment, found = parsed(ipv4(tcp(b"x" * 100), total=0), IPV4)
    assert (found, segment.size) == (b"x" * 100, 100)
    segment, found = parsed(ipv6(tcp(b"x" * 100), size=0), IPV6)
    assert (found, segment.size) == (b"x" * 100, 100)


@pytest.mark.parametrize("tag", VLANS)
@pytest.mark.parametrize(("protocol", "packet"), [(IPV4, ipv4(tcp(b"hi"))), (IPV6, ipv6(tcp(b"hi")))])
def test_a_vlan_tag_in_the_packet(tag: int, protocol: int, packet: bytes) -> None:
    assert parsed(struct.pack(">HH", 5, protocol) + packet, tag)[1] == b"hi"


@pytest.mark.parametrize(("protocol", "packet"), [(IPV4, ipv4(tcp(b"hi"))), (IPV6, ipv6(tcp(b"hi")))])
def test_a_vlan_tag_that_the_protocol_does_not_tell_of(protocol: int, packet: bytes) -> None:
    assert parsed(struct.pack(">HH", 5, protocol) + packet, protocol)[1] == b"hi"


@pytest.mark.parametrize("packet", [ipv4(tcp(b"hi")), ipv6(tcp(b"hi"))])
def test_a_vlan_whose_tag_is_gone(packet: bytes) -> None:
    assert parsed(packet, VLANS[0])[1] == b"hi"


@pytest.mark.parametrize(
    "chain",
    [
        [],
        [(HOP_BY_HOP, bytes(7))],
        [(HOP_BY_HOP, b"\x01" + bytes(14)), (ROUTING, bytes(7)), (DESTINATION, bytes(7))],
        [(AUTHENTICATION, b"\x04" + bytes(22))],
        [(FRAGMENT, b"\0\0\x06" + bytes(4))],
    ],
)
def test_ipv6(chain: Sequence[tuple[int, bytes]]) -> None:
    segment, found = parsed(ipv6(tcp(b"hi", FIN | ACK), chain), IPV6)
    assert segment[:4] == (A6 + B6 + PORTS, 1000, 2000, FIN | ACK)
    assert found == b"hi"


@pytest.mark.parametrize(
    ("packet", "protocol"),
    [
        (ipv4(bytes(20), protocol=UDP), IPV4),
        (ipv6(bytes(20), last=UDP), IPV6),
        (ipv6(bytes(20), [(HOP_BY_HOP, bytes(7))], last=NONE), IPV6),
        (bytes(40), 0x0806),
    ],
)
def test_no_tcp(packet: bytes, protocol: int) -> None:
    assert parse(packet, 0, len(packet), protocol) is None


@pytest.mark.parametrize(
    ("packet", "protocol"),
    [
        (b"", IPV4),
        (ipv4(tcp())[:19], IPV4),
        (ipv4(tcp())[:39], IPV4),
        (ipv4(tcp(), first=0x44), IPV4),
        (ipv4(tcp(), first=0x35), IPV4),
        (ipv4(tcp(), first=0x4F), IPV4),
        (ipv4(tcp(), total=19), IPV4),
        (ipv4(tcp(), total=30), IPV4),
        (ipv4(tcp(), fragment=0x2000), IPV4),
        (ipv4(tcp(), fragment=0x0001), IPV4),
        (ipv4(tcp(offset=4)), IPV4),
        (ipv4(tcp(offset=15)), IPV4),
        (b"", IPV6),
        (ipv6(tcp())[:41], IPV6),
        (b"\x40" + ipv6(tcp())[1:], IPV6),
        (ipv6(tcp(), size=10), IPV6),
        (ipv6(tcp(), [(FRAGMENT, b"\0\0\x01" + bytes(4))]), IPV6),
        (ipv6(tcp(), [(FRAGMENT, b"\0\0\x08" + bytes(4))]), IPV6),
        (ipv6(b"", [(FRAGMENT, b"")]), IPV6),
        (ipv6(tcp(), [(HOP_BY_HOP, b"\xff" + bytes(6))]), IPV6),
        (ipv6(tcp(), [(DESTINATION, bytes(7))] * 9), IPV6),
        (ipv6(tcp(), [(DESTINATION, bytes(7))])[:40], IPV6),
        (b"\x00\x05\x08", VLANS[0]),
    ],
)
def test_malformed(packet: bytes, protocol: int) -> None:
    with pytest.raises(Malformed):
        parse(packet, 0, len(packet), protocol)


@given(
    st.binary(max_size=120),
    st.sampled_from([IPV4, IPV6, *VLANS]),
    st.sampled_from([b"", b"\x45", b"\x60\x00\x00\x00", b"\x45\x00\x00\x50\x00\x00\x00\x00\x40\x06"]),
)
def test_whatever_comes(noise: bytes, protocol: int, begin: bytes) -> None:
    packet = begin + noise
    try:
        segment = parse(packet, 0, len(packet), protocol)
    except Malformed:
        return
    if segment is not None:
        assert 0 <= segment.begin <= segment.end <= len(packet)
        assert segment.size >= segment.end - segment.begin
