"""IP packets made by hand: right ones, whose every field may be made wrong."""

import ipaddress
import struct
from dataclasses import dataclass, replace
from typing import Final

FIN, SYN, RST, PSH, ACK = 0x01, 0x02, 0x04, 0x08, 0x10
TCP: Final = 6

HOP_BY_HOP, ROUTING, FRAGMENT, ESP, AH, NO_NEXT, DESTINATION, MOBILITY, HIP, SHIM6 = (
    0,
    43,
    44,
    50,
    51,
    59,
    60,
    135,
    139,
    140,
)
"""Extension headers of IPv6 (RFC 8200 section 4, and the IANA registry)."""


@dataclass(frozen=True)
class Segment:
    """A TCP segment and the addresses between which it goes."""

    source: str
    destination: str
    source_port: int
    destination_port: int
    sequence: int
    acknowledgement: int
    flags: int
    payload: bytes = b""
    options: bytes = b""

    @property
    def end(self) -> int:
        """The sequence number behind it."""
        length = len(self.payload) + bool(self.flags & SYN) + bool(self.flags & FIN)
        return self.sequence + length & 0xFFFFFFFF

    def but(self, **changes: object) -> "Segment":
        """The same with other fields."""
        return replace(self, **changes)  # type: ignore[arg-type]

    def later(self, by: int, **changes: object) -> "Segment":
        """The same, `by` bytes further on in its stream (or less far)."""
        return self.but(sequence=self.sequence + by & 0xFFFFFFFF, **changes)

    def tcp(self, offset: int | None = None) -> bytes:
        """Header and payload (RFC 9293 section 3.1), with a data offset that may be wrong."""
        words = 5 + len(self.options) // 4 if offset is None else offset
        fields = (self.source_port, self.destination_port, self.sequence, self.acknowledgement)
        head = struct.pack("!HHIIBBHHH", *fields, words << 4, self.flags, 0xFFFF, 0, 0) + self.options
        source, destination = (ipaddress.ip_address(address).packed for address in (self.source, self.destination))
        whole = head + self.payload
        pseudo = source + destination + struct.pack("!II", len(whole), TCP)
        return whole[:16] + struct.pack("!H", checksum(pseudo + whole)) + whole[18:]

    def packet(self) -> bytes:
        """All of it, in IPv4 or IPv6."""
        return self.wrapped(self.tcp())

    def wrapped(self, payload: bytes, protocol: int = TCP) -> bytes:
        """Something else between the same addresses."""
        make = ipv6 if ":" in self.source else ipv4
        return make(self.source, self.destination, payload, protocol)


def checksum(data: bytes) -> int:
    """RFC 1071."""
    data += bytes(len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ipv4(
    source: str,
    destination: str,
    payload: bytes,
    protocol: int = TCP,
    *,
    options: bytes = b"",
    words: int | None = None,
    length: int | None = None,
    fragment: int = 0,
) -> bytes:
    """RFC 791 section 3.1; the header's `words`, the total `length` and flags with the fragment's offset as told."""
    words = 5 + len(options) // 4 if words is None else words
    length = 20 + len(options) + len(payload) if length is None else length
    ends = ipaddress.ip_address(source).packed + ipaddress.ip_address(destination).packed
    head = struct.pack("!BBHHHBBH", 4 << 4 | words, 0, length, 1, fragment, 64, protocol, 0) + ends + options
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + payload


def ipv6(source: str, destination: str, payload: bytes, following: int = TCP, *, length: int | None = None) -> bytes:
    """RFC 8200 section 3."""
    ends = ipaddress.ip_address(source).packed + ipaddress.ip_address(destination).packed
    length = len(payload) if length is None else length
    return struct.pack("!IHBB", 6 << 28, length & 0xFFFF, following, 64) + ends + payload


def extension(following: int, words: int = 0, content: bytes = bytes(6)) -> bytes:
    """An extension header of eight bytes, that says to have `words` of eight bytes more."""
    return struct.pack("!BB6s", following, words, content)


def segment_of(packet: bytes) -> Segment | None:
    """The TCP segment in an IP packet without options and extensions; None where there is none."""
    version = packet[0] >> 4
    ends, size, protocol = (packet[12:20], 20, packet[9]) if version == 4 else (packet[8:40], 40, packet[6])
    if protocol != TCP:
        return None
    half = len(ends) // 2
    source, destination = (str(ipaddress.ip_address(end)) for end in (ends[:half], ends[half:]))
    source_port, destination_port, sequence, acknowledgement, words, flags = struct.unpack_from("!HHIIBB", packet, size)
    payload = packet[size + (words >> 4) * 4 :]
    return Segment(source, destination, source_port, destination_port, sequence, acknowledgement, flags, payload)
