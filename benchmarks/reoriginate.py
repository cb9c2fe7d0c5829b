"""A relay that terminates each WebSocket and opens another, message by message, with the `websockets` library.

It is the usual way to write a WebSocket proxy in Python, and what a tap on top of a library would be. On uvloop, as
the tap is; the library's defaults, except that it sends no pings of its own and takes messages of any size.
Usage: python -m benchmarks.reoriginate UPSTREAM_PORT. Prints its port, then serves.
"""

import asyncio
import sys

import uvloop
from websockets.asyncio.client import connect
from websockets.asyncio.connection import Connection
from websockets.asyncio.server import ServerConnection, serve


async def pump(source: Connection, sink: Connection) -> None:
    async for message in source:
        await sink.send(message)
    await sink.close()


async def main(upstream_port: int) -> None:
    async def relay(client: ServerConnection) -> None:
        assert client.request is not None
        uri = f"ws://127.0.0.1:{upstream_port}{client.request.path}"
        async with connect(uri, max_size=None, ping_interval=None) as server, asyncio.TaskGroup() as tasks:
            tasks.create_task(pump(client, server))
            tasks.create_task(pump(server, client))

    async with serve(relay, "127.0.0.1", 0, max_size=None, ping_interval=None, backlog=4096) as listener:
        print(next(iter(listener.sockets)).getsockname()[1], flush=True)
        await listener.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
