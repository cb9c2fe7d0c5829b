"""When a probe tries again: restraint first, so that no outage is made worse by being watched."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Final

from exporter.insight.backoff import Backoff, Policy

POLICY: Final = Policy(first=5.0, floor=7.0, base=14.0, cap=60.0, stable=30.0)
"""Delays from 0-5 s, then 7-14, 7-28, 7-56 and 7-60 s. Whatever a service does, a minute holds ten connections of a
probe at the most: all delays but the first of a series are at least 7 s, and a connection with a planned end lives for
10 s."""

ASKED_FOR: Final = {1012: (5.0, 30.0), 1013: (30.0, 60.0)}
"""Least seconds before coming back, by the close code with which a service asked for time: drawn from this range. For
1012 it is that of the code's registration."""

MAX_RETRY_AFTER: Final = 300.0
"""Seconds: a longer Retry-After is honoured up to here, so that a probe is never blind for long."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How an attempt, or the connection that came of it, ended.

    `lived` is how many seconds the connection was open, None if none came about. `planned` is whether the probe ended
    it because it had been held long enough. `code` is the close code that the service sent, if any. `retry_after` is
    how many seconds it asked to wait, None where it did not ask.
    """

    lived: float | None = None
    planned: bool = False
    code: int | None = None
    retry_after: float | None = None


class Schedule:
    """The delays of one probe. `uniform(a, b)` is its randomness."""

    __slots__ = ("_backoff", "_policy", "_uniform")

    def __init__(self, uniform: Callable[[float, float], float], policy: Policy = POLICY) -> None:
        self._uniform = uniform
        self._policy = policy
        self._backoff = Backoff(uniform, policy)

    def first(self) -> float:
        """Seconds before the first attempt: probes that start together do not connect together."""
        return self._uniform(0.0, self._policy.first)

    def after(self, ended: Ended) -> float:
        """Seconds to wait before the next attempt."""
        if ended.planned:
            # Short ones leave the series as it is: a service that fails in between would see attempts too often.
            if ended.lived is not None and ended.lived >= self._policy.stable:
                self._backoff.failures = 0
            return self.first()
        delay = self._backoff.after(ended.lived)
        if ended.code in ASKED_FOR:
            delay = max(delay, self._uniform(*ASKED_FOR[ended.code]))
        if ended.retry_after is not None:
            # Those who were told the same moment should not all come at that moment.
            asked = min(ended.retry_after, MAX_RETRY_AFTER) + self.first()
            delay = max(delay, asked)
        return delay


def retry_after(value: str, now: float) -> float | None:
    """Seconds that a Retry-After header asks to wait from `now` (Unix time) on; None if it is none.

    A number of seconds or an HTTP date (RFC 9110 section 10.2.3). One that has passed asks for nothing: 0.
    """
    if re.fullmatch(r"[0-9]{1,18}", value):
        return float(value)
    try:
        moment = parsedate_to_datetime(value)
        return max(0.0, moment.timestamp() - now) if moment.tzinfo is not None else None
    except (ValueError, OverflowError, IndexError, TypeError):
        return None
