"""The Autobahn test suite (kosoku runs its case files), directly and through the tap: no verdict may change."""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
from _pytest.mark import ParameterSet

from tests.peers.peers import FUZZED_CLIENTS, SERVERS, Peer, server
from tests.peers.processes import program
from tests.peers.rows import row
from tests.peers.stack import ACTIVE, CLOSES, HANDSHAKES, Counts, Exporter, eventually, exporter

if TYPE_CHECKING:
    from kosoku import CaseResult

SUITES: Final = {
    "protocol": (("1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "10.*"), 247),
    "bulk": (("9.*", "12.1.*"), 72),
}
"""Case files, and how many cases are in them: all that a peer may do wrong; messages up to 16 MiB, and compressed."""
BULK: Final = ("websockets", "ws")
"""Peers that the bulk goes through: it tells more of the tap than of them."""

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("ignore:unclosed file .*kosoku:ResourceWarning"),  # its case files never close theirs
]

NO_LIMIT: Final = f"--limit={64 << 20}"
AT_ONCE: Final = 8
ROUNDS: Final = 10
PATIENCE: Final = 120.0
"""Seconds that one run of a suite may take."""

Verdict = tuple[str, str, int | None]
"""On the messages, on the close, and the close code that came."""
Verdicts = dict[str, Verdict]
Between = Callable[[int, Path], AbstractContextManager[int]]
Run = Callable[[Sequence[str], Between], Awaitable[Verdicts]]


@contextlib.contextmanager
def nothing(port: int, folder: Path) -> Iterator[int]:
    """Where to connect for the peer at `port`: right there."""
    yield port


@contextlib.contextmanager
def a_tap(port: int, folder: Path) -> Iterator[int]:
    """Where to connect for the peer at `port`: a tap before it, which counts each WebSocket once."""
    with exporter(port, folder) as tapped:
        yield tapped.tap
        counts = eventually(lambda: when_idle(tapped), "nothing is open any more")
        assert counts[CLOSES].total() == counts[HANDSHAKES].total() > 0


def when_idle(tapped: Exporter) -> Counts | None:
    counts = tapped.counts()
    return None if counts[ACTIVE] else counts


def verdicts(results: "Iterable[CaseResult]") -> Verdicts:
    return {
        result.case_id: (result.behavior.value, result.behavior_close.value, result.remote_close_code)
        for result in results
    }


async def fuzz_server(name: str, folder: Path, cases: Sequence[str], between: Between) -> Verdicts:
    """The fuzzing client against a server."""
    from kosoku import FailureError, run_fuzzingclient

    with server(name, NO_LIMIT) as started, between(started.port, folder) as port:
        try:
            async with asyncio.timeout(PATIENCE):
                return verdicts(await run_fuzzingclient(f"ws://127.0.0.1:{port}/", cases, concurrency=AT_ONCE))
        except FailureError as failure:
            return verdicts(failure.results)


async def fuzz_client(name: str, folder: Path, cases: Sequence[str], between: Between) -> Verdicts:
    """The fuzzing server against a client."""
    from kosoku import FailureError, run_fuzzingserver

    async with run_fuzzingserver(cases, port=0) as fuzzing:
        with (
            between(fuzzing.port, folder) as port,
            program([*FUZZED_CLIENTS[name].command, f"ws://127.0.0.1:{port}"]),
        ):
            try:
                async with asyncio.timeout(PATIENCE):
                    return verdicts(await fuzzing.get_result())
            except FailureError as failure:
                return verdicts(failure.results)


async def changed(run: Run, cases: Sequence[str], count: int) -> dict[str, tuple[set[Verdict], set[Verdict]]]:
    """Cases with a verdict that only the tap brings about, with all their verdicts without and with it.

    Some peers race with themselves: cases that differ are run again, to see every verdict they have.
    """
    direct: dict[str, set[Verdict]] = defaultdict(set)
    tapped: dict[str, set[Verdict]] = defaultdict(set)
    for _ in range(ROUNDS):
        for between, seen in ((nothing, direct), (a_tap, tapped)):
            for case, verdict in (await run(cases, between)).items():
                seen[case].add(verdict)
        cases = [case for case in tapped if not tapped[case] <= direct[case]]
        if not cases:
            break
    assert (len(direct), len(tapped)) == (count, count)
    return {case: (direct[case], tapped[case]) for case in cases}


def suites(peers: dict[str, Peer]) -> list[ParameterSet]:
    return [
        row((*peers[name].needs, "kosoku"), name, suite)
        for suite in SUITES
        for name in peers
        if suite == "protocol" or name in BULK
    ]


@pytest.mark.parametrize(("name", "suite"), suites(SERVERS))
def test_verdicts_on_servers(tmp_path: Path, name: str, suite: str) -> None:
    """The tap changes no verdict on a server, and closes every case's WebSocket once."""
    cases, count = SUITES[suite]
    assert asyncio.run(changed(partial(fuzz_server, name, tmp_path), cases, count)) == {}


@pytest.mark.parametrize(("name", "suite"), suites(FUZZED_CLIENTS))
def test_verdicts_on_clients(tmp_path: Path, name: str, suite: str) -> None:
    """The tap changes no verdict on a client, and closes every case's WebSocket once."""
    cases, count = SUITES[suite]
    assert asyncio.run(changed(partial(fuzz_client, name, tmp_path), cases, count)) == {}
