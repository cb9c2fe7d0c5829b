"""What counts towards the rate of reported events."""

import time
from typing import Final

import pytest
from starlette.types import Message, Scope

from exporter.closecodes import Vocabulary
from exporter.events import Event
from exporter.sources.webhook import MemoryBook, Rules, Webhook
from exporter.sources.webhook.batch import Batch
from exporter.storage import Committed, StorageError
from exporter.web.errors import ErrorAnswers
from exporter.web.webhook import RateLimit, Reception, build
from tests.reports.support import JSON, NDJSON
from tests.support.loops import conversation

EVENT: Final = b'{"code":1000}'
LINES: Final = (EVENT + b"\n") * 600


class Counted(RateLimit):
    """A limit that is never reached, and what was taken."""

    def __init__(self) -> None:
        super().__init__(0, time.monotonic)
        self.taken: list[int] = []

    def take(self, events: int) -> None:
        self.taken.append(events)


class Forgetful(MemoryBook):
    """Has forgotten ids by the time that a batch is entered, the first times; or cannot be written."""

    def __init__(self, times: int, broken: bool) -> None:
        super().__init__(3600.0, time.time)
        self.times = times
        self.broken = broken

    async def enter(self, batch: Batch) -> Committed | None:
        if self.broken:
            raise StorageError("no room")
        self.times -= 1
        return None if self.times >= 0 else await super().enter(batch)


class Nobody:
    def emit(self, event: Event) -> None:
        pass


async def post(body: bytes, content_type: str = NDJSON, times: int = 0, broken: bool = False) -> tuple[int, list[int]]:
    """The status of a request, and what it took of the rate."""
    webhook = Webhook(Rules({"chat": Vocabulary(frozenset(), frozenset())}, "chat"), Forgetful(times, broken), Nobody())
    rate = Counted()
    reception = Reception(
        take=webhook.take,
        take_at_once=webhook.take_at_once,
        durable=False,
        secrets=lambda: (),
        rate=rate,
        accepts=lambda: True,
        now=time.time,
    )
    app, _ = build(reception, ErrorAnswers(lambda _: None))
    scope: Scope = {
        "type": "http",
        "method": "POST",
        "path": "/api/v1/closes",
        "query_string": b"",
        "headers": [(b"content-type", content_type.encode())],
    }
    statuses: list[int] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Message) -> None:
        if "status" in message:
            statuses.append(message["status"])

    await app(scope, receive, send)
    (status,) = statuses
    return status, rate.taken


@pytest.mark.parametrize("times", [0, 1, 2])
@conversation
async def test_events_that_are_judged_again_came_once(times: int) -> None:
    """However often ids are forgotten meanwhile."""
    assert await post(LINES, times=times) == (202, [600])


@conversation
async def test_events_that_cannot_be_stored_came() -> None:
    """A sender that tries again and again is held back."""
    assert await post(LINES, broken=True) == (503, [600])


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        ((EVENT + b"\n") * 1001, NDJSON, 413),
        (b"[" + b",".join([EVENT] * 1001) + b"]", JSON, 413),
        (b"[" + b",".join([b'{"code":1000,"reason":"%b"}' % (b"x" * 500)] * 999) + b",x]", JSON, 400),
    ],
    ids=["lines", "array", "malformed"],
)
@conversation
async def test_what_is_refused_as_a_whole_takes_nothing(body: bytes, content_type: str, status: int) -> None:
    """Whatever came to light before its fault did."""
    assert await post(body, content_type) == (status, [])


@conversation
async def test_events_that_are_refused_count() -> None:
    """Bad ones, too."""
    assert await post(b'{"code":"x"}\n' * 5) == (422, [5])
