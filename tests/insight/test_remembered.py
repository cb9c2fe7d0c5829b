"""Memory of clients within a bound."""

from hypothesis import given
from hypothesis import strategies as st

from exporter.events import ClientKey
from exporter.insight.remembered import SHARDS, Remembered


@given(st.lists(st.integers(0, 300), max_size=600), st.integers(2, 100))
def test_never_more_than_the_bound_and_never_the_newest_half(keys: list[int], most: int) -> None:
    """Of all clients at least the half of `most` that were put last is known, and never more than `most` and one."""
    memory: Remembered[int] = Remembered(most)
    last: dict[int, int] = {}
    for moment, key in enumerate(keys):
        memory.put(ClientKey(key), moment)
        last.pop(key, None)
        last[key] = moment
        assert len(memory) <= most + 1
    for key, moment in list(last.items())[-(most // 2) :]:
        assert memory.get(ClientKey(key)) == moment
    known = [key for key in last if memory.get(ClientKey(key)) is not None]
    assert len(known) == len(memory)
    assert all(memory.get(ClientKey(key)) == last[key] for key in known)


def test_forgetting_one() -> None:
    """A client may be forgotten in either generation, and more than once."""
    memory: Remembered[int] = Remembered(2)
    memory.put(ClientKey(1), 1)
    memory.put(ClientKey(2), 2)
    memory.put(ClientKey(3), 3)
    for key in (1, 2, 3, 4, 3):
        memory.forget(ClientKey(key))
        assert memory.get(ClientKey(key)) is None
    assert len(memory) == 0


def test_each_value_that_is_dropped_is_told_once() -> None:
    """What is dropped to keep the bound is told, a part at each later step; what was forgotten or replaced is not."""
    dropped: list[int] = []
    memory: Remembered[int] = Remembered(200, dropped.append)
    for key in range(1000):
        memory.put(ClientKey(key), key)
    memory.forget(ClientKey(999))
    for key in range(1000, 1000 + SHARDS):
        memory.put(ClientKey(key), key)
    assert len(dropped) == len(set(dropped))
    known = [key for key in range(1000 + SHARDS) if memory.get(ClientKey(key)) is not None]
    assert not set(known) & set(dropped)
    assert 999 not in dropped
    assert len(known) + len(dropped) + 1 >= 1000 + SHARDS - 101
