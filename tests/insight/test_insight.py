"""The insights together: what they hear, what they tell, and what holds."""

from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from exporter.events import (
    ClientKey,
    ClientReport,
    ClientsReported,
    Closed,
    Ending,
    Event,
    HandshakeEnded,
    HandshakeOutcome,
    MassCloseEnded,
    MassCloseLost,
    MessageRefused,
    Origin,
    Passing,
    Reconnected,
)
from exporter.insight.incident import MassCloseRules
from exporter.insight.insight import Insight, Rules

CHAT = Origin("tap", "chat")
REPORTED = Origin("webhook", "chat")
UNWATCHED = Origin("probe", "chat")
STATUS: dict[HandshakeOutcome, str] = {
    "accepted": "101",
    "rejected": "503",
    "failed": "refused",
    "refused_by_exporter": "limit",
}
_E = TypeVar("_E", bound=Event)


@dataclass
class Meters:
    """What frame meters share."""

    tick: int = 0
    accepted: int = 0
    passed: int = 0

    def advance(self, tick: int) -> int:
        self.tick = tick
        accepted, self.accepted = self.accepted, 0
        return accepted

    def messages(self) -> int:
        return self.passed


@dataclass
class Told:
    """The insights, their clock, and what they told."""

    now: float = 1000.0
    events: list[Event] = field(default_factory=list)
    up: Meters = field(default_factory=Meters)
    rules: Rules = field(default_factory=Rules)

    def __post_init__(self) -> None:
        self.insight = Insight(self, lambda: self.now, self.rules)
        for origin, sizes in ((CHAT, {"client_to_server": self.up}), (REPORTED, None)):
            self.insight.watch(origin, lambda agent: "app/*" if agent.startswith("app/") else None, sizes)  # type: ignore[arg-type]

    def emit(self, event: Event) -> None:
        self.events.append(event)
        self.insight.emit(event)  # as in the house: what it tells comes back to it

    def comes(
        self, client: int | None = 1, outcome: HandshakeOutcome = "accepted", origin: Origin = CHAT, took: float = 0.0
    ) -> None:
        key = None if client is None else ClientKey(client)
        self.insight.emit(HandshakeEnded(origin, outcome, STATUS[outcome], took, key, "app/1"))

    def goes(self, client: int | None = 1, **how: Any) -> None:
        key = None if client is None else ClientKey(client)
        ending = Ending(CHAT, "1001", "going_away", "server", Passing(), key, "app/1")
        self.insight.emit(replace(ending, **how))

    def reports(self, *reports: ClientReport) -> None:
        self.insight.emit(ClientsReported(reports))

    def passes(self, seconds: float) -> None:
        self.now += seconds
        self.insight.tick()

    def told(self, kind: type[_E]) -> list[_E]:
        return [event for event in self.events if isinstance(event, kind)]


def test_a_client_that_comes_back() -> None:
    """It is told once, with its delay from the close to when the attempt was made, and the build that is listed."""
    told = Told()
    told.comes()
    told.now += 100
    told.goes()
    told.now += 5
    told.comes(took=2.0, outcome="failed")
    told.comes()
    assert told.events == [Reconnected(CHAT, "going_away", 3.0, "app/*")]


def test_a_build_is_told_only_with_a_delay() -> None:
    """Of a key that several hold at once neither is known."""
    told = Told()
    told.comes()
    told.comes()
    told.now += 60
    told.goes()
    told.comes()
    assert told.events == [Reconnected(CHAT, "going_away", None, None)]


def test_who_cannot_be_recognised_is_counted_as_an_arrival() -> None:
    """And as a connection; nothing is told of it."""
    told = Told()
    for _ in range(10):
        told.comes(None)
    standing = told.insight.standings()[CHAT]
    assert (standing.last_minute, standing.peak_per_second) == (10, 10)
    for _ in range(10):
        told.goes(None)
    assert told.insight.standings()[CHAT].mass_close_active
    assert [event.connections for event in told.told(MassCloseLost)] == [1] * 10


def test_arrivals_are_when_they_were_attempted() -> None:
    """Ten that took up to 9 s each came at once; what the exporter refused itself is none of them."""
    told = Told()
    for second in range(10):
        told.comes(second, took=float(second), outcome="rejected")
        told.comes(second, took=float(second), outcome="refused_by_exporter")
        told.now += 1
    standing = told.insight.standings()[CHAT]
    assert (standing.last_minute, standing.peak_per_second) == (10, 10)


def test_origins_that_are_not_watched_tell_nothing() -> None:
    """The probe's own connections come back by design."""
    told = Told()
    told.comes(origin=UNWATCHED)
    told.goes(origin=UNWATCHED)
    told.reports(ClientReport(Origin("webhook", "other"), "open", 0.0, ClientKey(1), ""))
    told.insight.emit(Closed(CHAT, "1001", "going_away", "server", 1.0))
    assert told.events == []
    assert set(told.insight.standings()) == {CHAT, REPORTED}


