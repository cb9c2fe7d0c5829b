"""What an attempt that failed, or the end of a connection, says about the service: one of a few reasons."""

import errno
import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from websockets.exceptions import ConnectionClosed
from websockets.frames import CloseCode

from exporter.closecodes import EMPTY_CLOSE
from exporter.events import HandshakeOutcome, Initiator, ProbeFailure
from exporter.sources.probe.connection import Connection
from exporter.sources.probe.schedule import retry_after
from exporter.wire.connection import status_label
from exporter.wire.http1 import ResponseHead, first

_OWN: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.EADDRNOTAVAIL})
"""What this machine lacks when it cannot even try: no fault of the service."""

_STATUS_REASONS: Final[dict[int, ProbeFailure]] = {401: "http_401", 403: "http_403", 429: "http_429"}
_CLASS_REASONS: Final[dict[int, ProbeFailure]] = {3: "redirect", 4: "http_4xx", 5: "http_5xx"}


class Unable(Exception):
    """The probe cannot run, for a fault of its own surroundings. The text is a sentence."""


@dataclass(eq=False)
class Failed(Exception):
    """No WebSocket came about.

    `outcome` and `status` are labels of `websocket_handshakes_total`; `duration` is seconds from the request to the
    answer, 0 without one; `retry_after` is how many seconds the service asks to wait. `detail` is for the log and
    has no word that the service chose.
    """

    reason: ProbeFailure
    outcome: HandshakeOutcome = "failed"
    status: str = "closed"
    duration: float = 0.0
    retry_after: float | None = None
    detail: str = ""


def timed_out(*, resolved: bool) -> Failed:
    """The time for an attempt is up."""
    return Failed("timeout" if resolved else "dns", status="timeout", detail="no answer in time")


def unreachable(error: OSError) -> Failed:
    """No TCP connection came about. Raises Unable where that is this machine's own fault."""
    detail = (error.strerror or "no reason given").lower()
    if error.errno in _OWN and not isinstance(error, socket.gaierror):
        raise Unable(f"cannot open a connection: {detail}") from None
    if isinstance(error, socket.gaierror):
        return Failed("dns", status="refused", detail=detail)
    if isinstance(error, TimeoutError):
        return timed_out(resolved=True)
    return Failed("refused", status="refused", detail=detail)


def not_opened(connection: Connection, offered: Sequence[str], now: float) -> Failed:
    """TCP stood, and still no WebSocket came about. `now` is Unix time, for a Retry-After that is a date."""
    cause = connection.lost_by
    if isinstance(cause, ssl.SSLCertVerificationError):
        return Failed("certificate", detail=cause.verify_message)
    if isinstance(cause, ssl.SSLError):
        return Failed("tls", detail=(cause.reason or "no reason given").lower().replace("_", " "))
    if connection.requested is None:
        return Failed("tls", detail="dropped during the TLS handshake")
    if connection.answered is None:
        return Failed("closed_by_server", detail="dropped without an answer")
    duration = connection.answered - connection.requested
    answer = connection.answer
    if answer is None:
        return Failed("not_websocket", "rejected", "other", duration, detail="the answer is not HTTP, or endless")
    return Failed(
        _reason_of(answer, offered),
        "rejected",
        status_label(answer.status),
        duration,
        retry_after(first(answer.fields, b"retry-after"), now),
        f"HTTP status {answer.status}",
    )


def _reason_of(answer: ResponseHead, offered: Sequence[str]) -> ProbeFailure:
    if answer.status == 101:
        chosen = [value.strip() for value in answer.fields.get(b"sec-websocket-protocol", ())]
        wrong = len(chosen) > 1 or any(name.decode("latin-1") not in offered for name in chosen)
        return "subprotocol" if wrong else "not_websocket"
    return _STATUS_REASONS.get(answer.status) or _CLASS_REASONS.get(answer.status // 100, "not_websocket")


@dataclass(frozen=True, slots=True)
class Ending:
    """How a WebSocket ended. `closed` tells whether there was a Close frame, `code` is None if that was empty.

    `reason` is why that is a failure; None where the probe itself left as planned.
    """

    closed: bool
    code: int | None
    text: str
    initiator: Initiator
    reason: ProbeFailure | None


def ending(closed: ConnectionClosed, why_left: ProbeFailure | None, *, aborted: bool) -> Ending:
    """What the first Close frame says, or that there was none, so that it counts who ended TCP.

    `why_left` is the probe's own reason to leave, if any, `aborted` whether it ended TCP.

    The library's `close_code` is 1006 for whatever it found wrong by itself: the frames tell who was first.
    """
    if closed.rcvd is not None and (closed.sent is None or closed.rcvd_then_sent):
        empty = closed.rcvd.code == int(EMPTY_CLOSE)
        return Ending(True, None if empty else int(closed.rcvd.code), closed.rcvd.reason, "server", "closed_by_server")
    if closed.sent is not None:
        code = int(closed.sent.code)
        reason: ProbeFailure | None = why_left
        if code == CloseCode.MESSAGE_TOO_BIG:
            reason = "too_big"
        elif code != CloseCode.NORMAL_CLOSURE and why_left is None:
            reason = "not_websocket"
        return Ending(True, code, closed.sent.reason, "exporter", reason)
    if aborted:
        return Ending(False, None, "", "exporter", why_left)
    return Ending(False, None, "", "server", "closed_by_server")
