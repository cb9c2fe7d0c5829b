"""One mass close: who was lost, who came back and when, and how it went.

What is known here is one replica's: clients may be with another one, and a verdict is local evidence. So alerts sum
counters over replicas and rest on no verdict.
"""

from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from exporter.events import (
    WITHINS,
    ClientKey,
    HandshakeOutcome,
    Initiator,
    MassClose,
    Origin,
    Verdict,
    Within,
)
from exporter.insight.builds import MOST_BUILDS, OTHERS, Builds, BuildTally
from exporter.insight.seconds import busiest_of, slot

WITHIN_BOUNDS: Final[tuple[tuple[float, Within], ...]] = ((1.0, "1s"), (5.0, "5s"), (30.0, "30s"), (120.0, "120s"))
"""Seconds up to which a return is within each value of the label; above the last it is `later`."""

MOST_LOST: Final = 100_000
"""Clients of one mass close that are recognised when they come back."""


@dataclass(frozen=True, slots=True)
class MassCloseRules:
    """What makes a mass close, when it is over, and what is said of it. Times are seconds.

    `least` connections and a `share` of the most that were open in the last `peak_window` must end within `window`, and
    they must be over `usual` times what ends in so long a time on the average of `peak_window`: where the server ends
    each connection after a short while, that is its way. It is over once a `recovered` share of the lost is back and
    has been for `settled`, or after `longest`.
    """

    least: int = 5
    share: float = 0.25
    window: float = 10.0
    usual: float = 3.0
    peak_window: float = 600.0
    recovered: float = 0.95
    settled: float = 10.0
    longest: float = 600.0
    judged: int = 50
    moved_share: float = 0.2
    unrecovered_share: float = 0.8
    amplified: float = 2.0
    rejected_share: float = 0.2
    herd_share: float = 0.5


class Loss(NamedTuple):
    """A connection ended without a Close frame from its client. Times are seconds of the clock that events carry."""

    at: float
    client: ClientKey | None
    code: str
    initiator: Initiator
    user_agent: str
    replaced: bool  # its client was accepted again before


class Handshake(NamedTuple):
    """An opening handshake of a client that can be recognised is over."""

    at: float  # when it was answered
    client: ClientKey
    outcome: HandshakeOutcome
    attempted: float
    delay: float | None


def within(seconds: float) -> Within:
    """The value of the label for a return so many seconds after the first close."""
    return next((label for bound, label in WITHIN_BOUNDS if seconds <= bound), "later")


def verdict(over: MassClose, rules: MassCloseRules) -> Verdict:
    """How a mass close went: the first that applies.

    moved: this process is being shut down, or under a fifth of the lost came back here and as few so much as tried.
    unrecovered: under 80 % were accepted again, of 50 or more; or nobody was, though they tried. too_few: under 50
    returns, whose shape says nothing. amplified: the service answered more than twice as many handshakes of the lost as
    clients returned, or rejected over a fifth of them. unrecovered once more: under 80 % are back at the end, because
    they were lost again. herd: over half of the returns were in one second.
    """
    returns = over.returns
    if over.draining or max(returns, over.tried) < rules.moved_share * over.lost:
        return "moved"
    if returns < rules.unrecovered_share * over.lost and (over.lost >= rules.judged or over.gap is None):
        return "unrecovered"
    if returns < rules.judged:
        return "too_few"
    if over.answered > rules.amplified * returns or over.rejected > rules.rejected_share * over.answered:
        return "amplified"
    if over.back < rules.unrecovered_share * over.lost:
        return "unrecovered"
    return "herd" if over.busiest_second > rules.herd_share * returns else "healthy"


class _LostClient:
    """A key whose connections were lost: one, unless several clients share it. `out` of the `lost` are not back."""

    __slots__ = ("build", "lost", "out", "returned", "tried")

    def __init__(self, build: BuildTally) -> None:
        self.build = build
        self.lost = 0
        self.out = 0
        self.tried = 0
        self.returned = 0


