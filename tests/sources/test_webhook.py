"""The webhook's source: which reported events count, and that each counts once."""

import asyncio
import contextlib
import gc
import string
import threading
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.closecodes import Vocabulary
from exporter.events import Count, Event, Reported
from exporter.reports import Events, Item, Report
from exporter.reports.bodies import STEP_EVENTS
from exporter.sources.webhook import MemoryBook, Outcome, Rules, StorageBook, Webhook
from exporter.sources.webhook.batch import LONG, Batch
from exporter.sources.webhook.memory_book import LONG_ID
from exporter.sources.webhook.source import SLICE
from exporter.storage import CommitFailed, Committed, Storage
from exporter.wire.client_key import Hasher
from tests.support.loops import conversation

NOW: Final = 1_700_000_000.0
HOUR: Final = 3600.0
PLAIN: Final = Vocabulary(frozenset(), frozenset())
ONE: Final = Rules({"chat": PLAIN}, "chat")
TWO: Final = Rules({"chat": PLAIN, "feed": PLAIN}, None)


class Heard:
    """What a sink was given, added up."""

    def __init__(self) -> None:
        self.events: list[Reported] = []

    def emit(self, event: Event) -> None:
        assert isinstance(event, Reported)
        self.events.append(event)

    def closes(self, target: str = "chat") -> float:
        return sum(
            number
            for event in self.events
            for count, number in event.counts.items()
            if (count.target, count.what) == (target, "closes")
        )


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


def close(code: int = 1000, **fields: Any) -> Report:
    return Report(code=code, **fields)


def decoded(items: Sequence[Item]) -> Events:
    """These items as they would be decoded."""
    for start in range(0, len(items), STEP_EVENTS):
        yield items[start : start + STEP_EVENTS]


def one_step(items: Iterable[Item]) -> Events:
    yield [*items]


async def take(webhook: Webhook, *items: Item, target: str | None = None) -> Outcome:
    return await webhook.take(lambda: decoded(items), target)


def judged(webhook: Webhook, event: Report) -> Batch:
    rules, kinds, batch = webhook._begin(None)
    webhook._judge([event], rules, kinds, batch)
    batch.opened(webhook._opened)
    return batch


def in_memory(rules: Rules = ONE, limit: int = 1000) -> tuple[Webhook, Heard, Clock]:
    heard, clock = Heard(), Clock()
    return Webhook(rules, MemoryBook(HOUR, clock, limit), heard, clock), heard, clock


