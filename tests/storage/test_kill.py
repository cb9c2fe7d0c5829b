"""A process that is killed at any moment: what it acknowledged is there exactly once, the rest once or not at all."""

import contextlib
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.storage.support import CLOSES
from tests.storage.writer import open_storage, request


@contextlib.contextmanager
def writer(*arguments: object) -> Iterator["subprocess.Popen[str]"]:
    """The process, killed at the end of the block."""
    command = [sys.executable, "-m", "tests.storage.writer", *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def acknowledged(process: "subprocess.Popen[str]", moment: random.Random) -> int:
    """Kill it after some of its lines and a while; the number in the last line that it wrote."""
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(moment.randint(1, 12))]
    time.sleep(moment.choice((0.0, 0.0005, 0.002, 0.02)))
    process.kill()
    rest = process.stdout.read()
    return int("".join([*lines, rest[: rest.rfind("\n") + 1]]).split()[-1])


@pytest.mark.parametrize("rounds", [20, pytest.param(200, marks=[pytest.mark.matrix, pytest.mark.timeout(280)])])
def test_what_was_acknowledged_is_there_once(rounds: int, tmp_path: Path) -> None:
    """Over all rounds, requests that were acknowledged are duplicates when they are sent again, to the last event.

    One that was not is there as a whole or not at all; sent again, everything has been counted once.
    """
    moment = random.Random(rounds)
    first = counted = recovered = 0
    for _ in range(rounds):
        with writer("commit", tmp_path, first) as process:
            last = acknowledged(process, moment)
        with contextlib.closing(open_storage(tmp_path)) as storage:
            recovered += storage.recovered is not None
            for number in range(first, last + 8):
                (done,) = storage.commit([request(number)])
                size = len(request(number).keys)
                assert len(done.duplicates) in ({size} if number < last else {0, size})
                counted += size
            assert storage.totals() == {CLOSES: float(counted)}
        first = last + 8
    assert recovered == rounds


def test_a_storage_is_created_whole_or_not_at_all(tmp_path: Path) -> None:
    """Killed while it creates one, the next process creates or opens it all the same."""
    moment = random.Random(1)
    for turn in range(8):
        with writer("create", tmp_path / str(turn)) as process:
            (tmp_path / str(turn)).mkdir()
            last = acknowledged(process, moment)
        for number in (last, last + 1):
            with contextlib.closing(open_storage(tmp_path / str(turn) / str(number))) as storage:
                assert (storage.totals(), storage.ids) == ({}, 0)
