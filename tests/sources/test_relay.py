"""What a relay passes on, over real sockets: bytes, FIN, and the pace of whoever reads."""

import asyncio
import gc
import hashlib
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Final

import pytest
import structlog

from exporter.sources.pace import READ_SIZE
from exporter.sources.relay import Relay
from exporter.wire import http1, upgrade
from exporter.wire.frames import FrameMeter
from exporter.wire.websocket import WebSocket
from tests.support.loops import conversation, eventually, in_both_loops
from tests.support.peers import Pair, Peer, connected, message, opened, relayed
from tests.support.watching import watching

MIB: Final = 1 << 20
BUFFERED: Final = "websocket_exporter_tap_buffered_bytes"


def pieces(data: bytes, random: Random) -> Iterator[bytes]:
    """`data` in pieces of every order of magnitude."""
    start = 0
    while start < len(data):
        size = int(10 ** random.uniform(0, 5.7))
        yield data[start : start + size]
        start += size


async def say(peer: Peer, data: bytes, random: Random) -> None:
    for piece in pieces(data, random):
        await peer.send(piece)
    peer.finish()


def sides(pair: Pair, writer: str) -> tuple[Peer, Peer]:
    """Who writes and who reads."""
    return (pair.client, pair.server) if writer == "client" else (pair.server, pair.client)


@pytest.mark.parametrize("upstream", ["tcp", "unix"])
@in_both_loops
@conversation
async def test_every_byte_arrives_as_it_was_sent(loop: str, upstream: str, tmp_path: Path) -> None:
    """Megabytes in both directions at once, in any split, arrive byte for byte, with a FIN behind them."""
    random = Random(11009)
    question, answer = random.randbytes(3 * MIB), random.randbytes(5 * MIB)
    async with relayed(tmp_path / "service" if upstream == "unix" else None) as pair, asyncio.TaskGroup() as tasks:
        tasks.create_task(say(pair.client, question, random))
        tasks.create_task(say(pair.server, answer, random))
        asked = tasks.create_task(pair.server.rest())
        answered = tasks.create_task(pair.client.rest())
        received = [hashlib.sha256(await all_of_it).digest() for all_of_it in (asked, answered)]
        assert received == [hashlib.sha256(sent).digest() for sent in (question, answer)]


@pytest.mark.parametrize("ending", [Peer.finish, Peer.reset])
@conversation
async def test_what_is_over_is_no_work_for_the_garbage_collector(ending: Callable[[Peer], None]) -> None:
    """Nothing of a relay refers to itself once it has closed: its memory is given back at once."""

    def relays() -> int:
        return sum(isinstance(found, Relay) for found in gc.get_objects())

    gc.collect()
    before = relays()  # what failed in another test may be held by its traceback
    gc.disable()
    try:
        async with relayed() as pair:
            await pair.upgrade()
            assert relays() == before + 1
            ending(pair.client)
            ending(pair.server)
            await eventually(lambda: relays() == before)
    finally:
        gc.enable()


@pytest.mark.parametrize("writer", ["client", "server"])
@conversation
async def test_urgent_data_is_data(writer: str) -> None:
    """What TCP calls urgent (RFC 6093) arrives where it was in the stream, as any other byte."""
    async with relayed() as pair:
        writing, reading = sides(pair, writer)
        writing.sock.send(b"ab", socket.MSG_OOB)
        await writing.send(b"cd")
        assert await reading.read(4) == b"abcd"


@pytest.mark.parametrize("first", ["client", "server"])
@in_both_loops
@conversation
async def test_a_half_close_stays_half(loop: str, first: str) -> None:
    """Whoever has sent its FIN goes on receiving, until the other side has ended too."""
    async with relayed() as pair:
        early, late = sides(pair, first)
        await early.send(b"all I had to say")
        early.finish()
        assert await late.rest() == b"all I had to say"
        for word in (b"and ", b"yet ", b"more"):
            await late.send(word)
            assert await early.read(len(word)) == word
        late.finish()
        assert await early.rest() == b""


@pytest.mark.parametrize("writer", ["client", "server"])
@in_both_loops
@conversation
async def test_a_side_that_does_not_read_stops_the_other_from_writing(loop: str, writer: str) -> None:
    """The tap holds one read at most for a side that does not read; all arrives once it does, and nothing is held."""
    async with relayed() as pair:
        writing, reading = sides(pair, writer)
        written = await writing.fill()
        held = (await pair.watched.scrape()).value(BUFFERED)
        assert 0 < held <= READ_SIZE
        writing.finish()  # behind everything that is still on its way
        assert hashlib.sha256(await reading.rest()).digest() == written
        assert (await pair.watched.scrape()).value(BUFFERED) == 0
        await reading.send(b"the other direction was never stopped")
        assert await writing.read(5) == b"the o"


@conversation
async def test_a_stopped_direction_does_not_stop_the_other() -> None:
    """A server that does not read what the client uploads can still talk to it."""
    async with relayed() as pair:
        await pair.client.fill()
        for _ in range(3):
            await pair.server.send(b"patience")
            assert await pair.client.read(8) == b"patience"


@conversation
async def test_what_a_client_says_before_the_upstream_is_dialled_arrives() -> None:
    """Bytes that came with the connection, and even its end, are kept for the upstream."""
    with opened(backlog=1) as door:
        async with watching(door.address) as watched:
            with await connected(watched.address) as client:
                client.sock.send(b"first words")
                client.finish()
                assert await (await door.accept()).rest() == b"first words"


FAULTS = {
    "of a request": (http1, "parse_request"),
    "of an answer": (upgrade, "accept_value"),
    "of frames": (FrameMeter, "_frame"),
    "at the end": (WebSocket, "finish"),
}


@pytest.mark.parametrize("fault", FAULTS)
@conversation
async def test_a_fault_in_observing_never_stops_the_stream(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """If our own parser fails, the connection is relayed on unread, and counted and logged as a fault of ours."""

    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError(f"a fault {fault}")

    monkeypatch.setattr(*FAULTS[fault], fail)
    async with relayed() as pair:
        with structlog.testing.capture_logs() as lines:
            await pair.upgrade()
            await pair.client.send(b"\x89\x80mask")
            assert await pair.server.read(6) == b"\x89\x80mask"
            for side in (pair.client, pair.server):
                side.finish()
            assert (await pair.client.rest(), await pair.server.rest()) == (b"", b"")
        assert [str(line["exc_info"]) for line in lines if line["log_level"] == "error"] == [f"a fault {fault}"]
        page = await pair.watched.scrape()
        unread = page.counted("websocket_exporter_unparsed_streams_total", "reason")
        assert unread == ({} if fault == "at the end" else {("internal_error",): 1})


@conversation
async def test_a_fault_in_looking_ahead_never_stops_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same where it is not bytes that our parser fails on, but the question of what comes next."""

    def fail(*_: object) -> int:
        raise ZeroDivisionError

    monkeypatch.setattr(FrameMeter, "ahead", fail)
    async with relayed() as pair:
        await pair.upgrade()
        for _ in range(3):
            await pair.client.send(message(bytes(100_000)))
            assert len(await pair.server.read(100_014)) == 100_014
        page = await pair.watched.scrape()
        assert page.counted("websocket_exporter_unparsed_streams_total", "reason") == {("internal_error",): 1}