class TestRules:
    @conversation
    async def test_what_is_counted(self) -> None:
        """Every event is accepted, a duplicate or rejected, and those not accepted are named by their index."""
        webhook, heard, _ = in_memory()
        outcome = await take(webhook, close(id="a"), "invalid_code", close(id="a"), close(target="nobody"), close())
        assert outcome == Outcome(2, [(1, "invalid_code"), (2, None), (3, "unknown_target")])
        assert (outcome.duplicate, outcome.rejected) == (1, 2)
        (event,) = heard.events
        assert event == Reported(
            {Count("chat", "closes", "1000 unknown"): 2}, 2, 1, {"invalid_code": 1, "unknown_target": 1}
        )

    @conversation
    async def test_nothing(self) -> None:
        """A request without events is answered without a commit."""
        webhook, heard, _ = in_memory()
        assert await take(webhook) == Outcome(0, [])
        assert heard.events == [Reported({})]

    @conversation
    async def test_targets(self) -> None:
        """Where a name would be a guess it has to be given, by the event or for the request."""
        webhook, heard, _ = in_memory(TWO)
        assert (await take(webhook, close())).items == [(0, "unknown_target")]
        assert (await take(webhook, close(), close(target="chat"), target="feed")).accepted == 2
        assert (await take(webhook, close(), target="nobody")).items == [(0, "unknown_target")]
        assert (heard.closes("chat"), heard.closes("feed")) == (1, 1)

    @conversation
    async def test_targets_that_are_not_listed(self) -> None:
        """Without listed targets every event counts, under the one there is; ids stay apart by the name given."""
        webhook, heard, _ = in_memory(Rules({"default": PLAIN}, "default", strict=False))
        events = [close(id="1", target=name) for name in (None, "default", "a", "b", "a")]
        assert await take(webhook, *events) == Outcome(3, [(1, None), (4, None)])
        assert (await take(webhook, close(), target="elsewhere")).accepted == 1
        assert heard.closes("default") == 4

    @conversation
    async def test_required_ids(self) -> None:
        """Where ids are required, an event without one is not counted."""
        webhook, _, _ = in_memory(Rules({"chat": PLAIN}, "chat", require_ids=True))
        assert await take(webhook, close(), close(id="1")) == Outcome(1, [(0, "missing_id")])

    @pytest.mark.parametrize("identity", [{}, {"id": "1"}], ids=["without id", "with id"])
    @conversation
    async def test_old_events(self, identity: Mapping[str, str]) -> None:
        """An event older than ids are remembered is refused; exactly as old, of this moment, or ahead of it is not."""
        webhook, _, _ = in_memory()
        times = [int((NOW - HOUR) * 1000) - 1, int((NOW - HOUR) * 1000), int(NOW * 1000), int((NOW + HOUR) * 1000)]
        results = [await take(webhook, close(time=time, source=str(time), **identity)) for time in times]
        assert [result.items for result in results] == [[(0, "too_old")], [], [], []]

    @conversation
    async def test_identity(self) -> None:
        """Events are the same if target, source and id are; nothing else makes them so."""
        webhook, _, _ = in_memory(TWO)
        same = {"target": "chat", "source": "s", "id": "1"}
        others = [same | {"target": "feed"}, same | {"source": "t"}, same | {"source": ""}, same | {"id": "2"}]
        assert (await take(webhook, close(**same), *(close(**other) for other in others))).accepted == 5
        assert (await take(webhook, close(1009, reason="again", **same))).items == [(0, None)]

    def test_identities_that_look_alike(self) -> None:
        """Whatever a source or an unlisted target holds, two identities are never spelled alike."""

        @given(st.lists(st.tuples(*[st.sampled_from(["", "a", "b", "\n", "a\nb", "\na", "('', 'a')"])] * 2)))
        def check(pairs: list[tuple[str, str]]) -> None:
            async def all_once() -> None:
                webhook, _, _ = in_memory(Rules({"a": PLAIN}, "a", strict=False))
                events = [close(id="1", source=source, target=target or None) for source, target in pairs]
                different = {(source, target or "a") for source, target in pairs}
                assert (await take(webhook, *events)).accepted == len(different)

            asyncio.run(all_once())

        check()


