"""Upstreams that die, refuse, or never answer, with many clients at once."""

import asyncio
import contextlib
import time
from typing import Final

from websockets.asyncio.client import connect

from exporter.config import Address
from tests.faults.crowd import ANSWER, QUESTION, crowd
from tests.support.loops import conversation
from tests.support.peers import Peer, connected, opened
from tests.support.services import program, service
from tests.support.watching import Watched, watching
from tests.wire.support import asks

CLIENTS: Final = 40


async def talk_until_cut(client: Peer) -> int:
    """Ask without a pause, until the connection breaks. Returns how many answers came."""
    answers = 0
    with contextlib.suppress(ConnectionError):
        while True:
            await client.send(QUESTION * 3)
            if await client.read(3 * len(ANSWER)) != 3 * ANSWER:
                break
            answers += 3
    client.close()
    return answers


@conversation
async def test_a_service_killed_under_load() -> None:
    """SIGKILL amid traffic: every connection ends at once and counts once, as the server's; the next service works."""
    async with (
        program("tests.support.killable", "serve") as (process, port),
        watching(Address("127.0.0.1", int(port))) as watched,
    ):
        with contextlib.ExitStack() as stack:
            clients = await crowd(stack, watched.address, CLIENTS)
            async with asyncio.TaskGroup() as tasks:
                talks = [tasks.create_task(talk_until_cut(client)) for client in clients]
                await watched.page(
                    lambda page: page.value("websocket_message_size_bytes_count", direction="server_to_client") > 1000
                )
                process.kill()
                async with asyncio.timeout(5):
                    await asyncio.wait(talks)
            assert all(talk.result() > 0 for talk in talks)
        assert await watched.closes(CLIENTS) == {("1006", "abnormal", "server"): CLIENTS}
        page = await watched.scrape()
        assert page.value("websocket_transport_ends_total", side="server") == CLIENTS
        assert page.value("websocket_exporter_tap_buffered_bytes") == 0
        async with service(port=int(port)), connect(watched.url) as connection:
            await connection.send("back again")
            assert await connection.recv() == "back again"


async def status_and_time(watched: Watched) -> tuple[bytes, float]:
    """How a handshake was answered, and after how many seconds."""
    start = time.monotonic()
    with await connected(watched.address) as client:
        await client.send(asks()[1])
        return (await client.rest())[9:12], time.monotonic() - start


async def all_at_once(watched: Watched) -> list[tuple[bytes, float]]:
    async with asyncio.TaskGroup() as tasks:
        asking = [tasks.create_task(status_and_time(watched)) for _ in range(CLIENTS)]
    return [task.result() for task in asking]


@conversation
async def test_a_storm_while_the_service_is_down() -> None:
    """Everybody is told 502 at once; each handshake counts as failed, and no close is invented."""
    with opened() as door:
        nowhere = door.address
    async with watching(nowhere) as watched:
        answers = await all_at_once(watched)
        assert {status for status, _ in answers} == {b"502"}
        assert max(after for _, after in answers) < 2.0
        assert await watched.handshakes(CLIENTS) == {("failed", "refused"): CLIENTS}
        assert (await watched.scrape()).value("websocket_closes_total") == 0


@conversation
async def test_a_storm_while_the_service_accepts_nobody() -> None:
    """Everybody is told 504 when the connect timeout is over, however many wait; no close is invented."""
    with opened(backlog=0) as door, await connected(door.address):
        async with watching(door.address, limits_connect_timeout=0.5) as watched:
            answers = await all_at_once(watched)
            assert {status for status, _ in answers} == {b"504"}
            assert all(0.4 < after < 2.0 for _, after in answers)
            assert await watched.handshakes(CLIENTS) == {("failed", "timeout"): CLIENTS}
            assert (await watched.scrape()).value("websocket_closes_total") == 0
