"""Builders and witnesses for the wire floor: frames from parts, heads from lines, and what was heard of them."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Final, TypeVar

from exporter.closecodes import Vocabulary
from exporter.events import AnomalyKind, Event, Origin, Side, UnparsedReason
from exporter.wire.connection import ConnectionObserver
from exporter.wire.frames import FrameMeter
from exporter.wire.sizes import DirectionSizes, Headroom, MessageSizes
from exporter.wire.upgrade import HttpConversation, UpgradeRequest, UpgradeResponse
from exporter.wire.websocket import Watch

# Frames.

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
KEY: Final = b"\x37\xfa\x21\x3d"
"""The masking key of the examples in RFC 6455 section 5.7."""
RATIOS: Final = (0.1, 0.25, 0.5, 0.8, 0.9, 0.95, 1.0)
"""Bounds of shares of the limit."""
POWERS: Final = tuple(float(1 << power) for power in range(7, 65))
"""Every bound at which sizes are told apart."""

Heard = tuple[int, bytes | None] | AnomalyKind
"""A control frame (opcode and payload), or an anomaly."""
Histogram = tuple[list[int], int, int]
"""Cumulative counts at `POWERS`, the count of all, and their sum."""


def frame(
    opcode: int,
    payload: bytes = b"",
    *,
    fin: bool = True,
    rsv: int = 0,
    key: bytes | None = None,
    length: int | None = None,
    width: int | None = None,
) -> bytes:
    """A frame, laid out as in RFC 6455 section 5.2; `key` masks it.

    `length` declares another length than the payload's; `width` (0, 2 or 8 bytes of extended payload length) is the
    shortest that holds it, unless given.
    """
    declared = len(payload) if length is None else length
    if width is None:
        width = 0 if declared < 126 else 2 if declared < 1 << 16 else 8
    second = {0: declared, 2: 126, 8: 127}[width] | (key is not None) << 7
    header = bytes([fin << 7 | rsv << 4 | opcode, second]) + (declared.to_bytes(width) if width else b"")
    if key is None:
        return header + payload
    return header + key + bytes(byte ^ mask for byte, mask in zip(payload, cycle(key), strict=False))


def close(code: int, reason: bytes = b"", *, key: bytes | None = None) -> bytes:
    """A Close frame with a code (RFC 6455 section 5.5.1)."""
    return frame(CLOSE, code.to_bytes(2) + reason, key=key)


def histogram(sizes: Iterable[int]) -> Histogram:
    """What counting `sizes` one by one gives."""
    sizes = list(sizes)
    return [sum(size <= bound for size in sizes) for bound in POWERS], len(sizes), sum(sizes)


@dataclass(frozen=True)
class Account:
    """Everything a meter says of one direction."""

    heard: list[Heard]
    plain: Histogram
    compressed: Histogram
    bytes: int
    messages: int
    largest: int
    unfinished: int
    closed: bool


def expected(
    plain: Sequence[int] = (),
    heard: Sequence[Heard] = (),
    *,
    passed: int,
    compressed: Sequence[int] = (),
    unfinished: int = 0,
    closed: bool = False,
) -> Account:
    """The account of messages with these payload sizes, and of whatever else was heard."""
    sizes = [*plain, *compressed]
    largest = max(sizes, default=0)
    return Account(
        list(heard), histogram(plain), histogram(compressed), passed, len(sizes), largest, unfinished, closed
    )


def no_sizes() -> DirectionSizes:
    """A direction in which nothing passed yet."""
    plain = MessageSizes()
    return DirectionSizes(plain, MessageSizes(), Headroom(plain, RATIOS))


class Metered:
    """A meter and the witness that listens to it."""

    def __init__(self, side: Side, *, deflate: bool = False, sizes: DirectionSizes | None = None) -> None:
        self.side = side
        self.heard: list[Heard] = []
        self.sizes = sizes or no_sizes()
        self.meter = FrameMeter(side, self.sizes, deflate=deflate, listener=self)

    def control_frame(self, side: Side, opcode: int, payload: bytes | None) -> None:
        assert side == self.side
        self.heard.append((opcode, payload))

    def anomaly(self, side: Side, kind: AnomalyKind) -> None:
        assert side == self.side
        self.heard.append(kind)

    def account(self) -> Account:
        meter = self.meter
        return Account(
            list(self.heard),
            self.sizes.plain.cumulative(POWERS),
            self.sizes.compressed.cumulative(POWERS),
            meter.bytes,
            meter.messages,
            meter.largest_message,
            meter.unfinished,
            meter.closed,
        )


def account(side: Side, pieces: Iterable[bytes], *, deflate: bool = False) -> Account:
    """What a meter says after `side` sent `pieces`."""
    metered = Metered(side, deflate=deflate)
    for piece in pieces:
        metered.meter.feed(piece)
    return metered.account()


def splits(data: bytes) -> Iterator[list[bytes]]:
    """`data` whole, byte by byte, and in two pieces at each place; of long data, at those near its ends."""
    yield [data]
    yield [data[place : place + 1] for place in range(len(data))]
    near = len(data) if len(data) < 1000 else 20
    for place in range(1, len(data)):
        if place < near or place > len(data) - near:
            yield [data[:place], data[place:]]


# Conversations.

Turn = tuple[Side, bytes]

SAMPLE_KEY: Final = "dGhlIHNhbXBsZSBub25jZQ=="
SAMPLE_ACCEPT: Final = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
"""The accept value of `SAMPLE_KEY`, as in RFC 6455 section 1.3."""


def head(*lines: str) -> bytes:
    """A request or response head."""
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def asks(line: str = "GET /chat HTTP/1.1", **changes: str | None) -> Turn:
    """The client's opening handshake of RFC 6455 section 1.3, with fields changed, added, or (None) left out."""
    fields: dict[str, str | None] = {
        "Host": "server.example.com",
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec_WebSocket_Key": SAMPLE_KEY,
        "Sec_WebSocket_Version": "13",
    }
    return "client", head(line, *_lines(fields | changes))


