"""Which ids are remembered, and since when, whatever the clock does; and what of that the file does."""

from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest

from exporter.storage.generations import SLACK, Bounds, Generations
from tests.storage.support import HOUR, START, WINDOW, Clock, Closes, closing, key, keys

BOUNDS: Final = Bounds(WINDOW, 1000)
LIFE: Final = WINDOW + SLACK


def test_at_first_everything_is_remembered() -> None:
    """As nothing has been dropped, the window alone says what is too old."""
    assert Generations(0, began=START).since(START, BOUNDS, 0) == START - WINDOW


@pytest.mark.parametrize(("age", "expired"), [(0, False), (LIFE - 1, False), (LIFE, True), (3 * LIFE, True)])
def test_a_generation_lasts_for_the_window_and_the_slack(age: float, expired: bool) -> None:
    """Not a second less."""
    assert Generations(0, began=START).expired(START + age, BOUNDS) == expired


def test_the_next_generation() -> None:
    """It takes the table of the one that is dropped; what was new is the older one now."""
    first = Generations(1, began=START, rows=7)
    second = first.next(START + LIFE, BOUNDS)
    assert second == Generations(0, began=START + LIFE, rows=0, older_rows=7)


def test_time_takes_nothing_from_the_window() -> None:
    """When a generation is dropped because it is old, events up to the window's age are still acceptable."""
    first = Generations(0, began=START, rows=7, older_rows=7)
    later = START + LIFE
    assert first.next(later, BOUNDS).since(later, BOUNDS, 0) == later - WINDOW


def test_slack_for_clocks_that_were_behind() -> None:
    """What was dropped counts as dropped two hours beyond, for those whose clocks were ahead of this one."""
    first = Generations(0, began=START, rows=7, older_rows=7)
    later = START + LIFE
    assert first.next(later, BOUNDS).since(later - 5 * HOUR, BOUNDS, 0) == START + SLACK


def test_too_many_ids_shorten_the_window() -> None:
    """When a generation is dropped to make room, only what came after it is remembered, to the millisecond."""
    first = Generations(0, began=START, rows=500, older_rows=500)
    later = START + HOUR
    assert first.next(later, BOUNDS).since(later, BOUNDS, 0) == START + 0.001


def test_the_window_shortens_a_little_before_ids_are_dropped() -> None:
    """An event that was acceptable a moment ago is not counted anew because its id has just been dropped."""
    generations = Generations(0, began=START, rows=400, older_rows=500)
    later = START + HOUR
    assert generations.since(later, BOUNDS, 437) == later - WINDOW
    assert generations.since(later, BOUNDS, 438) == START + 0.001
    assert replace(generations, older_rows=0).since(later, BOUNDS, 438) == later - WINDOW


def test_nothing_dropped_nothing_lost() -> None:
    """A generation without ids is dropped without a trace."""
    first = Generations(0, began=START, rows=500)
    assert first.next(START + HOUR, BOUNDS).forgotten == first.forgotten


@pytest.mark.parametrize("jump", [-SLACK, -1, 1, SLACK])
def test_a_clock_that_jumps_within_the_slack_is_believed(jump: float) -> None:
    """What was noted before it jumped stays."""
    generations = Generations(0, began=START, forgotten=START)
    assert generations.believed(START + jump, BOUNDS) == generations


def test_a_clock_that_was_years_ahead() -> None:
    """What it said is not believed for years: the generation begins now, and events are accepted again."""
    generations = Generations(0, began=START + 1e8, rows=3, older_rows=3, forgotten=START + 1e8)
    assert generations.since(START, BOUNDS, 500) == START + 0.001
    believed = generations.believed(START, BOUNDS)
    assert believed == replace(generations, began=START, forgotten=START - WINDOW)
    assert believed.since(START, BOUNDS, 0) == START - WINDOW


def test_an_id_is_remembered_for_a_generation_at_least_and_two_at_most(tmp_path: Path) -> None:
    """Ids grow old with the clock alone, over restarts too, and go in generations."""
    clock = Clock()
    with closing(tmp_path, clock) as storage:
        storage.commit([Closes([key("early")])])
        clock.time += LIFE - 1
        storage.commit([Closes([key("late")])])
    clock.time += 1
    with closing(tmp_path, clock) as storage:
        storage.commit([Closes([key("later")])])
        clock.time += LIFE - 1
        assert storage.commit([Closes([key("early"), key("late"), key("later")])])[0].duplicates == {0, 1, 2}
        assert storage.ids == 3
        clock.time += 1
        assert storage.commit([Closes([key("next")])])[0].duplicates == frozenset()
        assert storage.ids == 2
        assert storage.since == clock.time - WINDOW
        assert storage.commit([Closes([key("early"), key("late"), key("later")])])[0].duplicates == {2}


def test_there_are_never_more_ids_than_allowed(tmp_path: Path) -> None:
    """The oldest make room; `since` says so, and every id since then is known again."""
    clock = Clock()
    born: dict[bytes, float] = {}
    most = 0
    with closing(tmp_path, clock, max_ids=1000) as storage:
        for number in range(100):
            clock.time += 60
            new = keys(number, 37)
            born |= dict.fromkeys(new, clock.time)
            storage.commit([Closes(new)])
            most = max(most, storage.ids)
            assert storage.ids <= 1000
        assert most > 900
        assert START < storage.since < clock.time - 600
        remembered = [key for key, time in born.items() if time >= storage.since]
        assert len(remembered) >= 400
        assert storage.commit([Closes(remembered)])[0].duplicates == frozenset(range(len(remembered)))


def test_a_commit_larger_than_the_bound_is_kept_whole(tmp_path: Path) -> None:
    """Sent again at once, all of it is known."""
    with closing(tmp_path, max_ids=1000) as storage:
        for name in ("a", "b", "c"):
            many = Closes(keys(name, 3000))
            assert storage.commit([many])[0].duplicates == frozenset()
            assert storage.commit([many])[0].duplicates == frozenset(range(3000))
            assert storage.ids <= 2 * 3000


@pytest.mark.parametrize("jump", [2 * HOUR, -2 * HOUR])
@pytest.mark.parametrize("hours", [6, 80, 1000])
def test_a_clock_that_jumps_expires_nothing_early(jump: float, hours: int, tmp_path: Path) -> None:
    """By two hours in either direction, for a while or for good: at any time, each acceptable event is known again."""
    for wrong_from in (60, 72):
        clock = Clock()
        with closing(tmp_path / str(wrong_from), clock) as storage:
            sent: dict[bytes, float] = {}
            for hour in range(0, 230, 2):
                true = START + HOUR * hour
                clock.time = true + (jump if wrong_from <= hour < wrong_from + hours else 0)
                storage.commit([Closes([key(hour)])])
                sent[key(hour)] = true
                assert storage.since <= true - WINDOW + 2 * HOUR
                acceptable = [event for event, time in sent.items() if time >= storage.since]
                assert storage.commit([Closes(acceptable)])[0].duplicates == frozenset(range(len(acceptable)))