class Incident:
    """One mass close while it lasts."""

    def __init__(self, began: float, builds: Builds) -> None:
        self.began = began
        self._builds = builds
        self._clients: dict[ClientKey, _LostClient] = {}
        self._tallies: dict[str, BuildTally] = {}
        self._lost_by: dict[tuple[str, Initiator], int] = {}
        self._returned: dict[Within, int] = dict.fromkeys(WITHINS, 0)
        self._arrivals: dict[int, int] = {}
        self._tried = 0
        self._answered = 0
        self._rejected = 0
        self._refused = 0
        self._gap: float | None = None
        self.lost = 0
        self.out = 0
        self.recovered_at: float | None = None

    def loss(self, loss: Loss) -> bool:
        """Take a loss. Returns whether it is of one more client: one that is back may be lost again.

        Of a key of several it cannot be told which of them was lost: there each loss counts.
        """
        client = None if loss.client is None else self._clients.get(loss.client)
        self.out += 1
        if client is not None and client.lost == 1 and not client.out:
            client.out += 1
            return False
        self.lost += 1
        how = (loss.code, loss.initiator)
        self._lost_by[how] = self._lost_by.get(how, 0) + 1
        if client is None and loss.client is not None and len(self._clients) < MOST_LOST:
            client = self._clients[loss.client] = _LostClient(self._tally(loss.user_agent))
        if client is not None:
            client.lost += 1
            client.out += 1
            client.build.lost += 1
        return True

    def handshake(self, handshake: Handshake) -> Within | None:
        """Take a handshake. Returns when a lost client was accepted again for the first time, if one was."""
        client = self._clients.get(handshake.client)
        if client is None or not client.out:
            return None
        if handshake.outcome == "refused_by_exporter":
            self._refused += 1
        if client.tried < client.lost:
            client.tried += 1
            self._tried += 1
            if handshake.delay is not None:
                client.build.tried(handshake.delay)
        if handshake.outcome == "accepted":
            return self._accepted(client, handshake)
        if handshake.outcome == "rejected" and self._gap is not None:
            self._answered += 1
            self._rejected += 1
        return None

    def _accepted(self, client: _LostClient, handshake: Handshake) -> Within | None:
        passed = handshake.at - self.began
        self._answered += 1
        if self._gap is None:
            self._gap = passed
        client.out -= 1
        self.out -= 1
        if client.returned >= client.lost:
            return None
        client.returned += 1
        client.build.returned += 1
        # Where a service takes its time to answer, how its clients came is in when they asked.
        arrival = slot(max(0.0, handshake.attempted - self.began))
        self._arrivals[arrival] = self._arrivals.get(arrival, 0) + 1
        when = within(passed)
        self._returned[when] += 1
        return when

    def recovering(self, now: float, share: float) -> None:
        """Note since when so many are back, or that they no longer are."""
        if self.lost - self.out < share * self.lost:
            self.recovered_at = None
        elif self.recovered_at is None:
            self.recovered_at = now

    def over(self, origin: Origin, now: float, rules: MassCloseRules, *, draining: bool) -> MassClose:
        """What there is to say at the end."""
        builds = sorted(self._tallies.items(), key=lambda item: -item[1].lost)
        facts = MassClose(
            origin=origin,
            verdict="healthy",
            lasted=now - self.began,
            lost=self.lost,
            lost_by=self._lost_by,
            back=self.lost - self.out,
            tried=self._tried,
            returned=self._returned,
            busiest_second=busiest_of(self._arrivals),
            answered=self._answered,
            rejected=self._rejected,
            gap=self._gap,
            draining=draining,
            refused=self._refused,
            builds=[tally.returns(name) for name, tally in builds],
        )
        return replace(facts, verdict=verdict(facts, rules))

    def _tally(self, user_agent: str) -> BuildTally:
        name = self._builds.name(user_agent)
        if name not in self._tallies and len(self._tallies) >= MOST_BUILDS:
            name = OTHERS
        return self._tallies.setdefault(name, BuildTally())
