"""Tasks that belong to a block of code."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any


@asynccontextmanager
async def running(*coroutines: Coroutine[Any, Any, object]) -> AsyncIterator[None]:
    """Run these while the body runs, then cancel them and wait until they have ended.

    If one of them fails, the others and the body are cancelled. Raises ExceptionGroup.
    """
    async with asyncio.TaskGroup() as tasks:
        started = [tasks.create_task(coroutine) for coroutine in coroutines]
        yield
        for task in started:
            task.cancel()
