"""One observed connection: every handshake settled once, every WebSocket closed once, the rest named."""

import gc

import pytest

from exporter.closecodes import Vocabulary
from exporter.events import (
    AnomalySeen,
    Closed,
    Ending,
    EndKind,
    Event,
    HandshakeEnded,
    Initiator,
    Passing,
    StreamUnparsed,
    TransportEnd,
)
from exporter.metrics.catalogue import REJECTED_STATUSES
from exporter.wire.connection import status_label
from exporter.wire.http1 import FOREVER
from tests.wire.support import (
    BINARY,
    KEY,
    LISTENER,
    ORIGIN,
    TEXT,
    Observed,
    Turn,
    accepts,
    asks,
    client,
    close,
    frame,
    server,
)

GET = client("GET / HTTP/1.1")
OK = server("HTTP/1.1 200 OK\nContent-Length: 0")
ACCEPTED = HandshakeEnded(ORIGIN, "accepted", "101", 0.0)
HELLO = frame(TEXT, b"Hello", key=KEY)


def finished(turns: list[Turn], side: Initiator = "server", kind: EndKind = "fin") -> list[Event]:
    """All events of a connection on which `turns` passed before `side` ended it."""
    observed = Observed()
    observed.take(*turns)
    observed.observer.transport_ended(side, kind)
    observed.observer.finish()
    return observed.events


def test_a_handshake_is_told_with_its_duration() -> None:
    """From the complete request head to the complete response head, in seconds, under the target it belongs to."""
    observed = Observed()
    awaiting = []
    for after, turn in (
        (0, GET),
        (9, OK),
        (9, client(asks()[1][:-1])),
        (9, client(asks()[1][-1:])),
        (0.25, server("HTTP/1.1 100 Continue")),
        (0.25, server(accepts()[1][:-1])),
        (0.25, server(accepts()[1][-1:])),
    ):
        observed.now += after
        observed.take(turn)
        awaiting.append(observed.observer.awaiting_answer)
    assert awaiting == [True, False, False, True, True, True, False]
    assert observed.events == [HandshakeEnded(ORIGIN, "accepted", "101", 0.75)]
    assert [request.path for request in observed.asked] == ["/chat"]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 426, 429, 500, 502, 503, 504])
def test_rejections_by_status(status: int) -> None:
    """The service's answer is a label of its own where that is known to matter."""
    answer = server(f"HTTP/1.1 {status} No\nContent-Length: 0")
    rejected = HandshakeEnded(ORIGIN, "rejected", str(status), 0.0)
    assert finished([asks(), answer, asks(), answer]) == [rejected, rejected]


@pytest.mark.parametrize("status", [200, 204, 301, 418, 501, 999])
def test_other_rejections_share_a_label(status: int) -> None:
    """A service may answer anything: labels stay bounded."""
    answer = server(f"HTTP/1.1 {status} No\nContent-Length: 0")
    assert finished([asks(), answer]) == [HandshakeEnded(ORIGIN, "rejected", "other", 0.0)]


def test_status_labels_are_those_of_the_catalogue() -> None:
    """Every status has one, and no other label comes up."""
    assert {status_label(status) for status in range(100, 1000)} == set(REJECTED_STATUSES)


@pytest.mark.parametrize(
    ("side", "status"), [("client", "timeout"), ("server", "closed"), ("exporter", "closed"), (None, "closed")]
)
def test_an_unanswered_handshake_failed(side: Initiator | None, status: str) -> None:
    """A client that gave up first points at an overloaded service; otherwise the connection was dropped."""
    for half in ([], [server(accepts()[1][:-1])]):
        observed = Observed()
        observed.take(asks(), *half)
        if side:
            observed.observer.transport_ended(side, "fin")
        observed.observer.finish()
        assert observed.events == [HandshakeEnded(ORIGIN, "failed", status)]


def test_whoever_relays_may_settle_a_handshake() -> None:
    """Its own answer to the client (nobody listens, limit, draining) is told once; later ends add nothing."""
    observed = Observed()
    observed.observer.unanswered("failed", "refused")
    assert observed.events == []
    observed.take(asks())
    observed.observer.unanswered("failed", "refused")
    observed.observer.unanswered("refused_by_exporter", "draining")
    observed.observer.transport_ended("exporter", "fin")
    observed.observer.finish()
    assert observed.events == [HandshakeEnded(ORIGIN, "failed", "refused")]


