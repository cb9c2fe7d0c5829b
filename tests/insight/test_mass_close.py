"""Mass closes: what makes one, when it is over, and what is counted of it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

import pytest

from exporter.events import (
    ClientKey,
    Event,
    HandshakeOutcome,
    Initiator,
    MassClose,
    MassCloseEnded,
    MassCloseLost,
    MassCloseReturned,
    Origin,
)
from exporter.insight.builds import MOST_BUILDS, OTHERS, Builds
from exporter.insight.incident import MassCloseRules
from exporter.insight.mass_close import (
    AT_ONCE,
    MOST_REPLAYED,
    PER_TICK,
    MassCloses,
    is_loss,
)

CHAT = Origin("tap", "chat")
RULES = MassCloseRules()
_E = TypeVar("_E", bound=Event)


@dataclass
class Service:
    """A service, its clients 0, 1, 2 ..., and the clock."""

    rules: MassCloseRules = RULES
    now: float = 1000.0
    events: list[Event] = field(default_factory=list)
    build: Callable[[int], str] = lambda client: "app/1"

    def __post_init__(self) -> None:
        self.watch = MassCloses(CHAT, self.events.append, Builds(lambda _: None), self.rules)

    def opens(self, clients: int, first: int = 0) -> None:
        """So many connect, and it is an hour ago."""
        for client in range(first, first + clients):
            self.watch.opened(self.now)
            self.watch.handshake(self.now, ClientKey(client), "accepted", self.now, None)
        self.passes(3600)

    def loses(self, *clients: int, code: str = "1001", initiator: Initiator = "server") -> None:
        for client in clients:
            self.watch.ended(self.now, ClientKey(client), code, initiator, self.build(client))

    def sees(
        self, *clients: int, outcome: HandshakeOutcome = "accepted", after: float | None = None, took: float = 0.0
    ) -> None:
        """The clients' handshakes end so; `after` is how long after their close they tried."""
        for client in clients:
            if outcome == "accepted":
                self.watch.opened(self.now)
            self.watch.handshake(self.now, ClientKey(client), outcome, self.now - took, after)

    def passes(self, seconds: float) -> None:
        self.now += seconds
        self.watch.tick(self.now)

    def told(self, kind: type[_E]) -> list[_E]:
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def over(self) -> list[MassClose]:
        return [event.mass_close for event in self.told(MassCloseEnded)]

    @property
    def lost(self) -> int:
        return sum(event.connections for event in self.told(MassCloseLost))


@pytest.mark.parametrize(("lost", "one"), [(4, False), (5, True)])
def test_at_least_five_connections(lost: int, one: bool) -> None:
    """Four of four are few people; five are the least that count."""
    service = Service()
    service.opens(lost)
    service.loses(*range(lost))
    assert (service.watch.began is not None) == one
    assert service.lost == (lost if one else 0)


@pytest.mark.parametrize(("lost", "one"), [(24, False), (25, True), (26, True)])
def test_at_least_a_quarter_of_what_was_open(lost: int, one: bool) -> None:
    """Of 100 open connections 25 must end."""
    service = Service()
    service.opens(100)
    service.loses(*range(lost))
    assert (service.watch.began is not None) == one


@pytest.mark.parametrize(("before", "one"), [(599.0, False), (621.0, True)])
def test_the_most_that_were_open_in_ten_minutes(before: float, one: bool) -> None:
    """After 80 of 100 have left one by one, 5 of 20 are a mass close only once the 100 are over ten minutes ago."""
    service = Service()
    service.opens(100)
    for client in range(80):
        service.loses(client, code="1000", initiator="client")
    service.passes(before)
    service.loses(*range(80, 85))
    assert (service.watch.began is not None) == one


@pytest.mark.parametrize(("gap", "one"), [(2.5, True), (2.51, False)])
def test_within_ten_seconds(gap: float, one: bool) -> None:
    """Five losses at equal distances count if the last is at most 10 s after the first."""
    service = Service()
    service.opens(20)
    for client in range(5):
        service.loses(client)
        service.passes(gap)
    assert (service.watch.began is not None) == one
    if one:
        assert service.watch.began == pytest.approx(4600.0)


@pytest.mark.parametrize(
    ("code", "initiator", "lost"),
    [
        ("1001", "client", False),
        ("1000", "client", False),
        ("1005", "client", False),
        ("1006", "client", True),
        ("1006", "server", True),
        ("1001", "server", True),
        ("1000", "server", True),
        ("1012", "server", True),
        ("1006", "exporter", True),
        ("1001", "unknown", True),
        ("unknown", "unknown", True),
        ("1009", "server", False),
        ("1009", "unknown", False),
    ],
)
def test_what_is_lost(code: str, initiator: Initiator, lost: bool) -> None:
    """Whatever ended without a Close frame from the client, any code."""
    assert is_loss(code, initiator) == lost
    service = Service()
    service.opens(20)
    service.loses(*range(20), code=code, initiator=initiator)
    assert service.lost == (20 if lost else 0)


