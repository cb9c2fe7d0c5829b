"""What looks after a capture leaves the event loop to its packets."""

import asyncio
import time
from collections.abc import Iterator

from exporter.sources.capture.turns import TURN, in_turns, set_within
from tests.support.loops import conversation


def slowly(number: int) -> Iterator[int]:
    """Numbers that take half a turn each."""
    for one in range(number):
        until = time.perf_counter() + TURN / 2
        while time.perf_counter() < until:
            pass
        yield one


@conversation
async def test_others_get_their_turn() -> None:
    """Of what takes long the event loop sees at most a few turns at a time, and all of it comes, in its order."""
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as tasks:
        other = tasks.create_task(others())
        assert [one async for one in in_turns(slowly(40))] == list(range(40))
        other.cancel()
    assert turns >= 10


@conversation
async def test_what_is_quick_takes_no_turns() -> None:
    """Of what takes no time nothing else is done in between."""
    began = asyncio.get_running_loop().time()
    assert [one async for one in in_turns("ab")] == ["a", "b"]
    assert asyncio.get_running_loop().time() == began  # which uvloop notes once for each turn


@conversation
async def test_an_event_is_waited_for_within_limits() -> None:
    """As soon as it is set, or when the time is up."""
    event = asyncio.Event()
    await set_within(event, 0.01)
    assert not event.is_set()
    asyncio.get_running_loop().call_soon(event.set)
    await set_within(event, 60.0)
    assert event.is_set()
