"""A night at a service: what a recorder and a status book have seen, for the status page."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

from exporter.closecodes import Vocabulary
from exporter.events import (
    Bracket,
    BuildReturns,
    Closed,
    HandshakeEnded,
    Initiator,
    MassClose,
    MassCloseEnded,
    MessageRefused,
    Origin,
    Peer,
    ProbeFailed,
    ProbeUp,
    Refusals,
    Standing,
    Traffic,
)
from exporter.metrics.recorder import Recorder
from exporter.status import StatusBook
from exporter.wire.sizes import DirectionSizes

NOW: Final = 1_778_594_851.0
"""12 May 2026, 14:07:31 UTC."""
MIB: Final = 1 << 20

CHAT: Final = Origin("tap", "chat")
FEED: Final = Origin("tap", "feed")
LAMBDA: Final = Origin("webhook", "lambda")
PROBE: Final = Origin("probe", "chat")

PHONE: Final = Peer("203.0.113.24", "chat.example.com", "/ws/rooms/4711", "acme-app/3.2.1 (iPhone; iOS 18.4)")
DESK: Final = Peer(
    "2001:db8:4:1::9c3",
    "chat.example.com",
    "/ws/rooms/lobby",
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/147.0.0.0 Safari/537.36",
)
WORKER: Final = Peer("198.51.100.7", "feed.internal", "/v2/subscribe", "python-websockets/15.0.1")

HERD: Final = MassClose(
    CHAT,
    "herd",
    lasted=41.0,
    lost=3120,
    lost_by={("1001", "server"): 3097, ("1006", "server"): 23},
    back=3066,
    tried=3118,
    returned={"1s": 0, "5s": 2890, "30s": 170, "120s": 6, "later": 0},
    busiest_second=1871,
    answered=3610,
    rejected=412,
    gap=2.1,
    draining=False,
    builds=(
        BuildReturns("acme-app/3", 2544, 2512, 2540, 2390, 0.4, "immediate"),
        BuildReturns("Chrome/147", 401, 398, 401, 0, 3.1, "jittered"),
        BuildReturns("okhttp/4", 160, 152, 160, 1, 15.0, "fixed_interval"),
        BuildReturns("python-websockets/15", 15, 4, 4, 1, 2.0, "too_few"),
    ),
)
HEALTHY: Final = replace(
    HERD,
    verdict="healthy",
    lasted=58.0,
    lost=2980,
    lost_by={("1012", "server"): 2980},
    back=2975,
    tried=2980,
    returned={"1s": 402, "5s": 2301, "30s": 270, "120s": 5, "later": 0},
    busiest_second=611,
    answered=2999,
    rejected=0,
    gap=0.3,
    builds=(),
)
STANDINGS: Final = {
    CHAT: Standing(
        last_minute=212,
        peak_per_second=11,
        mass_close_active=False,
        shared_connections=88,
        stuck_clients=3,
        brackets={"client_to_server": Bracket(1_048_576, 1_100_210), "server_to_client": Bracket(900_000)},
        refusals=(
            Refusals("client_to_server", "close_1009", 37, 37, 1_153_434, 1_887_437, 214.0),
            Refusals("server_to_client", "suspected", 2, 1, 4_194_304, 4_194_304, 5110.0),
        ),
    ),
    FEED: Standing(4, 1, False, 0, 0, {"client_to_server": Bracket(), "server_to_client": Bracket(15_938_355)}),
    LAMBDA: Standing(0, 0, False, 0, 0, {"client_to_server": Bracket(), "server_to_client": Bracket()}),
}


def closes(
    origin: Origin, code: str, close_class: str, initiator: Initiator, peer: Peer, *, duration: float, reason: str = ""
) -> Closed:
    wire = int(code) if code.isdecimal() and code not in ("1005", "1006") else None
    return Closed(
        origin, code, close_class, initiator, duration, wire, reason, peer, Traffic(4096, 12, 811), Traffic(90_311, 240)
    )


NEWEST: Final[Sequence[tuple[float, Closed]]] = (
    (3.0, closes(CHAT, "1009", "too_big", "server", PHONE, duration=1.9, reason="message too big")),
    (9.0, closes(CHAT, "1001", "going_away", "client", DESK, duration=1830.0)),
    (12.4, closes(CHAT, "1009", "too_big", "server", PHONE, duration=2.2, reason="message too big")),
    (31.0, closes(CHAT, "1006", "abnormal", "client", PHONE, duration=45.0)),
    (58.0, closes(FEED, "1000", "normal", "server", WORKER, duration=3600.0, reason="end of stream")),
    (74.0, closes(CHAT, "1011", "internal_error", "server", DESK, duration=20.1, reason="keepalive ping timeout")),
    (91.0, closes(PROBE, "1012", "going_away", "server", Peer(), duration=190_000.0, reason="service restart")),
    (302.0, closes(CHAT, "4404", "application", "server", DESK, duration=0.2, reason="room not found")),
    (95_000.0, closes(CHAT, "4xxx", "application", "client", PHONE, duration=8.0, reason="👋 bis später")),
)
"""How many seconds ago each was."""

OLDER: Final = (
    (CHAT, "1001", "going_away", "client", 9_412),
    (CHAT, "1001", "going_away", "server", 3_097),
    (CHAT, "1006", "abnormal", "client", 1_877),
    (CHAT, "1011", "internal_error", "server", 214),
    (CHAT, "1009", "too_big", "server", 35),
    (FEED, "1000", "normal", "server", 611),
    (FEED, "1005", "normal", "client", 90),
)


class Clock:
    """A wall clock that says what it is told."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


