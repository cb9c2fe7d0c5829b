"""From the socket to the pager: real traffic behind a real tap, Prometheus, Alertmanager, and who gets its webhooks.

The rules are the shipped ones with their windows shortened by values of its own, and the routes and inhibitions those
of the example; so minutes become seconds, and nothing else is another.
"""

import asyncio
import contextlib
import http.server
import json
import random
import subprocess
import threading
from collections.abc import AsyncIterator, Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import Request, Response, Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed, WebSocketException

from alerts import render
from exporter.config import Address
from tests.alerts_support import ALERTS
from tests.e2e.stack import Prometheus, ended, eventually, free_port, prometheus
from tests.support.loops import long_conversation
from tests.support.processes import exporter_process

pytestmark = [pytest.mark.needs("prometheus", "prometheus-alertmanager"), pytest.mark.timeout(240)]

VALUES: Final = """
evaluation: {fast: 1s, slow: 1s}
moment: 5s
recent: 12s
before: 24s
repeated: 30s
long: 60s
usual: 60s
day: 10m
history: 5m
keep_firing: 2s
storm: {for: 4s}
surge_after_restart: {for: 4s}
herd: {for: 6s}
not_accepting: {for: 40s}
"""
"""A second of the test is some 25 s of the shipped rules."""

CLIENTS: Final = 60
REFUSALS: Final = 30
ARRIVAL: Final = 6.0
"""Seconds over which they come for the first time."""
RETURN: Final = 4.0
"""Seconds over which well-behaved clients return."""


class Receiver:
    """An HTTP server that keeps every notification, by the receiver it was for."""

    def __init__(self) -> None:
        self.notifications: list[tuple[str, dict[str, Any]]] = []
        found = self.notifications

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                found.append((self.path.removeprefix("/"), json.loads(body)))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    def firing(self) -> set[tuple[str, str, str]]:
        """Everything that was notified so far: receiver, alert, target."""
        return {
            (receiver, alert["labels"]["alertname"], alert["labels"]["target"])
            for receiver, notification in self.notifications
            for alert in notification["alerts"]
            if alert["status"] == "firing"
        }


@contextlib.contextmanager
def receiving() -> Iterator[Receiver]:
    receiver = Receiver()
    thread = threading.Thread(target=receiver.server.serve_forever)
    thread.start()
    try:
        yield receiver
    finally:
        receiver.server.shutdown()
        thread.join()
        receiver.server.server_close()


def routes(receiver: Receiver) -> dict[str, Any]:
    """The example, but that it waits for seconds, mutes nothing by the calendar and notifies our receiver."""
    config: dict[str, Any] = yaml.safe_load((ALERTS / "alertmanager.example.yaml").read_text())
    pending = [config["route"]]
    while pending:
        route = pending.pop()
        route |= {"group_wait": "1s", "group_interval": "1s"}
        route.pop("mute_time_intervals", None)
        pending += route.get("routes", [])
    for one in config["receivers"]:
        for hook in one["webhook_configs"]:
            hook["url"] = f"http://127.0.0.1:{receiver.server.server_port}/{one['name']}"
    return config


