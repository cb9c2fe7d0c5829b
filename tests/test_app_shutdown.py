"""How an exporter ends: it lets connections finish, spreads the rest, and stays until its counts are fetched."""

import asyncio
import contextlib
import signal
from collections.abc import Awaitable
from pathlib import Path
from typing import Final

import pytest
from websockets.asyncio.client import connect

from exporter.app import App
from exporter.config import Address
from tests.support.loops import conversation, eventually
from tests.support.peers import Pair, Peer, connected, opened, relayed
from tests.support.processes import exporter_process, tap_flag
from tests.support.scraping import fetch
from tests.support.services import service
from tests.support.watching import watching
from tests.wire.support import asks

GRACE: Final = 3.0
CONNECTIONS: Final = 100
QUICK: Final = 1.5
"""Seconds that an exporter with nothing left to wait for may take to end."""


async def seconds_until(end: Awaitable[object]) -> float:
    loop = asyncio.get_running_loop()
    start = loop.time()
    await end
    return loop.time() - start


async def ended_silently(client: Peer) -> None:
    """The other end has closed without a word."""
    assert await client.rest() == b""


def counted(app: App, name: str, *by: str) -> dict[tuple[str, ...], float]:
    """What is not 0 of a counter, also when nobody can scrape it any more."""
    return {
        tuple(sample.labels[label] for label in by): sample.value
        for family in app.recorder.collect()
        for sample in family.samples
        if sample.name == name and sample.value
    }


@conversation
async def test_connections_that_live_on() -> None:
    """They are relayed for two thirds of the grace, then closed, and counted as 1006/exporter."""
    with opened() as door, contextlib.ExitStack() as crowd:
        async with watching(door.address, shutdown_grace=GRACE) as watched:
            clients = []
            for _ in range(CONNECTIONS):
                client = crowd.enter_context(await connected(watched.address))
                await Pair(client, await door.accept(), watched, door).upgrade()
                clients.append(client)
            watched.app.stop()
            assert (await fetch(watched.app.web_address, "/-/ready"))[0] == 503
            assert (await fetch(watched.app.web_address, "/-/healthy"))[0] == 200
            with pytest.raises(ConnectionRefusedError):
                await connected(watched.address)
            async with asyncio.TaskGroup() as tasks:
                ends = [tasks.create_task(seconds_until(ended_silently(client))) for client in clients]
                await asyncio.sleep(GRACE / 2)
                for client, server in zip(clients, door.peers, strict=True):
                    await client.send(b"\x89\x80mask")
                    assert await server.read(6) == b"\x89\x80mask"
                page = await watched.page(lambda page: page.value("websocket_closes_total") > 0)
                assert page.counted("websocket_closes_total", "code", "initiator").keys() == {("1006", "exporter")}
            moments = [end.result() for end in ends]
            assert min(moments) > GRACE * 2 / 3 - 0.2
            assert max(moments) < GRACE + 1.0
            assert await seconds_until(watched.running) < QUICK
            assert counted(watched.app, "websocket_closes_total", "code", "initiator") == {
                ("1006", "exporter"): CONNECTIONS
            }


@conversation
async def test_a_handshake_without_an_answer() -> None:
    """A handshake that the service has not answered by the end was refused by the exporter, which is draining."""
    _, request = asks()
    async with relayed(shutdown_grace=0.1) as pair:
        await pair.client.send(request)
        assert await pair.server.head() == request
        pair.watched.app.stop()
        await pair.watched.running
        assert (await pair.client.rest(), await pair.server.rest()) == (b"", b"")
        assert counted(pair.watched.app, "websocket_handshakes_total", "outcome", "status") == {
            ("refused_by_exporter", "draining"): 1
        }


@conversation
async def test_connections_that_end_by_themselves() -> None:
    """Their own closes pass and are counted; with the last of them the exporter ends, long before its grace is over."""
    async with service() as (_, upstream), watching(upstream, shutdown_grace=60.0) as watched:
        clients = [await connect(watched.url) for _ in range(3)]
        watched.app.stop()
        for client in clients:
            await client.send("still here")
            assert await client.recv() == "still here"
            await client.close(1001)
        assert await seconds_until(watched.running) < QUICK


@conversation
async def test_a_scraper_that_has_not_seen_the_end() -> None:
    """/metrics is served until whoever scraped twice before has fetched what was counted last."""
    async with service() as (_, upstream), watching(upstream, shutdown_grace=60.0) as watched:
        async with connect(watched.url) as client:
            await watched.scrape()
            await watched.scrape()
            watched.app.stop()
            await client.close()
        ready = await fetch(watched.app.web_address, "/-/ready")
        assert ready[0] == 503
        assert not watched.running.done()
        page = await watched.scrape()
        assert page.value("websocket_closes_total", code="1000") == 1
        assert await seconds_until(watched.running) < QUICK


@conversation
async def test_a_scraper_that_does_not_come_back() -> None:
    """The grace is the whole budget: nobody is waited for longer."""
    async with service() as (_, upstream), watching(upstream, shutdown_grace=0.5) as watched:
        async with connect(watched.url):
            await watched.scrape()
            await watched.scrape()
        watched.app.stop()
        assert 0.4 < await seconds_until(watched.running) < 0.5 + QUICK


@conversation
async def test_a_scraper_seen_once() -> None:
    """Somebody who looked once is no regular scraper, and is not waited for."""
    async with service() as (_, upstream), watching(upstream, shutdown_grace=60.0) as watched:
        await watched.scrape()
        async with connect(watched.url):
            pass
        watched.app.stop()
        assert await seconds_until(watched.running) < QUICK


@conversation
async def test_a_scraper_that_has_seen_everything() -> None:
    """Where nothing was counted since the last scrape nobody is waited for."""
    async with service() as (_, upstream), watching(upstream, shutdown_grace=60.0) as watched:
        async with connect(watched.url):
            pass
        await watched.closes()
        await watched.scrape()
        await watched.scrape()
        watched.app.stop()
        assert await seconds_until(watched.running) < QUICK


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@conversation
async def test_a_signal_with_nothing_to_wait_for(number: signal.Signals, tmp_path: Path) -> None:
    """With nothing connected and no scraper the process ends at once, with status 0."""
    async with exporter_process(tmp_path, tap_flag(Address("127.0.0.1", 1))) as exporter:
        await exporter.address("metrics")
        exporter.signal(number)
        assert await exporter.ended(within=5) == 0
        assert exporter.said("shut down")


@conversation
async def test_a_second_signal(tmp_path: Path) -> None:
    """The first signal drains; the second ends the process at once, whatever is connected."""
    async with service() as (_, upstream), exporter_process(tmp_path, tap_flag(upstream)) as exporter:
        async with connect(f"ws://{await exporter.address('tap')}/") as client:
            exporter.signal(signal.SIGTERM)
            await eventually(lambda: exporter.said("shutting down"))
            await client.send("still relayed")
            assert await client.recv() == "still relayed"
            exporter.signal(signal.SIGINT)
            assert await exporter.ended(within=5) == 1
            await client.wait_closed()
        assert not exporter.said("shut down")
        assert [(line["code"], line["initiator"]) for line in exporter.said("websocket closed")] == [
            ("1006", "exporter")
        ]
