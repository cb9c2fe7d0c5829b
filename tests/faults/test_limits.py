"""More clients than there may be: the others live on, and so does whatever watches the exporter."""

import asyncio
import contextlib
from pathlib import Path
from typing import Final

import pytest

from exporter.config import Address
from tests.faults.crowd import ANSWER, QUESTION, crowd, head
from tests.support.loops import conversation, eventually
from tests.support.peers import connected
from tests.support.processes import exporter_process, tap_flag
from tests.support.scraping import fetch
from tests.support.services import service
from tests.wire.support import asks

FLOOD: Final = 400
SPARE: Final = 8
"""Descriptors of which nothing may take the last ones."""


async def asked(tap: Address) -> bytes:
    """What one more client is answered."""
    with await connected(tap) as client:
        await client.send(asks()[1])
        return await client.rest()


async def let_in(tap: Address) -> bool:
    """Whether one more client gets through."""
    with await connected(tap) as client:
        await client.send(asks()[1])
        return (await head(client)).startswith(b"HTTP/1.1 101 ")


@pytest.mark.parametrize("descriptors", [128, pytest.param(1024, marks=pytest.mark.matrix)])
@conversation
async def test_a_flood_of_clients_that_say_nothing(descriptors: int, tmp_path: Path) -> None:
    """Silent clients over the limit take nothing away: not from scrapes, not from health checks, not from who is in."""
    async with (
        service() as (_, upstream),
        exporter_process(tmp_path, tap_flag(upstream), descriptors=descriptors) as exporter,
    ):
        tap, web = await exporter.address("tap"), await exporter.address("metrics")
        with contextlib.ExitStack() as stack:
            limit = int((await exporter.scrape()).value("websocket_exporter_tap_connection_limit"))
            assert limit >= descriptors // 4
            clients = await crowd(stack, tap, limit)
            flood = [stack.enter_context(await connected(tap)) for _ in range(FLOOD)]
            for _ in range(10):
                page = await exporter.scrape()
                assert page.value("process_open_fds") < descriptors - SPARE
                assert (await fetch(web, "/-/healthy"))[0] == 200
                answer = await asked(tap)
                assert answer.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
                assert b"\r\nRetry-After: " in answer
                await asyncio.sleep(0.02)
            for client in clients:
                await client.send(QUESTION)
                assert await client.read(len(ANSWER)) == ANSWER
            assert not exporter.said("cannot accept connections")
            page = await exporter.scrape()
            assert page.counted("websocket_handshakes_total", "outcome", "status") == {
                ("accepted", "101"): limit,
                ("refused_by_exporter", "limit"): 10,
            }
            for client in (*clients, *flood):
                client.close()
        await eventually(lambda: let_in(tap))