def night() -> tuple[Recorder, StatusBook]:
    """A recorder and a book that have been told everything."""
    clock = Clock()
    clock.now = NOW - 3 * 86_400 - 17_000
    recorder, book = Recorder(clock), StatusBook(clock)
    vocabulary = Vocabulary(frozenset({4404}), frozenset())
    _messages(recorder, vocabulary)
    recorder.watch_reports("lambda", vocabulary)
    recorder.watch_probe("chat", vocabulary)
    recorder.standings = lambda: STANDINGS
    for event in _events():
        recorder.emit(event)
    for ago, mass_close in ((96_400.0, HEALTHY), (280.0, HERD)):
        clock.now = NOW - ago
        recorder.emit(MassCloseEnded(mass_close))
        book.emit(MassCloseEnded(mass_close))
    for ago, closed in reversed(NEWEST):
        clock.now = NOW - ago
        recorder.emit(closed)
        book.emit(closed)
    clock.now = NOW
    return recorder, book


def _messages(recorder: Recorder, vocabulary: Vocabulary) -> None:
    chat = recorder.watch(CHAT, vocabulary)
    feed = recorder.watch(FEED, vocabulary)
    recorder.message_size_limit(CHAT, "client_to_server", MIB)
    recorder.message_size_limit(FEED, "server_to_client", 16 * MIB)
    for power, number in enumerate((500, 500, 500, 500, 500, 500, 500, 410, 120, 64, 31, 11, 4)):
        for _ in range(number):
            _pass(chat.client_to_server, (64 << power) + 9)
            _pass(chat.server_to_client, (32 << power) + 100)
    for _ in range(37):
        _pass(chat.client_to_server, 1_500_000)
    for _ in range(240):
        chat.server_to_client.compressed.add(700)
    for _ in range(90):
        _pass(feed.client_to_server, 80)
    for size in (4_000, 60_000, 900_000, 15_938_355):
        for _ in range(300):
            _pass(feed.server_to_client, size)


def _pass(direction: DirectionSizes, size: int) -> None:
    """What a frame meter does with a message."""
    direction.plain.add(size)
    if size > direction.moment.near:
        direction.headroom.add(size)


def _events() -> Iterator[HandshakeEnded | Closed | MessageRefused | ProbeUp | ProbeFailed]:
    for origin, opened in ((CHAT, 16_000), (FEED, 714), (PROBE, 2)):
        for _ in range(opened):
            yield HandshakeEnded(origin, "accepted", "101", 0.01)
    for origin, code, close_class, initiator, number in OLDER:
        closed = closes(origin, code, close_class, "client" if initiator == "client" else "server", DESK, duration=60.0)
        for _ in range(number):
            yield closed
    for _ in range(30):
        yield MessageRefused(CHAT, "client_to_server", "close_1009", 1_200_000, repeated=True)
    yield ProbeFailed(PROBE, "http_5xx")
    yield ProbeUp(PROBE, 0.04)
