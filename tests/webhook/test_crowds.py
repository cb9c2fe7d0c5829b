"""Senders that come in crowds, stop halfway, or say too much: others are served, and memory is bounded."""

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import pytest

from tests.support.loops import conversation
from tests.support.reporting import (
    CLOSES,
    ERRORS,
    MIB,
    NDJSON,
    REPORTS,
    Desk,
    chunked,
    closing,
    counts,
    growth,
    ndjson,
    outcome,
    post,
    reporting,
)
from tests.support.scraping import fetch
from tests.web.support import Client, connected
from tests.webhook.refusals import assert_refused

HALF_HEAD: Final = post(b"", "X: " + "x" * 15_000)[:-3]
STALLED: Final = post(b"[" + b" " * 60_000, length=65_536)
LARGE: Final = b"[" + b" " * (MIB - 2) + b"]"


@contextlib.asynccontextmanager
async def crowd(desk: Desk, size: int, *sent: bytes) -> AsyncIterator[list[Client]]:
    """So many connections that have sent so much."""
    async with contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(connected(desk.address)) for _ in range(size)]
        for client in clients:
            await client.send(*sent)
        yield clients


async def assert_served(desk: Desk) -> None:
    """Reports and scrapes of others are answered, soon."""
    async with asyncio.timeout(2):
        assert outcome(await desk.report(closing(1000))) == (1, 0, 0)
        assert outcome(await desk.ask(chunked(ndjson([closing(1000)] * 10), 100, kind=NDJSON))) == (10, 0, 0)
        assert (await fetch(desk.address, "/-/healthy"))[0] == 200
        await desk.scrape()


@pytest.mark.parametrize(
    ("size", "sent", "memory"),
    [(200, HALF_HEAD, 24 * MIB), (100, STALLED, 24 * MIB)],
    ids=["half-sent heads", "stalled bodies"],
)
@pytest.mark.parametrize("to_the_end", [False, pytest.param(True, marks=pytest.mark.matrix)], ids=["brief", "whole"])
@conversation
async def test_half_said(size: int, sent: bytes, memory: int, to_the_end: bool, tmp_path: Path) -> None:
    """Whoever does not finish is waited for 10 seconds, and keeps nobody else waiting."""
    async with reporting(tmp_path) as desk:
        await assert_served(desk)
        before, start = desk.resident(), asyncio.get_running_loop().time()
        async with crowd(desk, size, sent) as clients:
            for _ in range(20):
                await assert_served(desk)
                assert desk.resident() - before < memory
            assert (await desk.scrape()).value(ERRORS) == 0
            if not to_the_end:
                return
            for client in clients:
                assert_refused(await client.answer(), 408, "request_timeout")
                assert await client.ended()
            assert 9.5 < asyncio.get_running_loop().time() - start < 15
        page = await desk.scrape()
        assert page.counted(ERRORS, "error") == {("request_timeout",): size}
        assert page.value(CLOSES) == 21 * 11
        await assert_served(desk)
        assert desk.resident() - before < memory


@conversation
async def test_many_large_bodies(tmp_path: Path) -> None:
    """Of bodies under way 32 MiB are held; those beyond get 503, small ones are taken all the same."""
    async with reporting(tmp_path) as desk:
        before = desk.resident()
        async with crowd(desk, 31, post(LARGE)[:-1]) as large:
            await assert_served(desk)
            async with crowd(desk, 20, post(LARGE)[:-1]) as more:
                page = await desk.scrape()
                for client in more:
                    client.writer.write(LARGE[-1:])
                statuses = Counter([(await client.answer()).status for client in more])
                assert statuses.keys() <= {503, 202}
                assert statuses[503] >= 18
                assert (await fetch(desk.address, "/-/healthy"))[0] == 200
                assert outcome(await desk.report(closing(1000))) == (1, 0, 0)
                assert growth(page, await desk.scrape(), ERRORS, "error") == {("overloaded",): statuses[503]}
                assert desk.resident() - before < 80 * MIB
            for client in large:
                client.writer.write(LARGE[-1:])
            assert {(await client.answer()).status for client in large} == {202}
        assert outcome(await desk.ask(post(LARGE))) == (0, 0, 0)
        assert desk.resident() - before < 80 * MIB


@conversation
async def test_the_last_straw(tmp_path: Path) -> None:
    """Wherever a body becomes too much for all together, also at its very end, it is refused at once."""
    async with (
        reporting(tmp_path) as desk,
        crowd(desk, 31, post(LARGE)[:-1]),
        crowd(desk, 1, post(LARGE)[:-200_000]),
        connected(desk.address) as client,
    ):
        statuses = []
        for size in range(70_000, 400_000, 30_000):
            sent = post(b"[" + b" " * (size - 2) + b"]")
            await client.send(sent[:-40_000])
            await desk.scrape()  # by then most of it has been taken
            await client.send(sent[-40_000:])
            statuses.append((await client.answer()).status)
        assert set(statuses) == {202, 503}
        assert statuses == sorted(statuses)
        await client.send(post(closing(1000)))
        assert outcome(await client.answer()) == (1, 0, 0)


