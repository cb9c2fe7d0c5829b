"""Ids wait in memory and are merged by slice, each once, none lost."""

from hypothesis import given
from hypothesis import strategies as st

from exporter.storage.recent import SLICES, Recent, merged, split
from tests.storage.support import key, keys


def in_slice(number: int) -> bytes:
    """An id of that slice."""
    return bytes([number << 2]) + bytes(15)


def test_it_knows_what_it_holds() -> None:
    """Ids that were added are known, others are not; the order of those is kept."""
    recent = Recent(10)
    recent.add([key("a"), key("b")])
    assert recent.unknown([key("z"), key("a"), key("y"), key("b")]) == [key("z"), key("y")]
    assert recent.size == 2


def test_slices_are_sorted_ranges() -> None:
    """Those of all turns in a row are all ids, in ascending order; after the last slice comes the first again."""
    recent = Recent(1000)
    recent.add(keys("many", 500))
    assert [key for turn in range(SLICES) for key in recent.slice(turn)] == sorted(keys("many", 500))
    assert recent.slice(SLICES) == recent.slice(0)


def test_a_merged_slice_is_forgotten() -> None:
    """Its ids are no longer here, all others are."""
    recent = Recent(10)
    recent.add([in_slice(1), in_slice(2)])
    recent.forget([1])
    assert recent.unknown([in_slice(1), in_slice(2)]) == [in_slice(1)]
    assert recent.size == 1


def test_as_few_turns_as_make_room() -> None:
    """Slices are merged in turn until what comes fits below the limit; if it never does, all are."""
    recent = Recent(SLICES)
    recent.add([in_slice(number) for number in range(SLICES)])
    assert recent.turns(5, coming=0) == range(5, 5)
    assert recent.turns(5, coming=2) == range(5, 7)
    assert recent.turns(5, coming=SLICES) == range(5, 5 + SLICES)
    assert recent.turns(5, coming=10 * SLICES) == range(5, 5 + SLICES)


def test_a_blob_of_ids_is_split() -> None:
    """Into pieces of 16 bytes."""
    assert list(split(key("a") + key("b"))) == [key("a"), key("b")]
    assert list(split(b"")) == []


@given(number=st.integers(0, SLICES - 1), since=st.integers(0, 500), later=st.integers(0, 200))
def test_what_has_been_merged(number: int, since: int, later: int) -> None:
    """An id has been merged as soon as the turn of its slice came after it did: in a whole round at the latest."""
    turns = range(since, since + later)
    assert merged(in_slice(number), since, turns.stop) == any(turn % SLICES == number for turn in turns)
