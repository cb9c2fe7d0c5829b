"""Who may report: signatures as senders make them, passwords, and what an exporter refuses to start with."""

import asyncio
import base64
import json
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Final

import bcrypt
import pytest
from standardwebhooks import Webhook

from exporter.web.errors import ErrorToken
from tests.support.loops import conversation
from tests.support.processes import exporter_process
from tests.support.reporting import (
    CLOSES,
    ERRORS,
    WEBHOOK,
    Answer,
    Desk,
    closing,
    counts,
    growth,
    outcome,
    post,
    reporting,
    standing,
    written,
)
from tests.support.services import ROOT
from tests.web.support import connected
from tests.webhook.refusals import assert_only_counted_as_error, assert_refused

SECRETS: Final = tuple("whsec_" + base64.b64encode(bytes([byte]) * 24).decode() for byte in (1, 2))
STRANGER: Final = "whsec_" + base64.b64encode(bytes([9]) * 24).decode()
BODY: Final = json.dumps(closing(1001, initiator="server")).encode()


@pytest.fixture(scope="module")
def signed_desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """An exporter that takes what either of two secrets has signed."""
    folder = tmp_path_factory.mktemp("signed")
    secrets = written(folder / "secrets", "\n".join(SECRETS) + "\n")
    with standing(folder, f"--webhook.secrets-file={secrets}") as desk:
        yield desk


def signature(secret: str = SECRETS[0], body: bytes = BODY, *, age: float = 0, name: str = "msg_1") -> str:
    """`v1,...`, as the Standard Webhooks library signs."""
    return Webhook(secret).sign(name, datetime.fromtimestamp(int(time.time() - age), UTC), body.decode())


def headers(signatures: str, *, age: float = 0, name: str = "msg_1") -> dict[str, str]:
    return {
        "webhook-id": name,
        "webhook-timestamp": str(int(time.time() - age)),
        "webhook-signature": signatures,
    }


async def sent(desk: Desk, fields: dict[str, str], body: bytes = BODY) -> Answer:
    return await desk.ask(post(body, *(f"{name}: {value}" for name, value in fields.items())))


@pytest.mark.parametrize("secret", SECRETS)
@conversation
async def test_a_signed_report(signed_desk: Desk, secret: str) -> None:
    """What any of the secrets has signed is taken: they can be rotated."""
    before = await signed_desk.scrape()
    assert outcome(await sent(signed_desk, headers(signature(secret)))) == (1, 0, 0)
    assert growth(before, await signed_desk.scrape(), CLOSES, "code") == {("1001",): 1}


@pytest.mark.parametrize("age", [-280, 280])
@conversation
async def test_a_clock_that_differs(signed_desk: Desk, age: float) -> None:
    """Clocks may be apart by up to 5 minutes, either way."""
    assert outcome(await sent(signed_desk, headers(signature(age=age), age=age))) == (1, 0, 0)


@pytest.mark.parametrize(("wrong_ones", "taken"), [(9, True), (10, False)])
@conversation
async def test_several_signatures(signed_desk: Desk, wrong_ones: int, taken: bool) -> None:
    """One of the first ten signatures has to match; further ones are not tried."""
    signatures = [signature(STRANGER)] * wrong_ones + [signature()]
    answer = await sent(signed_desk, headers(" ".join(signatures)))
    if taken:
        assert outcome(answer) == (1, 0, 0)
    else:
        assert_refused(answer, 401, "signature_mismatch")


def without(field: str) -> dict[str, str]:
    return {name: value for name, value in headers(signature()).items() if name != field}


def dated(timestamp: str) -> dict[str, str]:
    return headers(signature()) | {"webhook-timestamp": timestamp}


