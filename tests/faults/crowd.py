"""Many clients of an exporter that runs as a process of its own, and what each of them saw of its life and its end."""

import asyncio
import contextlib
import itertools
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from exporter.config import Address
from tests.support.peers import Peer, close_frame, connected, message
from tests.support.processes import Exporter
from tests.support.scraping import Page
from tests.wire.support import BINARY, asks, frame

HEAD_END: Final = b"\r\n\r\n"

QUESTION: Final = message(b"still here?")
ANSWER: Final = frame(BINARY, b"still here?")
CLOSE_FRAME: Final = b"\x88"
"""How every Close frame of a service begins."""


def free_address() -> Address:
    """Where nobody listens yet."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return Address(*sock.getsockname())


async def listens(address: Address) -> bool:
    """Whether somebody listens there by now."""
    with contextlib.suppress(ConnectionRefusedError):
        (await connected(address)).close()
        return True
    return False


async def upgraded(address: Address, request: bytes = asks()[1]) -> Peer:
    """A client whose WebSocket is open."""
    client = await connected(address)
    try:
        await client.send(request)
        response = await head(client)
        assert response.startswith(b"HTTP/1.1 101 "), response
    except BaseException:
        client.close()
        raise
    return client


async def head(peer: Peer) -> bytes:
    """An HTTP head behind which nothing was sent yet."""
    said = b""
    while not said.endswith(HEAD_END):
        more = await asyncio.get_running_loop().sock_recv(peer.sock, 1 << 16)
        assert more, f"the connection ended behind {said!r}"
        said += more
    return said


async def crowd(stack: contextlib.ExitStack, address: Address, size: int) -> list[Peer]:
    """So many clients, which close with the stack."""
    return [stack.enter_context(await upgraded(address)) for _ in range(size)]


@dataclass(frozen=True)
class Life:
    """When each of a client's messages came back, when its connection ended (loop time), and what came before that."""

    echoes: tuple[float, ...]
    end: float
    last_words: bytes

    @property
    def longest_silence(self) -> float:
        """Seconds between two echoes, or between the last one and the end, at most."""
        moments = (*self.echoes, self.end)
        return max(later - earlier for earlier, later in itertools.pairwise(moments))


async def live(client: Peer, pause: float) -> Life:
    """Talk to an echo service, with a `pause` in seconds between messages, until it ends the connection."""
    loop = asyncio.get_running_loop()
    echoes: list[float] = []
    while (said := await _answer(client)) == ANSWER:
        echoes.append(loop.time())
        if await _stirs(client, pause):
            said = await client.read(1)
            break
    said = await _last_words(client, said)
    client.close()
    return Life(tuple(echoes), loop.time(), said)


async def _stirs(client: Peer, within: float) -> bool:
    """Whether anything comes within so many seconds; to give up reading it might lose it."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(client.sock, ready.set)
    try:
        async with asyncio.timeout(within):
            return await ready.wait()
    except TimeoutError:
        return False
    finally:
        loop.remove_reader(client.sock)


async def _answer(client: Peer) -> bytes:
    """What comes back for a question: its echo, or the beginning of the last words."""
    try:
        await client.send(QUESTION)
        said = await client.read(1)
        return said if said == CLOSE_FRAME else said + await client.read(len(ANSWER) - 1)
    except ConnectionError:
        return b""


async def _last_words(client: Peer, said: bytes) -> bytes:
    """All that the service says before the connection ends; a Close frame is answered."""
    if said.startswith(CLOSE_FRAME):
        await client.send(close_frame(1001))
    return said + (await client.rest() if said else b"")


async def scraped_to_the_end(exporter: Exporter, pages: list[Page], pause: float = 0.2) -> None:
    """Scrape the exporter regularly, into `pages`, until it does not listen any more."""
    with contextlib.suppress(ConnectionRefusedError):
        while True:
            pages.append(await exporter.scrape())
            await asyncio.sleep(pause)


def busiest(moments: Iterable[float], window: float) -> int:
    """The most of `moments` within any `window`, in seconds."""
    ordered = sorted(moments)
    return max(sum(start <= moment < start + window for moment in ordered) for start in ordered)