class TestLarge:
    """Requests of more events than are judged at a time."""

    @conversation
    async def test_where_everything_is(self) -> None:
        """What is not accepted is named by its index in the request, wherever that is."""
        webhook, heard, _ = in_memory()
        items: list[Item] = [close(id=str(number)) for number in range(3 * LONG)]
        items[LONG] = "invalid_code"
        items[LONG + 2] = close(id="0")
        items[2 * LONG] = close(target="nobody")
        items[-1] = close(id=str(LONG + 1))
        outcome = await take(webhook, *items)
        assert outcome.items == [
            (LONG, "invalid_code"),
            (LONG + 2, None),
            (2 * LONG, "unknown_target"),
            (3 * LONG - 1, None),
        ]
        assert (outcome.accepted, heard.closes(), len(heard.events)) == (3 * LONG - 4, 3 * LONG - 4, 1)

    @pytest.mark.parametrize("id_length", [1, LONG_ID + 1])
    @conversation
    async def test_other_requests_come_in_between(self, id_length: int) -> None:
        """The same events in two requests at once are counted once, each request all at once."""
        webhook, heard, _ = in_memory(limit=10_000)
        events = [close(id=f"{number:0{id_length}}") for number in range(1000)]
        async with asyncio.TaskGroup() as tasks:
            asked = [tasks.create_task(take(webhook, *events)) for _ in range(2)]
        assert sorted(task.result().accepted for task in asked) == [0, 1000]
        assert [event.accepted for event in heard.events] == [1000, 0]

    @conversation
    async def test_ids_forgotten_in_between(self) -> None:
        """A request is judged again, where ids are forgotten while it is judged: what it repeats is too old then."""
        webhook, heard, clock = in_memory(limit=3000)
        old = [close(id=f"old {number}", time=int(NOW * 1000)) for number in range(LONG + 1)]
        assert (await take(webhook, *old)).accepted == LONG + 1
        clock.now += 1
        async with asyncio.TaskGroup() as tasks:
            again = tasks.create_task(take(webhook, *old))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            for turn in range(4):
                assert webhook.take_at_once(one_step(close(id=f"{turn} {number}") for number in range(999)))
                clock.now += 1
        assert {reason for _, reason in again.result().items} == {"too_old"}
        assert heard.closes() == LONG + 1 + 4 * 999

    @conversation
    async def test_rules_replaced_in_between(self) -> None:
        """One request is judged by one set of rules."""
        webhook, _, _ = in_memory()
        async with asyncio.TaskGroup() as tasks:
            asked = tasks.create_task(take(webhook, *[close()] * (2 * LONG)))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            webhook.rules = Rules({"chat": PLAIN}, "chat", require_ids=True)
        assert asked.result().accepted == 2 * LONG
        assert (await take(webhook, close())).items == [(0, "missing_id")]

    @conversation
    async def test_many_clients_are_not_told_at_once(self) -> None:
        """A request that would keep the loop for long is not taken without waiting, unless nobody is recognised."""
        heard, clock = Heard(), Clock()
        webhook = Webhook(ONE, MemoryBook(HOUR, clock), heard, clock, hasher=Hasher(b"secret of a test"))
        clients = [close(client="ann")] * (SLICE + 1)
        assert webhook.take_at_once(decoded(clients)) is None
        assert heard.events == []
        strangers, heard, _ = in_memory()
        outcome = strangers.take_at_once(decoded(clients))
        assert outcome is not None
        assert (outcome.accepted, heard.closes()) == (SLICE + 1, SLICE + 1)

    @conversation
    async def test_what_takes_several_steps_is_not_taken_at_once(self) -> None:
        """Nothing of it is counted then."""
        webhook, heard, _ = in_memory()
        assert webhook.take_at_once(decoded([close()] * (STEP_EVENTS + 1))) is None
        assert heard.events == []
        assert webhook.take_at_once(decoded([close()] * STEP_EVENTS)) == Outcome(STEP_EVENTS, [])
        assert webhook.take_at_once(decoded([])) == Outcome(0, [])