def test_two_hundred_people_who_leave_are_no_incident() -> None:
    """Tabs closed by the browser say 1001 themselves."""
    service = Service()
    service.opens(200)
    service.loses(*range(200), initiator="client")
    assert service.watch.began is None
    assert service.events == []


def test_further_losses_extend_the_one_that_is_open() -> None:
    """Losses count from the first of the window, and later ones as they come, one by one."""
    service = Service()
    service.opens(100)
    service.loses(*range(40))
    service.passes(60)
    service.loses(*range(40, 100), code="1006")
    assert service.lost == 100
    service.passes(600)
    assert [over.lost for over in service.over] == [100]
    assert service.over[0].lost_by == {("1001", "server"): 40, ("1006", "server"): 60}


def test_it_is_over_when_95_percent_have_been_back_for_ten_seconds() -> None:
    """At 94 of 100 it is not; at 95 it is ten seconds later, unless they are lost again meanwhile."""
    service = Service()
    service.opens(100)
    service.loses(*range(100))
    service.passes(2)
    service.sees(*range(94))
    service.passes(60)
    assert service.over == []
    service.sees(94)
    service.passes(9.9)
    assert service.over == []
    service.passes(0.1)
    assert [over.back for over in service.over] == [95]
    assert service.watch.began is None


def test_who_is_lost_again_is_not_back_and_not_lost_twice() -> None:
    """A service that accepts and then drops: the incident goes on, each client counts once."""
    service = Service()
    service.opens(100)
    service.loses(*range(100))
    for _ in range(5):
        service.passes(3)
        service.sees(*range(100))
        service.passes(3)
        service.loses(*range(100), code="1013")
    assert service.over == []
    assert service.lost == 100
    assert len(service.told(MassCloseReturned)) == 100
    service.passes(600)
    over = service.over[0]
    assert (over.lost, over.back, over.returns, over.answered) == (100, 0, 100, 500)
    assert over.verdict == "amplified"


def test_it_is_over_after_ten_minutes_at_the_latest() -> None:
    """Whoever is not back by then is counted as not back."""
    service = Service()
    service.opens(100)
    service.loses(*range(100))
    service.passes(1)
    service.sees(*range(60), outcome="failed")
    service.passes(598.9)
    assert service.over == []
    service.passes(0.1)
    assert [(over.lasted, over.back, over.tried) for over in service.over] == [(pytest.approx(600.0), 0, 60)]


def test_returns_are_told_by_the_time_since_the_first_close() -> None:
    """Not by the time since the client's own."""
    service = Service()
    service.opens(5)
    service.loses(*range(4))
    service.now += 4
    service.loses(4)
    service.now += 2
    service.sees(0, 4)
    assert [event.within for event in service.told(MassCloseReturned)] == ["30s", "30s"]


def test_who_returned_before_it_was_clear_counts_too() -> None:
    """Closes trickle over 9 s, and clients come back at once: what happened since the first close is taken in order."""
    service = Service()
    service.opens(100)
    service.sees(99, outcome="failed")
    for client in range(25):
        service.loses(client)
        service.now += 0.36
        service.sees(client, after=0.36)
    service.passes(0.0)
    assert service.lost == 25
    assert [event.within for event in service.told(MassCloseReturned)].count("1s") == 2
    assert len(service.told(MassCloseReturned)) == 25
    service.passes(20)
    assert [(over.back, over.returns, over.gap) for over in service.over] == [(25, 25, pytest.approx(0.36))]


def test_what_waits_is_taken_a_few_at_a_time() -> None:
    """Of 10,000 connections 2,500 must end before it is clear; no event and no tick then takes them all at once."""
    service = Service()
    service.opens(10_000)
    told = 0
    for client in range(10_000):
        service.loses(client)
        assert len(service.events) - told <= AT_ONCE
        told = len(service.events)
    assert service.lost == 10_000
    service = Service()
    service.opens(10_000)
    service.loses(*range(2_500))
    assert service.lost == AT_ONCE
    service.passes(0.5)
    assert service.lost == AT_ONCE + PER_TICK
    service.watch.finish(service.now)
    assert [over.lost for over in service.over] == [2_500]
    service.loses(*range(2_500, 2_504))
    service.passes(10)
    assert service.watch.began is None


