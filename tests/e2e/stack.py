"""The whole path on loopback: a real service, the real exporter, a real Prometheus with the shipped rules."""

import contextlib
import json
import re
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

ROOT = Path(__file__).parents[2]
SHIPPED = str(ROOT / "alerts" / "rules" / "*.yaml")
LISTENING = re.compile(r'"event":"(tap|metrics) listening","address":"127\.0\.0\.1:(\d+)"')

T = TypeVar("T")


def eventually(look: Callable[[], T | None], deadline: float, what: str) -> T:
    """What `look` finds, asked again until it finds something; fails after `deadline` seconds."""
    end = time.monotonic() + deadline
    while time.monotonic() < end:
        with contextlib.suppress(OSError):
            found = look()
            if found:
                return found
        time.sleep(0.1)
    raise AssertionError(f"not within {deadline} s: {what}")


def ended(process: subprocess.Popen[bytes]) -> None:
    """End a process of ours, by its own id."""
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextlib.contextmanager
def exporter(service_port: int, folder: Path) -> Iterator[tuple[int, int]]:
    """The exporter as a process, with all of its sources; yields the ports of its tap and of its metrics."""
    log = folder / "exporter.log"
    with log.open("wb") as sink:
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "exporter",
                f"--tap=127.0.0.1:0=127.0.0.1:{service_port},target=chat",
                f"--probe=chat=ws://127.0.0.1:{service_port}/",
                "--webhook.listen-address=127.0.0.1:0",
                "--web.listen-address=127.0.0.1:0",
                "--log.format=json",
                "--shutdown.grace=2s",
            ],
            cwd=ROOT,
            stderr=sink,
        )
    try:
        ports = eventually(lambda: dict(LISTENING.findall(log.read_text())), 20, "the exporter listens")
        yield int(ports["tap"]), int(ports["metrics"])
    finally:
        ended(process)


class Prometheus:
    """A running Prometheus, asked over its HTTP API."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"

    def get(self, path: str) -> Any:
        """One JSON answer."""
        with urllib.request.urlopen(f"{self.url}{path}", timeout=5) as answer:
            return json.load(answer)

    def api(self, path: str, **parameters: str) -> Any:
        """The data of one API answer."""
        query = f"?{urllib.parse.urlencode(parameters)}" if parameters else ""
        return self.get(f"/api/v1/{path}{query}")["data"]

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The samples of an instant query."""
        result: list[dict[str, Any]] = self.api("query", query=expression)["result"]
        return result

    def alerts(self) -> dict[str, str]:
        """The state of each alert that is pending or firing."""
        return {alert["labels"]["alertname"]: alert["state"] for alert in self.api("alerts")["alerts"]}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def prometheus(
    metrics_port: int, folder: Path, rules: str = SHIPPED, alertmanager: int | None = None
) -> Iterator[Prometheus]:
    """A Prometheus that scrapes the exporter every second, with the shipped rules unless others are given."""
    managers = [{"static_configs": [{"targets": [f"127.0.0.1:{alertmanager}"]}]}] if alertmanager else []
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [rules],
        "alerting": {"alertmanagers": managers},
        "scrape_configs": [
            {"job_name": "websocket-exporter", "static_configs": [{"targets": [f"127.0.0.1:{metrics_port}"]}]}
        ],
    }
    (folder / "prometheus.yml").write_text(json.dumps(config))  # JSON is YAML
    port = free_port()
    with (folder / "prometheus.log").open("wb") as sink:
        process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=sink,
            stderr=sink,
        )
    server = Prometheus(port)
    try:
        eventually(lambda: server.query("vector(1)"), 30, "Prometheus answers")
        yield server
    finally:
        ended(process)
