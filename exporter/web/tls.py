"""TLS on a listener: each connection shakes hands under the web configuration that is in force when it comes.

Event loops bind a listening socket to one context for good, give a handshake a minute, and drop the alert that tells a
client why it failed. So connections are accepted here, and counted from the first byte on.
"""

import asyncio
import ipaddress
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from typing import Any, Final

import structlog

from exporter.web.gate import Gate
from exporter.web.protocol import GuardedProtocol, Limits

ACCEPT_PAUSE: Final = 0.5
"""Seconds without accepting after the process ran out of descriptors or memory."""
COMPLAIN_EVERY: Final = 60.0
"""Seconds between two lines of the log about handshakes that fail for the same reason."""

_REASONS: Final = 256  # as many alerts as there can be; OpenSSL's own reasons that a client can cause are fewer
_AGAIN: Final = (ssl.SSLWantReadError, ssl.SSLWantWriteError)

_log = structlog.get_logger(__name__)


class Handshakes:
    """Accepts the connections of a listening socket, and gives those that shake hands to a protocol each.

    `served` says how many connections are there already: with the handshakes under way they make up
    `limits.connections`. `refused` is told of each connection over that, which is closed without a word.
    """

    def __init__(
        self,
        sock: socket.socket,
        gate: Gate,
        limits: Limits,
        protocol: Callable[[], GuardedProtocol],
        *,
        served: Callable[[], int],
        refused: Callable[[], None],
    ) -> None:
        self._socket = sock
        self._gate = gate
        self._limits = limits
        self._protocol = protocol
        self._served = served
        self._refused = refused
        self._under_way = 0
        self._complained: dict[str, float] = {}

    async def run(self) -> None:
        """Accept until cancelled; the listening socket and the handshakes under way then end with it."""
        try:
            async with asyncio.TaskGroup() as tasks:
                await self._accept(tasks)
        finally:
            self._socket.close()

    async def _accept(self, tasks: asyncio.TaskGroup) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                client, peer = await loop.sock_accept(self._socket)
            except ConnectionAbortedError:
                continue
            except OSError as error:
                self._complain("cannot accept connections", reason=(error.strerror or str(error)).lower())
                await asyncio.sleep(ACCEPT_PAUSE)
                continue
            if self._under_way + self._served() >= self._limits.connections:
                client.close()
                self._refused()
            else:
                self._under_way += 1
                tasks.create_task(self._shake_hands(client, str(peer[0]).removeprefix("::ffff:")))
            await asyncio.sleep(0)  # accepting must not keep others from their turn

    async def _shake_hands(self, client: socket.socket, address: str) -> None:
        try:
            context = await self._gate.context()
        except BaseException:
            client.close()
            self._under_way -= 1
            raise
        context.sslobject_class = _Handshake
        outcome = _Outcome(self._limits.linger)
        _OUTCOME.set(outcome)
        try:
            async with outcome.deadline:
                await asyncio.get_running_loop().connect_accepted_socket(
                    self._protocol,
                    client,
                    ssl=context,
                    ssl_handshake_timeout=self._limits.head_time,
                    # Closing waits for what is still to be sent, too.
                    ssl_shutdown_timeout=self._limits.write_stall,
                )
        except OSError:
            if outcome.fault is not None:  # else the client left, or took too long
                self._complain("TLS handshake failed", client=address, reason=_reason(outcome.fault))
        finally:
            self._under_way -= 1

    def admits(self, transport: asyncio.BaseTransport) -> bool:
        """Whether the client's certificate, which was verified, has one of the names that are wanted.

        And whether it is still valid: in a session that is resumed nobody has looked at its dates.
        """
        tls = self._gate.config.tls
        certificate = transport.get_extra_info("peercert") or {}
        if certificate and ssl.cert_time_to_seconds(certificate["notAfter"]) < time.time():
            reason = "certificate has expired"
        elif tls is not None and tls.allowed_sans and tls.allowed_sans.isdisjoint(_sans(certificate)):
            reason = "the certificate has no name of client_allowed_sans"
        else:
            return True
        peer = transport.get_extra_info("peername") or ("",)
        self._complain("TLS handshake failed", client=str(peer[0]).removeprefix("::ffff:"), reason=reason)
        return False

    def _complain(self, sentence: str, *, reason: str, **details: str) -> None:
        """Log one line a minute for each reason: anyone can cause them."""
        now = time.monotonic()
        if now - self._complained.get(reason, float("-inf")) < COMPLAIN_EVERY:
            return
        if len(self._complained) >= _REASONS:
            self._complained.clear()
        self._complained[reason] = now
        _log.warning(sentence, reason=reason, **details)


class _Outcome:
    """How one handshake fares. After a fault the client has `linger` seconds to read why."""

    def __init__(self, linger: float) -> None:
        self.deadline = asyncio.timeout(None)
        self.fault: ssl.SSLError | None = None
        self._linger = linger

    def failed(self, fault: ssl.SSLError) -> None:
        self.fault = fault
        self.deadline.reschedule(asyncio.get_running_loop().time() + self._linger)


_OUTCOME: Final[ContextVar[_Outcome]] = ContextVar("_OUTCOME")


class _Handshake(ssl.SSLObject):
    """Has the alert of a failed handshake sent (RFC 8446 section 6.2): event loops send what is pending, and wait."""

    def do_handshake(self) -> None:
        outcome = _OUTCOME.get(None)
        if outcome is None:
            super().do_handshake()
            return
        if outcome.fault is not None:
            raise outcome.fault
        try:
            super().do_handshake()
        except _AGAIN:
            raise
        except ssl.SSLError as fault:
            outcome.failed(fault)
            raise ssl.SSLWantReadError from fault


def _sans(certificate: Mapping[str, Any]) -> Iterator[str]:
    """The names in a client's certificate, as Go writes them."""
    for kind, name in certificate.get("subjectAltName", ()):
        if kind in ("DNS", "email", "URI"):
            yield name
        elif kind == "IP Address":
            yield str(ipaddress.ip_address(name.strip()))


def _reason(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return str(error.verify_message)
    return (error.reason or str(error)).replace("_", " ").lower()
