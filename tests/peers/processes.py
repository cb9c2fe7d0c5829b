"""Programs: started, listened to line by line, and ended by their own id."""

import contextlib
import os
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
START: Final = 20.0
"""Seconds in which a program says its first line."""


class Program:
    """A running program in a process group of its own, whose lines of output are read as they come."""

    def __init__(self, command: Sequence[str]) -> None:
        self._process = subprocess.Popen(
            command,
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._errors: list[str] = []
        self._readers = [threading.Thread(target=read, daemon=True) for read in (self._read_lines, self._read_errors)]
        for reader in self._readers:
            reader.start()

    def _read_lines(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line.rstrip("\n"))

    def _read_errors(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self._errors.append(line)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    @property
    def errors(self) -> str:
        """What it has written to its standard error so far."""
        return "".join(self._errors)

    def line(self, start: str, within: float = START) -> str:
        """What follows `start` in the first line that begins so; lines before it are passed over."""
        deadline = time.monotonic() + within
        while (left := deadline - time.monotonic()) > 0:
            with contextlib.suppress(queue.Empty):
                line = self._lines.get(timeout=min(left, 0.2))
                if line.startswith(start):
                    return line.removeprefix(start).strip()
                continue
            if not self.running:
                break
        raise AssertionError(f"no line {start!r} from {self._process.args!r}: {self.errors[-2000:]}")

    def tell(self, line: str) -> None:
        """Write a line to its input."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()

    def terminate(self) -> None:
        """Send SIGTERM to the program itself, as a container's runtime does."""
        self._process.terminate()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the program and whatever it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def end(self, grace: float = 0.0) -> int:
        """End it and all it started, by force after `grace` seconds. Returns its exit status."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(grace)
        self.signal(signal.SIGKILL)
        status = self._process.wait()
        for reader in self._readers:
            reader.join()
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()
        return status


@contextlib.contextmanager
def program(command: Sequence[str]) -> Iterator[Program]:
    """A program that ends with the block."""
    started = Program(command)
    try:
        yield started
    finally:
        started.end()
