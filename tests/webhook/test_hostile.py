"""Whatever is reported, the metrics can be read and are as few as the exporter said, and so can its log."""

import asyncio
import json
import re
from pathlib import Path
from random import Random
from typing import Final

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from tests.support.loops import conversation, long_conversation
from tests.support.reporting import CLOSES, ERRORS, EVENTS, Desk, closing, configured, outcome, reporting
from tests.support.scraping import Page, fetch
from tests.web.support import connected
from tests.webhook.hostile import request

STATUSES: Final = {200, 400, 413, 415, 422}
RAW: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
"""Characters that make a line of the log look like something else."""
OPENMETRICS: Final = "Accept: application/openmetrics-text; version=1.0.0"
SENDERS: Final = 8


async def bombard(desk: Desk, requests: int) -> dict[int, int]:
    """Post so many requests, over a few connections. Returns how many had each status."""
    statuses: dict[int, int] = {}

    async def post_all(seed: int) -> None:
        random = Random(seed)
        async with connected(desk.address) as client:
            for _ in range(requests // SENDERS):
                await client.send(request(random))
                answer = await client.answer()
                statuses[answer.status] = statuses.get(answer.status, 0) + 1
                assert answer.status in STATUSES, answer
                json.loads(answer.body)
                assert answer.body.isascii()

    async with asyncio.TaskGroup() as tasks:
        for seed in range(SENDERS):
            tasks.create_task(post_all(seed))
    return statuses


def series(text: str) -> list[str]:
    """The lines of the catalogue's series."""
    return [line for line in text.splitlines() if line.startswith("websocket_")]


@pytest.mark.parametrize("listed", [False, True], ids=["any target", "listed targets"])
@pytest.mark.parametrize(
    "requests",
    [800, pytest.param(20_000, marks=[pytest.mark.matrix, pytest.mark.timeout(400)])],
    ids=["brief", "long"],
)
@long_conversation
async def test_a_hostile_corpus(listed: bool, requests: int, tmp_path: Path) -> None:
    """Thousands of random, huge, deep and deceiving events make no series, line or answer that was not foreseen."""
    flags = [f"--storage.path={tmp_path / 'state'}", "--webhook.rate-limit=0", "--log.level=debug"]
    if listed:
        flags.append(configured(tmp_path, {"chat": {"codes": [4001]}, "rooms": {}}))
    async with reporting(tmp_path, *flags) as desk:
        [line] = desk.exporter.said("metrics listening")
        before = (await fetch(desk.web, "/metrics"))[1]
        assert len(series(before)) <= line["most_series"]
        statuses = await bombard(desk, requests)
        assert statuses[200] > requests // 4
        assert statuses[400] > requests // 100

        status, text = await fetch(desk.web, "/metrics")
        assert status == 200
        assert list(parse_text(text))
        status, other = await fetch(desk.web, "/metrics", "GET", OPENMETRICS)
        assert status == 200
        assert list(parse_openmetrics(other))
        assert len(series(text)) <= line["most_series"]
        assert "forged" not in text
        page = Page(text)
        targets = {sample.labels["target"] for sample in page.samples[CLOSES]}
        assert targets == ({"chat", "rooms"} if listed else {"default"})
        assert page.value(EVENTS, result="accepted") > requests
        assert page.value(ERRORS, error="internal_error") == 0

        written = (tmp_path / "exporter.log").read_text()
        assert all(line.keys() >= {"event", "level"} for line in desk.exporter.lines)
        assert not [line for line in written.split("\n") if RAW.search(line)]
        assert not [line for line in desk.exporter.lines if line["level"] in ("error", "critical")]
        assert outcome(await desk.report(closing(1000, target="chat", id="still here")))[0] == 1
        after = len(series((await fetch(desk.web, "/metrics"))[1]))
        assert after == len(series(text))
    async with reporting(tmp_path, *flags) as desk:
        assert (await desk.scrape()).value(CLOSES) == page.value(CLOSES) + 1


@conversation
async def test_every_code_there_is(tmp_path: Path) -> None:
    """All 5,000 codes, each with every initiator, stay within the bound, and so do sizes and durations."""
    async with reporting(tmp_path, "--webhook.rate-limit=0") as desk:
        [line] = desk.exporter.said("metrics listening")
        for who in ("client", "server", "unknown"):
            for start in range(0, 5000, 1000):
                events = [
                    closing(code, initiator=who, duration=code, message_size=code * code, direction="client_to_server")
                    for code in range(start, start + 1000)
                ]
                assert outcome(await desk.report(events)) == (1000, 0, 0)
        page = await desk.scrape()
        assert page.value(CLOSES) == 15_000
        assert len(series(page.text)) <= line["most_series"]
        assert len(page.counted(CLOSES, "code")) < 30
