"""The processes of a run: what is measured on one core, both ends of its traffic on the other.

Each is started and ended here, by its own process id, and keeps its files in a temporary directory.
"""

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from benchmarks import peers
from benchmarks.posting import TARGET
from benchmarks.processes import Cores, Process, StartError, accepts, free_port, get, healthy, poll, spawned, wait_for

SILENT: Final = ("--log.level=warning",)
"""Arguments of the exporter that spare it the log line of each close."""


class Programs:
    """Starts the processes of one run. Each starter takes the port of the upstream."""

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
    def tap(self, upstream: int, arguments: Sequence[str] = (), targets: int = 1) -> Iterator[Process]:
        """The exporter with one tap; ready once it is healthy, asked at short intervals.

        Of `targets` all but the first are there for their series only.
        """
        port, web_port = free_port(), free_port()
        names = (TARGET, *(f"other-{number}" for number in range(1, targets)))
        tap = f"--tap=127.0.0.1:{port}=127.0.0.1:{upstream},target={TARGET}"
        with self._exporter(port, web_port, [tap, *arguments], names if targets > 1 else ()) as process:
            yield process

    @contextlib.contextmanager
    def capture(self, service: int, arguments: Sequence[str] = ()) -> Iterator[Process]:
        """The exporter with one capture of a service's port, which it leaves alone; `port` is the service's own."""
        capture = f"--capture=lo:{service},target={TARGET}"
        with self._exporter(service, free_port(), [capture, *arguments], ()) as process:
            yield process

    @contextlib.contextmanager
    def webhook(self, storage: Path | None = None) -> Iterator[Process]:
        """The exporter with its webhook, which takes as many events as come; with a folder of its storage, or without.

        It, too, writes no log line for what it counts.
        """
        port, web_port = free_port(), free_port()
        arguments = [f"--webhook.listen-address=127.0.0.1:{port}", "--webhook.rate-limit=0"]
        if storage:
            arguments.append(f"--storage.path={storage}")
        with self._exporter(port, web_port, arguments, (TARGET,)) as process:
            yield process

    @contextlib.contextmanager
    def pushgateway(self, persistent: bool = False) -> Iterator[Process]:
        """Prometheus' Pushgateway on one thread, in memory or with a file, which it writes every five minutes."""
        log, port = self._log("pushgateway"), free_port()
        file = log.with_name("pushgateway.data") if persistent else ""
        arguments = [f"--web.listen-address=127.0.0.1:{port}", f"--persistence.file={file}"]
        env = os.environ | {"GOMAXPROCS": "1"}
        with self._listening(peers.pushgateway_program(), arguments, log, port, env) as process:
            yield replace(process, web_port=port)

    @contextlib.contextmanager
    def receiver(self) -> Iterator[Process]:
        """The usual receiver of reports."""
        log, port = self._log("receiver"), free_port()
        command = ["-m", "benchmarks.receiver", str(port)]
        with self._listening(sys.executable, command, log, port) as process:
            yield replace(process, web_port=port)

    @contextlib.contextmanager
    def _exporter(
        self, port: int, web_port: int, arguments: Sequence[str], targets: Sequence[str]
    ) -> Iterator[Process]:
        """The exporter, with targets of its own if any are named; ready once it is healthy."""
        log = self._log("exporter")
        command = [
            *(sys.executable, "-m", "exporter"),
            f"--web.listen-address=127.0.0.1:{web_port}",
            "--shutdown.grace=1s",
            *arguments,
        ]
        if targets:
            config = log.with_name("config.yaml")
            config.write_text("targets:\n" + "".join(f"  {name}: {{}}\n" for name in targets))
            command.append(f"--config.file={config}")
        env = {name: value for name, value in os.environ.items() if not name.startswith("WEBSOCKET_EXPORTER_")}
        with spawned(command, self.cores.measured, log, env) as child:
            wait_for(child, lambda: healthy(web_port), log)
            yield Process(child.pid, port, web_port)

    @contextlib.contextmanager
    def silent_tap(self, upstream: int) -> Iterator[Process]:
        """The exporter without the log line of each close."""
        with self.tap(upstream, SILENT) as process:
            yield process

    @contextlib.contextmanager
    def nginx(self, upstream: int) -> Iterator[Process]:
        """nginx with one worker, which is its only process."""
        log = self._log("nginx")
        port, config = self._configured(log.with_name("nginx.conf"), peers.NGINX_CONFIG, upstream)
        command = ["-p", str(log.parent), "-e", "stderr", "-c", str(config)]
        with self._listening(peers.nginx_program(), command, log, port) as process:
            yield process

    @contextlib.contextmanager
    def haproxy(self, upstream: int) -> Iterator[Process]:
        """HAProxy with one thread, in the foreground."""
        log = self._log("haproxy")
        port, config = self._configured(log.with_name("haproxy.cfg"), peers.HAPROXY_CONFIG, upstream)
        with self._listening(peers.haproxy_program(), ["-db", "-f", str(config)], log, port) as process:
            yield process

    @contextlib.contextmanager
    def envoy(self, upstream: int) -> Iterator[Process]:
        """Envoy with one worker thread."""
        log = self._log("envoy")
        port, config = self._configured(log.with_name("envoy.yaml"), peers.ENVOY_CONFIG, upstream)
        command = ["-c", str(config), "--concurrency", "1", "--disable-hot-restart", "--log-level", "error"]
        with self._listening(peers.envoy_program(), command, log, port) as process:
            yield process

    @contextlib.contextmanager
    def bare_python(self) -> Iterator[None]:
        """The least that a program in this Python takes: one that does nothing, run to its end."""
        with spawned([sys.executable, "-c", "pass"], self.cores.measured, self._log("python")) as child:
            child.wait()
            yield

    @contextlib.contextmanager
    def scraper(self, web_port: int, coding: str) -> Iterator[Path]:
        """A client that asks for /metrics without a pause; ended, it has written to the file how often it did."""
        log = self._log("scraper")
        with spawned([sys.executable, "-m", "benchmarks.scraper", str(web_port), coding], self.cores.load, log):
            yield log

    @contextlib.contextmanager
    def prometheus(self, data: Path) -> Iterator[Process]:
        """A Prometheus that scrapes nothing and answers from the blocks in `data`; like the others on one core."""
        log, port = self._log("prometheus"), free_port()
        config = log.with_name("prometheus.yml")
        config.write_text("")
        flags = (f"--config.file={config}", f"--storage.tsdb.path={data}", f"--web.listen-address=127.0.0.1:{port}")
        with self._listening(peers.prometheus_program(), flags, log, port) as process:
            poll(lambda: get(port, "/-/ready").startswith(b"HTTP/1.1 200 "), 60.0, "prometheus is not ready", 0.05)
            yield replace(process, web_port=port)

    def _configured(self, file: Path, template: str, upstream: int) -> tuple[int, Path]:
        """Write a relay's configuration. Returns the port it will listen on, and the file."""
        port = free_port()
        file.write_text(template.format(directory=file.parent, port=port, upstream=upstream))
        return port, file

    @contextlib.contextmanager
    def _listening(
        self, program: str | None, arguments: Sequence[str], log: Path, port: int, env: Mapping[str, str] | None = None
    ) -> Iterator[Process]:
        """A program that is told its port; ready once it accepts connections."""
        if program is None:
            raise StartError(f"{log.stem} is missing")
        with spawned([program, *arguments], self.cores.measured, log, env) as child:
            wait_for(child, lambda: accepts(port), log)
            yield Process(child.pid, port)

    @contextlib.contextmanager
    def _announcing(self, module: str, *arguments: str, core: int) -> Iterator[Process]:
        """A module that prints its port."""
        log = self._log(module.rpartition(".")[2])
        with spawned([sys.executable, "-m", module, *arguments], core, log) as child:
            wait_for(child, lambda: log.read_bytes().endswith(b"\n"), log)
            yield Process(child.pid, int(log.read_text()))

    def folder(self, name: str) -> Path:
        """An empty folder of this run."""
        return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self._directory))

    def _log(self, name: str) -> Path:
        """Where a new process writes; it has the folder to itself."""
        return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self._directory)) / f"{name}.log"
