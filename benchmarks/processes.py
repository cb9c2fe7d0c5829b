"""Processes, as a run sees them: on which core they are, what they use, when they are ready, when they have settled."""

import contextlib
import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parent.parent
START_TIMEOUT: Final = 15.0
STOP_TIMEOUT: Final = 10.0
SETTLE_TIMEOUT: Final = 15.0


class StartError(Exception):
    """A process of the run did not start; the text says which and why."""


@dataclass(frozen=True)
class Cores:
    """Where processes run: what is measured on `measured`, everything else on `load`."""

    measured: int
    load: int

    @classmethod
    def take(cls) -> "Cores":
        """The first two cores that this process may use. Moves this process to the second. Raises StartError."""
        cores = sorted(os.sched_getaffinity(0))
        if len(cores) < 2:
            raise StartError("two cores are needed: one for what is measured, one for the load")
        found = cls(cores[0], cores[1])
        os.sched_setaffinity(0, {found.load})
        return found


@contextlib.contextmanager
def on_core(core: int) -> Iterator[None]:
    """Run this process, and start others, on `core`."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextlib.contextmanager
def ahead_of_others(*pids: int) -> Iterator[None]:
    """Let this process, the processes `pids` and what is started meanwhile preempt all others on their cores.

    Takes real-time priority, which needs a privilege; without it nothing changes.
    """
    changed = (0, *pids)
    try:
        for pid in changed:
            os.sched_setscheduler(pid, os.SCHED_RR, os.sched_param(1))
    except PermissionError:
        yield
        return
    try:
        yield
    finally:
        for pid in changed:
            os.sched_setscheduler(pid, os.SCHED_OTHER, os.sched_param(0))


@dataclass(frozen=True)
class Process:
    """A running process that listens on `port` of the loopback."""

    pid: int
    port: int
    web_port: int = 0

    def cpu_ns(self) -> int:
        """CPU time that all its threads have used, in nanoseconds: the clock of clock_getcpuclockid(3)."""
        return time.clock_gettime_ns(~self.pid << 3 | 2)

    def waited_ns(self) -> int:
        """Time that its first thread was ready to run while the core was taken by others, in nanoseconds."""
        return int(Path(f"/proc/{self.pid}/schedstat").read_text().split()[1])

    def rss(self) -> int:
        """Resident set size in bytes."""
        pages = Path(f"/proc/{self.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    def descriptors(self) -> int:
        """Number of open file descriptors."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def settle(self, descriptors: int) -> None:
        """Wait until no more than `descriptors` are open: it is through with all connections."""
        poll(lambda: self.descriptors() <= descriptors, SETTLE_TIMEOUT, "connections are left open")


Starter = Callable[[int], contextlib.AbstractContextManager[Process]]
"""Starts a relay to an upstream port, and ends it."""


def poll(condition: Callable[[], bool], timeout: float, complaint: str, interval: float = 0.002) -> None:
    """Wait until `condition`. Raises StartError with `complaint` when it takes more than `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise StartError(f"{complaint} after {timeout:.0f} s")
        time.sleep(interval)


def free_port() -> int:
    """A port nobody listens on, outside the range from which the kernel takes ports for outgoing connections."""
    first_ephemeral = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    for _ in range(100):
        port = random.randrange(10_000, first_ephemeral)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise StartError("no free port found")


@contextlib.contextmanager
def spawned(
    command: Sequence[str], core: int, log: Path, env: Mapping[str, str] | None = None
) -> Iterator["subprocess.Popen[bytes]"]:
    """A child process on `core` whose output goes to `log`; ended on exit."""
    with log.open("wb") as output, on_core(core):
        child = subprocess.Popen(command, cwd=ROOT, env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        yield child
    finally:
        child.send_signal(signal.SIGTERM)
        try:
            child.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def wait_for(child: "subprocess.Popen[bytes]", ready: Callable[[], bool], log: Path, interval: float = 0.002) -> None:
    """Wait until `ready`. Raises StartError with the end of `log` when `child` ends first."""

    def settled() -> bool:
        return child.poll() is not None or ready()

    poll(settled, START_TIMEOUT, f"{log.stem} is not ready", interval)
    if child.returncode is not None:
        last = log.read_text(errors="replace").strip().splitlines()[-3:]
        raise StartError(f"{log.stem} ended with status {child.returncode}: {' / '.join(last)}")


def accepts(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1.0):
        return True
    return False


def get(port: int, path: str) -> bytes:
    """The whole answer to an HTTP GET; empty while nobody answers."""
    answer = b""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 5.0) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        while data := connection.recv(65536):
            answer += data
    return answer


def healthy(web_port: int) -> bool:
    return get(web_port, "/-/healthy").startswith(b"HTTP/1.1 200 ")
