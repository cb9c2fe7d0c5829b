"""The snippets for servers, each in a real service on the real library: what they report of every ending.

`REPORTED` is the table of docs/webhook.md.
"""

import asyncio
import contextlib
import re
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.emitters.support import NODE, PYTHON, SERVICES, closes, counted, service, url
from tests.peers.processes import Program
from tests.support.loops import conversation
from tests.support.reporting import (
    ACTIVE,
    BUILD_RECONNECTS,
    DURATION,
    HANDSHAKES,
    RECONNECTS,
    REFUSED_SIZE,
    Desk,
    Growth,
    configured,
    growth,
    reporting,
)
from tests.support.services import ROOT, close_empty

ASGI: Final = (*PYTHON, str(SERVICES / "asgi_service.py"))
COMMANDS: Final = {
    "uvicorn, websockets-sansio": (ASGI, ("websockets-sansio",), ()),
    "uvicorn, websockets": (ASGI, ("websockets",), ()),
    "uvicorn, wsproto": (ASGI, ("wsproto",), ("wsproto",)),
    "hypercorn": (ASGI, ("hypercorn",), ("hypercorn",)),
    "websockets": ((*PYTHON, str(SERVICES / "websockets_service.py")), (), ()),
    "Node ws": ((*NODE, str(SERVICES / "ws_service.js")), (), ("node", "ws")),
}
"""How each service is started, and without what it is skipped."""

REPORTED: Final = {
    "the client closes with 1000": (
        "1000 client", "1000 client", "1000 client", "1006 unknown", "1000 client", "1000 client",
    ),
    "the client closes with 4000": (
        "4000 client", "4000 client", "4000 client", "1006 unknown", "4000 client", "4000 client",
    ),
    "the client's Close is empty": (
        "1005 unknown", "1005 unknown", "1005 unknown", "1006 unknown", "1005 client", "1005 client",
    ),
    "the client vanishes": (
        "1005 unknown", "1006 unknown", "1005 unknown", "1006 unknown", "1006 client", "1006 client",
    ),
    "the application closes with 4001": (
        "4001 server", "4001 server", "4001 server", "4001 server", "4001 server", "4001 server",
    ),
    "the application raises": (
        "1011 server", "1011 server", "1011 server", "1011 server", "1011 server", "the process dies",
    ),
    "the application returns": (
        "1006 server", "1006 server", "1006 server", "1006 server", "1000 server", "stays open",
    ),
    "a message over the limit": (
        "1009 unknown", "1006 unknown", "1009 unknown", "1006 unknown", "1009 server", "1009 server",
    ),
    "SIGTERM": (
        "1012 server", "1012 server", "1012 server", "1006 server", "1001 server", "1001 server",
    ),
}  # fmt: skip
"""The code and initiator that each service of COMMANDS reports of an ending."""


async def close_1000(client: ClientConnection) -> None:
    await client.close()


async def close_4000(client: ClientConnection) -> None:
    await client.close(4000, "bye")


async def vanish(client: ClientConnection) -> None:
    client.transport.abort()


def saying(text: str) -> Callable[[ClientConnection], Awaitable[None]]:
    """What a client does that sends one message and waits for the end."""

    async def say(client: ClientConnection) -> None:
        with pytest.raises(ConnectionClosed):
            await client.send(text)
            await client.recv()

    return say


ENDINGS: Final = {
    "the client closes with 1000": close_1000,
    "the client closes with 4000": close_4000,
    "the client's Close is empty": close_empty,
    "the client vanishes": vanish,
    "the application closes with 4001": saying("close 4001"),
    "the application raises": saying("raise"),
    "the application returns": saying("return"),
    "a message over the limit": saying("x" * 3000),
}


@dataclass(frozen=True)
class Running:
    """A service that reports its closes."""

    name: str
    program: Program
    port: int

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/"


def rows() -> Iterator[object]:
    """A row for each code in the table."""
    for ending, cells in REPORTED.items():
        for name, cell in zip(COMMANDS, cells, strict=True):
            if ending in ENDINGS and cell[0].isdecimal():
                needs = pytest.mark.needs(*COMMANDS[name][2])
                yield pytest.param(name, ending, cell, id=f"{name}: {ending}", marks=needs)


@contextlib.contextmanager
def started(name: str, desk: Desk) -> Iterator[Running]:
    command, options, _ = COMMANDS[name]
    with service(command, url(desk.address), *options) as (running, port):
        yield Running(name, running, port)


@pytest.fixture(scope="module")
def running(desk: Desk) -> Iterator[Callable[[str], Running]]:
    """Starts each service when it is first asked for."""
    with contextlib.ExitStack() as stack:
        services: dict[str, Running] = {}

        def get(name: str) -> Running:
            if name not in services:
                services[name] = stack.enter_context(started(name, desk))
            return services[name]

        yield get


