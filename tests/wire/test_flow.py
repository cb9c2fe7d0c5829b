"""A captured connection beside the same bytes seen whole: equal, or `unknown` and said so."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Final

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from exporter.events import AnomalySeen, Attached, Closed, Ending, Event, HandshakeEnded, Origin, Side, StreamUnparsed
from exporter.wire.connection import ConnectionObserver
from exporter.wire.flow import MOST_OUTSIDE, Flow, Losses, PacketClock
from exporter.wire.tcp import FEW_HELD, FEW_HELD_BYTES, MASK, NEVER
from exporter.wire.upgrade import UpgradeRequest
from exporter.wire.websocket import Watch
from tests.wire.support import (
    BINARY,
    CONTINUATION,
    KEY,
    LISTENER,
    ORIGIN,
    PING,
    POWERS,
    TEXT,
    Observed,
    Turn,
    accepts,
    asks,
    close,
    frame,
    no_sizes,
)

SECOND: Final = 1_000_000_000
FIRST: Final[dict[Side, int]] = {"client": MASK - 40, "server": 1000}


@dataclass(frozen=True)
class Sent:
    """A segment: who sent it, from which byte of the stream on."""

    side: Side
    begin: int
    data: bytes
    at: int = 0
    fin: bool = False


class Captured:
    """A flow, its clock, and everything it led to."""

    def __init__(self, *, fresh: bool = True, by_design: bool = False) -> None:
        self.events: list[Event] = []
        self.watch = Watch(ORIGIN, Observed().watch.vocabulary, no_sizes(), no_sizes())
        self.clock = PacketClock()
        self.losses = Losses(by_design=by_design)
        observer = ConnectionObserver(self._choose, origin=LISTENER, sink=self, clock=self.clock, address="192.0.2.7")
        self.flow = Flow(b"key", observer, self.clock, self.losses, FIRST["client"], FIRST["server"], fresh=fresh)
        self.passed: dict[Side, int] = {"client": 0, "server": 0}
        self.now = 0

    def _choose(self, request: UpgradeRequest) -> Watch:
        return self.watch

    def emit(self, event: Event) -> None:
        self.events.append(event)

    def take(self, *segments: Sent) -> None:
        """Take segments as the walk of a ring does: straight to the meter where that is allowed."""
        for sent in segments:
            stream = self.flow.client if sent.side == "client" else self.flow.server
            sequence = FIRST[sent.side] + sent.begin & MASK
            if sequence == stream.expected and sent.data and not sent.fin:
                self.clock.at = sent.at
                stream.expected = sequence + len(sent.data) & MASK
                if len(sent.data) < 2 or not stream.meter.glance(sent.data, 0, len(sent.data)):
                    stream.meter.feed(sent.data)
            else:
                end = sequence + len(sent.data) & MASK if sent.fin else None
                self.flow.segment(stream, sequence, sent.data, sent.at, end=end)

    def say(self, *turns: Turn, skip: bool = False) -> None:
        """Each turn is a segment behind the last of its side; one that is skipped was missed."""
        for side, data in turns:
            self.now += 1
            if not skip:
                self.take(Sent(side, self.passed[side], data, self.now))
            self.passed[side] += len(data)

    def miss(self, *turns: Turn) -> None:
        self.say(*turns, skip=True)

    def acknowledge(self, side: Side) -> None:
        """A side says that it has everything."""
        other: Side = "server" if side == "client" else "client"
        stream = self.flow.client if side == "client" else self.flow.server
        acknowledged = FIRST[other] + self.passed[other] & MASK
        self.flow.segment(stream, FIRST[side] + self.passed[side], b"", self.now, acknowledgment=acknowledged)

    def end(self, *sides: Side, at: int = 0) -> None:
        for side in sides:
            self.take(Sent(side, self.passed[side], b"", at, fin=True))
        if self.flow.over:
            self.flow.finish()

    def reset(self, side: Side, *, ahead: int = 0, acknowledged: int | None = None) -> None:
        other: Side = "server" if side == "client" else "client"
        stream = self.flow.client if side == "client" else self.flow.server
        sequence = FIRST[side] + self.passed[side] + ahead & MASK
        acknowledgment = None if acknowledged is None else FIRST[other] + acknowledged & MASK
        self.flow.reset(stream, sequence, acknowledgment, 0)
        if self.flow.over:
            self.flow.finish()

    def closed(self) -> tuple[str, str]:
        """Code and initiator of the only close; its Ending says the same."""
        (ending,) = (event for event in self.events if isinstance(event, Ending))
        (closed,) = (event for event in self.events if isinstance(event, Closed))
        assert (ending.code, ending.initiator) == (closed.code, closed.initiator)
        return closed.code, closed.initiator

    @property
    def waiting(self) -> bool:
        return self.flow.waits


UP: Final = frame(TEXT, b"to the server", key=KEY)
DOWN: Final = frame(TEXT, b"to the client")


def opened(*, by_design: bool = False) -> Captured:
    captured = Captured(by_design=by_design)
    captured.say(asks(), accepts())
    return captured


# Nothing was missed: the same as seen whole.


@st.composite
def conversations(draw: st.DrawFn) -> list[Turn]:
    """What two sides say between the handshake and the end, each a few frames."""
    sizes = st.one_of(st.integers(0, 200), st.sampled_from([125, 126, 4000, 65_535, 65_536]))
    turns: list[Turn] = []
    for _ in range(draw(st.integers(0, 8))):
        side: Side = draw(st.sampled_from(["client", "server"]))
        key = KEY if side == "client" else None
        size = draw(sizes)
        kind = draw(st.integers(0, 3))
        if kind == 0:
            data = frame(PING, bytes(size % 126), key=key)
        elif kind == 1:
            data = frame(TEXT, bytes(size), fin=False, key=key) + frame(CONTINUATION, bytes(size // 2), key=key)
        else:
            data = frame(BINARY, b"\x81" * size, key=key)
        turns.append((side, data))
    return turns


ENDINGS: Final[dict[str, list[Turn]]] = {
    "server": [("server", close(1001, b"restart")), ("client", close(1001, key=KEY))],
    "client": [("client", close(1000, key=KEY)), ("server", close(1000))],
    "other answer": [("server", close(1009)), ("client", close(1000, key=KEY))],
    "alone": [("server", close(1009, b"too big"))],
    "none": [],
}


def whole(turns: Sequence[Turn], first_fin: Side) -> Observed:
    observed = Observed()
    observed.take(asks(), accepts(), *turns)
    observed.observer.transport_ended(first_fin, "fin")
    observed.observer.finish()
    return observed


def cut(turns: Sequence[Turn], random: Random) -> list[Sent]:
    """The turns as segments, of random sizes."""
    places: dict[Side, int] = {"client": 0, "server": 0}
    segments = []
    for side, data in turns:
        at = 0
        while at < len(data):
            size = random.choice([1, 2, 7, 100, 1448, 60_000])
            segments.append(Sent(side, places[side] + at, data[at : at + size]))
            at += size
        places[side] += len(data)
    return segments


def comparable(events: Sequence[Event]) -> list[Event]:
    """What must be equal: all events, but for times and what two clocks tell."""
    return [
        replace(event, duration=0.0) if isinstance(event, Closed | HandshakeEnded) else event
        for event in events
        if not isinstance(event, StreamUnparsed) and type(event).__name__ != "PingAnswered"
    ]


def sizes_of(watch: Watch) -> list[int]:
    """Messages by size, cumulative, how many and how many bytes, of both directions."""
    histograms = (way.plain.cumulative(POWERS) for way in (watch.client_to_server, watch.server_to_client))
    return [number for buckets, count, size in histograms for number in (*buckets, count, size)]


@given(
    conversations(), st.sampled_from(sorted(ENDINGS)), st.integers(0, 1 << 30), st.sampled_from(["client", "server"])
)
def test_in_order_it_is_the_same_as_seen_whole(turns: list[Turn], ending: str, seed: int, first_fin: Side) -> None:
    random = Random(seed)
    said = [*turns, *ENDINGS[ending]]
    reference = whole(said, first_fin)
    captured = Captured()
    captured.take(*cut([asks(), accepts(), *said], random))
    finish(captured, said, first_fin)
    assert comparable(captured.events) == comparable(reference.events)
    assert sizes_of(captured.watch) == sizes_of(reference.watch)
    assert (captured.losses.directions, captured.losses.missed_bytes, captured.losses.out_of_window) == (0, 0, 0)


def finish(captured: Captured, said: Sequence[Turn], first_fin: Side) -> None:
    """Both sides' FINs."""
    for side, data in [asks(), accepts(), *said]:
        captured.passed[side] += len(data)
    captured.end(first_fin)
    captured.end("server" if first_fin == "client" else "client")
    assert captured.flow.over