def test_one_client_that_is_dropped_again_and_again_is_no_mass_close() -> None:
    """However fast it comes back: it is one client."""
    service = Service()
    service.opens(15)
    for _ in range(20):
        service.loses(7, code="1011")
        service.passes(0.1)
        service.sees(7)
        service.passes(0.1)
    assert service.events == []


def test_who_was_back_before_is_not_the_beginning() -> None:
    """A single loss, a return, and four seconds later the deploy: it began with the deploy."""
    service = Service()
    service.opens(100)
    service.loses(99, code="1006")
    service.passes(1)
    service.sees(99)
    service.passes(3)
    deployed = service.now
    service.loses(*range(60))
    assert service.watch.began == deployed
    service.passes(1)
    service.sees(*range(60), outcome="rejected")
    service.passes(5)
    service.sees(*range(60))
    service.passes(10)
    assert [(over.lost, over.gap, over.rejected) for over in service.over] == [(60, pytest.approx(6.0), 0)]


def test_only_the_lost_clients_handshakes_count() -> None:
    """A login rush of others after a restart is nobody's storm."""
    service = Service()
    service.opens(60)
    service.loses(*range(60))
    service.passes(1)
    service.sees(*range(1000, 2000), outcome="rejected")
    service.sees(*range(60))
    service.passes(10)
    over = service.over[0]
    assert (over.answered, over.rejected, over.tried) == (60, 0, 60)


def test_the_gap_is_until_the_first_who_was_accepted() -> None:
    """Failures and rejections before it are the outage's doing: they are not answers."""
    service = Service()
    service.opens(60)
    service.loses(*range(60))
    service.passes(1)
    service.sees(*range(60), outcome="failed")
    service.sees(*range(60), outcome="rejected")
    service.passes(1.1)
    service.sees(*range(60))
    service.sees(59, outcome="rejected")
    service.passes(10)
    over = service.over[0]
    assert over.gap == pytest.approx(2.1)
    assert (over.answered, over.rejected) == (60, 0)


def test_the_busiest_second_is_of_arrivals() -> None:
    """A service that answers slowly does not hide that all of its clients came at once."""
    service = Service()
    service.opens(100)
    service.loses(*range(100))
    service.passes(3)
    for client in range(100):
        service.now += 0.1
        service.sees(client, took=0.1 * (client + 1))
    service.passes(10)
    assert service.over[0].busiest_second == 100
    assert service.over[0].verdict == "herd"


def test_a_server_that_stays_down_is_unrecovered() -> None:
    """Its clients try again and again, so nobody else took them."""
    service = Service()
    service.opens(200)
    service.loses(*range(200), code="1006")
    for _ in range(10):
        service.passes(5)
        service.sees(*range(200), outcome="failed")
    service.passes(600)
    assert [(over.verdict, over.tried, over.returns) for over in service.over] == [("unrecovered", 200, 0)]


def test_clients_that_another_replica_took_have_moved() -> None:
    """They do not so much as try here."""
    service = Service()
    service.opens(200)
    service.loses(*range(200))
    service.passes(600)
    assert [over.verdict for over in service.over] == ["moved"]


def test_a_process_that_is_shut_down_sends_its_clients_elsewhere() -> None:
    """What its own drain closes is judged at once when it ends."""
    service = Service()
    service.opens(200)
    service.watch.draining = True
    service.loses(*range(200), code="1006", initiator="exporter")
    service.watch.finish(service.now)
    service.watch.finish(service.now)
    assert [(over.verdict, over.draining) for over in service.over] == [("moved", True)]


def test_calm_clients_that_move_about_are_no_storm() -> None:
    """Whoever is back is a visitor like any other: new pages, new connections."""
    service = Service()
    service.opens(100)
    service.loses(*range(100))
    for client in range(100):
        service.passes(0.05)
        service.sees(client)
    for _ in range(3):
        service.loses(*range(94), code="1001", initiator="client")
        service.sees(*range(94))
        service.sees(*range(94), outcome="rejected")
    service.passes(10)
    assert [(over.verdict, over.answered, over.rejected) for over in service.over] == [("healthy", 100, 0)]


def test_a_service_that_dies_again_is_unrecovered() -> None:
    """All came back once, and nobody is there at the end."""
    service = Service()
    service.opens(100)
    service.loses(*range(100))
    for client in range(94):
        service.passes(0.05)
        service.sees(client)
    service.passes(5)
    service.loses(*range(94), code="1006")
    service.passes(600)
    assert [(over.verdict, over.returns, over.back) for over in service.over] == [("unrecovered", 94, 0)]


def test_batches_behind_one_key_all_count() -> None:
    """Of a key of many nobody can tell who was lost again: each connection that is lost counts."""
    service = Service()
    service.opens(1000)
    for _ in range(3):
        for _ in range(300):
            service.loses(7)
        service.passes(1)
        for _ in range(300):
            service.sees(7)
        service.passes(1)
    assert service.lost == 900


