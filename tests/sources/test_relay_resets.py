"""How a relay ends when one side breaks off: by RST, after everything that this side still had to say."""

import asyncio
import contextlib
import socket
from typing import Final

import pytest

from tests.support.loops import conversation, eventually, in_both_loops
from tests.support.peers import Pair, Peer, all_that_is_left, close_frame, connected, message, relayed
from tests.wire.support import BINARY, KEY, frame

ROUNDS: Final = 50
NOTICED: Final = 3.0
"""Seconds within which the reset of a side that is not being read has reached the other."""


def sides(pair: Pair, first: str) -> tuple[Peer, Peer]:
    return (pair.client, pair.server) if first == "client" else (pair.server, pair.client)


@pytest.mark.parametrize("first", ["client", "server"])
@in_both_loops
@conversation
async def test_a_reset_is_passed_on_as_a_reset(loop: str, first: str) -> None:
    """A RST from either side reaches the other as a RST."""
    async with relayed() as pair:
        breaking, other = sides(pair, first)
        await breaking.send(b"hello")
        assert await other.read(5) == b"hello"
        breaking.reset()
        assert await other.last_words() == b""


@pytest.mark.parametrize("first", ["client", "server"])
@in_both_loops
@conversation
async def test_words_and_reset_at_once_arrive_in_order(loop: str, first: str) -> None:
    """What was sent in the instant before a RST arrives, and then the RST, though no side says any more."""
    async with relayed() as pair:
        for _ in range(ROUNDS):
            with await connected(pair.watched.address) as client, await pair.door.accept() as server:
                breaking, other = (client, server) if first == "client" else (server, client)
                await other.send(b"hello")
                assert await breaking.read(5) == b"hello"
                breaking.sock.send(b"goodbye")
                breaking.reset()  # no await between: the tap finds both in one look
                assert await other.last_words() == b"goodbye"


@pytest.mark.parametrize("first", ["client", "server"])
@in_both_loops
@conversation
async def test_a_fin_is_passed_on_as_a_fin(loop: str, first: str) -> None:
    """A side that closes with nothing unread ends the other by FIN."""
    async with relayed() as pair:
        closing, other = sides(pair, first)
        closing.close()
        assert await other.rest() == b""


@pytest.mark.parametrize("first", ["client", "server"])
@in_both_loops
@conversation
async def test_a_reset_by_a_side_that_is_not_read_is_noticed(loop: str, first: str) -> None:
    """A RST from a side whose reading is paused, because the other does not read, still ends both soon."""
    async with relayed() as pair:
        breaking, other = sides(pair, first)
        await pair.upgrade()
        await breaking.send(frame(BINARY, length=(1 << 63) - 1, key=KEY if first == "client" else None))
        await breaking.fill()
        page = await pair.watched.scrape()
        assert page.value("websocket_exporter_tap_buffered_bytes") > 0
        assert page.value("websocket_connections_active") == 1
        breaking.reset()
        assert await pair.watched.closes(within=NOTICED) == {("1006", "abnormal", first): 1}
        await other.last_words()
        page = await pair.watched.scrape()
        assert page.value("websocket_exporter_tap_buffered_bytes") == 0
        assert page.counted("websocket_transport_ends_total", "side", "kind") == {(first, "reset"): 1}


@pytest.mark.parametrize("first", ["client", "server"])
@conversation
async def test_a_reset_after_a_half_close_is_noticed(first: str) -> None:
    """A side that has sent its FIN is not read any more; its RST still ends both soon."""
    async with relayed() as pair:
        breaking, other = sides(pair, first)
        breaking.finish()
        assert await other.rest() == b""
        breaking.reset()
        await eventually(lambda: other.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR), NOTICED)


@pytest.mark.parametrize("first", ["client", "server"])
@in_both_loops
@conversation
async def test_a_reset_of_a_half_closed_side_that_does_not_read(loop: str, first: str) -> None:
    """A side that sent its FIN, reads nothing of what waits for it, and then breaks off, ends both at once."""
    async with relayed() as pair:
        breaking, other = sides(pair, first)
        await pair.upgrade()
        breaking.finish()
        assert await other.rest() == b""
        await other.send(b"\x82\x7f" + (1 << 40).to_bytes(8))  # one endless message, whatever comes
        await other.fill()
        breaking.reset()
        await eventually(lambda: other.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR), NOTICED)
        assert await pair.watched.closes() == {("1006", "abnormal", first): 1}
        assert (await pair.watched.scrape()).value("websocket_exporter_tap_buffered_bytes") == 0


@pytest.mark.parametrize("first", ["client", "server"])
@in_both_loops
@conversation
async def test_both_sides_break_off_at_once(loop: str, first: str) -> None:
    """Two sides that say something and reset in the same instant leave nothing behind, and are counted once."""
    async with relayed() as pair:
        for _ in range(ROUNDS):
            with await connected(pair.watched.address) as client, await pair.door.accept() as server:
                await Pair(client, server, pair.watched, pair.door).upgrade()
                for peer in (client, server) if first == "client" else (server, client):
                    peer.sock.send(b"goodbye")
                    peer.reset()  # no await between: the tap finds both in one look
        closes = await pair.watched.closes(ROUNDS)
        assert closes.keys() <= {("1006", "abnormal", "client"), ("1006", "abnormal", "server")}
        assert sum(closes.values()) == ROUNDS


async def write_until_reset(writer: Peer, chunk: bytes) -> None:
    """Write whatever happens, as a client does that uploads and does not look at answers."""
    with contextlib.suppress(ConnectionError):
        while True:
            await writer.send(chunk)


@pytest.mark.parametrize("first", ["client", "server"])
@in_both_loops
@conversation
async def test_the_last_words_of_a_side_that_refuses_a_message(loop: str, first: str) -> None:
    """A side that answers an endless message with a Close frame and a RST is heard, and counted, every time.

    This is how many peers refuse a message over their limit: they send 1009 and close, with megabytes unread.
    """
    async with relayed() as pair:
        farewell = close_frame(1009, masked=first == "client")
        for _ in range(ROUNDS):
            with await connected(pair.watched.address) as client, await pair.door.accept() as server:
                refused = Pair(client, server, pair.watched, pair.door)
                await refused.upgrade()
                refusing, writer = sides(refused, first)
                async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
                    writing = tasks.create_task(
                        write_until_reset(writer, message(bytes(1 << 18), masked=first == "server"))
                    )
                    await refusing.read(1 << 16)
                    await refusing.send(farewell)
                    refusing.close()
                    await writing
                assert await all_that_is_left(writer) == farewell
        assert await pair.watched.closes(ROUNDS) == {("1009", "too_big", first): ROUNDS}
