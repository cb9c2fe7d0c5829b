"""Captured packets: from an IP header to one TCP segment (RFC 791, RFC 8200, RFC 9293).

Packets come from a cooked socket, so that they begin with the network header. Nothing in them is trusted: what does not
hold together is `Malformed`, and what is no TCP is None.
"""

from mmap import mmap
from struct import Struct, error
from typing import Final, NamedTuple

Memory = bytes | bytearray | memoryview | mmap

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
_TCP_HEADER: Final = Struct(">4xIIH")  # sequence and acknowledgment number, offset and flags
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
_PORTS: Final = 4  # bytes of both

# Most packets have neither options nor extension headers. Of these a segment that is expected can be told at a glance.

PLAIN_IPV4: Final = Struct(">BxH2xI2x12sI4xH")
"""The first byte, the total length, a word that tells of TCP (`TELLS_TCP`), the key, the sequence number, the shape.

The key is that of a `Segment`; the shape is the length of TCP's header with its flags (`DATA_SHAPES`).
"""

PLAIN_IPV6: Final = Struct(">B3xHBx36sI4xH")
"""The same; the length is that of the payload."""

PLAIN_IPV4_FIRST: Final = 0x45
IPV6_VERSION: Final = 6
PLAIN_IPV4_SIZE: Final = 20
PLAIN_IPV6_SIZE: Final = 40

TELLS_TCP: Final = 0x3FFF00FF
"""The bits of that word that are `TCP` where one is in the packet, and no fragment of one."""

DATA_SHAPES: Final = {
    words << 12 | flags: words * 4
    for words in range(_SHORTEST_TCP // 4, 16)
    for flags in range(256)
    if flags & (FIN | SYN | RST | ACK) == ACK
}
"""Bytes of TCP's header by the shapes of a segment in which nothing matters but its data."""

ACKNOWLEDGMENT: Final = Struct(">8xI")
"""Of TCP's header: the acknowledgment number."""


class Malformed(Exception):
    """The packet contradicts itself, is cut where its headers are, or is a fragment."""


class Segment(NamedTuple):
    """One TCP segment. `key` is by what its direction is known: addresses and ports as they are on the wire.

    That is source and destination address, source and destination port: 12 bytes or, of IPv6, 36. The data is from
    `begin` to `end` in the memory it was parsed from, `size` bytes of it were sent: more than there are where the
    capture has cut the packet.
    """

    key: bytes
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
        if _VERSIONS.get(protocol) != memory[begin] >> 4:
            begin, protocol = _untagged(memory, begin, protocol)
        if protocol == IPV4:
            return _ipv4(memory, begin, end)
        return _ipv6(memory, begin, end) if protocol == IPV6 else None
    except (error, IndexError):
        raise Malformed from None


def _untagged(memory: Memory, begin: int, protocol: int) -> tuple[int, int]:
    """Where the network header begins, and what it is, where the ethertype does not tell."""
    version = memory[begin] >> 4
    tagged = protocol in VLANS
    if tagged and version in _VERSIONS.values():
        return begin, IPV4 if version == 4 else IPV6
    if not tagged and protocol not in _VERSIONS:
        return begin, protocol
    _, protocol = _VLAN_TAG.unpack_from(memory, begin)
    if not (tagged or protocol in _VERSIONS):
        raise Malformed
    return begin + _VLAN_TAG.size, protocol


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
    sequence, acknowledgment, shape = _TCP_HEADER.unpack_from(memory, begin)
    header = shape >> 10 & 0x3C
    data = begin + header
    if header < _SHORTEST_TCP or data > stop or data > end:
        raise Malformed
    behind = addresses + 2 * width
    key = bytes(memory[addresses : behind + _PORTS])
    if behind != begin:  # options are between them
        key = key[:-_PORTS] + bytes(memory[begin : begin + _PORTS])
    return Segment(key, sequence, acknowledgment, shape & 0x3F, data, stop if stop < end else end, stop - data)
