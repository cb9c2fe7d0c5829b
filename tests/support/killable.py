"""`serve`: an echo service on a free port, which it prints. `connect URL`: a client that stays. Both until killed."""

import asyncio
import sys

from websockets.asyncio.client import connect

from tests.support.services import service


async def serve_for_ever() -> None:
    async with service() as (_, address):
        print(address.port, flush=True)
        await asyncio.Future()


async def stay_connected(url: str) -> None:
    async with connect(url) as connection:
        await connection.send("hello")
        print(await connection.recv(), flush=True)
        await asyncio.Future()


if __name__ == "__main__":
    asyncio.run(serve_for_ever() if sys.argv[1] == "serve" else stay_connected(sys.argv[2]))