class TestMemory:
    @conversation
    async def test_a_replay_as_old_as_the_window(self) -> None:
        """Ids that are forgotten while it waits for its turn make it too old, though it was acceptable before."""
        webhook, heard, clock = in_memory()
        clock.now = NOW + HOUR / 2
        event = close(id="a", time=int(clock.now * 1000))
        assert (await take(webhook, event)).accepted == 1
        for now in (clock.now + 0.001, NOW + HOUR + 0.002):
            clock.now = now
            assert (await take(webhook, close())).accepted == 1
        clock.now = NOW + 1.5 * HOUR
        async with asyncio.TaskGroup() as tasks:
            again = tasks.create_task(take(webhook, event))
            await asyncio.sleep(0)
            clock.now += 0.004
            assert webhook.take_at_once(decoded([close()])) == Outcome(1, [])
        assert again.result().items == [(0, "too_old")]
        assert heard.closes() == 4

    @conversation
    async def test_a_retry_beside_others(self) -> None:
        """What is judged is entered at once: no other request can have ids forgotten in between."""
        webhook, _, clock = in_memory(limit=2000)
        old = [close(id=f"old {number}", time=int(NOW * 1000)) for number in range(101)]
        await take(webhook, *old)
        clock.now += 1
        await take(webhook, *(close(id=f"fill {number}") for number in range(899)))
        async with asyncio.TaskGroup() as tasks:
            again = tasks.create_task(take(webhook, *old))
            for name in ("a", "b"):
                tasks.create_task(take(webhook, *(close(id=f"{name} {number}") for number in range(900))))
        assert (await again).accepted == 0

    @conversation
    async def test_long_identities(self) -> None:
        """Identities that are long are told apart as well as short ones, and do not take more memory."""
        webhook, _, _ = in_memory(Rules({"a": PLAIN}, "a", strict=False))
        events = [close(id="1", target="\U0001f600" * 200 + str(number)) for number in range(50)]
        assert (await take(webhook, *events)).accepted == 50
        assert (await take(webhook, *events)).duplicate == 50

    @conversation
    async def test_ids_are_forgotten_by_generations(self) -> None:
        """When a third of the ids are new, the oldest third is forgotten, and older events refused from then on."""
        webhook, _, clock = in_memory(limit=6)
        for names in ("ab", "cd", "e"):
            clock.now += 1
            assert (await take(webhook, *(close(id=name) for name in names))).accepted == len(names)
        assert (await take(webhook, close(id="a"))).duplicate == 1
        began = clock.now - 1
        clock.now += 1
        assert (await take(webhook, close(id="f"), close(id="g"))).accepted == 2
        assert (await take(webhook, close(time=int((began - 1) * 1000), id="a"))).items == [(0, "too_old")]
        assert (await take(webhook, close(time=int(began * 1000), id="c"))).items == [(0, None)]

    @conversation
    async def test_repeats_in_one_request(self) -> None:
        """Of the same id several times the first one counts, whether it was known before or not."""
        webhook, _, _ = in_memory()
        events = [close(id=name) for name in "abacb"]
        assert (await take(webhook, *events)).items == [(2, None), (4, None)]
        assert (await take(webhook, *events, close(id="d"), close(id="d"))).items == [
            *((place, None) for place in range(5)),
            (6, None),
        ]

    @conversation
    async def test_ids_outlive_the_window(self) -> None:
        """An id is known for the whole window, and forgotten after two."""
        webhook, _, clock = in_memory()
        await take(webhook, close(id="a"))
        clock.now += HOUR
        assert (await take(webhook, close(id="a"))).duplicate == 1
        for _ in range(3):
            clock.now += HOUR + 1
            await take(webhook, close())
        assert (await take(webhook, close(id="a"))).accepted == 1

    @conversation
    async def test_how_much_is_remembered(self) -> None:
        """The book says how many ids it holds, never more than its limit, and since when it holds all."""
        clock = Clock()
        book = MemoryBook(HOUR, clock, 10)
        webhook = Webhook(ONE, book, Heard(), clock)
        for number in range(100):
            await take(webhook, close(id=str(number)))
            assert book.ids <= 10
        assert NOW - HOUR <= book.since <= clock.now


@contextlib.asynccontextmanager
async def on_disk(folder: Path, storage: "Slow | None" = None) -> AsyncIterator[tuple[Webhook, Heard, StorageBook]]:
    heard = Heard()
    real = Storage.open(folder, window=HOUR, max_ids=10_000, now=lambda: NOW)
    if storage is not None:
        storage.real = real
    book = StorageBook(storage or real, lambda: None)  # type: ignore[arg-type]
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(book.run())
        try:
            yield Webhook(TWO, book, heard), heard, book
        finally:
            running.cancel()
            book.close()


class Slow:
    """A storage whose commits wait to be let through, and may fail."""

    def __init__(self) -> None:
        self.real: Storage
        self.groups: list[int] = []
        self.gate = threading.Event()
        self.fault: Exception | None = None

    def commit(self, entries: Sequence[Batch]) -> list[Committed]:
        self.groups.append(len(entries))
        assert self.gate.wait(10)
        if self.fault is not None:
            raise self.fault
        return self.real.commit(entries)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)


