"""Runs a test's coroutine in each of the two event loops."""

from collections.abc import Awaitable, Callable
from functools import partial

import pytest

from tests.web.support import LOOPS, run_in


@pytest.fixture(params=list(LOOPS))
def run(request: pytest.FixtureRequest) -> Callable[[Awaitable[None]], None]:
    return partial(run_in, request.param)