def disturbed(segments: Sequence[Sent], random: Random, *, loss: float) -> Iterator[Sent]:
    """Segments late, twice, overlapping and, with that probability, not at all."""
    kept = [sent for sent in segments if random.random() >= loss]
    kept += [sent for sent in segments if random.random() < 0.2 and sent in kept]
    order = {id(sent): position + random.uniform(0, 6) for position, sent in enumerate(kept)}
    for sent in sorted(kept, key=lambda sent: order[id(sent)]):
        back = random.choice([0, 0, 1, 5])
        yield (
            sent
            if not back or back >= len(sent.data)
            else replace(sent, begin=sent.begin + back, data=sent.data[back:])
        )
        if back:
            yield sent


@given(
    conversations(), st.sampled_from(sorted(ENDINGS)), st.integers(0, 1 << 30), st.sampled_from(["client", "server"])
)
def test_out_of_order_and_twice_it_is_still_the_same(
    turns: list[Turn], ending: str, seed: int, first_fin: Side
) -> None:
    """What ends it comes last, in order: who closed first is a matter of what was seen first."""
    random = Random(seed)
    reference = whole([*turns, *ENDINGS[ending]], first_fin)
    captured = opened()
    data = [Sent(sent.side, sent.begin + captured.passed[sent.side], sent.data) for sent in cut(turns, random)]
    captured.take(*disturbed(data, random, loss=0.0))
    assert not captured.waiting
    for side, said in turns:
        captured.passed[side] += len(said)
    captured.say(*ENDINGS[ending])
    captured.end(first_fin)
    captured.end("server" if first_fin == "client" else "client")
    assert comparable(captured.events) == comparable(reference.events)
    assert sizes_of(captured.watch) == sizes_of(reference.watch)
    assert (captured.losses.directions, captured.losses.missed_bytes, captured.losses.out_of_window) == (0, 0, 0)


