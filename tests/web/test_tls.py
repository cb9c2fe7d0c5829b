"""TLS on a listener, with real clients: who gets in, which certificate they see, and how it ends."""

import asyncio
import contextlib
import datetime
import os
import resource
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
import trustme
from cryptography import x509
from starlette.types import ASGIApp, Receive, Scope, Send
from structlog.testing import capture_logs

from exporter.config import Address
from exporter.config.certificates import server_context
from exporter.config.web_file import load_web_config, read_web_config
from exporter.web import health
from exporter.web import tls as module
from exporter.web.errors import ErrorAnswers
from exporter.web.listener import listen
from exporter.web.protocol import Limits, delivered
from tests.support.loops import conversation, eventually, in_both_loops
from tests.web.guarded import ALICE, NAME, PASSWORD, Files, connected_by_tls, guarding
from tests.web.support import LOOPBACK, Client, Site, connected, request

VERSIONS: Final = {"TLS12": ssl.TLSVersion.TLSv1_2, "TLS13": ssl.TLSVersion.TLSv1_3}
EC: Final = trustme.KeyType.ECDSA
KEPT: Final = "web configuration not read again, the old one stays in force"


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def attempt(address: Address, context: ssl.SSLContext) -> int | str:
    """The status of one answer, or why there was none: the alert, or how the connection ended."""
    try:
        with (
            socket.create_connection((address.host, address.port), timeout=10) as plain,
            context.wrap_socket(plain, server_hostname=NAME) as client,
        ):
            client.sendall(request("/-/healthy"))
            answer = client.recv(4096)
    except ssl.SSLError as fault:
        return fault.reason or str(fault)
    except OSError as fault:
        return type(fault).__name__
    return int(answer.split()[1]) if answer else "closed"


async def attempted(site: Site, context: ssl.SSLContext) -> int | str:
    return await asyncio.to_thread(attempt, site.address, context)


def only(context: ssl.SSLContext, version: str) -> ssl.SSLContext:
    context.minimum_version = context.maximum_version = VERSIONS[version]
    return context


async def healthy(client: Client) -> bool:
    await client.send(request("/-/healthy"))
    return (await client.answer()).status == 200


def shown(client: Client) -> bytes:
    """The certificate that the server showed, or that this client trusts it by."""
    found: bytes = client.writer.get_extra_info("ssl_object").getpeercert(True)
    return found


def certificate_of(files: Files) -> bytes:
    return ssl.PEM_cert_to_DER_cert(
        (files.folder / "server.pem").read_text().split("-----END")[0] + "-----END CERTIFICATE-----\n"
    )


# -- answers


@pytest.mark.parametrize("version", VERSIONS)
@in_both_loops
@conversation
async def test_requests_are_answered_over_tls(loop: str, version: str, files: Files) -> None:
    """In both versions, several on one connection, as on a plain listener; HTTP/1.1 is the one protocol (RFC 7301)."""
    context = only(files.client(), version)
    context.set_alpn_protocols(["h2", "http/1.1"])
    async with guarding(files.gate(files.tls())) as site, connected_by_tls(site, context) as client:
        for _ in range(3):
            await client.send(request("/metrics"))
            answer = await client.answer()
            assert b"up_and_running 1.0" in answer.body
        tls = client.writer.get_extra_info("ssl_object")
        assert (tls.selected_alpn_protocol(), tls.version()) == ("http/1.1", version.replace("TLS1", "TLSv1."))
        assert len(site.scrapes) == 3


@conversation
async def test_a_library_that_everybody_uses(files: Files) -> None:
    """httpx over TLS with a password: the scheme is known to be https."""
    schemes = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        schemes.append(scope["scheme"])
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})

    async with (
        guarding(files.gate({**files.tls(), **ALICE}), app) as site,
        httpx.AsyncClient(verify=files.client()) as client,
    ):
        url = f"https://{site.address}/"
        headers = {"Host": NAME}
        extensions = {"sni_hostname": NAME}
        assert (await client.get(url, headers=headers, extensions=extensions)).status_code == 401
        answer = await client.get(url, headers=headers, extensions=extensions, auth=("alice", PASSWORD))
        assert (answer.status_code, schemes) == (200, ["https"])


