"""Messages behind which a connection falls silent: they come to be accepted all the same."""

import pytest

from exporter.wire.frames import SETTLED
from exporter.wire.sizes import KNOWN_FOR, MOST_WAITING, DirectionSizes
from tests.wire.support import BINARY, KEY, Metered, frame, no_sizes


def message(size: int) -> bytes:
    return frame(BINARY, bytes(size), key=KEY)


def silent(sizes: DirectionSizes, size: int) -> Metered:
    """A connection that sends one message and nothing more."""
    metered = Metered("client", sizes=sizes)
    metered.meter.feed(message(size))
    return metered


@pytest.mark.parametrize("size", [100, 5000, 70_000])
def test_a_silent_connection_is_looked_at(size: int) -> None:
    """Its message is accepted once it is over five seconds old, and told once."""
    sizes = no_sizes()
    metered = silent(sizes, size)
    metered.meter.feed(message(200))
    told = [sizes.advance(tick) for tick in range(1, 30)]
    assert [tick for tick, accepted in enumerate(told, 1) if accepted] == [SETTLED + 1]
    assert sum(told) == max(size, 200)
    assert not metered.meter.waits()


def test_a_connection_that_ends_is_not() -> None:
    """What its receiver may have refused is never accepted."""
    sizes = no_sizes()
    silent(sizes, 5000).meter.end()
    assert [sizes.advance(tick) for tick in range(1, 30)] == [0] * 29


def test_compressed_messages_are_not_looked_at() -> None:
    """Their size says nothing of the limit."""
    sizes = no_sizes()
    metered = Metered("client", sizes=sizes, deflate=True)
    metered.meter.feed(message(5000))
    assert [sizes.advance(tick) for tick in range(1, 30)] == [0] * 29


def test_only_larger_ones_than_are_known_are_looked_at() -> None:
    """Others would tell nothing new, until a minute has passed: evidence has an age."""
    sizes = no_sizes()
    silent(sizes, 5000)
    assert [sizes.advance(tick) for tick in range(SETTLED + 2)][-1] == 5000
    assert sizes.known == 5000
    silent(sizes, 5000)
    assert [sizes.advance(tick) for tick in range(SETTLED + 2, KNOWN_FOR)] == [0] * (KNOWN_FOR - SETTLED - 2)
    sizes.advance(KNOWN_FOR)
    silent(sizes, 5000)
    assert max(sizes.advance(KNOWN_FOR + tick) for tick in range(1, SETTLED + 2)) == 5000


def test_who_goes_on_talking_is_not_waited_for() -> None:
    """Once a size is known, connections that send it again and again leave room for one that falls silent."""
    sizes = no_sizes()
    chatty = [silent(sizes, 200) for _ in range(MOST_WAITING + 1)]
    for tick in range(1, SETTLED + 3):
        for metered in chatty:
            metered.meter.feed(message(200))
        sizes.advance(tick)
    assert sizes.known == 200
    silent(sizes, 5000)
    assert max(sizes.advance(SETTLED + 3 + tick) for tick in range(SETTLED + 2)) == 5000


def test_how_many_are_looked_at_is_bounded() -> None:
    """A tick must not take long, whatever passes; the rest is known when more passes, or at the end."""
    sizes = no_sizes()
    connections = [silent(sizes, 5000 + number) for number in range(MOST_WAITING + 1)]
    assert max(sizes.advance(tick) for tick in range(SETTLED + 2)) == 5000 + MOST_WAITING - 1
    connections[-1].meter.feed(message(1))
    assert sizes.advance(SETTLED + 2) == 5000 + MOST_WAITING
