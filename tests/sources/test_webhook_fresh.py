"""What reported events tell of returning clients: what is new and names its client, when it happened, in that order."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import pytest

from exporter.closecodes import Vocabulary
from exporter.events import ClientReport, ClientsReported, Event, Origin, Reported
from exporter.reports import Events, Report
from exporter.sources.webhook import MemoryBook, Rules, Webhook
from exporter.sources.webhook.source import SLICE
from exporter.wire.client_key import Hasher
from tests.support.loops import conversation

NOW: Final = 1_700_000_000.0
CHAT: Final = Origin("webhook", "chat")
HASHER: Final = Hasher(b"secret of a test")
RULES: Final = Rules(
    {"chat": Vocabulary(frozenset({4001}), frozenset({3001})), "feed": Vocabulary(frozenset(), frozenset())}, "chat"
)
ANN: Final = ClientReport(CHAT, "close", 0.0, HASHER(b"ann"), "acme-app/3", "1001", "going_away", "server")


def step(reports: Sequence[Report]) -> Events:
    yield reports


async def emitted(*reports: Report, rules: Rules = RULES, hasher: Hasher | None = HASHER) -> list[Event]:
    heard: list[Event] = []

    class Sink:
        def emit(self, event: Event) -> None:
            heard.append(event)

    webhook = Webhook(rules, MemoryBook(3600.0, lambda: NOW), Sink(), lambda: NOW, hasher=hasher)
    await webhook.take(lambda: step(reports))
    return heard


async def told(*reports: Report, rules: Rules = RULES, hasher: Hasher | None = HASHER) -> list[ClientReport]:
    counted, *told = await emitted(*reports, rules=rules, hasher=hasher)
    assert isinstance(counted, Reported)
    assert all(isinstance(event, ClientsReported) for event in told)
    return [report for event in told if isinstance(event, ClientsReported) for report in event.reports]


def ann(**fields: Any) -> Report:
    return Report(**({"code": 1001, "initiator": "server", "client": "ann", "user_agent": "acme-app/3"} | fields))


@conversation
async def test_a_close() -> None:
    """The labels that it counts under, and who; what its client is called stays behind the hash."""
    assert await told(ann()) == [ANN]


@conversation
async def test_an_open() -> None:
    """It has no code."""
    assert await told(ann(event="open", code=None, initiator="unknown")) == [
        ClientReport(CHAT, "open", 0.0, HASHER(b"ann"), "acme-app/3")
    ]


@conversation
async def test_a_refused_message() -> None:
    """Its size and direction come along."""
    (one,) = await told(ann(code=1009, message_size=5000, direction="client_to_server", user_agent=None))
    assert one == changed(
        code="1009", close_class="too_big", message_size=5000, direction="client_to_server", user_agent=""
    )


def changed(**fields: Any) -> ClientReport:
    return ANN._replace(**fields)


@pytest.mark.parametrize(
    ("code", "label", "close_class"),
    [
        (1006, "1006", "abnormal"),
        (3001, "3001", "going_away"),
        (4001, "4001", "application"),
        (4002, "4xxx", "application"),
    ],
)
@conversation
async def test_labels_are_the_target_s(code: int, label: str, close_class: str) -> None:
    """As they are counted: listed codes by themselves, others folded."""
    assert await told(ann(code=code)) == [changed(code=label, close_class=close_class)]


@pytest.mark.parametrize("age", [0.0, 4.9, 3000.0, -6.0])
@conversation
async def test_when_it_happened(age: float) -> None:
    """How long ago, or how far ahead the service's clock is; an event that does not say has just happened."""
    [then] = await told(ann(time=round((NOW - age) * 1000)))
    [now] = await told(ann())
    assert (then.ago, now.ago) == (pytest.approx(age, abs=0.001), 0.0)


@conversation
async def test_the_order_is_that_in_which_it_happened() -> None:
    """A batch that lists an open before the close that came first would be no reconnect."""
    opened = ann(event="open", code=None, initiator="unknown", time=round((NOW - 1) * 1000))
    closed = ann(time=round((NOW - 3) * 1000))
    assert [one.event for one in await told(opened, closed)] == ["close", "open"]


@conversation
async def test_many_are_told_a_few_at_a_time() -> None:
    """The counts first, then the clients in slices: the relay gets its turn in between."""
    counted, *slices = await emitted(*(ann(client=str(number)) for number in range(100)))
    assert isinstance(counted, Reported)
    sizes = [len(event.reports) for event in slices if isinstance(event, ClientsReported)]
    assert (sum(sizes), max(sizes)) == (100, SLICE)


@conversation
async def test_what_is_answered_at_once_is_told_too() -> None:
    """A single report needs no waiting."""
    heard: list[Event] = []

    class Sink:
        def emit(self, event: Event) -> None:
            heard.append(event)

    webhook = Webhook(RULES, MemoryBook(3600.0, lambda: NOW), Sink(), lambda: NOW, hasher=HASHER)
    assert webhook.take_at_once(step([ann()])) is not None
    assert [type(event) for event in heard] == [Reported, ClientsReported]
    assert heard[1] == ClientsReported([ANN])


@conversation
async def test_duplicates_rejections_and_clients_without_a_name_tell_nothing() -> None:
    """Only what is counted, once, of those that can be recognised."""
    found = await told(
        ann(id="1"), ann(id="1"), ann(client=None), ann(target="nobody", client="bob"), ann(id="2", client="eve")
    )
    assert [one.client for one in found] == [HASHER(b"ann"), HASHER(b"eve")]


@conversation
async def test_a_refused_message_of_nobody_in_particular() -> None:
    """Where it says which way the message went, it tells of a limit."""
    found = await told(
        ann(code=1009, client=None), ann(code=1009, client=None, direction="client_to_server", message_size=7)
    )
    assert [(one.client, one.message_size) for one in found] == [(None, 7)]


@conversation
async def test_rules_that_change_while_a_commit_waits() -> None:
    """What was judged under the old targets is told under them."""
    heard: list[Event] = []

    class Sink:
        def emit(self, event: Event) -> None:
            heard.append(event)
            webhook.rules = Rules({"other": RULES.targets["feed"]}, "other")

    webhook = Webhook(RULES, MemoryBook(3600.0, lambda: NOW), Sink(), lambda: NOW, hasher=HASHER)
    await webhook.take(lambda: step([ann(target="feed")]))
    assert [type(event) for event in heard] == [Reported, ClientsReported]
    assert [one.origin.target for event in heard if isinstance(event, ClientsReported) for one in event.reports] == [
        "feed"
    ]


@conversation
async def test_the_target_that_an_event_names() -> None:
    """Each counts for its own; where names are not listed, for the one there is."""
    assert [one.origin.target for one in await told(ann(target="feed"), ann())] == ["feed", "chat"]
    lenient = replace(RULES, targets={"default": RULES.targets["feed"]}, otherwise="default", strict=False)
    assert [one.origin.target for one in await told(ann(target="elsewhere"), rules=lenient)] == ["default"]


@conversation
async def test_nobody_is_recognised_without_a_hasher() -> None:
    """Then events are only counted."""
    assert await told(ann(), hasher=None) == []
