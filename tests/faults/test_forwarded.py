"""What a service makes of a client that claims another's address, behind a tap: uvicorn as it comes, with its defaults.

uvicorn believes X-Forwarded-For from 127.0.0.1 and ::1, its peers there being proxies; behind a tap that dials over
loopback everybody comes from there.
"""

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import pytest
from websockets.asyncio.client import connect

from exporter.config import Address, UnixPath
from tests.faults.crowd import free_address, listens
from tests.support.loops import conversation, eventually
from tests.support.processes import exporter_process
from tests.support.services import ROOT
from tests.wire.support import head

CLAIMED: Final = "203.0.113.7"
"""The address that the client claims (RFC 5737)."""
CLAIMS: Final = {"X-Forwarded-For": CLAIMED, "X-Forwarded-Proto": "https"}


@contextlib.asynccontextmanager
async def uvicorn(upstream: Address | UnixPath, implementation: str) -> AsyncIterator[None]:
    """A real one with its default settings, as far as trust goes."""
    where = (
        ("--uds", upstream.path)
        if isinstance(upstream, UnixPath)
        else ("--host", upstream.host, "--port", str(upstream.port))
    )
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "uvicorn", "tests.faults.whoami:app", *where),
        *(f"--ws={implementation}", "--lifespan=off", "--log-level=critical"),
        cwd=ROOT,
    )
    try:
        await eventually(lambda: answers(upstream), within=15)
        yield
    finally:
        process.terminate()
        await process.wait()


async def answers(upstream: Address | UnixPath) -> bool:
    if isinstance(upstream, Address):
        return await listens(upstream)
    with contextlib.suppress(FileNotFoundError, ConnectionRefusedError):
        _, writer = await asyncio.open_unix_connection(upstream.path)
        writer.close()
        return True
    return False


async def over_http(tap: Address) -> dict[str, Any]:
    """Whom the service takes a client for that asks over HTTP."""
    reader, writer = await asyncio.open_connection(tap.host, tap.port)
    writer.write(head("GET / HTTP/1.1", "Host: chat.test", *(f"{name}: {value}" for name, value in CLAIMS.items())))
    body = (await reader.read()).partition(b"\r\n\r\n")[2]
    writer.close()
    answer: dict[str, Any] = json.loads(body)
    return answer


async def over_websocket(tap: Address) -> dict[str, Any]:
    """Whom the service takes a client for that opens a WebSocket."""
    async with connect(f"ws://{tap}/", additional_headers=CLAIMS) as connection:
        answer: dict[str, Any] = json.loads(await connection.recv())
        await connection.wait_closed()
        return answer


@pytest.mark.parametrize(
    "implementation",
    [
        "websockets",
        pytest.param("websockets-sansio", marks=pytest.mark.matrix),
        pytest.param("wsproto", marks=[pytest.mark.matrix, pytest.mark.needs("wsproto")]),
    ],
)
@pytest.mark.parametrize(
    ("kind", "client", "believed"),
    [
        ("a Unix socket", None, False),
        ("an address of its own", "127.0.0.2", False),
        ("loopback", CLAIMED, True),
    ],
)
@conversation
async def test_who_the_service_sees(
    kind: str, client: str | None, believed: bool, implementation: str, tmp_path: Path
) -> None:
    """Over a Unix socket, or from an address that the service does not trust, no claim is believed.

    Over loopback any is, which is what the exporter warns of.
    """
    upstream = UnixPath(str(tmp_path / "service")) if kind == "a Unix socket" else free_address()
    file = tmp_path / "exporter.yaml"
    sources = ", source_addresses: [127.0.0.2]" if kind == "an address of its own" else ""
    file.write_text(f'tap: [{{listen: "127.0.0.1:0", upstream: "{upstream}"{sources}}}]\n')
    async with uvicorn(upstream, implementation), exporter_process(tmp_path, f"--config.file={file}") as exporter:
        tap = await exporter.address("tap")
        assert await over_http(tap) == {"client": client, "scheme": "https" if believed else "http"}
        assert await over_websocket(tap) == {"client": client, "scheme": "wss" if believed else "ws"}
        warned = [line for line in exporter.lines if line["level"] == "warning"]
        assert len(warned) == (kind != "a Unix socket")
        page = await exporter.scrape()
        assert page.counted("websocket_closes_total", "code", "initiator") == {("1000", "server"): 1}
        assert CLAIMED not in page.text
