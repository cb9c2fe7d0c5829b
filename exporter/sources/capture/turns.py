"""How what looks after a capture leaves the event loop to its packets."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Collection
from typing import Final, TypeVar

T = TypeVar("T")

AT_ONCE: Final = 16
"""Connections that are ended or given up before others get their turn."""


async def in_turns(each: Collection[T]) -> AsyncIterator[T]:
    """Some of these, and the next ones when others have had their turn."""
    for number, one in enumerate(each, 1):
        yield one
        if number % AT_ONCE == 0:
            await asyncio.sleep(0)


async def set_within(event: asyncio.Event, seconds: float) -> None:
    """Wait for an event, but not longer."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
