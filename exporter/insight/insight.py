"""What the events of all origins add up to: a Sink that hears what happens and tells another one what it means."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from exporter.events import (
    Attached,
    ClientKey,
    ClientReport,
    ClientsReported,
    Direction,
    Ending,
    HandshakeEnded,
    HandshakeOutcome,
    Initiator,
    Listener,
    Origin,
    Reconnected,
    Sink,
    Standing,
)
from exporter.insight.builds import Builds
from exporter.insight.incident import MassCloseRules
from exporter.insight.mass_close import MassCloses, is_loss
from exporter.insight.oversize import Oversize, OversizeRules
from exporter.insight.reconnects import TOKEN_LIFE, Reconnects, after_close
from exporter.insight.seconds import LastMinute

MOST_CLIENTS: Final = 100_000
"""Clients that are remembered of each origin."""

FRESH: Final = 5.0
"""Seconds that a reported event may be old, or ahead, to tell how clients come back."""

TICKS_PER_SECOND: Final = 2
"""How often `tick` wants to be called; the unit of `Sizes.advance`."""


class Sizes(Protocol):
    """What the frame meters of one direction share: see `wire.sizes.DirectionSizes`."""

    def advance(self, tick: int) -> int:
        """Let it be `tick`, in steps of a second / TICKS_PER_SECOND. Returns the largest message accepted since."""
        ...

    def messages(self) -> int:
        """How many plain messages have passed."""
        ...


@dataclass(frozen=True, slots=True)
class Rules:
    """Every duration (seconds) and floor of the insights. `token_life` is how long a close waits for its client."""

    most_clients: int = MOST_CLIENTS
    token_life: float = TOKEN_LIFE
    mass_close: MassCloseRules = field(default_factory=MassCloseRules)
    oversize: OversizeRules = field(default_factory=OversizeRules)


class _Watched:
    """All that is derived for one origin."""

    def __init__(
        self, origin: Origin, builds: Builds, sizes: Mapping[Direction, Sizes], sink: Sink, rules: "Rules"
    ) -> None:
        self._origin = origin
        self._emit = sink.emit
        self._rules = rules
        self.builds = builds
        self.sizes = sizes
        self.last_minute = LastMinute()
        self.reconnects = Reconnects(rules.most_clients, rules.token_life)
        self.mass_closes = MassCloses(origin, sink.emit, builds, rules.mass_close)
        self.oversize = Oversize(origin, sink.emit, rules.most_clients, rules.oversize)

    def came(
        self, outcome: HandshakeOutcome, now: float, attempted: float, client: ClientKey | None, user_agent: str
    ) -> None:
        """An opening handshake is over, that was `attempted` before."""
        if outcome != "refused_by_exporter":
            self.last_minute.add(attempted)
        if outcome == "accepted":
            self.mass_closes.opened(now)
        if client is None:
            return
        came_back = self.reconnects.attempted(client, attempted)
        delay = None
        if came_back is not None:
            delay = came_back.delay
            build = None if delay is None else self.builds.listed(user_agent)
            self._emit(Reconnected(self._origin, came_back.after, delay, build))
        self.mass_closes.handshake(now, client, outcome, attempted, delay)
        if outcome == "accepted":
            self.reconnects.opened(client, now)

    def held(self, client: ClientKey | None, now: float) -> None:
        """A connection is there that nobody saw come."""
        self.mass_closes.opened(now)
        if client is not None:
            self.reconnects.opened(client, now)

    def went(self, event: Ending, now: float) -> None:
        """A connection has ended."""
        client = event.client
        replaced = self._lose(now, client, event.code, event.initiator, event.user_agent)
        if self.oversize.concerned(event):
            self.oversize.ended(
                event,
                now,
                shared=client is None or self.reconnects.shared(client, now),
                mass_close=self.mass_closes.began is not None,
                messages=self._messages,
            )
        if client is not None:
            self._leave(client, event.close_class, now, event.user_agent, replaced=replaced)

    def reported(self, report: ClientReport, now: float) -> None:
        """A service said what happened `report.ago`. What is late tells who is connected, and nothing else.

        Taken for what it says, a batch that was held back would be a herd.
        """
        client, happened, fresh = report.client, now - report.ago, abs(report.ago) <= FRESH
        if fresh and report.close_class == "too_big" and report.direction is not None:
            shared = client is not None and self.reconnects.shared(client, now)
            self.oversize.reported(report.direction, report.message_size, client, now, shared=shared)
        if client is None:
            return
        if not fresh:
            self._late(report, client, happened)
        elif report.event == "open":
            self.came("accepted", happened, happened, client, report.user_agent)
        else:
            self._reported_close(report, client, happened)

    def _late(self, report: ClientReport, client: ClientKey, happened: float) -> None:
        if report.event == "open":
            self.mass_closes.opened(happened)
            self.reconnects.opened(client, happened)
        else:
            self.mass_closes.left(happened)
            self.reconnects.ended(client, report.close_class, happened, token=False)

    def _reported_close(self, report: ClientReport, client: ClientKey, ended: float) -> None:
        """Only of a connection whose opening was reported is it known who is left."""
        replaced = False
        if self.reconnects.holds(client):
            replaced = self._lose(ended, client, report.code, report.initiator, report.user_agent)
        else:
            self.mass_closes.left(ended)
        self._leave(client, report.close_class, ended, report.user_agent, replaced=replaced)

    def _lose(self, now: float, client: ClientKey | None, code: str, initiator: Initiator, user_agent: str) -> bool:
        """A connection is gone. Returns whether its client is back already."""
        replaced = (
            client is not None
            and is_loss(code, initiator)
            and self.reconnects.replaced(client, now, self._rules.mass_close.window)
        )
        before = self.mass_closes.began
        self.mass_closes.ended(now, client, code, initiator, user_agent, replaced=replaced)
        began = self.mass_closes.began
        if began is not None and before is None:
            self.oversize.mass_close(began)
        return replaced

    def _leave(self, client: ClientKey, close_class: str, now: float, user_agent: str, *, replaced: bool) -> None:
        """A client's close waits for it to come back, unless it has."""
        self.reconnects.ended(client, close_class, now, token=not replaced)
        if replaced:
            after = after_close(close_class)
            self._emit(Reconnected(self._origin, after, 0.0, self.builds.listed(user_agent)))

    def _messages(self, direction: Direction) -> int:
        sizes = self.sizes.get(direction)
        return 0 if sizes is None else sizes.messages()

    def standing(self, now: float) -> Standing:
        """What holds now."""
        total, peak = self.last_minute.total_and_peak(now)
        return Standing(
            last_minute=total,
            peak_per_second=peak,
            mass_close_active=self.mass_closes.began is not None,
            shared_connections=self.reconnects.shared_connections,
            stuck_clients=self.oversize.stuck_clients(now),
            brackets=self.oversize.brackets(),
            refusals=self.oversize.refusals(now),
        )


