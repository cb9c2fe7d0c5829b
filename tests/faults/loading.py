"""`HOST:PORT`: clients of an echo service there that talk without a pause, come, and go, until killed."""

import asyncio
import contextlib
import itertools
import sys

import uvloop

from exporter.config import Address
from tests.faults.crowd import ANSWER, QUESTION, upgraded
from tests.support.peers import Peer, close_frame

TALKERS = 20
VISITORS = 4
TALK = 8
"""Messages sent at once."""


async def talk(client: Peer) -> None:
    while True:
        await client.send(QUESTION * TALK)
        assert await client.read(TALK * len(ANSWER)) == ANSWER * TALK


async def come_and_go(address: Address) -> None:
    for number in itertools.count():
        with contextlib.suppress(ConnectionError), await upgraded(address) as client:
            if number % 3 == 0:
                client.reset()
            else:
                await client.send(close_frame(1000 if number % 3 == 1 else 4000))
                await client.rest()


async def main() -> None:
    host, _, port = sys.argv[1].rpartition(":")
    address = Address(host, int(port))
    async with asyncio.TaskGroup() as tasks:
        for _ in range(TALKERS):
            tasks.create_task(talk(await upgraded(address)))
        for _ in range(VISITORS):
            tasks.create_task(come_and_go(address))
        print("loading", flush=True)


if __name__ == "__main__":
    uvloop.run(main())
