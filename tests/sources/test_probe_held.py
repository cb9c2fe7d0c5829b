"""A connection that a probe holds: what it asks, how it measures, and who ended it, with real servers at the end."""

import asyncio
import signal
import time
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed

from exporter import __version__
from exporter.config.probes import Text
from exporter.events import Closed, HandshakeEnded, Peer, PingAnswered, ProbeFailed, ProbeUp, ProbeWaits
from exporter.sources.probe import connection as probe_connection
from tests.sources.probing import (
    close_of,
    configured,
    flooding,
    frames,
    holding,
    killable,
    probing,
    request,
    serving,
    soon,
    upgrading,
)
from tests.support.loops import conversation, eventually, in_both_loops
from tests.support.services import close_empty, service
from tests.wire.support import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, close, frame


def told(closed: Closed) -> tuple[str, str, str]:
    return closed.code, closed.close_class, closed.initiator


# -- while it is held


@in_both_loops
@conversation
async def test_it_is_up_and_measures(loop: str) -> None:
    """A probe that connects is up, tells how long that took, and then the round trip of each Ping."""
    async with service() as (_, address), holding(address) as seen:
        up = await seen.first(ProbeUp)
        pings = await seen.several(PingAnswered, 3)
        accepted = await seen.first(HandshakeEnded)
    assert (accepted.outcome, accepted.status) == ("accepted", "101")
    assert 0 < (accepted.duration or 0) <= up.connect_duration < 4
    assert all(ping.peer == "server" and 0 < ping.rtt < 1 for ping in pings)
    assert {event.origin.source for event in seen.events} == {"probe"}  # type: ignore[union-attr]


@conversation
async def test_pings_come_at_the_interval() -> None:
    """One Ping at once, then one per interval, however many messages pass."""

    async def chatty(connection: ServerConnection) -> None:
        while True:
            await connection.send("x" * 1000)
            await asyncio.sleep(0.001)

    async with service(chatty) as (_, address), holding(address, interval=0.1) as seen:
        await seen.first(ProbeUp)
        await asyncio.sleep(0.55)
        assert 4 <= len(seen.of(PingAnswered)) <= 6


@conversation
async def test_a_service_that_floods_is_held() -> None:
    """What comes is taken and dropped: a flood neither fills the memory nor delays the Pongs into a timeout."""

    async def flood(connection: ServerConnection) -> None:
        while True:
            await connection.send(b"x" * 100_000)

    async with service(flood, compression=None) as (_, address), holding(address) as seen:
        await seen.several(PingAnswered, 5)
        assert seen.of(ProbeFailed) == []


@conversation
async def test_pongs_that_answer_nothing_are_ignored() -> None:
    """Unsolicited and repeated Pongs are no round trips (RFC 6455 section 5.5.3)."""

    async def noisy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await upgrading(frame(PONG), frame(PONG, b"\0\0\0\1"), stay=False)(reader, writer)
        async for opcode, payload in frames(reader):
            if opcode == PING:
                writer.write(frame(PONG) + frame(PONG, b"else") + frame(PONG, payload) * 3)

    async with serving(noisy) as address, holding(address, interval=0.3) as seen:
        await seen.several(PingAnswered, 2)
        await asyncio.sleep(0.1)
        assert len(seen.of(PingAnswered)) == 2


