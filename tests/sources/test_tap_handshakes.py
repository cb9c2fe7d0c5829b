"""What opening handshakes come to through a real tap, and what else may arrive on its port."""

import contextlib
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path

import pytest
import structlog
from websockets.asyncio.client import connect
from websockets.asyncio.server import Request, Response, ServerConnection
from websockets.exceptions import InvalidStatus

from exporter.config import UnixPath
from exporter.sources import refusal
from exporter.wire import http1
from tests.support.loops import TIMEOUT, conversation, in_both_loops
from tests.support.peers import Peer, all_that_is_left, connected, opened, relayed
from tests.support.services import service
from tests.support.watching import Watched, watching
from tests.wire.support import asks, head

_, UPGRADE = asks()
UNPARSED = "websocket_exporter_unparsed_streams_total"


async def answer(client: Peer) -> tuple[bytes, bytes]:
    """The status line and the body of the one answer on a connection."""
    lines, _, body = (await client.rest()).partition(b"\r\n\r\n")
    return lines.split(b"\r\n")[0], body


async def asked(watched: Watched, request: bytes) -> tuple[bytes, bytes]:
    with await connected(watched.address) as client:
        await client.send(request)
        return await answer(client)


@pytest.mark.parametrize(("status", "label"), [(403, "403"), (503, "503"), (418, "other"), (302, "other")])
@conversation
async def test_a_service_that_refuses(status: int, label: str) -> None:
    """A handshake that the service answers with another status is rejected, and no WebSocket ever was."""

    def refuse(connection: ServerConnection, request: Request) -> Response:
        return connection.respond(HTTPStatus(status), "not for you\n")

    async with service(process_request=refuse) as (_, upstream), watching(upstream) as watched:
        with pytest.raises(InvalidStatus, match=str(status)):
            async with connect(watched.url):
                pass
        assert await watched.handshakes() == {("rejected", label): 1}
        page = await watched.scrape()
        assert page.value("websocket_closes_total") == page.value("websocket_connections_active") == 0
        assert page.value("websocket_exporter_label_overflow_total", label="status") == (label == "other")
        assert page.value("websocket_handshake_duration_seconds_count") == 1


@in_both_loops
@conversation
async def test_an_upgrade_behind_plain_requests(loop: str) -> None:
    """A connection that was kept alive through plain HTTP can still become a WebSocket, and is counted as one."""
    async with relayed() as pair:
        for request, response in (
            (head("GET /page HTTP/1.1", "Host: chat.test"), head("HTTP/1.1 200 OK", "Content-Length: 4") + b"page"),
            (
                head("POST /form HTTP/1.1", "Host: chat.test", "Content-Length: 3") + b"a=b",
                head("HTTP/1.1 200 OK", "Transfer-Encoding: chunked") + b"3\r\nyes\r\n0\r\n\r\n",
            ),
            (head("HEAD /page HTTP/1.1", "Host: chat.test"), head("HTTP/1.1 200 OK", "Content-Length: 4")),
        ):
            await pair.client.send(request)
            assert await pair.server.read(len(request)) == request
            await pair.server.send(response)
            assert await pair.client.read(len(response)) == response
        await pair.upgrade()
        assert await pair.watched.handshakes() == {("accepted", "101"): 1}
        pair.client.close()
        assert await pair.server.rest() == b""
        pair.server.close()
        assert await pair.watched.closes() == {("1006", "abnormal", "client"): 1}


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "tls"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "http2"),
        (b"\x00\xff\r\n\r\n\x81\x05hello\x88\x02\x03\xe8" * 1000, "not_http"),
        (b"GET / HTTP/1.1\r\nHost : a\x00b\r\n\r\n", "bad_request_head"),
        (b"GET /" + b"a" * 70_000, "head_too_large"),
    ],
)
@conversation
async def test_what_is_not_understood_is_passed_on(said: bytes, kind: str) -> None:
    """Anything but HTTP/1.1 goes through untouched both ways, is counted by kind, and is not read as frames."""
    async with relayed() as pair:
        await pair.client.send(said)
        pair.client.finish()
        assert await pair.server.rest() == said
        await pair.server.send(said[::-1])
        pair.server.finish()
        assert await pair.client.rest() == said[::-1]
        page = await pair.watched.page(lambda page: page.value(UNPARSED) > 0)
        assert page.counted(UNPARSED, "reason") == {(kind,): 1}
        assert page.value("websocket_exporter_frame_anomalies_total") == 0
        assert page.value("websocket_handshakes_total") == 0