@example([("client", frame(BINARY, bytes(65_536), key=KEY))] * 3, "server", 5, "client")
@given(
    conversations(), st.sampled_from(sorted(ENDINGS)), st.integers(0, 1 << 30), st.sampled_from(["client", "server"])
)
def test_what_was_missed_is_never_silently_wrong(turns: list[Turn], ending: str, seed: int, first_fin: Side) -> None:
    random = Random(seed)
    reference = whole([*turns, *ENDINGS[ending]], first_fin)
    captured = opened()
    data = [Sent(sent.side, sent.begin + captured.passed[sent.side], sent.data) for sent in cut(turns, random)]
    captured.take(*disturbed(data, random, loss=0.3))
    captured.losses.recent = True
    for side, said in turns:
        captured.passed[side] += len(said)
    captured.say(*ENDINGS[ending])
    captured.end(first_fin)
    captured.end("server" if first_fin == "client" else "client")
    captured.flow.give_up(SECOND)
    assert captured.flow.over
    captured.flow.finish()

    (truth,) = reference.of(Closed)
    code, initiator = captured.closed()
    assert code in (truth.code, "unknown")
    assert initiator in (truth.initiator, "unknown")
    same = sizes_of(captured.watch) == sizes_of(reference.watch)
    assert same or captured.losses.missed_bytes > 0
    assert all(few <= many for few, many in zip(sizes_of(captured.watch), sizes_of(reference.watch), strict=True))
    assert [event for event in captured.events if isinstance(event, AnomalySeen)] in (
        [],
        reference.of(AnomalySeen),
    )
    if not captured.losses.missed_bytes:
        assert (code, initiator) == (truth.code, truth.initiator)


# Losses, one by one.