def test_a_settled_handshake_makes_no_websocket() -> None:
    """An answer that comes too late opens nothing that would have to be closed."""
    observed = Observed()
    observed.take(asks())
    observed.observer.unanswered("failed", "timeout")
    observed.take(accepts())
    observed.observer.finish()
    assert observed.events == [HandshakeEnded(ORIGIN, "failed", "timeout")]


@pytest.mark.parametrize("opened", [True, False])
def test_finishing_again_does_nothing(opened: bool) -> None:
    """The owed events are told exactly once, and what comes afterwards is not looked at."""
    observed = Observed()
    observed.take(asks(), *([accepts()] if opened else []))
    observed.observer.finish()
    told = list(observed.events)
    observed.observer.transport_ended("client", "fin")
    observed.observer.finish()
    observed.take(client(close(1000, key=KEY)), server(close(1000)), asks(), accepts())
    observed.observer.finish()
    assert observed.events == told
    assert [type(event) for event in told] == [HandshakeEnded, *([Ending, Closed] if opened else [])]


@pytest.mark.parametrize("turns", [[GET, OK], [asks(), accepts()], [asks(), server("HTTP/1.1 403 No")]])
def test_what_is_over_is_no_work_for_the_garbage_collector(turns: list[Turn]) -> None:
    """Nothing of a finished connection refers to itself: its memory is given back at once."""
    observed = Observed()
    gc.collect()
    gc.disable()
    try:
        observed.take(*turns)
        observed.observer.finish()
        assert gc.collect() == 0
    finally:
        gc.enable()


def test_connections_without_an_upgrade_say_nothing() -> None:
    """Plain HTTP passes, is understood, and is not what this is about."""
    assert finished([]) == []
    assert finished([GET, OK, GET, OK]) == []
    assert finished([GET], "client", "reset") == []


@pytest.mark.parametrize("turns", [[client(b"GET / HTTP/1.1\r\nHost")], [GET, OK, client(b"G")]])
def test_a_head_that_never_ends_is_told_at_the_end(turns: list[Turn]) -> None:
    """Until then the rest of it might come."""
    observed = Observed()
    observed.take(*turns)
    assert observed.events == []
    observed.observer.finish()
    assert observed.events == [StreamUnparsed(LISTENER, "incomplete_head")]


@pytest.mark.parametrize(
    ("turns", "reason"),
    [
        ([client(b"\x16\x03\x01\0")], "tls"),
        ([GET, server(b"\0")], "bad_response_head"),
        ([accepts()], "unexpected_101"),
        ([asks("POST / HTTP/1.1"), accepts()], "other_upgrade"),
    ],
)
def test_an_unparsed_stream_is_told_once_and_not_looked_at_again(turns: list[Turn], reason: str) -> None:
    """Even where its bytes look like handshakes and frames; it is the listener's, no target was chosen."""
    rest = [asks(), accepts(), client(HELLO), client(b"\0"), server(b"\0")]
    assert finished([*turns, *rest]) == [StreamUnparsed(LISTENER, reason)]  # type: ignore[arg-type]


def test_how_much_is_ahead() -> None:
    """The rest of a body, then of a payload; nothing where a head or a frame may begin at any byte."""
    observed = Observed()
    told = []
    for turn in (
        client(asks("POST / HTTP/1.1", Content_Length="5")[1] + b"He"),
        client(b"llo"),
        server("HTTP/1.1 426 No\nContent-Length: 4"),
        server(b"Sad!"),
        asks(),
        accepts(),
        client(frame(BINARY, length=1000, key=KEY) + bytes(10)),
        server(frame(BINARY, length=70_000)),
    ):
        observed.take(turn)
        told.append((observed.observer.ahead("client"), observed.observer.ahead("server")))
    assert told == [(3, 0), (0, 0), (0, 4), (0, 0), (0, 0), (0, 0), (990, 0), (990, 70_000)]
    assert observed.observer.understood
    observed.take(client(bytes(990)))
    header = frame(BINARY, length=300, key=KEY) + bytes(6)
    assert (observed.observer.ahead("client", header), observed.observer.ahead("server", header)) == (300, 70_000)


@pytest.mark.parametrize("turns", [[client(b"\x16\x03\x01\0")], [GET, server(b"\0")], [asks(), accepts()]])
def test_everything_is_ahead_of_what_is_not_followed(turns: list[Turn]) -> None:
    """A stream that is not understood needs no looking at, nor does one that a fault of ours left unobserved."""
    observed = Observed()
    observed.take(*turns)
    if turns[-1] == accepts():
        assert observed.observer.understood
        observed.observer.fail()
    assert not observed.observer.understood
    assert observed.observer.ahead("client") == observed.observer.ahead("server") == FOREVER


