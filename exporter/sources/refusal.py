"""What a client gets in place of an upstream that it cannot have: a whole HTTP/1.1 answer, or its end if not HTTP."""

import asyncio
import errno
import socket
from dataclasses import dataclass
from typing import Final

from exporter.events import HandshakeOutcome
from exporter.wire.connection import ConnectionObserver

TIMEOUT: Final = 5.0
"""Seconds that a client has to send its request and take the answer."""

_READ_SIZE: Final = 16 * 1024
_EXHAUSTION: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL)


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer, and the outcome and status by which an opening handshake then counts."""

    answer: bytes
    outcome: HandshakeOutcome
    status: str


def _answer(status: str, sentence: str, *fields: str) -> bytes:
    body = f"websocket-exporter: {sentence}\n"
    head = (
        f"HTTP/1.1 {status}",
        "Content-Type: text/plain; charset=utf-8",
        f"Content-Length: {len(body)}",
        *fields,
        "Connection: close",
    )
    return "\r\n".join((*head, "", body)).encode()


REFUSED: Final = Refusal(
    _answer("502 Bad Gateway", "the service behind this tap refuses connections"), "failed", "refused"
)
TIMED_OUT: Final = Refusal(
    _answer("504 Gateway Timeout", "the service behind this tap does not answer"), "failed", "timeout"
)
FULL: Final = Refusal(
    _answer("503 Service Unavailable", "this tap has as many connections as it may", "Retry-After: 5"),
    "refused_by_exporter",
    "limit",
)


def refusal(error: OSError) -> Refusal:
    """What follows from a failure to dial the upstream: what this process ran out of is not the upstream's fault."""
    if isinstance(error, TimeoutError):
        return TIMED_OUT
    return FULL if error.errno in _EXHAUSTION else REFUSED


async def refuse(client: socket.socket, observer: ConnectionObserver, refused: Refusal) -> None:
    """Read the client's request, so that it can be counted, answer it, and close the connection.

    A client that turns out not to speak HTTP/1 is not waited for: it could not be answered.
    """
    try:
        async with asyncio.timeout(TIMEOUT):
            await _answer_request(client, observer, refused.answer)
    except OSError:
        pass  # it did not wait for the answer, or took too long over it
    finally:
        client.close()
        observer.unanswered(refused.outcome, refused.status)
        observer.finish()


async def _answer_request(client: socket.socket, observer: ConnectionObserver, answer: bytes) -> None:
    loop = asyncio.get_running_loop()
    while not observer.awaiting_answer:
        data = await loop.sock_recv(client, _READ_SIZE)
        if not data:
            return
        observer.from_client(data)
        if not observer.understood:
            return
    await loop.sock_sendall(client, answer)
    client.shutdown(socket.SHUT_WR)
    # A close with unread data would be a reset, which may overtake the answer.
    while await loop.sock_recv(client, _READ_SIZE):
        pass
