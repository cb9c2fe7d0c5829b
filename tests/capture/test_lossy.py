"""A wire that loses, doubles and overtakes packets: what capture counts is what both ends know, to the last byte.

Capture is at the server's end of the wire: of what clients send it sees what the wire has made of it, of what the
server sends everything, also what never arrives.
"""

import json
import sys
from typing import Any, Final

import pytest

from tests.capture.exporting import (
    ACTIVE,
    BYTES,
    CAPTURED,
    CLOSES,
    DROPS,
    HANDSHAKES,
    LOST,
    MESSAGES,
    UNPARSED,
    exporting,
    started,
)
from tests.capture.namespaces import INTERFACE, Weather, land
from tests.capture.rights import needs_namespaces
from tests.capture.talking import ENDINGS, ending_of
from tests.peers.processes import Program

pytestmark = [needs_namespaces, pytest.mark.needs("ip")]

STORM: Final = Weather(loss=0.05, reordering=0.2, duplication=0.05)
SMALL: Final = 16
LARGE: Final = 40

ROWS: Final = {
    "calm": (Weather(), SMALL),
    "loss": (Weather(loss=0.02), LARGE),
    "reordering": (Weather(reordering=0.02), LARGE),
    "duplication": (Weather(duplication=0.02), LARGE),
    "storm": (STORM, LARGE),
}
CORE: Final = (("storm", 4, 1),)
SEEDS: Final = {"storm": range(1, 6)}


def told_by(program: Program, count: int) -> dict[str, dict[str, Any]]:
    """What a program knows of its connections, by path."""
    lines = [json.loads(program.line("ended", within=120)) for _ in range(count)]
    return {line["path"]: line for line in lines}


def rows() -> list[Any]:
    return [
        pytest.param(
            name,
            version,
            seed,
            marks=[] if (name, version, seed) in CORE else pytest.mark.matrix,
            id=f"{name}-ipv{version}-{seed}",
        )
        for name in ROWS
        for version in (4, 6)
        for seed in SEEDS.get(name, (1,))
    ]


@pytest.mark.timeout(200)
@pytest.mark.parametrize(("weather", "version", "seed"), rows())
def test_what_both_ends_know(weather: str, version: int, seed: int) -> None:
    """Every close has the code and initiator that it had, every message is counted, and no byte is missing."""
    sky, count = ROWS[weather]
    with land(version, sky, seed) as made:
        module = (sys.executable, "-m", "tests.capture.talking")
        with started(made.server, (*module, "serve", made.addresses.server)) as server:
            port = server.line("listening")
            with (
                exporting(f"--capture={INTERFACE}:{port}", where=made.server) as exporter,
                started(made.client, (*module, "talk", made.addresses.server, port, str(count), str(seed))) as client,
            ):
                by_server, by_client = told_by(server, count), told_by(client, count)
                page = exporter.closed(count)
                closes = {close["path"]: close for close in exporter.closes()}
    assert page.counted(DROPS, "ring") == {}, "these tests are of the wire's losses, not of the kernel's"
    assert {path: expected(path, by_server, by_client) for path in by_server} == {
        path: seen(close) for path, close in closes.items()
    }
    for direction, known in (("client_to_server", "received"), ("server_to_client", "sent")):
        assert page.value(MESSAGES, direction=direction) == sum(line[known] for line in by_server.values())
        assert page.value(BYTES, direction=direction) == sum(line[f"{known}_bytes"] for line in by_server.values())
    assert page.value(CLOSES, **CAPTURED) == count
    assert page.value(ACTIVE, **CAPTURED) == 0
    assert page.counted(HANDSHAKES, "source", "outcome", "status") == {("capture", "accepted", "101"): count}
    assert page.value(LOST) == 0
    assert page.value(UNPARSED) == 0


def expected(path: str, by_server: dict[str, dict[str, Any]], by_client: dict[str, dict[str, Any]]) -> tuple[Any, ...]:
    """What is to be counted of a connection: code, initiator, messages each way."""
    server, client = by_server[path], by_client[path]
    assert client["sent"] == server["received"]
    return (*ENDINGS[ending_of(path)], server["received"], server["sent"])


def seen(close: dict[str, Any]) -> tuple[Any, ...]:
    """What was counted of it."""
    return close["code"], close["initiator"], close["client_to_server_messages"], close["server_to_client_messages"]