def test_a_mass_close_from_first_loss_to_verdict() -> None:
    """It is active, ends by the passing of time, and drops what was suspected since its first close."""
    told = Told(rules=Rules(mass_close=MassCloseRules(settled=1.0)))
    for client in range(60):
        told.comes(client)
    told.passes(60)
    told.up.passed, told.up.accepted = 1000, 5000
    told.passes(1)
    for client in range(60):
        told.goes(client, code="1006", close_class="abnormal", passing=Passing(unfinished=100_000))
    assert told.insight.standings()[CHAT].mass_close_active
    told.passes(2)
    for client in range(60):
        told.comes(client)
    told.passes(1.5)
    told.passes(20)
    [over] = told.told(MassCloseEnded)
    assert (over.mass_close.verdict, over.mass_close.lost, over.mass_close.returns) == ("herd", 60, 60)
    assert told.told(MessageRefused) == []
    assert not told.insight.standings()[CHAT].mass_close_active


def test_draining_and_finishing() -> None:
    """What is under way when the process ends is judged, and has moved."""
    told = Told()
    for client in range(10):
        told.comes(client)
    told.insight.drain()
    for client in range(10):
        told.goes(client, initiator="exporter", code="1006", passing=None)
    told.insight.finish()
    assert [over.mass_close.verdict for over in told.told(MassCloseEnded)] == ["moved"]


def test_refused_messages() -> None:
    """A 1009 is told at once with its size; the second within five minutes is a repeat, the third makes stuck."""
    told = Told()
    for _ in range(3):
        told.comes()
        told.goes(code="1009", close_class="too_big", passing=Passing(unfinished=2_000_000))
        told.now += 10
    refused = MessageRefused(CHAT, "client_to_server", "close_1009", 2_000_000)
    assert told.told(MessageRefused) == [refused, replace(refused, repeated=True), replace(refused, repeated=True)]
    standing = told.insight.standings()[CHAT]
    assert standing.stuck_clients == 1
    assert standing.brackets["client_to_server"].rejected == 2_000_000
    assert [(one.count, one.largest) for one in standing.refusals] == [(3, 2_000_000)]


def test_messages_are_fetched_from_the_meters() -> None:
    """With each tick, which the meters learn; what was fetched is set back."""
    told = Told()
    told.up.accepted = 70_000
    told.passes(0.5)
    assert told.insight.standings()[CHAT].brackets["client_to_server"].accepted == 70_000
    assert (told.up.accepted, told.up.tick) == (0, 2001)


def test_suspicions_need_messages_in_that_direction() -> None:
    """Of the direction that no meter watches nothing is known, and nothing is suspected."""
    told = Told()
    told.up.passed, told.up.accepted = 100, 5000
    told.passes(1)
    for initiator in ("server", "client"):
        told.comes()
        told.goes(code="1006", close_class="abnormal", initiator=initiator, passing=Passing(unfinished=50_000))
    told.passes(11)
    assert told.told(MessageRefused) == [MessageRefused(CHAT, "client_to_server", "suspected", 50_000)]


def reported(event: str, client: int, ago: float = 0.0, **fields: Any) -> ClientReport:
    close = {} if event == "open" else {"code": "1001", "close_class": "going_away", "initiator": "server"}
    return ClientReport(REPORTED, event, ago, ClientKey(client), "app/1", **(close | fields))  # type: ignore[arg-type]


def test_reported_clients_come_back_too() -> None:
    """Times are those at which it happened."""
    told = Told()
    told.reports(reported("open", 1))
    told.now += 100
    told.reports(reported("close", 1, ago=2.0))
    told.now += 3
    told.reports(reported("open", 1, ago=1.0))
    assert told.events == [Reconnected(REPORTED, "going_away", 4.0, "app/*")]


def test_reported_mass_closes_need_reported_opens() -> None:
    """Where only closes are reported nobody knows how many were open, so a few of many are no mass close."""
    told = Told()
    told.reports(*(reported("close", client) for client in range(20)))
    assert told.events == []
    told.reports(*(reported("open", client) for client in range(20)))
    assert len(told.told(Reconnected)) == 20
    told.passes(60)
    told.reports(*(reported("close", client) for client in range(20)))
    assert len(told.told(MassCloseLost)) == 20
    assert told.insight.standings()[REPORTED].mass_close_active


def test_reported_refusals() -> None:
    """With a direction they are told, with or without a size."""
    told = Told()
    too_big = {"code": "1009", "close_class": "too_big"}
    told.reports(reported("close", 1, **too_big))
    assert told.told(MessageRefused) == []
    told.reports(reported("close", 1, **too_big, direction="server_to_client", message_size=5000))
    told.reports(reported("close", 1, **too_big, direction="server_to_client"))
    refused = MessageRefused(REPORTED, "server_to_client", "close_1009", 5000)
    assert told.told(MessageRefused) == [refused, replace(refused, size=0, repeated=True)]


