"""Which packets the kernel hands over: classic BPF programs for cooked packet sockets.

On such a socket (packet(7), SOCK_DGRAM) a packet begins with its network header, whatever the link is; its ethertype is
not in the packet but ancillary data. A load from beyond a packet's end rejects the packet. All arithmetic is modulo
2^32, and so a length that is not there (0 for packets over 64 KiB, "BIG TCP") or wrong becomes a huge one: such packets
count as those with payload, for user space to look at.
"""

import struct
from collections.abc import Sequence
from typing import Final, NamedTuple

SIZE_SNAP: Final = 0x40000
"""Bytes of a packet that the size filter keeps: whole packets, even where the kernel has merged segments."""

LIFECYCLE_SNAP: Final = 16 << 10
"""Bytes of a packet that the lifecycle filter keeps: an HTTP head, or a Close frame."""

INSTRUCTION_SIZE: Final = 8
"""Bytes of a packed instruction: struct sock_filter of linux/filter.h."""

# The operations of linux/bpf_common.h. A is the accumulator, X the index register, M the scratch memory.
_LOAD_A: Final = 0x00  # a constant
_LOAD_X: Final = 0x01
_WORD_AT: Final = 0x20
_HALF_AT: Final = 0x28
_BYTE_AT: Final = 0x30
_WORD_AT_X: Final = 0x40
_HALF_AT_X: Final = 0x48
_BYTE_AT_X: Final = 0x50
_A_FROM_M: Final = 0x60
_X_FROM_M: Final = 0x61
_A_TO_M: Final = 0x02
_X_TO_M: Final = 0x03
_ADD: Final = 0x04
_ADD_X: Final = 0x0C
_SUBTRACT_X: Final = 0x1C
_AND: Final = 0x54
_SHIFT_LEFT: Final = 0x64
_SHIFT_RIGHT: Final = 0x74
_JUMP: Final = 0x05
_IF_EQUAL: Final = 0x15
_IF_EQUAL_X: Final = 0x1D
_IF_GREATER: Final = 0x25
_IF_AT_LEAST: Final = 0x35
_IF_ANY_BIT: Final = 0x45
_RETURN: Final = 0x06
_X_FROM_A: Final = 0x07

_ETHERTYPE: Final = 0xFFFFF000  # SKF_AD_OFF + SKF_AD_PROTOCOL of linux/filter.h
_PACKET_TYPE: Final = 0xFFFFF004  # SKF_AD_OFF + SKF_AD_PKTTYPE
_OUTGOING: Final = 4  # PACKET_OUTGOING of linux/if_packet.h
_IPV4: Final = 0x0800
_IPV6: Final = 0x86DD
_VLAN_TAGS: Final = (0x8100, 0x88A8)  # IEEE 802.1Q, and 802.1ad around it
_TCP: Final = 6
_OPTION_HEADERS: Final = (0, 43, 60)  # hop-by-hop, routing, destination: all of one layout (RFC 8200 section 4)
_OTHER_HEADERS: Final = (44, 51)  # fragment, authentication
_FIN_SYN_RST: Final = 0x07
_CLOSE: Final = 0x88  # a whole Close frame's first byte (RFC 6455 section 5.2)
_MOST_PAYLOAD: Final = 125  # bytes, of a control frame (RFC 6455 section 5.5)

# The scratch memory.
_NETWORK: Final = 0  # where the network header begins
_HEADERS: Final = 1  # bytes of network headers
_LENGTH: Final = 2  # bytes from the network header on, then of the payload
_SECOND: Final = 3  # the second byte of what could be a Close frame


class _Op(NamedTuple):
    """One instruction; the two labels are where a comparison leads to, the next instruction if empty."""

    code: int
    k: int = 0
    yes: str = ""
    no: str = ""


_Lines = Sequence[_Op | str]