def test_a_gap_within_a_message_costs_nothing() -> None:
    captured = opened()
    large = frame(BINARY, bytes(10_000), key=KEY)
    captured.say(("client", large[:500]))
    captured.miss(("client", large[500:9000]))
    captured.say(("client", large[9000:]), ("client", UP), *ENDINGS["client"])
    captured.end("client", "server")
    assert captured.closed() == ("1000", "client")
    assert captured.watch.client_to_server.plain.cumulative(POWERS)[1] == 2
    assert captured.losses == Losses()


def test_a_lost_direction_without_a_close_is_unknown() -> None:
    captured = opened()
    captured.miss(("server", DOWN))
    captured.end("server")
    captured.end("client")
    assert not captured.flow.over
    captured.flow.give_up(SECOND)
    assert captured.flow.over
    captured.flow.finish()
    assert captured.closed() == ("unknown", "unknown")
    assert (captured.losses.directions, captured.losses.missed_bytes) == (1, len(DOWN))


def test_a_direction_found_again_ends_as_usual() -> None:
    captured = opened()
    captured.miss(("server", DOWN))
    captured.say(("server", DOWN))
    captured.flow.give_up(SECOND)
    captured.say(("server", DOWN), ("server", DOWN))
    captured.end("server", "client")
    assert captured.closed() == ("1006", "server")
    assert (captured.losses.directions, captured.losses.resyncs) == (1, 1)


def test_a_close_behind_a_gap_is_believed() -> None:
    captured = opened()
    captured.miss(("server", DOWN))
    captured.say(("server", close(1012, b"again soon")))
    captured.flow.give_up(SECOND)
    captured.say(("client", close(1012, key=KEY)))
    captured.end("server", "client")
    assert captured.closed() == ("1012", "server")


@pytest.mark.parametrize(
    ("code", "known"), [(1001, "1001"), (1009, "1009"), (4000, "4xxx"), (1000, "unknown"), (None, "unknown")]
)
def test_a_close_alone_while_the_other_side_is_lost(code: int | None, known: str) -> None:
    """It may be an answer: to a Close of the same code, or to any if it says 1000 or nothing."""
    captured = opened()
    captured.miss(("client", UP))
    captured.say(("client", UP[3:]))
    captured.flow.give_up(SECOND)
    captured.say(("server", frame(8, b"" if code is None else code.to_bytes(2))))
    assert [event for event in captured.events if isinstance(event, Ending)] == []
    captured.end("server", "client")
    assert captured.closed() == (known, "unknown")


def test_two_closes_that_were_looked_at_in_the_wrong_order() -> None:
    """The rings are read one after the other: what counts is when the packets passed."""
    captured = opened()
    captured.losses.recent = True
    captured.take(Sent("client", captured.passed["client"], close(1000, key=KEY), at=9 * SECOND))
    captured.take(Sent("server", captured.passed["server"], close(1001, b"first"), at=8 * SECOND))
    captured.passed = {
        side: passed + size for (side, passed), size in zip(captured.passed.items(), (8, 9), strict=True)
    }
    captured.end("server", "client", at=10 * SECOND)
    assert captured.closed() == ("1001", "server")


def test_a_hesitant_close_alone_is_decided_at_the_end() -> None:
    captured = opened()
    captured.losses.recent = True
    captured.say(("server", close(1000)))
    assert [event for event in captured.events if isinstance(event, Ending)] == []
    captured.end("server", "client")
    assert captured.closed() == ("1000", "server")


def test_a_close_behind_a_gap_that_what_follows_contradicts_is_none() -> None:
    captured = opened()
    captured.miss(("server", DOWN))
    captured.say(("server", close(1009)))  # as it seems
    captured.flow.give_up(SECOND)
    assert [event for event in captured.events if isinstance(event, Ending)] == []
    captured.say(("server", DOWN), *ENDINGS["client"])
    captured.end("server", "client")
    assert captured.closed() == ("1000", "client")


def test_the_same_close_seen_twice_is_no_answer() -> None:
    captured = opened(by_design=True)
    captured.miss(("server", DOWN))
    captured.say(("server", close(1001)))
    captured.flow.give_up(SECOND)
    captured.losses.by_design = True
    captured.passed["server"] -= len(close(1001)) + (1 << 31)
    captured.say(("server", close(1001)))
    captured.passed["server"] += 1 << 31
    captured.say(("client", close(1001, key=KEY)))
    captured.end("server", "client")
    captured.flow.give_up(SECOND)
    assert captured.closed() == ("1001", "server")
    assert [event for event in captured.events if isinstance(event, AnomalySeen)] == []


