"""What a test asks of every test client, in lines on its standard input: the conversation that all of them speak.

`send TEXT` sends a message, `close` closes as the library does when no code is given, `close CODE` with that code.
A client says `open` once it is connected and `heard TEXT` for each text message.
"""

import argparse
import asyncio
import sys
from collections.abc import AsyncIterator


def arguments() -> argparse.Namespace:
    """`url`, `limit` (bytes that a message may have) and `ping` (seconds between Pings, None for none)."""
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("--limit", type=int, default=1 << 30)
    parser.add_argument("--ping", type=float)
    return parser.parse_args()


def say(line: str) -> None:
    print(line, flush=True)


def parsed(line: str) -> tuple[str, str]:
    """The command of a line and what follows it."""
    command, _, argument = line.rstrip("\n").partition(" ")
    return command, argument


async def commands() -> AsyncIterator[tuple[str, str]]:
    """The commands, as they come."""
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        yield parsed(line.decode())
