"""Which connection a packet belongs to, and which it does not."""

from dataclasses import dataclass
from typing import Final

import pytest

from exporter.events import Attached, Closed, Event, HandshakeEnded, Origin, StreamUnparsed
from exporter.sources.capture import flows
from exporter.sources.capture.flows import ENDED_FOR, MOST_OPENED, UNKNOWN_FOR, Flows, address_text, reversed_key
from exporter.wire.connection import ConnectionObserver
from exporter.wire.flow import Losses, PacketClock
from exporter.wire.packet import ACK, FIN, RST, SYN, Segment
from exporter.wire.upgrade import UpgradeRequest
from exporter.wire.websocket import Watch
from tests.wire.support import KEY, LISTENER, ORIGIN, TEXT, Observed, accepts, asks, close, frame, no_sizes

PORT: Final = 8080
CLIENT, SERVER = bytes([192, 0, 2, 7]), bytes([198, 51, 100, 1])
UP: Final = frame(TEXT, b"to the server", key=KEY)
DOWN: Final = frame(TEXT, b"to the client")
SECOND: Final = 1_000_000_000


class Table:
    """The connections of one port, and every event."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.addresses: list[str] = []
        self.clock = PacketClock()
        self.losses = Losses()
        self.flows = Flows(PORT, self._observe, self.clock, self.losses)
        self._watch = Watch(ORIGIN, Observed().watch.vocabulary, no_sizes(), no_sizes())

    def _observe(self, address: str) -> ConnectionObserver:
        self.addresses.append(address)
        return ConnectionObserver(self._choose, origin=LISTENER, sink=self, clock=self.clock, address=address)

    def _choose(self, request: UpgradeRequest) -> Watch:
        return self._watch

    def emit(self, event: Event) -> None:
        self.events.append(event)

    def codes(self) -> list[str]:
        return [event.code for event in self.events if isinstance(event, Closed)]


@dataclass
class Pair:
    """Both ends of one connection, as their kernels number it."""

    table: Table
    port: int = 40000
    client: bytes = CLIENT
    server: bytes = SERVER
    client_at: int = 100
    server_at: int = 900
    at: int = 0

    def segment(self, data: bytes = b"", flags: int = ACK, *, up: bool, missed: bool = False) -> None:
        numbers = (self.client_at, self.server_at) if up else (self.server_at, self.client_at)
        size = len(data) + bool(flags & SYN) + bool(flags & FIN)
        if not missed:
            self.table.flows.segment(Segment(self.key(up=up), *numbers, flags, 0, len(data), len(data)), data, self.at)
        if up:
            self.client_at += size
        else:
            self.server_at += size

    def key(self, *, up: bool) -> bytes:
        key = self.client + self.server + self.port.to_bytes(2) + PORT.to_bytes(2)
        return key if up else reversed_key(key)

    def up(self, data: bytes = b"", flags: int = ACK) -> None:
        self.segment(data, flags, up=True)

    def down(self, data: bytes = b"", flags: int = ACK) -> None:
        self.segment(data, flags, up=False)

    def open(self) -> "Pair":
        self.up(flags=SYN)
        self.down(flags=SYN | ACK)
        return self

    def websocket(self) -> "Pair":
        self.open()
        self.up(asks()[1])
        self.down(accepts()[1])
        return self

    def close(self) -> None:
        self.down(close(1001))
        self.up(close(1001, key=KEY))
        self.down(flags=FIN | ACK)
        self.up(flags=FIN | ACK)


def test_a_whole_connection() -> None:
    table = Table()
    pair = Pair(table).websocket()
    assert len(table.flows) == 1
    pair.up(UP)
    pair.close()
    assert (table.codes(), table.addresses, table.flows.streams) == (["1001"], ["192.0.2.7"], {})


def test_two_connections_of_one_client() -> None:
    table = Table()
    one, two = Pair(table).websocket(), Pair(table, port=40001).websocket()
    one.close()
    two.down(flags=RST | ACK)
    assert table.codes() == ["1001", "1006"]


@pytest.mark.parametrize(
    ("address", "text"),
    [
        (bytes([10, 0, 0, 1]), "10.0.0.1"),
        (bytes(10) + b"\xff\xff" + bytes([10, 0, 0, 1]), "10.0.0.1"),
        (bytes(15) + b"\x01", "::1"),
    ],
)
def test_addresses_in_words(address: bytes, text: str) -> None:
    assert address_text(address) == text


def test_ipv6() -> None:
    table = Table()
    Pair(table, client=bytes(15) + b"\x07", server=bytes(15) + b"\x01").websocket().close()
    assert (table.codes(), table.addresses) == (["1001"], ["::7"])


def test_the_key_of_the_other_direction() -> None:
    assert reversed_key(CLIENT + SERVER + b"\x01\x02\x03\x04") == SERVER + CLIENT + b"\x03\x04\x01\x02"
    assert reversed_key(bytes(16) + b"1" * 16 + b"abcd") == b"1" * 16 + bytes(16) + b"cdab"


def test_neither_port_is_ours() -> None:
    table = Table()
    segment = Segment(CLIENT + SERVER + bytes([0, 1, 0, 2]), 0, 0, ACK, 0, 0, 0)
    table.flows.segment(segment, b"GET ", 0)
    assert table.flows.streams == {}


def test_a_flood_of_syns_leaves_nothing() -> None:
    table = Table()
    for number in range(100_000):
        Pair(table, client=number.to_bytes(4)).up(flags=SYN)
    assert (table.flows.streams, table.flows._opened, table.flows._rivals) == ({}, {}, {})


def test_a_flood_of_answered_syns_is_bounded() -> None:
    table = Table()
    for number in range(MOST_OPENED + 100):
        Pair(table, client=number.to_bytes(4)).open()
    assert (len(table.flows._opened), table.flows.streams) == (MOST_OPENED, {})
    Pair(table).websocket().close()
    assert table.codes() == ["1001"]


def test_more_connections_than_can_be_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flows, "MOST_FLOWS", 2)
    table = Table()
    for port in range(5):
        Pair(table, port=port + 1).websocket()
    assert (len(table.flows), table.losses.too_many) == (2, 6)


def test_opened_and_ended_without_a_word() -> None:
    table = Table()
    pair = Pair(table).open()
    pair.up(flags=FIN | ACK)
    pair.down(flags=FIN | ACK)
    assert (table.events, table.flows.streams) == ([], {})


def test_late_duplicates_of_what_has_ended_are_no_new_connection() -> None:
    table = Table()
    pair = Pair(table).websocket()
    pair.close()
    for data in (UP, b""):
        pair.up(data)
        pair.down(data)
    Pair(table).open()  # its own SYNs, once more
    assert (len(table.flows), len(table.flows._opened), len(table.events)) == (0, 0, 3)
    table.flows.forget_ended(ENDED_FOR - 1)
    assert table.flows._ended
    table.flows.forget_ended(ENDED_FOR)
    assert not table.flows._ended


def test_the_same_ports_again() -> None:
    table = Table()
    Pair(table).websocket().close()
    Pair(table, client_at=7000, server_at=9000).websocket().close()
    assert table.codes() == ["1001", "1001"]


def test_the_same_ports_again_while_the_end_of_the_former_was_missed() -> None:
    table = Table()
    Pair(table).websocket()
    Pair(table, client_at=7000, server_at=9000, at=5).websocket().close()
    assert table.codes() == ["unknown", "1001"]


def test_the_syns_of_a_connection_may_come_late() -> None:
    """By the other ring, when the connection has already been found by what it says."""
    table = Table()
    pair = Pair(table, client_at=101, server_at=901, at=5)
    pair.up(asks()[1])
    pair.down(accepts()[1])
    late = Pair(table, at=3)
    late.open()
    pair.close()
    assert table.codes() == ["1001"]


def test_a_forged_syn_ends_nothing() -> None:
    table = Table()
    pair = Pair(table).websocket()
    Pair(table, client_at=7000).up(flags=SYN)
    pair.up(UP)
    Pair(table, client_at=5, server_at=6).down(flags=SYN | ACK)
    pair.close()
    assert table.codes() == ["1001"]


def test_a_repeated_handshake_of_tcp_changes_nothing() -> None:
    table = Table()
    pair = Pair(table).websocket()
    Pair(table).open()
    pair.up(UP)
    pair.close()
    assert table.codes() == ["1001"]


def test_a_segment_without_ack_is_nobodys() -> None:
    table = Table()
    pair = Pair(table).websocket()
    before = pair.client_at
    pair.up(close(1011, key=KEY), flags=0)
    pair.client_at = before
    pair.close()
    assert table.codes() == ["1001"]


def test_a_request_on_a_connection_that_was_there_before() -> None:
    """A keep-alive connection that turns into a WebSocket is followed from its request on."""
    table = Table()
    pair = Pair(table)
    pair.down(b"the rest of some answer")
    pair.up(asks()[1])
    pair.down(accepts()[1])
    pair.close()
    (accepted,) = (event for event in table.events if isinstance(event, HandshakeEnded))
    assert (accepted.outcome, table.codes()) == ("accepted", ["1001"])


def test_the_first_thing_seen_is_a_request() -> None:
    table = Table()
    pair = Pair(table)
    pair.up(asks()[1])
    pair.down(accepts()[1])
    pair.close()
    assert table.codes() == ["1001"]


def test_a_websocket_that_was_there_before() -> None:
    table = Table()
    pair = Pair(table)
    for _ in range(3):
        pair.up(UP)
        pair.down(DOWN)
    pair.close()
    assert [event.origin for event in table.events if isinstance(event, Attached)] == [Origin("tap", "chat")]
    assert table.codes() == ["1001"]


@pytest.mark.parametrize("first", [b"\x16\x03\x01\x02\x00\x01", b"\x17\x03\x03\x00\x20"])
def test_tls_that_was_there_before(first: bytes) -> None:
    table = Table()
    Pair(table).up(first + bytes(40))
    assert [event.reason for event in table.events if isinstance(event, StreamUnparsed)] == ["tls"]


def test_tls_from_its_beginning() -> None:
    table = Table()
    Pair(table).open().up(b"\x16\x03\x01\x02\x00\x01" + bytes(40))
    assert [event.reason for event in table.events if isinstance(event, StreamUnparsed)] == ["tls"]


def test_what_waits_is_known_and_given_up() -> None:
    table = Table()
    pair = Pair(table).websocket()
    pair.segment(DOWN, up=False, missed=True)
    pair.at = SECOND
    pair.segment(DOWN, up=False)
    assert len(table.flows.waiting) == 1
    (flow,) = table.flows.waiting
    table.flows.give_up(flow, SECOND)
    assert len(table.flows.waiting) == 1
    table.flows.give_up(flow, SECOND + 1)
    table.flows.give_up(flow, SECOND + 1)  # once more does nothing
    assert (len(table.flows.waiting), table.losses.directions) == (0, 1)


def test_an_end_behind_a_gap_comes_when_it_is_given_up() -> None:
    table = Table()
    pair = Pair(table).websocket()
    pair.segment(DOWN, up=False, missed=True)
    pair.down(flags=FIN | ACK)
    before = pair.server_at
    pair.server_at = 0  # acknowledges nothing new
    pair.up(flags=FIN | ACK)
    pair.server_at = before
    assert len(table.flows) == 1
    (flow,) = table.flows.waiting
    table.flows.give_up(flow, SECOND)
    assert (table.codes(), table.flows.streams) == (["unknown"], {})


def keys(*pairs: Pair) -> frozenset[bytes]:
    return frozenset(pair.key(up=True) for pair in pairs)


def ask(table: Table, known: frozenset[bytes], asked: int) -> int:
    """The kernel is asked what it knows. Returns how many have vanished."""
    gone = [flow for flow in table.flows.vanished(known, asked) if flow is not None]
    for flow in gone:
        table.flows.forget(flow)
    return len(gone)


def test_what_the_kernel_knows_no_more_has_vanished() -> None:
    """When it does not know it for the second time: the end may still be in a ring."""
    table = Table()
    one, two = Pair(table).websocket(), Pair(table, port=40001).websocket()
    assert ask(table, keys(one, two), SECOND) == 0
    assert not table.flows.any_missing
    assert ask(table, keys(two), SECOND) == 0
    assert table.flows.any_missing
    assert ask(table, keys(two), SECOND) == 1
    assert (table.codes(), len(table.flows)) == (["unknown"], 1)


def test_what_ends_between_two_looks_has_its_own_end() -> None:
    table = Table()
    one, two = Pair(table).websocket(), Pair(table, port=40001).websocket()
    ask(table, keys(two), SECOND)
    one.close()
    assert ask(table, keys(two), SECOND) == 0
    assert table.codes() == ["1001"]


def test_what_the_kernel_never_knew_may_be_elsewhere() -> None:
    table = Table()
    pair = Pair(table).websocket()
    for _ in range(3):
        assert ask(table, frozenset(), UNKNOWN_FOR * 2) == 0
    pair.close()
    assert table.codes() == ["1001"]


def test_what_is_no_websocket_and_unknown_to_the_kernel_is_forgotten() -> None:
    table = Table()
    Pair(table).up(b"whatever this is")
    assert ask(table, frozenset(), UNKNOWN_FOR) == 0
    assert ask(table, frozenset(), UNKNOWN_FOR + 1) == 1
    assert (len(table.flows), table.events) == (0, [])


def test_connections_come_and_go_while_they_are_compared() -> None:
    """There may be very many, so they are looked at one by one, and others get their turn in between."""
    table = Table()
    one, two = Pair(table).websocket(), Pair(table, port=40001).websocket()
    ask(table, keys(one, two), SECOND)
    ask(table, frozenset(), SECOND)
    looked_at = table.flows.vanished(frozenset(), SECOND)
    assert next(looked_at) is not None
    two.close()
    Pair(table, port=40002).websocket()
    assert list(looked_at) == [None, None, None]
    assert ask(table, frozenset(), SECOND) == 1
    assert table.codes() == ["1001", "unknown"]


def test_what_was_heard_since_the_kernel_was_asked_has_not_vanished() -> None:
    table = Table()
    pair = Pair(table).websocket()
    ask(table, keys(pair), SECOND)
    ask(table, frozenset(), SECOND)
    pair.at = 3 * SECOND
    pair.up(flags=FIN | ACK)
    assert ask(table, frozenset(), 2 * SECOND) == 0
    assert table.codes() == []


def test_all_together_hold_only_so_much(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever goes beyond it waits no longer."""
    monkeypatch.setattr(flows, "MOST_HELD", 3000)
    table = Table()
    pairs = [Pair(table, port=port).websocket() for port in (1, 2, 3)]
    for pair in pairs:
        pair.segment(DOWN, up=False, missed=True)
        pair.down(b"\x82\x7e\x04\x00" + bytes(1024) + DOWN)
    assert (len(table.flows.waiting), table.losses.directions) == (2, 1)
    for pair in pairs:
        pair.down(flags=RST | ACK)
    assert (table.flows._held, table.flows.waiting) == (0, set())


def test_the_clock_was_set() -> None:
    table = Table()
    Pair(table, port=40001).websocket().close()
    assert table.flows._ended
    table.flows.step()
    assert table.flows._ended == {}