@pytest.mark.parametrize("size", [70 << 20, 3 << 30, 1 << 33])
def test_closes_alone_however_much_went_by(size: int) -> None:
    captured = opened(by_design=True)
    captured.passed["client"] += size
    captured.say(*ENDINGS["client"])
    captured.flow.give_up(SECOND)
    captured.end("client", "server")
    assert captured.closed() == ("1000", "client")


def test_a_great_deal_was_missed_and_told_too_late() -> None:
    """What acknowledges what the other side is at is believed, however far ahead it is."""
    captured = opened()
    captured.losses.ever = True
    captured.passed["server"] += 70 << 20
    captured.now += 1
    stream, passed = captured.flow.server, captured.passed
    sequence = FIRST["server"] + passed["server"] & MASK
    acknowledged = FIRST["client"] + passed["client"] & MASK
    captured.flow.segment(stream, sequence, close(1001), captured.now, acknowledgment=acknowledged)
    passed["server"] += len(close(1001))
    captured.say(("client", close(1001, key=KEY)))
    captured.end("server", "client")
    assert captured.closed() == ("1001", "server")
    assert captured.losses.missed_bytes == 70 << 20


def test_segments_far_ahead_are_believed_in_the_end() -> None:
    captured = opened()
    captured.losses.ever = True
    captured.passed["server"] += 1 << 31
    captured.say(*[("server", DOWN)] * MOST_OUTSIDE)
    assert (captured.losses.out_of_window, captured.losses.directions) == (MOST_OUTSIDE, 0)
    captured.say(*[("server", DOWN)] * 3)
    assert (captured.losses.directions, captured.losses.resyncs) == (1, 1)


def test_segments_far_ahead_are_forged_where_nothing_was_ever_dropped() -> None:
    captured = opened()
    stream, sequence = captured.flow.server, FIRST["server"] + (1 << 30) & MASK
    acknowledged = FIRST["client"] + captured.passed["client"] & MASK
    for _ in range(3 * MOST_OUTSIDE):
        captured.flow.segment(stream, sequence, close(1011), 0, acknowledgment=acknowledged)
    captured.say(*ENDINGS["client"])
    captured.end("client", "server")
    assert captured.closed() == ("1000", "client")


def test_a_message_whose_refusal_may_have_been_missed_was_not_accepted() -> None:
    captured = opened()
    captured.say(("client", frame(BINARY, bytes(20_000), key=KEY)))
    captured.miss(("server", close(1009)))
    captured.end("server")
    captured.flow.give_up(SECOND)
    sizes = captured.watch.client_to_server
    for tick in range(1, 40):
        sizes.advance(tick)
    assert sizes.accepted == 0


def test_what_a_hesitant_close_refused_is_known_when_it_passes() -> None:
    captured = opened()
    captured.losses.recent = True
    captured.say(("client", frame(BINARY, bytes(20_000), key=KEY)), ("server", close(1009)))
    sizes = captured.watch.client_to_server
    for tick in range(1, 40):
        sizes.advance(tick)
    captured.end("server", "client")
    (ending,) = (event for event in captured.events if isinstance(event, Ending))
    assert ending.passing is not None
    assert (ending.code, ending.passing.recent, sizes.accepted) == ("1009", 20_000, 0)


@pytest.mark.parametrize(("code", "known"), [(1001, "1001"), (1002, "unknown"), (1007, "unknown")])
def test_attached_by_what_may_be_an_answer(code: int, known: str) -> None:
    captured = Captured(fresh=False)
    captured.say(("client", close(code, key=KEY)))
    captured.end("server", "client")
    assert captured.closed() == (known, "unknown")


