"""Real traffic before a real Prometheus: one exporter that sees it, one that sees none, one that judges at once, and
one that captures what the first one's tap relays, where it may.

Everything is scraped from before the first connection, and asked for as of the last scrape: so an increase over an hour
is exactly what was counted, and a rate over an hour is that divided by 3600.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import Server, ServerConnection
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.http11 import Request, Response

from exporter.config import Address
from tests.e2e.stack import ROOT, Prometheus, eventually
from tests.support.monitoring import prometheus
from tests.support.processes import Exporter, exporter_process
from tests.support.reporting import REPORTS, WEBHOOK, closing, configured, outcome, post
from tests.support.services import service
from tests.web.support import connected

LIMIT: Final = 4096
"""The service's maximum message size, and what the exporter is told of it."""
SMALL: Final = 100
NEAR: Final = 3500
OVER: Final = 8192
REPLY: Final = 2000
"""More than those clients take that refuse it."""
REPORTED: Final = 1 << 21

CALM: Final = 3
NEARLY: Final = 1
LEFT: Final = 2
REFUSED: Final = 25
"""Above the 20 from which WebSocketMessageTooBigSpike fires."""
REFUSED_BY_CLIENT: Final = 2
BROKEN: Final = 4
FORBIDDEN: Final = 3
CUT: Final = 12
NOBODY: Final = 2
MASS: Final = 6
"""At least 5, and at once."""
OPEN: Final = CUT
"""Whoever was cut off comes back."""

CLOSED: Final = CALM + NEARLY + LEFT + REFUSED + REFUSED_BY_CLIENT + BROKEN + CUT
ACCEPTED: Final = CLOSED + OPEN
ATTEMPTS: Final = ACCEPTED + FORBIDDEN + NOBODY

WINDOW: Final = 3600
VARIABLES: Final = {
    "target": ".+",
    "source": ".+",
    "shown": ".+",
    "instance": ".+",
    "__rate_interval": "1h",
    "__range": "1h",
}


async def answer(connection: ServerConnection) -> None:
    """Echo, or do what the path says."""
    with contextlib.suppress(ConnectionClosed):
        match path_of(connection.request):
            case "/large":
                await connection.send("x" * REPLY)
            case "/break":
                await connection.recv()
                connection.transport.abort()
        async for message in connection:
            await connection.send(message)


def admit(connection: ServerConnection, request: Request) -> Response | None:
    return connection.respond(HTTPStatus.FORBIDDEN, "no\n") if path_of(request) == "/forbidden" else None


def path_of(request: Request | None) -> str:
    """Without the query."""
    return request.path.partition("?")[0] if request else ""


def chat(port: int = 0) -> contextlib.AbstractAsyncContextManager[tuple[Server, Address]]:
    return service(answer, port=port, process_request=admit, max_size=LIMIT, compression=None)


async def come(tap: Address, name: str, path: str = "/", **options: Any) -> ClientConnection:
    """A client of this name, by which the exporter recognises it."""
    url = f"ws://{tap}{path}?client={name}"
    return await connect(url, proxy=None, compression=None, user_agent_header="acme-app/1.0", **options)


async def talk(tap: Address, name: str, size: int, code: int = 1000) -> None:
    client = await come(tap, name)
    await client.send("x" * size)
    assert len(await client.recv()) == size
    await (await client.ping())
    await client.close(code)


async def sees_the_end(client: ClientConnection, code: int) -> None:
    await client.wait_closed()
    assert client.close_code == code


async def turned_away(tap: Address, path: str, status: int) -> None:
    with pytest.raises(InvalidStatus) as refused:
        await come(tap, "nobody", path)
    assert refused.value.response.status_code == status


async def before_the_restart(tap: Address) -> list[ClientConnection]:
    """What clients do; those who are left will be cut off."""
    for number in range(CALM):
        await talk(tap, f"calm-{number}", SMALL)
    for number in range(NEARLY):
        await talk(tap, f"near-{number}", NEAR)
    for number in range(LEFT):
        await talk(tap, f"left-{number}", 0, 1001)
    for _ in range(REFUSED):
        client = await come(tap, "loop")
        await client.send("x" * OVER)
        await sees_the_end(client, 1009)
    for number in range(REFUSED_BY_CLIENT):
        client = await come(tap, f"small-{number}", "/large", max_size=REPLY - 1)
        # It sends 1009 itself, and reads no further: by the library's word, 1006.
        await sees_the_end(client, 1006)
    for number in range(BROKEN):
        client = await come(tap, f"broken-{number}", "/break")
        await client.send("")
        await sees_the_end(client, 1006)
    for _ in range(FORBIDDEN):
        await turned_away(tap, "/forbidden", 403)
    return [await come(tap, f"cut-{number}") for number in range(CUT)]


async def a_mass_close(tap: Address) -> None:
    """So many are cut off at once that it counts as one, and nobody comes back."""
    clients = [await come(tap, f"lost-{number}", "/break") for number in range(MASS)]
    for client in clients:
        await client.send("")
    for client in clients:
        await sees_the_end(client, 1006)


async def report(webhook: Address) -> None:
    """Two closes as a service reports them, and one that cannot be."""
    events = [
        closing(1009, initiator="client", message_size=REPORTED, direction="server_to_client"),
        closing(1001, initiator="server"),
        closing(70000),
    ]
    async with connected(webhook) as sender:
        await sender.send(post(events, path=f"{REPORTS}?target=chat"))
        assert outcome(await sender.answer()) == (2, 0, 1)


