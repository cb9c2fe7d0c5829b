"""An exporter that is killed again and again: what it acknowledged is counted, once, and nothing else is."""

import asyncio
import functools
import signal
from pathlib import Path
from random import Random

import pytest

from tests.support.loops import conversation
from tests.support.processes import exporter_process
from tests.support.reporting import (
    ACTIVE,
    CLOSES,
    CREATED,
    DURATION,
    HANDSHAKES,
    REFUSED_SIZE,
    WEBHOOK,
    configured,
    reporting,
)
from tests.support.scraping import Page
from tests.webhook.senders import CODES, TARGETS, Ledger, Whereabouts, senders

EARLY = 0.15
"""Share of the rounds in which the exporter is killed before it takes reports."""


def assert_all_is_counted(page: Page, ledger: Ledger) -> None:
    """The counters are what was acknowledged: nothing lost, nothing twice."""
    assert page.counted(CLOSES, "target", "code", "initiator") == dict(ledger.closes)
    assert page.counted(HANDSHAKES, "target") == {(target,): number for target, number in ledger.opens.items()}
    for target in TARGETS:
        closes = sum(number for (name, _, _), number in ledger.closes.items() if name == target)
        assert page.value(f"{DURATION}_count", target=target) == closes
        assert page.value(f"{DURATION}_bucket", target=target, le="+Inf") == closes
        assert page.value(f"{DURATION}_sum", target=target) == ledger.durations[target]
        assert 0 <= page.value(ACTIVE, target=target) <= ledger.opens[target]
    assert page.value(f"{REFUSED_SIZE}_sum") == ledger.refused_bytes


async def kill_and_restart(folder: Path, rounds: int, seed: int) -> None:
    random = Random(seed)
    flags = (
        configured(folder, {target: {"codes": [4001]} for target in TARGETS}),
        WEBHOOK,
        "--webhook.rate-limit=0",
        f"--storage.path={folder / 'state'}",
    )
    where, ledger, stop = Whereabouts(), Ledger(), asyncio.Event()
    async with reporting(folder, *flags) as desk:
        born = (await desk.scrape()).counted(CREATED, "source", "target")
        desk.exporter.signal(signal.SIGKILL)
        await desk.exporter.ended()
    async with asyncio.TaskGroup() as tasks:
        posting = [tasks.create_task(sender.run(stop)) for sender in senders(where, ledger, seed)]
        for _ in range(rounds):
            async with exporter_process(folder, *flags) as exporter:
                if random.random() < EARLY:
                    await asyncio.sleep(random.uniform(0, 0.3))
                else:
                    where.address = await exporter.address("webhook")
                    await asyncio.sleep(random.uniform(0, 0.2))
                where.address = None
                exporter.signal(signal.SIGKILL)
                assert await exporter.ended() == -signal.SIGKILL
        async with reporting(folder, *flags) as desk:
            stop.set()
            where.address = desk.address
            await asyncio.gather(*posting)
            assert_all_is_counted(await desk.scrape(), ledger)
    async with reporting(folder, *flags) as desk:
        page = await desk.scrape()
        assert_all_is_counted(page, ledger)
        assert page.counted(CREATED, "source", "target") == born
    assert ledger.retries > rounds
    assert ledger.already_counted > 0, "no kill ever came between a commit and its answer"
    assert {code for _, code, _ in ledger.closes} == set(map(str, CODES))


@pytest.mark.timeout(300)
@functools.partial(conversation, within=280)
async def test_killed_50_times(tmp_path: Path) -> None:
    """50 kills at random moments, while it starts, reads, commits or answers: none loses an event or doubles one."""
    await kill_and_restart(tmp_path, rounds=50, seed=6455)


@pytest.mark.matrix
@pytest.mark.timeout(1800)
@functools.partial(conversation, within=1780)
async def test_killed_1000_times(tmp_path: Path) -> None:
    """So do 1,000."""
    await kill_and_restart(tmp_path, rounds=1000, seed=7692)
