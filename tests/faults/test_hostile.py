"""Hostile peers choose what they say, and nothing else: series stay bounded, pages parse, one event is one line."""

import contextlib
import json
import re
import subprocess
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, Final

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics

from exporter.closecodes import Vocabulary
from exporter.config import Address
from tests.faults.crowd import free_address, head, listens
from tests.faults.hostile import MARK, Visit, visits
from tests.support.loops import eventually, long_conversation
from tests.support.peers import Door, connected, opened
from tests.support.processes import exporter_process
from tests.support.scraping import Page, fetch, scrape
from tests.wire.support import accepts

CODES: Final = Vocabulary(listed=frozenset({4001, 4404}), going_away=frozenset({3001}))
CONFIGURATION: Final = """
targets:
  chat: {{codes: [4001, 4404], going_away_codes: [3001]}}
  rooms: {{codes: [4001, 4404], going_away_codes: [3001], match: {{path: "*1*"}}}}
tap: [{{listen: "{tap}", upstream: "{upstream}", target: chat}}]
"""
CLOSES: Final = "websocket_closes_total"
UNPARSED: Final = "websocket_exporter_unparsed_streams_total"

MANY: Final = pytest.param(10_000, marks=[pytest.mark.matrix, pytest.mark.timeout(280)])


@dataclass
class Watched:
    """A running exporter, and its log."""

    tap: Address
    web: Address
    log: Path

    def lines(self) -> list[str]:
        return self.log.read_text("utf-8").split("\n")[:-1]


@contextlib.asynccontextmanager
async def watching(folder: Path, upstream: Door, *flags: str) -> AsyncIterator[Watched]:
    tap, web = free_address(), free_address()
    file = folder / "exporter.yaml"
    file.write_text(CONFIGURATION.format(tap=tap, upstream=upstream.address))
    async with exporter_process(folder, f"--config.file={file}", f"--web.listen-address={web}", *flags):
        await eventually(lambda: listens(web), within=15)
        await scrape(web)  # by then all is logged that is logged at the start
        yield Watched(tap, web, folder / "exporter.log")


async def receive(watched: Watched, door: Door, visit: Visit) -> None:
    """Let one hostile client come, be upgraded, and be gone. Both sides get each other's very words."""
    with await connected(watched.tap) as client, await door.accept() as server:
        await client.send(visit.request)
        assert await head(server) == visit.request
        await server.send(accepts()[1])
        assert await head(client) == accepts()[1]
        sender, receiver = (client, server) if visit.side == "client" else (server, client)
        await sender.send(visit.close)
        assert await receiver.read(len(visit.close)) == visit.close
        for side in (client, server):
            side.finish()
        assert (await client.rest(), await server.rest()) == (b"", b"")


async def settled(watched: Watched, closes: int) -> Page:
    """The first scrape that has so many closes."""

    async def look() -> Page | None:
        page = await scrape(watched.web)
        return page if page.value(CLOSES) >= closes else None

    found = await eventually(look)
    assert found is not None
    return found


def series(page: Page) -> set[tuple[str, tuple[tuple[str, str], ...]]]:
    """What the exporter itself exports."""
    return {
        (sample.name, tuple(sorted(sample.labels.items())))
        for samples in page.samples.values()
        for sample in samples
        if sample.name.startswith("websocket_")
    }


@pytest.mark.parametrize("count", [500, MANY])
@long_conversation
async def test_whatever_peers_say(count: int, tmp_path: Path) -> None:
    """Random codes, reasons, hosts, paths, agents: no new series but folded ones, no line but one for each close."""
    corpus = list(visits(Random(count), count))
    understood = [visit for visit in corpus if visit.understood]
    with opened() as door:
        async with watching(tmp_path, door) as watched:
            before = await scrape(watched.web)
            first_lines = len(watched.lines())
            for visit in corpus:
                await receive(watched, door, visit)
            page = await settled(watched, len(understood))
            _, text = await fetch(watched.web, "/metrics", "GET", "Accept: application/openmetrics-text")
        most = json.loads(watched.lines()[1])["most_series"]
    assert page.counted(CLOSES, "code", "initiator") == Counter(
        (CODES.wire_label(visit.code), visit.side) for visit in understood
    )
    assert page.counted(UNPARSED, "reason") == {("bad_request_head",): count - len(understood)}
    assert {name for name, _ in series(page) - series(before)} <= {CLOSES}
    assert len(series(page) - series(before)) <= 2 * 2  # `reserved`, by target and side
    assert len(series(page)) <= most
    assert MARK not in page.text
    assert len(list(openmetrics(text))) == len(page.families)
    assert_one_line_each([json.loads(line) for line in watched.lines()[first_lines:]], understood)
    assert all(re.fullmatch(r"[ -~]+", line) for line in watched.lines())


def assert_one_line_each(lines: list[dict[str, Any]], understood: list[Visit]) -> None:
    """Every line is about the end of one visit, of which it tells the reason, the code and nothing of the query.

    A visit that ends with 1009 has another line, in which is nothing that a peer chose but a size.
    """
    refused = [line for line in lines if line["event"] == "message refused"]
    assert len(refused) == sum(visit.code == 1009 for visit in understood)
    assert all(line["size"] is None for line in refused)
    # So many that are over so soon may be a mass close, too.
    lines = [line for line in lines if line["event"] not in ("message refused", "mass close")]
    assert {line["event"] for line in lines} == {"websocket closed"}
    by_number = {number_of(line["path"]): line for line in lines}
    assert len(by_number) == len(lines) == len(understood)
    for visit in understood:
        line = by_number[number_of(visit.request.decode("latin-1"))]
        reason = visit.reason.decode("utf-8", "replace")
        assert reason.startswith(line["reason"].rstrip("\ufffd"))
        assert str(line.get("wire_code", line["code"])) == str(visit.code)
        assert line["initiator"] == visit.side
        assert "?" not in line["path"]


def number_of(text: str) -> int:
    """Which visit the first mark in a text belongs to."""
    match = re.search(rf"{MARK}(\d+)", text)
    assert match is not None
    return int(match[1])


@long_conversation
async def test_on_the_console(tmp_path: Path) -> None:
    """For people too, one close is one line, in which nothing moves the cursor or turns the text around."""
    corpus = list(visits(Random(1), 200))
    understood = sum(visit.understood for visit in corpus)
    refused = sum(visit.understood and visit.code == 1009 for visit in corpus)
    with opened() as door:
        async with watching(tmp_path, door, "--log.format=console") as watched:
            first_lines = len(watched.lines())
            for visit in corpus:
                await receive(watched, door, visit)
            await settled(watched, understood)
    lines = watched.lines()[first_lines:]
    assert len(lines) == understood + refused
    assert all(line.isprintable() for line in lines)
    assert sum("websocket closed" in line for line in lines) == understood


@pytest.mark.needs("promtool")
@long_conversation
async def test_to_promtool(tmp_path: Path) -> None:
    """Prometheus' own parser finds nothing wrong with a page after all that."""
    with opened() as door:
        async with watching(tmp_path, door) as watched:
            for visit in visits(Random(2), 100):
                await receive(watched, door, visit)
            _, text = await fetch(watched.web, "/metrics")
    assert promtool(text) in (0, 3)  # 3: it would name some families otherwise


def promtool(page: str) -> int:
    """The exit status of the real one, which is 1 for what it cannot parse."""
    return subprocess.run(["promtool", "check", "metrics"], input=page, capture_output=True, text=True).returncode
