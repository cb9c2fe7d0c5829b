"""An exporter whose log nobody reads, or can read: it relays, counts and ends all the same, and counts what is lost."""

import asyncio
import contextlib
import fcntl
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Final

import pytest

from exporter.config import Address
from exporter.log.writer import CAPACITY
from tests.faults.crowd import ANSWER, QUESTION, free_address, listens, upgraded
from tests.support.loops import eventually, long_conversation
from tests.support.peers import close_frame
from tests.support.scraping import Page, scrape
from tests.support.services import ROOT, service

DROPPED: Final = "websocket_exporter_log_lines_dropped_total"
SMALLEST_PIPE: Final = 4096
VISITORS: Final = 30


@dataclass
class Exporter:
    """A running exporter, and the end of the pipe into which it logs."""

    process: asyncio.subprocess.Process
    tap: Address
    web: Address
    log: int

    async def page(self, condition: Callable[[Page], bool]) -> Page:
        """The first scrape of which `condition` holds."""

        async def look() -> Page | None:
            page = await scrape(self.web)
            return page if condition(page) else None

        found = await eventually(look)
        assert found is not None
        return found

    async def ends(self) -> int:
        """Its exit status, after SIGTERM."""
        self.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(5):
            return await self.process.wait()


@contextlib.asynccontextmanager
async def logging_into(pipe: str, upstream: Address) -> AsyncIterator[Exporter]:
    """An exporter that logs into a pipe that is `closed` after its first lines, `full`, or `absent` from the start."""
    tap, web = free_address(), free_address()
    arguments = (f"--tap={tap}={upstream},target=chat", f"--web.listen-address={web}", "--log.format=json")
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, SMALLEST_PIPE)
    process = await asyncio.create_subprocess_exec(
        *("sh", "-c", f'exec "$0" "$@" {"2>&-" if pipe == "absent" else ""}'),
        *(sys.executable, "-m", "exporter", *arguments),
        cwd=ROOT,
        stderr=writer,
    )
    os.close(writer)
    try:
        exporter = Exporter(process, tap, web, reader)
        await eventually(lambda: listens(web), within=15)
        if pipe == "closed":
            os.close(reader)
        yield exporter
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        with contextlib.suppress(OSError):
            os.close(reader)


async def visit(tap: Address) -> None:
    """Come, talk, and leave; not a byte comes that the service did not send."""
    with await upgraded(tap) as client:
        await client.send(QUESTION)
        assert await client.read(len(ANSWER)) == ANSWER
        await client.send(close_frame(1001))
        assert await client.rest() == close_frame(1001, masked=False)


@pytest.mark.parametrize(("pipe", "lost"), [("closed", VISITORS), ("absent", 0)])
@long_conversation
async def test_a_log_that_nobody_can_read(pipe: str, lost: int) -> None:
    """Lines for a closed pipe are lost and counted; no line ever gets into a connection, and no connection suffers.

    Without standard error from the start there is no log: nothing that was meant for it counts as lost.
    """
    async with service() as (_, upstream), logging_into(pipe, upstream) as exporter:
        for _ in range(VISITORS):
            await visit(exporter.tap)
        page = await exporter.page(
            lambda page: page.value(DROPPED) >= lost and page.value("websocket_closes_total") == VISITORS
        )
        assert page.counted("websocket_closes_total", "code", "initiator") == {("1001", "client"): VISITORS}
        assert await exporter.ends() == 0


@long_conversation
async def test_a_log_that_nobody_reads() -> None:
    """A full pipe holds up neither the relay nor the end of the process; lines wait, as many as may."""
    async with service() as (_, upstream), logging_into("full", upstream) as exporter:
        for _ in range(VISITORS):
            await visit(exporter.tap)
        page = await exporter.page(lambda page: page.value("websocket_closes_total") == VISITORS)
        assert page.value(DROPPED) == 0
        assert await exporter.ends() == 0


@pytest.mark.matrix
@pytest.mark.timeout(180)
@long_conversation
async def test_a_log_that_nobody_reads_for_long() -> None:
    """What a full pipe and the queue before it do not take is dropped and counted; what they took is not lost."""
    visitors = CAPACITY + 500
    async with service() as (_, upstream), logging_into("full", upstream) as exporter:
        for _ in range(visitors // 50):
            await asyncio.gather(*(visit(exporter.tap) for _ in range(50)))
        page = await exporter.page(lambda page: page.value("websocket_closes_total") == visitors)
        dropped = page.value(DROPPED)
        assert 0 < dropped < 500
        os.set_blocking(exporter.log, False)
        written = b""

        async def all_read() -> bool:
            nonlocal written
            with contextlib.suppress(BlockingIOError):
                while part := os.read(exporter.log, 1 << 16):
                    written += part
            return written.count(b'"websocket closed"') + dropped == visitors

        await eventually(all_read, within=20)
        assert all(json.loads(line) for line in written.splitlines())
        await visit(exporter.tap)
        assert (await scrape(exporter.web)).value(DROPPED) == dropped
        assert await exporter.ends() == 0
