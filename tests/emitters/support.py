"""The emitters of deploy/emitters, run as programs of their own, and what the exporter counted of what they sent."""

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Final

from exporter.config import Address
from tests.peers.processes import Program, program
from tests.support.loops import eventually
from tests.support.reporting import CLOSES, EVENTS, REPORTS, Desk, Growth, growth
from tests.support.scraping import Page
from tests.support.services import ROOT

EMITTERS: Final = ROOT / "deploy/emitters"
SERVICES: Final = Path(__file__).parent / "services"

PYTHON: Final = ("env", f"PYTHONPATH={os.pathsep.join((str(ROOT), str(EMITTERS)))}", sys.executable)
NODE: Final = ("node",)


def url(address: Address, target: str | None = None) -> str:
    """Where to report."""
    return f"http://{address}{REPORTS}" + ("" if target is None else f"?target={target}")


def closes(before: Page, after: Page) -> Growth:
    """The closes that were counted in between, by code and initiator."""
    return growth(before, after, CLOSES, "code", "initiator")


async def counted(desk: Desk, before: Page, events: int = 1) -> Page:
    """What the exporter shows once it has accepted so many events since `before`."""

    async def look() -> Page | None:
        page = await desk.scrape()
        arrived = page.value(EVENTS, result="accepted") - before.value(EVENTS, result="accepted")
        return page if arrived >= events else None

    found = await eventually(look, within=15)
    assert found is not None
    return found


@contextlib.contextmanager
def service(command: tuple[str, ...], webhook: str, *options: str) -> Iterator[tuple[Program, int]]:
    """A running service that reports its closes, and its port."""
    with program([*command, webhook, *options]) as started:
        yield started, int(started.line("listening"))


@contextlib.asynccontextmanager
async def losing_answers(upstream: Address, lost: int) -> AsyncIterator[Address]:
    """A network on the way to the exporter that loses the first `lost` answers: the requests arrive."""
    left = [lost]
    relaying: dict[asyncio.Task[None] | None, asyncio.StreamWriter] = {}

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(upstream.host, upstream.port)
        relaying[asyncio.current_task()] = back
        async with asyncio.TaskGroup() as tasks:
            sending = tasks.create_task(_pass_on(reader, back))
            first = await there.read(1 << 16)
            if left[0]:
                left[0] -= 1
            else:
                writer.write(first)
                await _pass_on(there, writer)
            sending.cancel()
        back.close()
        writer.close()

    async with await asyncio.start_server(relay, "127.0.0.1", 0) as server:
        yield Address(*server.sockets[0].getsockname())
        for back in relaying.values():
            back.close()
        await asyncio.wait([task for task in relaying if task is not None])


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
