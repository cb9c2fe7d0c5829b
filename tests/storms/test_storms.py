"""Mass closes for real: 200 clients, a service that goes away, and what the exporter makes of it."""

import asyncio
import contextlib
import signal
import sys
from collections.abc import AsyncIterator

import pytest
from websockets.asyncio.server import ServerConnection

from exporter.config import Address
from tests.storms.crowd import CHAT, RULES, Delays, at_once, crowd, remedy, returns, telling, timer
from tests.support.loops import conversation, eventually
from tests.support.services import ROOT, echo, service
from tests.support.watching import watching

CLIENTS = 200
slow = [pytest.mark.matrix, pytest.mark.timeout(120)]


@contextlib.asynccontextmanager
async def program(*arguments: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, int]]:
    """A server of the peers as a process of its own, and its port."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", *arguments, cwd=ROOT, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        line = await process.stdout.readline()
        yield process, int(line.split()[-1])
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


@pytest.mark.parametrize(
    ("delays", "verdict", "rhythm"),
    [
        pytest.param(at_once, "herd", "immediate", id="at once"),
        pytest.param(remedy, "healthy", "jittered", id="remedy"),
        pytest.param(timer(3.0), "herd", "fixed_interval", id="timer", marks=slow),
    ],
)
@conversation
async def test_a_restart_with_1001(delays: Delays, verdict: str, rhythm: str) -> None:
    """All are lost to 1001 by the server, and come back: in a herd without jitter, and calmly with the remedy."""
    async with service() as (server, upstream), watching(upstream, CHAT, insight_rules=RULES) as watched:
        with telling() as story:
            async with crowd(watched, CLIENTS, delays) as people:
                server.close()
                await server.wait_closed()
                await eventually(lambda: not people.connections)
                await asyncio.sleep(0.5)
                async with service(echo, port=upstream.port):
                    await people.all_connected(CLIENTS)
                    page = await watched.page(lambda page: returns(page) == CLIENTS)
                    assert page.value("websocket_mass_close_active") == 1
                    incident = await story.told()
                    page = await watched.scrape()
            assert (incident["verdict"], incident["lost"], incident["returned"]) == (verdict, CLIENTS, CLIENTS)
            assert incident["lost_by"] == {"1001 server": CLIENTS}
            assert incident["answered_per_returned"] == 1.0
            [build] = incident["builds"]  # type: ignore[misc]
            assert (build["build"], build["rhythm"]) == ("acme-app/*", rhythm)
            assert page.value("websocket_mass_close_connections_total") == CLIENTS
            assert page.counted("websocket_mass_closes_total", "verdict") == {(verdict,): 1}
            assert page.value("websocket_reconnects_total", after="going_away") == CLIENTS
            assert page.value("websocket_reconnect_delay_seconds_count", after="going_away") == CLIENTS
            assert page.value("websocket_client_build_reconnects_total", build="acme-app/*") == CLIENTS
            assert page.value("websocket_mass_close_active") == 0
            peak = page.value("websocket_handshakes_peak_per_second")
            assert peak <= page.value("websocket_handshakes_last_minute")
            if verdict == "herd":
                assert peak >= CLIENTS / 2


@pytest.mark.parametrize(
    ("server", "number", "lost_by"),
    [
        pytest.param(("tests.peers.servers.asgi", "websockets"), signal.SIGTERM, "1012 server", id="uvicorn"),
        pytest.param(("tests.peers.servers.asgi", "websockets"), signal.SIGKILL, "1006 server", id="killed"),
        pytest.param(("tests.peers.servers.sanic_server",), signal.SIGTERM, "1000 server", id="sanic"),
    ],
)
@pytest.mark.needs("sanic")
@pytest.mark.matrix
@pytest.mark.timeout(120)
@conversation
async def test_whatever_the_code(server: tuple[str, ...], number: signal.Signals, lost_by: str) -> None:
    """A mass close is one by many at once: 1012, none at all, or 1000 are as good as 1001."""
    async with program(*server) as (process, port):
        upstream = Address("127.0.0.1", port)
        async with watching(upstream, CHAT, insight_rules=RULES) as watched:
            with telling() as story:
                async with crowd(watched, CLIENTS, remedy) as people:
                    process.send_signal(number)
                    await process.wait()
                    await eventually(lambda: not people.connections, 10.0)
                    async with program(*server, f"--port={port}"):
                        await people.all_connected(CLIENTS)
                        incident = await story.told()
                        assert incident["lost_by"] == {lost_by: CLIENTS}
                        assert (incident["verdict"], incident["returned"]) == ("healthy", CLIENTS)


@pytest.mark.matrix
@pytest.mark.timeout(120)
@conversation
async def test_a_server_that_accepts_and_then_rejects() -> None:
    """Each client is let in and dropped again and again: the service is busy with its own clients."""

    async def reject(connection: ServerConnection) -> None:
        await connection.close(1013)

    async with service() as (server, upstream), watching(upstream, CHAT, insight_rules=RULES) as watched:
        with telling() as story:
            async with crowd(watched, CLIENTS, timer(0.5)):
                server.close()
                await server.wait_closed()
                async with service(reject, port=upstream.port):
                    incident = await story.told()
            assert (incident["verdict"], incident["lost"]) == ("amplified", CLIENTS)
            assert incident["answered_per_returned"] > 2  # type: ignore[operator]
            page = await watched.scrape()
            assert page.value("websocket_mass_close_connections_total") == CLIENTS


@pytest.mark.matrix
@pytest.mark.timeout(120)
@conversation
async def test_a_server_that_stays_down() -> None:
    """Its clients go on trying here, so nobody else has taken them."""
    async with service() as (server, upstream), watching(upstream, CHAT, insight_rules=RULES) as watched:
        with telling() as story:
            async with crowd(watched, CLIENTS, timer(0.5)):
                server.close()
                await server.wait_closed()
                incident = await story.told()
            assert (incident["verdict"], incident["tried"], incident["returned"]) == ("unrecovered", CLIENTS, 0)
            assert incident["gap"] is None


@conversation
async def test_a_process_that_drains() -> None:
    """What the exporter itself closes when it ends is judged before it ends: its clients are to go elsewhere."""
    async with service() as (_, upstream), watching(upstream, CHAT, insight_rules=RULES, shutdown_grace=1.0) as watched:
        with telling() as story:
            async with crowd(watched, 50, timer(60.0)):
                watched.app.stop()
                await watched.running
            [incident] = story.incidents
            assert (incident["verdict"], incident["lost_by"]) == ("moved", {"1006 exporter": 50})


@conversation
async def test_people_who_leave_are_no_incident() -> None:
    """200 clients that say 1001 themselves."""
    async with service() as (_, upstream), watching(upstream, CHAT, insight_rules=RULES) as watched:
        with telling() as story:
            async with crowd(watched, CLIENTS, timer(60.0)) as people:
                await asyncio.gather(*(connection.close(1001) for connection in list(people.connections.values())))
                page = await watched.page(lambda page: page.value("websocket_closes_total") == CLIENTS)
            assert page.value("websocket_closes_total", code="1001", initiator="client") == CLIENTS
            assert page.value("websocket_mass_close_connections_total") == 0
            assert page.value("websocket_mass_close_active") == 0
            assert story.incidents == []
