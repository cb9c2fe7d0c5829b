"""A real Prometheus before the closed doors of a real exporter: who scrapes, who does not, and why."""

import asyncio
import contextlib
import json
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import trustme

from exporter.config import Address
from tests.e2e.stack import Prometheus, ended, eventually
from tests.support.loops import long_conversation
from tests.support.processes import exporter_process
from tests.web.guarded import ALICE, NAME, PASSWORD, Files

pytestmark = [pytest.mark.needs("prometheus"), pytest.mark.timeout(120)]

EC: Final = trustme.KeyType.ECDSA


def job(name: str, address: Address, **settings: object) -> dict[str, Any]:
    target = {"targets": [str(address)]}
    return {"job_name": name, "scheme": "https", "static_configs": [target], **settings}


@contextlib.contextmanager
def prometheus(folder: Path, *jobs: dict[str, Any]) -> Iterator[Prometheus]:
    """A Prometheus that scrapes these every second; JSON is YAML."""
    config = {"global": {"scrape_interval": "1s"}, "scrape_configs": jobs}
    (folder / "prometheus.yml").write_text(json.dumps(config))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    flags = (f"--storage.tsdb.path={folder / 'data'}", f"--web.listen-address=127.0.0.1:{port}")
    with (folder / "prometheus.log").open("wb") as sink:
        process = subprocess.Popen(
            ["prometheus", f"--config.file={folder / 'prometheus.yml'}", *flags], stdout=sink, stderr=sink
        )
    server = Prometheus(port)
    try:
        eventually(lambda: server.query("vector(1)"), 30, "Prometheus answers")
        yield server
    finally:
        ended(process)


def certificate_shown(address: Address, context: ssl.SSLContext) -> bytes | None:
    """Which certificate a new client is shown."""
    with (
        socket.create_connection((address.host, address.port)) as plain,
        context.wrap_socket(plain, server_hostname=NAME) as client,
    ):
        return client.getpeercert(True)


@long_conversation
async def test_prometheus_scrapes_with_certificate_and_password(tmp_path: Path) -> None:
    """And goes on when the certificate is rotated. Without password or certificate it is told so, in its own words."""
    files = Files(tmp_path)
    client = files.authority.issue_cert("prometheus", key_type=EC)
    (tmp_path / "client.pem").write_bytes(client.cert_chain_pems[0].bytes())
    client.private_key_pem.write_to_path(str(tmp_path / "client.key"))
    doors = files.tls(
        client_auth_type="RequireAndVerifyClientCert", client_ca_file="ca.pem", client_allowed_sans=["prometheus"]
    )
    files.write({**doors, **ALICE})
    server_only = {"ca_file": str(tmp_path / "ca.pem"), "server_name": NAME}
    certified = {
        **server_only,
        "cert_file": str(tmp_path / "client.pem"),
        "key_file": str(tmp_path / "client.key"),
    }
    right = {"username": "alice", "password": PASSWORD}
    flags = ("--tap=127.0.0.1:0=127.0.0.1:9,target=chat", f"--web.config.file={files.path}")
    async with exporter_process(tmp_path, *flags) as exporter:
        address = await exporter.address("metrics")
        jobs = (
            job("right", address, tls_config=certified, basic_auth=right),
            job("wrong", address, tls_config=certified, basic_auth={**right, "password": "wrong"}),
            job("none", address, tls_config=certified),
            job("uncertified", address, tls_config=server_only, basic_auth=right),
        )
        with prometheus(tmp_path, *jobs) as monitor:
            await asyncio.to_thread(doors_are_closed, monitor)
            context = files.client(client)
            before = certificate_shown(address, context)
            files.certify()
            assert certificate_shown(address, context) != before
            scrapes = 'sum_over_time(up{job="right"}[1h])'
            seen = float(monitor.query(scrapes)[0]["value"][1])
            await asyncio.to_thread(
                eventually, lambda: float(monitor.query(scrapes)[0]["value"][1]) >= seen + 2, 20, "two more scrapes"
            )
            assert monitor.query('min_over_time(up{job="right"}[1h]) == 1')
        assert [line["event"] for line in exporter.lines if line["level"] == "error"] == []


def doors_are_closed(monitor: Prometheus) -> None:
    refused = 'websocket_exporter_http_errors_total{job="right",error="unauthorized"} >= 2'
    eventually(lambda: monitor.query(refused), 30, "what was refused is counted and scraped")
    targets = eventually(
        lambda: (
            (found := {target["scrapePool"]: target for target in monitor.api("targets")["activeTargets"]})
            and all(target["health"] != "unknown" for target in found.values())
            and found
        ),
        30,
        "every target has been scraped",
    )
    assert {name: target["health"] for name, target in targets.items()} == {
        "right": "up",
        "wrong": "down",
        "none": "down",
        "uncertified": "down",
    }
    assert targets["none"]["lastError"] == "server returned HTTP status 401 Unauthorized"
    assert targets["wrong"]["lastError"] in (
        "server returned HTTP status 401 Unauthorized",
        "server returned HTTP status 429 Too Many Requests",
    )
    assert "tls: " in targets["uncertified"]["lastError"]
    assert "certificate" in targets["uncertified"]["lastError"]
