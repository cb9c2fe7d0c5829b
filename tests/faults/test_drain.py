"""How an exporter ends while it relays, as processes: alone, after its service, together with it, and by force."""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pytest

from exporter.config import Address
from tests.faults.crowd import Life, busiest, crowd, free_address, live, scraped_to_the_end
from tests.support.loops import conversation, eventually
from tests.support.peers import close_frame, connected, opened
from tests.support.processes import Exporter, exporter_process, tap_flag
from tests.support.scraping import Page, fetch
from tests.support.services import program, service

GRACE: Final = 6.0
WINDOW: Final = GRACE / 3
"""Seconds over which what remains is closed."""
GRACE_FLAG: Final = f"--shutdown.grace={GRACE:g}s"
QUICK: Final = 5.0
"""Seconds that an exporter with nothing left to relay may take to end, a scrape included."""
CLOSES: Final = "websocket_closes_total"


@pytest.mark.parametrize("count", [300, pytest.param(1000, marks=pytest.mark.matrix)])
@conversation
async def test_connections_that_stay(count: int, tmp_path: Path) -> None:
    """Every connection is relayed until it is closed; the closes are spread, and a regular scraper sees them all."""
    loop = asyncio.get_running_loop()
    pause = count / 600
    pages: list[Page] = []
    async with service() as (_, upstream), exporter_process(tmp_path, tap_flag(upstream), GRACE_FLAG) as exporter:
        tap, web = await exporter.address("tap"), await exporter.address("metrics")
        with contextlib.ExitStack() as stack:
            clients = await crowd(stack, tap, count)
            async with asyncio.TaskGroup() as tasks:
                lives = [tasks.create_task(live(client, pause)) for client in clients]
                tasks.create_task(scraped_to_the_end(exporter, pages))
                await eventually(lambda: len(pages) >= 2)
                exporter.signal(signal.SIGTERM)
                start = loop.time()
                await eventually(lambda: exporter.said("shutting down"))
                assert (await fetch(web, "/-/ready"))[0] == 503
                with pytest.raises(ConnectionRefusedError):
                    await connected(tap)
                assert await exporter.ended(within=GRACE + 3) == 0
            ends = [life.result().end - start for life in lives]
            assert min(ends) > GRACE - WINDOW - 0.1
            assert max(ends) < GRACE + 0.3
            assert busiest(ends, 1.0) <= count / WINDOW * 1.5
            assert max(life.result().longest_silence for life in lives) < pause + WINDOW
            assert {life.result().last_words for life in lives} == {b""}
    assert pages[-1].counted(CLOSES, "code", "initiator") == {("1006", "exporter"): count}
    assert pages[-1].value("websocket_connections_active") == 0


@dataclass
class Deployment:
    """A service and its exporter, both of them processes, a regular scraper, and clients that talk all the time."""

    service: asyncio.subprocess.Process
    exporter: Exporter
    pages: list[Page] = field(default_factory=list)
    lives: list[asyncio.Task[Life]] = field(default_factory=list)

    def stop_service(self) -> None:
        self.service.terminate()

    def stop_exporter(self) -> None:
        self.exporter.signal(signal.SIGTERM)

    async def exporter_ends(self) -> None:
        """It ends by itself, with status 0, long before its grace is over."""
        assert await self.exporter.ended(within=QUICK) == 0


@contextlib.asynccontextmanager
async def deployed(folder: Path, clients: int) -> AsyncIterator[Deployment]:
    """A deployment with so many clients. When the block ends, so does what is left of it."""
    async with (
        program("tests.faults.leaving") as (leaving, port),
        exporter_process(folder, tap_flag(Address("127.0.0.1", int(port)))) as exporter,
    ):
        deployment = Deployment(leaving, exporter)
        tap = await exporter.address("tap")
        with contextlib.ExitStack() as stack:
            peers = await crowd(stack, tap, clients)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(scraped_to_the_end(exporter, deployment.pages))
                deployment.lives = [tasks.create_task(live(peer, clients / 600)) for peer in peers]
                await eventually(lambda: len(deployment.pages) >= 2)
                yield deployment


def assert_everybody_was_told(deployment: Deployment, clients: int) -> None:
    """Every client got the service's Close frame, and the last scrape has all of them."""
    last_words = {life.result().last_words for life in deployment.lives}
    assert last_words == {close_frame(1001, masked=False)}
    assert deployment.pages[-1].counted(CLOSES, "code", "initiator") == {("1001", "server"): clients}
    assert deployment.pages[-1].value("websocket_connections_active") == 0


@conversation
async def test_behind_its_service(tmp_path: Path) -> None:
    """As a native sidecar: the service goes first, its farewells pass and are counted, then the exporter ends fast."""
    async with deployed(tmp_path, 200) as deployment:
        deployment.stop_service()
        assert await deployment.service.wait() == 0
        await asyncio.wait(deployment.lives)
        assert deployment.exporter.process.returncode is None
        deployment.stop_exporter()
        await deployment.exporter_ends()
    assert_everybody_was_told(deployment, 200)


TOGETHER: Final[dict[str, tuple[Callable[[Deployment], None], ...]]] = {
    "service first": (Deployment.stop_service, Deployment.stop_exporter),
    "exporter first": (Deployment.stop_exporter, Deployment.stop_service),
}


@pytest.mark.parametrize("order", TOGETHER)
@conversation
async def test_together_with_its_service(order: str, tmp_path: Path) -> None:
    """As ordinary containers of one pod: SIGTERM to both at once, and still every farewell passes and is counted."""
    async with deployed(tmp_path, 200) as deployment:
        for stop in TOGETHER[order]:
            stop(deployment)
        await deployment.exporter_ends()
    assert_everybody_was_told(deployment, 200)


@conversation
async def test_killed_while_it_drains(tmp_path: Path) -> None:
    """SIGKILL right behind SIGTERM: both sides see the end at once, and the next exporter has the port at once."""
    port = free_address()
    with opened() as door:
        tap = f"--tap={port}={door.address},target=chat"
        async with exporter_process(tmp_path, tap) as exporter:
            await exporter.address("tap")
            with await connected(port) as client:
                await client.send(b"hello")
                server = await door.accept()
                assert await server.read(5) == b"hello"
                exporter.signal(signal.SIGTERM)
                exporter.signal(signal.SIGKILL)
                assert (await client.rest(), await server.rest()) == (b"", b"")
                assert await exporter.ended() == -signal.SIGKILL
                async with exporter_process(tmp_path, tap) as successor:
                    await successor.address("tap")
                    with await connected(port) as newcomer:
                        await newcomer.send(b"again")
                        assert await (await door.accept()).read(5) == b"again"
