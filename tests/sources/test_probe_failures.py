"""Every way in which a probe's attempt can fail: one of a few reasons, in bounded time, and backed off from."""

import asyncio
import contextlib
import datetime
import errno
import os
import socket
import ssl
import time
from email.utils import formatdate
from pathlib import Path
from typing import Final, get_args

import pytest
import trustme
from structlog.testing import capture_logs

from exporter.config import Address
from exporter.config.probes import ProbeConfig, ProbeTls
from exporter.events import Closed, HandshakeEnded, ProbeFailed, ProbeFailure, ProbeUp, ProbeWaits
from exporter.sources.probe import opening
from exporter.sources.probe.connection import MAX_HEAD
from exporter.sources.probe.failures import Unable, unreachable
from tests.sources.probing import accepting, answering, configured, failure, probing, request, serving, soon, upgrading
from tests.support.loops import conversation, eventually, in_both_loops
from tests.support.peers import Peer, opened

BODY: Final = "Content-Length: 9\r\n\r\ncanary..."


@pytest.mark.parametrize(
    ("answer", "reason", "status"),
    [
        (f"HTTP/1.1 401 Unauthorized\r\n{BODY}", "http_401", "401"),
        (f"HTTP/1.1 403 Forbidden\r\n{BODY}", "http_403", "403"),
        (f"HTTP/1.1 429 Too Many Requests\r\n{BODY}", "http_429", "429"),
        (f"HTTP/1.1 400 Bad Request\r\n{BODY}", "http_4xx", "400"),
        (f"HTTP/1.1 404 Not Found\r\n{BODY}", "http_4xx", "404"),
        (f"HTTP/1.1 418 I'm a teapot\r\n{BODY}", "http_4xx", "other"),
        (f"HTTP/1.1 426 Upgrade Required\r\n{BODY}", "http_4xx", "426"),
        (f"HTTP/1.1 500 Internal Server Error\r\n{BODY}", "http_5xx", "500"),
        (f"HTTP/1.1 503 Service Unavailable\r\n{BODY}", "http_5xx", "503"),
        (f"HTTP/1.1 599 ?\r\n{BODY}", "http_5xx", "other"),
        (f"HTTP/1.1 301 Moved\r\nLocation: ws://127.0.0.1:1/\r\n{BODY}", "redirect", "other"),
        (f"HTTP/1.1 302 Found\r\nLocation: http://[\r\n{BODY}", "redirect", "other"),
        (f"HTTP/1.1 307 Temporary Redirect\r\n{BODY}", "redirect", "other"),
        (f"HTTP/1.1 200 OK\r\n{BODY}", "not_websocket", "other"),
        ("HTTP/1.1 204 No Content\r\n\r\n", "not_websocket", "other"),
        ("HTTP/1.0 503\r\n\r\n", "http_5xx", "503"),
        ("HTTP/1.1 503 a body that never ends\r\n\r\nxxx", "http_5xx", "503"),
        ("HTTP/1.1 503 a coding nobody knows\r\nTransfer-Encoding: gzip\r\n\r\n", "http_5xx", "503"),
        ("HTTP/1.1 503 a larger body than fits\r\nContent-Length: 999999999999\r\n\r\n", "http_5xx", "503"),
        ("HTTP/1.1 101 Switching Protocols\r\n\r\n", "not_websocket", "other"),
        (accepting("another key=="), "not_websocket", "other"),
        ("HTTP/1.1 103 Early Hints\r\n\r\n", "not_websocket", "other"),
        ("SSH-2.0-OpenSSH_9.2\r\n", "not_websocket", "other"),
        ("\x15\x03\x01", "not_websocket", "other"),
        ("HTTP/1.1 999\r\n\r\n", "not_websocket", "other"),
        ("HTTP/1.1 200 OK\r\nno field line\r\n\r\n", "not_websocket", "other"),
        ("HTTP/1.1 200 OK\r\nX: " + "x" * 2 * MAX_HEAD, "not_websocket", "other"),
    ],
)
@conversation
async def test_an_answer_that_makes_no_websocket(answer: str | bytes, reason: str, status: str) -> None:
    """The status decides, however the body is framed or withheld; what is not HTTP is not_websocket."""
    async with serving(answering(answer)) as address:
        assert await failure(configured(address)) == (reason, "rejected", status)


@conversation
async def test_a_head_that_never_ends() -> None:
    """A server that goes on and on with its head is cut off when it has sent more than a head can be."""

    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\n")
        while True:
            writer.write(b"X: y\r\n" * 100)
            await writer.drain()

    async with serving(endless) as address:
        assert await failure(configured(address)) == ("not_websocket", "rejected", "other")