class Alertmanager:
    """A running Alertmanager."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._api = Prometheus(port)

    def suppressed(self) -> dict[tuple[str, str], list[str]]:
        """Alerts that others silence: alert and target -> the ids of those others."""
        return {
            (alert["labels"]["alertname"], alert["labels"]["target"]): alert["status"]["inhibitedBy"]
            for alert in self._api.get("/api/v2/alerts")
            if alert["status"]["inhibitedBy"]
        }

    def ready(self) -> bool:
        return bool(self._api.get("/api/v2/status"))


@contextlib.contextmanager
def alertmanager(folder: Path, config: dict[str, Any]) -> Iterator[Alertmanager]:
    (folder / "alertmanager.json").write_text(json.dumps(config))  # JSON is YAML
    port = free_port()
    with (folder / "alertmanager.log").open("wb") as sink:
        process = subprocess.Popen(
            [
                "prometheus-alertmanager",
                f"--config.file={folder / 'alertmanager.json'}",
                f"--storage.path={folder / 'alertmanager'}",
                f"--web.listen-address=127.0.0.1:{port}",
                "--cluster.listen-address=",
            ],
            stdout=sink,
            stderr=sink,
        )
    server = Alertmanager(port)
    try:
        eventually(server.ready, 30, "Alertmanager answers")
        yield server
    finally:
        ended(process)


def shortened(folder: Path) -> str:
    """The rules with these values, as a file."""
    values = folder / "values.yaml"
    values.write_text(VALUES)
    assert render.main(["--values", str(values), "--out", str(folder)]) == 0
    return str(folder / "rules/websocket.yaml")


class Service:
    """A WebSocket service that can restart, and can be too busy for newcomers."""

    def __init__(self) -> None:
        self.port = 0
        self.busy = False
        self.server: Server | None = None

    async def start(self) -> None:
        self.server = await serve(
            self._echo, "127.0.0.1", self.port, max_size=1024, process_request=self._admit, ping_interval=None
        )
        self.port = next(iter(self.server.sockets)).getsockname()[1]

    async def stop(self) -> None:
        """Everyone is sent away with 1001."""
        assert self.server is not None
        self.server.close()
        await self.server.wait_closed()

    def _admit(self, connection: ServerConnection, _: Request) -> Response | None:
        return connection.respond(HTTPStatus.SERVICE_UNAVAILABLE, "busy\n") if self.busy else None

    async def _echo(self, connection: ServerConnection) -> None:
        with contextlib.suppress(ConnectionClosed):
            async for message in connection:
                await connection.send(message)


@contextlib.asynccontextmanager
async def services() -> AsyncIterator[tuple[Service, Service]]:
    chat, feed = Service(), Service()
    await chat.start()
    await feed.start()
    try:
        yield chat, feed
    finally:
        await chat.stop()
        await feed.stop()


async def refused_for_size(url: str) -> None:
    async with connect(url) as client:
        with pytest.raises(ConnectionClosed):
            await client.send(b"x" * 4096)
            await client.recv()


async def come_back(client: ClientConnection, url: str, rng: random.Random) -> ClientConnection:
    """A client as it should be: it waits for a random time, once, and is back."""
    await client.wait_closed()
    await asyncio.sleep(rng.uniform(0.3, RETURN))
    return await connect(url)


async def storm(client: ClientConnection, url: str, over: asyncio.Event) -> None:
    """A client without backoff."""
    await client.wait_closed()
    while not over.is_set():
        with contextlib.suppress(OSError, WebSocketException):
            await (await connect(url)).wait_closed()
        await asyncio.sleep(0.2)


async def until(look: Any, within: float, what: str) -> Any:
    """`eventually` beside the traffic."""
    return await asyncio.to_thread(eventually, look, within, what)


@long_conversation
async def test_a_burst_and_a_storm_arrive_and_a_healthy_restart_does_not(tmp_path: Path) -> None:
    """1009 reaches the team and the storm the pager; what it silences reaches nobody, but of other services it does."""
    with receiving() as receiver, alertmanager(tmp_path, routes(receiver)) as manager:
        async with services() as (chat, feed), taps(tmp_path, chat, feed) as (urls, metrics):
            with prometheus(metrics.port, tmp_path, shortened(tmp_path), manager.port) as monitor:
                await until(lambda: monitor.query("count(up == 1)"), 30, "the first scrape")
                clients = await healthy_restart(chat, urls["chat"], monitor)
                assert monitor.query('count_over_time(ALERTS{alertstate="firing"}[5m])') == []
                assert receiver.firing() == set()
                await burst(urls["feed"])
                spike = ("team", "WebSocketMessageTooBigSpike", "feed")
                await until(lambda: spike in receiver.firing(), 40, "the spike is notified")
                await stormed(chat, urls["chat"], clients, monitor, manager, receiver)
    assert {found for found in receiver.firing() if found[2] == "chat" and found[0] != "pager"} == set()


@contextlib.asynccontextmanager
async def taps(folder: Path, chat: Service, feed: Service) -> AsyncIterator[tuple[dict[str, str], Address]]:
    """An exporter with a tap before each service: the addresses of the taps, and of its metrics."""
    listen = {"chat": free_port(), "feed": free_port()}
    flags = [
        f"--tap=127.0.0.1:{listen[name]}=127.0.0.1:{service.port},target={name}"
        for name, service in (("chat", chat), ("feed", feed))
    ]
    async with exporter_process(folder, *flags) as exporter:
        metrics = await exporter.address("metrics")
        yield {name: f"ws://127.0.0.1:{port}/ws" for name, port in listen.items()}, metrics


async def burst(url: str) -> None:
    for _ in range(REFUSALS):
        await refused_for_size(url)


async def healthy_restart(chat: Service, url: str, monitor: Prometheus) -> list[ClientConnection]:
    """Everyone is cut and returns once; then it is over, and long enough for any alert to have fired."""
    clients = []
    for _ in range(CLIENTS):
        clients.append(await connect(url))
        await asyncio.sleep(ARRIVAL / CLIENTS)  # all within a second would be a herd
    # What an exporter counts in the first seconds of its life is not in every window: it is to be known first.
    settled = 'min_over_time(job_target_source:websocket_handshakes_reached:increase12s{target="chat"}[3s]) == 0'
    await until(lambda: monitor.query(settled), 60, "the first connections are history")
    rng = random.Random(1)
    async with asyncio.TaskGroup() as tasks:
        returns = [tasks.create_task(come_back(client, url, rng)) for client in clients]
        await chat.stop()
        await chat.start()
    lost = f'job_target_source:websocket_connections_lost:increase60s{{target="chat"}} == {CLIENTS}'
    await until(lambda: monitor.query(lost), 30, "the loss is recorded")
    await until(lambda: monitor.query(settled), 60, "the return is history")
    assert monitor.query('max_over_time(job_target_source:websocket_handshakes_reached:increase12s{target="chat"}[1m])')
    return [task.result() for task in returns]


async def stormed(
    chat: Service,
    url: str,
    clients: list[ClientConnection],
    monitor: Prometheus,
    manager: Alertmanager,
    receiver: Receiver,
) -> None:
    """The next restart finds clients without backoff and a service that is too busy; meanwhile messages are too big."""
    over = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        for client in clients:
            tasks.create_task(storm(client, url, over))
        await chat.stop()
        chat.busy = True
        await chat.start()
        paged = ("pager", "WebSocketReconnectStorm", "chat")
        await until(lambda: paged in receiver.firing(), 60, "the storm is notified")
        chat.busy = False
        await burst(url)
        too_big = ("WebSocketMessageTooBigSpike", "chat")
        await until(lambda: manager.suppressed().get(too_big), 40, "the spike of the same service is silenced")
        firing = 'ALERTS{alertname="WebSocketMessageTooBigSpike", target="chat", alertstate="firing"}'
        assert monitor.query(firing) or monitor.query(f"last_over_time({firing}[1m])")
        over.set()
        await chat.stop()
        await chat.start()
