"""A capture that cannot keep up gives sizes up for a while, goes on telling closes, and then looks at sizes again."""

import asyncio
import socket
from typing import Final

import pytest

from exporter.closecodes import Vocabulary
from exporter.config import CaptureConfig
from exporter.events import Closed, Origin
from exporter.sources.capture import drops
from exporter.sources.capture.capture import Capture
from exporter.sources.capture.opening import open_capture
from exporter.wire.upgrade import UpgradeRequest
from exporter.wire.websocket import Watch
from tests.capture.rights import needs_packet_sockets
from tests.sources.probing import Seen
from tests.sources.test_capture_opening import listener_at
from tests.support.loops import conversation, eventually, in_both_loops
from tests.wire.support import KEY, TEXT, accepts, asks, close, frame, no_sizes

pytestmark = needs_packet_sockets

RING: Final = 1 << 20
ORIGIN: Final = Origin("capture", "chat")


def talk(listener: socket.socket) -> None:
    """A WebSocket with one message, that the client closes."""
    with socket.create_connection(listener.getsockname()) as client, listener.accept()[0] as server:
        for says, words in (
            (client, asks()[1]),
            (server, accepts()[1]),
            (client, frame(TEXT, b"hello", key=KEY)),
            (client, close(1000, key=KEY)),
            (server, close(1000)),
        ):
            hears = server if says is client else client
            says.sendall(words)
            assert hears.recv(1000) == words
        for ends in (server, client):
            ends.shutdown(socket.SHUT_WR)


def watched(_: UpgradeRequest) -> Watch:
    return Watch(ORIGIN, Vocabulary(frozenset(), frozenset()), no_sizes(), no_sizes())


@in_both_loops
@conversation
async def test_sizes_are_given_up_and_taken_up_again(loop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the size ring drops without end; closes are told all the time."""
    monkeypatch.setattr(drops, "SHED_AFTER", 0.3)
    monkeypatch.setattr(drops, "SHED_FOR", 2.0)
    seen = Seen()
    with listener_at("127.0.0.1") as listener:
        config = CaptureConfig("lo", listener.getsockname()[1])
        rings = open_capture(config, "full", RING)  # which the capture closes
        capture = Capture(config, rings, watched, origin=ORIGIN, sink=seen, ring_limit=RING)
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(capture.run())
            talk(listener)
            assert (await seen.first(Closed)).client_to_server.messages == 1
            with monkeypatch.context() as dropping:
                dropping.setattr(rings.size, "drops", lambda: 1)
                await eventually(lambda: capture.lifecycle_only, 20.0)
                talk(listener)
                _, without_sizes = await seen.several(Closed, 2)
            await eventually(lambda: not capture.lifecycle_only, 20.0)
            talk(listener)
            *_, with_sizes = await seen.several(Closed, 3)
            running.cancel()
    assert [closed.code for closed in seen.of(Closed)] == ["1000"] * 3
    assert (without_sizes.client_to_server.messages, with_sizes.client_to_server.messages) == (0, 1)
