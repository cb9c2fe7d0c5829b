"""An exporter that stands still for a while (SIGSTOP, a starved machine): it says so, and no fault is made of it."""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import pytest
from websockets.asyncio.client import connect

from exporter.config import Address
from tests.faults.crowd import ANSWER, QUESTION, crowd
from tests.support.loops import conversation, eventually, long_conversation
from tests.support.peers import Peer, close_frame, connected, opened
from tests.support.processes import Exporter, exporter_process, tap_flag
from tests.support.scraping import Page
from tests.support.services import service
from tests.wire.support import asks

LAG: Final = "websocket_exporter_event_loop_lag_seconds"


@contextlib.asynccontextmanager
async def stopped(exporter: Exporter, at_least: float) -> AsyncIterator[None]:
    """The exporter stands still during the block, and for so many seconds."""
    loop = asyncio.get_running_loop()
    exporter.signal(signal.SIGSTOP)
    end = loop.time() + at_least
    try:
        yield
        await asyncio.sleep(end - loop.time())  # what is looked at is a length of time
    finally:
        exporter.signal(signal.SIGCONT)


async def echoed(client: Peer) -> None:
    await client.send(QUESTION)
    assert await client.read(len(ANSWER)) == ANSWER


async def visit(tap: Address) -> None:
    """Come, talk, and leave."""
    async with connect(f"ws://{tap}/", open_timeout=None, ping_interval=None) as connection:
        await connection.send("hello")
        assert await connection.recv() == "hello"


@pytest.mark.parametrize("seconds", [5, pytest.param(60, marks=[pytest.mark.matrix, pytest.mark.timeout(120)])])
@long_conversation
async def test_what_happens_meanwhile(seconds: int, tmp_path: Path) -> None:
    """Whatever peers do meanwhile is relayed and counted as what it is, and the lag of the loop shows."""
    size = 20
    upstream_service = service(ping_interval=None)  # it would be right to miss its Pongs
    async with upstream_service as (_, upstream), exporter_process(tmp_path, tap_flag(upstream)) as exporter:
        tap = await exporter.address("tap")
        with contextlib.ExitStack() as stack:
            staying, closing, breaking = [await crowd(stack, tap, size) for _ in range(3)]
            async with asyncio.TaskGroup() as tasks, stopped(exporter, seconds):
                for client in closing:
                    await client.send(close_frame(4000))
                for client in breaking:
                    client.reset()
                for client in staying:
                    tasks.create_task(echoed(client))
                for _ in range(size):
                    tasks.create_task(visit(tap))
                scraping = tasks.create_task(exporter.scrape())
            assert scraping.result().value(LAG + "_count") > 0
            for client in staying:
                await echoed(client)
            for client in closing:
                assert await client.rest() == close_frame(4000, masked=False)
                client.close()

            async def settled() -> Page | None:
                page = await exporter.scrape()
                return page if page.value("websocket_connections_active") == size else None

            page = await eventually(settled)
            assert page is not None
        assert page.counted("websocket_closes_total", "code", "initiator") == {
            ("4xxx", "client"): size,
            ("1006", "client"): size,
            ("1000", "client"): size,
        }
        assert page.counted("websocket_handshakes_total", "outcome", "status") == {("accepted", "101"): 4 * size}
        assert page.value("websocket_exporter_unparsed_streams_total") == 0
        assert page.value(LAG + "_sum") > seconds - 1
        assert page.value(LAG + "_count") > page.value(LAG + "_bucket", le="1.0")


@pytest.mark.parametrize(("kind", "timeout"), [("tcp", 2.0), ("unix", 1.0)])  # TCP tries again after a second
@conversation
async def test_a_connection_that_was_made_meanwhile(kind: str, timeout: float, tmp_path: Path) -> None:
    """An upstream that had accepted in time is not called too slow because the exporter looked too late."""
    with opened(backlog=0, path=tmp_path / "service" if kind == "unix" else None) as door:
        flags = tap_flag(door.address), f"--limits.connect-timeout={timeout:g}s"
        async with exporter_process(tmp_path, *flags) as exporter:
            tap = await exporter.address("tap")
            with await connected(tap) as first, await connected(tap) as second:
                await first.send(b"fills the backlog")
                await second.send(asks()[1])
                await exporter.scrape()  # by its end both are being dialled for
                async with stopped(exporter, timeout + 0.5):
                    assert await (await door.accept()).read(0) == b""
                server = await door.accept()
                assert await server.head() == asks()[1]
                await server.send(b"in time")
                assert await second.read(7) == b"in time"
            page = await exporter.scrape()
            assert page.counted("websocket_handshakes_total", "outcome", "status") == {}