@contextlib.asynccontextmanager
async def exporting(folder: Path, upstream: Address, *flags: str, module: str = "exporter") -> AsyncIterator[Exporter]:
    """An exporter that is told of the service's limit and of the client build, with a tap and a webhook."""
    limits = {"client_to_server": LIMIT, "server_to_client": "1MiB"}
    target = {"limits": limits, "client_builds": ["acme-app/*"], "client_key": "query:client"}
    config = configured(folder, {"chat": target})
    tap = f"--tap=127.0.0.1:0={upstream},target=chat"
    async with exporter_process(folder, config, tap, WEBHOOK, "--shutdown.grace=0s", *flags, module=module) as exporter:
        yield exporter


@contextlib.asynccontextmanager
async def capturing(folder: Path, tap: Address) -> AsyncIterator[Exporter]:
    """An exporter that captures what clients and that tap say to each other; where it may not, it goes on without."""
    capture = (f"--capture=lo:{tap.port},target=chat", "--capture.optional")
    async with exporter_process(folder, configured(folder, {"chat": {}}), *capture, "--shutdown.grace=0s") as exporter:
        yield exporter


def write_config(folder: Path, jobs: dict[str, Address]) -> None:
    """Let Prometheus scrape these, and evaluate the shipped rules, every second."""
    for rules in (ROOT / "alerts/rules").glob("*.yaml"):
        groups = yaml.safe_load(rules.read_text())["groups"]
        document = {"groups": [{**group, "interval": "1s"} for group in groups]}
        (folder / rules.name).write_text(json.dumps(document))  # JSON is YAML
    config = {
        "global": {"scrape_interval": "1s"},
        "rule_files": [str(folder / "*.yaml")],
        "scrape_configs": [
            {"job_name": job, "static_configs": [{"targets": [str(address)]}]} for job, address in jobs.items()
        ],
    }
    (folder / "prometheus.yml").write_text(json.dumps(config))


@dataclass(frozen=True)
class Stage:
    """After the play: everything asked of `monitor` is as of `moment`."""

    monitor: Prometheus
    moment: float

    def ask(self, expr: str) -> list[tuple[dict[str, str], float]]:
        """The series of an instant query: labels and value."""
        result = self.monitor.api("query", query=expr, time=f"{self.moment:.3f}")["result"]
        return [(sample["metric"], float(sample["value"][1])) for sample in result]


@contextlib.asynccontextmanager
async def play(folder: Path) -> AsyncIterator[Stage]:
    """Let it all happen once; what is asked for is as of the last scrape of it."""
    async with contextlib.AsyncExitStack() as stack:
        async with chat() as (server, upstream):
            for name in ("busy", "fresh", "judged", "captured"):
                await asyncio.to_thread((folder / name).mkdir)
            probe = f"--probe=chat=ws://{upstream}/"
            busy = await stack.enter_async_context(exporting(folder / "busy", upstream, probe))
            fresh = await stack.enter_async_context(exporting(folder / "fresh", upstream))
            judged = await stack.enter_async_context(
                exporting(folder / "judged", upstream, module="tests.support.impatient")
            )
            tap = await busy.address("tap")
            captured = await stack.enter_async_context(capturing(folder / "captured", tap))
            exporters = {"busy": busy, "fresh": fresh, "judged": judged, "captured": captured}
            jobs = {name: await exporter.address("metrics") for name, exporter in exporters.items()}
            await asyncio.to_thread(write_config, folder, jobs)
            monitor = stack.enter_context(prometheus(folder))
            await asyncio.to_thread(eventually, lambda: monitor.query("sum(up) == 4"), 30, "the first scrapes")
            await a_mass_close(await judged.address("tap"))
            cut = await before_the_restart(tap)
            await report(await busy.address("webhook"))
            server.close()
            await server.wait_closed()
            for client in cut:
                await sees_the_end(client, 1001)
        for _ in range(NOBODY):
            await turned_away(tap, "/", 502)
        await stack.enter_async_context(chat(upstream.port))
        for number in range(OPEN):
            client = await come(tap, f"cut-{number}")
            stack.push_async_callback(client.close)
            await client.send("x" * SMALL)
        moment = await asyncio.to_thread(eventually, lambda: scraped(monitor), 90, "everything is scraped, and alerted")
        yield Stage(monitor, moment)


def scraped(monitor: Prometheus) -> float | None:
    """When the scrape was taken that has everything; the probe is back by then, and the alert fires."""
    conditions = (
        f'sum(websocket_closes_total{{job="busy", source="tap"}}) == {CLOSED}',
        f'sum(websocket_connections_active{{job="busy", source="tap"}}) == {OPEN}',
        'sum(websocket_message_size_bytes_bucket{job="busy", direction="server_to_client", le="128.0"})'
        f" == {LEFT + CALM + OPEN}",
        'count(websocket_message_size_limit_bytes{job="busy", origin="accepted"}) == 2',
        "sum(websocket_probe_up) == 1",
        'ALERTS{alertname="WebSocketMessageTooBigSpike", alertstate="firing"}',
        'sum(websocket_mass_closes_total{job="judged"}) == 1',
        f'sum(websocket_closes_total{{source="capture"}}) == {CLOSED} or websocket_exporter_capture_up == 0',
    )
    moments = monitor.query('timestamp(up{job="busy"})')
    if not moments:
        return None
    stage = Stage(monitor, float(moments[0]["value"][1]))
    return stage.moment if all(stage.ask(condition) for condition in conditions) else None
