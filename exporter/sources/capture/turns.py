"""How what looks after a capture leaves the event loop to its packets."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterable
from typing import Final, TypeVar

T = TypeVar("T")

TURN: Final = 0.001
"""Seconds of work before others get their turn."""


async def in_turns(each: Iterable[T]) -> AsyncIterator[T]:
    """As many of these as can be worked off in a turn, and more when others have had theirs."""
    until = time.perf_counter() + TURN
    for one in each:
        yield one
        if time.perf_counter() > until:
            await asyncio.sleep(0)
            until = time.perf_counter() + TURN


async def set_within(event: asyncio.Event, seconds: float) -> None:
    """Wait for an event, but not longer."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
