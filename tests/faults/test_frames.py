"""Frames as no library would send them, through a real tap: every byte arrives, and every WebSocket counts once."""

import asyncio
from collections import Counter
from typing import Final

import pytest

from exporter.events import SIDES, Side
from tests.support.loops import conversation, in_both_loops
from tests.support.peers import Pair, Peer, connected, relayed
from tests.support.scraping import Page
from tests.support.watching import Closes
from tests.wire.support import BINARY, CLOSE, CONTINUATION, KEY, PING, PONG, TEXT, Turn, accepts, asks, close, frame

ANOMALIES: Final = "websocket_exporter_frame_anomalies_total"
MESSAGES: Final = "websocket_message_size_bytes_count"
UNPARSED: Final = "websocket_exporter_unparsed_streams_total"


def says(side: Side, opcode: int, payload: bytes = b"", **options: int | bool) -> Turn:
    """A frame from `side`, masked as it must be unless `options` say otherwise."""
    return side, frame(opcode, payload, key=KEY if side == "client" else None, **options)  # type: ignore[arg-type]


def farewell(side: Side, code: int, reason: bytes = b"") -> bytes:
    return close(code, reason, key=KEY if side == "client" else None)


async def pass_on(pair: Pair, side: Side, data: bytes) -> None:
    """`side` sends, and the other receives just that."""
    sender, receiver = (pair.client, pair.server) if side == "client" else (pair.server, pair.client)
    await sender.send(data)
    assert await receiver.read(len(data)) == data


async def end(pair: Pair) -> Closes:
    """Both sides end TCP, the client first; how the one WebSocket was counted."""
    pair.client.finish()
    assert await pair.server.rest() == b""
    pair.server.finish()
    assert await pair.client.rest() == b""
    return await pair.watched.closes()


LIFE: Final = (
    asks(),
    accepts(),
    says("client", TEXT, b"hello"),
    says("server", BINARY, bytes(200)),
    says("client", BINARY, bytes(40), width=8),
    says("server", TEXT, b"fra", fin=False),
    says("server", PING, b"?"),
    says("client", PONG, b"?"),
    says("server", CONTINUATION, b"gments"),
    says("client", TEXT, b"", rsv=2),
    says("server", CLOSE, (1012).to_bytes(2) + b"restarting"),
    says("client", CLOSE, (1000).to_bytes(2)),
)
"""One WebSocket, with some of everything."""


def account(page: Page) -> dict[str, Counter[tuple[tuple[str, str], ...]]]:
    """All that was counted of connections; how long anything took is left out."""
    return {
        name: Counter({tuple(sorted(sample.labels.items())): int(sample.value) for sample in samples})
        for name, samples in page.samples.items()
        if name.startswith("websocket_") and not name.startswith("websocket_exporter_") and "seconds" not in name
    } | {ANOMALIES: Counter({kind: int(value) for kind, value in page.counted(ANOMALIES, "kind").items()})}


@conversation
async def test_one_byte_at_a_time() -> None:
    """A whole life in which every byte comes in a segment of its own is counted as if it came in whole frames."""
    accounts = []
    for size in (1000, 1):
        async with relayed() as pair:
            for side, data in LIFE:
                for start in range(0, len(data), size):
                    await pass_on(pair, side, data[start : start + size])
            assert await end(pair) == {("1012", "going_away", "server"): 1}
            accounts.append(account(await pair.watched.scrape()))
    whole, bytewise = accounts
    assert bytewise == whole
    assert sum(whole[MESSAGES].values()) == 5
    assert set(whole[ANOMALIES]) == {("illegal_length",), ("rsv_without_extension",), ("echo_mismatch",)}


@pytest.mark.parametrize("length", [(1 << 63) - 1, 1 << 63, (1 << 64) - 1])
@conversation
async def test_a_frame_that_never_ends(length: int) -> None:
    """A frame that claims 2^63 bytes is relayed as far as it comes, is no message, and ends with TCP as 1006."""
    async with relayed() as pair:
        await pair.upgrade()
        await pass_on(pair, "client", frame(BINARY, bytes(100_000), key=KEY, length=length))
        await pass_on(pair, "client", farewell("client", 1000))  # part of the frame, whatever it looks like
        assert await end(pair) == {("1006", "abnormal", "client"): 1}
        page = await pair.watched.scrape()
        assert page.value(MESSAGES) == page.value(UNPARSED) == 0
        assert page.value(ANOMALIES, kind="illegal_length") == (length >= 1 << 63)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("before", [b"", frame(BINARY, bytes(1 << 16)), frame(BINARY, bytes(1 << 20))], ids=len)