def test_a_fin_behind_data_that_was_cut_is_not_the_end_of_all() -> None:
    captured = opened()
    captured.now += 1
    server = captured.flow.server
    begin = FIRST["server"] + captured.passed["server"] & MASK
    captured.flow.segment(server, begin, DOWN, captured.now, end=begin + len(DOWN) + 20 & MASK)
    captured.passed["server"] += len(DOWN) + 20
    captured.end("client")
    assert not captured.flow.over
    captured.flow.give_up(SECOND)
    captured.flow.finish()
    assert captured.closed() == ("unknown", "unknown")


def test_nonsense_behind_a_gap_is_a_loss_and_no_anomaly() -> None:
    captured = opened()
    captured.miss(("server", DOWN))
    captured.say(("server", DOWN), ("server", DOWN), ("server", DOWN))
    captured.flow.give_up(SECOND)
    assert (captured.losses.directions, captured.losses.resyncs) == (1, 1)
    captured.say(("server", b"\xb3\x99 no frame"))
    assert captured.losses.directions == 2
    captured.end("server", "client")
    assert captured.closed() == ("unknown", "unknown")
    assert [event for event in captured.events if isinstance(event, AnomalySeen)] == []


def test_nonsense_without_a_gap_is_an_anomaly() -> None:
    captured = opened()
    captured.say(("server", frame(0x3, b"what")))
    assert [event.kind for event in captured.events if isinstance(event, AnomalySeen)] == ["reserved_opcode"]


def test_fragments_whose_beginning_was_missed_are_no_message() -> None:
    captured = opened()
    captured.miss(("server", frame(TEXT, b"lost", fin=False)))
    captured.say(("server", frame(CONTINUATION, b"rest", fin=False) + frame(PING) + frame(CONTINUATION, b"end") + DOWN))
    captured.flow.give_up(SECOND)
    captured.say(("server", DOWN))
    captured.say(*ENDINGS["server"])
    captured.end("server", "client")
    assert captured.watch.server_to_client.plain.cumulative(POWERS)[1] == 2
    assert [event for event in captured.events if isinstance(event, AnomalySeen)] == []
    assert captured.closed() == ("1001", "server")


def test_a_handshake_that_was_missed_in_part() -> None:
    captured = Captured()
    request = asks()[1]
    captured.say(("client", request[:50]))
    captured.miss(("client", request[50:90]))
    captured.say(("client", request[90:]))
    captured.acknowledge("server")
    assert [event.reason for event in captured.events if isinstance(event, StreamUnparsed)] == ["packets_missed"]
    captured.say(accepts())
    captured.say(("client", UP), ("client", UP), ("server", DOWN), ("server", DOWN), *ENDINGS["server"])
    captured.end("server", "client")
    assert captured.closed() == ("1001", "server")
    assert [event.origin for event in captured.events if isinstance(event, Attached)] == [ORIGIN]
    assert [event for event in captured.events if isinstance(event, HandshakeEnded)] == []


# Connections that were there before.


def test_attached() -> None:
    captured = Captured(fresh=False)
    captured.say(("client", UP), ("client", UP), ("client", UP), ("server", DOWN), ("server", DOWN))
    (attached,) = (event for event in captured.events if isinstance(event, Attached))
    assert attached.origin == Origin("tap", "chat")
    captured.say(*ENDINGS["server"])
    captured.end("server", "client")
    assert captured.closed() == ("1001", "server")
    (closed,) = (event for event in captured.events if isinstance(event, Closed))
    assert (closed.attached, closed.client_to_server.messages, closed.peer.path) == (True, 2, "")
    assert (captured.losses.directions, captured.losses.resyncs) == (0, 0)


def test_attached_while_one_side_says_nothing() -> None:
    """Of a side that has not sent a byte no Close was missed."""
    captured = Captured(fresh=False)
    captured.say(("server", DOWN), ("server", DOWN))
    captured.end("server", "client")
    assert captured.closed() == ("1006", "server")


def test_attached_while_something_of_the_other_side_was_missed() -> None:
    captured = Captured(fresh=False)
    captured.say(("client", UP), ("client", UP))
    captured.miss(("server", close(1001)))
    captured.end("server")
    captured.flow.give_up(SECOND)
    captured.end("client")
    assert captured.closed() == ("unknown", "unknown")