class TestStorage:
    @conversation
    async def test_counted_once_over_restarts(self, tmp_path: Path) -> None:
        """What was counted is known after a restart, by its id and in the totals."""
        async with on_disk(tmp_path) as (webhook, heard, _):
            assert (await take(webhook, close(1001, id="1", target="chat"))).accepted == 1
            assert heard.closes() == 1
        async with on_disk(tmp_path) as (webhook, heard, book):
            assert (await take(webhook, close(1001, id="1", target="chat"))).items == [(0, None)]
            assert (heard.closes(), book.ids) == (0, 1)
        storage = Storage.open(tmp_path, window=HOUR, max_ids=10_000, now=lambda: NOW)
        assert storage.totals() == {Count("chat", "closes", "1001 unknown"): 1}
        storage.close()

    @conversation
    async def test_requests_that_arrive_during_a_commit_share_the_next(self, tmp_path: Path) -> None:
        """While one commit runs, further requests wait together; each of them gets its own answer."""
        slow = Slow()
        async with on_disk(tmp_path, slow) as (webhook, heard, _), asyncio.TaskGroup() as tasks:
            requests = [tasks.create_task(take(webhook, close(id="same", target="chat"))) for _ in range(5)]
            while len(slow.groups) < 1:
                await asyncio.sleep(0)
            slow.gate.set()
            outcomes = [await request for request in requests]
            assert [outcome.accepted for outcome in outcomes].count(1) == 1
            assert sum(outcome.duplicate for outcome in outcomes) == 4
            assert (sum(slow.groups), heard.closes()) == (5, 1)
            assert len(slow.groups) <= 2

    @conversation
    async def test_a_commit_that_fails(self, tmp_path: Path) -> None:
        """Every request of a failed commit is told, nothing of it is counted, and the next one may succeed."""
        slow = Slow()
        slow.gate.set()
        slow.fault = CommitFailed("no")
        async with on_disk(tmp_path, slow) as (webhook, heard, _):
            for _ in range(2):
                with pytest.raises(CommitFailed):
                    await take(webhook, close(id="1", target="chat"))
            assert heard.closes() == 0
            slow.fault = None
            assert (await take(webhook, close(id="1", target="chat"))).accepted == 1
            assert heard.closes() == 1

    @conversation
    async def test_a_retry_that_waits_while_ids_are_dropped(self, tmp_path: Path) -> None:
        """A batch that waits while ids are dropped is judged anew: too old, instead of counted twice."""
        clock, heard = Clock(), Heard()
        storage = Storage.open(tmp_path, window=HOUR, max_ids=1000, now=clock)
        book = StorageBook(storage, lambda: None, clock)
        webhook = Webhook(TWO, book, heard, clock)
        old = [close(id=f"old {number}", target="chat", time=int(NOW * 1000)) for number in range(50)]
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(book.run())
            assert (await take(webhook, *old)).accepted == 50
            clock.now += 1
            fills = [
                [close(id=f"{name} {number}", target="chat") for number in range(500)]
                for name in string.ascii_letters[:24]
            ]
            first = tasks.create_task(take(webhook, *fills[0]))
            others = [tasks.create_task(take(webhook, *fill)) for fill in fills[1:]]
            for _ in range(5):
                await asyncio.sleep(0)
            again = await take(webhook, *old)
            await first
            for other in others:
                await other
            later = await take(webhook, *old)
            running.cancel()
        book.close()
        assert again.accepted == later.accepted == 0
        assert heard.closes() == 50 + 24 * 500

    @conversation
    async def test_a_failed_commit_leaves_nothing_behind(self, tmp_path: Path) -> None:
        """What cannot be stored is let go of at once, and not when garbage is collected: that is seldom."""
        slow = Slow()
        slow.gate.set()
        async with on_disk(tmp_path, slow) as (webhook, _, _):
            gc.collect()
            gc.disable()
            try:
                for number in range(10):
                    slow.fault = CommitFailed("no")
                    with pytest.raises(CommitFailed):
                        await take(webhook, close(id=str(number), target="chat"))
                await asyncio.sleep(0)
                kept = sum(isinstance(one, Batch) for one in gc.get_objects())
            finally:
                gc.enable()
        assert kept <= 1  # the last one, of the commit that was tried last

    @conversation
    async def test_a_request_that_is_given_up(self, tmp_path: Path) -> None:
        """A client that leaves changes nothing for the others: what was committed counts."""
        slow = Slow()
        async with on_disk(tmp_path, slow) as (webhook, _, book), asyncio.TaskGroup() as tasks:
            gone = tasks.create_task(take(webhook, close(id="1", target="chat")))
            stays = tasks.create_task(take(webhook, close(id="2", target="chat")))
            while not slow.groups:
                await asyncio.sleep(0)
            gone.cancel()
            slow.gate.set()
            assert (await stays).accepted == 1
            assert book.ids == 2

    @conversation
    async def test_the_first_open_and_its_close_in_one_commit(self, tmp_path: Path) -> None:
        """A close is one since the first open if that is committed before it, by the same commit too."""
        slow = Slow()
        async with on_disk(tmp_path, slow) as (webhook, heard, _), asyncio.TaskGroup() as tasks:
            tasks.create_task(take(webhook, close(id="0", target="chat")))
            while not slow.groups:
                await asyncio.sleep(0)
            opened = Report(event="open", id="1", target="chat")
            for event in (close(id="2", target="chat"), opened, close(id="3", target="chat")):
                tasks.create_task(take(webhook, event))
                await asyncio.sleep(0)
            slow.gate.set()
        added = [(count.what, number) for event in heard.events for count, number in event.counts.items()]
        assert slow.groups == [1, 3]
        assert sorted(added) == [*[("closes", 1)] * 3, ("closes_since_open", 1), ("opens", 1)]

    @conversation
    async def test_a_close_in_the_commit_behind_the_first_open(self, tmp_path: Path) -> None:
        """It counts as one since that open, even where nobody has been told of the open yet."""
        async with on_disk(tmp_path) as (webhook, heard, book):
            opened = Report(event="open", id="1", target="chat")
            batches = [judged(webhook, event) for event in (opened, close(id="2", target="chat"))]
            for batch in batches:
                await book.enter(batch)
            assert Count("chat", "closes_since_open") in batches[1].counts()
            assert heard.events == []

    @conversation
    async def test_an_open_whose_commit_failed(self, tmp_path: Path) -> None:
        """No close is one since an open that was not counted."""
        slow = Slow()
        slow.gate.set()
        slow.fault = CommitFailed("no")
        async with on_disk(tmp_path, slow) as (webhook, heard, _):
            with pytest.raises(CommitFailed):
                await take(webhook, Report(event="open", id="1", target="chat"))
            slow.fault = None
            await take(webhook, close(id="2", target="chat"))
        assert [count.what for event in heard.events for count in event.counts] == ["closes"]

    @conversation
    async def test_what_waits_for_a_commit_is_waited_for(self, tmp_path: Path) -> None:
        """It is settled once every batch has been committed or refused, also those that came meanwhile."""
        slow = Slow()
        async with on_disk(tmp_path, slow) as (webhook, _, book), asyncio.TaskGroup() as tasks:
            await book.settled()
            taken = [tasks.create_task(take(webhook, close(id="1", target="chat")))]
            while not slow.groups:
                await asyncio.sleep(0)
            taken.append(tasks.create_task(take(webhook, close(id="2", target="chat"))))
            settled = tasks.create_task(book.settled())
            for _ in range(5):
                await asyncio.sleep(0)
            assert not settled.done()
            slow.gate.set()
            await settled
            assert slow.groups == [1, 1]
            assert [(await one).accepted for one in taken] == [1, 1]
            slow.fault = CommitFailed("no")
            with pytest.raises(CommitFailed):
                await take(webhook, close(id="3", target="chat"))
            await book.settled()
