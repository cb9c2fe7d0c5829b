"""A crowd of real `websockets` clients in a process of its own, so that their rhythm is theirs.

`clients URL NUMBER HABIT USER_AGENT`: each holds a connection, with a key of its own, and comes back as is its habit.
Prints `connected N` as that changes. A line on standard input has everybody leave with 1001.
"""

import asyncio
import contextlib
import random
import sys
from collections.abc import Callable
from typing import Final

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

from exporter.insight.backoff import Backoff, Policy

KEY: Final = "X-Client"

Wait = Callable[[float | None], float]
"""How long to wait, from how long the connection had lived; None if none came about."""


def habit(name: str) -> Wait:
    """`at-once`, a number of seconds for a fixed timer, or `remedy`: what the docs advise, in less time."""
    if name == "remedy":
        return Backoff(random.uniform, Policy(first=4.0, floor=0.1, base=0.5, cap=2.0, stable=1.0)).after
    seconds = 0.05 if name == "at-once" else float(name)
    return lambda lived: seconds


class Crowd:
    """Everybody."""

    def __init__(self, url: str, user_agent: str) -> None:
        self._url = url
        self._user_agent = user_agent
        self.connections: dict[int, ClientConnection] = {}
        self.left = False

    async def live(self, number: int, wait: Wait) -> None:
        """One client's life."""
        loop = asyncio.get_running_loop()
        while not self.left:
            opened = None
            with contextlib.suppress(OSError, WebSocketException, EOFError):
                async with connect(
                    self._url,
                    additional_headers={KEY: str(number)},
                    user_agent_header=self._user_agent,
                    ping_interval=None,
                    compression=None,
                    open_timeout=20,
                ) as connection:
                    opened = loop.time()
                    self.connections[number] = connection
                    await connection.wait_closed()
            self.connections.pop(number, None)
            await asyncio.sleep(wait(None if opened is None else loop.time() - opened))

    async def tell(self) -> None:
        """Print how many are connected."""
        told = -1
        while True:
            if len(self.connections) != told:
                told = len(self.connections)
                print(f"connected {told}", flush=True)
            await asyncio.sleep(0.02)

    async def leave(self) -> None:
        """Everybody closes the tab, once told so."""
        await asyncio.to_thread(sys.stdin.readline)
        self.left = True
        await asyncio.gather(*(connection.close(1001) for connection in list(self.connections.values())))


async def main(url: str, number: str, name: str, user_agent: str) -> None:
    crowd = Crowd(url, user_agent)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(crowd.tell())
        tasks.create_task(crowd.leave())
        for client in range(int(number)):
            tasks.create_task(crowd.live(client, habit(name)))
            if client % 20 == 19:  # not all at once: this is not the storm yet
                await asyncio.sleep(0.02)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
