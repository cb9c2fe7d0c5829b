"""The storage against a dict: whatever is sent, however often it is restarted or crashes, whatever the clock does."""

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from exporter.storage import Storage
from exporter.storage.generations import SLACK
from tests.storage.support import CLOSES, HOUR, START, WINDOW, Clock, Closes, key, keys, opened

GROUPS = st.lists(st.lists(st.integers(0, 60), max_size=12), max_size=4)


class Model(RuleBasedStateMachine):
    """Events happen at the time that `true` says and are reported at once, or again later; ids are numbers.

    An event that `Storage.since` says is too old is never reported, as the webhook refuses it.
    """

    max_ids: ClassVar[int]

    def __init__(self) -> None:
        super().__init__()
        self.folders = Path(tempfile.mkdtemp())
        self.folder = self.folders / "0"
        self.clock = Clock()
        self.true = START
        self.counted = 0
        self.born: dict[bytes, float] = {}
        self.storage: Storage = opened(self.folder, self.clock, max_ids=self.max_ids)

    def teardown(self) -> None:
        self.storage.close()
        shutil.rmtree(self.folders)

    def acceptable(self, event: bytes) -> bool:
        return self.born.get(event, self.true) >= self.storage.since

    def report(self, group: Sequence[Sequence[bytes]]) -> None:
        """Each event is new exactly if nobody reported it before."""
        entries = [Closes([event for event in events if self.acceptable(event)]) for events in group]
        expected, new = [], 0
        for entry in entries:
            duplicates = set()
            for position, event in enumerate(entry.keys):
                if event in self.born:
                    duplicates.add(position)
                else:
                    self.born[event] = self.true
                    new += 1
            expected.append(duplicates)
        self.counted += new
        assert [done.duplicates for done in self.storage.commit(entries)] == expected

    @rule(group=GROUPS)
    def report_few(self, group: list[list[int]]) -> None:
        self.report([[key(number) for number in numbers] for numbers in group])

    @rule(number=st.integers(0, 5), count=st.integers(0, 150))
    def report_many(self, number: int, count: int) -> None:
        self.report([keys(number, count)])

    @rule(names=st.sets(st.sampled_from("abc")))
    def begin(self, names: set[str]) -> None:
        known = self.storage.created()
        self.storage.born(names)
        assert self.storage.created() == dict.fromkeys(names, self.clock.time) | dict(known)

    @rule(minutes=st.integers(1, 60))
    def minutes_pass(self, minutes: int) -> None:
        self.pass_by(60.0 * minutes)

    @rule()
    def restart(self) -> None:
        self.storage.close()
        self.storage = opened(self.folder, self.clock, max_ids=self.max_ids)
        assert self.storage.recovered is None

    @rule()
    def crash(self) -> None:
        """What is on the disk at this moment is all that the next process gets."""
        before, totals = self.storage, dict(self.storage.totals())
        self.folder = self.folders / str(int(self.folder.name) + 1)
        shutil.copytree(self.folders / str(int(self.folder.name) - 1), self.folder)
        self.storage = opened(self.folder, self.clock, max_ids=self.max_ids)
        ids, created = before.ids, before.created()
        before.close()
        assert (self.storage.totals(), self.storage.ids, self.storage.created()) == (totals, ids, created)

    def pass_by(self, seconds: float) -> None:
        self.true += seconds
        self.clock.time += seconds

    @invariant()
    def counted_once(self) -> None:
        again = Closes([event for event in self.born if self.acceptable(event)])
        assert self.storage.commit([again])[0].duplicates == frozenset(range(len(again.keys)))
        assert self.storage.totals().get(CLOSES, 0.0) == self.counted


class ManyIds(Model):
    """More ids than may be remembered: the oldest make room."""

    max_ids = 400

    @invariant()
    def bounded(self) -> None:
        assert self.storage.ids <= self.max_ids


class LongTime(Model):
    """Ids grow old, by a clock that is up to two hours wrong."""

    max_ids = 100_000

    @rule(hours=st.integers(1, 40))
    def hours_pass(self, hours: int) -> None:
        self.pass_by(hours * HOUR)

    @precondition(lambda self: self.clock.time <= self.true)
    @rule(seconds=st.floats(0, SLACK))
    def the_clock_jumps_ahead(self, seconds: float) -> None:
        self.clock.time = self.true + seconds

    @precondition(lambda self: self.clock.time >= self.true)
    @rule(seconds=st.floats(0, SLACK))
    def the_clock_falls_behind(self, seconds: float) -> None:
        self.clock.time = self.true - seconds

    @invariant()
    def not_too_strict(self) -> None:
        assert self.storage.since <= self.true - WINDOW + SLACK


TestManyIds = ManyIds.TestCase
TestLongTime = LongTime.TestCase
TestManyIds.settings = TestLongTime.settings = settings(
    max_examples=20, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