def test_a_handshake_answered_by_a_fake_101_is_rejected() -> None:
    """A 101 that makes no WebSocket is no success: `other`, and the stream is not read as frames."""
    rejected = HandshakeEnded(ORIGIN, "rejected", "other", 0.0)
    fake = accepts(Sec_WebSocket_Accept="wrong")
    assert finished([asks(), fake, client(HELLO)]) == [rejected, StreamUnparsed(LISTENER, "accept_mismatch")]
    old = asks(Sec_WebSocket_Version="8")
    assert finished([old, accepts(), client(HELLO)]) == [rejected, StreamUnparsed(LISTENER, "unexpected_101")]


def test_a_handshake_on_a_stream_that_is_lost_stays_unsettled() -> None:
    """How it went cannot be known any more, and is not invented."""
    assert finished([asks(), server(b"\0")]) == [StreamUnparsed(LISTENER, "bad_response_head")]


def test_early_frames_and_frames_behind_the_101_are_read_in_their_order() -> None:
    """The client's early Close passed before anything of the server's: it is the first."""
    early, rest = client(close(1001, key=KEY)), server(accepts()[1] + close(1000))
    accepted, ending, mismatch, closed = finished([asks(), early, rest])
    assert accepted == ACCEPTED
    assert ending == Ending(ORIGIN, "1001", "going_away", "client", Passing())
    assert mismatch == AnomalySeen(ORIGIN, "server", "echo_mismatch")
    assert isinstance(closed, Closed)
    assert (closed.code, closed.initiator) == ("1001", "client")


def test_a_websocket_behind_a_refused_one_is_a_websocket_of_its_own() -> None:
    """One connection, two handshakes, one Close."""
    refused = server("HTTP/1.1 503 Later\nContent-Length: 0")
    *told, closed = finished([asks(), refused, asks(), accepts(), client(close(1000, key=KEY))])
    ending = Ending(ORIGIN, "1000", "normal", "client", Passing())
    assert told == [HandshakeEnded(ORIGIN, "rejected", "503", 0.0), ACCEPTED, ending]
    assert isinstance(closed, Closed)
    assert (closed.code, closed.initiator) == ("1000", "client")


def test_a_fault_of_ours_leaves_the_end_unknown() -> None:
    """After `fail` a Close frame might pass unseen, so that neither 1006 nor its sender may be claimed."""
    observed = Observed(opened=True)
    observed.take(client(HELLO))
    observed.observer.fail()
    observed.take(client(HELLO), server(close(1001)))
    observed.now += 5
    observed.observer.transport_ended("server", "fin")
    observed.observer.finish()
    unparsed, ending, closed = observed.events
    assert unparsed == StreamUnparsed(LISTENER, "internal_error")
    assert ending == Ending(ORIGIN, "unknown", "unknown", "unknown")
    assert isinstance(closed, Closed)
    assert (closed.code, closed.close_class, closed.initiator) == ("unknown", "unknown", "unknown")
    assert (closed.duration, closed.client_to_server.messages) == (5.0, 1)
    assert closed.transport_end == TransportEnd("server", "fin")


def test_a_close_frame_seen_before_a_fault_of_ours_still_counts() -> None:
    """What was observed is not lost."""
    observed = Observed(opened=True)
    observed.take(server(close(1001)))
    observed.observer.fail()
    observed.observer.finish()
    [closed] = observed.of(Closed)
    assert (closed.code, closed.initiator) == ("1001", "server")


def test_a_fault_of_ours_before_the_101() -> None:
    """There is no WebSocket to close, and the handshake's outcome is not known."""
    observed = Observed()
    observed.take(asks())
    observed.observer.fail()
    observed.take(accepts())
    observed.observer.finish()
    assert observed.events == [StreamUnparsed(LISTENER, "internal_error")]


def test_a_targets_vocabulary_names_its_closes() -> None:
    """The watch that was chosen for the handshake decides labels, classes and where sizes are counted."""
    observed = Observed(Vocabulary(frozenset({4404}), frozenset({1000})), opened=True)
    observed.take(server(close(1000)))
    observed.observer.finish()
    [closed] = observed.of(Closed)
    assert (closed.origin, closed.code, closed.close_class) == (ORIGIN, "1000", "going_away")
