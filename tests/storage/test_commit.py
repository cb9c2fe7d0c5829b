"""What is committed is counted once, whatever is sent again, in whatever order and company."""

from pathlib import Path

import pytest

from exporter.events import Count
from exporter.storage import Committed, StorageError
from tests.storage.support import CLOSES, DURATION, FILE, START, Adds, Clock, Closes, closing, key, keys, opened, query


def test_an_event_is_counted_once(tmp_path: Path) -> None:
    """An id that is sent again, in a later request or after a restart, is a duplicate and adds nothing."""
    with closing(tmp_path) as storage:
        assert storage.commit([Closes([key("a"), key("b")])]) == [Committed(frozenset(), {CLOSES: 2.0})]
        assert storage.commit([Closes([key("b"), key("c")])]) == [Committed(frozenset({0}), {CLOSES: 1.0})]
        assert storage.totals() == {CLOSES: 3.0}
        assert storage.ids == 3
    with closing(tmp_path) as storage:
        assert (storage.totals(), storage.ids) == ({CLOSES: 3.0}, 3)
        assert storage.commit([Closes([key("c"), key("a"), key("b")])]) == [Committed(frozenset({0, 1, 2}), {})]
        assert storage.totals() == {CLOSES: 3.0}


def test_an_id_twice_in_one_request(tmp_path: Path) -> None:
    """The first counts, the others are duplicates."""
    with closing(tmp_path) as storage:
        (done,) = storage.commit([Closes([key("a"), key("b"), key("a"), key("a")])])
        assert done == Committed(frozenset({2, 3}), {CLOSES: 2.0})


def test_an_id_in_several_requests_of_a_group(tmp_path: Path) -> None:
    """The request that comes first has it, whether the id was known before the group or not."""
    with closing(tmp_path) as storage:
        storage.commit([Closes([key("old")])])
        group = [Closes([key("a")]), Closes([key("b"), key("a")]), Closes([]), Closes([key("old"), key("b"), key("c")])]
        assert [done.duplicates for done in storage.commit(group)] == [{*()}, {1}, {*()}, {0, 1}]
        assert storage.totals() == {CLOSES: 4.0}
        assert storage.ids == 4


def test_events_without_an_id_are_counted_as_sent(tmp_path: Path) -> None:
    """Nothing tells one from another, so each is counted."""
    with closing(tmp_path) as storage:
        for _ in range(2):
            assert storage.commit([Closes([], anonymous=2)]) == [Committed(frozenset(), {CLOSES: 2.0})]
        assert (storage.totals(), storage.ids) == ({CLOSES: 4.0}, 0)


def test_a_group_without_events(tmp_path: Path) -> None:
    """Nothing is written for requests that add nothing."""
    with closing(tmp_path) as storage:
        assert storage.commit([]) == []
        assert storage.commit([Closes([])]) == [Committed(frozenset(), {})]
        assert (storage.totals(), storage.ids) == ({}, 0)


def test_every_kind_of_count(tmp_path: Path) -> None:
    """Whatever the target, the kind and the key, numbers add up to the last bit, here and after a restart."""
    odd = Count("größe 'x'; --", "refused_size", "client_to_server +Inf")
    with closing(tmp_path) as storage:
        for _ in range(3):
            storage.commit([Adds({DURATION: 0.1, odd: 1.0, Count("chat", "opens"): 2.0}), Adds({DURATION: 1e-9})])
        totals = storage.totals()
    expected = 0.0
    for added in (0.1, 1e-9) * 3:
        expected += added
    assert totals == {DURATION: expected, odd: 3.0, Count("chat", "opens"): 6.0}
    with closing(tmp_path) as storage:
        assert storage.totals() == totals
        assert all(type(count) is Count for count in storage.totals())


