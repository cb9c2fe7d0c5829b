"""websockets as the client under test of an Autobahn fuzzing server: it echoes, case by case, then ends the run."""

import asyncio
import contextlib

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidMessage

from tests.peers.clients.commands import arguments

AGENT = "agent=websockets"
AT_ONCE = 8


async def run_case(url: str, turns: asyncio.Semaphore) -> None:
    async with turns:
        with contextlib.suppress(ConnectionClosed, InvalidMessage):
            await echo(url)


async def echo(url: str) -> None:
    async with connect(url, max_size=None, ping_interval=None) as connection:
        async for message in connection:
            await connection.send(message)


async def main() -> None:
    url = arguments().url
    async with connect(f"{url}/getCaseCount") as connection:
        count = int(await connection.recv())
    turns = asyncio.Semaphore(AT_ONCE)
    async with asyncio.TaskGroup() as tasks:
        for case in range(1, count + 1):
            tasks.create_task(run_case(f"{url}/runCase?case={case}&{AGENT}", turns))
    async with connect(f"{url}/updateReports?{AGENT}") as connection:
        await connection.wait_closed()


if __name__ == "__main__":
    asyncio.run(main())