@conversation
async def test_a_head_that_trickles() -> None:
    """A byte now and then does not stretch the time limit."""

    async def trickle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request(reader)
        for byte in b"HTTP/1.1 200 OK\r\n" * 100:
            writer.write(bytes([byte]))
            await asyncio.sleep(0.05)

    async with serving(trickle) as address:
        began = time.monotonic()
        assert await failure(configured(address, timeout=0.3)) == ("timeout", "failed", "timeout")
        assert time.monotonic() - began < 2


@in_both_loops
@conversation
async def test_a_black_hole(loop: str) -> None:
    """A server that takes the connection and never answers is a timeout."""
    with opened() as door:
        assert isinstance(door.address, Address)
        assert await failure(configured(door.address, timeout=0.2)) == ("timeout", "failed", "timeout")


@conversation
async def test_a_full_backlog() -> None:
    """So is one whose kernel does not even take the connection."""
    with opened(backlog=0) as door, contextlib.ExitStack() as stack:
        assert isinstance(door.address, Address)
        for _ in range(3):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex((door.address.host, door.address.port))
        assert await failure(configured(door.address, timeout=0.3)) == ("timeout", "failed", "timeout")


@in_both_loops
@conversation
async def test_nobody_listens(loop: str) -> None:
    """A port that nobody listens on is refused."""
    with opened() as door:
        address = door.address
    assert isinstance(address, Address)
    assert await failure(configured(address)) == ("refused", "failed", "refused")


@pytest.mark.parametrize("host", ["nothing.invalid", "a..b", f"{'a' * 64}.invalid"])
@conversation
async def test_a_name_that_does_not_resolve(host: str) -> None:
    """A name without an address is dns, and so is one that takes longer to find out than there is time."""
    reason, outcome, status = await failure(configured(f"{host}:1", timeout=5.0))
    assert (reason, outcome) == ("dns", "failed")
    assert status in ("refused", "timeout")


@pytest.mark.parametrize("data", [b"", b"HTTP/1.1 101 Swit"], ids=["nothing", "half a head"])
@conversation
async def test_dropped_without_an_answer(data: bytes) -> None:
    """A server that takes the request and drops the connection has closed it: as good as nobody."""
    async with serving(answering(data, stay=False)) as address:
        assert await failure(configured(address)) == ("closed_by_server", "failed", "closed")


@conversation
async def test_reset_without_an_answer() -> None:
    """So has one that resets it."""

    async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    async with serving(reset) as address:
        assert await failure(configured(address)) == ("closed_by_server", "failed", "closed")


