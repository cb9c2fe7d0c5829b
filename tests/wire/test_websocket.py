"""One open WebSocket: who closed it with what, in which order, and how long Pings took."""

import pytest

from exporter.closecodes import Vocabulary
from exporter.events import (
    AnomalySeen,
    Closed,
    Ending,
    EndKind,
    Initiator,
    Passing,
    Peer,
    PingAnswered,
    Side,
    Traffic,
    TransportEnd,
    direction_from,
    opposite,
)
from exporter.wire.websocket import MAX_PINGS
from tests.wire.support import (
    BINARY,
    CLOSE,
    KEY,
    ORIGIN,
    PING,
    PONG,
    TEXT,
    Observed,
    Turn,
    accepts,
    asks,
    close,
    every_split,
    frame,
    server,
)

VOCABULARY = Vocabulary(listed=frozenset({4001}), going_away=frozenset({3001}))


def sends(side: Side, opcode: int, payload: bytes = b"", *, fin: bool = True) -> Turn:
    """A frame from `side`, masked as it must be."""
    return side, frame(opcode, payload, fin=fin, key=KEY if side == "client" else None)


def closes(side: Side, code: int | None = None, reason: bytes = b"") -> Turn:
    """A Close frame from `side`."""
    return sends(side, CLOSE, b"" if code is None else code.to_bytes(2) + reason)


def ended(turns: list[Turn], side: Initiator = "server", kind: EndKind = "fin") -> tuple[Closed, list[str]]:
    """The Closed of a WebSocket on which `turns` passed, however they are split, and the kinds of anomaly."""
    outcomes = []
    for pieces in every_split(turns):
        observed = Observed(VOCABULARY, opened=True)
        observed.take(*pieces)
        assert not observed.of(Closed)
        observed.observer.transport_ended(side, kind)
        observed.observer.finish()
        [closed] = observed.of(Closed)
        [ending] = observed.of(Ending)
        assert observed.events.index(ending) < observed.events.index(closed) == len(observed.events) - 1
        for one in (ending, closed):
            assert (one.code, one.close_class, one.initiator) == (closed.code, closed.close_class, closed.initiator)
        outcomes.append((closed, [f"{seen.side} {seen.kind}" for seen in observed.of(AnomalySeen)]))
    assert all(outcome == outcomes[0] for outcome in outcomes)
    return outcomes[0]


CODES: list[tuple[int | None, str, str]] = [
    (None, "1005", "normal"),
    (1000, "1000", "normal"),
    (1001, "1001", "going_away"),
    (1009, "1009", "too_big"),
    (1011, "1011", "internal_error"),
    (1012, "1012", "going_away"),
    (3000, "3000", "policy"),
    (3001, "3001", "going_away"),
    (3999, "3xxx", "application"),
    (4000, "4xxx", "application"),
    (4001, "4001", "application"),
    (1016, "reserved", "invalid"),
    (2999, "reserved", "invalid"),
]

ILLEGAL = [0, 1, 999, 1004, 1005, 1006, 1015, 5000, 65535]


@pytest.mark.parametrize("side", ["client", "server"])
@pytest.mark.parametrize(("code", "label", "close_class"), CODES)
def test_the_code_of_a_close_frame(side: Side, code: int | None, label: str, close_class: str) -> None:
    """A WebSocket ends with the label and class of its Close frame's code; an empty one is 1005."""
    closed, anomalies = ended([closes(side, code, b"bye" if code else b""), closes(opposite(side), code)])
    assert (closed.code, closed.close_class, closed.initiator) == (label, close_class, side)
    assert (closed.wire_code, closed.reason) == (code, "bye" if code else "")
    assert anomalies == []


@pytest.mark.parametrize("code", ILLEGAL)
def test_an_illegal_code_is_invalid(code: int) -> None:
    """It keeps its number for the log line only: 1005 and 1006 as labels mean "empty" and "none"."""
    closed, anomalies = ended([closes("client", code, b"\xff")])
    assert (closed.code, closed.close_class, closed.wire_code) == ("invalid", "invalid", code)
    assert closed.reason == "\ufffd"
    assert anomalies == ["client illegal_close_code"]


