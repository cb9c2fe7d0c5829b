"""What the walk gives to connections: each packet of two rings once, in the order of time, the quick way or not."""

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.events import AnomalySeen, Closed, Event
from exporter.sources.capture import walk
from exporter.sources.capture.flows import Flows
from exporter.sources.capture.opening import Rings
from exporter.sources.capture.ring import Block, Ring
from exporter.sources.capture.walk import NEVER, Walk
from exporter.wire.connection import ConnectionObserver
from exporter.wire.flow import Losses, PacketClock
from exporter.wire.packet import IPV4, IPV6, VLANS, Malformed, parse
from exporter.wire.sizes import DirectionSizes
from exporter.wire.tcp import MASK
from exporter.wire.upgrade import UpgradeRequest
from exporter.wire.websocket import Watch
from tests.capture.packets import ACK, FIN, PSH, SYN, Segment, ipv4
from tests.wire.support import BINARY, KEY, LISTENER, ORIGIN, PING, POWERS, TEXT, Observed, accepts, asks, close, frame
from tests.wire.support import no_sizes as sizes_of_nothing

PORT: Final = 8080
URG: Final = 0x20
ENDS: Final = {4: ("192.0.2.7", "198.51.100.1"), 6: ("2001:db8::7", "2001:db8::1")}
ETHERTYPES: Final = {4: IPV4, 6: IPV6}
MILLISECOND: Final = 1_000_000
ENOUGH: Final = 16
"""Bytes of a packet by which it can be told whether there is TCP in it, whatever is behind it in the memory."""
HEADER: Final = 96
"""Bytes before the network header: struct tpacket3_hdr, struct sockaddr_ll, and what the kernel leaves free."""


@dataclass(frozen=True)
class Seen:
    """A packet, and when it was seen; of `captured` bytes where it was cut."""

    packet: bytes
    ethertype: int = IPV4
    at: int = 0
    captured: int | None = None

    def written(self, *, last: bool) -> bytes:
        """As the kernel writes it into a block."""
        data = self.packet[: self.captured]
        room = -(HEADER + len(data)) % 8
        following = 0 if last else HEADER + len(data) + room
        head = struct.pack("=6I2H", following, *divmod(self.at, 10**9), len(data), len(self.packet), 0, HEADER, HEADER)
        address = struct.pack("=H", 17) + self.ethertype.to_bytes(2)
        return (head.ljust(48, b"\0") + address).ljust(HEADER, b"\0") + data + (b"" if last else bytes(room))


@dataclass
class Filled:
    """A ring that the kernel has filled: blocks of packets, one behind the other."""

    blocks: list[list[Seen]] = field(default_factory=list)
    memory: bytes = b""

    def block(self) -> tuple[int, int] | None:
        if not self.blocks:
            return None
        packets = self.blocks[0]
        self.memory = b"".join(one.written(last=False) for one in packets[:-1]) + packets[-1].written(last=True)
        return 0, len(packets)

    def copy(self) -> Block | None:
        return Block(self.memory, 0, len(self.blocks[0]), self.blocks[0][-1].at) if self.block() else None

    def release(self) -> None:
        del self.blocks[0]


class Walked:
    """A walk, its connections, and everything that came of it."""

    def __init__(self, size: Sequence[Iterable[Seen]] = (), lifecycle: Sequence[Iterable[Seen]] = ()) -> None:
        self.events: list[Event] = []
        self.complaints: list[str] = []
        self.clock = PacketClock()
        self.losses = Losses()
        self.up, self.down = sizes_of_nothing(), sizes_of_nothing()
        self.watch = Watch(ORIGIN, Observed().watch.vocabulary, self.up, self.down)
        self.flows = Flows(PORT, self._observe, self.clock, self.losses)
        self.size, self.lifecycle = (Filled([list(block) for block in blocks]) for blocks in (size, lifecycle))
        rings = Rings(cast(Ring, self.lifecycle), cast(Ring, self.size))
        self.walk = Walk(rings, self.flows, self.clock, self.losses, self._complain)

    def _observe(self, address: str) -> ConnectionObserver:
        return ConnectionObserver(self._choose, origin=LISTENER, sink=self, clock=self.clock, address=address)

    def _choose(self, request: UpgradeRequest) -> Watch:
        return self.watch

    def _complain(self, sentence: str, **details: object) -> None:
        self.complaints.append(sentence)

    def emit(self, event: Event) -> None:
        self.events.append(event)

    def take_all(self) -> "Walked":
        while self.walk.take_sizes(1.0):
            pass
        return self

    def account(self) -> tuple[object, ...]:
        """All that may be told of it."""

        def counted(sizes: DirectionSizes) -> object:
            return sizes.plain.cumulative(POWERS)

        closed = [(one.code, one.initiator) for one in self.events if isinstance(one, Closed)]
        anomalies = [(one.side, one.kind) for one in self.events if isinstance(one, AnomalySeen)]
        streams = {key: (stream.next, stream.held_bytes) for key, stream in self.flows.streams.items()}
        return counted(self.up), counted(self.down), closed, anomalies, self.losses, streams, self.complaints


