"""What reported events tell of returning clients: only what is new, has just happened, and names its client."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import pytest

from exporter.closecodes import Vocabulary
from exporter.events import Event, Fresh, Origin, Reported
from exporter.reports import Report
from exporter.sources.webhook import MemoryBook, Rules, Webhook
from exporter.wire.client_key import Hasher
from tests.support.loops import conversation

NOW: Final = 1_700_000_000.0
CHAT: Final = Origin("webhook", "chat")
HASHER: Final = Hasher(b"secret of a test")
RULES: Final = Rules(
    {"chat": Vocabulary(frozenset({4001}), frozenset({3001})), "feed": Vocabulary(frozenset(), frozenset())}, "chat"
)
ANN: Final = Fresh(CHAT, "close", 0.0, HASHER(b"ann"), "acme-app/3", "1001", "going_away", "server")


async def fresh(*reports: Report, rules: Rules = RULES, hasher: Hasher | None = HASHER) -> Sequence[Fresh]:
    heard: list[Event] = []

    class Sink:
        def emit(self, event: Event) -> None:
            heard.append(event)

    webhook = Webhook(rules, MemoryBook(3600.0, lambda: NOW), Sink(), lambda: NOW, hasher=hasher)
    await webhook.take(reports)
    (event,) = heard
    assert isinstance(event, Reported)
    return event.fresh


def ann(**fields: Any) -> Report:
    return Report(**({"code": 1001, "initiator": "server", "client": "ann", "user_agent": "acme-app/3"} | fields))


@conversation
async def test_a_close() -> None:
    """The labels that it counts under, and who; what its client is called stays behind the hash."""
    assert await fresh(ann()) == [ANN]


@conversation
async def test_an_open() -> None:
    """It has no code."""
    assert await fresh(ann(event="open", code=None, initiator="unknown")) == [
        Fresh(CHAT, "open", 0.0, HASHER(b"ann"), "acme-app/3")
    ]


@conversation
async def test_a_refused_message() -> None:
    """Its size and direction come along."""
    (one,) = await fresh(ann(code=1009, message_size=5000, direction="client_to_server", user_agent=None))
    assert one == changed(
        code="1009", close_class="too_big", message_size=5000, direction="client_to_server", user_agent=""
    )


def changed(**fields: Any) -> Fresh:
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
    assert await fresh(ann(code=code)) == [changed(code=label, close_class=close_class)]


@pytest.mark.parametrize(
    ("age", "ago"), [(0.0, 0.0), (4.9, 4.9), (5.0, 5.0), (5.1, None), (-5.0, 0.0), (-5.1, None), (3000.0, None)]
)
@conversation
async def test_what_is_late_is_counted_and_tells_nothing(age: float, ago: float | None) -> None:
    """Five seconds either way: a batch that was held back would look like a herd."""
    found = await fresh(ann(time=round((NOW - age) * 1000)))
    assert [one.ago for one in found] == ([] if ago is None else [pytest.approx(ago, abs=0.001)])


@conversation
async def test_duplicates_rejections_and_clients_without_a_name_tell_nothing() -> None:
    """Only what is counted, once, of those that can be recognised."""
    found = await fresh(
        ann(id="1"), ann(id="1"), ann(client=None), ann(target="nobody", client="bob"), ann(id="2", client="eve")
    )
    assert [one.client for one in found] == [HASHER(b"ann"), HASHER(b"eve")]


@conversation
async def test_the_target_that_an_event_names() -> None:
    """Each counts for its own; where names are not listed, for the one there is."""
    assert [one.origin.target for one in await fresh(ann(target="feed"), ann())] == ["feed", "chat"]
    lenient = replace(RULES, targets={"default": RULES.targets["feed"]}, otherwise="default", strict=False)
    assert [one.origin.target for one in await fresh(ann(target="elsewhere"), rules=lenient)] == ["default"]


@conversation
async def test_nobody_is_recognised_without_a_hasher() -> None:
    """Then events are only counted."""
    assert await fresh(ann(), hasher=None) == ()
