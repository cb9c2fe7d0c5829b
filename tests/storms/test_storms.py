"""Mass closes for real: 200 clients, a service that goes away, and what the exporter makes of it."""

import asyncio
import signal

import pytest
from websockets.asyncio.server import ServerConnection

from exporter.config import Address
from tests.storms.crowd import CHAT, RULES, crowd, server, telling
from tests.support.loops import conversation
from tests.support.scraping import Page
from tests.support.services import echo, service
from tests.support.watching import watching

CLIENTS = 200
slow = [pytest.mark.matrix, pytest.mark.timeout(120)]


def all_returned(page: Page) -> bool:
    return page.value("websocket_mass_close_returns_total") == CLIENTS


@pytest.mark.parametrize(
    ("habit", "verdict", "rhythm"),
    [
        pytest.param("at-once", "herd", "immediate", id="at once"),
        pytest.param("remedy", "healthy", "jittered", id="remedy"),
        pytest.param("3", "herd", "fixed_interval", id="timer", marks=slow),
    ],
)
@conversation
async def test_a_restart_with_1001(habit: str, verdict: str, rhythm: str) -> None:
    """All are lost to 1001 by the server, and come back: in a herd without jitter, and calmly with the remedy."""
    async with service() as (first, upstream), watching(upstream, CHAT, insight_rules=RULES) as watched:
        with telling() as story:
            async with crowd(watched, CLIENTS, habit) as people:
                first.close()
                await people.connected(0)
                await asyncio.sleep(0.5)  # nobody listens
                async with service(echo, port=upstream.port):
                    await people.connected(CLIENTS)
                    page = await watched.page(all_returned)
                    assert page.value("websocket_mass_close_active") == 1
                    over = await story.mass_close()
                    page = await watched.scrape()
            assert (over["verdict"], over["lost"], over["returned"]) == (verdict, CLIENTS, CLIENTS)
            assert over["lost_by"] == {"1001 server": CLIENTS}
            assert over["answered_per_returned"] == 1.0
            [build] = over["builds"]
            assert (build["build"], build["rhythm"]) == ("acme-app/*", rhythm)
            assert page.value("websocket_mass_close_connections_total") == CLIENTS
            assert page.counted("websocket_mass_closes_total", "verdict") == {(verdict,): 1}
            assert page.value("websocket_reconnects_total", after="going_away") == CLIENTS
            assert page.value("websocket_reconnect_delay_seconds_count", after="going_away") == CLIENTS
            assert page.value("websocket_client_build_reconnects_total", build="acme-app/*") == CLIENTS
            assert page.value("websocket_mass_close_active") == 0
            peak = page.value("websocket_handshakes_peak_per_second")
            assert peak <= page.value("websocket_handshakes_last_minute")
            assert peak >= CLIENTS / 2 or verdict == "healthy"


@pytest.mark.parametrize(
    ("name", "number", "lost_by"),
    [
        pytest.param("uvicorn-websockets", signal.SIGTERM, "1012 server", id="1012"),
        pytest.param("uvicorn-websockets", signal.SIGKILL, "1006 server", id="killed"),
        pytest.param("sanic", signal.SIGTERM, "1000 server", id="1000"),
    ],
)
@pytest.mark.needs("sanic")
@pytest.mark.matrix
@pytest.mark.timeout(120)
@conversation
async def test_whatever_the_code(name: str, number: signal.Signals, lost_by: str) -> None:
    """A mass close is one by many at once: 1012, none at all, or 1000 are as good as 1001."""
    async with (
        server(name) as (process, port),
        watching(Address("127.0.0.1", port), CHAT, insight_rules=RULES) as watched,
    ):
        with telling() as story:
            async with crowd(watched, CLIENTS, "0.5") as people:
                process.send_signal(number)
                await process.wait()
                async with server(name, f"--port={port}"):
                    await people.connected(CLIENTS)
                    over = await story.mass_close()
        assert over["lost_by"] == {lost_by: CLIENTS}
        assert (over["verdict"], over["returned"]) == ("herd", CLIENTS)


@pytest.mark.matrix
@pytest.mark.timeout(120)
@conversation
async def test_a_server_that_accepts_and_then_rejects() -> None:
    """Each client is let in and dropped again and again: the service is busy with its own clients."""

    async def reject(connection: ServerConnection) -> None:
        await connection.close(1013)

    async with service() as (first, upstream), watching(upstream, CHAT, insight_rules=RULES) as watched:
        with telling() as story:
            async with crowd(watched, CLIENTS, "0.5") as people:
                first.close()
                await people.connected(0)
                async with service(reject, port=upstream.port):
                    over = await story.mass_close()
            assert (over["verdict"], over["lost"]) == ("amplified", CLIENTS)
            assert over["answered_per_returned"] > 2
            page = await watched.scrape()
            assert page.value("websocket_mass_close_connections_total") == CLIENTS


@pytest.mark.matrix
@pytest.mark.timeout(120)
@conversation
async def test_a_server_that_stays_down() -> None:
    """Its clients go on trying here, so nobody else has taken them."""
    async with service() as (first, upstream), watching(upstream, CHAT, insight_rules=RULES) as watched:
        with telling() as story:
            async with crowd(watched, CLIENTS, "0.5"):
                first.close()
                over = await story.mass_close()
            assert (over["verdict"], over["tried"], over["returned"]) == ("unrecovered", CLIENTS, 0)
            assert over["gap"] is None


@conversation
async def test_a_process_that_drains() -> None:
    """What the exporter itself closes when it ends is judged before it ends: its clients are to go elsewhere."""
    async with service() as (_, upstream), watching(upstream, CHAT, insight_rules=RULES, shutdown_grace=1.0) as watched:
        with telling() as story:
            async with crowd(watched, 50, "60"):
                watched.app.stop()
                await watched.running
            [over] = story.mass_closes
            assert (over["verdict"], over["lost_by"]) == ("moved", {"1006 exporter": 50})


@conversation
async def test_people_who_leave_are_no_mass_close() -> None:
    """200 clients that say 1001 themselves."""
    async with service() as (_, upstream), watching(upstream, CHAT, insight_rules=RULES) as watched:
        with telling() as story:
            async with crowd(watched, CLIENTS, "60") as people:
                people.leave()
                page = await watched.page(lambda page: page.value("websocket_closes_total") == CLIENTS, 15.0)
            assert page.value("websocket_closes_total", code="1001", initiator="client") == CLIENTS
            assert page.value("websocket_mass_close_connections_total") == 0
            assert page.value("websocket_mass_close_active") == 0
            assert story.mass_closes == []
