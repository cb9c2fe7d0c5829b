"""Services that go away, the crowd behind the tap, and what is logged of it."""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any, Final

from structlog.testing import capture_logs

from exporter.config import KeyRule, Target
from exporter.insight.incident import MassCloseRules
from exporter.insight.insight import Rules
from tests.peers.peers import SERVERS
from tests.storms.clients import KEY
from tests.support.loops import eventually
from tests.support.services import ROOT
from tests.support.watching import Watched

CHAT: Final = Target("chat", client_key=KeyRule("header", KEY), client_builds=("acme-app/*",))

RULES: Final = Rules(mass_close=MassCloseRules(settled=1.0, longest=8.0))
"""As they are, except that nobody waits for ten minutes, nor ten seconds."""


@contextlib.asynccontextmanager
async def program(*command: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process of its own, with pipes to it."""
    process = await asyncio.create_subprocess_exec(
        *command, cwd=ROOT, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


@contextlib.asynccontextmanager
async def server(name: str, *options: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, int]]:
    """A server of the peers, and its port."""
    async with program(*SERVERS[name].command, *options) as process:
        assert process.stdout is not None
        line = await process.stdout.readline()
        yield process, int(line.split()[-1])


class Crowd:
    """The clients' process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def connected(self, number: int, within: float = 20.0) -> None:
        """Wait until so many are connected, all at the same time."""
        assert self._process.stdout is not None
        async with asyncio.timeout(within):
            while (await self._process.stdout.readline()).split() != [b"connected", str(number).encode()]:
                pass

    def leave(self) -> None:
        """Have everybody close the tab."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"leave\n")


@contextlib.asynccontextmanager
async def crowd(watched: Watched, clients: int, habit: str, user_agent: str = "acme-app/3.1") -> AsyncIterator[Crowd]:
    """So many clients, all of them connected."""
    command = (sys.executable, "-m", "tests.storms.clients", watched.url, str(clients), habit, user_agent)
    async with program(*command) as process:
        people = Crowd(process)
        await people.connected(clients)
        yield people


@dataclass
class Story:
    """What was logged."""

    entries: list[Any]

    def lines(self, event: str) -> list[dict[str, Any]]:
        """The entries of one kind."""
        return [entry for entry in self.entries if entry["event"] == event]

    @property
    def mass_closes(self) -> list[dict[str, Any]]:
        return self.lines("mass close")

    async def mass_close(self, within: float = 15.0) -> dict[str, Any]:
        """The one mass close, as soon as it is over."""
        await eventually(lambda: self.mass_closes, within)
        [over] = self.mass_closes
        return over


@contextlib.contextmanager
def telling() -> Iterator[Story]:
    """Hear the log."""
    with capture_logs() as entries:
        yield Story(entries)
