"""Scrapes while the exporter has much to do: each is one moment, whole and true, and none is kept waiting."""

import asyncio
import itertools
import time
from pathlib import Path
from typing import Final

import pytest

from exporter.config import Address
from tests.support.loops import conversation
from tests.support.processes import exporter_process, tap_flag
from tests.support.scraping import Page, fetch
from tests.support.services import program

CLOSES: Final = "websocket_closes_total"
SIZES: Final = "websocket_message_size_bytes"


def assert_one_moment(page: Page) -> None:
    """What is counted in several places agrees in all of them."""
    accepted = page.value("websocket_handshakes_total", outcome="accepted")
    closes = page.value(CLOSES)
    assert page.value("websocket_connections_active") == accepted - closes
    assert page.value("websocket_connection_duration_seconds_count") == closes
    assert page.value("websocket_transport_ends_total") == closes
    assert page.value("websocket_handshake_duration_seconds_count") == accepted
    asked, answered = (
        page.value(f"{SIZES}_count", direction=direction) for direction in ("client_to_server", "server_to_client")
    )
    assert answered <= asked  # an echo service
    assert page.value(f"{SIZES}_sum") == 11 * (asked + answered)
    for family in page.families.values():
        if family.type == "histogram":
            assert_histogram(page, family.name)


def assert_histogram(page: Page, name: str) -> None:
    """Buckets ascend, and the last is the count."""
    for sample in page.samples[f"{name}_count"]:
        buckets = [
            bucket for bucket in page.samples[f"{name}_bucket"] if sample.labels.items() <= bucket.labels.items()
        ]
        assert [bucket.labels["le"] for bucket in buckets][-1] == "+Inf"
        counts = [bucket.value for bucket in buckets]
        assert counts == sorted(counts)
        assert counts[-1] == sample.value


def assert_later(page: Page, before: Page) -> None:
    """No counter ever goes down, and no series goes away."""
    for name, family in before.families.items():
        if family.type in ("counter", "histogram"):
            now = {(s.name, tuple(s.labels.items())): s.value for s in page.families[name].samples}
            for sample in family.samples:
                assert now[(sample.name, tuple(sample.labels.items()))] >= sample.value


@pytest.mark.parametrize(
    ("seconds", "slowest"), [(2.0, 1.0), pytest.param(20.0, 0.1, marks=pytest.mark.matrix)], ids=["brief", "long"]
)
@conversation
async def test_scrapes_under_load(seconds: float, slowest: float, tmp_path: Path) -> None:
    """Amid messages and connections that come and go, scrapes are consistent, and 99 of 100 answered in time."""
    async with (
        program("tests.support.killable", "serve") as (_, port),
        exporter_process(tmp_path, tap_flag(Address("127.0.0.1", int(port)))) as exporter,
    ):
        tap, web = await exporter.address("tap"), await exporter.address("metrics")
        async with program("tests.faults.loading", str(tap)) as (_, said):
            assert said == "loading"
            texts, times = [], []
            end = time.monotonic() + seconds
            while (start := time.monotonic()) < end:
                status, text = await fetch(web, "/metrics")
                times.append(time.monotonic() - start)
                assert status == 200
                texts.append(text)
                await asyncio.sleep(0.02)
        pages = [Page(text) for text in texts[:: max(1, len(texts) // 100)]]
        for page in pages:
            assert_one_moment(page)
        for before, page in itertools.pairwise(pages):
            assert_later(page, before)
        assert pages[-1].value(CLOSES) > pages[0].value(CLOSES)
        assert pages[-1].value(f"{SIZES}_count") > 1000
        assert sorted(times)[len(times) * 99 // 100] < slowest
