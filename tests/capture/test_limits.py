"""The CPU limit of these tests is judged itself."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Final

import pytest

from benchmarks import limits
from tests.peers.processes import Program, program

BUSY: Final = "print('busy', flush=True)\nwhile True: pass"
SHARE: Final = 0.1


@pytest.fixture(name="busy")
def busy_program() -> Iterator[Program]:
    with program([sys.executable, "-c", BUSY]) as running:
        running.line("busy")
        yield running


def cpu_seconds(pid: int) -> float:
    return time.clock_gettime(~pid << 3 | 2)


@pytest.mark.parametrize("limit", [limits.limited, limits._duty_cycle])
def test_a_busy_program_gets_its_share(
    busy: Program, limit: Callable[[int, float], AbstractContextManager[str]]
) -> None:
    """No more than its share of a core, whatever it would use; all of it again afterwards."""
    with limit(busy.pid, SHARE):
        time.sleep(limits.PERIOD)  # what it used before counts in the first period
        begin, used = time.monotonic(), cpu_seconds(busy.pid)
        time.sleep(5 * limits.PERIOD)
        used, took = cpu_seconds(busy.pid) - used, time.monotonic() - begin
    assert used <= 2 * SHARE * took
    used = cpu_seconds(busy.pid)
    deadline = time.monotonic() + 10
    while cpu_seconds(busy.pid) - used < 0.3:
        assert time.monotonic() < deadline
        time.sleep(0.01)
