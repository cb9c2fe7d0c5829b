"""What a client gets in place of an upstream that it cannot have."""

import errno
import socket

import pytest

from exporter.sources.refusal import FULL, REFUSED, TIMED_OUT, Refusal, refusal


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ConnectionRefusedError(errno.ECONNREFUSED, "refused"), REFUSED),
        (FileNotFoundError(errno.ENOENT, "no such socket"), REFUSED),
        (OSError(errno.EHOSTUNREACH, "no route"), REFUSED),
        (socket.gaierror(socket.EAI_NONAME, "unknown name"), REFUSED),
        (TimeoutError(), TIMED_OUT),
        (TimeoutError(errno.ETIMEDOUT, "timed out"), TIMED_OUT),
        (OSError(errno.EMFILE, "too many open files"), FULL),
        (OSError(errno.ENFILE, "too many open files in system"), FULL),
        (OSError(errno.ENOBUFS, "no buffer space"), FULL),
        (OSError(errno.EADDRNOTAVAIL, "no free port"), FULL),
    ],
)
def test_why_a_client_is_refused(error: OSError, expected: Refusal) -> None:
    """Only what the upstream did counts as the upstream's; what this process ran out of is the exporter's own."""
    assert refusal(error) is expected


@pytest.mark.parametrize(
    ("refused", "status", "outcome", "label"),
    [
        (REFUSED, b"502 Bad Gateway", "failed", "refused"),
        (TIMED_OUT, b"504 Gateway Timeout", "failed", "timeout"),
        (FULL, b"503 Service Unavailable", "refused_by_exporter", "limit"),
    ],
)
def test_what_a_refused_client_gets(refused: Refusal, status: bytes, outcome: str, label: str) -> None:
    """A whole HTTP/1.1 answer that ends the connection; the 503 says when to come back."""
    head, _, body = refused.answer.partition(b"\r\n\r\n")
    line, *fields = head.split(b"\r\n")
    assert line == b"HTTP/1.1 " + status
    assert b"Connection: close" in fields
    assert b"Content-Length: %d" % len(body) in fields
    assert (b"Retry-After: 5" in fields) == (refused is FULL)
    assert (refused.outcome, refused.status) == (outcome, label)
