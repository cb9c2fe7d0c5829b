"""One probe: a client that connects, holds, measures, and comes back with restraint."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NoReturn

import structlog

from exporter.closecodes import NO_CLOSE, Vocabulary
from exporter.config.probes import ProbeConfig
from exporter.events import (
    Closed,
    HandshakeEnded,
    Origin,
    Peer,
    PingAnswered,
    ProbeFailed,
    ProbeFailure,
    ProbeUp,
    ProbeWaits,
    Sink,
    Traffic,
)
from exporter.sources.probe.connection import Connection
from exporter.sources.probe.failures import Ending, Failed, Unable, ending
from exporter.sources.probe.opening import USER_AGENT, Opened, Opener
from exporter.sources.probe.pulse import Pulse
from exporter.sources.probe.schedule import Ended, Schedule

if TYPE_CHECKING:
    from exporter.config.regex import Regex

ANSWER: Final = 1024
"""Characters of an expected answer that are looked at."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Tools:
    """What all probes share: how connections are opened, randomness, and waiting."""

    opener: Opener
    uniform: Callable[[float, float], float]
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep


class Probe:
    """Keeps one connection to one service, one at a time. `vocabulary` may be replaced at any time."""

    __slots__ = (
        "_config",
        "_expected",
        "_origin",
        "_said",
        "_schedule",
        "_sink",
        "_tools",
        "polite",
        "vocabulary",
    )

    def __init__(self, config: ProbeConfig, vocabulary: Vocabulary, sink: Sink, tools: Tools) -> None:
        self.vocabulary = vocabulary
        self._config = config
        self._origin = Origin("probe", config.target)
        self._sink = sink
        self._tools = tools
        self._expected = _regex(config.expect) if config.expect is not None else None
        self._schedule = Schedule(tools.uniform)
        self._said = ""
        self.polite = False

    async def run(self) -> NoReturn:
        """Connect and hold until cancelled. That ends the connection: with 1000 if `polite` is set, else at once."""
        delay = self._schedule.first()
        while True:
            self._sink.emit(ProbeWaits(self._origin, delay))
            await self._tools.sleep(delay)
            try:
                ended = await self._attempt()
            except Exception as fault:  # a fault of ours must not end the process, nor count against the service
                self._say_unable(fault)
                ended = Ended()
            delay = self._schedule.after(ended)

    async def _attempt(self) -> Ended:
        """One connection, from the attempt to its end. Raises Unable."""
        try:
            opened = await self._tools.opener.open(self._config)
        except Failed as failed:
            self._sink.emit(HandshakeEnded(self._origin, failed.outcome, failed.status, failed.duration))
            self._fail(failed.reason, failed.detail)
            return Ended(retry_after=failed.retry_after)
        connection = opened.connection
        accepted = connection.answered or connection.clock()
        took = accepted - (connection.requested or accepted)
        self._sink.emit(HandshakeEnded(self._origin, "accepted", "101", took))
        why_left: ProbeFailure | None = None
        try:
            why_left = await self._use(opened, accepted)
        except asyncio.CancelledError:
            if not self.polite:
                connection.abort()
            raise
        finally:
            try:
                await connection.close()
            finally:  # cancelled once more, it is still counted
                end = ending(connection.ended, why_left, aborted=connection.aborted)
                lived = connection.clock() - accepted
                self._sink.emit(self._closed(connection, end, lived))
        if end.reason is not None:
            self._fail(end.reason)
        return Ended(lived, end.reason is None, end.code if end.initiator == "server" else None)

    async def _use(self, opened: Opened, accepted: float) -> ProbeFailure | None:
        """Ask what is to be asked, then hold until the connection ends. Returns why to leave, if that is a failure."""
        connection = opened.connection
        if self._config.subprotocols and connection.subprotocol is None:
            return "subprotocol"
        failure = await self._ask(connection, opened.message)
        if failure is not None or not connection.is_open:
            return failure
        took = accepted - opened.began
        self._sink.emit(ProbeUp(self._origin, took))
        self._say_up(took)
        pulse = Pulse(connection, self._config.interval, self._config.timeout, self._answered)
        try:
            async with asyncio.timeout(self._config.hold):
                await connection.wait_closed()
        except TimeoutError:
            return None
        finally:
            pulse.stop()
        return "ping_timeout" if pulse.silent else None

    async def _ask(self, connection: Connection, message: str | None) -> ProbeFailure | None:
        """Send the first message, if any, and look at the answer, if one is expected."""
        if message is not None:
            connection.send(message)
        if self._expected is None:
            connection.discard()
            return None
        try:
            async with asyncio.timeout(self._config.timeout):
                answer = await connection.first_message()
        except TimeoutError:
            return "expectation"
        connection.discard()
        text = (answer or b"")[: 4 * ANSWER].decode("utf-8", "replace")[:ANSWER]
        return None if self._expected.search(text) else "expectation"

    def _answered(self, rtt: float) -> None:
        self._sink.emit(PingAnswered(self._origin, "server", rtt))

    def _closed(self, connection: Connection, end: Ending, duration: float) -> Closed:
        code = self.vocabulary.wire_label(end.code) if end.closed else NO_CLOSE
        url = self._config.url
        return Closed(
            origin=self._origin,
            code=code,
            close_class=self.vocabulary.close_class(code),
            initiator=end.initiator,
            duration=duration,
            wire_code=end.code,
            reason=end.text,
            peer=Peer(host=url.host, path=url.path, user_agent=USER_AGENT, subprotocol=connection.subprotocol or ""),
            client_to_server=_sent(connection),
            server_to_client=Traffic(
                connection.received_bytes, connection.received_messages, connection.largest_message
            ),
        )

    def _fail(self, reason: ProbeFailure, detail: str = "") -> None:
        self._sink.emit(ProbeFailed(self._origin, reason))
        if self._says(reason):
            _log.warning("probe failed", **self._about(), reason=reason, **({"detail": detail} if detail else {}))

    def _say_up(self, took: float) -> None:
        if self._says("up"):
            _log.info("probe up", **self._about(), connect_seconds=round(took, 3))

    def _say_unable(self, fault: Exception) -> None:
        if self._says(str(fault)):
            known = isinstance(fault, Unable)
            _log.error("probe cannot run", **self._about(), detail=str(fault) if known else "", exc_info=not known)

    def _says(self, what: str) -> bool:
        """Whether that is news: what is said again and again is not read."""
        said, self._said = self._said, what
        return said != what

    def _about(self) -> dict[str, str]:
        return {"target": self._config.target, "url": str(self._config.url)}


def _regex(pattern: str) -> "Regex":
    from exporter.config.regex import Regex

    return Regex(pattern)


def _sent(connection: Connection) -> Traffic:
    size = connection.sent_message
    return Traffic(connection.sent_bytes, 0 if size is None else 1, size or 0)