@pytest.mark.parametrize(
    ("body", "anomalies"),
    [
        (b"\x03", ["server illegal_close_code"]),
        (b"\x03\xe8" + bytes(124), ["server oversized_control", "server illegal_close_code"]),
    ],
)
def test_a_malformed_close_is_invalid(body: bytes, anomalies: list[str]) -> None:
    """One byte is no code (RFC 6455 section 5.5.1), and over 125 bytes it is no control frame."""
    closed, seen = ended([sends("server", CLOSE, body)])
    assert (closed.code, closed.wire_code, closed.reason, closed.initiator) == ("invalid", None, "", "server")
    assert seen == anomalies


@pytest.mark.parametrize("code", [1001, 4001])
def test_bad_utf8_in_a_reason_does_not_matter_to_the_code(code: int) -> None:
    """The reason is for the log line, where bad bytes are replaced."""
    closed, anomalies = ended([closes("server", code, b"caf\xe9")])
    assert (closed.code, closed.reason, anomalies) == (str(code), "caf\ufffd", [])


@pytest.mark.parametrize(("first", "second"), [("client", "server"), ("server", "client")])
def test_the_first_close_frame_tells_and_the_answer_is_noise(first: Side, second: Side) -> None:
    """Also when TCP was ended by the other side, or both sent Close at once: the order in which they passed counts."""
    closed, anomalies = ended([closes(first, 1001, b"first"), closes(second, 1000, b"second")], side=second)
    assert (closed.code, closed.initiator, closed.reason) == ("1001", first, "first")
    assert closed.transport_end == TransportEnd(second, "fin")
    assert anomalies == [f"{second} echo_mismatch"]


@pytest.mark.parametrize(("sent", "answered"), [(4001, None), (None, 1000), (1005, 1002)])
def test_an_answer_with_another_code_is_an_anomaly(sent: int | None, answered: int | None) -> None:
    """A Close is typically answered with its own code (RFC 6455 section 5.5.1)."""
    _, anomalies = ended([closes("server", sent), closes("client", answered)])
    assert anomalies[-1] == "client echo_mismatch"


def test_a_second_close_of_the_same_side_changes_nothing() -> None:
    """Neither its code nor data behind a Close counts (RFC 6455 section 5.5.1)."""
    closed, anomalies = ended(
        [closes("client", 1001), closes("client", 1009), sends("client", TEXT, b"late"), closes("server", 1001)]
    )
    assert (closed.code, closed.initiator, closed.client_to_server.messages) == ("1001", "client", 0)
    assert anomalies == ["client second_close", "client data_after_close"]


def test_messages_towards_a_side_that_sent_close_still_count() -> None:
    """Until its own Close, the other side may send."""
    closed, anomalies = ended([closes("server", 1001), sends("client", TEXT, b"last words"), closes("client", 1001)])
    assert (closed.client_to_server.messages, closed.client_to_server.largest_message) == (1, 10)
    assert anomalies == []


@pytest.mark.parametrize("kind", ["fin", "reset", "timeout", "error"])
@pytest.mark.parametrize("side", ["client", "server", "exporter"])
def test_without_a_close_frame_it_is_1006_by_whoever_ended_tcp(side: Initiator, kind: EndKind) -> None:
    """An unfinished Close frame is none."""
    for turns in ([], [sends("client", TEXT, b"hi")], [server(close(1001)[:3])]):
        closed, _ = ended(turns, side, kind)
        assert (closed.code, closed.close_class, closed.initiator) == ("1006", "abnormal", side)
        assert (closed.wire_code, closed.reason, closed.transport_end) == (None, "", TransportEnd(side, kind))


def test_the_first_side_to_end_tcp_is_the_initiator() -> None:
    """The other one's FIN or RST answers it."""
    observed = Observed(opened=True)
    observed.observer.transport_ended("client", "reset")
    observed.observer.transport_ended("server", "fin")
    observed.observer.finish()
    [closed] = observed.of(Closed)
    assert (closed.initiator, closed.transport_end) == ("client", TransportEnd("client", "reset"))


def test_an_end_that_nobody_saw_is_unknown() -> None:
    """Neither a Close frame nor the end of TCP: nothing is known, so nothing is said."""
    observed = Observed(opened=True)
    observed.observer.finish()
    [closed] = observed.of(Closed)
    assert (closed.code, closed.close_class, closed.initiator) == ("unknown", "unknown", "unknown")
    assert closed.transport_end is None


