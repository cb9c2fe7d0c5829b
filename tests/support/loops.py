"""Tests as conversations: a coroutine, run to its end in a new event loop in which nothing may go wrong unheard."""

import asyncio
import functools
import inspect
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, ParamSpec, TypeVar

import pytest
import uvloop

LOOPS: Final[dict[str, Callable[[], asyncio.AbstractEventLoop]]] = {
    "uvloop": uvloop.new_event_loop,
    "asyncio": asyncio.new_event_loop,
}
TIMEOUT: Final = 30.0
"""Seconds that one conversation may take."""

P = ParamSpec("P")
T = TypeVar("T")

in_both_loops = pytest.mark.parametrize("loop", list(LOOPS))
"""For a conversation that has an argument `loop`."""


def conversation(test: Callable[P, Coroutine[Any, Any, None]], within: float = TIMEOUT) -> Callable[P, None]:
    """Run a test's coroutine, in the loop that its argument `loop` names or else in uvloop."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        run_in(str(kwargs.get("loop", "uvloop")), test(*args, **kwargs), within)

    return run


long_conversation = functools.partial(conversation, within=300.0)
"""For rows of the matrix; they need a `timeout` mark too."""


def run_in(loop: str, coroutine: Awaitable[None], within: float = TIMEOUT) -> None:
    unheard: list[dict[str, Any]] = []

    async def bounded() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: unheard.append(context))
        async with asyncio.timeout(within):
            await coroutine

    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(bounded())
    assert unheard == []


async def eventually(look: Callable[[], Awaitable[T] | T], within: float = 5.0) -> T:
    """What `look` sees as soon as that is true; fails after `within` seconds."""
    async with asyncio.timeout(within):
        while True:
            seen = look()
            found: T = await seen if inspect.isawaitable(seen) else seen
            if found:
                return found
            await asyncio.sleep(0.01)
