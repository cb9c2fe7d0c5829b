"""From the socket to the alert: nothing on the way is a stand-in."""

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from tests.e2e.stack import Prometheus, eventually, exporter, prometheus

pytestmark = [pytest.mark.needs("prometheus"), pytest.mark.timeout(180)]

REFUSALS = 30
"""Above the 20 from which WebSocketMessageTooBigSpike fires."""
CLIENTS = 60
"""Above the 20 lost connections from which there can be a storm, and more than half of all handshakes."""


async def echo(connection: ServerConnection) -> None:
    with contextlib.suppress(ConnectionClosed):
        async for message in connection:
            await connection.send(message)


async def start_service(port: int = 0) -> Server:
    return await serve(echo, "127.0.0.1", port, max_size=1024)


def port_of(server: Server) -> int:
    port: int = next(iter(server.sockets)).getsockname()[1]
    return port


async def refused_for_size(url: str) -> int | None:
    async with connect(url) as client:
        with pytest.raises(ConnectionClosed) as closed:
            await client.send(b"x" * 4096)
            await client.recv()
    return closed.value.rcvd.code if closed.value.rcvd else None


async def traffic(server: Server, tap_port: int) -> None:
    """A little chat, messages over the limit, and a restart that sends everybody away."""
    url = f"ws://127.0.0.1:{tap_port}/ws"
    async with connect(url) as client:
        await client.send("hello")
        assert await client.recv() == "hello"
        await (await client.ping())
    assert {await refused_for_size(url) for _ in range(REFUSALS)} == {1009}
    clients = [await connect(url) for _ in range(CLIENTS)]
    server.close()
    await server.wait_closed()
    for client in clients:
        await client.wait_closed()
        assert client.close_code == 1001


@pytest.fixture(scope="module")
def monitor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """A Prometheus that has scraped an exporter before, during and after that traffic."""
    folder: Path = tmp_path_factory.mktemp("stack")
    with asyncio.Runner() as runner:
        server = runner.run(start_service())
        with exporter(port_of(server), folder) as (tap_port, metrics_port), prometheus(metrics_port, folder) as monitor:
            eventually(lambda: monitor.query("up == 1"), 30, "the first scrape")
            runner.run(traffic(server, tap_port))
            closed = f'websocket_closes_total{{code="1001",initiator="server"}} == {CLIENTS}'
            eventually(lambda: monitor.query(closed), 30, "the closes are scraped")
            yield monitor


def test_closes_reach_prometheus_with_code_class_and_initiator(monitor: Prometheus) -> None:
    """What the service did on its sockets is what Prometheus says of it."""
    closes = {
        (sample["metric"]["code"], sample["metric"]["class"], sample["metric"]["initiator"]): float(sample["value"][1])
        for sample in monitor.query('websocket_closes_total{source="tap",target="chat"} > 0')
    }
    assert closes == {
        ("1000", "normal", "client"): 1.0,
        ("1009", "too_big", "server"): REFUSALS,
        ("1001", "going_away", "server"): CLIENTS,
    }


def test_message_sizes_fill_in_both_directions(monitor: Prometheus) -> None:
    """A refused message counts too: it passed the wire."""
    sizes = {
        sample["metric"]["direction"]: float(sample["value"][1])
        for sample in monitor.query("sum by (direction) (websocket_message_size_bytes_count)")
    }
    assert sizes == {"client_to_server": 1 + REFUSALS, "server_to_client": 1}


def test_the_rules_are_loaded_and_evaluate(monitor: Prometheus) -> None:
    """Prometheus finds no fault in any rule when it evaluates it on real series."""
    rules = eventually(
        lambda: (
            (found := [rule for group in monitor.api("rules")["groups"] for rule in group["rules"]])
            and all(rule["health"] != "unknown" for rule in found)
            and found
        ),
        120,
        "every rule has been evaluated",
    )
    assert {rule["name"]: rule.get("lastError", "") for rule in rules if rule["health"] != "ok"} == {}


def test_the_1009_spike_fires(monitor: Prometheus) -> None:
    """Thirty refused messages in a minute are a spike, also for an exporter that has just started."""
    eventually(
        lambda: monitor.alerts().get("WebSocketMessageTooBigSpike") == "firing", 60, "WebSocketMessageTooBigSpike fires"
    )


def test_a_restart_whose_clients_stay_calm_is_no_storm(monitor: Prometheus) -> None:
    """Losing connections is not enough for a storm: it takes what clients do then."""
    lost = "job_target_source:websocket_connections_lost:increase30m >= 20"
    eventually(lambda: monitor.query(lost), 60, "the loss is recorded")
    assert "WebSocketReconnectStorm" not in monitor.alerts()
