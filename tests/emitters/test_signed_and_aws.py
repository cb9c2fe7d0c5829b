"""The snippets for senders that are not servers: curl with openssl, and a Lambda function."""

import asyncio
import base64
import importlib.util
import json
import socket
import time
from collections.abc import Iterator
from types import ModuleType
from typing import Any, Final

import pytest

from tests.emitters.support import EMITTERS, closes, losing_answers
from tests.emitters.test_documentation import run
from tests.support.loops import conversation
from tests.support.reporting import AWS, DURATION, EVENTS, REPORTS, Desk, growth, standing, written
from tests.support.services import ROOT

SECRET: Final = "whsec_" + base64.b64encode(bytes(range(200, 232))).decode()
DISCONNECT: Final = ROOT / "tests/reports/testdata/aws-apigateway-disconnect.json"
"""What API Gateway gave to a $disconnect route."""


@pytest.fixture(scope="module")
def signed_desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """An exporter that takes only what SECRET has signed."""
    folder = tmp_path_factory.mktemp("signed")
    with standing(folder, f"--webhook.secrets-file={written(folder / 'secrets', SECRET)}") as desk:
        yield desk


@pytest.mark.needs("curl", "openssl")
@conversation
async def test_curl_with_openssl(signed_desk: Desk) -> None:
    """openssl signs what the exporter asks for, with a key of any bytes."""
    before = await signed_desk.scrape()
    answer = await run(
        "sh", str(EMITTERS / "curl-signed.sh"), URL=f"http://{signed_desk.address}{REPORTS}", SECRET=SECRET
    )
    assert json.loads(answer)["accepted"] == 1
    assert closes(before, await signed_desk.scrape()) == {("1011", "server"): 1}


@pytest.fixture(name="lambda_function")
def loaded_lambda_function() -> ModuleType:
    spec = importlib.util.spec_from_file_location("aws_disconnect", EMITTERS / "aws_disconnect.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def disconnected(connection: str, **context: object) -> dict[str, Any]:
    """The recorded event, as of now, of some connection."""
    event: dict[str, Any] = json.loads(DISCONNECT.read_text())
    recorded = event["requestContext"]
    now = int(time.time() * 1000)
    times = {"requestTimeEpoch": now, "connectedAt": now - recorded["requestTimeEpoch"] + recorded["connectedAt"]}
    event["requestContext"] = recorded | times | {"connectionId": connection} | context
    return event


@conversation
async def test_a_disconnect_of_api_gateway(
    desk: Desk, lambda_function: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A recorded $disconnect counts with its code and duration, also when the first answer is lost, and once."""
    before = await desk.scrape()
    async with losing_answers(desk.address, lost=1) as address:
        monkeypatch.setenv("WEBHOOK_URL", f"http://{address}{AWS}")
        answer = await asyncio.to_thread(lambda_function.handler, disconnected("PJqB0fHsqRcCHlw="), None)
    assert answer == {"statusCode": 200}
    after = await desk.scrape()
    assert closes(before, after) == {("1005", "unknown"): 1}
    assert growth(before, after, EVENTS, "result") == {("accepted",): 1, ("duplicate",): 1}
    assert growth(before, after, f"{DURATION}_sum") == {(): pytest.approx(2.518)}


@conversation
async def test_a_disconnect_without_a_code(
    desk: Desk, lambda_function: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """-1 is no code: it is refused, the log says so, and the route is answered all the same."""
    monkeypatch.setenv("WEBHOOK_URL", f"http://{desk.address}{AWS}")
    event = disconnected("L0SM8cOFvHcCIhw=", disconnectStatusCode=-1)
    assert await asyncio.to_thread(lambda_function.handler, event, None) == {"statusCode": 200}
    assert "close refused: 422" in capsys.readouterr().out


@conversation
async def test_an_exporter_that_cannot_be_reached(
    desk: Desk, lambda_function: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The function gives up after four attempts: API Gateway waits for it, and nobody would call it again."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    monkeypatch.setenv("WEBHOOK_URL", f"http://127.0.0.1:{port}{AWS}")
    assert await asyncio.to_thread(lambda_function.handler, disconnected("gone"), None) == {"statusCode": 200}
    assert capsys.readouterr().out.count("close not delivered") == 4