@conversation
async def test_a_service_that_is_down() -> None:
    """Where nobody listens an HTTP client gets a 502; a handshake counts as failed, a plain request not at all."""
    with opened() as door:
        nowhere = door.address
    async with watching(nowhere) as watched:
        status, body = await asked(watched, UPGRADE)
        assert status == b"HTTP/1.1 502 Bad Gateway"
        assert body == b"websocket-exporter: the service behind this tap refuses connections\n"
        assert (await asked(watched, head("GET / HTTP/1.1", "Host: chat.test")))[0] == b"HTTP/1.1 502 Bad Gateway"
        assert await watched.handshakes() == {("failed", "refused"): 1}
        assert (await watched.scrape()).value("websocket_closes_total") == 0


@conversation
async def test_a_unix_socket_that_is_missing(tmp_path: Path) -> None:
    """A Unix upstream that is not there refuses as a closed port does."""
    async with watching(UnixPath(str(tmp_path / "nobody"))) as watched:
        assert (await asked(watched, UPGRADE))[0] == b"HTTP/1.1 502 Bad Gateway"
        assert await watched.handshakes() == {("failed", "refused"): 1}


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        (b"\x16\x03\x01 is there anybody?", "tls"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "http2"),
        (b"\x00\x01\x02hello", "not_http"),
        (b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", "bad_request_head"),
    ],
)
@conversation
async def test_nonsense_for_a_service_that_is_down(said: bytes, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that does not speak HTTP is not answered in HTTP: its connection ends as soon as that is known."""
    monkeypatch.setattr(refusal, "TIMEOUT", 2 * TIMEOUT)
    with opened() as door:
        nowhere = door.address
    async with watching(nowhere) as watched:
        assert await asked(watched, said) == (b"", b"")
        page = await watched.scrape()
        assert page.counted(UNPARSED, "reason") == {(kind,): 1}
        assert page.value("websocket_handshakes_total") == 0


@pytest.mark.parametrize("said", [b"", b"\x16", b"GET / HTTP/1.1\r\n"])
@conversation
async def test_silence_for_a_service_that_is_down(said: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client of which nothing is known yet may still ask, but not for ever."""
    monkeypatch.setattr(refusal, "TIMEOUT", 0.2)
    with opened() as door:
        nowhere = door.address
    async with watching(nowhere) as watched:
        assert await asked(watched, said) == (b"", b"")
        assert (await watched.scrape()).value("websocket_handshakes_total") == 0


@conversation
async def test_a_fault_in_observing_while_the_service_is_down(monkeypatch: pytest.MonkeyPatch) -> None:
    """If our own parser fails on a client that cannot be served, the tap goes on for all others."""
    parse = http1.parse_request
    faults = iter([ZeroDivisionError()])

    def fail_once(raw: bytes) -> http1.RequestHead | None:
        for fault in faults:
            raise fault
        return parse(raw)

    monkeypatch.setattr(http1, "parse_request", fail_once)
    with opened() as door:
        nowhere = door.address
    async with watching(nowhere) as watched:
        assert await asked(watched, UPGRADE) == (b"", b"")
        assert (await asked(watched, UPGRADE))[0] == b"HTTP/1.1 502 Bad Gateway"


@conversation
async def test_an_outage_is_logged_once() -> None:
    """The log says when the upstream goes and when it is back, not for every client that finds it gone."""
    with opened() as door:
        address = door.address
    async with watching(address) as watched:
        with structlog.testing.capture_logs() as lines:
            for _ in range(3):
                await asked(watched, UPGRADE)
            async with service(port=address.port):
                for _ in range(2):
                    async with connect(watched.url):
                        pass
        assert [line["event"] for line in lines if line["event"].startswith("upstream")] == [
            "upstream does not accept connections",
            "upstream accepts connections again",
        ]


@pytest.mark.parametrize("kind", ["tcp", "unix"])
@in_both_loops
@conversation
async def test_a_service_that_answers_nobody(loop: str, kind: str, tmp_path: Path) -> None:
    """Where connecting takes too long, as with a full backlog, the client gets a 504 and the handshake timed out."""
    with opened(backlog=0, path=tmp_path / "service" if kind == "unix" else None) as door:
        async with watching(door.address, limits_connect_timeout=0.3) as watched:
            with await connected(watched.address) as only_one_that_fits:
                await only_one_that_fits.send(b"GET")
                status, body = await asked(watched, UPGRADE)
                assert status == b"HTTP/1.1 504 Gateway Timeout"
                assert body == b"websocket-exporter: the service behind this tap does not answer\n"
                assert await watched.handshakes() == {("failed", "timeout"): 1}


@pytest.mark.parametrize("end", [Peer.close, Peer.reset])
@in_both_loops
@conversation
async def test_a_service_that_drops_its_clients(loop: str, end: Callable[[Peer], None]) -> None:
    """A service that accepts and drops without an answer, in whatever way: the handshake failed, as `closed`."""
    async with relayed() as pair:
        await pair.client.send(UPGRADE)
        assert await pair.server.head() == UPGRADE
        end(pair.server)
        with contextlib.suppress(ConnectionResetError):
            assert await pair.client.rest() == b""
        pair.client.close()
        assert await pair.watched.handshakes() == {("failed", "closed"): 1}


@in_both_loops
@conversation
async def test_a_service_that_resets_whom_it_has_just_accepted(loop: str) -> None:
    """A RST at once is no refusal: what the service said before it arrives, and the handshake failed as `closed`."""
    async with relayed() as pair:
        for _ in range(20):
            with await connected(pair.watched.address) as client:
                await client.send(UPGRADE)
                server = await pair.door.accept()
                server.sock.send(b"HTTP/1.1 ")
                server.reset()
                assert await all_that_is_left(client) == b"HTTP/1.1 "
        assert await pair.watched.handshakes(20) == {("failed", "closed"): 20}


@pytest.mark.parametrize("end", [Peer.close, Peer.reset])
@conversation
async def test_a_client_that_gives_up(end: Callable[[Peer], None]) -> None:
    """A client that leaves before the service has answered: the handshake failed, as `timeout`."""
    async with relayed() as pair:
        await pair.client.send(UPGRADE)
        assert await pair.server.head() == UPGRADE
        end(pair.client)
        with contextlib.suppress(ConnectionResetError):
            assert await pair.server.rest() == b""
        pair.server.close()
        assert await pair.watched.handshakes() == {("failed", "timeout"): 1}


@in_both_loops
@conversation
async def test_a_client_over_the_connection_limit(loop: str) -> None:
    """At the limit a new client gets a 503 and is counted; those before it are unharmed, and make room by leaving."""
    async with relayed(limits_connections=1) as pair:
        assert await asked(pair.watched, UPGRADE) == (
            b"HTTP/1.1 503 Service Unavailable",
            b"websocket-exporter: this tap has as many connections as it may\n",
        )
        assert await pair.watched.handshakes() == {("refused_by_exporter", "limit"): 1}
        page = await pair.watched.scrape()
        assert page.value("websocket_exporter_tap_connection_limit") == 1
        await pair.client.send(b"still here")
        assert await pair.server.read(10) == b"still here"
        pair.client.close()
        assert await pair.server.rest() == b""
        pair.server.close()
        await pair.watched.page(
            lambda page: page.value("websocket_exporter_unparsed_streams_total", reason="incomplete_head") == 1
        )
        with await connected(pair.watched.address) as client:
            await client.send(b"room")
            assert await (await pair.door.accept()).read(4) == b"room"
