"""Messages that were refused for their size: how large, by whose limit, and which clients are in a loop.

Two kinds of evidence, never added together (DESIGN 5.8). Certain is a Close frame with 1009 (RFC 6455 section 7.4.1).
Suspected is a receiver that ended the connection otherwise over the largest message yet: several servers just drop TCP,
some send an empty Close or 1000. Sizes are payload bytes on the wire; times are seconds on one monotonic clock.
"""

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Final, NamedTuple

from exporter.closecodes import NO_CLOSE
from exporter.events import (
    DIRECTIONS,
    EVIDENCES,
    Bracket,
    ClientKey,
    Direction,
    Ending,
    Event,
    Evidence,
    Initiator,
    MessageRefused,
    Origin,
    Passing,
    Refusals,
)
from exporter.insight.evidence import Hours, Limit
from exporter.insight.repeats import NEVER, Repeats

TOO_BIG: Final = "1009"
"""The `code` label of a certain refusal."""

GOING_AWAY: Final = "going_away"
"""The class of a close by a side that leaves: a tab that is closed, a server that shuts down. That refuses nothing."""

_TOWARDS: Final[Mapping[Initiator, Direction]] = {"client": "server_to_client", "server": "client_to_server"}
"""The direction of what the initiator received. Where we ended it ourselves, or nobody knows who did, nothing shows."""

_NOTHING: Final = Passing()

LEAST_SIZE: Final = 4096
"""Bytes under which a message's size says nothing of a limit, unless other rules are given."""

AT_ONCE: Final = 100
"""Suspicions that one tick settles, so that it takes about a millisecond at most; the rest waits for the next."""


@dataclass(frozen=True, slots=True)
class OversizeRules:
    """Durations in seconds (a time of exactly that still counts), sizes in bytes.

    A refusal is a repeat within `repeat` of the client's last one; a client is stuck with `stuck_refusals` within
    `stuck`. No smaller size than `least_size` is suspected, or taken for evidence of a limit: limits are larger, and a
    peer may say 1009 to anything. A suspicion comes after at least `least_messages` in its direction, and is held for
    `hold`: longer than a mass close takes to be recognised as one. Of more than `most_held` at once the rest is not
    suspected: so many in so short a time say nothing of one message. `evidence` is for how long anything counts.
    """

    repeat: float = 300.0
    stuck: float = 900.0
    stuck_refusals: int = 3
    hold: float = 10.0
    least_size: int = LEAST_SIZE
    least_messages: int = 100
    most_held: int = 500
    evidence: float = 86_400.0


class _Suspicion(NamedTuple):
    """The receiver ended a connection over a message of `size`, at `at`; `client` is None if not recognised."""

    at: float
    direction: Direction
    size: int
    client: ClientKey | None


class _Losses:
    """When connections were lost without a Close frame, in one direction: last, and last of another client than that.

    Who is not recognised is another client each time.
    """

    __slots__ = ("_before", "_client", "_last")

    def __init__(self) -> None:
        self._client: ClientKey | None = None
        self._last = NEVER
        self._before = NEVER

    def add(self, client: ClientKey | None, now: float) -> None:
        """A connection of this client was lost."""
        self._before = self.of_another(client)
        self._client, self._last = client, now

    def of_another(self, client: ClientKey | None) -> float:
        """When a connection of any other client was lost last."""
        return self._before if _same(client, self._client) else self._last


def _same(one: ClientKey | None, other: ClientKey | None) -> bool:
    return one is not None and one == other


def refused_size(passing: Passing) -> int:
    """Which of the messages passing its receiver refused with a 1009, in bytes; 0 if there is none.

    The refused one is the unfinished one, or was completed shortly before (DESIGN 5.8). If a sender pipelines, the
    unfinished one may be a small later message: what is smaller than a plain message that the same receiver accepted
    cannot be over its limit, so the largest is the refused one. If that is smaller than an earlier message, a busy
    receiver has refused the earlier one late, or nobody knows why. Compressed sizes cannot be compared like that.
    """
    if passing.compressed:
        return passing.unfinished or passing.recent
    size = max(passing.unfinished, passing.recent)
    return size if size >= passing.largest else 0


def suspected_size(passing: Passing) -> int:
    """The plain message over which the receiver may have ended the connection, in bytes; 0 if there is none.

    A server that drops TCP does so at once: only the unfinished message, and those completed within the last second.
    """
    return 0 if passing.compressed else max(passing.unfinished, passing.last_second)