def test_more_counts_and_ids_than_one_statement_takes(tmp_path: Path) -> None:
    """Neither is limited by how they are written."""
    counts = {Count(f"target{number}", "opens"): float(number) for number in range(1, 1001)}
    many = keys("many", 20_000)
    with closing(tmp_path) as storage:
        storage.commit([Adds(counts), Closes(many)])
    with closing(tmp_path) as storage:
        assert storage.totals() == counts | {CLOSES: 20_000.0}
        assert storage.commit([Closes(many)])[0].duplicates == frozenset(range(20_000))


def test_targets_remember_when_they_began(tmp_path: Path) -> None:
    """The moment at which a target was first seen stays, over restarts too."""
    clock = Clock()
    with closing(tmp_path, clock) as storage:
        storage.born(["chat"])
        clock.time += 10
        storage.born(["chat", "feed"])
        assert storage.created() == {"chat": START, "feed": START + 10}
    clock.time += 10
    with closing(tmp_path, clock) as storage:
        storage.born(["feed", "chat"])
        assert storage.created() == {"chat": START, "feed": START + 10}


def test_what_it_returns_is_a_copy(tmp_path: Path) -> None:
    """Totals that were asked for do not change with the next commit."""
    with closing(tmp_path) as storage:
        storage.commit([Closes([key("a")])])
        storage.born(["chat"])
        totals, created = storage.totals(), storage.created()
        storage.commit([Closes([key("b")])])
        storage.born(["feed"])
        assert (totals, created) == ({CLOSES: 1.0}, {"chat": START})


@pytest.mark.parametrize("short", [b"", b"too short", b"seventeen bytes!!"], ids=["empty", "short", "long"])
def test_a_key_is_a_digest(short: bytes, tmp_path: Path) -> None:
    """A key of another length is a fault of ours: nothing is stored, and the next commit succeeds."""
    with closing(tmp_path) as storage:
        with pytest.raises((ValueError, IndexError)):
            storage.commit([Closes([key("a"), short])])
        assert (storage.totals(), storage.ids) == ({}, 0)
        assert storage.commit([Closes([key("a")])])[0].counts == {CLOSES: 1.0}


def test_a_count_that_cannot_be_stored(tmp_path: Path) -> None:
    """A fault of ours in the middle of a transaction leaves nothing of it, ids included."""
    with closing(tmp_path) as storage:
        with pytest.raises(UnicodeEncodeError):
            storage.commit([Closes([key("a")]), Adds({Count("\ud800", "opens"): 1.0})])
        assert (storage.totals(), storage.ids) == ({}, 0)
        assert storage.commit([Closes([key("a")])])[0].duplicates == frozenset()


def test_the_file_is_one_that_sqlite_reads(tmp_path: Path) -> None:
    """After it was closed there is one whole database, without a log; an operator can look into it."""
    with closing(tmp_path) as storage:
        storage.commit([Closes([key("a")])])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lock", FILE]
    assert query(tmp_path / FILE, "PRAGMA integrity_check") == [("ok",)]
    assert query(tmp_path / FILE, "SELECT * FROM counts") == [("chat", "closes", "1001 server", 1.0)]


def test_commits_are_durable(tmp_path: Path) -> None:
    """SQLite is told to wait for the disk at each commit, and to keep to the memory that it was given."""
    with closing(tmp_path) as storage:
        connection = storage._connection
        settings = {
            name: connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("synchronous", "journal_mode", "locking_mode", "mmap_size", "cache_size", "secure_delete")
        }
    assert settings == {
        "synchronous": 2,  # FULL
        "journal_mode": "wal",
        "locking_mode": "exclusive",
        "mmap_size": 0,
        "cache_size": -1024,
        "secure_delete": 0,
    }


def test_closing_twice(tmp_path: Path) -> None:
    """Nothing is left to do the second time, and nothing can be committed any more."""
    storage = opened(tmp_path)
    storage.close()
    storage.close()
    with pytest.raises(StorageError, match="closed database"):
        storage.commit([Closes([key("a")])])
