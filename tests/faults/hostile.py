"""What a hostile peer may say of itself, and how it may end: drawn at random, and marked so that it can be found."""

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Final

from exporter.events import SIDES, Side
from tests.wire.support import CLOSE, KEY, asks, frame

MARK: Final = "zqx7"
"""Part of every text."""

TEXTS: Final = (
    '\r\n{{"level":"error","event":"forged {mark}"}}\r\n',
    "\x1b[2J\x1b[31m{mark}\x1b]0;title\x07",
    "\u202e{mark}\u2066\u2069\u200f",
    "{mark}\u2028\u2029\x85\x9b31m",
    "{mark}\x00\x7f\t\x0b\x0c",
    "{mark}\"\\\\'`${{HOME}}%s%n",
    "{mark}\U0001f4a3\u0301\ufeff\uffff",
    'websocket_closes_total{{code="{mark}"}} 1\n# EOF\n',
    "{mark}/../../etc/passwd?token={mark}",
    "{mark}",
)
NEVER_IN_A_HEAD: Final = tuple(map(chr, (*range(9), *range(10, 32), 127)))
"""Characters with which a head is no well-formed HTTP (RFC 9110 section 5.5)."""


@dataclass(frozen=True)
class Visit:
    """One WebSocket of a hostile client: its request, the Close frame that ends it, and from which side."""

    request: bytes
    understood: bool
    side: Side
    code: int
    reason: bytes

    @property
    def close(self) -> bytes:
        return frame(CLOSE, self.code.to_bytes(2) + self.reason, key=KEY if self.side == "client" else None)


def visits(random: Random, count: int) -> Iterator[Visit]:
    """So many of them, all different."""
    for number in range(count):
        mark = f"{MARK}{number}"
        broken = random.random() < 0.1
        host, path, agent, protocol = (_field(random, mark, broken=broken) for _ in range(4))
        request = asks(
            f"GET /{''.join(path.split())} HTTP/1.1",
            Host=host,
            User_Agent=agent,
            Sec_WebSocket_Protocol=protocol,
            X_Forwarded_For=f"{mark}, 10.0.0.1",
            Origin=agent,
        )[1]
        reason = _text(random, mark).encode()[:123] if random.random() < 0.9 else random.randbytes(123)
        code = random.choice((random.randrange(1 << 16), random.randrange(3000, 5000), random.randrange(1000, 1016)))
        understood = not any(character.encode() in request.replace(b"\r\n", b"") for character in NEVER_IN_A_HEAD)
        yield Visit(request, understood, random.choice(SIDES), code, reason)


def _text(random: Random, mark: str) -> str:
    return "".join(random.choice(TEXTS).format(mark=mark) for _ in range(random.randrange(1, 4)))


def _field(random: Random, mark: str, *, broken: bool) -> str:
    """A text as a field's value: UTF-8 seen as Latin-1, without line ends; other controls only if `broken`."""
    text = _text(random, mark).encode().decode("latin-1").replace("\r", "").replace("\n", "")
    return text if broken else "".join(character for character in text if character not in NEVER_IN_A_HEAD)
