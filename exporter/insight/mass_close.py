"""Mass closes: many connections that end at once without a Close frame from the client, and how they came back.

What is known here is one replica's: clients may be with another one, and a verdict is local evidence. So alerts sum
counters over replicas and rest on no verdict.
"""

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import islice
from typing import Final, NamedTuple

from exporter.closecodes import NO_CLOSE
from exporter.events import (
    WITHINS,
    ClientKey,
    Event,
    HandshakeOutcome,
    Initiator,
    MassClose,
    MassCloseEnded,
    MassCloseLost,
    MassCloseReturned,
    Origin,
    Verdict,
    Within,
)
from exporter.insight.builds import MOST_BUILDS, OTHERS, Builds, BuildTally
from exporter.insight.seconds import busiest_of, slot

WITHIN_BOUNDS: Final[tuple[tuple[float, Within], ...]] = ((1.0, "1s"), (5.0, "5s"), (30.0, "30s"), (120.0, "120s"))
"""Seconds up to which a return is within each value of the label; above the last it is `later`."""

MOST_REPLAYED: Final = 2_000
"""Handshakes remembered while it is not clear yet whether a mass close has begun."""

TOO_BIG: Final = "1009"

ISOLATED: Final = 1.0
"""Seconds without another loss behind one whose client was back before: it is not the beginning of a mass close."""

AT_ONCE: Final = 64
PER_TICK: Final = 500
"""How much of what waits is taken with each event, and with each tick: a millisecond's worth at most."""

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


class _Loss(NamedTuple):
    at: float
    client: ClientKey | None
    code: str
    initiator: Initiator
    user_agent: str
    replaced: bool  # its client was accepted again before


class _Handshake(NamedTuple):
    at: float  # when it was answered
    client: ClientKey
    outcome: HandshakeOutcome
    attempted: float
    delay: float | None


def is_loss(code: str, initiator: Initiator) -> bool:
    """Whether a connection ended without a Close frame from the client, and not for a message that was too big.

    A client that is refused a message comes back to send it again: that is a story of its own.
    """
    return (initiator != "client" or code == NO_CLOSE) and code != TOO_BIG


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


class _Incident:
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

    def loss(self, loss: _Loss) -> bool:
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

    def handshake(self, handshake: _Handshake) -> Within | None:
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

    def _accepted(self, client: _LostClient, handshake: _Handshake) -> Within | None:
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


class _Stretch:
    """A stretch of time as long as the window: the most that were open in it, and how many were lost."""

    __slots__ = ("losses", "number", "peak")

    def __init__(self, number: int, peak: int) -> None:
        self.number = number
        self.peak = peak
        self.losses = 0