def test_closed_carries_the_whole_account() -> None:
    """Duration from the 101 to the end, traffic of each direction, and who the client was."""
    observed = Observed()
    fields = {"Sec_WebSocket_Protocol": "chat.v2", "Sec_WebSocket_Extensions": "permessage-deflate"}
    observed.take(asks("GET /chat?token=x HTTP/1.1", User_Agent="acme/2"))
    observed.now += 0.25
    observed.take(accepts(**fields))
    observed.now += 60
    hello, picture, rest = frame(TEXT, b"Hello", key=KEY), frame(BINARY, bytes(300), rsv=4), b"\x82\x7e\x01"
    observed.take(("client", hello * 2), ("server", picture + close(1009, b"too big") + rest))
    observed.now += 3.5
    observed.observer.transport_ended("server", "reset")
    observed.observer.finish()
    assert observed.events[1:] == [
        Ending(ORIGIN, "1009", "too_big", "server", Passing(0, 5, 5, True, 5), user_agent="acme/2"),
        Closed(
            origin=ORIGIN,
            code="1009",
            close_class="too_big",
            initiator="server",
            duration=63.5,
            wire_code=1009,
            reason="too big",
            peer=Peer("192.0.2.7", "server.example.com", "/chat", "acme/2", "chat.v2"),
            client_to_server=Traffic(len(hello * 2), 2, 5),
            server_to_client=Traffic(len(picture) + 11 + 3, 1, 300),
            transport_end=TransportEnd("server", "reset"),
        ),
    ]
    sizes = observed.watch.server_to_client
    assert (sizes.compressed.cumulative([512.0]), sizes.plain.cumulative([512.0])) == (([1], 1, 300), ([0], 0, 0))
    assert observed.watch.client_to_server.plain.cumulative([128.0]) == ([2], 2, 10)


def towards(ending: Ending) -> tuple[int, int, int]:
    """The sizes of what was on its way to the initiator."""
    assert ending.passing is not None
    return ending.passing.unfinished, ending.passing.last_second, ending.passing.recent


