"""Bytes that mean nothing, or nearly something: what a tap may be sent, as hypothesis draws it or in bulk."""

from collections.abc import Iterator
from random import Random
from typing import Final

from hypothesis import strategies as st

from exporter.events import SIDES, Side
from tests.wire.support import KEY, Turn, accepts, asks, close, frame, head

HTTP: Final = (
    asks()[1],
    accepts()[1],
    accepts(Sec_WebSocket_Extensions="permessage-deflate")[1],
    head("GET / HTTP/1.1", "Host: chat.test"),
    head("HEAD / HTTP/1.1", "Host: chat.test", "Expect: 100-continue"),
    head("POST / HTTP/1.1", "Transfer-Encoding: chunked") + b"5\r\nhello\r\n0\r\n\r\n",
    head("POST / HTTP/1.1", "Content-Length: 5") + b"hel",
    head("CONNECT a:1 HTTP/1.1"),
    head("HTTP/1.1 100 Continue"),
    head("HTTP/1.1 200 OK", "Content-Length: 3") + b"yes",
    head("HTTP/1.1 200 OK", "Transfer-Encoding: chunked") + b"3\r\nyes\r\n",
    head("HTTP/1.1 403 Forbidden"),
    head("HTTP/1.0 200 OK"),
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"\x16\x03\x01\x02\x00",
    b"\r\n\r\n",
)

FRAMES: Final = st.builds(
    frame,
    st.integers(0, 15),
    st.binary(max_size=300),
    fin=st.booleans(),
    rsv=st.integers(0, 7),
    key=st.sampled_from([None, KEY]),
    length=st.none() | st.integers(0, 125),
    width=st.just(None),
)
LONG_FRAMES: Final = st.builds(
    frame, st.integers(0, 15), st.just(b""), key=st.sampled_from([None, KEY]), length=st.integers(0, (1 << 64) - 1)
)
PIECES: Final = st.sampled_from(HTTP) | FRAMES | LONG_FRAMES | st.binary(max_size=400)
CUTS: Final = st.lists(st.integers(1, 50), max_size=20)


@st.composite
def conversations(draw: st.DrawFn) -> list[Turn]:
    """What both sides send in turn, each turn in pieces that have nothing to do with what it means."""
    turns: list[Turn] = []
    for side, data in draw(st.lists(st.tuples(st.sampled_from(SIDES), PIECES), max_size=25)):
        for size in draw(CUTS):
            turns.append((side, data[:size]))
            data = data[size:]
        turns.append((side, data))
    return [(side, data) for side, data in turns if data]


def bulk(random: Random, side: Side, size: int) -> Iterator[bytes]:
    """At least `size` bytes: frames of every kind and length, here and there a Close or no frame, split anyhow."""
    held = bytearray()
    while size > 0 or held:
        if size > 0:
            made = _frame(random, KEY if side == "client" else None)
            held += made
            size -= len(made)
        cut = random.choice((1, 2, 13, 1000, 1 << 16, 1 << 18, 1 << 20))
        if len(held) >= cut or size <= 0:
            yield bytes(held[:cut])
            del held[:cut]


def _frame(random: Random, key: bytes | None) -> bytes:
    kind = random.random()
    if kind < 0.0005:
        return random.randbytes(random.randrange(1, 5000))
    if kind < 0.001:
        return close(random.randrange(1 << 16), random.randbytes(random.randrange(130)), key=key)
    length = int(2 ** random.uniform(0, random.choice((7, 12, 20))))
    payload = random.randbytes(length)
    head_only = frame(random.choice((0, 1, 2, 2, 9, 10)), key=key, fin=random.random() < 0.8, length=length)
    return head_only + payload