@in_both_loops
@conversation
async def test_a_close_frame_in_pieces(loop: str, side: Side, before: bytes) -> None:
    """A Close frame split over three segments, alone or behind much data, counts once, with its code."""
    async with relayed() as pair:
        await pair.upgrade()
        data = before + farewell(side, 1008, b"in pieces")
        for piece in (data[:-10], data[-10:-7], data[-7:]):
            await pass_on(pair, side, piece)
        assert await end(pair) == {("1008", "policy", side): 1}


@in_both_loops
@conversation
async def test_both_sides_close_at_once(loop: str) -> None:
    """Where both send Close at once, the one that the tap read first counts, once, and each gets the other's."""
    rounds = 50
    async with relayed() as pair:
        for number in range(rounds):
            with await connected(pair.watched.address) as client, await pair.door.accept() as server:
                both = Pair(client, server, pair.watched, pair.door)
                await both.upgrade()
                ends = [(client, farewell("client", 1000)), (server, farewell("server", 1001))]
                for peer, data in ends[:: 1 if number % 2 else -1]:
                    peer.sock.send(data)  # no await between: both are there before the tap looks
                assert await client.read(4) == ends[1][1]
                assert await server.read(8) == ends[0][1]
        closes = await pair.watched.closes(rounds)
        assert closes.keys() <= {("1000", "normal", "client"), ("1001", "going_away", "server")}
        assert sum(closes.values()) == rounds
        assert (await pair.watched.scrape()).value(ANOMALIES, kind="echo_mismatch") == rounds


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize(
    ("opcode", "payload", "kind"),
    [(TEXT, b"one more thing", "data_after_close"), (CLOSE, (1011).to_bytes(2), "second_close")],
)
@conversation
async def test_words_after_the_last(side: Side, opcode: int, payload: bytes, kind: str) -> None:
    """What a side sends after its Close is relayed, and is no message and no close, but an anomaly."""
    async with relayed() as pair:
        await pair.upgrade()
        await pass_on(pair, side, farewell(side, 1001))
        await pass_on(pair, *says(side, opcode, payload))
        assert await end(pair) == {("1001", "going_away", side): 1}
        page = await pair.watched.scrape()
        assert page.counted(ANOMALIES, "kind") == {(kind,): 1}
        assert page.value(MESSAGES) == 0


BODIES: Final = {
    **{code.to_bytes(2): "invalid" for code in (0, 999, 1004, 1005, 1006, 1015, 5000, 65535)},
    b"\x03": "invalid",
    (1000).to_bytes(2) + bytes(124): "invalid",
    (1016).to_bytes(2): "reserved",
    (2999).to_bytes(2): "reserved",
    (1000).to_bytes(2) + b"\xff\xfe\x00\xed\xa0\x80": "1000",
    b"": "1005",
}
"""What a Close frame may contain against the RFC, or hardly within it, and the label of each."""


@pytest.mark.parametrize("side", SIDES)
@conversation
async def test_strange_close_frames(side: Side) -> None:
    """Illegal codes and bodies are relayed and counted as what they are; none of them breaks anything."""
    expected = Counter((label, side) for label in BODIES.values())
    async with relayed() as pair:
        for body in BODIES:
            with await connected(pair.watched.address) as client, await pair.door.accept() as server:
                one = Pair(client, server, pair.watched, pair.door)
                await one.upgrade()
                await pass_on(one, *says(side, CLOSE, body))
        page = await pair.watched.page(lambda page: page.value("websocket_closes_total") == len(BODIES))
        assert page.counted("websocket_closes_total", "code", "initiator") == expected
        assert page.counted(ANOMALIES, "kind") == {("illegal_close_code",): 10, ("oversized_control",): 1}
        assert page.value(UNPARSED) == 0


async def nothing_more(peer: Peer) -> bool:
    """Whether nothing comes for a while."""
    try:
        async with asyncio.timeout(0.1):
            await peer.read(1)
    except TimeoutError:
        return True
    return False


@pytest.mark.parametrize(
    ("answer", "messages"),
    [(accepts()[1], 1), (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", 0)],
    ids=["accepted", "refused"],
)
@conversation
async def test_frames_before_the_answer(answer: bytes, messages: int) -> None:
    """What a client sends behind its handshake is relayed at once, and read as frames only after a right 101."""
    async with relayed() as pair:
        _, request = asks()
        await pass_on(pair, "client", request + frame(TEXT, b"early", key=KEY))
        assert await nothing_more(pair.client)
        assert (await pair.watched.scrape()).value(MESSAGES) == 0
        await pass_on(pair, "server", answer)
        page = await pair.watched.page(lambda page: page.value("websocket_handshakes_total") == 1)
        assert page.value(MESSAGES, direction="client_to_server") == messages
