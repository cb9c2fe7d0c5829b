"""Readers that take longer than a kernel remembers a closed connection, in real time."""

import asyncio
import hashlib
import socket
import time
from pathlib import Path
from random import Random
from typing import Final

import pytest

from tests.support.loops import long_conversation
from tests.support.peers import close_frame, connected, message, opened, relayed
from tests.support.watching import watching

SIZE: Final = 1_500_000
PAUSE: Final = 90.0
"""Seconds: net.ipv4.tcp_fin_timeout is 60, and so is the silence after which a connection is probed."""

KEPT: Final = 60.0
FORGOTTEN: Final = 75.0
"""Seconds between which a service that has closed its Unix socket is taken for gone."""

pytestmark = [pytest.mark.matrix, pytest.mark.timeout(280)]


async def pause_a_download() -> None:
    """A service sends a large message, closes and is gone; its client reads nothing for a while, then everything."""
    with opened() as door:
        async with watching(door.address) as watched:
            with await connected(watched.address, receive_buffer=1 << 16) as client:
                server = await door.accept()
                said = message(Random(1).randbytes(SIZE), masked=False) + close_frame(1000, masked=False)
                await server.send(said)
                server.close()
                await asyncio.sleep(PAUSE)  # what is looked at is a length of time
                assert hashlib.sha256(await client.rest()).digest() == hashlib.sha256(said).digest()


async def pause_an_upload() -> None:
    """A client uploads and is gone; the service reads nothing for a while, and then everything."""
    async with relayed() as pair:
        said = Random(2).randbytes(SIZE)
        pair.server.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        await pair.client.send(said)
        pair.client.close()
        await asyncio.sleep(PAUSE)  # what is looked at is a length of time
        assert hashlib.sha256(await pair.server.rest()).digest() == hashlib.sha256(said).digest()


async def give_back_the_place(path: Path | None) -> None:
    """A service closes and is gone, its client stays and is silent: the connection ends after a minute or two."""
    async with relayed(path) as pair:
        await pair.upgrade()
        await pair.server.send(close_frame(1001, masked=False))
        began = time.monotonic()
        pair.server.close()
        assert await pair.watched.closes(within=2 * PAUSE) == {("1001", "going_away", "server"): 1}
        assert time.monotonic() - began >= KEPT
        assert path is None or time.monotonic() - began < FORGOTTEN


@long_conversation
async def test_closed_connections_in_real_time(tmp_path: Path) -> None:
    """What a side said before it closed arrives however late it is read; a place that nobody needs comes back."""
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(pause_a_download())
        tasks.create_task(pause_an_upload())
        tasks.create_task(give_back_the_place(None))
        tasks.create_task(give_back_the_place(tmp_path / "service"))