@in_both_loops
@conversation
async def test_a_service_that_pings_and_does_not_read(loop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers that nobody reads are not heaped up: such a service is not read either, and is a ping_timeout.

    Whether it is told 1008 depends on what is full first: the sockets, or the rate at which frames are read.
    """
    monkeypatch.setattr(probe_connection, "CLOSE_TIMEOUT", 0.2)
    sent = 0

    async def pings(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await upgrading(stay=False)(reader, writer)
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        while True:
            writer.write(frame(PING, b"x" * 125) * 100)
            await writer.drain()
            sent += 127 * 100

    async with serving(pings) as address:
        closed, reason = await close_of(configured(address, timeout=2.0))
    assert (closed.initiator, reason) == ("exporter", "ping_timeout")
    assert closed.code in ("1006", "1008")
    assert sent < 60 << 20  # what the sockets of both sides hold, and what is thrown away after the Close frame


@conversation
async def test_what_it_says_of_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """It names itself, offers no extension, uses the configured headers and query, and no proxy of the environment."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("ws_proxy", "http://127.0.0.1:1")
    asked: list[dict[str, str]] = []

    async def notes(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await request(reader))

    headers = (("Authorization", Text("Bearer x")), ("Origin", Text("https://example.com")))
    async with serving(notes) as address, probing(configured(address, "/ws?token=1", headers=headers)):
        await eventually(lambda: asked)
    del asked[0]["sec-websocket-key"]
    assert asked[0] == {
        "": "GET /ws?token=1 HTTP/1.1",
        "host": str(address),
        "upgrade": "websocket",
        "connection": "Upgrade",
        "sec-websocket-version": "13",
        "user-agent": f"websocket-exporter-probe/{__version__}",
        "authorization": "Bearer x",
        "origin": "https://example.com",
    }


@conversation
async def test_secrets_are_read_at_each_connection(tmp_path: Path) -> None:
    """A header from a file has what the file has at that moment; a file that is gone is no failure of the service."""
    secret = tmp_path / "secret"
    secret.write_text("Bearer first\n")
    asked: list[str] = []

    async def notes(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append((await request(reader))["authorization"])
        secret.write_text("Bearer second")

    config_headers = (("Authorization", Text(file=secret)),)
    async with serving(notes) as address:
        async with probing(configured(address, headers=config_headers)):
            await eventually(lambda: len(asked) == 2)
        assert asked == ["Bearer first", "Bearer second"]
        secret.unlink()
        with capture_logs() as logs:
            async with probing(configured(address, headers=config_headers)) as seen:
                waits = await seen.several(ProbeWaits, 3)
    assert [type(event) for event in seen.events] == [ProbeWaits] * len(waits)
    assert [(line["event"], line["detail"], line["log_level"]) for line in logs] == [
        ("probe cannot run", f"cannot read {secret}: no such file", "error")
    ]


@pytest.mark.parametrize(
    ("answer", "up"),
    [
        ([frame(TEXT, b'{"type": "welcome"}')], True),
        ([frame(BINARY, b"welcome")], True),
        ([frame(TEXT, b"wel", fin=False), frame(PING), frame(CONTINUATION, b"come")], True),
        ([frame(TEXT, b"x" * 1100 + b"welcome")], False),
        ([frame(TEXT, b"error"), frame(TEXT, b"welcome")], False),
        ([frame(BINARY, b"\xff\xfe")], False),
        ([], False),
    ],
)
@conversation
async def test_an_expected_answer(answer: list[bytes], up: bool) -> None:
    """The first message of the service has to match, in its first 1,024 characters and in time."""
    async with serving(upgrading(*answer)) as address, holding(address, expect="w[el]+come", timeout=0.3) as seen:
        await seen.first(ProbeUp if up else ProbeFailed)
        assert bool(seen.of(ProbeUp)) == up
        if not up:
            assert seen.of(ProbeFailed)[0].reason == "expectation"
            assert told(await seen.first(Closed)) == ("1000", "normal", "exporter")


@conversation
async def test_a_question_and_its_answer() -> None:
    """What is to be sent is sent first, once, and the answer to it is looked at."""
    settings = {"send": Text("héllo " * 100), "expect": "h.llo"}
    async with service() as (_, address), holding(address, **settings) as seen:
        await seen.first(ProbeUp)
        await seen.first(PingAnswered)
        await seen.probes.stop()
        closed = await seen.first(Closed)
    assert closed.client_to_server.messages == closed.server_to_client.messages == 1
    assert closed.client_to_server.largest_message == closed.server_to_client.largest_message == 700


@in_both_loops
@conversation
async def test_a_large_question(loop: str) -> None:
    """A first message that no socket buffer holds goes out whole, and its answer comes in."""
    settings = {"send": Text("x" * 1_000_000), "expect": "^x{100}", "timeout": 10.0}
    async with service() as (_, address), holding(address, **settings) as seen:
        await seen.first(ProbeUp)
        await seen.first(PingAnswered)


@conversation
async def test_a_subprotocol() -> None:
    """The subprotocol that the service chose is in the line of the close."""
    async with service(subprotocols=["b"]) as (_, address), holding(address, subprotocols=("a", "b")) as seen:
        await seen.first(ProbeUp)
        await seen.probes.stop()
        closed = await seen.first(Closed)
    agent = f"websocket-exporter-probe/{__version__}"
    assert closed.peer == Peer("", str(address), "/ws", agent, "b")


# -- how it ends


def closer(code: int, reason: str = "") -> list[bytes]:
    return [close(code, reason.encode())]


@pytest.mark.parametrize(
    ("last", "expected"),
    [
        (close(1000, b"bye"), ("1000", "normal", "server")),
        (close(1001), ("1001", "going_away", "server")),
        (close(1009), ("1009", "too_big", "server")),
        (close(1011), ("1011", "internal_error", "server")),
        (close(1013), ("1013", "going_away", "server")),
        (close(3001), ("3001", "going_away", "server")),
        (close(4001), ("4001", "application", "server")),
        (close(4999), ("4xxx", "application", "server")),
        (frame(CLOSE), ("1005", "normal", "server")),
        (frame(TEXT, b"x", fin=False) + close(1001), ("1001", "going_away", "server")),
    ],
)
@conversation
async def test_closed_by_the_service(last: bytes, expected: tuple[str, str, str]) -> None:
    """Code and reason of a Close frame are the service's, whatever it says: it was not asked to close."""
    async with serving(upgrading(last)) as address:
        closed, reason = await close_of(configured(address))
    assert told(closed) == expected
    assert reason == "closed_by_server"
    assert closed.reason == ("bye" if expected[0] == "1000" else "")


@conversation
async def test_a_service_that_shuts_down() -> None:
    """A service that ends says 1001, and is found again when it is back."""
    async with service() as (server, address), probing(configured(address), soon) as seen:
        await seen.first(ProbeUp)
        server.close()
        closed = await seen.first(Closed)
        assert told(closed) == ("1001", "going_away", "server")
        assert (await seen.first(ProbeFailed)).reason == "closed_by_server"
        await server.wait_closed()
        async with service(port=address.port):
            await seen.several(ProbeUp, 2)


@conversation
async def test_a_service_that_is_killed() -> None:
    """A service that is killed says nothing: 1006, by the server."""
    async with killable() as (process, address), holding(address) as seen:
        await seen.first(PingAnswered)
        process.send_signal(signal.SIGKILL)
        assert told(await seen.first(Closed)) == ("1006", "abnormal", "server")
        assert (await seen.first(ProbeFailed)).reason == "closed_by_server"


@in_both_loops
@conversation
async def test_a_service_that_resets(loop: str) -> None:
    """So does one that resets the connection."""

    async def resets(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await upgrading(stay=False)(reader, writer)
        await anext(frames(reader))
        writer.transport.abort()

    async with serving(resets) as address:
        closed, reason = await close_of(configured(address))
    assert (told(closed), reason) == (("1006", "abnormal", "server"), "closed_by_server")


@in_both_loops
@conversation
async def test_a_service_that_stalls(loop: str) -> None:
    """A service that does not answer a Ping is left without a word: 1006, by the exporter, for ping_timeout."""
    heard: list[int] = []

    async def stalls(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await upgrading(stay=False)(reader, writer)
        async for opcode, _ in frames(reader):
            heard.append(opcode)

    async with serving(stalls) as address:
        closed, reason = await close_of(configured(address, timeout=0.2))
        assert (told(closed), reason) == (("1006", "abnormal", "exporter"), "ping_timeout")
        assert 0.19 < closed.duration < 4.0
        await asyncio.sleep(0)
        assert heard[:1] == [PING]
        assert CLOSE not in heard


@conversation
async def test_a_service_that_is_stopped() -> None:
    """A process that hangs, its sockets open, is a ping_timeout too."""
    async with killable() as (process, address), holding(address, timeout=0.3) as seen:
        await seen.first(PingAnswered)
        process.send_signal(signal.SIGSTOP)
        assert told(await seen.first(Closed)) == ("1006", "abnormal", "exporter")
        assert (await seen.first(ProbeFailed)).reason == "ping_timeout"


def block(seconds: float) -> None:
    """Keep the event loop from running."""
    time.sleep(seconds)


@in_both_loops
@conversation
async def test_a_pause_of_ours_is_no_timeout(loop: str) -> None:
    """An event loop that did not run for longer than a Pong may take finds the Pong, which is in time."""
    async with killable() as (_, address), holding(address, interval=0.01, timeout=0.1) as seen:
        for count in range(1, 6):
            await seen.several(PingAnswered, count * 3)
            block(0.3)
        await seen.several(PingAnswered, 20)
        assert seen.of(ProbeFailed) == []


@conversation
async def test_a_message_that_is_too_big() -> None:
    """A message over the limit is refused with 1009 by the exporter, however it is fragmented."""
    for message in (
        [frame(BINARY, b"x" * 1025)],
        [frame(BINARY, b"x" * 1000, fin=False), frame(CONTINUATION, b"x" * 25)],
        [frame(BINARY, length=1 << 40)],
    ):
        async with serving(upgrading(*message)) as address:
            closed, reason = await close_of(configured(address, max_message_size=1024))
        assert (told(closed), reason) == (("1009", "too_big", "exporter"), "too_big")
    async with (
        serving(upgrading(frame(BINARY, b"x" * 1024))) as address,
        holding(address, max_message_size=1024) as seen,
    ):
        await seen.several(PingAnswered, 2)


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        (frame(0x3, b"x"), "1002"),
        (frame(TEXT, b"x", rsv=4), "1002"),
        (frame(TEXT, b"x", key=b"abcd"), "1002"),
        (frame(CONTINUATION, b"x"), "1002"),
        (close(1005), "1002"),
        (close(999), "1002"),
        (frame(CLOSE, b"\x03"), "1002"),
        (close(1000, b"\xff"), "1007"),
    ],
)
@conversation
async def test_frames_that_break_the_protocol(bad: bytes, code: str) -> None:
    """What RFC 6455 forbids ends the connection by the exporter: whatever that is, it is not a WebSocket."""
    async with serving(upgrading(bad)) as address:
        closed, reason = await close_of(configured(address))
    assert (closed.code, closed.initiator, reason) == (code, "exporter", "not_websocket")


@in_both_loops
@conversation
async def test_a_service_that_never_ends_tcp(loop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the Close frames it is for the server to end TCP; one that does not is not waited for for ever."""
    monkeypatch.setattr(probe_connection, "CLOSE_TIMEOUT", 0.2)

    async def stays(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await upgrading(close(1001), stay=False)(reader, writer)
        await reader.read()
        await asyncio.sleep(60)

    async with serving(stays) as address:
        closed, reason = await close_of(configured(address))
    assert (told(closed), reason) == (("1001", "going_away", "server"), "closed_by_server")
    assert 0.19 < closed.duration < 4.0


@conversation
async def test_a_service_that_accepts_and_closes_at_once() -> None:
    """It never was up for anybody, and is counted as what it is: accepted and closed."""
    async with serving(upgrading(close(1008))) as address, holding(address) as seen:
        await seen.several(Closed, 2)
    assert [(event.outcome, event.status) for event in seen.of(HandshakeEnded)[:2]] == [("accepted", "101")] * 2
    assert seen.of(ProbeUp) == []


# -- floods


async def share_at_work(seconds: float) -> float:
    """What share of that time this thread is at work, however many others want the processor too."""
    loop, began = asyncio.get_running_loop(), time.thread_time()
    until = loop.time() + seconds
    while loop.time() < until:
        await asyncio.sleep(0.001)
    return (time.thread_time() - began) / seconds


@pytest.mark.parametrize("tiny", [frame(BINARY), frame(PING), frame(TEXT, b"x")], ids=["empty", "ping", "text"])
@in_both_loops
@conversation
async def test_a_flood_of_tiny_frames_holds_nothing_up(loop: str, tiny: bytes) -> None:
    """The event loop is free most of the time; the service is held back, and in the end told 1008."""
    with flooding(tiny) as (address, closes):
        async with holding(address, interval=0.2, timeout=1.0) as seen:
            await seen.first(ProbeUp)
            await asyncio.sleep(0.3)  # a burst is read as fast as it comes
            flooded = await share_at_work(0.5)
            closed = await seen.first(Closed)
            assert (await seen.first(ProbeFailed)).reason == "ping_timeout"
            assert (closed.code, closed.initiator) == ("1008", "exporter")
            assert closed.server_to_client.messages < 5 * probe_connection.FRAMES_PER_SECOND
            await eventually(lambda: closes, within=20.0)
    assert flooded < 0.5
    assert closes[0] == 1008


@in_both_loops
@conversation
async def test_a_burst_is_no_flood(loop: str) -> None:
    """A few thousand messages at once are taken, and a Close frame behind them is seen though TCP ends with it."""
    burst = frame(TEXT, b"x") * 4000 + close(1001)
    async with serving(upgrading(burst, stay=False)) as address:
        closed, reason = await close_of(configured(address))
    assert (told(closed), reason) == (("1001", "going_away", "server"), "closed_by_server")
    assert closed.server_to_client.messages == 4000


# -- when the probe ends it


@in_both_loops
@conversation
async def test_held_long_enough(loop: str) -> None:
    """A connection that is to be held for a time ends with 1000 and is followed by another: no failure."""
    ended: list[tuple[int, str] | None] = []

    async def notes(connection: ServerConnection) -> None:
        with pytest.raises(ConnectionClosed) as closed:
            await connection.recv()
        ended.append(closed.value.rcvd and (closed.value.rcvd.code, closed.value.rcvd.reason))

    async with service(notes) as (_, address), holding(address, hold=0.2) as seen:
        await seen.several(ProbeUp, 3)
    assert ended[:2] == [(1000, "")] * 2
    assert [told(closed) for closed in seen.of(Closed)[:2]] == [("1000", "normal", "exporter")] * 2
    assert all(0.19 < closed.duration < 4.0 for closed in seen.of(Closed)[:2])
    assert seen.of(ProbeFailed) == []


@conversation
async def test_stopping_is_polite() -> None:
    """At the end of the exporter the service gets a Close frame with 1000, and that is counted, as no failure."""
    ended: list[int | None] = []

    async def notes(connection: ServerConnection) -> None:
        with pytest.raises(ConnectionClosed) as closed:
            await connection.recv()
        ended.append(closed.value.rcvd and closed.value.rcvd.code)

    async with service(notes) as (_, address), holding(address) as seen:
        await seen.first(PingAnswered)
        await seen.probes.stop()
        assert [told(closed) for closed in seen.of(Closed)] == [("1000", "normal", "exporter")]
        await eventually(lambda: ended == [1000])
        assert seen.of(ProbeFailed) == []


@conversation
async def test_stopping_while_nothing_is_held() -> None:
    """A probe that waits or connects stops at once."""
    async with serving(upgrading()) as address, probing(configured(address), lambda low, high: high) as waiting:
        await waiting.probes.stop()
        assert waiting.of(HandshakeEnded) == []

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with serving(silent) as address, holding(address, timeout=60.0) as connecting:
        await connecting.first(ProbeWaits)
        await asyncio.sleep(0.1)
        await connecting.probes.stop()
        assert connecting.of(HandshakeEnded) == []


@conversation
async def test_being_cut_off() -> None:
    """A probe that is cancelled says nothing any more, and still counts what it held."""
    async with serving(upgrading()) as address:
        async with holding(address) as seen:
            await seen.first(PingAnswered)
        assert [told(closed) for closed in seen.of(Closed)] == [("1006", "abnormal", "exporter")]


@in_both_loops
@conversation
async def test_being_cut_off_while_it_is_polite(loop: str) -> None:
    """A connection whose Close frame is not answered before the grace is over is counted: 1000, by the exporter."""

    async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await upgrading(stay=False)(reader, writer)
        await asyncio.sleep(60)

    async with serving(deaf) as address:
        async with holding(address, timeout=30.0) as seen:
            await seen.first(ProbeUp)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await seen.probes.stop()
        assert [told(closed) for closed in seen.of(Closed)] == [("1000", "normal", "exporter")]
        assert seen.of(ProbeFailed) == []


@conversation
async def test_an_empty_close_of_a_real_server() -> None:
    """A Close frame without a code is 1005, by the server."""
    async with service(close_empty) as (_, address):
        closed, reason = await close_of(configured(address))
    assert (told(closed), reason) == (("1005", "normal", "server"), "closed_by_server")