class Oversize:
    """The refused messages of one origin. It emits `MessageRefused`, and answers what a scrape or a page asks.

    `now` never goes back. Where several open connections hold a client's key (`shared`), a refusal counts, but for
    nobody: repeats of one client cannot be told from those of several.
    """

    def __init__(
        self,
        origin: Origin,
        emit: Callable[[Event], None],
        most_clients: int = 100_000,
        rules: OversizeRules = OversizeRules(),
    ) -> None:
        self._origin = origin
        self._emit = emit
        self._rules = rules
        self._limits: dict[Direction, Limit] = {direction: Limit(rules.evidence) for direction in DIRECTIONS}
        self._refusals: dict[tuple[Direction, Evidence], Hours] = {
            kind: Hours(rules.evidence) for kind in product(DIRECTIONS, EVIDENCES)
        }
        self._repeats = Repeats(most_clients, repeat=rules.repeat, stuck=rules.stuck, refusals=rules.stuck_refusals)
        self._held: deque[_Suspicion] = deque()
        self._losses: dict[Direction, _Losses] = {direction: _Losses() for direction in DIRECTIONS}

    def concerned(self, event: Ending) -> bool:
        """Whether `ended` could make anything of an ending: of most it cannot, and that is soon seen."""
        if event.code in (TOO_BIG, NO_CLOSE):
            return True
        passing = event.passing
        least = self._rules.least_size
        return passing is not None and (passing.unfinished >= least or passing.last_second >= least)

    def ended(
        self,
        event: Ending,
        now: float,
        *,
        shared: bool,
        mass_close: bool,
        messages: Callable[[Direction], int],
    ) -> None:
        """A WebSocket ended; to be called for each of which it is `concerned`.

        `shared` is whether several connections hold the client's key, `mass_close` whether a mass close is open.
        `messages`, how many there were so far in a direction, is asked only about a suspicion.
        """
        direction = _TOWARDS.get(event.initiator)
        if direction is None:
            return
        passing = event.passing or _NOTHING
        if event.code == TOO_BIG:
            client = None if shared else event.client
            self._refused(direction, "close_1009", refused_size(passing), client, now, compressed=passing.compressed)
            return
        suspicion = _Suspicion(now, direction, suspected_size(passing), None if shared else event.client)
        suspect = event.close_class != GOING_AWAY and not mass_close and self._suspicious(suspicion)
        if event.code == NO_CLOSE:
            self._lost(suspicion)
        if suspect and messages(direction) >= self._rules.least_messages:
            self._hold(suspicion)

    def _lost(self, loss: _Suspicion) -> None:
        """A connection was lost without a Close frame: so were others then, and it was not for their messages."""
        self._losses[loss.direction].add(loss.client, loss.at)
        if self._held:
            self._held = deque(suspicion for suspicion in self._held if not self._explains(loss, suspicion))

    def _explains(self, loss: _Suspicion, suspicion: _Suspicion) -> bool:
        """Whether `suspicion` ended as `loss` did, of another client and within the hold."""
        together = loss.direction == suspicion.direction and loss.at - suspicion.at <= self._rules.hold
        return together and not _same(loss.client, suspicion.client)

    def _suspicious(self, suspicion: _Suspicion) -> bool:
        """Whether its message is large enough, and no other client's connection was lost within the hold before it."""
        at, direction, size, client = suspicion
        if size < self._rules.least_size or not self._over(size, direction):
            return False
        return at - self._losses[direction].of_another(client) > self._rules.hold

    def _over(self, size: int, direction: Direction) -> bool:
        """Whether a message of `size` is larger than all that were accepted, as far as any is known."""
        return 0 < self._limits[direction].largest_accepted < size

    def _hold(self, suspicion: _Suspicion) -> None:
        """At the moment of a close nobody can know whether a mass close is just beginning."""
        if len(self._held) < self._rules.most_held:
            self._held.append(suspicion)

    def reported(
        self, direction: Direction, size: int | None, client: ClientKey | None, now: float, *, shared: bool
    ) -> None:
        """A service reported a close with 1009, over a message of `size` bytes if it says."""
        self._refused(direction, "close_1009", size or 0, None if shared else client, now)

    def accepted(self, direction: Direction, size: int, now: float) -> None:
        """A plain message of `size` bytes passed, and its connection stayed open."""
        self._limits[direction].accepted(size, now)

    def mass_close(self, began: float) -> None:
        """A mass close has opened, whose first close was at `began`: connections ended since then for other reasons."""
        self._held = deque(suspicion for suspicion in self._held if suspicion.at < began)

    def tick(self, now: float) -> None:
        """Time has passed: settle suspicions and age evidence. To be called about every half second."""
        for _ in range(min(len(self._held), AT_ONCE)):
            if now - self._held[0].at <= self._rules.hold:
                break
            self._settle(self._held.popleft())
        self._repeats.tick(now)
        self._age(now)

    def _age(self, now: float) -> None:
        for limit in self._limits.values():
            limit.age(now)
        for refusals in self._refusals.values():
            refusals.age(now)

    def _settle(self, suspicion: _Suspicion) -> None:
        """No mass close came. But a message as large that had just passed elsewhere may count as accepted only now."""
        at, direction, size, client = suspicion
        if size > self._limits[direction].largest_accepted:
            self._refused(direction, "suspected", size, client, at)

    def _refused(
        self,
        direction: Direction,
        evidence: Evidence,
        size: int,
        client: ClientKey | None,
        at: float,
        *,
        compressed: bool = False,
    ) -> None:
        """A message was refused. The size of a compressed or tiny one is told, but no conclusion is drawn from it."""
        telling = 0 if compressed or size < self._rules.least_size else size
        self._refusals[direction, evidence].add(telling, at)
        if telling and evidence == "close_1009":
            self._limits[direction].refused(telling, at, client)
        repeated = client is not None and self._repeats.refused(client, evidence, at)
        self._emit(MessageRefused(self._origin, direction, evidence, size, compressed, repeated))

    def brackets(self) -> Mapping[Direction, Bracket]:
        """What is known of the real limit in each direction, as of the last tick."""
        return {direction: limit.bracket() for direction, limit in self._limits.items()}

    def stuck_clients(self, now: float) -> int:
        """How many clients are refused again and again; to the second."""
        return self._repeats.stuck(now)

    def refusals(self, now: float) -> tuple[Refusals, ...]:
        """The refused messages of the last 24 hours, by direction and evidence; only what there was."""
        self._age(now)
        return tuple(
            Refusals(*kind, hours.count, hours.sized, hours.smallest, hours.largest, now - hours.last)
            for kind, hours in self._refusals.items()
            if hours.last is not None
        )