def test_what_the_other_ring_may_have_is_waited_for() -> None:
    """A 101 that the size ring dropped: that the client has it does not say that it will not be seen."""
    captured = Captured()
    captured.say(asks())
    captured.losses.recent = True
    begin = captured.passed["server"]
    captured.miss(accepts())
    captured.now += 1
    acknowledged = FIRST["server"] + captured.passed["server"] & MASK
    stream, sequence = captured.flow.client, FIRST["client"] + captured.passed["client"] & MASK
    captured.flow.segment(stream, sequence, UP, captured.now, acknowledgment=acknowledged)
    captured.passed["client"] += len(UP)
    captured.take(Sent("server", begin, accepts()[1], captured.now))
    captured.say(*ENDINGS["server"])
    captured.end("server", "client")
    assert captured.closed() == ("1001", "server")
    assert [event.outcome for event in captured.events if isinstance(event, HandshakeEnded)] == ["accepted"]


def test_attached_while_one_side_is_not_understood() -> None:
    captured = Captured(fresh=False)
    captured.say(("client", UP[5:]), ("server", DOWN), ("server", DOWN))
    captured.end("server", "client")
    assert captured.closed() == ("unknown", "unknown")


def test_attached_to_no_websocket() -> None:
    captured = Captured(fresh=False)
    captured.say(("client", b"EHLO mail"), ("server", b"250 OK"), ("client", b"QUIT"))
    captured.end("client", "server")
    assert captured.events == []
    assert captured.losses == Losses()


# Closes alone.


@pytest.mark.parametrize("ending", ["server", "client", "other answer"])
def test_closes_alone_tell_the_same(ending: str) -> None:
    captured = opened(by_design=True)
    captured.miss(("client", UP), ("server", DOWN), ("client", UP))
    captured.say(*ENDINGS[ending])
    captured.flow.give_up(SECOND)
    captured.end("server", "client")
    said = ENDINGS[ending][0]
    assert captured.closed() == (str(int.from_bytes(said[1][2:4])) if said[0] == "server" else "1000", said[0])
    assert (captured.losses.directions, captured.losses.missed_bytes, captured.losses.resyncs) == (0, 0, 0)


def test_closes_alone_without_one() -> None:
    captured = opened(by_design=True)
    captured.miss(("client", UP))
    captured.end("client")
    captured.end("server")
    captured.flow.give_up(SECOND)
    captured.flow.finish()
    assert captured.closed() == ("unknown", "unknown")


# Resets, forged and real.


def test_reset() -> None:
    captured = opened()
    captured.say(("client", UP))
    captured.reset("client")
    assert captured.closed() == ("1006", "client")
    (closed,) = (event for event in captured.events if isinstance(event, Closed))
    assert closed.transport_end is not None
    assert (closed.transport_end.side, closed.transport_end.kind) == ("client", "reset")


def test_reset_behind_a_fin() -> None:
    captured = opened()
    captured.end("server")
    captured.reset("server", ahead=1)
    assert captured.closed() == ("1006", "server")
    assert captured.losses == Losses()


def test_reset_behind_what_was_missed() -> None:
    captured = opened()
    captured.losses.recent = True
    captured.miss(("client", UP))
    captured.reset("client")
    assert captured.closed() == ("unknown", "unknown")
    assert captured.losses.missed_bytes == len(UP)


def test_reset_that_acknowledges_what_was_missed() -> None:
    captured = opened()
    captured.miss(("server", close(1001)))
    captured.reset("client", acknowledged=captured.passed["server"])
    assert captured.closed() == ("unknown", "unknown")


def test_reset_with_a_close_still_held() -> None:
    captured = opened()
    captured.miss(("server", DOWN))
    captured.say(("server", close(1011, b"oops")))
    captured.reset("server")
    assert captured.closed() == ("1011", "server")


@pytest.mark.parametrize("ahead", [1, 1000, (1 << 20) + 1, 1 << 31, -2, -5000])
def test_a_forged_reset_ends_nothing(ahead: int) -> None:
    captured = opened()
    captured.say(("client", UP * 300))
    captured.reset("client", ahead=ahead)
    assert not captured.flow.over
    assert captured.losses.out_of_window == 1
    captured.say(*ENDINGS["client"])
    captured.end("client", "server")
    assert captured.closed() == ("1000", "client")