def size_filter(port: int) -> bytes:
    """A packed program that accepts TCP from or to the port, except bare ACKs (no payload, no SYN, FIN or RST).

    Of IPv4 fragments it accepts the first, as only that has ports. Over IPv6 it looks behind one header of options;
    longer chains, fragments and authentication headers it accepts whatever is in them.
    """
    return _assembled([*_segments(port), _Op(_IF_EQUAL, 0, yes="reject"), *_verdicts(SIZE_SNAP)])


def lifecycle_filter(port: int) -> bytes:
    """A packed program that accepts, of what the size filter does, how connections begin and end.

    These are SYN, FIN and RST, payload that begins like an HTTP head (`GET ` or `HTTP`), and payload that is exactly
    one Close frame.
    """
    return _assembled([*_segments(port), *_beginnings(), *_verdicts(LIFECYCLE_SNAP)])


def _segments(port: int) -> _Lines:
    """Falls through, with X the length of the TCP header and A that of the payload; SYN, FIN and RST are accepted."""
    return [
        *_network_layer(),
        "segment",
        _Op(_A_FROM_M, _LENGTH),
        _Op(_X_FROM_M, _HEADERS),
        _Op(_SUBTRACT_X),
        _Op(_A_TO_M, _LENGTH),
        _Op(_A_FROM_M, _NETWORK),
        _Op(_ADD_X),
        _Op(_X_FROM_A),
        _Op(_HALF_AT_X, 0),
        _Op(_IF_EQUAL, port, yes="ours"),
        _Op(_HALF_AT_X, 2),
        _Op(_IF_EQUAL, port, no="reject"),
        "ours",
        _Op(_BYTE_AT_X, 13),
        _Op(_IF_ANY_BIT, _FIN_SYN_RST, yes="accept"),
        _Op(_BYTE_AT_X, 12),  # its upper half is the header's length in words of 4 bytes (RFC 9293 section 3.1)
        _Op(_SHIFT_RIGHT, 2),
        _Op(_AND, 0x3C),
        _Op(_X_FROM_A),
        _Op(_A_FROM_M, _LENGTH),
        _Op(_SUBTRACT_X),
    ]


def _network_layer() -> _Lines:
    """Leads to `segment`, with the scratch memory filled, for whatever has a TCP header."""
    return [
        _Op(_HALF_AT, _ETHERTYPE),  # while X is 0, as it is at first
        *(_Op(_IF_EQUAL, tag, yes="tagged") for tag in _VLAN_TAGS),
        _Op(_JUMP, yes="untagged"),
        "tagged",
        # An outgoing packet begins behind its tags, unless it is one that is merely passed on.
        _Op(_BYTE_AT, _PACKET_TYPE),
        _Op(_IF_EQUAL, _OUTGOING, no="tag"),
        _Op(_X_TO_M, _NETWORK),
        _Op(_BYTE_AT, 0),
        _Op(_AND, 0xF0),
        _Op(_IF_EQUAL, 0x40, yes="ipv4"),
        _Op(_IF_EQUAL, 0x60, yes="ipv6"),
        "tag",  # 4 bytes, of which the last two are the ethertype of what follows
        _Op(_LOAD_X, 4),
        _Op(_HALF_AT, 2),
        "untagged",
        _Op(_X_TO_M, _NETWORK),
        _Op(_IF_EQUAL, _IPV6, yes="ipv6"),
        _Op(_IF_EQUAL, _IPV4, no="reject"),
        "ipv4",
        _Op(_BYTE_AT_X, 9),
        _Op(_IF_EQUAL, _TCP, no="reject"),
        _Op(_HALF_AT_X, 6),
        _Op(_IF_ANY_BIT, 0x1FFF, yes="reject"),  # the fragment offset (RFC 791 section 3.1)
        _Op(_HALF_AT_X, 2),
        _Op(_A_TO_M, _LENGTH),
        _Op(_BYTE_AT_X, 0),
        _Op(_AND, 0x0F),
        _Op(_SHIFT_LEFT, 2),
        _Op(_A_TO_M, _HEADERS),
        _Op(_JUMP, yes="segment"),
        "ipv6",
        _Op(_HALF_AT_X, 4),
        _Op(_ADD, 40),
        _Op(_A_TO_M, _LENGTH),
        _Op(_LOAD_A, 40),
        _Op(_A_TO_M, _HEADERS),
        _Op(_BYTE_AT_X, 6),
        _Op(_IF_EQUAL, _TCP, yes="segment"),
        *(_Op(_IF_EQUAL, header, yes="options") for header in _OPTION_HEADERS),
        *(_Op(_IF_EQUAL, header, yes="accept") for header in _OTHER_HEADERS),
        _Op(_JUMP, yes="reject"),
        "options",  # among them the jumbo payload option that packets over 64 KiB begin with (RFC 2675)
        _Op(_BYTE_AT_X, 41),
        _Op(_SHIFT_LEFT, 3),
        _Op(_ADD, 48),
        _Op(_A_TO_M, _HEADERS),
        _Op(_BYTE_AT_X, 40),
        _Op(_IF_EQUAL, _TCP, yes="segment"),
        *(_Op(_IF_EQUAL, header, yes="accept") for header in (*_OPTION_HEADERS, *_OTHER_HEADERS)),
        _Op(_JUMP, yes="reject"),
    ]