class Insight(Listener):
    """Derives what PromQL cannot: who came back, from which mass close, and which messages were refused.

    It hears the events of the origins that it is told to `watch`, and emits what follows from them to `sink`, which may
    be where they come from. `clock` is monotonic, in seconds; `tick` must be called about twice a second.
    """

    def __init__(self, sink: Sink, clock: Callable[[], float], rules: Rules | None = None) -> None:
        self._sink = sink
        self._clock = clock
        self._rules = rules or Rules()
        self._watched: dict[Origin, _Watched] = {}
        self.handlers = {
            HandshakeEnded: self._handshake_ended,
            Attached: self._attached,
            Ending: self._ending,
            ClientsReported: self._clients_reported,
        }

    def watch(
        self,
        origin: Origin,
        listed_build: Callable[[str], str | None],
        sizes: Mapping[Direction, Sizes] | None = None,
    ) -> None:
        """Derive what there is for `origin`, from now on. What is known of it already stays known.

        `listed_build` finds the operator's pattern that a User-Agent fits; `sizes` is what its frame meters share.
        """
        builds = Builds(listed_build)
        watched = self._watched.get(origin)
        if watched is None:
            self._watched[origin] = _Watched(origin, builds, sizes or {}, self._sink, self._rules)
        else:
            watched.builds = watched.mass_closes.builds = builds

    def tick(self) -> None:
        """Time passes."""
        now = self._clock()
        for watched in self._watched.values():
            for direction, sizes in watched.sizes.items():
                accepted = sizes.advance(int(now * TICKS_PER_SECOND))
                if accepted:
                    watched.oversize.accepted(direction, accepted, now)
            watched.mass_closes.tick(now)
            watched.oversize.tick(now)

    def drain(self) -> None:
        """This process is being shut down: whatever closes now, its clients are meant to go elsewhere."""
        for watched in self._watched.values():
            watched.mass_closes.draining = True

    def finish(self) -> None:
        """Judge what is under way: nothing more will happen."""
        now = self._clock()
        for watched in self._watched.values():
            watched.mass_closes.finish(now)

    def standings(self) -> Mapping[Origin, Standing]:
        """What holds of each origin now."""
        now = self._clock()
        return {origin: watched.standing(now) for origin, watched in self._watched.items()}

    def _handshake_ended(self, event: HandshakeEnded) -> None:
        watched = self._watched.get(event.origin)
        if watched is not None:
            now = self._clock()
            watched.came(event.outcome, now, now - event.duration, event.client, event.user_agent)

    def _attached(self, event: Attached) -> None:
        watched = self._watched.get(event.origin)
        if watched is not None:
            watched.held(event.client, self._clock())

    def _ending(self, event: Ending) -> None:
        watched = self._watched.get(event.origin)
        if watched is not None:
            watched.went(event, self._clock())

    def _clients_reported(self, event: ClientsReported) -> None:
        now = self._clock()
        for report in event.reports:
            watched = self._watched.get(report.origin)
            if watched is not None:
                watched.reported(report, now)
