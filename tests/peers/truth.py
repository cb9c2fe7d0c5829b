"""What a record says happened, read without any of the exporter's code: the handshake, the first Close, the end."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from tests.peers.witness import Kind, Record, Side

CLOSE: Final = 0x8
HEAD_END: Final = b"\r\n\r\n"

VERBATIM: Final = {1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3003, 3008}
"""Registered codes that are legal on the wire (RFC 6455 section 7.4, and the IANA registry)."""
NO_CLOSE: Final = "1006"
LISTED: Final = 4000
"""The one application code that the tapped target lists."""


@dataclass(frozen=True, slots=True)
class Ending:
    """How a WebSocket ended: the label of its code, who began it, and how TCP ended first."""

    code: str
    initiator: Side
    transport: tuple[Side, Kind]

    def __str__(self) -> str:
        return f"{self.code} {self.initiator}"


def label(close: bytes | None) -> str:
    """The label of a Close frame with this payload; of no Close frame, for None."""
    if close is None:
        return NO_CLOSE
    if not close:
        return "1005"
    code = int.from_bytes(close[:2])
    if len(close) == 1 or code > 4999 or code in (1004, 1005, 1006, 1015) or code < 1000:
        return "invalid"
    if code in VERBATIM or code == LISTED:
        return str(code)
    return "reserved" if code < 3000 else f"{code // 1000}xxx"


def status(record: Record) -> int | None:
    """The HTTP status that the client got."""
    head = record.sent_by("server")
    return int(head[9:12]) if HEAD_END in head else None


def ending(record: Record) -> Ending:
    """What the record of an ended WebSocket says: the first Close frame wins, without one who ended TCP first."""
    transport = next((seen.side, seen.kind) for seen in record.seen if seen.kind != "data")
    closes = {side: first_close(record.sent_by(side)) for side in ("client", "server")}
    passed = {"client": 0, "server": 0}
    for seen in record.seen:
        passed[seen.side] += len(seen.data)
        close = closes[seen.side]
        if close is not None and passed[seen.side] >= close[0]:
            return Ending(label(close[1]), seen.side, transport)
    return Ending(label(None), transport[0], transport)


def first_close(stream: bytes) -> tuple[int, bytes] | None:
    """The first Close frame behind an HTTP head: where in the stream it ends, and its payload unmasked."""
    for opcode, payload, end in frames(stream):
        if opcode == CLOSE:
            return end, payload
    return None


def frames(stream: bytes) -> Iterator[tuple[int, bytes, int]]:
    """Opcode, payload and end of each whole frame behind a head (RFC 6455 section 5.2); control frames unmasked."""
    at = stream.find(HEAD_END) + len(HEAD_END)
    while at >= len(HEAD_END) and len(stream) >= at + 2:
        opcode, masked, size = stream[at] & 0xF, stream[at + 1] >> 7, stream[at + 1] & 0x7F
        at += 2
        if size >= 126:
            width = 2 if size == 126 else 8
            size = int.from_bytes(stream[at : at + width])
            at += width
        key = stream[at : at + 4] if masked else bytes(4)
        at += 4 * masked
        payload = stream[at : at + size]
        at += size
        if at > len(stream):
            return
        if opcode >= CLOSE:
            payload = bytes(byte ^ key[i % 4] for i, byte in enumerate(payload))
        yield opcode, payload, at