def _beginnings() -> _Lines:
    """Behind `_segments`: falls through for a payload that is a Close frame or begins like an HTTP head."""
    return [
        _Op(_A_TO_M, _LENGTH),
        _Op(_A_FROM_M, _NETWORK),
        _Op(_ADD_X),
        _Op(_X_FROM_M, _HEADERS),
        _Op(_ADD_X),
        _Op(_X_FROM_A),
        _Op(_BYTE_AT_X, 0),
        _Op(_IF_EQUAL, _CLOSE, yes="close"),
        _Op(_A_FROM_M, _LENGTH),
        _Op(_IF_AT_LEAST, 4, no="reject"),  # what an Ethernet frame is padded with is no payload
        _Op(_WORD_AT_X, 0),
        _Op(_IF_EQUAL, int.from_bytes(b"GET "), yes="accept"),
        _Op(_IF_EQUAL, int.from_bytes(b"HTTP"), yes="accept", no="reject"),
        "close",
        _Op(_BYTE_AT_X, 1),  # the mask bit and the payload's length
        _Op(_A_TO_M, _SECOND),
        _Op(_SHIFT_RIGHT, 7),
        _Op(_SHIFT_LEFT, 2),  # 4 bytes of masking key, or none
        _Op(_X_FROM_A),
        _Op(_A_FROM_M, _SECOND),
        _Op(_AND, 0x7F),
        _Op(_IF_GREATER, _MOST_PAYLOAD, yes="reject"),
        _Op(_ADD_X),
        _Op(_ADD, 2),
        _Op(_X_FROM_A),
        _Op(_A_FROM_M, _LENGTH),
        _Op(_IF_EQUAL_X, no="reject"),
    ]


def _verdicts(snap: int) -> _Lines:
    return ["accept", _Op(_RETURN, snap), "reject", _Op(_RETURN, 0)]


def _assembled(lines: _Lines) -> bytes:
    """The instructions as the kernel takes them."""
    ops: list[_Op] = []
    labels: dict[str, int] = {}
    for line in lines:
        if isinstance(line, str):
            labels[line] = len(ops)
        else:
            ops.append(line)

    def distance(here: int, label: str) -> int:
        return labels[label] - here - 1 if label else 0

    packed = bytearray()
    for here, (code, k, yes, no) in enumerate(ops):
        if code == _JUMP:
            packed += struct.pack("=HBBI", code, 0, 0, distance(here, yes))
        else:
            packed += struct.pack("=HBBI", code, distance(here, yes), distance(here, no), k)
    return bytes(packed)
