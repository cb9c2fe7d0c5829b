"""Scrapes while services report without a pause: each is one moment, whole and true, and none is kept waiting."""

import asyncio
import itertools
import time
from pathlib import Path
from typing import Final

import pytest

from tests.faults.test_scrapes import assert_histogram, assert_later
from tests.support.loops import conversation
from tests.support.reporting import CLOSES, DURATION, ERRORS, EVENTS, reporting
from tests.support.scraping import Page, fetch
from tests.support.services import program
from tests.webhook.posting import EVENTS as BATCH

SENDERS: Final = 4


def assert_one_moment(page: Page) -> None:
    """What was accepted is counted, all of it, everywhere; no request is half counted."""
    closes = page.value(CLOSES)
    assert closes % BATCH == 0
    assert page.counted(EVENTS, "result", "reason") == ({("accepted", "none"): closes} if closes else {})
    assert page.value(f"{DURATION}_count") == closes
    assert page.value(f"{DURATION}_sum") == 2 * closes
    assert page.value(CLOSES, code="1000") == page.value(CLOSES, code="1003") == closes / 4
    assert page.value(ERRORS) == 0
    for family in page.families.values():
        if family.type == "histogram":
            assert_histogram(page, family.name)


@pytest.mark.parametrize("stored", [False, True], ids=["memory", "storage"])
@pytest.mark.parametrize(
    ("seconds", "slowest"), [(1.5, 1.0), pytest.param(20.0, 0.1, marks=pytest.mark.matrix)], ids=["brief", "long"]
)
@conversation
async def test_scrapes_under_load(stored: bool, seconds: float, slowest: float, tmp_path: Path) -> None:
    """Amid batches no scrape fails, each is consistent, and 99 of 100 are answered in time."""
    flags = ("--webhook.rate-limit=0", *([f"--storage.path={tmp_path / 'state'}"] if stored else []))
    async with (
        reporting(tmp_path, *flags) as desk,
        program("tests.webhook.posting", str(desk.address), str(SENDERS)) as (poster, said),
    ):
        assert said == "posting"
        texts, times = [], []
        end = time.monotonic() + seconds
        while (start := time.monotonic()) < end:
            status, text = await fetch(desk.web, "/metrics")
            times.append(time.monotonic() - start)
            assert status == 200
            texts.append(text)
            await asyncio.sleep(0.02)
        assert poster.returncode is None
        pages = [Page(text) for text in texts[:: max(1, len(texts) // 100)]]
        for page in pages:
            assert_one_moment(page)
        for before, page in itertools.pairwise(pages):
            assert_later(page, before)
        assert pages[-1].value(CLOSES) - pages[0].value(CLOSES) > seconds * 10_000
        assert sorted(times)[len(times) * 99 // 100] < slowest
