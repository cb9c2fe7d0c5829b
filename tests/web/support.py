"""A real listener in the test's own loop, and a client that says exactly which bytes it sends."""

import asyncio
import contextlib
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import uvloop
from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily
from starlette.types import ASGIApp

from exporter.config import Address
from exporter.status import Status
from exporter.web.app import Hooks, build
from exporter.web.errors import ErrorAnswers
from exporter.web.listener import Listener, listen
from exporter.web.protocol import Limits, Prompt

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
LOOPBACK = Address("127.0.0.1", 0)


def run_in(loop: str, coroutine: Awaitable[None], timeout: float = 30.0) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(timeout):
            await coroutine

    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(bounded())


def one_gauge() -> Iterable[Metric]:
    return [GaugeMetricFamily("up_and_running", "Whether the test runs.", value=1)]


@dataclass
class Site:
    """A listener that is being served, and what it told its owner."""

    listener: Listener
    errors: Counter[str]
    scrapes: list[tuple[str, float]] = field(default_factory=list)

    @property
    def address(self) -> Address:
        return self.listener.address


@contextlib.asynccontextmanager
async def serving(
    app: ASGIApp | None = None,
    *,
    collect: Callable[[], Iterable[Metric]] = one_gauge,
    ready: Callable[[], bool] = lambda: True,
    reload: Callable[[], Awaitable[bool]] | None = None,
    clock: Callable[[], float] = time.monotonic,
    telemetry_path: str = "/metrics",
    limits: Limits | None = None,
    address: Address = LOOPBACK,
    prompt: Prompt | None = None,
    status: Callable[[], Status] | None = None,
    status_local_only: bool = True,
) -> AsyncIterator[Site]:
    errors: Counter[str] = Counter()
    scrapes: list[tuple[str, float]] = []
    answers = ErrorAnswers(lambda token: errors.update([token]))
    hooks = Hooks(
        collect, lambda client, at: scrapes.append((client, at)), clock, ready, reload, status, status_local_only
    )
    listener = await listen(app or build(hooks, answers, telemetry_path), address, answers, limits, prompt=prompt)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(listener.run())
        try:
            yield Site(listener, errors, scrapes)
        finally:
            listener.stop()


@dataclass(frozen=True)
class Answer:
    status: int
    fields: dict[str, str]
    body: bytes

    @property
    def error(self) -> dict[str, Any]:
        return dict(json.loads(self.body))


class Client:
    """One connection, which sends what it is told and reads one answer at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, *parts: bytes) -> None:
        for part in parts:
            self.writer.write(part)
            await self.writer.drain()

    async def answer(self, *, head_only: bool = False) -> Answer:
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        line, *rest = head.removesuffix("\r\n\r\n").split("\r\n")
        pairs = [field.split(": ", 1) for field in rest]
        fields = {name.lower(): value for name, value in pairs}
        assert len(fields) == len(pairs), f"a field is there twice: {pairs}"
        length = 0 if head_only else int(fields.get("content-length", 0))
        return Answer(int(line.split(" ")[1]), fields, await self.reader.readexactly(length))

    async def ended(self) -> bool:
        """Whether the server has closed, or does so soon, without another byte."""
        async with asyncio.timeout(5):
            return await self.reader.read(1) == b""

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()


@contextlib.asynccontextmanager
async def connected(address: Address) -> AsyncIterator[Client]:
    client = Client(*await asyncio.open_connection(address.host, address.port))
    try:
        yield client
    finally:
        await client.close()


def request(
    path: str = "/-/healthy", method: str = "GET", *fields: str, version: str = "1.1", host: str = "exporter.test"
) -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/{version}", f"Host: {host}", *fields, "", ""]).encode()


async def fetch(site: Site, path: str, method: str = "GET", *fields: str, host: str = "exporter.test") -> Answer:
    async with connected(site.address) as client:
        await client.send(request(path, method, *fields, host=host))
        return await client.answer(head_only=method == "HEAD")


async def eventually(condition: Callable[[], bool], within: float = 5.0) -> None:
    async with asyncio.timeout(within):
        while not condition():
            await asyncio.sleep(0.005)