class Talk:
    """Both ends of a connection, and the packets between them.

    Where they are not `attentive` they acknowledge the opening handshake and nothing later.
    """

    def __init__(self, version: int = 4, *, attentive: bool = True) -> None:
        self._version = version
        self._attentive = attentive
        self._acknowledged: dict[bool, int] = {}
        self._next = {True: 2**32 - 200, False: 900}
        self.seen: list[Seen] = []

    def say(
        self,
        data: bytes = b"",
        flags: int = ACK,
        *,
        up: bool,
        at: int = 0,
        options: bytes = bytes(12),
        times: int = 1,
    ) -> Segment:
        """One side sends a segment, so many times."""
        client, server = ENDS[self._version]
        ends = (client, server, 40000, PORT) if up else (server, client, PORT, 40000)
        acknowledged = self._acknowledged.get(not up, self._next[not up])
        segment = Segment(*ends, self._next[up], acknowledged, flags, data, options)
        self._next[up] = segment.end
        self.seen += [Seen(segment.packet(), ETHERTYPES[self._version], at)] * times
        return segment

    def open(self) -> "Talk":
        self.say(flags=SYN, up=True)
        self.say(flags=SYN | ACK, up=False)
        self.say(asks()[1], up=True)
        self.say(accepts()[1], up=False)
        if not self._attentive:
            self._acknowledged = dict(self._next)
        return self

    def end(self, at: int = 0) -> None:
        self.say(close(1000, key=KEY), up=True, at=at)
        self.say(close(1000), up=False, at=at)
        self.say(flags=FIN | ACK, up=False, at=at)
        self.say(flags=FIN | ACK, up=True, at=at)


def taken_one_by_one(packets: Iterable[Seen]) -> Walked:
    """The same without the quick way: each packet parsed, and given to its connection."""
    walked = Walked()
    for seen in packets:
        memory = seen.packet[: seen.captured]
        try:
            segment = parse(memory, 0, len(memory), seen.ethertype)
        except Malformed:
            walked.losses.malformed += 1
            continue
        if segment is not None:
            for stream in walked.flows.streams.values():
                stream.slow()
            walked.flows.segment(segment, memory[segment.begin : segment.end], seen.at)
    return walked


