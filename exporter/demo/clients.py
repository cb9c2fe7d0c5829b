"""The demo's clients. They differ in how they come back, and one of them in what it sends."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from typing import Final, NamedTuple, NoReturn

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from exporter.closecodes import NO_CLOSE
from exporter.config import Address
from exporter.demo.messages import message, text
from exporter.demo.scenario import Scenario
from exporter.demo.score import Board, Habit
from exporter.events import Side
from exporter.insight.backoff import Backoff

CLIENT: Final = "client"
"""The query parameter by which the exporter recognises a client: all of them have the address of this machine."""

_OPEN_TIMEOUT: Final = 5.0
_CLOSE_TIMEOUT: Final = 1.0
_PING_INTERVAL: Final = 10.0
_NEW_VISIT: Final = (1.0, 8.0)
_FEW: Final = 3  # messages before the one that is too big


class Ended(NamedTuple):
    """How a connection ended: seconds it had lived (None if it never opened), and whether its client left."""

    lived: float | None
    left: bool = False


Talk = Callable[[ClientConnection], Awaitable[int]]
"""What a client does while connected; returns the close code with which it leaves."""


@dataclass(slots=True)
class Client:
    """Connects, talks, and comes back `pause` seconds after its connection ended or could not be opened."""

    habit: Habit
    number: int
    tap: Address
    board: Board
    arrival: float
    talk: Talk
    pause: Callable[[Ended], float]
    cut_off: bool = False  # by a deploy, and has not tried to come back yet

    async def run(self) -> NoReturn:
        """Come and come back until cancelled, which closes the connection."""
        await asyncio.sleep(self.arrival)
        while True:
            await asyncio.sleep(self.pause(await self._attempt()))

    async def _attempt(self) -> Ended:
        score = self.board.scores[self.habit]
        name = self.habit.replace(" ", "-")
        if self.cut_off:
            self.cut_off = False
            self.board.returns(score, time.monotonic())
        try:
            async with connect(
                f"ws://{self.tap}/{name}?{CLIENT}={self.number}",
                proxy=None,  # whatever the environment names: this is loopback
                compression=None,
                user_agent_header=f"demo-{name}/1.0",
                open_timeout=_OPEN_TIMEOUT,
                close_timeout=_CLOSE_TIMEOUT,
                ping_interval=_PING_INTERVAL,
            ) as connection:
                score.connected += 1
                try:
                    return await self._session(connection)
                finally:
                    score.connected -= 1
        except (OSError, InvalidHandshake):
            score.refused += 1
            return Ended(None)

    async def _session(self, connection: ClientConnection) -> Ended:
        opened = time.monotonic()
        left = False
        try:
            code = await self.talk(connection)
            left = True
            await connection.close(code)
            await _read_on(connection)  # what was still under way, then the exception
        except ConnectionClosed as closed:
            self.cut_off = self.board.scores[self.habit].closed(*_first_close(closed))
            return Ended(time.monotonic() - opened, left)
        finally:
            await connection.close(1001)  # if it is still open: the demo ends, and so does its page


def crowd(tap: Address, scenario: Scenario, board: Board, chance: random.Random) -> Iterator[Client]:
    """Every client of the scenario, to be connected to `tap`."""
    numbers = count(1)

    def client(habit: Habit, talk: Talk, pause: Callable[[Ended], float]) -> Client:
        return Client(habit, next(numbers), tap, board, chance.uniform(0.0, scenario.arrival), talk, pause)

    for _ in range(scenario.well_behaved):
        yield client("well-behaved", _visit(scenario, chance), _remedy(scenario, chance))
    for _ in range(scenario.herd):
        yield client("herd", _stay(scenario, chance), lambda _: scenario.herd_delay)
    for _ in range(scenario.too_big):
        yield client("too big", _send_too_big(scenario, chance), lambda _: scenario.oversize_delay)


def _remedy(scenario: Scenario, chance: random.Random) -> Callable[[Ended], float]:
    """Pauses as they should be. Whoever left of their own accord opens the page anew later: another visit."""
    backoff = Backoff(chance.uniform, scenario.remedy)

    def pause(ended: Ended) -> float:
        if ended.left:
            backoff.failures = 0
            return chance.uniform(*_NEW_VISIT)
        return backoff.after(ended.lived)

    return pause


def _visit(scenario: Scenario, chance: random.Random) -> Talk:
    """Chat for some time, then leave: log out (1000) or close the tab (1001)."""

    async def talk(connection: ClientConnection) -> int:
        with suppress(TimeoutError):
            async with asyncio.timeout(chance.expovariate(1 / scenario.visit)):
                await _chat(connection, scenario, chance)
        return chance.choice((1000, 1001))

    return talk


def _stay(scenario: Scenario, chance: random.Random) -> Talk:
    """Chat until somebody else ends it."""
    return lambda connection: _chat(connection, scenario, chance)


def _send_too_big(scenario: Scenario, chance: random.Random) -> Talk:
    """After a few ordinary messages, send the one that was refused the last time."""

    async def talk(connection: ClientConnection) -> NoReturn:
        for _ in range(_FEW):
            await connection.send(message(chance, typical=300, most=scenario.message_limit))
        await _read(connection, 0.5)
        await connection.send(text(scenario.oversize))
        await _read_on(connection)

    return talk


async def _chat(connection: ClientConnection, scenario: Scenario, chance: random.Random) -> NoReturn:
    while True:
        await _read(connection, chance.expovariate(1 / scenario.message_every))
        await connection.send(message(chance, typical=300, most=scenario.message_limit))


async def _read(connection: ClientConnection, seconds: float) -> None:
    """Take what comes for this long. Raises ConnectionClosed."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await _read_on(connection)


async def _read_on(connection: ClientConnection) -> NoReturn:
    """Take what comes until the connection ends. Raises ConnectionClosed."""
    while True:
        await connection.recv()


def _first_close(closed: ConnectionClosed) -> tuple[int, Side]:
    """The code and sender of the first Close frame; 1006 by the server where there was none."""
    if closed.sent is not None and not closed.rcvd_then_sent:
        return closed.sent.code, "client"
    if closed.rcvd is not None:
        return closed.rcvd.code, "server"
    return int(NO_CLOSE), "server"
