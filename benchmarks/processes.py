"""The processes of a run: what is measured on one core, both ends of its traffic on the other.

Each is started and ended here, by its own process id, and keeps its files in a temporary directory.
"""

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parent.parent
START_TIMEOUT: Final = 15.0
STOP_TIMEOUT: Final = 10.0
SETTLE_TIMEOUT: Final = 15.0

NGINX_CONFIG: Final = """\
daemon off;
master_process off;
worker_processes 1;
pid {directory}/nginx.pid;
events {{ worker_connections 8192; }}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location / {{
            proxy_pass http://127.0.0.1:{upstream};
            proxy_http_version 1.1;
            proxy_set_header Host $host;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection "upgrade";
            proxy_read_timeout 1h;
            proxy_send_timeout 1h;
        }}
    }}
}}
"""
"""nginx as its documentation proxies WebSockets; buffers are not mentioned, so they have their default sizes."""


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


def nginx_program() -> str | None:
    """Debian keeps daemons where only root looks."""
    return shutil.which("nginx", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/local/sbin")


class Programs:
    """Starts the processes of one run."""

    def __init__(self, cores: Cores, directory: Path) -> None:
        self.cores = cores
        self._directory = directory

    @contextlib.contextmanager
    def echo(self) -> Iterator[Process]:
        """The service behind the relays."""
        with self._announcing("benchmarks.echo", core=self.cores.load) as process:
            yield process

    @contextlib.contextmanager
    def reoriginate(self, upstream: int) -> Iterator[Process]:
        """The relay made with the `websockets` library."""
        with self._announcing("benchmarks.reoriginate", str(upstream), core=self.cores.measured) as process:
            yield process

    @contextlib.contextmanager
    def tap(self, upstream: int) -> Iterator[Process]:
        """The exporter with one tap; ready once it is healthy, asked at short intervals."""
        port, web_port = free_port(), free_port()
        command = [
            *(sys.executable, "-m", "exporter"),
            f"--tap=127.0.0.1:{port}=127.0.0.1:{upstream},target=benchmark",
            f"--web.listen-address=127.0.0.1:{web_port}",
            "--shutdown.grace=1s",
        ]
        env = {name: value for name, value in os.environ.items() if not name.startswith("WEBSOCKET_EXPORTER_")}
        log = self._log("exporter")
        with spawned(command, self.cores.measured, log, env) as child:
            wait_for(child, lambda: healthy(web_port), log)
            yield Process(child.pid, port, web_port)

    @contextlib.contextmanager
    def nginx(self, upstream: int) -> Iterator[Process]:
        """nginx with one worker, which is its only process."""
        program = nginx_program()
        if program is None:
            raise StartError("nginx is missing")
        port = free_port()
        log = self._log("nginx")
        config = log.with_name("nginx.conf")
        config.write_text(NGINX_CONFIG.format(directory=log.parent, port=port, upstream=upstream))
        command = [program, "-p", str(log.parent), "-e", "stderr", "-c", str(config)]
        with spawned(command, self.cores.measured, log) as child:
            wait_for(child, lambda: accepts(port), log)
            yield Process(child.pid, port)

    @contextlib.contextmanager
    def bare_python(self) -> Iterator[None]:
        """The least that a program in this Python takes: one that does nothing, run to its end."""
        with spawned([sys.executable, "-c", "pass"], self.cores.measured, self._log("python")) as child:
            child.wait()
            yield

    @contextlib.contextmanager
    def _announcing(self, module: str, *arguments: str, core: int) -> Iterator[Process]:
        """A module that prints its port."""
        log = self._log(module.rpartition(".")[2])
        with spawned([sys.executable, "-m", module, *arguments], core, log) as child:
            wait_for(child, lambda: log.read_bytes().endswith(b"\n"), log)
            yield Process(child.pid, int(log.read_text()))

    def _log(self, name: str) -> Path:
        """Where a new process writes; it has the folder to itself."""
        return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self._directory)) / f"{name}.log"