BAD_SIGNATURES: Final[dict[str, tuple[Callable[[], dict[str, str]], ErrorToken]]] = {
    "nothing signed": (dict, "signature_required"),
    "no id": (lambda: without("webhook-id"), "signature_required"),
    "no signature": (lambda: without("webhook-signature"), "signature_required"),
    "no timestamp": (lambda: without("webhook-timestamp"), "timestamp_out_of_range"),
    "an unknown secret": (lambda: headers(signature(STRANGER)), "signature_mismatch"),
    "another id": (lambda: headers(signature(name="msg_2")), "signature_mismatch"),
    "another body": (lambda: headers(signature(body=BODY + b" ")), "signature_mismatch"),
    "another time": (lambda: headers(signature(age=10)), "signature_mismatch"),
    "an empty signature": (lambda: headers("v1,"), "signature_mismatch"),
    "no version": (lambda: headers(signature().removeprefix("v1,")), "signature_mismatch"),
    "v1a alone": (lambda: headers("v1a," + signature().removeprefix("v1,")), "signature_mismatch"),
    "an unknown version": (lambda: headers("v2," + signature().removeprefix("v1,")), "signature_mismatch"),
    "no base64": (lambda: headers("v1,%%%"), "signature_mismatch"),
    "a signature cut short": (lambda: headers(signature()[:-4]), "signature_mismatch"),
    "not ASCII": (lambda: headers("v1,\xe9\xe9"), "signature_mismatch"),
    "a time of over 5 minutes ago": (lambda: headers(signature(age=302), age=302), "timestamp_out_of_range"),
    "a time over 5 minutes ahead": (lambda: headers(signature(age=-310), age=-310), "timestamp_out_of_range"),
    **{
        f"timestamp {value!r}": (partial(dated, value), "timestamp_out_of_range")
        for value in ("soon", "", "1e9", "-1", "0", "9" * 400, "nan", "1_700_000_000", "17:00")
    },
}
"""What is sent, made when it is: it ages."""


@pytest.mark.parametrize("name", BAD_SIGNATURES)
@conversation
async def test_a_bad_signature(signed_desk: Desk, name: str) -> None:
    """It is answered 401 with its error, and nothing of the report is looked at."""
    make, token = BAD_SIGNATURES[name]
    before = await signed_desk.scrape()
    assert_refused(await sent(signed_desk, make()), 401, token)
    assert_only_counted_as_error(before, await signed_desk.scrape(), token)


@conversation
async def test_a_signature_comes_first(signed_desk: Desk) -> None:
    """Who has not signed learns nothing of what is wrong with a body."""
    for body in (b"{", b'{"code": 7000}', b'{"code": 1000, "reason": "\\ud800"}', b"[" * 100_000):
        assert_refused(await sent(signed_desk, headers(signature(STRANGER, b"other")), body), 401, "signature_mismatch")


@conversation
async def test_a_signed_report_with_a_fault(signed_desk: Desk) -> None:
    """A signature makes no event better."""
    body = b'{"code": 7000}'
    answer = await sent(signed_desk, headers(signature(body=body)), body)
    assert (answer.status, json.loads(answer.body)["error"]) == (422, "invalid_code")


@conversation
async def test_no_body_for_a_stranger(signed_desk: Desk) -> None:
    """Who has not even tried to sign is not asked for a body by 100 Continue."""
    head = post(length=len(BODY)).replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n")
    async with connected(signed_desk.address) as client:
        await client.send(head)
        assert_refused(await client.answer(), 401, "signature_required")


@conversation
async def test_other_pages_need_no_signature(signed_desk: Desk) -> None:
    """The schema and health are for everybody."""
    for path in ("/api/v1/openapi.json", "/-/healthy"):
        assert (await signed_desk.ask(post(path=path, method="GET"))).status == 200


def basic(user: str, password: str) -> str:
    return "Authorization: Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


