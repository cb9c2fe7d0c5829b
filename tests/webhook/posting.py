"""`HOST:PORT SENDERS`: services that report batches of new closes there without a pause, until killed."""

import asyncio
import itertools
import os
import sys

import uvloop

from exporter.config import Address
from tests.support.reporting import NDJSON, post
from tests.web.support import connected

EVENTS = 200
"""In each request."""


async def report(address: Address, name: str) -> None:
    async with connected(address) as client:
        for number in itertools.count():
            lines = (
                b'{"code":%d,"id":"%b-%d-%d","duration":2,"initiator":"client"}'
                % (1000 + index % 4, name.encode(), number, index)
                for index in range(EVENTS)
            )
            await client.send(post(b"\n".join(lines), kind=NDJSON))
            answer = await client.answer()
            assert answer.status in (200, 202), answer


async def main() -> None:
    host, _, port = sys.argv[1].rpartition(":")
    async with asyncio.TaskGroup() as tasks:
        for number in range(int(sys.argv[2])):
            tasks.create_task(report(Address(host, int(port)), f"{os.getpid()}-{number}"))
        print("posting", flush=True)


if __name__ == "__main__":
    uvloop.run(main())
