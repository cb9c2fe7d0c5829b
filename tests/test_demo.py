"""The demo: one command that really produces both failures, shows them, and ends when it is told to.

It runs on uvloop, as the demo does: asyncio's own server (Python 3.11) forgets a connection that it accepted in the
very moment in which it was closed, and whoever made it waits.
"""

import asyncio
import contextlib
import fcntl
import io
import json
import os
import pty
import random
import re
import signal
import socket
import struct
import subprocess
import sys
import termios
import time
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final, TypeVar

import pytest
import uvloop
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console
from structlog.testing import capture_logs
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidHandshake

from exporter import app, cli, demo
from exporter.closecodes import Vocabulary
from exporter.config import Address
from exporter.demo import clients, messages, report, screen, service
from exporter.demo.scenario import Scenario
from exporter.demo.score import Board, Score
from exporter.demo.tasks import running
from exporter.events import Closed, Origin
from exporter.metrics.recorder import Recorder

ROOT: Final = Path(__file__).parent.parent
ENDS_WITHIN: Final = 3.0
BOTH_FAILURES: Final = (
    {"code": "1001", "class": "going_away", "initiator": "server", "source": "tap", "target": "demo"},
    {"code": "1009", "class": "too_big", "initiator": "server", "source": "tap", "target": "demo"},
)
ANYWHERE: Final = Address("127.0.0.1", 0)
HASTY: Final = Scenario(
    well_behaved=20,
    herd=20,
    arrival=0.1,
    first_deploy=1.0,
    deploy_every=600.0,
    away=0.6,
    admitted_per_second=16,
    visit=600.0,
    oversize_delay=0.2,
)
"""One deploy, at once, by which every client is connected."""

T = TypeVar("T")


def eventually(look: Callable[[], T | None], deadline: float, what: str) -> T:
    end = time.monotonic() + deadline
    while time.monotonic() < end:
        found = look()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError(f"not within {deadline} s: {what}")


async def soon(look: Callable[[], T | None], what: str, deadline: float = 10.0) -> T:
    end = time.monotonic() + deadline
    while time.monotonic() < end:
        found = look()
        if found:
            return found
        await asyncio.sleep(0.01)
    raise AssertionError(f"not within {deadline} s: {what}")


def lines(log: Path) -> list[dict[str, Any]]:
    """The complete lines of a log so far; all of them must be JSON."""
    return [json.loads(line) for line in log.read_text().splitlines(keepends=True) if line.endswith("\n")]