def test_what_the_exporter_refused_itself_is_told() -> None:
    """Its own limit must not be taken for the service's fault."""
    service = Service()
    service.opens(60)
    service.loses(*range(60))
    service.passes(1)
    service.sees(*range(60), outcome="refused_by_exporter")
    service.passes(600)
    assert [(over.verdict, over.refused, over.tried) for over in service.over] == [("unrecovered", 60, 60)]


@pytest.mark.parametrize(("burst", "one"), [(60, False), (61, True)])
def test_what_a_server_does_all_day_is_no_mass_close(burst: int, one: bool) -> None:
    """It ends each connection after a while, 20 in each ten seconds: only more than three times that is one."""
    service = Service()
    service.opens(100)
    for _ in range(59):
        service.loses(*range(20), code="1000")
        service.watch.finish(service.now)  # the very first were one, for nothing else was known
        service.sees(*range(20))
        service.passes(10)
    service.passes(0.001)
    service.events.clear()
    service.loses(*range(20), code="1000")
    service.passes(10.001)
    service.loses(*range(burst), code="1006")
    assert (service.watch.began is not None) == one


def test_handshakes_that_wait_for_a_verdict_are_bounded() -> None:
    """While it is not clear whether a mass close has begun, no more than so many are remembered."""
    service = Service()
    service.opens(100)
    service.loses(0)
    service.sees(*range(MOST_REPLAYED + 10), outcome="failed")
    assert len(service.watch._recent) == MOST_REPLAYED + 1


def test_clients_that_are_recognised_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of more only the number is known: they count as lost, and are not seen to return."""
    monkeypatch.setattr("exporter.insight.incident.MOST_LOST", 10)
    service = Service()
    service.opens(100)
    service.loses(*range(100))
    service.passes(1)
    service.sees(*range(100))
    service.passes(600)
    assert [(over.lost, over.returns, over.back) for over in service.over] == [(100, 10, 10)]


def test_more_ends_than_openings_were_seen() -> None:
    """Fewer than none cannot be open."""
    service = Service()
    service.opens(1)
    for _ in range(3):
        service.watch.left(service.now)
    service.watch.opened(service.now)
    assert service.watch._active == 1


def test_a_shared_key_stands_for_as_many_as_were_lost() -> None:
    """A hundred behind one address: each return counts, up to the hundred."""
    service = Service()
    service.opens(100)
    for _ in range(100):
        service.loses(7)
    service.passes(1)
    for _ in range(60):
        service.sees(7)
    service.passes(2)
    for _ in range(60):
        service.sees(7)
    service.passes(10)
    over = service.over[0]
    assert (over.lost, over.returns, over.back, over.tried) == (100, 100, 100, 100)
    assert over.verdict == "herd"


def test_clients_that_cannot_be_recognised_are_lost_and_never_seen_again() -> None:
    """They count as lost, and nothing is made up about them."""
    service = Service()
    service.opens(10)
    for _ in range(10):
        service.watch.ended(service.now, None, "1001", "server", "")
    service.passes(600)
    assert [(over.lost, over.back, over.verdict) for over in service.over] == [(10, 0, "moved")]


def test_builds_are_told_apart() -> None:
    """Per build: lost, returned, and the delays of first attempts; the most numerous first."""
    service = Service(build=lambda client: "acme-app/3.1" if client < 60 else "okhttp/5.0")
    service.opens(100)
    service.loses(*range(100))
    service.passes(0.2)
    service.sees(*range(60), outcome="failed", after=0.2)
    service.passes(2.8)
    service.sees(*range(60), after=None)
    service.sees(*range(60, 80), after=3.0)
    service.passes(600)
    first, second = service.over[0].builds
    assert (first.build, first.lost, first.returned, first.delays, first.at_once) == ("acme-app/3", 60, 60, 60, 60)
    assert (first.median_delay, first.rhythm) == (pytest.approx(0.2), "immediate")
    assert (second.build, second.lost, second.returned, second.delays, second.at_once) == ("okhttp/5", 40, 20, 20, 0)
    assert (second.median_delay, second.rhythm) == (pytest.approx(3.0), "fixed_interval")


def test_builds_are_bounded() -> None:
    """Beyond fifty all are others."""
    service = Service(build=lambda client: f"app{client}/1")
    service.opens(100)
    service.loses(*range(100))
    service.passes(600)
    builds = {build.build: build.lost for build in service.over[0].builds}
    assert len(builds) == MOST_BUILDS + 1
    assert builds[OTHERS] == 100 - MOST_BUILDS