@conversation
async def test_a_password(tmp_path: Path) -> None:
    """With users configured each listener asks for a password; a body is asked for only behind it."""
    hashed = bcrypt.hashpw(b"right", bcrypt.gensalt(4)).decode()
    file = written(tmp_path / "web.yaml", json.dumps({"basic_auth_users": {"sender": hashed}}))
    flags = (f"--web.config.file={file}", WEBHOOK)
    async with exporter_process(tmp_path, *flags) as exporter:
        address = await exporter.address("webhook")
        desk = Desk(exporter, address, await exporter.address("metrics"))
        for fields in (
            (),
            (basic("sender", "wrong"),),
            (basic("stranger", "right"),),
            ("Authorization: Basic %%%",),
            ("Authorization: Bearer x",),
        ):
            answer = await desk.ask(post(closing(1000), *fields))
            assert_refused(answer, 401, "unauthorized")
            assert answer.fields["www-authenticate"].startswith("Basic ")
        assert outcome(await desk.report(closing(1000), basic("sender", "right"))) == (1, 0, 0)
        async with connected(desk.address) as client:
            await client.send(post(length=len(BODY)).replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n"))
            assert_refused(await client.answer(), 401, "unauthorized")
        async with connected(desk.web) as client:
            await client.send(post(method="GET", path="/metrics", kind=None))
            assert_refused(await client.answer(), 401, "unauthorized")
            await client.send(post(b"", basic("sender", "right"), method="GET", path="/metrics", kind=None))
            answer = await client.answer()
            assert answer.status == 200
            assert b'websocket_exporter_webhook_events_total{reason="none",result="accepted"} 1.0' in answer.body


async def refused_start(*flags: str) -> str:
    """What an exporter says that ends at once with status 2."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "exporter", "--web.listen-address=127.0.0.1:0", "--log.format=json", *flags),
        cwd=ROOT,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(15):
            _, said = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 2
    return said.decode()


@pytest.mark.parametrize(
    "secret",
    ["whsec_" + base64.b64encode(bytes(23)).decode(), base64.b64encode(bytes(24)).decode(), "whsec_", "whsec_%%%", ""],
    ids=["23 bytes", "no prefix", "nothing", "no base64", "empty file"],
)
@conversation
async def test_a_weak_secret(secret: str, tmp_path: Path) -> None:
    """A secret that is too short or no secret keeps the exporter from starting; the secret itself is not printed."""
    file = written(tmp_path / "secrets", secret + "\n")
    said = await refused_start(WEBHOOK, f"--webhook.secrets-file={file}")
    assert str(file) in said
    assert len(secret) < 8 or secret not in said


@pytest.mark.parametrize("address", [":0", "0.0.0.0:0", "[::]:0"])
@conversation
async def test_an_open_door(address: str) -> None:
    """Beyond loopback the exporter takes reports only from senders that it can know."""
    said = await refused_start(f"--webhook.listen-address={address}")
    assert "reachable from other machines" in said


@conversation
async def test_new_secrets(tmp_path: Path) -> None:
    """Secrets are read anew with the configuration: old ones stop being taken, and a bad file changes nothing."""
    file = written(tmp_path / "secrets", SECRETS[0] + "\n")
    async with reporting(tmp_path, f"--webhook.secrets-file={file}", "--web.enable-lifecycle") as desk:
        assert outcome(await sent(desk, headers(signature(SECRETS[0])))) == (1, 0, 0)
        written(file, "nonsense\n")
        async with connected(desk.web) as client:
            await client.send(post(path="/-/reload"))
            assert (await client.answer()).status == 500
        assert outcome(await sent(desk, headers(signature(SECRETS[0])))) == (1, 0, 0)
        written(file, SECRETS[1] + "\n")
        async with connected(desk.web) as client:
            await client.send(post(path="/-/reload"))
            assert (await client.answer()).status == 200
        before = await desk.scrape()
        assert_refused(await sent(desk, headers(signature(SECRETS[0]))), 401, "signature_mismatch")
        assert outcome(await sent(desk, headers(signature(SECRETS[1])))) == (1, 0, 0)
        after = await desk.scrape()
        assert growth(before, after, ERRORS, "error") == {("signature_mismatch",): 1}
        assert sum(counts(after).values()) > sum(counts(before).values())
