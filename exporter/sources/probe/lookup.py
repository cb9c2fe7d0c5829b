"""Names become addresses, in a few threads of their own.

A name server that does not answer holds a thread for as long as its resolver likes. The event loop's own threads, which
the tap and the web listeners need, must not be those.
"""

import asyncio
import errno
import ipaddress
import socket
import threading
from collections import deque
from contextlib import suppress
from typing import Final

AT_ONCE: Final = 4
"""Names looked up at a time, by all probes together."""


class Lookups:
    """Resolves names; those who ask for the same name at the same time share one lookup."""

    def __init__(self) -> None:
        self._found: dict[str, asyncio.Future[list[str] | OSError]] = {}
        self._waiting: deque[str] = deque()
        self._running = 0

    async def addresses(self, host: str) -> list[str]:
        """The addresses of `host`, which may be one itself, in the order in which to try them. Raises OSError."""
        if _is_address(host):
            return [host]
        found = self._found.get(host)
        if found is None:
            loop = asyncio.get_running_loop()
            found = self._found[host] = loop.create_future()
            self._waiting.append(host)
            self._start(loop)
        answer = await asyncio.shield(found)  # whoever gives up leaves it to others
        if isinstance(answer, OSError):
            raise answer
        return answer

    def _start(self, loop: asyncio.AbstractEventLoop) -> None:
        while self._waiting and self._running < AT_ONCE:
            self._running += 1
            host = self._waiting.popleft()
            # A daemon: one that waits for a name server must not keep the process from ending.
            thread = threading.Thread(target=self._look_up, args=(loop, host), name="lookup", daemon=True)
            try:
                thread.start()
            except RuntimeError as fault:
                self._running -= 1
                self._found.pop(host).set_result(OSError(errno.ENOMEM, str(fault)))

    def _look_up(self, loop: asyncio.AbstractEventLoop, host: str) -> None:
        answer: list[str] | OSError
        try:
            found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
            answer = list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))
        except OSError as error:
            answer = error
        except UnicodeError:  # a label that is empty or over 63 bytes long
            answer = socket.gaierror(socket.EAI_NONAME, "not a host name")
        with suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(self._done, loop, host, answer)

    def _done(self, loop: asyncio.AbstractEventLoop, host: str, answer: list[str] | OSError) -> None:
        self._running -= 1
        self._found.pop(host).set_result(answer)
        self._start(loop)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
