"""The code in the runbooks, run as it stands there: against real `websockets` servers, and in Node with `ws`."""

import asyncio
import contextlib
import json
import re
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Final

import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from tests.alerts_support import ALERTS
from tests.conftest import NODE_PACKAGES
from tests.support.loops import conversation, eventually
from tests.support.services import service

STORM: Final = "WebSocketReconnectStorm"
TOO_BIG: Final = "WebSocketMessageTooBigSpike"

CLIENTS: Final = 40
FAST: Final = {"first": 1.0, "floor": 0.01, "base": 0.1, "cap": 0.4, "stable": 0.5}
"""Seconds; the runbook's own are ten times as long and more."""

in_node = pytest.mark.needs("node", "ws")


def snippets(page: str, language: str) -> str:
    """All code in one language on a runbook's page."""
    blocks = re.findall(rf"```{language}\n(.*?)```", (ALERTS / f"runbooks/{page}.md").read_text(), re.DOTALL)
    assert blocks
    return "\n".join(blocks)


def python(page: str) -> dict[str, Any]:
    """What the Python on the page defines."""
    names: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", (ALERTS / f"runbooks/{page}.md").read_text(), re.DOTALL):
        exec(compile(block, f"{page}.md", "exec"), names)
    return names


@contextlib.asynccontextmanager
async def node(folder: Path, page: str, program: str, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Node running `program` behind the page's JavaScript, with `WS` the library; ends with the block."""
    library = json.dumps(str(NODE_PACKAGES / "ws/wrapper.mjs"))
    file = folder / "snippet.mjs"
    file.write_text(f"import * as WS from {library};\n{snippets(page, 'js')}\n{program}")
    process = await asyncio.create_subprocess_exec(
        "node", file, *arguments, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def said(process: asyncio.subprocess.Process) -> str:
    """The next line that it printed."""
    assert process.stdout is not None
    async with asyncio.timeout(15):
        return (await process.stdout.readline()).decode().strip()


class Door:
    """A service that notes when connections come, and ends each as it is told."""

    def __init__(self, lives: Callable[[int], float]) -> None:
        self.lives = lives
        self.came: list[float] = []

    async def __call__(self, connection: ServerConnection) -> None:
        self.came.append(time.monotonic())
        with contextlib.suppress(ConnectionClosed, TimeoutError):
            await asyncio.wait_for(connection.wait_closed(), self.lives(len(self.came)))
        await connection.close(1001)

    def waits(self) -> list[float]:
        """Seconds between one connection and the next."""
        return [after - before for before, after in zip(self.came, self.came[1:], strict=False)]


def busiest(came: list[float], seconds: float) -> int:
    """The most that came within so many seconds."""
    return max(sum(begin <= at < begin + seconds for at in came) for begin in came)


@contextlib.asynccontextmanager
async def python_clients(url: str, folder: Path, count: int = 1) -> AsyncIterator[None]:
    """Clients with the runbook's Python, in this process."""
    stay_connected = python(STORM)["stay_connected"]

    async def use(websocket: Any) -> None:
        await websocket.wait_closed()

    async with asyncio.TaskGroup() as tasks:
        clients = [tasks.create_task(stay_connected(url, use, **FAST)) for _ in range(count)]
        yield
        for client in clients:
            client.cancel()


@contextlib.asynccontextmanager
async def node_clients(url: str, folder: Path, count: int = 1) -> AsyncIterator[None]:
    """Clients with the runbook's JavaScript, in Node."""
    options = {name: 1000 * seconds for name, seconds in FAST.items()}
    program = (
        f"const options = {{ ...{json.dumps(options)}, Socket: WS.WebSocket }};\n"
        f"for (let n = 0; n < {count}; n++) stayConnected(process.argv[2], () => {{}}, options);\n"
    )
    async with node(folder, STORM, program, url):
        yield


both = pytest.mark.parametrize(
    "clients", [pytest.param(python_clients, id="Python"), pytest.param(node_clients, id="Node", marks=in_node)]
)


@both
@conversation
async def test_clients_that_were_cut_together_do_not_return_together(clients: Any, tmp_path: Path) -> None:
    """After a shutdown their first delays are spread: no fifth of that time sees half of them."""
    door = Door(lambda number: 60.0)
    async with service(door) as (server, address), clients(f"ws://{address}", tmp_path, CLIENTS):
        await eventually(lambda: len(door.came) == CLIENTS, within=15)
        for connection in server.connections:
            connection.transport.abort()
        await eventually(lambda: len(door.came) == 2 * CLIENTS, within=15)
    returned = door.came[CLIENTS:]
    assert busiest(returned, FAST["first"] / 5) < CLIENTS / 2
    assert max(returned) - min(returned) > FAST["first"] / 3


@both
@conversation
async def test_a_server_that_accepts_and_drops_is_left_alone(clients: Any, tmp_path: Path) -> None:
    """Connections that did not last do not reset the backoff: delays grow up to the cap, and no further."""
    door = Door(lambda number: 0.0)
    async with service(door) as (_, address), clients(f"ws://{address}", tmp_path, 20):
        begin = time.monotonic()
        await eventually(lambda: len(door.came) >= 200, within=25)
        took = time.monotonic() - begin
    # Without backoff 20 clients are there 200 times in a blink; at the cap each comes 5 times a second on average.
    assert took > 0.4


@both
@conversation
async def test_a_connection_that_lasted_resets_the_backoff(clients: Any, tmp_path: Path) -> None:
    """After a stable time the next delay is a first one again, which is the only one above the cap."""
    door = Door(lambda number: 0.0 if number % 6 else 0.6)
    async with service(door) as (_, address), clients(f"ws://{address}", tmp_path, 1):
        await eventually(lambda: len(door.came) >= 37, within=28)
    after_stable = [wait - 0.6 for wait in door.waits()[5::6]]
    others = [wait for number, wait in enumerate(door.waits()[1:], start=2) if number % 6]
    assert max(after_stable) > FAST["cap"]
    assert max(others) < max(after_stable)


@conversation
async def test_the_python_drain_closes_in_batches() -> None:
    """Nobody new gets in, a share goes each second with 1001, and it ends when all are gone."""
    drain = python(STORM)["drain"]
    door = Door(lambda number: 60.0)
    async with service(door) as (server, address):
        clients = [await connect(f"ws://{address}") for _ in range(9)]
        ended = await drained(clients, drain(server, seconds=3))
        with pytest.raises(OSError, match=r"refused|failed|Multiple"):
            await connect(f"ws://{address}")
    assert [round(at) for at in sorted(ended)] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert {client.close_code for client in clients} == {1001}


@in_node
@conversation
async def test_the_node_drain_closes_in_batches(tmp_path: Path) -> None:
    """The same with `ws`."""
    program = (
        'const server = new WS.WebSocketServer({ port: 0, host: "127.0.0.1" });\n'
        'server.on("listening", () => console.log(server.address().port));\n'
        'process.stdin.once("data", () => drain(server, 3));\n'
    )
    async with node(tmp_path, STORM, program) as process:
        url = f"ws://127.0.0.1:{await said(process)}"
        clients = [await connect(url) for _ in range(9)]
        assert process.stdin is not None
        process.stdin.write(b"drain\n")
        ended = await drained(clients)
        with pytest.raises(OSError, match=r"refused|failed|Multiple"):
            await connect(url)
    assert [round(at) for at in sorted(ended)] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert {client.close_code for client in clients} == {1001}


async def drained(clients: list[Any], *draining: Any) -> list[float]:
    """Seconds after which each client was closed."""
    begin = time.monotonic()

    async def ended(client: Any) -> float:
        await client.wait_closed()
        return time.monotonic() - begin

    async with asyncio.timeout(20):
        return (await asyncio.gather(*(ended(client) for client in clients), *draining))[: len(clients)]


PAYLOADS: Final = (b"", b"x", bytes(range(256)) * 400, b"y" * (1024 - 12), b"z" * (1024 - 11))


@contextlib.asynccontextmanager
async def small_service(handler: Callable[[ServerConnection], Any]) -> AsyncIterator[tuple[Server, str]]:
    """A service that refuses messages over 1 KiB."""
    async with serve(handler, "127.0.0.1", 0, max_size=1024) as server:
        yield server, f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}"


@conversation
async def test_chunks_pass_where_the_whole_would_not() -> None:
    """Each payload arrives as it was, of whatever size; sent whole, one over the limit is refused with 1009."""
    names = python(TOO_BIG)
    received: list[bytes] = []

    async def join(connection: ServerConnection) -> None:
        joiner = names["Joiner"](most=1 << 20)
        with contextlib.suppress(ConnectionClosed):
            async for message in connection:
                payload = joiner.add(message)
                if payload is not None:
                    received.append(payload)

    async with small_service(join) as (_, url):
        async with connect(url) as client:
            for payload in PAYLOADS:
                await names["send_large"](client, payload, limit=1024)
        await eventually(lambda: len(received) == len(PAYLOADS))
        assert received == list(PAYLOADS)
        async with connect(url) as client:
            await client.send(PAYLOADS[2])
            await client.wait_closed()
        assert client.close_code == 1009


def test_what_is_no_next_chunk_is_refused() -> None:
    """A receiver holds no more than it allows, and joins nothing that does not belong together."""
    names = python(TOO_BIG)
    one, other = (list(names["chunks"](b"x" * 100, 62)) for _ in range(2))
    joiner = names["Joiner"](most=99)
    assert joiner.add(one[0]) is None
    with pytest.raises(ValueError, match="not the next chunk, or over the limit"):
        joiner.add(one[1])
    joiner = names["Joiner"](most=100)
    assert joiner.add(one[0]) is None
    with pytest.raises(ValueError, match="not the next chunk, or over the limit"):
        joiner.add(other[1])
    with pytest.raises(ValueError, match="not the next chunk, or over the limit"):
        names["Joiner"](most=100).add(one[1])


@in_node
@conversation
async def test_chunks_of_both_languages_are_the_same(tmp_path: Path) -> None:
    """Node joins what Python sent and sends it back in chunks of its own, which Python joins."""
    names = python(TOO_BIG)
    program = (
        'const server = new WS.WebSocketServer({ port: 0, host: "127.0.0.1", maxPayload: 1024 });\n'
        'server.on("listening", () => console.log(server.address().port));\n'
        'server.on("connection", (socket) => {\n'
        "  const joiner = new Joiner(1 << 20);\n"
        '  socket.on("message", (data) => {\n'
        "    const payload = joiner.add(data);\n"
        "    if (payload !== null) for (const chunk of chunks(payload, 1024)) socket.send(chunk);\n"
        "  });\n"
        "});\n"
    )
    async with (
        node(tmp_path, TOO_BIG, program) as process,
        connect(f"ws://127.0.0.1:{await said(process)}", max_size=1024) as client,
    ):
        for payload in PAYLOADS:
            await names["send_large"](client, payload, limit=1024)
            joiner, joined = names["Joiner"](most=1 << 20), None
            while joined is None:
                joined = joiner.add(await client.recv())
            assert joined == payload
