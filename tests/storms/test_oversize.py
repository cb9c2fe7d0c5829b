"""Refused messages for real: how big, by which evidence, and between which sizes the limit lies."""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator
from typing import Any, Final

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from exporter.config import Address
from exporter.insight.insight import Rules
from exporter.insight.oversize import OversizeRules
from tests.storms.clients import KEY
from tests.storms.crowd import CHAT, Story, server, telling
from tests.support.loops import conversation
from tests.support.scraping import Page
from tests.support.watching import Watched, watching

RULES: Final = Rules(oversize=OversizeRules(hold=1.0))
"""As they are, except that a suspicion is held for a second."""

LIMIT: Final = 16_384
SETTLED: Final = 10.0
"""Seconds within which a message is surely known to be accepted: they are five, and a few ticks."""

slow = [pytest.mark.matrix, pytest.mark.timeout(120)]


@contextlib.asynccontextmanager
async def tapped(name: str) -> AsyncIterator[tuple[Watched, asyncio.subprocess.Process]]:
    """A server of the peers with a limit of LIMIT bytes, and the exporter before it."""
    async with (
        server(name, f"--limit={LIMIT}") as (process, port),
        watching(Address("127.0.0.1", port), CHAT, insight_rules=RULES) as watched,
    ):
        yield watched, process


def joined(watched: Watched, client: str, **options: Any) -> connect:
    """A client with a key of its own."""
    settings = {"compression": None, "ping_interval": None, "max_size": None} | options
    return connect(watched.url, additional_headers={KEY: client}, **settings)


async def chats(connection: ClientConnection, messages: int = 0, largest: int = 0) -> None:
    """Small messages, and a last one of `largest` bytes, all answered."""
    for size in (*([10] * messages), *([largest] if largest else [])):
        await connection.send(bytes(size))
        await connection.recv()


async def refused(connection: ClientConnection, *fragments: int) -> None:
    """Send a message, whole or in fragments, that ends the connection."""
    with contextlib.suppress(ConnectionClosed):
        if len(fragments) > 1:
            await connection.send(bytes(size) for size in fragments)
        else:
            await connection.send(bytes(*fragments))
        while True:
            await connection.recv()


def limit(page: Page, origin: str) -> float:
    return page.value("websocket_message_size_limit_bytes", direction="client_to_server", origin=origin)


def refusals(page: Page, evidence: str) -> float:
    return page.value("websocket_oversize_message_size_bytes_count", direction="client_to_server", evidence=evidence)


async def sizes(story: Story, watched: Watched, number: int, evidence: str = "close_1009") -> list[int]:
    """The sizes that were logged as refused, once there are so many."""
    await watched.page(lambda page: refusals(page, evidence) >= number)
    lines = story.lines("message refused")
    assert all(line["evidence"] == evidence for line in lines)
    return [line["size"] for line in lines]


@pytest.mark.parametrize(
    ("name", "accepted"),
    [
        pytest.param("websockets", LIMIT),
        pytest.param("ws", LIMIT, marks=[*slow, pytest.mark.needs("node", "ws")]),
        pytest.param("aiohttp", LIMIT - 1, marks=[*slow, pytest.mark.needs("aiohttp")]),
    ],
)
@conversation
async def test_the_limit_is_found_to_the_byte(name: str, accepted: int) -> None:
    """Of a single frame, of fragments, and one byte over what is accepted: aiohttp refuses exactly at its limit."""
    async with tapped(name) as (watched, _):
        with telling() as story:
            for fragments in ((50_000,), (10_000, 10_000), (accepted + 1,)):
                async with joined(watched, "ann") as connection:
                    await chats(connection, 3)
                    await refused(connection, *fragments)
            async with joined(watched, "bob") as connection:
                await chats(connection, 1, accepted)
                page = await watched.page(lambda page: limit(page, "accepted") == accepted, SETTLED)
            told = await sizes(story, watched, 3)
            assert (told[0], told[2]) == (50_000, accepted + 1)
            assert LIMIT < told[1] <= 20_000  # of fragments, those that had been announced
            assert limit(page, "rejected") == accepted + 1
            assert page.value("websocket_too_big_repeats_total", evidence="close_1009") == 2
            assert page.value("websocket_too_big_stuck_clients") == 1
            assert refusals(page, "suspected") == 0


@pytest.mark.matrix
@pytest.mark.timeout(120)
@pytest.mark.needs("node", "uwebsockets")
@conversation
async def test_a_server_that_just_drops() -> None:
    """uWebSockets.js sends no Close frame: suspected, apart from what is certain, and no limit is made of it."""
    async with tapped("uwebsockets") as (watched, _):
        with telling() as story:
            async with joined(watched, "ann") as connection:
                await chats(connection, 100, 8000)
                await watched.page(lambda page: limit(page, "accepted") == 8000, SETTLED)
                await refused(connection, 50_000)
            assert await sizes(story, watched, 1, "suspected") == [50_000]
            page = await watched.scrape()
            assert page.value("websocket_closes_total", code="1006", initiator="server") == 1
            assert (refusals(page, "close_1009"), limit(page, "rejected")) == (0, 0)


@conversation
async def test_a_compressed_bomb_makes_no_limit() -> None:
    """A million zeros are a thousand bytes on the wire: the server refuses them, and the size says nothing."""
    async with tapped("websockets") as (watched, _):
        with telling() as story:
            async with joined(watched, "ann", compression="deflate") as connection:
                await refused(connection, 1_000_000)
            page = await watched.page(lambda page: page.value("websocket_closes_total") == 1)
            assert page.value("websocket_closes_total", code="1009", initiator="server") == 1
            [line] = story.lines("message refused")
            assert line["compressed"]
            assert 0 < line["size"] < 5000
            assert (refusals(page, "close_1009"), limit(page, "rejected")) == (0, 0)


@pytest.mark.matrix
@pytest.mark.timeout(120)
@conversation
async def test_a_crash_during_an_upload_is_not_the_upload_s_fault() -> None:
    """Within a mass close nobody is suspected: everybody else was cut off too."""
    async with tapped("websockets") as (watched, process), contextlib.AsyncExitStack() as stack:
        with telling() as story:
            connections = [await stack.enter_async_context(joined(watched, str(number))) for number in range(20)]
            await chats(connections[0], 100, 8000)
            await watched.page(lambda page: limit(page, "accepted") == 8000, SETTLED)
            process.send_signal(signal.SIGSTOP)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(refused(connections[0], 50_000_000))
                await watched.page(lambda page: page.value("websocket_exporter_tap_buffered_bytes") > 0)
                process.send_signal(signal.SIGKILL)
            page = await watched.page(lambda page: page.value("websocket_mass_close_connections_total") == 20)
            assert page.value("websocket_closes_total", code="1006", initiator="server") == 20
            await asyncio.sleep(2.5)  # longer than a suspicion is held
            assert refusals(await watched.scrape(), "suspected") == 0
            assert story.lines("message refused") == []