@in_both_loops
@conversation
async def test_a_bad_request_gets_its_error_over_tls(loop: str, files: Files) -> None:
    """What is no HTTP, and what does not come in time, is answered in the one shape before the connection ends."""
    limits = Limits(head_time=0.3, linger=0.2)
    async with guarding(files.gate(files.tls()), limits=limits) as site:
        for sent, status in ((b"no request\r\n\r\n", 400), (b"GET / HTTP/1.1\r\n", 408), (b"x" * 20_000, 400)):
            async with connected_by_tls(site, files.client()) as client:
                await client.send(sent)
                answer = await client.answer()
                assert (answer.status, answer.fields["connection"]) == (status, "close")
                assert await client.ended()


def last_answer(body: bytes, asked: list[str]) -> ASGIApp:
    """Answers once on each connection, and notes who asked."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        asked.append(scope["path"])
        fields = [(b"content-length", b"%d" % len(body)), (b"connection", b"close")]
        await send({"type": "http.response.start", "status": 200, "headers": fields})
        await send({"type": "http.response.body", "body": body})

    return app


@in_both_loops
@conversation
async def test_a_slow_reader_gets_the_whole_of_a_last_answer(loop: str, files: Files) -> None:
    """Closing waits for what is still to be sent, longer than a connection lingers."""
    body = os.urandom(8 * 1024 * 1024)
    async with (
        guarding(files.gate(files.tls()), last_answer(body, []), Limits(linger=0.1)) as site,
        connected_by_tls(site, files.client()) as client,
    ):
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await client.send(request())
        await asyncio.sleep(1.0)  # ten times as long as it would linger
        client.writer.transport.resume_reading()  # type: ignore[attr-defined]
        assert (await client.answer()).body == body
        assert await client.ended()


@in_both_loops
@conversation
async def test_after_a_last_answer_no_request_is_heard(loop: str, files: Files) -> None:
    """Not even while that answer is still being sent."""
    asked: list[str] = []
    async with (
        guarding(files.gate(files.tls()), last_answer(bytes(8 * 1024 * 1024), asked)) as site,
        connected_by_tls(site, files.client()) as client,
    ):
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await client.send(request("/first"))
        await eventually(lambda: asked)
        await client.send(request("/second"))
        with contextlib.suppress(ConnectionError, ssl.SSLError, asyncio.IncompleteReadError):
            client.writer.transport.resume_reading()  # type: ignore[attr-defined]
            await client.answer()
            await client.ended()
    assert asked == ["/first"]


@in_both_loops
@conversation
async def test_who_does_not_read_is_cut_off(loop: str, files: Files) -> None:
    """After the time limit for writing, and no earlier than that for who is merely idle."""
    ended = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/large":
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"99999999")]})
            for _ in range(64):
                await send({"type": "http.response.body", "body": bytes(1 << 20), "more_body": True})
            while (await receive())["type"] != "http.disconnect":
                pass
            ended.set()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})

    async with (
        guarding(files.gate(files.tls()), app, Limits(write_stall=0.3)) as site,
        connected_by_tls(site, files.client()) as idle,
        connected_by_tls(site, files.client()) as client,
    ):
        assert await healthy(idle)
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await client.send(request("/large"))
        await ended.wait()
        assert await healthy(idle)
        client.writer.transport.abort()


@in_both_loops
@conversation
async def test_a_client_that_leaves_during_an_answer_is_no_scrape(
    loop: str, files: Files, caplog: pytest.LogCaptureFixture
) -> None:
    """By a close_notify or by an RST: what it did not read was not delivered, and nothing complains."""
    begun, go_on = asyncio.Event(), asyncio.Event()
    states: list[bool] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        begun.set()
        await go_on.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for number in range(8):
            await send({"type": "http.response.body", "body": b"x", "more_body": number < 7})
        states.append(delivered(scope))

    async with guarding(files.gate(files.tls()), app) as site:
        for reset in (False, True):
            begun.clear()
            go_on.clear()
            async with connected_by_tls(site, files.client()) as client:
                await client.send(request())
                await begun.wait()
                if reset:
                    sock = client.writer.get_extra_info("socket")
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    client.writer.transport.abort()
                else:
                    client.writer.close()
                await asyncio.sleep(0.1)
                go_on.set()
                await eventually(lambda expected=1 + reset: len(states) == expected)
    assert states == [False, False]
    assert [text for text in caplog.messages if "SSL" in text or "eof_received" in text] == []


# -- certificates that change


@in_both_loops
@conversation
async def test_a_rotated_certificate_is_in_the_next_handshake(loop: str, files: Files) -> None:
    """And connections that exist go on as if nothing had happened."""
    async with guarding(files.gate(files.tls())) as site, connected_by_tls(site, files.client()) as old:
        before = certificate_of(files)
        assert await healthy(old)
        for _ in range(3):
            files.certify()
            async with connected_by_tls(site, files.client()) as new:
                assert shown(new) == certificate_of(files) != before
                assert await healthy(new)
            assert await healthy(old)
        assert shown(old) == before


@in_both_loops
@conversation
async def test_a_half_rotated_certificate_changes_nothing_yet(loop: str, files: Files) -> None:
    """Certificate and key are two files: until both are there, the old pair is used, and that is logged once."""
    async with guarding(files.gate(files.tls())) as site:
        before = certificate_of(files)
        key = (files.folder / "server.key").read_bytes()
        files.certify()
        new_key = (files.folder / "server.key").read_bytes()
        (files.folder / "server.key").write_bytes(key)
        with capture_logs() as lines:
            for _ in range(3):
                async with connected_by_tls(site, files.client()) as client:
                    assert shown(client) == before
        why = 'tls_server_config.key_file: "server.key" does not belong to the certificate'
        assert lines == [{"event": KEPT, "log_level": "error", "faults": [f"{files.path}: {why}"]}]
        (files.folder / "server.key").write_bytes(new_key)
        async with connected_by_tls(site, files.client()) as client:
            assert shown(client) == certificate_of(files) != before


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda file: file.unlink(), "cannot read {file}: no such file"),
        (lambda file: file.write_text(""), '"server.pem" holds no certificate in PEM form'),
        (lambda file: file.write_text(file.read_text()[:200]), '"server.pem" holds no certificate in PEM form'),
    ],
    ids=["gone", "empty", "cut"],
)
@conversation
async def test_a_faulty_certificate_leaves_the_old_one(files: Files, spoil: Callable[[Path], object], why: str) -> None:
    """One error for each change, and the next sound one counts again."""
    file = files.folder / "server.pem"
    async with guarding(files.gate(files.tls())) as site:
        before = certificate_of(files)
        with capture_logs() as lines:
            spoil(file)
            for _ in range(3):
                async with connected_by_tls(site, files.client()) as client:
                    assert shown(client) == before
                    assert await healthy(client)
        assert [line["faults"] for line in lines] == [
            [f"{files.path}: tls_server_config.cert_file: {why.format(file=file)}"]
        ]
        files.certify()
        async with connected_by_tls(site, files.client()) as client:
            assert shown(client) == certificate_of(files) != before


@conversation
async def test_a_certificate_that_moves_with_its_symlink_is_seen(files: Files) -> None:
    """That is how Kubernetes changes a mounted Secret: one link in the way is replaced."""
    files.certify()
    for name in ("first", "second"):
        (files.folder / name).mkdir()
    for file in ("server.pem", "server.key"):
        (files.folder / file).rename(files.folder / "first" / file)
        (files.folder / file).symlink_to(f"data/{file}")
    files.certify("second")
    (files.folder / "data").symlink_to("first")
    async with guarding(files.gate(files.tls())) as site:
        async with connected_by_tls(site, files.client()) as client:
            before = shown(client)
        (files.folder / "data.new").symlink_to("second")
        (files.folder / "data.new").replace(files.folder / "data")
        async with connected_by_tls(site, files.client()) as client:
            assert shown(client) == certificate_of(files) != before


@in_both_loops
@conversation
async def test_a_rotated_client_authority_is_in_the_next_handshake(loop: str, files: Files) -> None:
    """Who was signed by the old one stays as long as the connection does."""
    other = trustme.CA(key_type=EC)
    old = files.client(files.authority.issue_cert("old", key_type=EC))
    new = files.client(other.issue_cert("new", key_type=EC))
    gate = files.gate(files.tls(client_auth_type="RequireAndVerifyClientCert", client_ca_file="ca.pem"))
    async with guarding(gate) as site, connected_by_tls(site, old) as client:
        assert await healthy(client)
        assert await attempted(site, new) == "TLSV1_ALERT_UNKNOWN_CA"
        other.cert_pem.write_to_path(str(files.folder / "ca.pem"))
        assert await attempted(site, new) == 200
        assert await attempted(site, old) == "TLSV1_ALERT_UNKNOWN_CA"
        assert await healthy(client)


@pytest.mark.parametrize(
    ("config", "fault"),
    [
        ({}, "tls_server_config, added or removed,"),
        (
            {"client_auth_type": "NoClientCert"},
            "client_auth_type NoClientCert, weaker than RequireAndVerifyClientCert,",
        ),
        (
            {"client_auth_type": "VerifyClientCertIfGiven", "client_ca_file": "ca.pem"},
            "client_auth_type VerifyClientCertIfGiven, weaker than RequireAndVerifyClientCert,",
        ),
        (
            {"client_auth_type": "RequireAndVerifyClientCert", "client_ca_file": "ca.pem"},
            "the removal of all client_allowed_sans",
        ),
    ],
    ids=["no TLS", "nobody verified", "some verified", "any name"],
)
@conversation
async def test_a_change_that_would_open_a_door_waits_for_a_restart(
    files: Files, config: dict[str, Any], fault: str
) -> None:
    """A file that is just being written looks like one with less in it."""
    strict = files.tls(
        client_auth_type="RequireAndVerifyClientCert", client_ca_file="ca.pem", client_allowed_sans=["prometheus"]
    )
    gate = files.gate(strict)
    files.write(files.tls(**config) if config else {})
    with capture_logs() as lines:
        assert (await gate.look()).tls == gate.config.tls
        assert gate.config.tls is not None
        assert gate.config.tls.allowed_sans == {"prometheus"}
    assert [line["event"] for line in lines] == [KEPT]
    assert lines[0]["faults"][0] == f"{files.path}: {fault} takes effect at a restart"


@conversation
async def test_tls_is_not_turned_on_by_a_change(files: Files) -> None:
    """A listener speaks what it spoke when it began."""
    async with guarding(files.gate({})) as site, connected(site.address) as client:
        with capture_logs() as lines:
            files.write(files.tls())
            assert await healthy(client)
        assert len(lines) == 1
        files.write({"basic_auth_users": ALICE["basic_auth_users"]})
        await client.send(request())
        assert (await client.answer()).status == 401


# -- certificates of clients

EXPIRED: Final = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
LETS_IN: Final[dict[str, dict[str, int | str]]] = {
    "NoClientCert": {"none": 200, "trusted": 200, "untrusted": 200, "expired": 200},
    "RequestClientCert": {"none": 200, "trusted": 200, "untrusted": 200, "expired": 200},
    "VerifyClientCertIfGiven": {
        "none": 200,
        "trusted": 200,
        "untrusted": "TLSV1_ALERT_UNKNOWN_CA",
        "expired": "SSLV3_ALERT_CERTIFICATE_EXPIRED",
    },
    "RequireAndVerifyClientCert": {
        "none": "TLSV13_ALERT_CERTIFICATE_REQUIRED",
        "trusted": 200,
        "untrusted": "TLSV1_ALERT_UNKNOWN_CA",
        "expired": "SSLV3_ALERT_CERTIFICATE_EXPIRED",
    },
}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("client_auth", LETS_IN)
@in_both_loops
@conversation
async def test_who_is_let_in(loop: str, client_auth: str, version: str, files: Files) -> None:
    """By what they show and by what is wanted; whoever is not let in is told why by an alert."""
    verified = {"client_ca_file": "ca.pem"} if "Verify" in client_auth else {}
    certificates = {
        "none": None,
        "trusted": files.authority.issue_cert("prometheus", key_type=EC),
        "untrusted": trustme.CA(key_type=EC).issue_cert("prometheus", key_type=EC),
        "expired": files.authority.issue_cert(
            "prometheus", key_type=EC, not_before=EXPIRED, not_after=EXPIRED + datetime.timedelta(days=1)
        ),
    }
    async with guarding(files.gate(files.tls(client_auth_type=client_auth, **verified))) as site:
        found = {
            name: await attempted(site, only(files.client(certificate), version))
            for name, certificate in certificates.items()
        }
    expected = dict(LETS_IN[client_auth])
    if version == "TLS12" and expected["none"] != 200:
        expected["none"] = "SSLV3_ALERT_HANDSHAKE_FAILURE"
    assert found == expected


@conversation
async def test_a_self_signed_client_certificate_may_be_its_own_authority(files: Files) -> None:
    """What stands in client_ca_file is trusted as it is, as in Go: also a client's certificate."""
    client, stranger = (files.authority.issue_cert(name, key_type=EC) for name in ("prometheus", "stranger"))
    config = files.tls(client_auth_type="RequireAndVerifyClientCert", client_ca_file="ca.pem")
    (files.folder / "ca.pem").write_bytes(client.cert_chain_pems[0].bytes())
    async with guarding(files.gate(config)) as site:
        assert await attempted(site, files.client(client)) == 200
        assert await attempted(site, files.client(stranger)) == "TLSV1_ALERT_UNKNOWN_CA"


