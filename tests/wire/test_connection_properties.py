"""Whatever two peers send each other: nothing raises, and what is accepted is closed, exactly once."""

from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.events import Closed, Ending, EndKind, Event, HandshakeEnded, Initiator, Side, StreamUnparsed
from tests.wire.support import KEY, TEXT, Observed, Turn, accepts, asks, client, close, frame, server

REFUSED = server("HTTP/1.1 403 Forbidden\nContent-Length: 4")

scraps: st.SearchStrategy[Turn] = st.sampled_from(
    [
        asks(),
        asks(),
        asks(Sec_WebSocket_Version="12"),
        accepts(),
        accepts(),
        accepts(Sec_WebSocket_Accept="wrong"),
        accepts(Sec_WebSocket_Extensions="permessage-deflate"),
        REFUSED,
        server(b"Sad!"),
        server("HTTP/1.1 200 OK\nContent-Length: 0"),
        server("HTTP/1.1 200 OK\nTransfer-Encoding: chunked"),
        server(b"4\r\nSad!\r\n0\r\n\r\n"),
        server("HTTP/1.1 100 Continue"),
        server("HTTP/1.1 200 OK"),
        client("GET / HTTP/1.1"),
        client("HEAD / HTTP/1.1"),
        client("POST / HTTP/1.1\nContent-Length: 4\nExpect: 100-continue"),
        client("POST / HTTP/1.1\nUpgrade: h2c\nTransfer-Encoding: chunked"),
        client("CONNECT / HTTP/1.1"),
        client(b"4\r\nbody\r\n0\r\n\r\n"),
        client(b"body"),
        client(frame(TEXT, b"Hello", key=KEY)),
        client(close(1001, key=KEY)),
        server(close(1000)),
        server(frame(TEXT, bytes(200))),
    ]
)
sides: st.SearchStrategy[Side] = st.sampled_from(["client", "server"])
noise = st.tuples(sides, st.binary(max_size=40))


@st.composite
def talks(draw: st.DrawFn) -> list[Turn]:
    """Turns that may go far: most often an opened WebSocket, otherwise scraps of HTTP, and now and then noise."""
    before = draw(st.lists(scraps, max_size=6))
    opening = [asks(), accepts()] if draw(st.booleans()) else []
    return [*before, *opening, *draw(st.lists(st.one_of(scraps, scraps, noise), max_size=8))]


def in_pieces(turns: Sequence[Turn], places: list[int]) -> list[Turn]:
    """`turns`, each cut in two at one of `places` (modulo its length)."""
    pieces: list[Turn] = []
    for number, (side, data) in enumerate(turns):
        place = places[number % len(places)] % (len(data) + 1)
        pieces += [(side, data[:place]), (side, data[place:])]
    return pieces


def events(turns: Sequence[Turn], side: Initiator | None, kind: EndKind) -> list[Event]:
    """All events of a connection on which `turns` passed, and how many of them were Closed before its end."""
    observed = Observed()
    observed.take(*turns)
    assert not observed.of(Closed)
    if side:
        observed.observer.transport_ended(side, kind)
    observed.observer.finish()
    told = list(observed.events)
    observed.observer.finish()
    assert observed.events == told
    return told


ends: st.SearchStrategy[Initiator | None] = st.sampled_from(["client", "server", "exporter", None])
kinds: st.SearchStrategy[EndKind] = st.sampled_from(["fin", "reset", "timeout", "error"])


@settings(max_examples=500, deadline=None)
@given(talks(), ends, kinds, st.lists(st.integers(0, 300), min_size=1))
def test_every_accepted_handshake_is_closed_exactly_once(
    turns: list[Turn], side: Initiator | None, kind: EndKind, places: list[int]
) -> None:
    """At most one WebSocket a connection, at most one reason to stop parsing, and the same events in any pieces."""
    told = events(turns, side, kind)
    accepted = [event for event in told if isinstance(event, HandshakeEnded) and event.outcome == "accepted"]
    closed = [event for event in told if isinstance(event, Closed)]
    assert len(accepted) == len(closed) <= 1
    ends = [event for event in told if isinstance(event, Ending | Closed)]
    assert [type(event) for event in ends] == [Ending, Closed] * len(closed)
    assert len({(event.origin, event.code, event.close_class, event.initiator) for event in ends}) == len(closed)
    assert sum(isinstance(event, StreamUnparsed) for event in told) <= 1 - len(closed)
    assert events(in_pieces(turns, places), side, kind) == told


@settings(max_examples=200, deadline=None)
@given(st.lists(noise, max_size=12), ends, kinds)
def test_noise_makes_no_websocket(turns: list[Turn], side: Initiator | None, kind: EndKind) -> None:
    """Random bytes are at most one unparsed stream."""
    told = events(turns, side, kind)
    assert len(told) <= 1
    assert all(isinstance(event, StreamUnparsed) for event in told)


@settings(max_examples=200, deadline=None)
@given(st.lists(noise, max_size=12), ends, kinds)
def test_noise_on_an_open_websocket_is_closed_once(turns: list[Turn], side: Initiator | None, kind: EndKind) -> None:
    """Whatever its frames are, the end is told, last and once."""
    told = events([asks(), accepts(), *turns], side, kind)
    assert isinstance(told[0], HandshakeEnded)
    assert [isinstance(event, Closed) for event in told[1:]] == [False] * (len(told) - 2) + [True]
