"""A connection of which one side has closed completely: all it said arrives, and then its place comes back."""

import asyncio
import hashlib
import socket
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from random import Random
from typing import Any, Final, TypeVar

import pytest

from exporter.sources import dial, lingering
from tests.support.loops import conversation, eventually, in_both_loops
from tests.support.peers import Pair, Peer, close_frame, message, relayed
from tests.wire.support import BINARY, frame

SOON: Final = 0.1
NOTICED: Final = 5.0
FORGOTTEN: Final = 3.0
"""Seconds after which a kernel has surely forgotten a connection that `impatient` closed, and was asked about it."""

T = TypeVar("T")

BUFFERED: Final = "websocket_exporter_tap_buffered_bytes"
LARGE: Final = 2_000_000
NARROW: Final = 1 << 16


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look every tenth of a second; probe after a second of silence; take a closed Unix socket for reset at once."""
    monkeypatch.setattr(lingering, "LOOK", SOON)
    monkeypatch.setattr(lingering, "FORGOTTEN", 3 * SOON)
    idle = {socket.TCP_KEEPIDLE: 1, socket.TCP_KEEPINTVL: 1}
    options = [(level, option, idle.get(option, value)) for level, option, value in dial._OPTIONS]
    monkeypatch.setattr(dial, "_OPTIONS", options)


def sides(pair: Pair, first: str) -> tuple[Peer, Peer]:
    return (pair.client, pair.server) if first == "client" else (pair.server, pair.client)


def impatient(peer: Peer) -> None:
    """Have this peer's kernel forget its connection a second after it was closed, not a minute."""
    if peer.sock.family == socket.AF_INET:
        peer.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_LINGER2, 1)


def narrow(peer: Peer) -> None:
    """Have this peer's kernel take little that was not asked for."""
    peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, NARROW)


async def has_failed(peer: Peer) -> int:
    """Wait until this side has been told by a RST. Returns the error."""
    return await eventually(lambda: peer.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR), NOTICED)


async def each(check: Callable[[T], Coroutine[Any, Any, None]], *cases: T) -> None:
    """All cases at once: most of their time they wait."""
    async with asyncio.TaskGroup() as tasks:
        for case in cases:
            tasks.create_task(check(case))


async def held(pair: Pair) -> float:
    return (await pair.watched.scrape()).value(BUFFERED)


@conversation
async def test_what_the_kernel_holds_of_a_closed_side_arrives() -> None:
    """Megabytes wait in kernels for a reader that pauses, longer than a kernel remembers who sent them: all arrive."""

    async def check(first: str) -> None:
        async with relayed() as pair:
            closing, reading = sides(pair, first)
            narrow(reading)
            impatient(closing)
            said = Random(first).randbytes(LARGE)
            await closing.send(said)
            closing.close()
            await asyncio.sleep(FORGOTTEN)  # what is looked at is a length of time
            assert hashlib.sha256(await reading.rest()).digest() == hashlib.sha256(said).digest()
            assert await has_failed(reading)

    await each(check, "client", "server")


@conversation
async def test_what_is_not_even_read_of_a_closed_side_arrives() -> None:
    """The same where the side's FIN itself has not been read, because the other takes nothing."""

    async def check(first: str) -> None:
        random = Random(first)
        async with relayed() as pair:
            closing, reading = sides(pair, first)
            narrow(reading)
            impatient(closing)
            said = hashlib.sha256()
            while not await held(pair):
                noise = random.randbytes(1 << 17)
                await closing.send(noise)
                said.update(noise)
            closing.close()
            await asyncio.sleep(FORGOTTEN)  # what is looked at is a length of time
            assert hashlib.sha256(await reading.rest()).digest() == said.digest()
            assert await has_failed(reading)

    await each(check, "client", "server")


@conversation
async def test_a_closed_side_whose_words_were_taken() -> None:
    """Where the other side has taken everything and neither says nor ends anything, the place comes back."""

    async def check(first: str) -> None:
        async with relayed() as pair:
            await pair.upgrade()
            closing, staying = sides(pair, first)
            impatient(closing)
            farewell = close_frame(1001, masked=first == "client")
            await closing.send(farewell)
            closing.close()
            assert await staying.rest() == farewell
            assert await pair.watched.closes(within=NOTICED) == {("1001", "going_away", first): 1}
            assert await has_failed(staying)

    await each(check, "client", "server")