@pytest.mark.parametrize("version", VERSIONS)
@in_both_loops
@conversation
async def test_an_expired_certificate_is_not_let_in_by_a_resumed_session(
    loop: str, version: str, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A session saves the handshake, and nobody verifies anything again: its dates are looked at all the same."""
    gate = files.gate(files.tls(client_auth_type="RequireAndVerifyClientCert", client_ca_file="ca.pem"))
    expires = datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1)
    certificate = files.authority.issue_cert("prometheus", key_type=EC, not_after=expires)
    context = only(files.client(certificate), version)

    def asked(address: Address, session: ssl.SSLSession | None) -> tuple[bool, bool, ssl.SSLSession | None]:
        """Whether there was an answer, whether the session was resumed, and which one there is now."""
        with (
            socket.create_connection((address.host, address.port)) as plain,
            context.wrap_socket(plain, server_hostname=NAME, session=session) as client,
        ):
            with contextlib.suppress(OSError):
                client.sendall(request())
                return client.recv(4096) != b"", bool(client.session_reused), client.session
            return False, bool(client.session_reused), None

    async with guarding(gate) as site:
        first = await asyncio.to_thread(asked, site.address, None)
        assert first[:2] == (True, False)
        again = await asyncio.to_thread(asked, site.address, first[2])
        assert again[:2] == (True, True)
        monkeypatch.setattr("exporter.web.tls.time.time", lambda: expires.timestamp() + 1)
        late = await asyncio.to_thread(asked, site.address, again[2])
        assert late[:2] == (False, True)


@pytest.mark.parametrize(
    ("identities", "allowed", "admitted"),
    [
        (["prometheus.test"], ["prometheus.test"], True),
        (["prometheus.test"], ["other.test", "prometheus.test"], True),
        (["a.test", "prometheus.test"], ["prometheus.test"], True),
        (["10.1.2.3"], ["10.1.2.3"], True),
        (["2001:db8::1"], ["2001:db8::1"], True),
        (["ops@prometheus.test"], ["ops@prometheus.test"], True),
        (["prometheus.test"], ["other.test"], False),
        (["a.prometheus.test"], ["*.prometheus.test"], False),
        (["*.prometheus.test"], ["*.prometheus.test"], True),
        (["prometheus.test"], ["Prometheus.test"], False),
        (["10.1.2.3"], ["10.1.2.4"], False),
    ],
)
@in_both_loops
@conversation
async def test_a_client_needs_one_of_the_names_exactly(
    loop: str, files: Files, identities: list[str], allowed: list[str], admitted: bool
) -> None:
    """DNS names, addresses and e-mail addresses, letter for letter; others are cut off unanswered, which is logged."""
    gate = files.gate(
        files.tls(client_auth_type="RequireAndVerifyClientCert", client_ca_file="ca.pem", client_allowed_sans=allowed)
    )
    certificate = files.authority.issue_cert(*identities, key_type=EC)
    async with guarding(gate) as site:
        with capture_logs() as lines:
            found = await attempted(site, files.client(certificate))
    if admitted:
        assert (found, lines) == (200, [])
    else:
        assert found in ("ConnectionResetError", "UNEXPECTED_EOF_WHILE_READING", "closed")
        assert site.errors == {}
        assert lines == [
            {
                "event": "TLS handshake failed",
                "client": "127.0.0.1",
                "reason": "the certificate has no name of client_allowed_sans",
                "log_level": "warning",
            }
        ]


@conversation
async def test_a_uri_is_a_name_too(files: Files) -> None:
    """As SPIFFE identities are."""
    identity = "spiffe://cluster.test/ns/monitoring/sa/prometheus"
    certificate = with_names(files.authority, x509.UniformResourceIdentifier(identity))
    for allowed, expected in (
        (identity, {200}),
        (f"{identity}2", {"ConnectionResetError", "closed", "UNEXPECTED_EOF_WHILE_READING"}),
    ):
        gate = files.gate(
            files.tls(
                client_auth_type="RequireAndVerifyClientCert", client_ca_file="ca.pem", client_allowed_sans=[allowed]
            )
        )
        async with guarding(gate) as site:
            assert await attempted(site, files.client(certificate)) in expected


def with_names(authority: trustme.CA, *names: x509.GeneralName) -> trustme.LeafCert:
    """A certificate with names of kinds that trustme does not make."""
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    ca = x509.load_pem_x509_certificate(authority.cert_pem.bytes())
    ca_key = serialization.load_pem_private_key(authority.private_key_pem.bytes(), None)
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime(2020, 1, 1)
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "prometheus")])
    builder = x509.CertificateBuilder(ca.subject, subject, key.public_key(), 7, now, now.replace(year=2090))
    builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    certificate = builder.sign(ca_key, hashes.SHA256())  # type: ignore[arg-type]
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return trustme.LeafCert(private, certificate.public_bytes(pem), [])


# -- handshakes that fail


@in_both_loops
@conversation
async def test_a_plain_request_to_a_tls_port_is_closed(loop: str, files: Files) -> None:
    """It gets no answer, and is one line in the log."""
    async with guarding(files.gate(files.tls()), limits=Limits(linger=0.1)) as site:
        with capture_logs() as lines:
            for _ in range(2):
                async with connected(site.address) as client:
                    await client.send(request())
                    assert await client.ended()
        assert lines == [
            {"event": "TLS handshake failed", "client": "127.0.0.1", "reason": "http request", "log_level": "warning"}
        ]
        assert site.errors == {}


@conversation
async def test_a_tls_hello_to_a_plain_port_is_a_bad_request(files: Files) -> None:
    """With users or without."""
    async with guarding(files.gate(ALICE)) as site:
        assert await attempted(site, files.client()) == "WRONG_VERSION_NUMBER"
        assert site.errors == {"bad_request": 1}


@in_both_loops
@conversation
async def test_versions_and_suites_that_do_not_fit_are_refused_by_an_alert(loop: str, files: Files) -> None:
    """The client is told which of them it was; each reason is one line a minute."""
    suites = ["TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"]
    gate = files.gate(files.tls(max_version="TLS12", cipher_suites=suites))
    other = only(files.client(), "TLS12")
    other.set_ciphers("ECDHE-ECDSA-CHACHA20-POLY1305")
    async with guarding(gate) as site:
        with capture_logs() as lines:
            assert await attempted(site, only(files.client(), "TLS13")) == "TLSV1_ALERT_PROTOCOL_VERSION"
            assert await attempted(site, other) == "SSLV3_ALERT_HANDSHAKE_FAILURE"
            assert await attempted(site, other) == "SSLV3_ALERT_HANDSHAKE_FAILURE"
            assert await attempted(site, only(files.client(), "TLS12")) == 200
        assert [line["reason"] for line in lines] == ["unsupported protocol", "no shared cipher"]


@conversation
async def test_a_client_that_does_not_trust_us_is_a_line_in_the_log(files: Files) -> None:
    """Its alert says why it left."""
    async with guarding(files.gate(files.tls())) as site:
        with capture_logs() as lines:
            stranger = files.client(authority=trustme.CA(key_type=EC))
            assert await attempted(site, stranger) == "CERTIFICATE_VERIFY_FAILED"
            await eventually(lambda: lines)
        assert [line["reason"] for line in lines] == ["tlsv1 alert unknown ca"]


@in_both_loops
@conversation
async def test_a_handshake_has_as_much_time_as_a_head(loop: str, files: Files) -> None:
    """Who says nothing, or only a part, is closed; nothing is logged, counted or raised."""
    hello = ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        files.client().wrap_bio(ssl.MemoryBIO(), hello, server_hostname=NAME).do_handshake()
    begun = asyncio.get_running_loop().time()
    async with guarding(files.gate(files.tls()), limits=Limits(head_time=0.3)) as site:
        with capture_logs() as lines:
            async with connected(site.address) as silent, connected(site.address) as half:
                await half.send(hello.read()[:100])
                for client in (silent, half):
                    with contextlib.suppress(ConnectionResetError):
                        assert await client.ended()
    assert 0.3 <= asyncio.get_running_loop().time() - begun < 3
    assert (lines, site.errors) == ([], {})


@in_both_loops
@conversation
async def test_half_handshakes_count_as_connections(loop: str, files: Files) -> None:
    """Those over the limit are closed at once and counted; when the others are given up there is room again."""
    limits = Limits(connections=3, head_time=0.5)
    async with (
        guarding(files.gate(files.tls()), limits=limits) as site,
        connected_by_tls(site, files.client()) as served,
    ):
        assert await healthy(served)
        async with connected(site.address), connected(site.address), connected(site.address) as over:
            await eventually(lambda: site.errors == {"overloaded": 1})
            with contextlib.suppress(ConnectionResetError):
                assert await over.ended()
            assert await healthy(served)

            async def room() -> bool:
                return await attempted(site, files.client()) == 200

            assert await eventually(room)


@in_both_loops
@conversation
async def test_a_crowd_of_half_handshakes_leaves_the_others_their_answers(loop: str, files: Files) -> None:
    """200 clients that only connect: a new one shakes hands and is answered."""
    async with guarding(files.gate(files.tls())) as site, contextlib.AsyncExitStack() as crowd:
        for _ in range(200):
            await crowd.enter_async_context(connected(site.address))
        begun = asyncio.get_running_loop().time()
        assert await attempted(site, files.client()) == 200
        assert asyncio.get_running_loop().time() - begun < 2


@in_both_loops
@conversation
async def test_without_descriptors_clients_wait(loop: str, files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are accepted as soon as there are some again; that is logged once."""
    monkeypatch.setattr(module, "ACCEPT_PAUSE", 0.05)
    async with guarding(files.gate(files.tls())) as site:
        assert await attempted(site, files.client()) == 200
        with contextlib.ExitStack() as taken, capture_logs() as lines:
            waiting = taken.enter_context(socket.socket())
            waiting.setblocking(False)
            with every_descriptor_taken():
                with contextlib.suppress(BlockingIOError):
                    waiting.connect((site.address.host, site.address.port))
                await eventually(lambda: lines)
            assert await attempted(site, files.client()) == 200
        assert [(line["event"], line["reason"]) for line in lines] == [
            ("cannot accept connections", "too many open files")
        ]


@contextlib.contextmanager
def every_descriptor_taken() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken: list[int] = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 512), hard))
    try:
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.dup(0))
        yield
    finally:
        for descriptor in taken:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@in_both_loops
