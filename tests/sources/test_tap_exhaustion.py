"""The tap when its process has run out of descriptors."""

import asyncio
import contextlib
from pathlib import Path

from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from exporter.config import Address
from tests.support.loops import conversation, eventually
from tests.support.peers import connected
from tests.support.processes import exporter_process, tap_flag
from tests.support.services import service
from tests.wire.support import asks


async def served(address: Address) -> bool:
    """Whether a client gets through."""
    with contextlib.suppress(InvalidStatus):
        async with connect(f"ws://{address}/") as connection:
            await connection.send("hello again")
            return await connection.recv() == "hello again"
    return False


async def refused_for_want_of(descriptors: int, folder: Path) -> float:
    """How many clients are told that they are too many, where a tap has so few descriptors that most must wait."""
    async with (
        service() as (_, upstream),
        exporter_process(folder, tap_flag(upstream), "--limits.connections=1000", descriptors=descriptors) as exporter,
    ):
        address = await exporter.address("tap")
        with contextlib.ExitStack() as crowd:
            clients = [crowd.enter_context(await connected(address)) for _ in range(100)]
            for client in clients:
                await client.send(asks()[1])
            await eventually(lambda: exporter.said("cannot accept connections"))
            before = exporter.cpu_seconds()
            await asyncio.sleep(2)  # what is measured is a length of time
            assert exporter.cpu_seconds() - before < 0.2
            complaints = [line for line in exporter.lines if line["level"] == "error"]
            assert len(complaints) <= 5
        assert await eventually(lambda: served(address))
        page = await exporter.scrape()
        assert page.value("websocket_handshakes_total", outcome="failed", status="refused") == 0
        return page.value("websocket_handshakes_total", outcome="refused_by_exporter", status="limit")


@conversation
async def test_more_clients_than_descriptors(tmp_path: Path) -> None:
    """Out of descriptors, the tap rests between attempts, complains once a second at most, and recovers by itself.

    A client that is taken when none is left to dial for it is told so; of an even number all are used in pairs.
    """
    assert await refused_for_want_of(64, tmp_path) + await refused_for_want_of(65, tmp_path) > 0
