"""A crowd of real `websockets` clients behind a real tap, each with a key of its own, that come back as they please."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from structlog.testing import capture_logs
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

from exporter.config import Target
from exporter.config.values import KeyRule
from exporter.insight.backoff import Backoff, Policy
from exporter.insight.insight import Rules
from exporter.insight.mass_close import MassCloseRules
from tests.support.loops import eventually
from tests.support.scraping import Page
from tests.support.watching import Watched

KEY: Final = "X-Client"
CHAT: Final = Target("chat", client_key=KeyRule("header", KEY), client_builds=("acme-app/*",))

RULES: Final = Rules(mass_close=MassCloseRules(settled=1.0, longest=8.0))
"""As they are, except that nobody waits for ten minutes, nor ten seconds."""

Delays = Callable[[], Callable[[float | None], float]]
"""Makes what tells one client how long to wait, from how long its connection had lived (None: none came about)."""


def at_once() -> Callable[[float | None], float]:
    """No waiting to speak of: what the alert about herds is for."""
    return lambda lived: 0.05


def timer(seconds: float) -> Delays:
    """A fixed interval."""
    return lambda: lambda lived: seconds


def remedy() -> Callable[[float | None], float]:
    """What the docs advise, in a tenth of the time: a random first delay, then full jitter under a doubling cap."""
    return Backoff(random.uniform, Policy(first=4.0, floor=0.1, base=0.5, cap=2.0, stable=1.0)).after


@dataclass
class Crowd:
    """Clients that hold a connection each, and come back when it ends."""

    watched: Watched
    delays: Delays
    user_agent: str = "acme-app/3.1"
    connections: dict[int, ClientConnection] = field(default_factory=dict)

    async def live(self, number: int) -> None:
        """One client's life."""
        wait = self.delays()
        loop = asyncio.get_running_loop()
        while True:
            opened = None
            with contextlib.suppress(OSError, WebSocketException, EOFError):
                async with connect(
                    self.watched.url,
                    additional_headers={KEY: str(number)},
                    user_agent_header=self.user_agent,
                    ping_interval=None,
                    compression=None,
                    open_timeout=20,
                ) as connection:
                    opened = loop.time()
                    self.connections[number] = connection
                    await connection.wait_closed()
            self.connections.pop(number, None)
            await asyncio.sleep(wait(None if opened is None else loop.time() - opened))

    async def all_connected(self, clients: int) -> None:
        await eventually(lambda: len(self.connections) == clients, 20.0)


@contextlib.asynccontextmanager
async def crowd(
    watched: Watched, clients: int, delays: Delays, user_agent: str = "acme-app/3.1"
) -> AsyncIterator[Crowd]:
    """So many clients, all of them connected."""
    people = Crowd(watched, delays, user_agent)
    tasks: list[asyncio.Task[None]] = []
    async with asyncio.TaskGroup() as group:
        try:
            for number in range(clients):
                tasks.append(group.create_task(people.live(number)))
                if number % 20 == 19:  # not all at once: this is not the storm yet
                    await asyncio.sleep(0.02)
            await people.all_connected(clients)
            yield people
        finally:
            for task in tasks:
                task.cancel()


@dataclass
class Story:
    """What was logged of mass closes."""

    entries: list[dict[str, object]]

    @property
    def incidents(self) -> list[dict[str, object]]:
        return [entry for entry in self.entries if entry["event"] == "mass close"]

    async def told(self, within: float = 15.0) -> dict[str, object]:
        """The one incident, as soon as it is over."""
        await eventually(lambda: self.incidents, within)
        [incident] = self.incidents
        return incident


@contextlib.contextmanager
def telling() -> Iterator[Story]:
    """Hear the log."""
    with capture_logs() as entries:
        yield Story(entries)  # type: ignore[arg-type]


def returns(page: Page) -> float:
    """Clients that were accepted again, whenever."""
    return page.value("websocket_mass_close_returns_total")
