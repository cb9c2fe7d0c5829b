"""The judges of the tap are judged themselves: what a record says, and that a witness relays what it records."""

import contextlib
from collections.abc import Iterator

import pytest

from tests.peers import truth
from tests.peers.raw import CLOSE, TEXT, Over, Raw, connected, frame
from tests.peers.stack import eventually
from tests.peers.test_clients import accepted, listening
from tests.peers.witness import Record, Seen, Witness

REQUEST = Seen("client", "data", b"GET / HTTP/1.1\r\n\r\n")
ANSWER = Seen("server", "data", b"HTTP/1.1 101 Switching Protocols\r\n\r\n")


def record(*seen: Seen) -> Record:
    return Record([REQUEST, ANSWER, *seen])


@pytest.mark.parametrize(
    ("close", "label"),
    [
        (None, "1006"),
        (b"", "1005"),
        (b"\x03", "invalid"),
        (b"\x03\xe8bye", "1000"),
        (b"\x03\xec", "invalid"),
        (b"\x03\xed", "invalid"),
        (b"\x03\xee", "invalid"),
        (b"\x03\xf7", "invalid"),
        (b"\x03\xf8", "reserved"),
        (b"\x0b\xb7", "reserved"),
        (b"\x0b\xb8", "3000"),
        (b"\x0b\xb9", "3xxx"),
        (b"\x0f\xa0", "4000"),
        (b"\x0f\xa1", "4xxx"),
        (b"\x13\x88", "invalid"),
    ],
)
def test_labels(close: bytes | None, label: str) -> None:
    """A Close frame's payload has one label."""
    assert truth.label(close) == label


def test_the_first_close_frame_wins() -> None:
    """A reply, even in the same read as the end, is no cause."""
    close = Seen("server", "data", frame(TEXT, b"x" * 200, masked=False) + frame(CLOSE, b"\x03\xf1", masked=False))
    reply = Seen("client", "data", frame(CLOSE, b"\x03\xe8", masked=True))
    ending = truth.ending(record(close, reply, Seen("client", "fin"), Seen("server", "fin")))
    assert (str(ending), ending.transport) == ("1009 server", ("client", "fin"))


def test_a_close_frame_counts_when_it_is_whole() -> None:
    """A Close that is cut in two and overtaken by the other side's comes second."""
    close = frame(CLOSE, b"\x03\xe9", masked=True)
    other = Seen("server", "data", frame(CLOSE, b"\x03\xf4", masked=False))
    halves = (Seen("client", "data", close[:3]), other, Seen("client", "data", close[3:]))
    assert str(truth.ending(record(*halves, Seen("server", "fin")))) == "1012 server"


def test_without_a_close_frame_who_ended_tcp_first() -> None:
    """1006 from whoever was first."""
    assert str(truth.ending(record(Seen("server", "reset")))) == "1006 server"
    assert str(truth.ending(record(Seen("client", "fin"), Seen("server", "fin")))) == "1006 client"


@contextlib.contextmanager
def witnessed() -> Iterator[tuple[Raw, Raw, Witness]]:
    """A client and a server with a witness between them."""
    with (
        listening() as listener,
        Witness(lambda: listener.getsockname()[1]).running() as witness,
        connected(witness.port) as client,
        accepted(listener) as server,
    ):
        yield client, server, witness


def over(witness: Witness) -> Record:
    return eventually(lambda: next((record for record in witness.records if record.over.is_set()), None), "it is over")


def received(peer: Raw) -> bytes:
    """Everything up to the other end's FIN."""
    parts = []
    while part := peer.sock.recv(1 << 16):
        parts.append(part)
    return b"".join(parts)


def test_a_witness_relays_a_half_close() -> None:
    """What the server sends behind the client's FIN arrives, and the record has both directions in order."""
    with witnessed() as (client, server, witness):
        client.send(b"question")
        client.finish()
        assert received(server) == b"question"
        server.send(b"answer" * 100_000)
        server.finish()
        assert received(client) == b"answer" * 100_000
        record = over(witness)
    assert [seen.kind for seen in record.seen if seen.kind != "data"] == ["fin", "fin"]
    assert (record.sent_by("client"), record.sent_by("server")) == (b"question", b"answer" * 100_000)


def test_a_witness_relays_a_reset() -> None:
    """A RST stays a RST, and is recorded as its sender's."""
    with witnessed() as (client, server, witness):
        client.send(b"question")
        assert server.sock.recv(100) == b"question"
        server.reset()
        with pytest.raises(Over, match="reset"):
            client.head()
        assert over(witness).seen[-1] == Seen("server", "reset")


def test_a_witness_hears_last_words() -> None:
    """What a server says before it breaks off is relayed and recorded although the client still sends."""
    with witnessed() as (client, server, witness):
        client.sock.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                client.sock.send(bytes(1 << 16))
        server.send(b"enough")
        server.sock.close()  # with unread data: the kernel sends a RST
        record = over(witness)
    assert record.sent_by("server") == b"enough"
    assert record.was_reset_by("server")
