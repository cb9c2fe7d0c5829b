"""Services that report their closes: HTTP as a sender writes it, to the webhook of a running exporter."""

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from exporter.config import Address
from tests.support.processes import Exporter, exporter_process
from tests.support.scraping import Page, scrape
from tests.web.support import Answer, connected

REPORTS: Final = "/api/v1/closes"
AWS: Final = f"{REPORTS}/aws-apigateway"
OPENAPI: Final = "/api/v1/openapi.json"

JSON: Final = "application/json"
NDJSON: Final = "application/x-ndjson"
CLOUDEVENT: Final = "application/cloudevents+json"
CLOUDEVENTS: Final = "application/cloudevents-batch+json"

CLOSES: Final = "websocket_closes_total"
ACTIVE: Final = "websocket_connections_active"
HANDSHAKES: Final = "websocket_handshakes_total"
DURATION: Final = "websocket_connection_duration_seconds"
RECONNECTS: Final = "websocket_reconnects_total"
BUILD_RECONNECTS: Final = "websocket_client_build_reconnects_total"
REFUSED_SIZE: Final = "websocket_oversize_message_size_bytes"
CREATED: Final = "websocket_target_created_timestamp_seconds"
EVENTS: Final = "websocket_exporter_webhook_events_total"
ERRORS: Final = "websocket_exporter_http_errors_total"
STORAGE_ERRORS: Final = "websocket_exporter_storage_errors_total"

WEBHOOK: Final = "--webhook.listen-address=127.0.0.1:0"
BATCH: Final = 1000
"""The most events that one request may have."""

MIB: Final = 1 << 20
PAGE_SIZE: Final = os.sysconf("SC_PAGE_SIZE")

Event = dict[str, Any]
Growth = dict[tuple[str, ...], float]


def closing(code: int = 1006, **fields: object) -> Event:
    """A close, as a service reports it."""
    return {"code": code, **fields}


def batch(number: int) -> list[Event]:
    """As many events as a request may have, those of this number."""
    return [closing(1001, id=f"{number}-{index}") for index in range(BATCH)]


def ndjson(events: Iterable[object]) -> bytes:
    """An event a line."""
    return b"".join(json.dumps(event).encode() + b"\n" for event in events)


def post(
    body: object = b"",
    *fields: str,
    path: str = REPORTS,
    kind: str | None = JSON,
    method: str = "POST",
    length: int | None = None,
) -> bytes:
    """A request; `body` is JSON unless it is bytes, `kind` its Content-Type, `length` what it says of its size."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"{method} {path} HTTP/1.1", "Host: exporter.test", *fields]
    if kind is not None:
        lines.append(f"Content-Type: {kind}")
    lines.append(f"Content-Length: {len(data) if length is None else length}")
    return "\r\n".join([*lines, "", ""]).encode() + data


def chunked(body: bytes, size: int, *fields: str, kind: str = JSON) -> bytes:
    """A request whose body comes in chunks of `size` bytes."""
    head = "\r\n".join(
        [
            f"POST {REPORTS} HTTP/1.1",
            "Host: exporter.test",
            f"Content-Type: {kind}",
            "Transfer-Encoding: chunked",
            *fields,
            "",
            "",
        ]
    )
    pieces = (body[start : start + size] for start in range(0, len(body), size))
    return head.encode() + b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


def outcome(answer: Answer) -> tuple[int, int, int]:
    """How many events were accepted, known already, and rejected."""
    body = json.loads(answer.body)
    return body["accepted"], body["duplicate"], body["rejected"]


def growth(before: Page, after: Page, name: str, *by: str) -> Growth:
    """By how much the series of `name` have grown from one scrape to a later one, where they have."""
    old, new = before.counted(name, *by), after.counted(name, *by)
    return {labels: value - old.get(labels, 0) for labels, value in new.items() if value != old.get(labels, 0)}


def counts(page: Page) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """All that is counted of WebSockets, by series, and what stays as long as the counts.

    Not what the exporter says of itself, nor the evidence for a limit, which is of this process alone.
    """
    return {
        (sample.name, tuple(sample.labels.items())): sample.value
        for samples in page.samples.values()
        for sample in samples
        if sample.name.startswith("websocket_") and not sample.name.startswith("websocket_exporter_")
        if sample.labels.get("origin") not in ("accepted", "rejected")
    }


@dataclass(frozen=True)
class Desk:
    """A running exporter to which closes are reported: at `address`; `web` is where its metrics are."""

    exporter: Exporter
    address: Address
    web: Address

    async def ask(self, *parts: bytes) -> Answer:
        """The answer to one request, on a connection of its own."""
        async with connected(self.address) as client:
            await client.send(*parts)
            return await client.answer()

    async def report(
        self, events: object, *fields: str, target: str | None = None, kind: str = JSON, path: str = REPORTS
    ) -> Answer:
        """The answer to events, which are JSON unless they are bytes."""
        query = "" if target is None else f"?target={target}"
        return await self.ask(post(events, *fields, path=path + query, kind=kind))

    async def scrape(self) -> Page:
        return await scrape(self.web)

    def resident(self) -> int:
        """Bytes of the process in memory."""
        return int(Path(f"/proc/{self.exporter.process.pid}/statm").read_text().split()[1]) * PAGE_SIZE


@contextlib.asynccontextmanager
async def reporting(folder: Path, *flags: str) -> AsyncIterator[Desk]:
    """Start an exporter with a webhook, and end it at once at the end."""
    async with exporter_process(folder, WEBHOOK, *flags) as exporter:
        address = await exporter.address("webhook")
        yield Desk(exporter, address, await exporter.address("metrics"))


@contextlib.contextmanager
def standing(folder: Path, *flags: str) -> Iterator[Desk]:
    """As `reporting`, for many tests: the exporter outlives their event loops."""
    with asyncio.Runner() as runner:
        stack = contextlib.AsyncExitStack()
        desk = runner.run(stack.enter_async_context(reporting(folder, *flags)))
        try:
            yield desk
        finally:
            runner.run(stack.aclose())


def said(folder: Path) -> str:
    """All that the exporter of this folder has said."""
    return (folder / "exporter.log").read_text()


def written(path: Path, text: str) -> Path:
    """A file that only its owner reads."""
    path.write_text(text)
    path.chmod(0o600)
    return path


def configured(folder: Path, targets: Mapping[str, object]) -> str:
    """The flag for a configuration file with these targets."""
    return f"--config.file={written(folder / 'exporter.yaml', json.dumps({'targets': targets}))}"