class TestEnding:
    """The moment at which a WebSocket is over for its peers, and what its initiator may have refused by that."""

    @staticmethod
    def at(observed: Observed, tick: int, *turns: Turn) -> None:
        """Let `turns` pass in this tick."""
        observed.watch.client_to_server.tick = observed.watch.server_to_client.tick = tick
        observed.take(*turns)

    @pytest.mark.parametrize("side", ["client", "server"])
    def test_it_comes_with_the_first_close_frame(self, side: Side) -> None:
        """TCP may linger, and the client be back before it ends. What comes behind is no second ending."""
        observed = Observed(VOCABULARY, opened=True)
        observed.take(closes(side, 3001, b"bye"))
        assert observed.events == [Ending(ORIGIN, "3001", "going_away", side, Passing())]
        other = opposite(side)
        observed.take(closes(other, 1009), closes(other, 1009), sends(side, TEXT, b"late"))
        observed.observer.transport_ended(other, "reset")
        observed.observer.finish()
        assert len(observed.of(Ending)) == 1

    @pytest.mark.parametrize(("end", "by"), [("client", "client"), ("server", "server"), ("exporter", "exporter")])
    def test_without_a_close_frame_it_comes_with_the_end_of_tcp(self, end: Initiator, by: Initiator) -> None:
        """Once both directions are over: until then a Close frame may still come."""
        observed = Observed(opened=True)
        observed.observer.transport_ended(end, "reset")
        assert observed.events == []
        observed.observer.finish()
        passing = None if by == "exporter" else Passing()
        assert observed.of(Ending) == [Ending(ORIGIN, "1006", "abnormal", by, passing)]

    @pytest.mark.parametrize("kind", ["fin", "reset"])
    @pytest.mark.parametrize(("end", "side"), [("client", "server"), ("server", "server"), ("server", "client")])
    def test_last_words_count(self, end: Side, side: Side, kind: EndKind) -> None:
        """A Close frame that is read behind an RST, or from the other half of TCP, is the reason all the same."""
        observed = Observed(opened=True)
        observed.observer.transport_ended(end, kind)
        observed.take(closes(side, 1009))
        observed.observer.finish()
        [ending], [closed] = observed.of(Ending), observed.of(Closed)
        assert (ending.code, ending.initiator) == (closed.code, closed.initiator) == ("1009", side)
        assert closed.transport_end == TransportEnd(end, kind)

    def test_a_fault_of_ours_behind_a_close_frame_changes_nothing(self) -> None:
        """The ending has been told, and its Closed says the same."""
        observed = Observed(opened=True)
        observed.take(closes("server", 1001))
        observed.observer.fail()
        observed.observer.finish()
        [ending], [closed] = observed.of(Ending), observed.of(Closed)
        assert (ending.code, ending.initiator) == (closed.code, closed.initiator) == ("1001", "server")

    def test_after_a_fault_of_ours_nothing_is_known(self) -> None:
        """Neither how it ended nor what was on its way."""
        observed = Observed(opened=True)
        observed.take(sends("client", TEXT, bytes(100)))
        observed.observer.fail()
        observed.observer.transport_ended("server", "reset")
        observed.observer.finish()
        assert observed.of(Ending) == [Ending(ORIGIN, "unknown", "unknown", "unknown", None)]

    @pytest.mark.parametrize("side", ["client", "server"])
    def test_what_passed_towards_the_initiator(self, side: Side) -> None:
        """Only what it was sent it can have refused, by age: under way, completed within the last second, or 5."""
        observed = Observed(opened=True)
        other = opposite(side)
        self.at(observed, 0, sends(other, BINARY, bytes(3000)), sends(side, BINARY, bytes(9000)))
        self.at(observed, 6, sends(other, BINARY, bytes(200)))
        self.at(observed, 7, sends(other, TEXT, bytes(50), fin=False))
        self.at(observed, 7, closes(side, 1009))
        [ending] = observed.of(Ending)
        assert towards(ending) == (50, 200, 3000)

    @pytest.mark.parametrize("deflate", [True, False])
    def test_compression_is_told(self, deflate: bool) -> None:
        """Then the sizes are not those that a limit applies to."""
        extensions = {"Sec_WebSocket_Extensions": "permessage-deflate"} if deflate else {}
        observed = Observed(opened=True, **extensions)
        observed.take(sends("client", TEXT, bytes(100)), closes("server", 1009))
        [ending] = observed.of(Ending)
        assert ending.passing == Passing(0, 100, 100, deflate, 100)

    def test_a_refused_message_is_not_accepted_while_tcp_lingers(self) -> None:
        """A peer that does not answer the Close for long, or goes on sending, makes nothing acceptable."""
        observed = Observed(opened=True)
        self.at(observed, 0, sends("client", BINARY, bytes(3000)), closes("server", 1009))
        self.at(observed, 30, sends("client", BINARY, bytes(100)), closes("client", 1009))
        self.at(observed, 60)
        observed.observer.transport_ended("client", "fin")
        observed.observer.finish()
        assert observed.watch.client_to_server.accepted == 0

    @pytest.mark.parametrize("kind", ["fin", "reset"])
    def test_a_message_is_as_old_as_when_its_receiver_ended_tcp(self, kind: EndKind) -> None:
        """The other side's half may last: what was refused by the end does not come to be accepted, or forgotten."""
        observed = Observed(opened=True)
        self.at(observed, 0, sends("client", BINARY, bytes(3000)))
        observed.observer.transport_ended("server", kind)
        self.at(observed, 60, sends("client", BINARY, bytes(5000)))
        observed.observer.transport_ended("client", "fin")
        observed.observer.finish()
        [ending] = observed.of(Ending)
        assert (ending.code, ending.initiator, towards(ending)) == ("1006", "server", (0, 3000, 3000))
        assert observed.watch.client_to_server.accepted == 0

    def test_a_client_that_only_listens_refuses_nothing(self) -> None:
        """It ended its half before anything was sent to it, before its handshake was even answered."""
        observed = Observed()
        observed.take(asks(), sends("client", BINARY, bytes(200)))
        observed.observer.transport_ended("client", "fin")
        observed.take(("server", accepts()[1] + sends("server", BINARY, bytes(9000))[1]))
        observed.observer.transport_ended("server", "fin")
        observed.observer.finish()
        [ending] = observed.of(Ending)
        assert (ending.initiator, towards(ending)) == ("client", (0, 0, 0))

    @pytest.mark.parametrize("by", ["client", "server", "tcp"])
    @pytest.mark.parametrize("side", ["client", "server"])
    def test_what_is_old_when_it_ends_was_accepted(self, side: Side, by: str) -> None:
        """In both directions, whoever ends it, also where nothing passed since."""
        observed = Observed(opened=True)
        self.at(observed, 0, sends(side, BINARY, bytes(3000)))
        self.at(observed, 11)
        if by == "tcp":
            observed.observer.transport_ended("client", "fin")
        else:
            observed.take(closes("client" if by == "client" else "server", 1000))
        watch = observed.watch
        sizes = watch.client_to_server if side == "client" else watch.server_to_client
        assert sizes.accepted == 3000


