"""The test client on aiohttp."""

import asyncio

import aiohttp

from tests.peers.clients.commands import arguments, commands, say


async def listen(connection: aiohttp.ClientWebSocketResponse) -> None:
    async for message in connection:
        if message.type == aiohttp.WSMsgType.TEXT:
            say(f"heard {message.data}")


async def obey(connection: aiohttp.ClientWebSocketResponse, listening: asyncio.Task[None]) -> None:
    async for command, argument in commands():
        if command == "send":
            await connection.send_str(argument)
        elif command == "close":
            # A close while another task receives is always sent with 1000.
            listening.cancel()
            await (connection.close(code=int(argument)) if argument else connection.close())
            return


async def main() -> None:
    chosen = arguments()
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(chosen.url, max_msg_size=chosen.limit, heartbeat=chosen.ping) as connection,
    ):
        say("open")
        async with asyncio.TaskGroup() as tasks:
            listening = tasks.create_task(listen(connection))
            obeying = tasks.create_task(obey(connection, listening))
            await asyncio.wait((listening,))
            if not listening.cancelled():
                obeying.cancel()


if __name__ == "__main__":
    asyncio.run(main())
