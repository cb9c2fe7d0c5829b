"""docs/webhook.md: its snippets are the tested files, its commands and requests work, its tables are the code's."""

import asyncio
import json
import os
import re
import shlex
import signal
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import pytest

from exporter.events import REJECTIONS
from exporter.reports import Report
from exporter.web.errors import ERRORS
from tests.emitters.support import EMITTERS, url
from tests.support.loops import conversation
from tests.support.processes import exporter_process
from tests.support.reporting import AWS, CLOSES, Desk, growth, outcome
from tests.support.scraping import scrape
from tests.support.services import ROOT

PAGE: Final = (ROOT / "docs/webhook.md").read_text()
SNIPPETS: Final = sorted(path for path in EMITTERS.iterdir() if path.is_file())
LANGUAGES: Final = {".py": "python", ".js": "js", ".sh": "sh"}

OF_THE_OTHER_LISTENER: Final = {"lifecycle_disabled", "reload_failed", "not_ready"}
"""Errors that the webhook's listener never answers."""


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def table(head: str) -> list[list[str]]:
    """The cells of the table that begins with these columns."""
    lines = PAGE.partition(head)[2].partition("\n\n")[0].splitlines()[2:]
    assert lines, head
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip("| "))] for line in lines]


@pytest.mark.parametrize("snippet", SNIPPETS, ids=lambda path: path.name)
def test_snippets_are_the_tested_files(snippet: Path) -> None:
    """Each file of deploy/emitters is on the page, to the letter."""
    assert snippet.read_text() in blocks(LANGUAGES[snippet.suffix])


def test_every_field_is_documented() -> None:
    """The table has the fields of an event, in their order, and no other."""
    named = [cells[0].strip("`") for cells in table("| field | value | meaning |")]
    assert sorted(named) == sorted(Report.__struct_fields__)


def test_every_error_is_documented() -> None:
    """The table has each error of this listener with its status, those of single events among them."""
    documented = {token.strip("`"): int(status) for status, token, _ in table("| status | error | what to do |")}
    assert documented == {token: error.status for token, error in ERRORS.items() if token not in OF_THE_OTHER_LISTENER}
    assert set(REJECTIONS) <= set(documented)


def test_links_lead_somewhere() -> None:
    """Headings that the page links to are there, and so are files, unless another page is still to be written."""
    headings = {re.sub(r"[^\w -]", "", line.lower()).replace(" ", "-") for line in re.findall(r"(?m)^#+ (.+)$", PAGE)}
    targets = set(re.findall(r"\]\((?!http)([^)]*)\)", PAGE))
    assert {target[1:] for target in targets if target.startswith("#")} <= headings
    for target in targets:
        assert target.startswith("#") or (ROOT / "docs" / target.partition("#")[0]).exists(), target


@pytest.mark.needs("curl")
@conversation
async def test_the_quick_start(tmp_path: Path) -> None:
    """Its two commands count a close, which is there after kill -9 and a restart; the same again is a duplicate."""
    console, again = blocks("console")[:2]
    start, post, answer = (
        part.replace("\\\n", " ").strip() for part in re.split(r"(?m)^\$ |^(?=\{)", console) if part.strip()
    )
    program, *flags = shlex.split(start)
    assert program == "websocket-exporter"
    flags = [re.sub(r"=127\.0\.0\.1:\d+$", "=127.0.0.1:0", flag) for flag in flags]
    flags = [f"--storage.path={tmp_path / 'state'}" if flag.startswith("--storage.path=") else flag for flag in flags]
    for attempt, shown in enumerate((answer, again.strip())):
        (folder := tmp_path / str(attempt)).mkdir()
        async with exporter_process(folder, *flags) as exporter:
            address = await exporter.address("webhook")
            words = shlex.split(re.sub(r"http://[\d.:]+", f"http://{address}", post))
            assert json.loads(await run(*words)) == json.loads(shown)
            page = await scrape(await exporter.address("metrics"))
            assert page.counted(CLOSES, "source", "code", "initiator") == {("webhook", "1001", "server"): 1}
            exporter.signal(signal.SIGKILL)
            await exporter.ended()


async def run(*words: str, **environment: str) -> str:
    """What a command prints; it must not fail."""
    process = await asyncio.create_subprocess_exec(
        *words, env=os.environ | environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    output, errors = await process.communicate()
    assert process.returncode == 0, (output, errors)
    return output.decode()


@pytest.mark.parametrize("request_text", blocks("http"))
@conversation
async def test_cloudevents(desk: Desk, request_text: str) -> None:
    """Each example is taken as it stands on the page, but for its time: all of its events, once."""
    head, _, body = request_text.partition("\n\n")
    body = re.sub(r'"time": "[^"]*"', f'"time": "{datetime.now(UTC).isoformat()}"', body)
    line, *fields = head.splitlines()
    lines = [f"{line} HTTP/1.1", "Host: exporter.test", *fields, f"Content-Length: {len(body)}", "", ""]
    raw = "\r\n".join(lines).encode() + body.encode()
    events = json.loads(body)
    count = len(events) if isinstance(events, list) else 1
    assert outcome(await desk.ask(raw)) == (count, 0, 0)
    assert outcome(await desk.ask(raw)) == (0, count, 0)


@pytest.mark.needs("curl")
@pytest.mark.parametrize(
    ("script", "counted"),
    [
        ("curl.sh", {("1009", "server"): 1}),
        ("curl-ndjson.sh", {("1001", "client"): 1, ("1012", "server"): 1, ("4xxx", "server"): 1}),
    ],
)
@conversation
async def test_curl(desk: Desk, script: str, counted: dict[tuple[str, str], float]) -> None:
    """Each script counts its closes once, however often it runs."""
    before = await desk.scrape()
    first = json.loads(await run("sh", str(EMITTERS / script), URL=url(desk.address)))
    again = json.loads(await run("sh", str(EMITTERS / script), URL=url(desk.address)))
    assert (first["accepted"], again["duplicate"]) == (sum(counted.values()), sum(counted.values()))
    assert growth(before, await desk.scrape(), CLOSES, "code", "initiator") == counted


def test_a_platform_path_of_the_page_exists() -> None:
    """What the page says of API Gateway is said of a path that the exporter serves."""
    assert f"POST {AWS}" in PAGE