@pytest.mark.parametrize("version", [4, 6])
def test_what_comes_as_expected_is_not_even_parsed(version: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Messages of any size, in one segment or more, over IPv4 and IPv6 and with any of TCP's options."""
    talk = Talk(version).open()
    walked = Walked([talk.seen]).take_all()
    monkeypatch.setattr(walk, "parse", None)
    talk.seen.clear()
    messages = [0, 1, 125, 126, 4000, 70_000]
    for number, size in enumerate(messages):
        up = frame(BINARY, bytes(size), key=KEY)
        for place in range(0, len(up), 60_000):
            talk.say(up[place : place + 60_000], ACK | PSH, up=True, options=bytes(4 * number))
        talk.say(frame(TEXT, bytes(size % 1000)), up=False, options=b"")
    talk.say(frame(PING), up=False)
    walked.size.blocks.append(talk.seen)
    walked.take_all()
    assert walked.complaints == []
    assert [sizes.messages() for sizes in (walked.up, walked.down)] == [len(messages)] * 2


@pytest.mark.parametrize(("data", "at_once"), [(frame(BINARY, b"one", key=KEY), 3), (frame(PING, key=KEY) * 200, 1)])
def test_the_time_is_looked_at_behind_what_may_take_long(data: bytes, at_once: int) -> None:
    """A segment that is one message never does; one that is full of tiny frames may."""
    talk = Talk().open()
    walked = Walked([talk.seen]).take_all()
    talk.seen.clear()
    for _ in range(3):
        talk.say(data, up=True)
    walked.size.blocks.append(talk.seen)
    (stream,) = (one for one in walked.flows.streams.values() if one.side == "client")
    before = stream.next
    walked.walk.take_sizes(0.0)
    assert stream.next - before & MASK == at_once * len(data)


def test_small_errors_of_the_clocks_change_no_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their difference is read again and again, which may be interrupted; only what has really moved counts."""
    walked = Walked([Talk().open().seen])
    offset = walked.clock.offset
    readings = iter([0, MILLISECOND, 0, 0])
    monkeypatch.setattr(walk.time, "monotonic_ns", lambda: next(readings))
    for moved, seen in ((MILLISECOND * 3, offset), (offset + MILLISECOND // 2, offset)):
        monkeypatch.setattr(walk.time, "time_ns", lambda moved=moved: moved)
        walked.walk._set_clock()
        assert walked.clock.offset == seen
    readings = iter([0, 0])
    monkeypatch.setattr(walk.time, "time_ns", lambda: offset + 2 * MILLISECOND)
    walked.walk._set_clock()
    assert walked.clock.offset == offset + 2 * MILLISECOND


@st.composite
def conversations(draw: st.DrawFn) -> list[list[Seen]]:
    """Packets of one connection, some of them twice, swapped, cut, missing or odd; in blocks."""
    talk = Talk(version := draw(st.sampled_from([4, 6])), attentive=False).open()
    for _ in range(draw(st.integers(1, 8))):
        up = draw(st.booleans())
        key = KEY if up else None
        payload = bytes(draw(st.sampled_from([0, 5, 125, 126, 3000])))
        data = draw(
            st.sampled_from(
                [
                    frame(BINARY, payload, key=key),
                    frame(BINARY, payload, key=key) * 3,
                    frame(TEXT, payload, key=key, fin=False) + frame(0, payload, key=key),
                    frame(PING, b"!", key=key),
                    frame(BINARY, payload, key=None if up else KEY),
                ]
            )
        )
        place = draw(st.integers(0, len(data)))
        flags = ACK | draw(st.sampled_from([0, PSH, URG]))
        for piece in (data[:place], data[place:]):
            options = draw(st.sampled_from([b"", bytes(12)]))
            talk.say(piece, flags, up=up, options=options, times=draw(st.integers(1, 2)))
    if draw(st.booleans()):
        talk.end()
    packets = talk.seen
    for _ in range(draw(st.integers(0, 4))):
        place = draw(st.integers(4, len(packets) - 1))
        one = packets[place]
        some = draw(st.integers(ENOUGH, 80))
        match draw(st.sampled_from(["swap", "cut", "drop", "options", "tag", "noise", "short"])):
            case "swap":
                packets[place - 1], packets[place] = one, packets[place - 1]
            case "cut":
                packets[place] = replace(one, captured=some)
            case "drop" if len(packets) > 5:
                del packets[place]
            case "options" if version == 4:
                size = int.from_bytes(one.packet[2:4]) + 4
                head = b"\x46" + one.packet[1:2] + size.to_bytes(2) + one.packet[4:20]
                packets[place] = replace(one, packet=head + bytes(4) + one.packet[20:])
            case "tag":
                packets[place] = Seen(struct.pack(">HH", 5, one.ethertype) + one.packet, VLANS[0])
            case "noise":
                packets.insert(place, replace(one, packet=draw(st.binary(min_size=ENOUGH, max_size=60))))
            case "short":
                packets.append(replace(one, packet=one.packet[:some]))
    at_once = draw(st.integers(1, len(packets)))
    packets = [replace(seen, at=number * MILLISECOND) for number, seen in enumerate(packets)]
    return [packets[place : place + at_once] for place in range(0, len(packets), at_once)]


@given(conversations())
def test_the_quick_way_leads_to_the_same(blocks: list[list[Seen]]) -> None:
    """Whatever a network, a capture or a stranger makes of the packets.

    Only of what is acknowledged and was not seen a whole message does not tell at once.
    """
    one_by_one = taken_one_by_one(seen for block in blocks for seen in block)
    assert Walked(blocks).take_all().account() == one_by_one.account()


def test_a_close_that_answers_one_that_was_missed() -> None:
    """Of the client's Close it tells by its acknowledgment; who was first is then not known."""
    talk = Talk().open()
    talk.say(frame(TEXT, b"hello"), up=False)
    seen = len(talk.seen)
    talk.end()
    del talk.seen[seen]
    walked = Walked([talk.seen]).take_all()
    assert [(one.code, one.initiator) for one in walked.events if isinstance(one, Closed)] == [("unknown", "unknown")]


def test_another_protocol_between_the_same_ports_is_none_of_theirs() -> None:
    """Nor is a fragment of one, nor what only has the connection's ports where IPv4 options are."""
    talk = Talk().open()
    walked = Walked([talk.seen]).take_all()
    before = walked.account()
    expected = talk.say(frame(BINARY, b"message", key=KEY), up=True)
    tcp = expected.tcp()
    ends = ENDS[4]
    strangers = [
        ipv4(*ends, tcp, 17),
        ipv4(*ends, tcp, fragment=0x2000),
        ipv4(*ends, tcp[4:], options=tcp[:4]),
    ]
    walked.size.blocks.append([Seen(stranger) for stranger in strangers])
    walked.take_all()
    walked.losses.malformed -= 1  # the fragment; the others are of no connection
    assert walked.account() == before


def test_while_the_size_ring_drops_nothing_it_alone_is_looked_at() -> None:
    talk = Talk().open()
    talk.end()
    walked = Walked([talk.seen], [talk.seen[:2], talk.seen[4:]])
    walked.walk.read_lifecycle()
    assert walked.walk.keeps
    walked.take_all()
    assert not walked.walk.keeps
    assert [type(one) for one in walked.events].count(Closed) == 1
    assert walked.losses == Losses()


def test_an_end_that_the_size_ring_has_missed() -> None:
    """It has dropped packets, and been read as far as the end: what the lifecycle ring has comes in its place."""
    talk = Talk().open()
    talk.say(frame(TEXT, b"hello"), up=False, at=10)
    size = list(talk.seen)
    talk.end(at=20)
    lifecycle = talk.seen[len(size) :]
    other = Talk(6).open()
    other.say(frame(TEXT, b"later"), up=False, at=15)
    other.say(frame(TEXT, b"later"), up=False, at=30)
    walked = Walked([size, other.seen], [lifecycle])
    walked.losses.recent = walked.losses.ever = True
    walked.walk.read_lifecycle()
    walked.take_all()
    assert not walked.walk.keeps
    (closed,) = (one for one in walked.events if isinstance(one, Closed))
    assert (closed.code, closed.initiator, closed.server_to_client.messages) == ("1000", "client", 1)
    assert walked.down.messages() == 3


def test_what_has_passed_before_a_drop_is_not_taken_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A block of the lifecycle ring is given up as a whole: of one that reached further, the beginning is over."""
    first, second = Talk().open(), Talk(6).open()
    second.end()
    passed = [replace(seen, at=10) for seen in first.seen]
    later = [replace(seen, at=20) for seen in second.seen]
    walked = Walked([passed], [[*passed, *later]])
    walked.walk.read_lifecycle()
    walked.take_all()
    walked.walk.settle(0, 1.0)
    assert walked.walk.keeps
    walked.losses.recent = walked.losses.ever = True
    taken: list[int] = []
    take = walked.flows.segment
    monkeypatch.setattr(walked.flows, "segment", lambda segment, data, at: taken.append(at) or take(segment, data, at))
    walked.walk.settle(NEVER, 1.0)
    assert not walked.walk.keeps
    assert set(taken) == {20}
    assert [one.code for one in walked.events if isinstance(one, Closed)] == ["1000"]


def test_a_fault_of_our_own_ends_the_following_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    talk, other = Talk().open(), Talk(6).open()
    walked = Walked([talk.seen, other.seen]).take_all()
    (stream,) = (one for one in walked.flows.streams.values() if one.side == "client" and len(one.owner.key) == 12)

    def faulty(data: bytes) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(type(stream.meter), "_run", faulty)
    talk.say(frame(BINARY, b"one", key=KEY) * 2, up=True)
    walked.size.blocks.append([talk.seen[-1]])
    walked.take_all()
    monkeypatch.undo()
    assert walked.complaints == ["following a connection failed, it is not followed any more"]
    other.say(frame(BINARY, b"one", key=KEY) * 2, up=True)
    talk.say(frame(BINARY, b"one", key=KEY) * 2, up=True)
    walked.size.blocks.append([other.seen[-1], talk.seen[-1]])
    walked.take_all()
    assert walked.up.messages() == 2