def accepts(line: str = "HTTP/1.1 101 Switching Protocols", **changes: str | None) -> Turn:
    """The server's opening handshake of RFC 6455 section 1.3, with fields changed, added, or (None) left out."""
    fields: dict[str, str | None] = {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec_WebSocket_Accept": SAMPLE_ACCEPT,
    }
    return "server", head(line, *_lines(fields | changes))


def _lines(fields: dict[str, str | None]) -> list[str]:
    return [f"{name.replace('_', '-')}: {value}" for name, value in fields.items() if value is not None]


def client(data: bytes | str) -> Turn:
    """The client sends `data`; text is a head, given by its lines."""
    return "client", head(*data.splitlines()) if isinstance(data, str) else data


def server(data: bytes | str) -> Turn:
    """The server sends `data`; text is a head, given by its lines."""
    return "server", head(*data.splitlines()) if isinstance(data, str) else data


def every_split(turns: Sequence[Turn]) -> Iterator[list[Turn]]:
    """`turns` as given, each byte by itself, and with one turn in two pieces, for each place of each turn."""
    yield list(turns)
    yield [(side, data[place : place + 1]) for side, data in turns for place in range(len(data))]
    for number, (side, data) in enumerate(turns):
        for first, *second in splits(data):
            if len(second) == 1:
                yield [*turns[:number], (side, first), (side, second[0]), *turns[number + 1 :]]


class Talk:
    """An HTTP conversation and the witness that listens to it.

    Once it was upgraded, what the sides send is collected in `frames`; once it is unparsed, it is not looked at.
    """

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.frames: dict[Side, bytes] | None = None
        self.requests: list[UpgradeRequest] = []
        self.response: UpgradeResponse | None = None
        self.http = HttpConversation(self)

    def take(self, side: Side, data: bytes) -> None:
        if self.frames is not None:
            self.frames[side] += data
        elif not self.heard or not self.heard[-1].startswith("unparsed"):
            (self.http.from_client if side == "client" else self.http.from_server)(data)

    @property
    def incomplete(self) -> bool:
        """Whether part of a request head has passed; of an unparsed stream nobody asks."""
        return self.http.incomplete and not (self.heard and self.heard[-1].startswith("unparsed"))

    def upgrade_requested(self, request: UpgradeRequest) -> None:
        self.heard.append(f"asked for {request.path}" if request.key else f"wrongly asked for {request.path}")
        self.requests.append(request)

    def upgrade_rejected(self, status: int) -> None:
        self.heard.append(f"rejected {status}")

    def upgraded(self, request: UpgradeRequest, response: UpgradeResponse, early: bytes, rest: bytes) -> None:
        assert request is self.requests[-1]
        self.heard.append("upgraded")
        self.response = response
        self.frames = {"client": early, "server": rest}

    def unparsed(self, reason: UnparsedReason) -> None:
        self.heard.append(f"unparsed {reason}")


def converse(turns: Iterable[Turn]) -> Talk:
    """The conversation after all `turns`."""
    talk = Talk()
    for side, data in turns:
        talk.take(side, data)
    return talk


def heard(turns: Sequence[Turn]) -> list[str]:
    """What is heard of `turns`, however they are split."""
    outcomes = [(talk.heard, talk.frames, talk.incomplete) for talk in map(converse, every_split(turns))]
    for outcome in outcomes:
        assert outcome == outcomes[0]
    return outcomes[0][0]


# Observed connections.

ORIGIN: Final = Origin("tap", "chat")
LISTENER: Final = Origin("tap", "default")
E = TypeVar("E", bound=Event)


class Observed:
    """A connection observer with its clock in hand (`now`, seconds), and every event it emitted."""

    def __init__(self, vocabulary: Vocabulary | None = None, *, opened: bool = False, **extensions: str) -> None:
        self.now = 1000.0
        self.events: list[Event] = []
        self.asked: list[UpgradeRequest] = []
        vocabulary = vocabulary or Vocabulary(frozenset(), frozenset())
        self.watch = Watch(ORIGIN, vocabulary, no_sizes(), no_sizes())
        self.observer = ConnectionObserver(
            self._choose, origin=LISTENER, sink=self, clock=lambda: self.now, address="192.0.2.7"
        )
        if opened:
            self.take(asks(), accepts(**extensions))
            self.events.clear()

    def _choose(self, request: UpgradeRequest) -> Watch:
        self.asked.append(request)
        return self.watch

    def emit(self, event: Event) -> None:
        self.events.append(event)

    def take(self, *turns: Turn) -> None:
        for side, data in turns:
            (self.observer.from_client if side == "client" else self.observer.from_server)(data)

    def of(self, kind: type[E]) -> list[E]:
        """The events of one kind, in order."""
        return [event for event in self.events if isinstance(event, kind)]
