"""The test client on websockets (asyncio)."""

import asyncio
import contextlib

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tests.peers.clients.commands import arguments, commands, say


async def listen(connection: ClientConnection) -> None:
    with contextlib.suppress(ConnectionClosed):
        async for message in connection:
            if isinstance(message, str):
                say(f"heard {message}")


async def obey(connection: ClientConnection) -> None:
    async for command, argument in commands():
        if command == "send":
            await connection.send(argument)
        elif command == "close" and argument:
            await connection.close(int(argument))
        elif command == "close":
            await connection.close()


async def main() -> None:
    chosen = arguments()
    options = {"max_size": chosen.limit, "ping_interval": chosen.ping, "ping_timeout": chosen.ping}
    async with connect(chosen.url, **options) as connection:
        say("open")
        async with asyncio.TaskGroup() as tasks:
            obeying = tasks.create_task(obey(connection))
            await listen(connection)
            obeying.cancel()


if __name__ == "__main__":
    asyncio.run(main())
