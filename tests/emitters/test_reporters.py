"""The queues behind the snippets: what is reported is delivered once, whatever happens on the way, and nobody waits."""

import asyncio
import base64
import contextlib
import json
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Final

import bcrypt
import httpx
import pytest
import trustme

from exporter.config import Address
from tests.emitters.support import NODE, PYTHON, SERVICES, closes, losing_answers, url
from tests.peers.processes import Program, program
from tests.support.loops import conversation, eventually
from tests.support.reporting import ERRORS, EVENTS, REPORTS, Desk, growth, reporting, standing, written
from tests.support.scraping import Page

REPORTERS: Final = {
    "python": (*PYTHON, str(SERVICES / "report.py")),
    "node": (*NODE, str(SERVICES / "report.js")),
}
SECRET: Final = "whsec_" + base64.b64encode(bytes(range(24))).decode()

either = pytest.mark.parametrize("language", ["python", pytest.param("node", marks=pytest.mark.needs("node"))], ids=str)
"""For what both reporters do."""


@contextlib.contextmanager
def reporter(language: str, webhook: str, **options: object) -> Iterator[Program]:
    """A program that reports as many closes as it is told, and then delivers them."""
    flags = [f"--{name}={value}" for name, value in options.items()]
    with program([*REPORTERS[language], webhook, *flags]) as started:
        yield started


async def said(running: Program, word: str, within: float = 30.0) -> str:
    return await asyncio.to_thread(running.line, word, within)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@contextlib.asynccontextmanager
async def coming_up(folder: Path, port: int) -> AsyncIterator[Desk]:
    """An exporter whose webhook is on this very port."""
    async with reporting(folder, f"--webhook.listen-address=127.0.0.1:{port}") as desk:
        yield desk


@either
@conversation
async def test_an_exporter_that_comes_later(language: str, tmp_path: Path) -> None:
    """What is reported while nobody listens is delivered as soon as somebody does, and counted once."""
    port = free_port()
    with reporter(language, url(Address("127.0.0.1", port)), count=50) as running:
        assert await said(running, "dropped") == "0"
        async with coming_up(tmp_path, port) as desk:
            assert await said(running, "closed") == ""
            page = await desk.scrape()
    assert page.counted("websocket_closes_total", "code", "initiator") == {("1000", "client"): 50}


@either
@conversation
async def test_an_answer_that_is_lost(desk: Desk, language: str) -> None:
    """What is sent again, because nobody knows whether it arrived, has the same ids: it counts once."""
    before = await desk.scrape()
    async with losing_answers(desk.address, lost=2) as address:
        with reporter(language, url(address)) as running:
            assert await said(running, "closed") == ""
    after = await desk.scrape()
    assert growth(before, after, EVENTS, "result") == {("accepted",): 1, ("duplicate",): 2}
    assert closes(before, after) == {("1000", "client"): 1}


@either
@conversation
async def test_a_service_never_waits(language: str) -> None:
    """Reporting takes microseconds although nobody answers; beyond the bound closes are dropped, and counted."""
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        reporter(language, url(Address(*silent.getsockname())), count=2000, most=100) as running,
    ):
        assert float(await said(running, "took")) < 2
        # What is under way is up to 500 more.
        assert 1400 <= int(await said(running, "dropped")) <= 1900


@either
@conversation
async def test_what_is_refused_is_not_sent_again(desk: Desk, language: str) -> None:
    """An event that cannot be counted is said so once, and holds up nothing."""
    before = await desk.scrape()
    with reporter(language, url(desk.address), count=3, code=70000) as running:
        assert await said(running, "closed") == ""
        await eventually(lambda: "closes refused: 422" in running.errors and "invalid_code" in running.errors)
    after = await desk.scrape()
    assert growth(before, after, EVENTS, "result", "reason") == {("rejected", "invalid_code"): 3}


@either
@conversation
async def test_an_exporter_that_wants_it_slower(tmp_path: Path, language: str) -> None:
    """Told to come later (429), the reporter does, after the time it was told, until everything is counted."""
    async with reporting(tmp_path, "--webhook.rate-limit=400") as desk:
        with reporter(language, url(desk.address), count=1500) as running:
            assert await said(running, "closed") == ""
        page = await desk.scrape()
    assert page.counted("websocket_closes_total", "code") == {("1000",): 1500}
    assert page.value(ERRORS, error="rate_limited") > 0


@either
@conversation
async def test_reports_over_tls_with_a_password(tmp_path: Path, language: str) -> None:
    """An exporter behind TLS and a password is reported to as the page says."""
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    certificate.private_key_and_cert_chain_pem.write_to_path(tmp_path / "exporter.pem")
    authority.cert_pem.write_to_path(tmp_path / "authority.pem")
    (tmp_path / "exporter.pem").chmod(0o600)
    web = {
        "tls_server_config": {"cert_file": "exporter.pem", "key_file": "exporter.pem"},
        "basic_auth_users": {"chat": bcrypt.hashpw(b"correct horse", bcrypt.gensalt(10)).decode()},
    }
    flag = f"--web.config.file={written(tmp_path / 'web.yaml', json.dumps(web))}"
    trusting = ("env", *(f"{name}={tmp_path / 'authority.pem'}" for name in ("SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS")))
    async with reporting(tmp_path, flag) as desk:
        address = f"https://{desk.address}{REPORTS}"
        with program([*trusting, *REPORTERS[language], address, "--password=chat:correct horse"]) as running:
            assert await said(running, "closed") == ""
            assert running.errors == ""
        context = ssl.create_default_context(cafile=str(tmp_path / "authority.pem"))
        async with httpx.AsyncClient(verify=context, auth=("chat", "correct horse")) as client:
            page = Page((await client.get(f"https://{desk.web}/metrics")).text)
    assert page.counted("websocket_closes_total", "code", "initiator") == {("1000", "client"): 1}


@pytest.fixture(scope="module")
def signed_desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """An exporter that takes only what SECRET has signed."""
    folder = tmp_path_factory.mktemp("signed")
    with standing(folder, f"--webhook.secrets-file={written(folder / 'secrets', SECRET)}") as desk:
        yield desk


@conversation
async def test_signed_reports(signed_desk: Desk) -> None:
    """The Standard Webhooks library signs what the exporter asks for."""
    before = await signed_desk.scrape()
    with reporter("python", url(signed_desk.address), secret=SECRET) as running:
        assert await said(running, "closed") == ""
    assert closes(before, await signed_desk.scrape()) == {("1000", "client"): 1}


@conversation
async def test_reports_signed_with_another_secret(signed_desk: Desk) -> None:
    """They are refused once, and the log of the service says why."""
    before = await signed_desk.scrape()
    with reporter("python", url(signed_desk.address), secret=f"whsec_{'A' * 32}") as running:
        assert await said(running, "closed") == ""
        await eventually(lambda: "closes refused: 401" in running.errors and "signature_mismatch" in running.errors)
    after = await signed_desk.scrape()
    assert closes(before, after) == {}
    assert growth(before, after, ERRORS, "error") == {("signature_mismatch",): 1}
