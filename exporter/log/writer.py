"""Lines to a file descriptor, from a thread: a blocked pipe costs lines, which are counted, never time."""

import os
import select
import threading
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Final

CAPACITY: Final = 10_000
"""Lines that wait for the pipe at most; further ones are dropped and counted."""
FLUSH_TIMEOUT: Final = 1.0
"""Seconds that the end of the process may be delayed by a pipe that nobody reads."""
REST: Final = 0.02
"""Seconds from one write to the next, unless lines are many: waking the thread for each line of a storm would cost the
relay more than the line itself, because the two take turns."""

_BATCH_BYTES: Final = 1 << 16


class LineWriter:
    """Writes lines to a file descriptor from a thread of its own. `write` never blocks and never raises.

    It writes to a duplicate of the descriptor: if that were closed and its number reused for a socket,
    the log would be written into somebody's connection.
    """

    def __init__(self, fd: int, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._queue: SimpleQueue[bytes | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._dropped = 0
        self._closed = threading.Event()
        try:
            self._fd = os.dup(fd)
        except OSError:
            self._fd = -1  # closed from the start: every write fails with EBADF and is counted
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    @property
    def dropped(self) -> int:
        """Lines lost so far, because the pipe was full for too long, closed or broken."""
        return self._dropped

    def write(self, line: str) -> None:
        """Queue one line, without its newline."""
        if self._closed.is_set() or self._queue.qsize() >= self._capacity:
            self._drop(1)
        else:
            self._queue.put(line.encode("utf-8", "backslashreplace") + b"\n")

    def close(self, timeout: float = FLUSH_TIMEOUT) -> None:
        """Write what waits, for `timeout` seconds at most; later lines are dropped."""
        self._closed.set()
        self._queue.put(None)
        self._thread.join(timeout)

    def _run(self) -> None:
        ending = False
        while not ending:
            lines, ending = self._take()
            if not self._write_all(b"".join(lines)):
                self._drop(len(lines))
            if self._queue.empty():
                self._closed.wait(REST)
        with suppress(OSError):
            os.close(self._fd)

    def _take(self) -> tuple[list[bytes], bool]:
        """Lines to be written at once, waiting for the first; and whether they are the last."""
        lines: list[bytes] = []
        size = 0
        line = self._queue.get()
        with suppress(Empty):
            while line is not None:
                lines.append(line)
                size += len(line)
                if size >= _BATCH_BYTES:
                    return lines, False
                line = self._queue.get_nowait()
            return lines, True
        return lines, False

    def _write_all(self, data: bytes) -> bool:
        while data:
            try:
                data = data[os.write(self._fd, data) :]
            except BlockingIOError:  # somebody else made the shared terminal or pipe non-blocking
                poll = select.poll()
                poll.register(self._fd, select.POLLOUT)
                poll.poll()
            except OSError:
                return False
        return True

    def _drop(self, lines: int) -> None:
        with self._lock:
            self._dropped += lines
