"""The end of an exporter to which services report: they stop too, and their last closes come while it ends."""

import asyncio
import contextlib
import itertools
import signal
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pytest

from exporter.config import Target, load
from exporter.metrics.recorder import Recorder
from exporter.sources.webhook import StorageBook
from exporter.webhook import WebhookService
from exporter.wire.client_key import Hasher
from tests.support.loops import conversation, eventually
from tests.support.reporting import CLOSES, Answer, Desk, closing, counts, ndjson, outcome, post, reporting
from tests.web.support import connected
from tests.webhook.refusals import assert_refused


@dataclass
class Last:
    """What one service saw: how many of its events were acknowledged, and how else it was answered, in order."""

    acknowledged: int = 0
    refusals: list[Answer] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)


async def report_to_the_end(desk: Desk, name: str, size: int) -> Last:
    """Report without a pause, each time on the same connection as long as there is one, until nobody listens."""
    last = Last()
    with contextlib.suppress(ConnectionRefusedError):
        for start in itertools.count():
            with contextlib.suppress(ConnectionResetError, BrokenPipeError, EOFError):
                async with connected(desk.address) as client:
                    for number in itertools.count():
                        events = [closing(1001, id=f"{name}-{start}-{number}-{index}") for index in range(size)]
                        await client.send(post(ndjson(events), kind="application/x-ndjson"))
                        answer = await client.answer()
                        last.statuses.append(answer.status)
                        if answer.status == 200:
                            last.acknowledged += outcome(answer)[0]
                        else:
                            last.refusals.append(answer)
                            await asyncio.sleep(0.02)
    return last


@conversation
async def test_reports_until_the_end(tmp_path: Path) -> None:
    """From SIGTERM on reports are taken for two thirds of the grace, then refused; what was taken is there later."""
    flags = (f"--storage.path={tmp_path / 'state'}", "--webhook.rate-limit=0", "--shutdown.grace=1500ms")
    async with reporting(tmp_path, *flags) as desk:
        for _ in range(2):  # from then on a scraper is known, for whom the exporter waits at its end
            await desk.scrape()
        async with asyncio.TaskGroup() as tasks:
            services = [
                tasks.create_task(report_to_the_end(desk, name, size)) for name, size in (("a", 1), ("b", 1), ("c", 50))
            ]
            await asyncio.sleep(0.2)
            term = asyncio.get_running_loop().time()
            desk.exporter.signal(signal.SIGTERM)
            assert await desk.exporter.ended() == 0
            assert 1.4 < asyncio.get_running_loop().time() - term < 4
        acknowledged = 0
        for service in services:
            last = service.result()
            acknowledged += last.acknowledged
            assert last.acknowledged > 10
            assert Counter(last.statuses).keys() == {200, 503}
            assert last.statuses == sorted(last.statuses)
            for answer in last.refusals:
                assert_refused(answer, 503, "shutting_down")
    async with reporting(tmp_path, *flags) as desk:
        assert (await desk.scrape()).counted(CLOSES, "code") == {("1001",): acknowledged}


@conversation
async def test_silence_ends_it(tmp_path: Path) -> None:
    """Where no report comes any more the exporter does not use its whole grace; its last scrape has everything."""
    flags = (f"--storage.path={tmp_path / 'state'}", "--shutdown.grace=20s")
    async with reporting(tmp_path, *flags) as desk:
        for _ in range(2):
            await desk.scrape()
        await desk.report(closing(1000, id="1"))
        start = asyncio.get_running_loop().time()
        desk.exporter.signal(signal.SIGTERM)
        assert outcome(await desk.report(closing(1001, id="2"))) == (1, 0, 0)
        page = await desk.scrape()
        assert page.counted(CLOSES, "code") == {("1000",): 1, ("1001",): 1}
        assert await desk.exporter.ended() == 0
        assert 2 < asyncio.get_running_loop().time() - start < 6
    async with reporting(tmp_path, *flags) as desk:
        assert counts(await desk.scrape()) == counts(page)


@pytest.mark.parametrize(
    "flags", [pytest.param((), marks=pytest.mark.matrix), ("--storage.path={}",)], ids=["memory", "storage"]
)
@conversation
async def test_at_once(flags: tuple[str, ...], tmp_path: Path) -> None:
    """Without any grace, or by a second signal, the exporter ends at once, and loses nothing that it acknowledged."""
    told = tuple(flag.format(tmp_path / "state") for flag in flags)
    async with reporting(tmp_path, *told, "--shutdown.grace=0") as desk:
        await desk.report(closing(1000))
        desk.exporter.signal(signal.SIGTERM)
        assert await desk.exporter.ended(within=3) == 0
    async with reporting(tmp_path, *told, "--shutdown.grace=20s") as desk:
        assert (await desk.scrape()).value(CLOSES) == (1 if flags else 0)
        await desk.report(closing(1000))
        desk.exporter.signal(signal.SIGTERM)
        await asyncio.sleep(0.1)
        desk.exporter.signal(signal.SIGTERM)
        assert await desk.exporter.ended(within=3) == 1
    async with reporting(tmp_path, *told) as desk:
        assert (await desk.scrape()).value(CLOSES) == (2 if flags else 0)


@conversation
async def test_a_slow_disk(tmp_path: Path) -> None:
    """A report that waits for its commit is answered however long that takes, within the grace."""
    config = msgspec.structs.replace(
        load(
            {
                "webhook.listen-address": "127.0.0.1:0",
                "storage.path": str(tmp_path / "state"),
                "web.listen-address": "127.0.0.1:0",
            }
        ),
        targets={"chat": Target("chat")},
    )
    recorder = Recorder(time.time)
    address = config.webhook_listen_address
    assert address is not None
    service = WebhookService(address, config, (), None, recorder, recorder, Hasher(b"secret of a test"))
    await service.open()
    disk = threading.Event()
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(service.run())
        async with connected(service.address) as client:
            book = service._book
            assert isinstance(book, StorageBook)
            book._thread.submit(disk.wait)
            await client.send(post(closing(1000)))
            await eventually(lambda: not book._settled.is_set())
            draining = tasks.create_task(service.drain(0.3))
            await eventually(lambda: not service._accepting)
            assert not draining.done()
            disk.set()
            await draining
            assert outcome(await client.answer()) == (1, 0, 0)
        service.stop()
        await running
    service.close()