class MassCloses:
    """Watches one origin for mass closes. `builds` names those of its clients; it may be replaced.

    `draining` is set while this process is being shut down.
    """

    def __init__(self, origin: Origin, emit: Callable[[Event], None], builds: Builds, rules: MassCloseRules) -> None:
        self._origin = origin
        self._emit = emit
        self.builds = builds
        self._rules = rules
        self._active = 0
        self._stretches: deque[_Stretch] = deque()  # the last 10 minutes
        self._stretch_ends = float("-inf")
        self._recent: deque[_Loss | _Handshake] = deque()  # from the first loss of the window on
        self._losses = 0  # of these
        self._incident: _Incident | None = None
        self.draining = False

    @property
    def began(self) -> float | None:
        """When the first connection of the mass close under way was lost; None if there is none."""
        return None if self._incident is None else self._incident.began

    def opened(self, now: float) -> None:
        """A connection was accepted."""
        self._active += 1
        self._note_active(now)

    def left(self, now: float) -> None:
        """A connection has ended of which no more is known than that."""
        if now >= self._stretch_ends:
            self._note_active(now)
        if self._active:
            self._active -= 1

    def ended(
        self,
        now: float,
        client: ClientKey | None,
        code: str,
        initiator: Initiator,
        user_agent: str,
        *,
        replaced: bool = False,
    ) -> None:
        """A connection has ended; `replaced` if its client was accepted again before."""
        self.left(now)
        if not is_loss(code, initiator):
            return
        self._stretches[-1].losses += 1
        self._recent.append(_Loss(now, client, code, initiator, user_agent, replaced))
        if self._incident is None:
            self._losses += 1
            self._forget_recent(now)
            if not self._is_mass(now):
                return
            self._incident = _Incident(self._recent[0].at, self.builds)
        self._take(self._incident, AT_ONCE)

    def handshake(
        self, now: float, client: ClientKey, outcome: HandshakeOutcome, attempted: float, delay: float | None
    ) -> None:
        """An opening handshake of a client that can be recognised is over; it was `attempted` before.

        `delay` is since the client's close, where it is known.
        """
        if self._incident is None and not self._recent:
            return
        handshake = _Handshake(now, client, outcome, attempted, delay)
        if self._incident is not None:
            self._recent.append(handshake)
            self._take(self._incident, AT_ONCE)
            return
        self._forget_recent(now)
        if self._recent and len(self._recent) - self._losses < MOST_REPLAYED:
            self._recent.append(handshake)

    def tick(self, now: float) -> None:
        """Time passes: a mass close may be over."""
        incident, rules = self._incident, self._rules
        if incident is None:
            return
        self._take(incident, PER_TICK)
        recovered = incident.recovered_at
        if now - incident.began >= rules.longest or (recovered is not None and now - recovered >= rules.settled):
            self.finish(now)

    def finish(self, now: float) -> None:
        """Judge the mass close under way, if there is one."""
        incident, self._incident = self._incident, None
        if incident is not None:
            self._take(incident, len(self._recent))
            self._losses = 0
            over = incident.over(self._origin, now, self._rules, draining=self.draining)
            self._emit(MassCloseEnded(over))

    def _take(self, incident: _Incident, most: int) -> None:
        """Go on with what happened since the first loss, in its order.

        When a mass close is recognised that may be thousands of losses: each event that follows takes a few of them.
        """
        recent = self._recent
        for _ in range(min(most, len(recent))):
            happened = recent.popleft()
            if isinstance(happened, _Loss):
                self._lose(incident, happened)
            else:
                self._return(incident, happened)

    def _lose(self, incident: _Incident, loss: _Loss) -> None:
        if incident.loss(loss):
            self._emit(MassCloseLost(self._origin, 1))
        incident.recovering(loss.at, self._rules.recovered)
        if loss.replaced and loss.client is not None:
            self._return(incident, _Handshake(loss.at, loss.client, "accepted", loss.at, 0.0))

    def _return(self, incident: _Incident, handshake: _Handshake) -> None:
        when = incident.handshake(handshake)
        if when is not None:
            self._emit(MassCloseReturned(self._origin, when))
        incident.recovering(handshake.at, self._rules.recovered)

    def _is_mass(self, now: float) -> bool:
        """Whether the losses of the window are enough, by number, by share, and beside what is usual."""
        rules = self._rules
        before = sum(stretch.losses for stretch in self._stretches) - self._losses
        usual = before * rules.window / rules.peak_window
        enough = max(rules.least, rules.share * self._highest(now))
        if self._losses < enough or self._losses <= rules.usual * usual:
            return False
        self._leave_out_isolated()
        return self._losses >= enough and self._lost_clients() >= enough

    def _leave_out_isolated(self) -> None:
        """A mass close does not begin with somebody who was lost and back before it."""
        recent = self._recent
        while self._losses > 1:
            first, back = recent[0], False
            for happened in islice(recent, 1, None):
                if isinstance(happened, _Loss):
                    break
                back = back or (happened.client == first.client and happened.outcome == "accepted")
            if not back or happened.at - first.at <= ISOLATED:
                return
            recent.popleft()
            self._losses -= 1
            while not isinstance(recent[0], _Loss):
                recent.popleft()

    def _lost_clients(self) -> int:
        """How many were lost in the window: one that came back and was lost again is one."""
        lost, out, back = 0, Counter[ClientKey](), Counter[ClientKey]()
        for happened in self._recent:
            client = happened.client
            if isinstance(happened, _Loss):
                if client is not None and back[client]:
                    back[client] -= 1
                else:
                    lost += 1
                if client is not None:
                    out[client] += 1
            elif client is not None and happened.outcome == "accepted" and out[client]:
                out[client] -= 1
                back[client] += 1
        return lost

    def _note_active(self, now: float) -> None:
        """So many are open: the most of this stretch, perhaps."""
        if now >= self._stretch_ends:
            number = int(now / self._rules.window)
            self._stretch_ends = (number + 1) * self._rules.window
            self._stretches.append(_Stretch(number, self._active))
            self._forget_stretches(now)
        elif self._active > self._stretches[-1].peak:
            self._stretches[-1].peak = self._active

    def _highest(self, now: float) -> int:
        """The most connections that were open in the last 10 minutes."""
        self._forget_stretches(now)
        return max(stretch.peak for stretch in self._stretches)

    def _forget_stretches(self, now: float) -> None:
        oldest = int((now - self._rules.peak_window) / self._rules.window)
        while self._stretches[0].number < oldest:
            self._stretches.popleft()

    def _forget_recent(self, now: float) -> None:
        """Keep what happened within the window, from its first loss on."""
        recent = self._recent
        while recent and (recent[0].at < now - self._rules.window or not isinstance(recent[0], _Loss)):
            self._losses -= isinstance(recent.popleft(), _Loss)
