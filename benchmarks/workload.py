"""What is sent: bursts of messages from the client, answered by bursts of the same size, as bytes computed once."""

import base64
import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Final

FIN_BINARY: Final = 0x82
FIN_CLOSE: Final = 0x88
MASK: Final = 0x80
MASKING_KEY: Final = bytes.fromhex("37fa213d")

KEY: Final = "dGhlIHNhbXBsZSBub25jZQ=="
"""The sample Sec-WebSocket-Key of RFC 6455 section 1.3."""

GUID: Final = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
"""What a server appends to the key (RFC 6455 section 1.3)."""


def accept_for(key: str) -> str:
    """The Sec-WebSocket-Accept that answers `key`."""
    return base64.b64encode(hashlib.sha1((key + GUID).encode()).digest()).decode()


def frame(first: int, payload: bytes, *, masked: bool) -> bytes:
    """One frame (RFC 6455 section 5.2) with the shortest encoding of its length."""
    size = len(payload)
    bit = MASK if masked else 0
    if size < 126:
        head = bytes((first, bit | size))
    elif size < 1 << 16:
        head = bytes((first, bit | 126)) + size.to_bytes(2)
    else:
        head = bytes((first, bit | 127)) + size.to_bytes(8)
    if not masked:
        return head + payload
    key = (MASKING_KEY * (size // 4 + 1))[:size]
    return head + MASKING_KEY + (int.from_bytes(payload) ^ int.from_bytes(key)).to_bytes(size)


NORMAL_CLOSURE: Final = (1000).to_bytes(2)
CLIENT_CLOSE: Final = frame(FIN_CLOSE, NORMAL_CLOSURE, masked=True)
SERVER_CLOSE: Final = frame(FIN_CLOSE, NORMAL_CLOSURE, masked=False)


FLOOD_PATH: Final = "/flood"
"""Where the service sends without end, and never listens."""

FLOOD: Final = frame(FIN_BINARY, bytes(64 * 1024), masked=False)
"""One message of what it sends there."""


def opening_handshake(path: str) -> bytes:
    """The client's half, about as long as a browser's without its cookies."""
    return (
        f"GET {path} HTTP/1.1\r\nHost: benchmark.test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\nOrigin: http://benchmark.test\r\n"
        "User-Agent: benchmark\r\n\r\n"
    ).encode()


@dataclass(frozen=True)
class Workload:
    """`burst` binary messages of `size` bytes, sent in one piece and answered by as many of the same size."""

    size: int
    burst: int = 1

    @classmethod
    def from_path(cls, path: str) -> "Workload":
        """The workload that a connection's request path names."""
        size, burst = path.removeprefix("/").split("x")
        return cls(int(size), int(burst))

    @property
    def messages(self) -> int:
        """Messages relayed by one round trip, both directions together."""
        return 2 * self.burst

    @property
    def path(self) -> str:
        return f"/{self.size}x{self.burst}"

    @cached_property
    def request(self) -> bytes:
        return frame(FIN_BINARY, b"." * self.size, masked=True) * self.burst

    @cached_property
    def reply(self) -> bytes:
        return frame(FIN_BINARY, b"." * self.size, masked=False) * self.burst
