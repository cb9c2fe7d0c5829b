"""What leaves the tap is what came in: any bytes, in any split, in both directions at once."""

import asyncio
import hashlib
from pathlib import Path
from random import Random
from typing import Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from exporter.events import SIDES, Side
from tests.faults.crowd import head
from tests.faults.fuzz import bulk, conversations
from tests.support.loops import long_conversation, run_in
from tests.support.peers import Pair, Peer, connected, opened, relayed
from tests.support.processes import exporter_process, tap_flag
from tests.wire.support import Turn, accepts, asks

FAULTS: Final = {"reason": "internal_error"}
UNPARSED: Final = "websocket_exporter_unparsed_streams_total"


async def talk(turns: list[Turn], *, upgraded: bool) -> None:
    """Both sides send what they have, in turn, and a FIN; each must receive the same from the other."""
    sent = {side: b"".join(data for sender, data in turns if sender == side) for side in SIDES}
    async with relayed() as pair:
        if upgraded:
            await pair.upgrade()
        async with asyncio.TaskGroup() as tasks:
            at_server, at_client = (tasks.create_task(peer.rest()) for peer in (pair.server, pair.client))
            for side, data in turns:
                await end_of(pair, side).send(data)
            for side in SIDES:
                end_of(pair, side).finish()
        assert (at_server.result(), at_client.result()) == (sent["client"], sent["server"])
        assert (await pair.watched.scrape()).value(UNPARSED, **FAULTS) == 0


def end_of(pair: Pair, side: Side) -> Peer:
    return pair.client if side == "client" else pair.server


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(turns=conversations(), upgraded=st.booleans())
def test_nothing_changes(turns: list[Turn], upgraded: bool) -> None:
    """Whatever passes, understood or not, arrives as it was sent, and no parser of ours fails over it."""
    run_in("uvloop", talk(turns, upgraded=upgraded))


@pytest.mark.parametrize("total", [10**8, pytest.param(10**9, marks=[pytest.mark.matrix, pytest.mark.timeout(280)])])
@long_conversation
async def test_a_mass_of_bytes(total: int, tmp_path: Path) -> None:
    """Frames, some of them broken, split anywhere, over many connections in both directions: all hashes are equal."""
    connections = 40
    each = total // (2 * connections)
    passed = 0

    async def say(peer: Peer, seed: int, side: Side) -> bytes:
        digest = hashlib.sha256()
        for piece in bulk(Random(seed), side, each):
            digest.update(piece)
            await peer.send(piece)
        peer.finish()
        return digest.digest()

    async def hear(peer: Peer) -> bytes:
        nonlocal passed
        digest = hashlib.sha256()
        while piece := await asyncio.get_running_loop().sock_recv(peer.sock, 1 << 18):
            digest.update(piece)
            passed += len(piece)
        return digest.digest()

    with opened() as door:
        async with exporter_process(tmp_path, tap_flag(door.address)) as exporter:
            tap = await exporter.address("tap")
            for seed in range(connections):
                with await connected(tap) as client, await door.accept() as server:
                    await client.send(asks()[1])
                    await head(server)
                    await server.send(accepts()[1])
                    await head(client)
                    said_by_client, heard_by_server, said_by_server, heard_by_client = await asyncio.gather(
                        say(client, seed, "client"),
                        hear(server),
                        say(server, seed + connections, "server"),
                        hear(client),
                    )
                assert (heard_by_server, heard_by_client) == (said_by_client, said_by_server)
            page = await exporter.scrape()
            assert page.value(UNPARSED) == 0
            assert page.value("websocket_closes_total") == connections
    assert passed >= total