def test_forged_data_out_of_window_changes_nothing() -> None:
    captured = opened()
    captured.take(Sent("server", captured.passed["server"] + (70 << 20), close(1011)))
    assert (captured.losses.out_of_window, captured.waiting) == (1, False)
    captured.say(*ENDINGS["client"])
    captured.end("client", "server")
    assert captured.closed() == ("1000", "client")


def test_reset_behind_segments_that_came_early() -> None:
    captured = opened()
    captured.miss(("server", DOWN))
    captured.say(("server", DOWN))
    captured.reset("server")
    assert captured.closed() == ("unknown", "unknown")


def test_what_the_network_lost_for_good_has_not_reached_the_service() -> None:
    """Nothing was dropped here: the client's Close never arrived, and its end without one is the truth."""
    captured = opened()
    captured.miss(("client", UP))
    captured.say(("client", close(1000, key=KEY)))
    captured.reset("client")
    assert captured.closed() == ("1006", "client")


@pytest.mark.parametrize("behind", [0, 5, 1000])
def test_a_kernel_resets_at_what_its_peer_has_acknowledged(behind: int) -> None:
    captured = opened()
    captured.say(("server", close(1001)))
    captured.end("server")
    captured.reset("server", ahead=-behind)
    assert captured.closed() == ("1001", "server")


def test_what_vanished_is_unknown() -> None:
    captured = opened()
    captured.flow.finish(vanished=True)
    assert captured.closed() == ("unknown", "unknown")


def test_a_fault_of_ours_is_unknown() -> None:
    captured = opened()
    captured.flow.fail()
    captured.say(("server", DOWN), ("server", b"\xff nonsense"))
    captured.end("server", "client")
    assert captured.closed() == ("unknown", "unknown")
    assert [event.reason for event in captured.events if isinstance(event, StreamUnparsed)] == ["internal_error"]


def test_plain_http_goes_on() -> None:
    captured = Captured()
    for _ in range(2):
        captured.say(("client", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"))
        captured.say(("server", b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc"))
    captured.end("client", "server")
    assert captured.events == []
    assert captured.flow.server.expected == NEVER


# Where packets are being dropped there is no time to hold much.


MESSAGE: Final = frame(TEXT, b"a message")


def test_what_was_dropped_is_not_waited_for_behind_many_segments() -> None:
    """Frames are told again in the very segments that were held."""
    captured = opened()
    captured.losses.recent = captured.losses.ever = True
    captured.miss(("server", MESSAGE))
    captured.say(*[("server", MESSAGE)] * FEW_HELD)
    assert (captured.losses.directions, captured.flow.waits) == (0, True)
    captured.say(("server", MESSAGE))
    assert (captured.losses.directions, captured.losses.resyncs, captured.flow.waits) == (1, 1, False)
    assert captured.losses.missed_bytes >= len(MESSAGE)


def test_a_large_segment_behind_what_was_dropped_is_not_held() -> None:
    large = frame(BINARY, bytes(2 * FEW_HELD_BYTES))
    captured = opened()
    captured.losses.recent = captured.losses.ever = True
    captured.miss(("server", large))
    captured.say(("server", large))
    assert (captured.losses.directions, captured.losses.resyncs, captured.flow.waits) == (1, 1, False)
    assert captured.watch.server_to_client.messages() == 1


def test_what_a_network_lost_is_waited_for_however_much_is_behind_it() -> None:
    captured = opened()
    captured.miss(("server", MESSAGE))
    captured.say(*[("server", MESSAGE)] * (3 * FEW_HELD))
    assert (captured.losses.directions, captured.flow.waits) == (0, True)


def test_an_opening_handshake_is_waited_for_however_much_is_behind_it() -> None:
    """It may come late, by the other ring."""
    captured = Captured()
    captured.losses.recent = captured.losses.ever = True
    captured.say(asks())
    captured.miss(accepts())
    captured.say(*[("server", MESSAGE)] * (3 * FEW_HELD))
    assert captured.flow.waits
    captured.take(Sent("server", 0, accepts()[1], captured.now))
    assert captured.watch.server_to_client.messages() == 3 * FEW_HELD
    assert captured.losses.directions == 0