@contextlib.contextmanager
def command(*words: str, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WEBSOCKET_EXPORTER_")}
    with subprocess.Popen(
        [sys.executable, "-m", "exporter", "demo", *words], cwd=ROOT, env=environment | {"TERM": "xterm"}, **options
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def value(metrics: str, name: str, **labels: str) -> float:
    """The sum of the samples that have these labels."""
    return sum(
        sample.value
        for family in text_string_to_metric_families(metrics)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


@dataclass(frozen=True)
class Played:
    """A demo that has ended: its last metrics before that, its log, how it ended, when it was asked to (seconds since
    the epoch) and how many seconds that took."""

    metrics: str
    log: list[dict[str, Any]]
    status: int
    asked: float
    ending: float


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Played:
    """The real command, without a terminal, until /metrics shows both failures; then Ctrl-C's signal."""
    log = tmp_path_factory.mktemp("demo") / "log"
    with log.open("wb") as sink, command("--web.listen-address=127.0.0.1:0", stdout=sink, stderr=sink) as process:
        url = eventually(
            lambda: next((line["metrics"] for line in lines(log) if line["event"] == "demo"), None), 20, "the address"
        )

        def scrape() -> str:
            with urllib.request.urlopen(url, timeout=5) as answer:
                text: str = answer.read().decode()
            return text

        def accepted(text: str) -> float:
            return value(text, "websocket_handshakes_total", outcome="accepted", source="tap")

        eventually(lambda: any(line["event"].startswith("deploy: ") for line in lines(log)), 60, "a deploy")
        at_deploy = accepted(scrape())

        def both_failures() -> str | None:
            text = scrape()
            both = all(value(text, "websocket_closes_total", **labels) for labels in BOTH_FAILURES)
            # It accepts anew only when it has closed everyone, so what ends from here on is not the deploy's.
            return text if both and accepted(text) > at_deploy + 2 else None

        metrics = eventually(both_failures, 60, "a 1001, a 1009, and clients that are back")
        asked = time.time()
        process.send_signal(signal.SIGINT)
        status = process.wait(20)
        return Played(metrics, lines(log), status, asked, time.time() - asked)


@pytest.mark.timeout(120)
def test_both_failures_are_counted(played: Played) -> None:
    """The service's 1001 and 1009 are on /metrics, with class, initiator, source and target."""
    assert [value(played.metrics, "websocket_closes_total", **labels) > 0 for labels in BOTH_FAILURES] == [True, True]


def test_message_sizes_are_counted_in_both_directions(played: Played) -> None:
    """Clients and service talk, in more than one size; the messages that are too big are counted like others."""
    for direction in ("client_to_server", "server_to_client"):
        labels = {"source": "tap", "target": "demo", "direction": direction}
        small = value(played.metrics, "websocket_message_size_bytes_bucket", **labels, le="1024.0")
        assert 0 < small < value(played.metrics, "websocket_message_size_bytes_count", **labels)
    within_limit = value(
        played.metrics, "websocket_message_size_bytes_bucket", direction="client_to_server", le="65536.0"
    )
    assert within_limit < value(
        played.metrics, "websocket_message_size_bytes_count", direction="client_to_server", compressed="false"
    )


def test_interrupt_ends_it_cleanly(played: Played) -> None:
    """SIGINT ends it within 3 seconds with status 0; the clients leave with 1001 before the service could send its."""
    assert played.status == 0
    assert played.ending < ENDS_WITHIN
    ends = {
        (line["code"], line["initiator"])
        for line in played.log
        if line["event"] == "websocket closed"
        and line["source"] == "tap"
        and datetime.fromisoformat(line["timestamp"]).timestamp() > played.asked
    }
    assert ("1001", "client") in ends
    assert ("1001", "server") not in ends


def test_the_log_tells_the_story_and_nothing_else(played: Played) -> None:
    """One line where to look, one per deploy, one per close, a summary now and then; no error and no library talk."""
    assert [line for line in played.log if line["level"] == "error" or "logger" in line or "exception" in line] == []
    (deploy,) = [line for line in played.log if line["event"].startswith("deploy: ")]
    assert deploy["number"] == 1
    assert deploy["connections"] > 20
    (where,) = [line for line in played.log if line["event"] == "demo"]
    assert where["look_for"] == f"curl -s {where['metrics']} | grep 'websocket_closes_total.* [1-9]'"
    summary = next(line for line in played.log if line["event"] == "summary")
    assert set(summary["clients"]) == {"well-behaved", "herd", "too big"}
    assert {"deploys", "next_deploy_seconds", "closes"} <= set(summary)


@pytest.mark.parametrize(("log_apart", "ended_by"), [(False, "Ctrl-C"), (True, "SIGTERM")])
def test_a_terminal_shows_a_table(log_apart: bool, ended_by: str, tmp_path: Path) -> None:
    """On a terminal: addresses and habits, no log lines unless they go elsewhere; it ends within 3 s with status 0."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    log = tmp_path / "log"
    its_terminal: dict[str, Any] = {
        "start_new_session": True,
        "preexec_fn": lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    }
    shown = bytearray()

    def text() -> str:
        with contextlib.suppress(OSError):  # EIO once the other end is closed
            shown.extend(terminal.read() or b"")
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode(errors="replace"))

    with (
        open(master, "r+b", buffering=0) as terminal,
        open(slave, "wb") as its_end,
        log.open("wb") as sink,
        command(
            "--web.listen-address=127.0.0.1:0",
            stdin=its_end,
            stdout=its_end,
            stderr=sink if log_apart else its_end,
            **its_terminal,
        ) as process,
    ):
        its_end.close()
        os.set_blocking(master, False)
        eventually(lambda: re.search(r"herd +[1-9]\d* of 36", text()), 30, "a herd in the table")
        asked = time.monotonic()
        if ended_by == "Ctrl-C":
            terminal.write(b"\x03")
        else:
            process.terminate()
        eventually(lambda: text() and process.poll() is not None, 20, "the end")
        ending = time.monotonic() - asked
        seen = text()
    assert process.returncode == 0
    assert ending < ENDS_WITHIN
    (url,) = set(re.findall(r"http://127\.0\.0\.1:\d+/metrics", seen))
    assert f"curl -s {url} | grep 'websocket_closes_total.* [1-9]'" in seen
    for words in ("next deploy in 12 s, Ctrl-C ends it", "well-behaved", "herd", "too big  ", "ws://127.0.0.1:"):
        assert words in seen
    assert "listening" not in seen
    assert any(line["event"] == "websocket closed" for line in lines(log)) == log_apart
    assert "Traceback" not in seen
    assert shown.rstrip().endswith(b"\x1b[?25h"), "the cursor is back"


def test_a_port_in_use_is_one_sentence(capfd: pytest.CaptureFixture[str]) -> None:
    """When /metrics cannot be served: status 2, a sentence with the address, and nothing is left running."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert cli.main(["demo", f"--web.listen-address=127.0.0.1:{port}"]) == 2
    assert capfd.readouterr().err == f"websocket-exporter: cannot listen on 127.0.0.1:{port}: address already in use\n"


def test_the_default_address_is_the_exporters_port_on_loopback() -> None:
    """Nobody else on the network needs to see a demo."""
    assert Address("127.0.0.1", 11009) == demo.WEB


def its_taps_address(log: list[Any]) -> tuple[str, int] | None:
    return next((("127.0.0.1", int(line["address"].split(":")[1])) for line in log if "upstream" in line), None)


async def told_to_stop(scenario: Scenario, ready: Callable[[list[Any]], Any]) -> float:
    """Seconds that a demo takes to end once `ready` finds something in its log; what it found is kept until then."""
    stopping = asyncio.Event()
    with capture_logs() as log, contextlib.ExitStack() as kept:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(demo.play(ANYWHERE, scenario, stopping))
            found = await soon(lambda: ready(log), "the moment")
            if found is not True:
                kept.enter_context(found)
            asked = time.monotonic()
            stopping.set()
    return time.monotonic() - asked


@pytest.mark.parametrize(
    "ready",
    [
        lambda log: its_taps_address(log) is not None,
        lambda log: any(line["event"].startswith("upstream does not accept") for line in log),
        lambda log: (address := its_taps_address(log)) and socket.create_connection(address),
    ],
    ids=["at once", "while the service is away", "while a stranger holds a connection"],
)
def test_it_ends_at_any_moment(ready: Callable[[list[Any]], Any]) -> None:
    """Told to stop, it ends within 3 s, whatever is under way."""
    assert uvloop.run(told_to_stop(replace(HASTY, away=600.0), ready)) < ENDS_WITHIN


def test_a_fault_of_one_part_ends_all() -> None:
    """Nothing fails silently: an exception in any part is the demo's."""

    async def broken() -> None:
        await demo.play(ANYWHERE, replace(HASTY, message_every=0.0), asyncio.Event())

    with capture_logs(), pytest.raises(ExceptionGroup) as raised:
        uvloop.run(broken())
    assert raised.group_contains(ZeroDivisionError)


@contextlib.asynccontextmanager
async def alive(scenario: Scenario) -> AsyncIterator[tuple[Board, Address]]:
    """The service with its clients, without an exporter in between."""
    scores: dict[Any, Score] = {
        "well-behaved": Score(scenario.well_behaved),
        "herd": Score(scenario.herd),
        "too big": Score(scenario.too_big),
    }
    board = Board(scores)
    chance = random.Random(1001)
    with service.reserved_port() as address:
        everybody = [client.run() for client in clients.crowd(address, scenario, board, chance)]
        async with running(service.Service(address, scenario, board, chance).run()):
            async with running(*everybody):
                yield board, address
            await soon(lambda: len(asyncio.all_tasks()) == 2, "the service has noticed that its clients are gone")


def test_the_habits_differ_in_how_they_come_back() -> None:
    """After a deploy the herd is back at the door within a second, the well-behaved over five; the herd is refused."""

    async def storm() -> None:
        async with alive(HASTY) as (board, _):
            herd, calm = board.scores["herd"], board.scores["well-behaved"]
            await soon(lambda: herd.connected + calm.connected == 40, "all are connected")
            await soon(lambda: herd.lost + calm.lost == 40, "all are cut off")
            await soon(lambda: herd.connected == 20, "the herd is back")
            assert herd.at_once == 20
            assert calm.at_once <= 12  # a fifth of them, at random: more than 12 once in 100,000 runs
            assert herd.refused >= 20
            assert herd.last_close == calm.last_close == (1001, "server")

    with capture_logs():
        uvloop.run(storm())


def test_nobody_listens_during_a_deploy() -> None:
    """The service is really away: connections are refused, on the port that it later has again."""

    async def answer(address: Address) -> str:
        try:
            async with connect(f"ws://{address}/", proxy=None):
                return "welcome"
        except ConnectionRefusedError:
            return "refused"
        except (OSError, InvalidHandshake):  # it closes at this very moment
            return "rejected"

    async def deploy() -> None:
        async with alive(replace(HASTY, well_behaved=0, herd=0, too_big=0, away=0.3)) as (board, address):
            for number, expected in ((0, "welcome"), (1, "refused"), (1, "welcome")):
                async with asyncio.timeout(10):
                    while await answer(address) != expected:
                        pass
                assert board.deploys == number
                assert (board.next_deploy is None) == (expected == "refused")

    with capture_logs():
        uvloop.run(deploy())


def test_the_message_over_the_limit_is_sent_again_and_again() -> None:
    """A 1009 loop: refused by the service, the client reconnects and sends it once more."""

    async def loop() -> None:
        alone = replace(HASTY, well_behaved=0, herd=0, first_deploy=600.0, oversize_delay=0.0)
        async with alive(alone) as (board, _):
            score = board.scores["too big"]
            for _ in range(2):
                await soon(lambda: score.last_close == (1009, "server"), "a 1009")
                score.last_close = None

    with capture_logs():
        uvloop.run(loop())


def test_people_leave_and_come_back() -> None:
    """Closes by clients occur too, with 1000 and 1001, so that they can be told from the service's."""

    async def leave() -> set[tuple[int, str]]:
        restless = replace(HASTY, herd=0, too_big=0, first_deploy=600.0, visit=0.05)
        seen: set[tuple[int, str]] = set()
        async with alive(restless) as (board, _):
            score = board.scores["well-behaved"]

            def both() -> bool:
                if score.last_close:
                    seen.add(score.last_close)
                return len(seen) == 2

            await soon(both, "both ways to leave")
        return seen

    with capture_logs():
        assert uvloop.run(leave()) == {(1000, "client"), (1001, "client")}


def test_a_deploy_starts_the_counts_anew() -> None:
    """What a habit lost, how many of it were back at once and refused belong to the last deploy."""
    score = Score(2, connected=2)
    board = Board({"herd": score})
    for moment in (100.0, 200.0):
        board.deploy(moment)
        assert score.closed(1001, "server")
        assert score.closed(1001, "server")
        assert not score.closed(1001, "client")
        board.returns(score, moment + 1.0)
        board.returns(score, moment + 1.1)
        assert (score.lost, score.at_once) == (2, 1)
    assert board.deploys == 2


@pytest.mark.parametrize("size", [0, 1, 44, 45, 46, 150_000])
def test_texts_have_the_size_asked_for(size: int) -> None:
    """Sizes are bytes on the wire."""
    assert len(messages.text(size).encode()) == size


def test_messages_stay_below_the_limit_and_vary() -> None:
    """Mostly short, some long, none over the limit."""
    chance = random.Random(1009)
    sizes = sorted(len(messages.message(chance, typical=300, most=4096)) for _ in range(1000))
    assert sizes[-1] == 4096
    assert sizes[0] < 50
    assert 250 < sizes[500] < 350


@pytest.mark.parametrize(
    ("web", "url"),
    [
        (Address("127.0.0.1", 11009), "http://127.0.0.1:11009/metrics"),
        (Address("0.0.0.0", 80), "http://127.0.0.1:80/metrics"),
        (Address("::", 80), "http://[::1]:80/metrics"),
        (Address("::1", 80), "http://[::1]:80/metrics"),
    ],
)
def test_the_metrics_address_can_be_opened(web: Address, url: str) -> None:
    """All interfaces are shown as loopback: 0.0.0.0 is nothing to open."""
    assert report.places(web, ANYWHERE).metrics == url


def counted(*closes: tuple[str, Any]) -> dict[str, dict[str, int]]:
    recorder = Recorder(time.time)
    origin, other = Origin("tap", "demo"), Origin("tap", "other")
    recorder.watch(origin, Vocabulary(frozenset(), frozenset()))
    for code, initiator in closes:
        for each in (origin, other):
            recorder.emit(Closed(each, code, "normal", initiator, 1.0))
    return report.closes(recorder)


def test_closes_are_the_exporters_own_counts() -> None:
    """By code, in order, and initiator, without what never happened."""
    assert counted() == {}
    assert counted(("1009", "server"), ("1001", "client"), ("1001", "server"), ("1001", "client")) == {
        "1001": {"client": 4, "server": 2},
        "1009": {"server": 2},
    }


def test_the_table_fits_an_ordinary_terminal() -> None:
    """80 columns and 24 lines hold all of it, with long names, large numbers and a deploy under way."""
    board = Board(
        {
            "well-behaved": Score(20, 20, (1009, "server"), 20, 20, 9999),
            "herd": Score(16, 16, (1006, "server"), 16, 16, 9999),
            "too big": Score(1, 1, None, 1, 1, 9999),
        },
        deploys=99,
    )
    closes = {code: {"server": 99999, "client": 99999} for code in ("1000", "1001", "1002", "1006", "1009", "invalid")}
    shown = report.places(Address("127.0.0.1", 65535), Address("127.0.0.1", 65535))
    console = Console(width=80, file=io.StringIO())
    console.print(screen.view(board, closes, shown, now=0.0))
    rows = [row.rstrip() for row in console.file.getvalue().splitlines()]
    assert len(rows) <= 24
    assert "…" not in "".join(rows)
    assert "the service is away for its deploy" in rows[0]
    assert shown.look_for in rows
    assert "1009 Message Too Big, server" in "".join(rows)


def test_nothing_starts_when_it_cannot_listen() -> None:
    """StartError comes by itself, not in a group with what else was going on."""

    async def refused() -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            await demo.play(Address("127.0.0.1", taken.getsockname()[1]), HASTY, asyncio.Event())

    with pytest.raises(app.StartError, match="cannot listen on"):
        uvloop.run(refused())
