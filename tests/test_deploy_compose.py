"""The compose stack: each file by its own tool, and all of it on loopback with nothing but addresses replaced."""

import contextlib
import json
import re
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import bcrypt
import pytest
import yaml

from exporter import config
from exporter.config.web_file import load_web_config
from exporter.demo import Scenario
from exporter.demo.service import reserved_port
from exporter.events import Direction
from tests.dashboards_support import DASHBOARDS
from tests.e2e.stack import ROOT, Prometheus, ended, eventually
from tests.support.monitoring import alertmanager, prometheus

COMPOSE: Final = ROOT / "deploy/compose"
DOCUMENT: Final[dict[str, Any]] = yaml.safe_load((COMPOSE / "compose.yaml").read_text())
SERVICES: Final[dict[str, dict[str, Any]]] = DOCUMENT["services"]
BOUND: Final = re.compile(r'"event":"(tap|metrics) listening","address":"127\.0\.0\.1:(\d+)"')


def checked(*command: str | Path) -> str:
    """What a tool says, after asserting that it has no complaint."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def mounts(service: str) -> dict[str, Path]:
    """Where each file or folder of the repository is in the container."""
    found = {}
    for volume in SERVICES[service].get("volumes", ()):
        source, target, *_ = volume.split(":")
        if source.startswith("."):
            found[target] = (COMPOSE / source).resolve()
    return found


def seconds(duration: str) -> int:
    return int(duration.removesuffix("s"))


def test_the_compose_file_follows_the_specification() -> None:
    """By the schema that the Compose specification publishes."""
    said = checked(
        sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", COMPOSE / "compose.yaml"
    )
    assert "ok" in said


def test_what_is_mounted_is_there() -> None:
    """Read-only, and in the repository."""
    for service in SERVICES:
        for target, path in mounts(service).items():
            assert path.exists(), (service, target)
            assert path.is_relative_to(ROOT)
        assert all(volume.endswith(":ro") for volume in SERVICES[service].get("volumes", ()) if volume[0] == ".")
    (checkout,) = re.findall(r"(?m)^WEBSOCKET_EXPORTER_SOURCE=(.+)$", (COMPOSE / ".env").read_text())
    assert SERVICES["exporter"]["build"]["context"].startswith("${WEBSOCKET_EXPORTER_SOURCE:-")
    assert (COMPOSE / checkout / "Dockerfile").is_file()


def test_nothing_is_reachable_from_other_machines() -> None:
    """Every port is bound to loopback, and every image of others is pinned to a version."""
    for service in SERVICES.values():
        assert all(re.fullmatch(r"127\.0\.0\.1:(\d+):\1", port) for port in service.get("ports", ()))
        assert re.search(r":(v?\d+\.\d+\.\d+|local})$", service["image"])


def test_the_parts_find_each_other() -> None:
    """Every address in the configurations is a service of the file, with the port that it listens on."""
    ports = {
        "service": {"8081"},
        **{
            name: {p.split(":")[1] for p in each.get("ports", ())} for name, each in SERVICES.items() if "ports" in each
        },
    }
    texts = [(COMPOSE / name).read_text() for name in ("exporter.yaml", "prometheus.yml", "grafana/datasources.yaml")]
    texts.append(" ".join(SERVICES["clients"]["entrypoint"]))
    named = re.findall(r"\b(service|exporter|prometheus|alertmanager):(\d+)", "\n".join(texts))
    assert {name for name, _ in named} == {"service", "exporter", "prometheus", "alertmanager"}
    assert [(name, port) for name, port in named if port not in ports[name]] == []


def test_the_exporter_has_time_to_drain() -> None:
    """It is killed later than its own grace ends."""
    loaded = config.load({"config.file": str(COMPOSE / "exporter.yaml")})
    assert loaded.shutdown_grace < seconds(SERVICES["exporter"]["stop_grace_period"])


def test_the_exporter_knows_the_demos_limit() -> None:
    """Its configuration is sound, without a warning, and says what the service is started with."""
    loaded = config.load({"config.file": str(COMPOSE / "exporter.yaml")})
    assert config.warnings(loaded) == ()
    direction: Direction = "client_to_server"
    assert getattr(loaded.targets["demo"].limits, direction) == Scenario().message_limit


def test_the_status_page_is_shown_to_whoever_knows_the_password() -> None:
    """The one that compose.yaml and deploy/README.md name, and that Prometheus scrapes with."""
    users = load_web_config(COMPOSE / "web.yaml").users
    (scrape,) = yaml.safe_load((COMPOSE / "prometheus.yml").read_text())["scrape_configs"]
    user, password = scrape["basic_auth"].values()
    assert bcrypt.checkpw(password.encode(), users[user])
    assert f"user {user}, password {password}" in (COMPOSE / "compose.yaml").read_text()
    assert f"user `{user}`, password `{password}`" in (ROOT / "deploy/README.md").read_text()
    command = SERVICES["exporter"]["command"]
    assert [f"--web.config.file={path}" for path in mounts("exporter") if path.endswith("web.yaml")] == command[1:]


def test_grafana_is_provisioned() -> None:
    """With the data sources and every dashboard, and opens on the Overview."""
    there = mounts("grafana")
    sources = yaml.safe_load(there["/etc/grafana/provisioning/datasources/prometheus.yaml"].read_text())
    providers = yaml.safe_load(there["/etc/grafana/provisioning/dashboards/websocket.yaml"].read_text())
    scraped = yaml.safe_load((COMPOSE / "prometheus.yml").read_text())["global"]["scrape_interval"]
    (default,) = (source for source in sources["datasources"] if source.get("isDefault"))
    assert (default["type"], default["jsonData"]["timeInterval"]) == ("prometheus", scraped)
    (provider,) = providers["providers"]
    folder = provider["options"]["path"]
    assert {path.name for path in there[folder].iterdir()} == set(DASHBOARDS)
    home = SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home == f"{folder}/overview.json"


@pytest.mark.needs("promtool", "amtool")
def test_prometheus_and_alertmanager_accept_their_files(tmp_path: Path) -> None:
    """As they are mounted, the rules found by their relative path."""
    laid_out(tmp_path)
    assert re.search(
        r"SUCCESS: [1-9]\d* rule files found", checked("promtool", "check", "config", tmp_path / "prometheus.yml")
    )
    assert "SUCCESS" in checked("amtool", "check-config", tmp_path / "alertmanager.yml")


def laid_out(folder: Path, **addresses: str) -> None:
    """The mounted files, with names of services replaced by these addresses, and nothing else."""
    for name in ("prometheus.yml", "alertmanager.yml", "exporter.yaml", "web.yaml"):
        text = (COMPOSE / name).read_text()
        for service, address in addresses.items():
            text = re.sub(rf"\b{service}:\d+", address, text)
        (folder / name).write_text(text)
    shutil.copytree(mounts("prometheus")["/etc/prometheus/rules"], folder / "rules", dirs_exist_ok=True)


@contextlib.contextmanager
def process(log: Path, *words: str | Path) -> Iterator[Path]:
    """A Python program from the checkout; yields its log."""
    with log.open("wb") as sink:
        running = subprocess.Popen([sys.executable, *words], cwd=ROOT, stdout=sink, stderr=sink)
    try:
        yield log
    finally:
        ended(running)


@contextlib.contextmanager
def stack(folder: Path) -> Iterator[tuple[Prometheus, int]]:
    """Everything but Grafana; yields Prometheus and the port of Alertmanager."""
    demo = COMPOSE / "demo.py"
    with contextlib.ExitStack() as parts:
        service = str(parts.enter_context(reserved_port()))
        laid_out(folder, service=service)
        parts.enter_context(process(folder / "service.log", demo, "service", service))
        flags = (
            f"--web.config.file={folder / 'web.yaml'}",
            "--web.listen-address=127.0.0.1:0",
            "--log.format=json",
            "--shutdown.grace=0s",
        )
        text = (folder / "exporter.yaml").read_text().replace('":8080"', '"127.0.0.1:0"')
        (folder / "exporter.yaml").write_text(text)
        said = parts.enter_context(
            process(folder / "exporter.log", "-m", "exporter", f"--config.file={folder / 'exporter.yaml'}", *flags)
        )
        bound = eventually(
            lambda: (found := dict(BOUND.findall(said.read_text()))).keys() >= {"tap", "metrics"} and found,
            20,
            "the exporter listens",
        )
        receiver = parts.enter_context(alertmanager(folder))
        here = {name: f"127.0.0.1:{port}" for name, port in bound.items()}
        laid_out(folder, service=service, exporter=here["metrics"], alertmanager=f"127.0.0.1:{receiver}")
        monitor = parts.enter_context(prometheus(folder))
        parts.enter_context(process(folder / "clients.log", demo, "clients", here["tap"]))
        yield monitor, receiver


@pytest.mark.matrix
@pytest.mark.needs("prometheus", "prometheus-alertmanager")
@pytest.mark.timeout(240)
def test_the_stack_plays_and_raises_its_alarm(tmp_path: Path) -> None:
    """The demo's traffic goes through the tap and is scraped, and Alertmanager has the 1009 that goes on and on."""
    with stack(tmp_path) as (monitor, receiver):
        for expression in (
            'sum(websocket_closes_total{code="1009", initiator="server", source="tap", target="demo"}) > 0',
            'sum(websocket_closes_total{code="1001", initiator="server", source="tap", target="demo"}) > 20',
            'websocket_message_size_limit_bytes{origin="configured"} == 65536',
        ):
            eventually(lambda wanted=expression: monitor.query(wanted), 90, expression)

        def alarmed() -> set[str]:
            with urllib.request.urlopen(f"http://127.0.0.1:{receiver}/api/v2/alerts", timeout=5) as answer:
                return {alert["labels"]["alertname"] for alert in json.load(answer)}

        alarms = eventually(alarmed, 120, "Alertmanager is told")
        assert all(name.startswith("WebSocket") for name in alarms)
        assert (tmp_path / "clients.log").read_text().count("Traceback") == 0
        assert (tmp_path / "service.log").read_text().count("Traceback") == 0
