"""While a large request is worked off, the event loop has its turns."""

import asyncio
import json
import threading
import time
from collections.abc import Sequence
from typing import Any, Final

import pytest
from starlette.types import Message, Scope

from benchmarks.posting import TARGET
from benchmarks.stalls import SLOW, Slow
from exporter.closecodes import Vocabulary
from exporter.events import Event
from exporter.reports.bodies import STEP
from exporter.sources.webhook import MemoryBook, Rules, Webhook
from exporter.web.errors import ErrorAnswers
from exporter.web.webhook import LARGE, RateLimit, Reception, build
from tests.support.loops import conversation

KEY: Final = b"k" * 32


class Asked:
    """One request, handed over whole: nothing is waited for but what the webhook itself yields for."""

    def __init__(self, slow: Slow, secrets: Sequence[bytes] = ()) -> None:
        self.slow = slow
        self.secrets = secrets
        self.threads: set[int] = set()
        self.turns = 0
        self.status = 0
        self.body = b""

    async def run(self) -> None:
        webhook = Webhook(
            Rules({TARGET: Vocabulary(frozenset(), frozenset())}, TARGET), MemoryBook(3600.0, time.time), self
        )
        reception = Reception(
            take=webhook.take,
            take_at_once=webhook.take_at_once,
            durable=False,
            secrets=self._keys,
            rate=RateLimit(0, time.monotonic),
            accepts=lambda: True,
            now=time.time,
        )
        app, _ = build(reception, ErrorAnswers(lambda _: None))
        headers = {"content-type": self.slow.content_type, **self.slow.headers}
        scope: Scope = {
            "type": "http",
            "method": "POST",
            "path": "/api/v1/closes",
            "query_string": b"",
            "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        }
        async with asyncio.TaskGroup() as tasks:
            answered = tasks.create_task(self._answered(app(scope, self._receive, self._send)))
            while not answered.done():
                self.turns += 1
                await asyncio.sleep(0)

    async def _answered(self, answer: Any) -> None:
        await answer

    def emit(self, event: Event) -> None:
        """Nobody wants to know."""

    def _keys(self) -> Sequence[bytes]:
        self.threads.add(threading.get_ident())
        return self.secrets

    async def _receive(self) -> Message:
        return {"type": "http.request", "body": self.slow.body, "more_body": False}

    async def _send(self, message: Message) -> None:
        self.status = message.get("status", self.status)
        self.body += message.get("body", b"")


@pytest.mark.parametrize(
    ("name", "status", "least"),
    [
        ("1,000 events", 202, 7),
        ("1,000 events with long ids", 202, 10),
        ("1,000 events of 1 KiB", 202, 20),
        ("1,000 events of 1 KiB, NDJSON", 202, 20),
        ("1,000 bad events", 422, 16),
        ("events of nested arrays", 422, 7),
        ("CloudEvents with extensions", 202, 7),
        ("blanks", 400, 10),
        ("blank lines", 202, 10),
        ("empty events", 413, 6),
    ],
)
@conversation
async def test_turns(name: str, status: int, least: int) -> None:
    """One for every other 64 KiB, or for some hundred events, and for counting and answering."""
    asked = Asked(SLOW[name])
    await asked.run()
    assert asked.status == status
    assert asked.turns >= least


@conversation
async def test_what_cannot_be_read_is_not_read_on() -> None:
    """An event that is too large costs nothing, however large it is."""
    for name in ("an event of nested arrays", "a CloudEvent with extensions", "commas"):
        asked = Asked(SLOW[name])
        await asked.run()
        assert asked.status in (400, 413)
        assert asked.turns < len(SLOW[name].body) // STEP


@pytest.mark.parametrize("size", [LARGE, LARGE + 1])
@conversation
async def test_signatures_of_large_bodies(size: int) -> None:
    """They are worked out in another thread, and refused as always."""
    body = json.dumps({"code": 1000}).encode()
    asked = Asked(Slow(body + b" " * (size - len(body)), signed=True), [KEY, KEY])
    await asked.run()
    assert asked.status == 401
    assert json.loads(asked.body)["error"] == "signature_mismatch"
    assert (asked.threads != {threading.get_ident()}) == (size > LARGE)
