"""The Pings of one held connection."""

import asyncio
import struct
from collections.abc import Callable
from typing import Final

from exporter.sources.probe.connection import Connection

TICK: Final = 0.1
"""Seconds of the loop's clock: Pings of all probes go out at multiples of it, some at once. To wake up for each of a
thousand would cost twice as much as to send them."""

SECOND_LOOK: Final = 0.1
"""Seconds for a Pong that may lie unread in the socket, after a time in which this process did not run."""


class Pulse:
    """Sends a Ping every `interval` seconds, to the nearest `TICK`, the next one only when the last was answered.

    `answered` is told each round trip in seconds. A Ping that is not answered within `timeout` seconds ends the
    connection without a word, and `silent` is true: nothing is said to a service that does not listen. One that sends
    more than is read is told so (`Connection.leave`).
    """

    __slots__ = (
        "_answered",
        "_connection",
        "_due",
        "_interval",
        "_loop",
        "_number",
        "_sent",
        "_timeout",
        "_timer",
        "silent",
    )

    def __init__(
        self, connection: Connection, interval: float, timeout: float, answered: Callable[[float], None]
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._connection = connection
        self._interval = interval
        self._timeout = timeout
        self._answered = answered
        self._number = 0
        self._sent: float | None = None
        self._due = self._loop.time()
        self.silent = False
        connection.on_pong = self._pong
        self._timer = self._loop.call_soon(self._ping)

    def stop(self) -> None:
        """Ping no more."""
        self._connection.on_pong = None
        self._timer.cancel()

    def _ping(self) -> None:
        self._number = (self._number + 1) & 0xFFFFFFFF
        self._timer = self._loop.call_later(self._timeout, self._look_again)
        self._sent = self._connection.clock()
        self._connection.ping(self._payload())

    def _payload(self) -> bytes:
        return struct.pack("!I", self._number)

    def _pong(self, payload: bytes) -> None:
        """Take a Pong. One that answers no Ping of ours, or an old one, says nothing (RFC 6455 section 5.5.3)."""
        if self._sent is None or payload != self._payload():
            return
        rtt, self._sent = self._connection.clock() - self._sent, None
        self._timer.cancel()
        # From when the last one was due, not sent: delays must not add up, nor wait for the tick after the next.
        self._due = max(round((self._due + self._interval) / TICK) * TICK, self._loop.time())
        self._timer = self._loop.call_at(self._due, self._ping)
        self._answered(rtt)

    def _look_again(self) -> None:
        self._timer = self._loop.call_later(SECOND_LOOK, self._give_up)

    def _give_up(self) -> None:
        self.silent = True
        self._connection.leave()
