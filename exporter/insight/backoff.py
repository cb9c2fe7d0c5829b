"""When to reconnect without being part of a storm.

The first delay after a stable connection is uniform, so that clients cut at the same instant do not return at the
same instant (RFC 6455 section 7.2.3); then the ceiling doubles up to a cap, and each delay is drawn uniformly below
it (full jitter). Only a connection that stayed up resets it: a server that accepts and then refuses would otherwise
keep its clients at the shortest delay for ever.
"""

from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Policy:
    """Seconds: the first delay is drawn from 0 to `first`, later ones from `floor` to `base` doubled up to `cap`.

    A connection resets the series when it lived for `stable` seconds.
    """

    first: float = 5.0
    floor: float = 0.1
    base: float = 1.0
    cap: float = 60.0
    stable: float = 30.0


@dataclass(slots=True)
class Backoff:
    """The delays of one client. `uniform(a, b)` is its randomness."""

    uniform: Callable[[float, float], float]
    policy: Policy = field(default_factory=Policy)
    failures: int = 0

    def after(self, lived: float | None) -> float:
        """Seconds to wait before the next attempt.

        `lived` is how long the connection that ended had been open; None if the attempt failed to open one.
        """
        policy = self.policy
        if lived is not None and lived >= policy.stable:
            self.failures = 0
        attempt, self.failures = self.failures, self.failures + 1
        if attempt == 0:
            return self.uniform(0.0, policy.first)
        # The exponent is bounded before the power is taken: a client may fail for years.
        ceiling = min(policy.cap, policy.base * 2.0 ** min(attempt - 1, 62))
        return self.uniform(policy.floor, max(policy.floor, ceiling))