@pytest.mark.parametrize(("scheme", "reason"), [("ws", "closed_by_server"), ("wss", "tls")])
@in_both_loops
@conversation
async def test_reset_before_the_request(loop: str, scheme: str, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """And one that resets it before a word is written. The descriptor is closed once: it may be another's by then."""
    dialled: list[socket.socket] = []

    async def reset_at_once(*_: object) -> socket.socket:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            dialled.append(socket.create_connection(listener.getsockname()))
            Peer(listener.accept()[0]).reset()
        return dialled[-1]

    monkeypatch.setattr(opening, "_dial", reset_at_once)
    assert await failure(configured("127.0.0.1:9", scheme=scheme)) == (reason, "failed", "closed")
    assert await eventually(lambda: all(sock.fileno() < 0 for sock in dialled))


def test_a_descriptor_is_let_go_only_where_it_is_not_its_own() -> None:
    """It may have been closed by the event loop, and be another's by now, who keeps it."""
    with socket.socket() as sock, socket.socket() as other:
        number, file = sock.fileno(), os.fstat(sock.fileno())
        opening._disown(sock, file)
        assert sock.fileno() == number
        os.dup2(other.fileno(), number)
        opening._disown(sock, file)
        assert sock.fileno() == -1
        assert os.path.samestat(os.fstat(number), os.fstat(other.fileno()))
        os.close(number)


@pytest.mark.parametrize("fields", [("Sec-WebSocket-Protocol: other",), ("Sec-WebSocket-Protocol: a, b",)])
@pytest.mark.parametrize("offered", [("a", "b"), ()])
@conversation
async def test_a_subprotocol_nobody_offered(fields: tuple[str, ...], offered: tuple[str, ...]) -> None:
    """A service that chooses what was not offered, or several, makes no WebSocket (RFC 6455 section 4.1)."""
    async with serving(upgrading(fields=fields)) as address:
        assert await failure(configured(address, subprotocols=offered)) == ("subprotocol", "rejected", "other")


@conversation
async def test_no_subprotocol_chosen() -> None:
    """Nor does one do that chooses none of those offered: browsers fail such a connection."""
    async with serving(upgrading()) as address, probing(configured(address, subprotocols=("a",))) as seen:
        assert (await seen.first(ProbeFailed)).reason == "subprotocol"
        assert [(event.outcome, event.status) for event in seen.of(HandshakeEnded)[:1]] == [("accepted", "101")]
        closed = await seen.first(Closed)
        assert (closed.code, closed.initiator) == ("1000", "exporter")
        assert seen.of(ProbeUp) == []


@conversation
async def test_an_extension_nobody_offered() -> None:
    """An extension that was not asked for fails the handshake (RFC 6455 section 4.1)."""
    async with serving(upgrading(fields=("Sec-WebSocket-Extensions: permessage-deflate",))) as address:
        assert await failure(configured(address)) == ("not_websocket", "rejected", "other")


class Certificates:
    """A certificate authority, and what servers may have from it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = trustme.CA()
        self.ca_file = folder / "ca.pem"
        self.authority.cert_pem.write_to_path(self.ca_file)
        self.cert_file = folder / "client.pem"
        self.authority.issue_cert("probe@exporter.test").private_key_and_cert_chain_pem.write_to_path(self.cert_file)

    def server(self, *names: str, expired: bool = False, asks_for_certificate: bool = False) -> ssl.SSLContext:
        long_ago = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
        times = {"not_before": long_ago, "not_after": long_ago + datetime.timedelta(days=1)} if expired else {}
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.authority.issue_cert(*(names or ("127.0.0.1",)), **times).configure_cert(context)
        if asks_for_certificate:
            context.verify_mode = ssl.CERT_REQUIRED
            self.authority.configure_trust(context)
        return context


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


def secured(address: Address, certificates: Certificates, **tls: object) -> ProbeConfig:
    return configured(address, scheme="wss", tls=ProbeTls(**({"ca_file": certificates.ca_file} | tls)))  # type: ignore[arg-type]


@in_both_loops
class TestTls:
    @conversation
    async def test_a_good_certificate(self, certificates: Certificates, loop: str) -> None:
        """A service whose certificate is in order is up."""
        served = serving(upgrading(), certificates.server())
        async with served as address, probing(secured(address, certificates)) as seen:
            await seen.first(ProbeUp)

    @conversation
    async def test_an_expired_certificate(self, certificates: Certificates, loop: str) -> None:
        """An expired certificate is a failure of its own."""
        async with serving(upgrading(), certificates.server(expired=True)) as address:
            assert await failure(secured(address, certificates)) == ("certificate", "failed", "closed")

    @conversation
    async def test_a_certificate_for_another_name(self, certificates: Certificates, loop: str) -> None:
        """So is one for another name, unless that is the name to expect."""
        async with serving(upgrading(), certificates.server("chat.example.com")) as address:
            assert await failure(secured(address, certificates)) == ("certificate", "failed", "closed")
            async with probing(secured(address, certificates, server_name="chat.example.com")) as seen:
                await seen.first(ProbeUp)

    @conversation
    async def test_an_untrusted_certificate(self, certificates: Certificates, loop: str) -> None:
        """So is one from nobody the system trusts, unless certificates do not matter."""
        async with serving(upgrading(), certificates.server()) as address:
            assert await failure(secured(address, certificates, ca_file=None)) == ("certificate", "failed", "closed")
            async with probing(secured(address, certificates, insecure_skip_verify=True, ca_file=None)) as seen:
                await seen.first(ProbeUp)

    @pytest.mark.parametrize("data", ["HTTP/1.1 400 Bad Request\r\n\r\n", "", "x"])
    @conversation
    async def test_a_service_without_tls(self, certificates: Certificates, data: str, loop: str) -> None:
        """What does not speak TLS, or drops whoever does, is tls."""

        async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(1)
            writer.write(data.encode())

        async with serving(plain) as address:
            assert await failure(secured(address, certificates)) == ("tls", "failed", "closed")

    @conversation
    async def test_a_client_certificate(self, certificates: Certificates, loop: str) -> None:
        """A service that asks for a certificate takes a probe that has one."""
        served = serving(upgrading(), certificates.server(asks_for_certificate=True))
        tls = {"cert_file": certificates.cert_file}
        async with served as address, probing(secured(address, certificates, **tls)) as seen:
            await seen.first(ProbeUp)

    @conversation
    async def test_no_client_certificate(self, certificates: Certificates, loop: str) -> None:
        """It refuses a probe without one by an alert, which in TLS 1.3 comes when the probe has sent its request."""
        context = certificates.server(asks_for_certificate=True)
        with socket.create_server(("127.0.0.1", 0)) as listener:

            def serve() -> None:
                sock, _ = listener.accept()
                with sock, pytest.raises(ssl.SSLError):
                    context.wrap_socket(sock, server_side=True)

            refusing = asyncio.get_running_loop().run_in_executor(None, serve)
            address = Address(*listener.getsockname())
            assert await failure(secured(address, certificates)) == ("tls", "failed", "closed")
            await refusing

    @conversation
    async def test_a_handshake_that_stalls(self, certificates: Certificates, loop: str) -> None:
        """A server that goes silent during TLS is a timeout."""
        with opened() as door:
            assert isinstance(door.address, Address)
            config = configured(door.address, scheme="wss", timeout=0.2, tls=ProbeTls(certificates.ca_file))
            assert await failure(config) == ("timeout", "failed", "timeout")


@conversation
async def test_a_renewed_authority_is_used_at_the_next_connection(tmp_path: Path) -> None:
    """Certificate files are read anew when they have changed."""
    old, new = Certificates(tmp_path), trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    new.issue_cert("127.0.0.1").configure_cert(context)
    async with serving(upgrading(), context) as address, probing(secured(address, old), soon) as seen:
        assert (await seen.first(ProbeFailed)).reason == "certificate"
        new.cert_pem.write_to_path(old.ca_file)
        await seen.first(ProbeUp)


class TestRetryAfter:
    @pytest.mark.parametrize(
        ("value", "delay"), [("120", 120.0), ("999999", 300.0), ("0", 7.0), ("soon", 7.0), ("-5", 7.0), ("", 7.0)]
    )
    @pytest.mark.parametrize("status", ["429 Too Many Requests", "503 Service Unavailable"])
    @conversation
    async def test_seconds(self, status: str, value: str, delay: float) -> None:
        """So many seconds are waited at least, five minutes at most; what is no number asks for nothing."""
        handler = answering(f"HTTP/1.1 {status}\r\nRetry-After: {value}\r\n\r\n")
        async with serving(handler) as address, probing(configured(address)) as seen:
            waits = await seen.several(ProbeWaits, 2 if delay > 7 else 3)
            assert waits[-1].delay == delay

    @conversation
    async def test_a_date(self) -> None:
        """A date is waited for, on the wall clock."""
        now = 1_800_000_000.0
        handler = answering(f"HTTP/1.1 503 Busy\r\nRetry-After: {formatdate(now + 90, usegmt=True)}\r\n\r\n")
        async with serving(handler) as address, probing(configured(address), now=lambda: now) as seen:
            assert (await seen.several(ProbeWaits, 2))[1].delay == 90.0


@conversation
async def test_nothing_that_a_service_says_is_logged() -> None:
    """Of an answer only the status gets into the log; of the URL all but its query."""
    canary = "HTTP/1.1 503 canary\r\nX-Canary: canary\r\nContent-Length: 6\r\n\r\ncanary"
    with capture_logs() as logs:
        async with serving(answering(canary)) as address:
            await failure(configured(address, "/ws?token=canary"))
    assert [(line["event"], line["reason"], line["detail"]) for line in logs] == [
        ("probe failed", "http_5xx", "HTTP status 503")
    ]
    assert "canary" not in repr(logs)


@conversation
async def test_the_same_failure_is_said_once() -> None:
    """Attempts that fail in the same way again are counted, not logged."""
    with capture_logs() as logs:
        async with serving(answering("HTTP/1.1 503 Busy\r\n\r\n")) as address, probing(configured(address)) as seen:
            await seen.several(ProbeFailed, 2)
    assert len(logs) == 1


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.EADDRNOTAVAIL])
def test_what_this_machine_lacks_is_no_failure_of_the_service(number: int) -> None:
    """Without descriptors, memory or ports nothing was tried."""
    with pytest.raises(Unable, match=r"^cannot open a connection: "):
        unreachable(OSError(number, os.strerror(number)))


@conversation
async def test_certificates_that_are_gone(tmp_path: Path) -> None:
    """A file of the configuration that cannot be read is no failure of the service; it is said once."""
    config = configured("127.0.0.1:1", scheme="wss", tls=ProbeTls(ca_file=tmp_path / "ca.pem"))
    with capture_logs() as logs:
        async with probing(config, soon) as seen:
            await seen.several(ProbeWaits, 4)
    assert {type(event) for event in seen.events} == {ProbeWaits}
    assert [line["detail"] for line in logs] == [f"cannot read {tmp_path}/ca.pem: no such file"]


@conversation
async def test_addresses_are_tried_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of several addresses of a name one that answers is enough, also behind a black hole."""
    async with serving(upgrading()) as address, contextlib.AsyncExitStack() as stack:
        hole = stack.enter_context(socket.create_server(("127.0.0.2", address.port), backlog=0))
        for _ in range(3):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(hole.getsockname())
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, 0)) for host in ("127.0.0.2", "127.0.0.1")]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
        async with probing(configured(f"two.example:{address.port}")) as seen:
            assert 0.49 < (await seen.first(ProbeUp)).connect_duration < 1.0


def test_every_reason_is_tested() -> None:
    """No reason without a test against a real server: here, or of connections that were held."""
    here = Path(__file__)
    text = here.read_text() + here.with_name("test_probe_held.py").read_text()
    assert [reason for reason in get_args(ProbeFailure) if f'"{reason}"' not in text] == []
