"""Memory while peers do not read, after they left, and when there is no more of it."""

import asyncio
import contextlib
import os
import resource
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from exporter.sources.pace import READ_SIZE
from tests.faults.crowd import head
from tests.support.loops import conversation, eventually
from tests.support.peers import Door, Peer, connected, opened
from tests.support.processes import Exporter, exporter_process, tap_flag
from tests.support.scraping import fetch
from tests.wire.support import BINARY, KEY, accepts, asks, frame

MIB: Final = 1 << 20
PAGE: Final = os.sysconf("SC_PAGE_SIZE")
SMALL: Final = 1 << 15
BUFFERED: Final = "websocket_exporter_tap_buffered_bytes"

PERIOD: Final = 251
PATTERN: Final = bytes(range(PERIOD)) * 8192
ENDLESS: Final = {
    "client": frame(BINARY, length=(1 << 63) - 1, key=KEY),
    "server": frame(BINARY, length=(1 << 63) - 1),
}
"""The header of a frame for whatever follows."""


def resident(exporter: Exporter) -> int:
    """Bytes of the process in memory."""
    return int(Path(f"/proc/{exporter.process.pid}/statm").read_text().split()[1]) * PAGE


def pattern(size: int) -> bytes:
    return (PATTERN * (size // len(PATTERN) + 1))[:size]


async def flood(peer: Peer) -> int:
    """Send the pattern until nobody on the way takes any more. Returns how many bytes went."""
    sent = idle = 0
    while idle < 10:
        try:
            start = sent % PERIOD
            sent += peer.sock.send(memoryview(PATTERN)[start : start + MIB // 2])
            idle = 0
        except BlockingIOError:
            idle += 1
            await asyncio.sleep(0.02)
    return sent


@dataclass
class Line:
    """One relayed WebSocket, on which nobody has said anything yet."""

    client: Peer
    server: Peer

    def side(self, name: str) -> Peer:
        return self.client if name == "client" else self.server


MASS: Final = 500
"""Connections from which on they must not take what they like: all of a machine share its memory for TCP."""


def restrain(sock: socket.socket) -> None:
    """Keep what the kernel holds for a connection small."""
    for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        sock.setsockopt(socket.SOL_SOCKET, option, SMALL)


async def lines(stack: contextlib.ExitStack, exporter: Exporter, door: Door, count: int) -> list[Line]:
    """So many of them, which close with the stack."""
    tap = await exporter.address("tap")
    if count > MASS:
        restrain(door.sock)  # those that it accepts inherit it
    made = []
    for _ in range(count):
        client = stack.enter_context(await connected(tap, receive_buffer=SMALL if count > MASS else None))
        if count > MASS:
            restrain(client.sock)
        await client.send(asks()[1])
        server = await door.accept()
        await head(server)
        await server.send(accepts()[1])
        await head(client)
        made.append(Line(client, server))
    return made


@pytest.mark.parametrize("writer", ["client", "server"])
@pytest.mark.parametrize("count", [30, pytest.param(1000, marks=pytest.mark.matrix)])
@conversation
async def test_readers_that_stop(writer: str, count: int, tmp_path: Path) -> None:
    """Each costs one read at most while it does not read; when they are gone nothing is held for them any more."""
    reader = "server" if writer == "client" else "client"
    with opened(4096) as door:
        async with exporter_process(tmp_path, tap_flag(door.address)) as exporter:
            with contextlib.ExitStack() as stack:
                made = await lines(stack, exporter, door, count)
                before = resident(exporter)
                for line in made:
                    await line.side(writer).send(ENDLESS[writer])
                await asyncio.gather(*(flood(line.side(writer)) for line in made))
                held = (await exporter.scrape()).value(BUFFERED)
                assert 0 < held <= count * READ_SIZE
                assert resident(exporter) - before < held + 4 * MIB
                for line in made:
                    line.side(reader).reset()

                async def settled() -> bool:
                    page = await exporter.scrape()
                    return page.value(BUFFERED) == page.value("websocket_connections_active") == 0

                await eventually(settled, within=15)
            page = await exporter.scrape()
            assert page.counted("websocket_closes_total", "code", "initiator") == {("1006", reader): count}


@conversation
async def test_a_slow_reader(tmp_path: Path) -> None:
    """A fast writer is held back to a slow reader's pace: memory stays flat, the connection lives, all arrives."""
    with opened() as door:
        async with exporter_process(tmp_path, tap_flag(door.address)) as exporter:
            with contextlib.ExitStack() as stack:
                [line] = await lines(stack, exporter, door, 1)
                before = resident(exporter)
                sizes = []

                async def write() -> None:
                    await line.server.send(ENDLESS["server"])
                    for _ in range(24):
                        await line.server.send(PATTERN[: PERIOD * 4096])
                    line.server.finish()

                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(write())
                    received = bytearray()
                    while part := await line.client.read(MIB):
                        received += part
                        sizes.append(resident(exporter))
                        await asyncio.sleep(0.02)
                    assert received == ENDLESS["server"] + pattern(24 * PERIOD * 4096)
                assert max(sizes) - before < 2 * MIB


def allow(exporter: Exporter, more: int) -> None:
    """Let the process have `more` bytes of address space than now, and no more."""
    limit = int(Path(f"/proc/{exporter.process.pid}/statm").read_text().split()[0]) * PAGE + more
    resource.prlimit(exporter.process.pid, resource.RLIMIT_AS, (limit, limit))


async def flood_and_finish(peer: Peer) -> int:
    """Flood, then a FIN. Returns how many bytes went, some of them perhaps into a connection that is broken."""
    sent = 0
    with contextlib.suppress(OSError):
        sent = await flood(peer)
        peer.finish()
    return sent


async def read_to_the_end(peer: Peer) -> tuple[bytes, str]:
    """All that comes, and whether a FIN or a RST ended it."""
    received = bytearray()
    try:
        while part := await asyncio.get_running_loop().sock_recv(peer.sock, MIB):
            received += part
    except ConnectionError:
        return bytes(received), "reset"
    return bytes(received), "fin"


@conversation
async def test_no_memory_left(tmp_path: Path) -> None:
    """Where memory is refused, a connection goes on unobserved or is broken off: no byte is lost, and nothing hangs."""
    count = 60
    with opened(4096) as door:
        async with exporter_process(tmp_path, tap_flag(door.address)) as exporter:
            web = await exporter.address("metrics")
            with contextlib.ExitStack() as stack:
                made = await lines(stack, exporter, door, count)
                allow(exporter, 4 * MIB)
                for line in made:
                    await line.server.send(ENDLESS["server"])
                sent = await asyncio.gather(*(flood_and_finish(line.server) for line in made))
                received = await asyncio.gather(*(read_to_the_end(line.client) for line in made))
                whole = 0
                for size, (data, end) in zip(sent, received, strict=True):
                    data = data.removeprefix(ENDLESS["server"])
                    assert data == pattern(len(data))
                    assert end == "reset" or len(data) == size
                    whole += end == "fin"
                assert 0 < whole < count

            page = await exporter.scrape()
            assert page.value("websocket_connections_active") == page.value(BUFFERED) == 0
            closes = page.counted("websocket_closes_total", "code", "initiator")
            assert sum(closes.values()) == count
            assert closes.get(("1006", "server"), 0) <= whole
            assert closes.keys() <= {("1006", "exporter"), ("1006", "server"), ("unknown", "unknown")}
            assert (await fetch(web, "/-/healthy"))[0] == 200
