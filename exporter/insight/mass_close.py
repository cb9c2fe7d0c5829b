"""Recognises mass closes: many connections that end at once without a Close frame from the client."""

from collections import Counter, deque
from collections.abc import Callable
from itertools import islice
from typing import Final

from exporter.closecodes import NO_CLOSE
from exporter.events import (
    ClientKey,
    Event,
    HandshakeOutcome,
    Initiator,
    MassCloseEnded,
    MassCloseLost,
    MassCloseReturned,
    Origin,
)
from exporter.insight.builds import Builds
from exporter.insight.incident import Handshake, Incident, Loss, MassCloseRules

MOST_REPLAYED: Final = 2_000
"""Handshakes remembered while it is not clear yet whether a mass close has begun."""

TOO_BIG: Final = "1009"

ISOLATED: Final = 1.0
"""Seconds without another loss behind one whose client was back before: it is not the beginning of a mass close."""

AT_ONCE: Final = 64
PER_TICK: Final = 500
"""How much of what waits is taken with each event, and with each tick: a millisecond's worth at most."""


def is_loss(code: str, initiator: Initiator) -> bool:
    """Whether a connection ended without a Close frame from the client, and not for a message that was too big.

    A client that is refused a message comes back to send it again: that is a story of its own.
    """
    return (initiator != "client" or code == NO_CLOSE) and code != TOO_BIG


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
        self._recent: deque[Loss | Handshake] = deque()  # from the first loss of the window on
        self._losses = 0  # of these
        self._incident: Incident | None = None
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
        self._recent.append(Loss(now, client, code, initiator, user_agent, replaced))
        if self._incident is None:
            self._losses += 1
            self._forget_recent(now)
            if not self._is_mass(now):
                return
            self._incident = Incident(self._recent[0].at, self.builds)
        self._take(self._incident, AT_ONCE)

    def handshake(
        self, now: float, client: ClientKey, outcome: HandshakeOutcome, attempted: float, delay: float | None
    ) -> None:
        """An opening handshake of a client that can be recognised is over; it was `attempted` before.

        `delay` is since the client's close, where it is known.
        """
        if self._incident is None and not self._recent:
            return
        handshake = Handshake(now, client, outcome, attempted, delay)
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

    def _take(self, incident: Incident, most: int) -> None:
        """Go on with what happened since the first loss, in its order.

        When a mass close is recognised that may be thousands of losses: each event that follows takes a few of them.
        """
        recent = self._recent
        for _ in range(min(most, len(recent))):
            happened = recent.popleft()
            if isinstance(happened, Loss):
                self._lose(incident, happened)
            else:
                self._return(incident, happened)

    def _lose(self, incident: Incident, loss: Loss) -> None:
        if incident.loss(loss):
            self._emit(MassCloseLost(self._origin, 1))
        incident.recovering(loss.at, self._rules.recovered)
        if loss.replaced and loss.client is not None:
            self._return(incident, Handshake(loss.at, loss.client, "accepted", loss.at, 0.0))

    def _return(self, incident: Incident, handshake: Handshake) -> None:
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
                if isinstance(happened, Loss):
                    break
                back = back or (happened.client == first.client and happened.outcome == "accepted")
            if not back or happened.at - first.at <= ISOLATED:
                return
            recent.popleft()
            self._losses -= 1
            while not isinstance(recent[0], Loss):
                recent.popleft()

    def _lost_clients(self) -> int:
        """How many were lost in the window: one that came back and was lost again is one."""
        lost, out, back = 0, Counter[ClientKey](), Counter[ClientKey]()
        for happened in self._recent:
            client = happened.client
            if isinstance(happened, Loss):
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
        while recent and (recent[0].at < now - self._rules.window or not isinstance(recent[0], Loss)):
            self._losses -= isinstance(recent.popleft(), Loss)