@conversation
async def test_senders_that_leave(tmp_path: Path) -> None:
    """Whoever leaves in the middle of a body gives back its room, and nothing of it is counted."""
    async with reporting(tmp_path) as desk:
        whole = ndjson([closing(1000)] * 900)
        for _ in range(3):
            async with crowd(desk, 31, post(LARGE)[:-1]):
                await desk.scrape()
        for cut in (10, 200, len(whole) // 2, len(whole) - 1):
            async with crowd(desk, 5, post(whole, kind=NDJSON, length=len(whole))[: cut - len(whole)]):
                pass
        page = await desk.scrape()
        assert page.value(CLOSES) == 0
        await assert_served(desk)
        async with crowd(desk, 20, post(LARGE)) as clients:
            assert {(await client.answer()).status for client in clients} == {202}


@conversation
async def test_a_sender_that_leaves_before_its_answer(tmp_path: Path) -> None:
    """What came whole is counted although nobody waits for the answer; sent again with its ids it is known."""
    async with reporting(tmp_path, f"--storage.path={tmp_path / 'state'}", "--webhook.rate-limit=0") as desk:
        batches = [[closing(1000, id=f"{number}-{index}") for index in range(500)] for number in range(20)]
        async with contextlib.AsyncExitStack() as stack:
            for batch in batches:
                client = await stack.enter_async_context(connected(desk.address))
                await client.send(post(batch))
        for batch in batches:
            assert outcome(await desk.report(batch)) in ((500, 0, 0), (0, 500, 0))
        assert (await desk.scrape()).value(CLOSES) == 20 * 500


@conversation
async def test_too_many_connections(tmp_path: Path) -> None:
    """Over 256 connections new ones get 503; the metrics are not theirs to take away."""
    async with reporting(tmp_path) as desk:
        async with crowd(desk, 256, HALF_HEAD[:20]):
            async with connected(desk.address) as client:
                answer = await client.answer()
                assert_refused(answer, 503, "overloaded")
                assert await client.ended()
            assert (await desk.scrape()).counted(ERRORS, "error") == {("overloaded",): 1}
        async with asyncio.timeout(5):
            while (await answered(desk)) != 202:
                await asyncio.sleep(0.02)


async def answered(desk: Desk) -> int:
    try:
        return (await desk.report(closing(1000))).status
    except (OSError, EOFError):
        return 0


@conversation
async def test_a_rate_limit(tmp_path: Path) -> None:
    """Over the rate requests get 429 and are not counted, whatever they hold; after a moment they are taken again."""
    async with reporting(tmp_path, "--webhook.rate-limit=100") as desk:
        loop = asyncio.get_running_loop()
        assert outcome(await desk.report([closing(1000)] * 150)) == (150, 0, 0)
        over = loop.time()
        before = await desk.scrape()
        for sent in (post(closing(1001)), post(b"{"), post([])):
            assert_refused(await desk.ask(sent), 429, "rate_limited")
        after = await desk.scrape()
        assert counts(after) == counts(before)
        assert growth(before, after, ERRORS, "error") == {("rate_limited",): 3}
        async with asyncio.timeout(5):
            while (answer := await desk.report(closing(1001))).status == 429:
                await asyncio.sleep(0.02)
        assert outcome(answer) == (1, 0, 0)
        assert 0.3 < loop.time() - over < 5


@conversation
async def test_a_lasting_flood(tmp_path: Path) -> None:
    """Under a flood of single events as many are taken as the rate allows, and each answer is true."""
    async with reporting(tmp_path, "--webhook.rate-limit=200") as desk:
        statuses: Counter[int] = Counter()
        loop = asyncio.get_running_loop()
        start = loop.time()

        async def flood() -> None:
            async with connected(desk.address) as client:
                while loop.time() < start + 1.5:
                    await client.send(post(closing(1000)))
                    statuses[(await client.answer()).status] += 1

        async with asyncio.TaskGroup() as tasks:
            for _ in range(4):
                tasks.create_task(flood())
        assert statuses.keys() == {202, 429}
        assert 300 < statuses[202] < 200 * (loop.time() - start) + 210
        assert (await desk.scrape()).counted(CLOSES) == {(): statuses[202]}


@conversation
async def test_bodies_of_many_small_chunks(tmp_path: Path) -> None:
    """Bodies in many chunks cost no memory, and no scrape has to wait for them; more than 1,024 are too many."""
    close = json.dumps(closing(1000)).encode()
    tiny = chunked(close + b" " * (150_000 - len(close)), 150)
    async with reporting(tmp_path) as desk:
        before = desk.resident()
        stop = asyncio.Event()

        async def report() -> None:
            async with connected(desk.address) as client:
                while not stop.is_set():
                    await client.send(tiny)
                    assert outcome(await client.answer()) == (1, 0, 0)

        async with asyncio.TaskGroup() as tasks:
            for _ in range(2):
                tasks.create_task(report())
            for _ in range(5):
                async with asyncio.timeout(2):
                    await desk.scrape()
            stop.set()
        async with connected(desk.address) as client:
            await client.send(chunked(b" " * MIB, 1))
            assert_refused(await client.answer(), 413, "body_too_large")
        assert desk.resident() - before < 24 * MIB
        assert (await desk.ask(post(b"{", path=f"{REPORTS}?{'x' * 8000}"))).status == 400