def answers(script: list[tuple[float, Turn]]) -> list[tuple[Side, float]]:
    """The round trips told when each turn passes at its time, by the side that answered."""
    observed = Observed(opened=True)
    begin = observed.now
    for at, turn in script:
        observed.now = begin + at
        observed.take(turn)
    assert not observed.of(AnomalySeen)
    assert all(answered.origin == ORIGIN for answered in observed.of(PingAnswered))
    return [(answered.peer, answered.rtt) for answered in observed.of(PingAnswered)]


@pytest.mark.parametrize(("asking", "answering"), [("client", "server"), ("server", "client")])
def test_a_pong_answers_the_ping_with_its_payload(asking: Side, answering: Side) -> None:
    """Each Ping's time is told once, for the side that answered."""
    script = [
        (1.0, sends(asking, PING, b"a")),
        (2.0, sends(asking, PING, b"b")),
        (2.5, sends(answering, PONG, b"a")),
        (4.0, sends(answering, PONG, b"b")),
        (9.0, sends(answering, PONG, b"b")),
    ]
    assert answers(script) == [(answering, 1.5), (answering, 2.0)]


def test_unsolicited_pongs_are_no_answers() -> None:
    """They serve as a heartbeat (RFC 6455 section 5.5.3); a side does not answer its own Ping, nor another payload."""
    script = [
        (0.0, sends("client", PONG)),
        (1.0, sends("client", PING, b"x")),
        (2.0, sends("client", PONG, b"x")),
        (3.0, sends("server", PONG, b"y")),
        (4.0, sends("server", PONG)),
    ]
    assert answers(script) == []


def test_equal_payloads_of_both_sides_are_kept_apart() -> None:
    """Many peers send empty Pings."""
    script = [
        (0.0, sends("client", PING)),
        (1.0, sends("server", PING)),
        (5.0, sends("server", PONG)),
        (7.0, sends("client", PONG)),
    ]
    assert answers(script) == [("server", 5.0), ("client", 6.0)]


def test_of_equal_pings_the_oldest_is_answered() -> None:
    """A peer answers in order, or answers only once (RFC 6455 section 5.5.3): then the rest stay unanswered."""
    script = [
        (0.0, sends("server", PING)),
        (3.0, sends("server", PING)),
        (4.0, sends("client", PONG)),
        (5.0, sends("client", PONG)),
        (8.0, sends("server", PING)),
        (9.0, sends("client", PONG)),
    ]
    assert answers(script) == [("client", 4.0), ("client", 1.0)]


def test_a_pong_settles_the_pings_before_it() -> None:
    """A peer may answer only the last of several (RFC 6455 section 5.5.3); the others get no late, false time."""
    script = [
        (0.0, sends("server", PING, b"a")),
        (1.0, sends("server", PING, b"b")),
        (1.5, sends("client", PONG, b"b")),
        (100.0, sends("server", PING, b"a")),
        (100.5, sends("client", PONG, b"a")),
    ]
    assert answers(script) == [("client", 0.5), ("client", 0.5)]


def test_forgotten_pings_are_bounded() -> None:
    """Of unanswered Pings only the last ones are remembered, whatever the other side sends."""
    flood = [(1.0, sends("client", PING, bytes([number]))) for number in range(100)]
    mine = (0.0, sends("server", PING, b"mine"))
    late = [(2.0, sends("server", PONG, bytes([number]))) for number in range(100)]
    told = answers([mine, *flood, *late, (3.0, sends("client", PONG, b"mine"))])
    assert told == [("server", 1.0)] * MAX_PINGS + [("client", 3.0)]


def test_oversized_pings_and_pongs_take_no_part() -> None:
    """Their payload is not kept, so nothing can be matched."""
    observed = Observed(opened=True)
    observed.take(sends("client", PING, bytes(126)), sends("server", PONG, bytes(126)))
    assert [seen.kind for seen in observed.of(AnomalySeen)] == ["oversized_control"] * 2
    assert not observed.of(PingAnswered)


def test_directions_are_named_after_their_sender() -> None:
    """`client_to_server` is what the client sends."""
    assert [direction_from(side) for side in ("client", "server")] == ["client_to_server", "server_to_client"]
