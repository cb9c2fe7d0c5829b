"""What claims to have become a WebSocket, and has not: relayed to the end, counted by kind, never read as frames."""

from typing import Final

import pytest

from tests.support.loops import conversation
from tests.support.peers import Pair, relayed
from tests.wire.support import KEY, TEXT, accepts, asks, close, frame, head

UNPARSED: Final = "websocket_exporter_unparsed_streams_total"

Row = tuple[bytes, bytes, str, dict[tuple[str, str], int]]
"""What the client asks, what the service answers, why the rest is not understood, and the handshakes counted."""

ASKS: Final = asks()[1]
SWITCHES: Final = accepts()[1]
NO_ATTEMPT: Final[dict[tuple[str, str], int]] = {}
REJECTED: Final = {("rejected", "other"): 1}

TUNNELS: Final[dict[str, Row]] = {
    "no accept value": (ASKS, accepts(Sec_WebSocket_Accept=None)[1], "accept_mismatch", REJECTED),
    "another's accept value": (ASKS, accepts(Sec_WebSocket_Accept="x" * 27 + "=")[1], "accept_mismatch", REJECTED),
    "101 to a POST": (
        head("POST /chat HTTP/1.1", "Host: chat.test", "Content-Length: 0"),
        SWITCHES,
        "unexpected_101",
        NO_ATTEMPT,
    ),
    "101 to a POST that asked": (asks("POST /chat HTTP/1.1")[1], SWITCHES, "other_upgrade", NO_ATTEMPT),
    "101 to a plain GET": (head("GET / HTTP/1.1", "Host: chat.test"), SWITCHES, "unexpected_101", NO_ATTEMPT),
    "101 unasked": (b"", SWITCHES, "unexpected_101", NO_ATTEMPT),
    "HTTP/1.0": (asks("GET /chat HTTP/1.0")[1], SWITCHES, "unexpected_101", REJECTED),
    "version 8": (asks(Sec_WebSocket_Version="8")[1], SWITCHES, "unexpected_101", REJECTED),
    "no key": (asks(Sec_WebSocket_Key=None)[1], SWITCHES, "unexpected_101", REJECTED),
    "a short key": (asks(Sec_WebSocket_Key="AAAA")[1], SWITCHES, "unexpected_101", REJECTED),
    "a body": (asks(Content_Length="5")[1] + b"hello", SWITCHES, "unexpected_101", REJECTED),
    "h2c": (
        asks(Upgrade="h2c", Connection="Upgrade, HTTP2-Settings", HTTP2_Settings="AAMAAABkAAQAAP__")[1],
        accepts(Upgrade="h2c")[1],
        "other_upgrade",
        NO_ATTEMPT,
    ),
    "CONNECT": (
        head("CONNECT chat.test:443 HTTP/1.1", "Host: chat.test:443"),
        head("HTTP/1.1 200 Connection established"),
        "connect",
        NO_ATTEMPT,
    ),
}

FRAMES: Final = frame(TEXT, b"hello", key=KEY) + close(1009, key=KEY)


async def pass_on(pair: Pair, asked: bytes, answered: bytes) -> None:
    """One exchange, byte for byte."""
    await pair.client.send(asked)
    assert await pair.server.read(len(asked)) == asked
    await pair.server.send(answered)
    assert await pair.client.read(len(answered)) == answered


@pytest.mark.parametrize("name", TUNNELS)
@conversation
async def test_no_websocket(name: str) -> None:
    """A switch that is none, or to something else, makes no WebSocket, although what follows looks like frames."""
    asked, answered, reason, handshakes = TUNNELS[name]
    async with relayed() as pair:
        await pass_on(pair, asked, answered)
        await pass_on(pair, FRAMES, FRAMES)
        for one, other in ((pair.client, pair.server), (pair.server, pair.client)):
            one.finish()
            assert await other.rest() == b""
        page = await pair.watched.page(lambda page: page.value(UNPARSED) == 1)
        assert page.counted(UNPARSED, "reason") == {(reason,): 1}
        assert page.counted("websocket_handshakes_total", "outcome", "status") == handshakes
        for name in ("websocket_closes_total", "websocket_connections_active", "websocket_message_size_bytes_count"):
            assert page.value(name) == 0


@conversation
async def test_a_second_try_on_the_same_connection() -> None:
    """A refused handshake leaves HTTP behind: requests go on, and the next handshake makes the one WebSocket."""
    async with relayed() as pair:
        await pass_on(pair, ASKS, head("HTTP/1.1 401 Unauthorized", "Content-Length: 2") + b"no")
        await pass_on(pair, head("GET /login HTTP/1.1", "Host: chat.test"), head("HTTP/1.1 204 No Content"))
        await pass_on(pair, asks(Authorization="Bearer x")[1], SWITCHES)
        await pass_on(pair, FRAMES, FRAMES)
        pair.client.close()
        assert await pair.server.rest() == b""
        pair.server.close()
        assert await pair.watched.handshakes(2) == {("rejected", "401"): 1, ("accepted", "101"): 1}
        assert await pair.watched.closes() == {("1009", "too_big", "client"): 1}