@conversation
async def test_stopping_does_not_wait_for_a_file(loop: str, files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client whose handshake waits for files that are being read is let go of."""
    going = threading.Event()
    gate = files.gate(files.tls())

    def slow(path: Path) -> Any:
        going.wait(10)
        return read_web_config(path)

    monkeypatch.setattr("exporter.web.gate.read_web_config", slow)
    files.certify()
    async with guarding(gate) as site, connected(site.address) as client:
        await eventually(lambda: gate._reading.locked())
        site.listener.stop()
        with contextlib.suppress(ConnectionResetError):
            assert await client.ended()
        going.set()


def test_a_context_is_one_for_others_too(files: Files) -> None:
    """Outside of a listener its handshakes are those of any context."""
    context = server_context(load_web_config(files.write(files.tls())).tls)  # type: ignore[arg-type]
    context.sslobject_class = module._Handshake
    received = ssl.MemoryBIO()
    server = context.wrap_bio(received, ssl.MemoryBIO(), server_side=True)
    with pytest.raises(ssl.SSLWantReadError):
        server.do_handshake()
    received.write(request())
    with pytest.raises(ssl.SSLError, match="HTTP_REQUEST"):
        server.do_handshake()


@conversation
async def test_the_reasons_that_are_remembered_are_bounded(files: Files) -> None:
    """However many there may turn out to be."""
    with socket.socket() as sock:
        handshakes = module.Handshakes(
            sock, files.gate(files.tls()), Limits(), lambda: None, served=lambda: 0, refused=lambda: None
        )
        with capture_logs() as lines:
            for number in range(1000):
                handshakes._complain("TLS handshake failed", reason=str(number))
                handshakes._complain("TLS handshake failed", reason=str(number))
        assert len(lines) == 1000
        assert len(handshakes._complained) <= 256


# -- the end


def accepting(address: Address) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((address.host, address.port)) == 0


@in_both_loops
@conversation
async def test_stopping_ends_everything(loop: str, files: Files) -> None:
    """Idle connections, handshakes under way and the port; an answer under way is still sent."""
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/slow":
            begun.set()
            await go_on.wait()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
        await send({"type": "http.response.body", "body": b"hello"})

    async with (
        guarding(files.gate(files.tls()), slow) as site,
        connected_by_tls(site, files.client()) as idle,
        connected_by_tls(site, files.client()) as asking,
        connected(site.address) as half,
    ):
        assert await healthy(idle)
        await asking.send(request("/slow"))
        await begun.wait()
        site.listener.stop()
        with contextlib.suppress(ConnectionResetError):
            assert await half.ended()
        assert await idle.ended()
        assert not accepting(site.address)
        go_on.set()
        answer = await asking.answer()
        assert (answer.body, answer.fields["connection"]) == (b"hello", "close")


@in_both_loops
@conversation
async def test_a_listener_that_never_ran_or_is_cancelled_lets_go(loop: str, files: Files) -> None:
    """Of its socket, and of every connection."""
    gate, answers = files.gate(files.tls()), ErrorAnswers(lambda _: None)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise AssertionError("nothing is asked")

    never = await listen(app, LOOPBACK, answers, None, gate)
    never.stop()
    assert not accepting(never.address)
    for early in (True, False):
        listener = await listen(app, LOOPBACK, answers, None, gate)
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(listener.run())
            if early:
                await asyncio.sleep(0)
            else:
                async with connected(listener.address):
                    await asyncio.sleep(0.05)
            running.cancel()
        assert not accepting(listener.address)


@in_both_loops
@conversation
async def test_a_listener_that_is_stopped_at_once_ends(loop: str, files: Files) -> None:
    """Also before it has accepted anybody."""
    listener = await listen(nothing, LOOPBACK, ErrorAnswers(lambda _: None), None, files.gate(files.tls()))
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(listener.run())
        await asyncio.sleep(0)
        listener.stop()
    assert not accepting(listener.address)


async def nothing(scope: Scope, receive: Receive, send: Send) -> None:
    raise AssertionError("nothing is asked")


# -- health


@conversation
async def test_health_over_tls(files: Files) -> None:
    """On loopback any certificate will do; who is asked for one of its own has met a living exporter."""
    async with guarding(files.gate(files.tls())) as site:
        url = f"https://{site.address}/-/healthy"
        assert await asyncio.to_thread(health.check, url) == (True, f"{url} is healthy")
        plain = f"http://{site.address}/-/healthy"
        healthy, sentence = await asyncio.to_thread(health.check, plain)
        assert not healthy
        assert sentence in (f"{plain} did not answer in HTTP", f"cannot reach {plain}: connection reset by peer")
    for version in VERSIONS:
        strict = files.tls(client_auth_type="RequireAndVerifyClientCert", client_ca_file="ca.pem", max_version=version)
        async with guarding(files.gate(strict)) as site:
            url = f"https://{site.address}/-/healthy"
            said = await asyncio.to_thread(health.check, url)
            assert said == (True, f"{url} is healthy, and asks for a client certificate")
    async with guarding(files.gate({})) as site:
        url = f"https://{site.address}/-/healthy"
        said = await asyncio.to_thread(health.check, url)
        assert said == (False, f"{url} did not answer in TLS: wrong version number")


def test_health_elsewhere_wants_a_certificate_that_is_trusted(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the system's authorities, or those of SSL_CERT_FILE."""
    files.tls()
    monkeypatch.setenv("SSL_CERT_FILE", str(files.folder / "ca.pem"))
    context = health._context("exporter.example.com")
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert files.authority.cert_pem.bytes().decode().strip() in {
        ssl.DER_cert_to_PEM_cert(found).strip() for found in context.get_ca_certs(True)
    }
    for host in ("127.0.0.1", "127.8.8.8", "::1", "localhost"):
        assert health._context(host).verify_mode == ssl.CERT_NONE
