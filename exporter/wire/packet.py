"""Captured packets: from an IP header to one TCP segment (RFC 791, RFC 8200, RFC 9293).

Packets come from a cooked socket, so that they begin with the network header. Nothing in them is trusted: what does not
hold together is `Malformed`, and what is no TCP is None.
"""

from struct import Struct, error
from typing import Final, NamedTuple

Memory = bytes | bytearray | memoryview

IPV4: Final = 0x0800
IPV6: Final = 0x86DD
VLANS: Final = (0x8100, 0x88A8)
TCP: Final = 6

FIN: Final = 0x01
SYN: Final = 0x02
RST: Final = 0x04
ACK: Final = 0x10

_IPV4_HEADER: Final = Struct(">BxH2xHxB")  # version and header length, total length, fragment, protocol
_IPV6_HEADER: Final = Struct(">4xHB")  # payload length, next header
_TCP_HEADER: Final = Struct(">HHIIHH")  # ports, sequence and acknowledgment number, offset and flags, window
_VERSIONS: Final = {IPV4: 4, IPV6: 6}
_VLAN_TAG: Final = Struct(">HH")
_MORE_OR_OFFSET: Final = 0x3FFF
_MORE_OR_OFFSET_6: Final = 0xFFF9
_FRAGMENT_OFFSET: Final = Struct(">H")
_FRAGMENT: Final = 44
_AUTHENTICATION: Final = 51
_EXTENSIONS: Final = (0, 43, _FRAGMENT, _AUTHENTICATION, 60)
_MOST_EXTENSIONS: Final = 8
_SHORTEST_TCP: Final = 20


class Malformed(Exception):
    """The packet contradicts itself, is cut where its headers are, or is a fragment."""


class Segment(NamedTuple):
    """One TCP segment. `key` is by what its direction is known: addresses and ports as they are on the wire.

    That is source and destination address, source and destination port: 12 bytes or, of IPv6, 36. The data is from
    `begin` to `end` in the memory it was parsed from, `size` bytes of it were sent: more than there are where the
    capture has cut the packet.
    """

    key: bytes
    source_port: int
    destination_port: int
    sequence: int
    acknowledgment: int
    flags: int
    begin: int
    end: int
    size: int


def parse(memory: Memory, begin: int, captured: int, protocol: int) -> Segment | None:
    """The segment in the packet of `captured` bytes at `begin`, whose network protocol is an EtherType; None: no TCP.

    Where there is a VLAN tag kernels differ in whether the protocol is the tag's or what is behind it, and in whether
    the packet begins with the tag or behind it (seen on 6.18); its first four bits tell.

    Raises:
        Malformed: the packet does not hold together.
    """
    end = begin + captured
    try:
        version = memory[begin] >> 4
        if protocol in VLANS and version in _VERSIONS.values():
            protocol = IPV4 if version == 4 else IPV6
        elif protocol in VLANS or _VERSIONS.get(protocol, version) != version:
            tagged = protocol in VLANS
            _, protocol = _VLAN_TAG.unpack_from(memory, begin)
            begin += _VLAN_TAG.size
            if not (tagged or protocol in _VERSIONS):
                raise Malformed
        if protocol == IPV4:
            return _ipv4(memory, begin, end)
        return _ipv6(memory, begin, end) if protocol == IPV6 else None
    except (error, IndexError):
        raise Malformed from None


def _ipv4(memory: Memory, begin: int, end: int) -> Segment | None:
    first, total, fragment, protocol = _IPV4_HEADER.unpack_from(memory, begin)
    if protocol != TCP:
        return None
    header = (first & 0x0F) * 4
    if first >> 4 != 4 or header < 20 or fragment & _MORE_OR_OFFSET or 0 < total < header:
        raise Malformed
    # A total length of 0 is a packet larger than the field can say, as kernels hand them around (BIG TCP).
    stop = begin + total if total else end
    return _tcp(memory, begin + header, stop, end, begin + 12, 4)


def _ipv6(memory: Memory, begin: int, end: int) -> Segment | None:
    size, header = _IPV6_HEADER.unpack_from(memory, begin)
    if memory[begin] >> 4 != 6:
        raise Malformed
    at = begin + 40
    stop = at + size if size else end
    for _ in range(_MOST_EXTENSIONS):
        if header == TCP:
            return _tcp(memory, at, stop, end, begin + 8, 16)
        if header not in _EXTENSIONS:
            return None
        if header == _FRAGMENT and _FRAGMENT_OFFSET.unpack_from(memory, at + 2)[0] & _MORE_OR_OFFSET_6:
            raise Malformed  # only what is whole (RFC 6946) has all of its segment
        following, length = memory[at], memory[at + 1]
        at += _extension_size(header, length)
        header = following
        if at > min(stop, end):
            raise Malformed
    raise Malformed


def _extension_size(header: int, length: int) -> int:
    """Bytes of an extension header by its type and the second of its bytes."""
    if header == _FRAGMENT:
        return 8
    return (length + 2) * 4 if header == _AUTHENTICATION else (length + 1) * 8


def _tcp(memory: Memory, begin: int, stop: int, end: int, addresses: int, width: int) -> Segment:
    """The segment whose header is at `begin`; the packet should reach to `stop`, and was captured to `end`."""
    source_port, destination_port, sequence, acknowledgment, offset_and_flags, _ = _TCP_HEADER.unpack_from(
        memory, begin
    )
    header = offset_and_flags >> 10 & 0x3C
    data = begin + header
    if header < _SHORTEST_TCP or data > stop or data > end:
        raise Malformed
    return Segment(
        bytes(memory[addresses : addresses + 2 * width]) + bytes(memory[begin : begin + 4]),
        source_port,
        destination_port,
        sequence,
        acknowledgment,
        offset_and_flags & 0x3F,
        data,
        min(stop, end),
        stop - data,
    )