def test_reported_refusals_of_nobody_in_particular() -> None:
    """Most services name no client: their refusals count all the same."""
    told = Told()
    report = reported("close", 1, code="1009", close_class="too_big", direction="client_to_server", message_size=9000)
    told.reports(report._replace(client=None), report._replace(client=None, ago=6.0))
    assert told.events == [MessageRefused(REPORTED, "client_to_server", "close_1009", 9000)]
    [refusals] = told.insight.standings()[REPORTED].refusals
    assert refusals.count == 1


def test_watching_again_takes_new_builds_and_forgets_nothing() -> None:
    """As after a reload."""
    told = Told()
    told.comes()
    told.goes()
    told.insight.watch(CHAT, lambda agent: "new/*")
    told.comes()
    assert told.events == [Reconnected(CHAT, "going_away", 0.0, "new/*")]


def test_a_client_that_is_back_before_its_old_connection_is_seen_to_end() -> None:
    """It has come back at once, and left nothing to wait for; it is alone again, so that its next delay is known."""
    told = Told()
    told.comes()
    told.now += 100
    told.comes()
    told.now += 3
    told.goes(code="1006", close_class="abnormal")
    assert told.events == [Reconnected(CHAT, "abnormal", 0.0, "app/*")]
    told.now += 60
    told.goes()
    told.now += 2
    told.comes()
    assert told.events[1:] == [Reconnected(CHAT, "going_away", 2.0, "app/*")]


def test_a_second_tab_that_is_closed_again_has_come_back_from_nothing() -> None:
    """A Close frame from the client says that it wanted to go."""
    told = Told()
    told.comes()
    told.comes()
    told.goes(code="1001", initiator="client")
    assert told.events == []


def test_clients_that_were_back_before_are_lost_and_returned() -> None:
    """A half-closed server: everybody reconnects before their old connection is over."""
    told = Told(rules=Rules(mass_close=MassCloseRules(settled=1.0)))
    for client in range(60):
        told.comes(client)
    told.now += 100
    for client in range(60):
        told.comes(client)
    told.now += 1
    for client in range(60):
        told.goes(client, code="1006", close_class="abnormal")
    told.passes(0.5)
    told.passes(1.5)
    [over] = told.told(MassCloseEnded)
    assert (over.mass_close.lost, over.mass_close.returns, over.mass_close.back) == (60, 60, 60)


def test_the_shape_of_returns_is_that_of_their_attempts() -> None:
    """A service that answers one after the other does not hide that all came at once."""
    told = Told(rules=Rules(mass_close=MassCloseRules(settled=1.0)))
    for client in range(60):
        told.comes(client)
    told.now += 100
    for client in range(60):
        told.goes(client)
    told.now += 1
    for client in range(60):
        told.now += 0.5
        told.comes(client, took=0.5 * client)
    told.passes(0.5)
    told.passes(1.0)
    [over] = told.told(MassCloseEnded)
    assert over.mass_close.busiest_second == 60


def test_builds_after_a_reload_are_those_of_mass_closes_too() -> None:
    """What is named anew is named so everywhere."""
    told = Told()
    for client in range(10):
        told.comes(client)
    told.insight.watch(CHAT, lambda agent: "new/*")
    for client in range(10):
        told.goes(client)
    told.insight.finish()
    [over] = told.told(MassCloseEnded)
    assert [build.build for build in over.mass_close.builds] == ["new/*"]


def test_late_reports_tell_who_is_connected_and_nothing_else() -> None:
    """Over five seconds late, or ahead: no reconnect, no arrival, no loss; but who is held and how many are right."""
    told = Told()
    told.reports(*(reported("open", client, ago=60.0) for client in range(20)))
    told.reports(*(reported("close", client, ago=6.0) for client in range(10)))
    told.reports(*(reported("open", client, ago=-6.0) for client in range(10)))
    assert told.events == []
    standing = told.insight.standings()[REPORTED]
    assert (standing.last_minute, standing.shared_connections, standing.mass_close_active) == (0, 0, False)
    told.now += 60
    told.reports(*(reported("close", client) for client in range(20)))
    assert len(told.told(MassCloseLost)) == 20


def test_reported_opens_before_their_closes() -> None:
    """A rolling restart: the new instance says at once who is there, the old one a little later who was cut off."""
    told = Told(rules=Rules(mass_close=MassCloseRules(settled=1.0)))
    told.reports(*(reported("open", client) for client in range(60)))
    told.now += 100
    told.reports(*(reported("open", client) for client in range(60)))
    told.now += 3
    told.reports(*(reported("close", client, ago=4.0) for client in range(60)))
    assert len(told.told(Reconnected)) == 60
    told.passes(0.5)
    told.passes(1.5)
    [over] = told.told(MassCloseEnded)
    assert (over.mass_close.lost, over.mass_close.returns) == (60, 60)


def test_reported_closes_of_unknown_connections_count_as_left() -> None:
    """Those that were opened before the exporter started must not make the rest look like more than they are."""
    told = Told()
    told.reports(*(reported("open", client) for client in range(20)))
    told.now += 60
    told.reports(*(reported("close", client) for client in range(100, 115)))
    told.reports(*(reported("close", client) for client in range(4)))
    assert told.events == []