@in_both_loops
@conversation
async def test_a_closed_unix_socket(loop: str, tmp_path: Path) -> None:
    """A service behind a Unix socket that has gone gives its place back too, though nothing can be asked of it."""
    async with relayed(tmp_path / "service") as pair:
        await pair.upgrade()
        await pair.server.send(close_frame(1001, masked=False))
        began = time.monotonic()
        pair.server.close()
        assert await pair.client.rest() == close_frame(1001, masked=False)
        assert await pair.watched.closes() == {("1001", "going_away", "server"): 1}
        assert await has_failed(pair.client)
        assert time.monotonic() - began >= lingering.FORGOTTEN


@in_both_loops
@conversation
async def test_a_closed_unix_socket_and_a_reader_that_pauses(loop: str, tmp_path: Path) -> None:
    """The place is kept while anything that the service said has not been taken, and all of it arrives."""
    async with relayed(tmp_path / "service") as pair:
        narrow(pair.client)
        said = Random(5).randbytes(LARGE)
        await pair.server.send(said)
        pair.server.close()
        await asyncio.sleep(20 * SOON)  # what is looked at is a length of time
        assert hashlib.sha256(await pair.client.rest()).digest() == hashlib.sha256(said).digest()
        assert await has_failed(pair.client)


@conversation
async def test_a_half_closed_service_is_not_taken_for_gone(tmp_path: Path) -> None:
    """A service that has only finished talking goes on listening for as long as it likes."""

    async def check(path: Path | None) -> None:
        async with relayed(path) as pair:
            await pair.server.send(b"that was all")
            pair.server.finish()
            assert await pair.client.rest() == b"that was all"
            await asyncio.sleep(FORGOTTEN)  # what is looked at is a length of time
            await pair.client.send(b"still there?")
            assert await pair.server.read(12) == b"still there?"
            impatient(pair.server)
            pair.server.close()
            assert await has_failed(pair.client)

    await each(check, None, tmp_path / "service")


@conversation
async def test_a_half_closed_service_and_a_reader_that_pauses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When patience has ended with a client that takes nothing, a service that is still there changes nothing."""
    monkeypatch.setattr(lingering, "PATIENCE", 3 * SOON)

    async def check(path: Path | None) -> None:
        async with relayed(path) as pair:
            narrow(pair.client)
            said = bytes(LARGE)
            await pair.server.send(said)
            pair.server.finish()
            await asyncio.sleep(FORGOTTEN)  # what is looked at is a length of time
            assert await pair.client.rest() == said
            await pair.client.send(b"still there?")
            assert await pair.server.read(12) == b"still there?"

    await each(check, None, tmp_path / "service")


@conversation
async def test_a_reader_that_never_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that takes nothing at all is not waited for without end; what a service said before it left counts."""
    monkeypatch.setattr(lingering, "PATIENCE", 1.0)

    async def check(path: Path | None) -> None:
        async with relayed(path) as pair:
            narrow(pair.client)
            await pair.upgrade()
            impatient(pair.server)
            while not await held(pair):
                await pair.server.send(message(bytes(1 << 16), masked=False))
            await pair.server.send(close_frame(1009, masked=False))
            pair.server.close()
            assert await pair.watched.closes(within=3 * NOTICED) == {("1009", "too_big", "server"): 1}
            assert await held(pair) == 0
            assert await has_failed(pair.client)

    await each(check, None, tmp_path / "service")


@conversation
async def test_a_slow_reader_of_a_closed_service_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long it takes in all: patience ends only with a reader that takes nothing."""
    monkeypatch.setattr(lingering, "PATIENCE", 0.5)
    async with relayed(tmp_path / "service") as pair:
        narrow(pair.client)
        said = frame(BINARY, bytes(LARGE // 2))
        await pair.server.send(said)
        pair.server.close()
        for start in range(0, len(said), 1 << 16):
            piece = said[start : start + (1 << 16)]
            assert await pair.client.read(len(piece)) == piece
            await asyncio.sleep(SOON)
        assert await has_failed(pair.client)