@pytest.mark.parametrize(("name", "ending", "reported"), list(rows()))
@conversation
async def test_what_is_reported(
    running: Callable[[str], Running], desk: Desk, name: str, ending: str, reported: str
) -> None:
    """Opened once, and each ending once, after it happened, with its duration; the words are those of the table."""
    here = running(name)
    before = await desk.scrape()
    async with connect(here.url, max_size=None) as client:
        await client.send("hello")
        assert await client.recv() == "hello"
        await ENDINGS[ending](client)
        after = await counted(desk, before, events=2)
    code, initiator = reported.split()
    label = code if code != "4000" and code != "4001" else "4xxx"
    assert closes(before, after) == {(label, initiator): 1}
    assert growth(before, after, f"{DURATION}_count") == {(): 1}
    assert growth(before, after, HANDSHAKES, "outcome", "status") == {("accepted", "101"): 1}
    assert growth(before, after, ACTIVE) == {}


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.needs(*COMMANDS[name][2])) for name in COMMANDS])
@conversation
async def test_a_shutdown_is_reported_before_the_process_ends(desk: Desk, name: str) -> None:
    """The closes that the end of the service causes are delivered while it stops, all of them."""
    with started(name, desk) as here:
        before = await desk.scrape()
        clients = [await connect(here.url) for _ in range(5)]
        for client in clients:
            await client.send("hello")
            await client.recv()
        here.program.terminate()
        after = await counted(desk, before, events=10)
        for client in clients:
            await client.wait_closed()
        await asyncio.to_thread(here.program.end, 10)
    code, initiator = REPORTED["SIGTERM"][list(COMMANDS).index(name)].split()
    assert closes(before, after) == {(code, initiator): 5}


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.needs(*COMMANDS[name][2])) for name in COMMANDS])
@conversation
async def test_what_was_never_a_websocket_is_not_reported(
    running: Callable[[str], Running], desk: Desk, name: str
) -> None:
    """A handshake that was refused is none of the closes."""
    here = running(name)
    before = await desk.scrape()
    with pytest.raises(InvalidStatus):
        await connect(f"{here.url}refused")
    async with connect(here.url) as client:
        await client.close(1001)
    assert closes(before, await counted(desk, before, events=2)) in ({("1001", "client"): 1}, {("1006", "unknown"): 1})


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.needs(*COMMANDS[name][2])) for name in COMMANDS])
@conversation
async def test_a_client_that_comes_back_is_recognised(tmp_path: Path, name: str) -> None:
    """By its address; and its build by its user agent, which ws alone does not tell."""
    async with reporting(tmp_path, configured(tmp_path, {"default": {"client_builds": ["acme-app/*"]}})) as desk:
        with started(name, desk) as here:
            before = await desk.scrape()
            for _ in range(2):
                async with connect(here.url, user_agent_header="acme-app/1.0") as client:
                    await saying("close 4001")(client)
            after = await counted(desk, before, events=4)
    assert growth(before, after, RECONNECTS, "after") == {("other",): 1}
    assert sum(growth(before, after, BUILD_RECONNECTS, "build").values()) == (name != "Node ws")


@conversation
async def test_a_service_that_only_sends(running: Callable[[str], Running], desk: Desk) -> None:
    """Where nobody waits for messages the end shows when the next is sent: 1006, and nobody knows who."""
    here = running("uvicorn, websockets")
    before = await desk.scrape()
    async with connect(here.url) as client:
        await client.send("push")
        await client.recv()
    assert closes(before, await counted(desk, before, events=2)) == {("1006", "unknown"): 1}


@pytest.mark.parametrize(("compression", "told"), [(None, {("client_to_server",): 1600}), ("deflate", {})])
@conversation
async def test_websockets_tells_the_size_of_what_it_refused(
    running: Callable[[str], Running], desk: Desk, compression: str | None, told: Growth
) -> None:
    """Of two fragments the 600 bytes that came and the 1,000 that were not taken; of compressed ones nobody knows."""
    here = running("websockets")
    before = await desk.scrape()
    async with connect(here.url, compression=compression) as client:
        with pytest.raises(ConnectionClosed):
            await client.send(["x" * 600, "x" * 1000])
            await client.recv()
        after = await counted(desk, before, events=2)
    assert closes(before, after) == {("1009", "server"): 1}
    assert growth(before, after, f"{REFUSED_SIZE}_sum", "direction") == told


@pytest.mark.needs("node", "ws")
@pytest.mark.parametrize(("command", "reported"), [("empty", "1005 server"), ("terminate", "1006 server")])
@conversation
async def test_ways_to_end_that_only_ws_has(
    running: Callable[[str], Running], desk: Desk, command: str, reported: str
) -> None:
    """A bare close() is an empty Close by the server, terminate() none at all."""
    here = running("Node ws")
    before = await desk.scrape()
    async with connect(here.url) as client:
        await saying(command)(client)
        code, initiator = reported.split()
        assert closes(before, await counted(desk, before, events=2)) == {(code, initiator): 1}


def test_the_page_has_the_table() -> None:
    """docs/webhook.md says of each service and ending what these tests assert."""
    page = (ROOT / "docs/webhook.md").read_text()
    table = page.partition("| what happened | uvicorn")[2].partition("\n\n")[0]
    head, _, *lines = [
        [re.sub(r"[`*]", "", cell).strip() for cell in line.strip("| ").split("|")]
        for line in f"x| uvicorn{table}".split("\n")
    ]
    assert head[1:] == list(COMMANDS)
    assert {line[0]: tuple(line[1:]) for line in lines} == REPORTED
