"""The pages of the webhook's listener: closes come in, answers go out. A plain ASGI callable, because it is hot."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final
from urllib.parse import parse_qs

import structlog
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from exporter import __version__
from exporter.events import REJECTIONS, Rejection
from exporter.reports import PLATFORMS, BodyFault, Events, SignatureFault, decode, is_readable, openapi, verify
from exporter.sources.webhook import LONG, Outcome
from exporter.storage import StorageError, StorageFull
from exporter.web.errors import ERRORS, ErrorAnswers, ErrorToken
from exporter.web.protocol import Fields, Limits, Prompt, Respond

CLOSES: Final = "/api/v1/closes"
OPENAPI: Final = "/api/v1/openapi.json"
HEALTHY: Final = "/-/healthy"

LIMITS: Final = Limits(body=1024 * 1024 + 64 * 1024)
"""Of the listener: a little more than MAX_BODY, so that the sizes of chunks fit in beside it."""

MAX_BODY: Final = 1024 * 1024
"""Bytes of a request's body, without the sizes of its chunks."""

MAX_HELD: Final = 32 * 1024 * 1024
"""Bytes of bodies held for all requests together; further ones are refused until there is room."""

UNSIGNED: Final = frozenset({"ce-id", "ce-source", "ce-specversion"})
"""Fields that would make an event another one, but are no part of what is signed (Standard Webhooks signs the body)."""

LARGE: Final = 64 * 1024
"""Bytes of a body from which on its signature takes a while: about 1 ms for each MiB and secret."""

METHODS: Final = "OPTIONS, POST"


_log = structlog.get_logger(__name__)


class RateLimit:
    """A token bucket for events. `rate` is per second, 0 for none; `clock` is monotonic, in seconds.

    A request may take more than there is: what it took too much, the next ones wait for.
    """

    def __init__(self, rate: int, clock: Callable[[], float]) -> None:
        self._rate = rate
        self._clock = clock
        self._left = float(rate)
        self._at = clock()

    def exhausted(self) -> bool:
        """Whether nothing may be taken now."""
        if not self._rate:
            return False
        now = self._clock()
        self._left = min(float(self._rate), self._left + (now - self._at) * self._rate)
        self._at = now
        return self._left <= 0

    def take(self, events: int) -> None:
        """Note that so many events came."""
        self._left -= events


@dataclass(frozen=True, slots=True)
class Reception:
    """What the webhook does with requests.

    `take` counts the events of one request, which its first argument begins to decode, more than once where they have
    to be judged again; those that name no target are of the second argument's. `take_at_once` does so without waiting,
    or not at all. `durable` is whether they are on disk then. A request must be signed with one of `secrets()`, if
    there are any; `now` is the wall clock that signatures are held against. `accepts` is false once the exporter ends.
    """

    take: Callable[[Callable[[], Events], str | None], Awaitable[Outcome]]
    take_at_once: Callable[[Events], Outcome | None]
    durable: bool
    secrets: Callable[[], Sequence[bytes]]
    rate: RateLimit
    accepts: Callable[[], bool]
    now: Callable[[], float]


class _Refused(Exception):
    """The request is answered with this error."""

    def __init__(self, token: ErrorToken) -> None:
        super().__init__(token)
        self.token: ErrorToken = token


class _ClientLeft(Exception):
    """Nobody is there to be answered."""


def build(reception: Reception, answers: ErrorAnswers) -> tuple[ASGIApp, Prompt]:
    """The application: reports by POST, their schema, and health; and what answers small reports without it."""
    errors = {token: (error.status, error.detail) for token, error in ERRORS.items()}
    plain = {"x-content-type-options": "nosniff"}
    pages = {
        OPENAPI: Response(
            json.dumps(openapi(__version__, errors)).encode(), media_type="application/json", headers=plain
        ),
        HEALTHY: PlainTextResponse("OK", headers=plain),
    }
    room = _Room()
    closes = {CLOSES: _Closes(reception, answers, room, decode)}
    for name, platform in PLATFORMS.items():
        closes[f"{CLOSES}/{name}"] = _Closes(reception, answers, room, platform.decode)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await answered(scope, receive, send)
        except Exception as fault:
            _log.error("a request to the webhook was not answered", exc_info=fault)
            await answers.response("internal_error", last=True)(scope, receive, send)

    async def answered(scope: Scope, receive: Receive, send: Send) -> None:
        path: str = scope["path"]
        if path in closes:
            await closes[path](scope, receive, send)
            return
        page = pages.get(path)
        waits = any(name == b"expect" for name, _ in scope["headers"])
        answer: ASGIApp
        if page is None:
            answer = answers.response("not_found", last=waits)
        elif scope["method"] not in ("GET", "HEAD"):
            answer = answers.response("method_not_allowed", allow="GET, HEAD", last=waits)
        else:
            answer = page
        if not waits:
            await _drain(receive)
        await answer(scope, receive, send)

    def judge(path: bytes, fields: Fields) -> Respond | None:
        return closes[path.decode()].at_once(_mapping(fields))

    return app, Prompt(frozenset(path.encode() for path in closes), judge)


class _Room:
    """How many bytes of bodies are held for all requests together."""

    held = 0


class _Closes:
    """One path to which events are posted, and how their bodies are read."""

    def __init__(
        self,
        reception: Reception,
        answers: ErrorAnswers,
        room: _Room,
        read: Callable[[bytes, str, Mapping[str, str]], Events],
    ) -> None:
        self._reception = reception
        self._answers = answers
        self._room = room
        self._read = read

    def at_once(self, headers: Mapping[str, str]) -> Respond | None:
        """What answers small reports behind a head with these fields; None where it is refused."""
        try:
            self._judge("POST", headers)
        except _Refused:
            return None
        return partial(self._answer_at_once, headers)

    def _answer_at_once(self, headers: Mapping[str, str], body: bytes) -> tuple[int, bytes] | None:
        """The answer to a request that needs no waiting and has no fault as a whole, from its own fields on."""
        try:
            self._admit("POST")
            outcome = self._reception.take_at_once(self._events(headers, body, self._verified(headers, body)))
            if outcome is None:
                return None
            self._reception.rate.take(outcome.events)
            status, answer = self._answer(outcome)
            return status, b"".join((_FIELDS, b"content-length: %d\r\n\r\n" % len(answer), answer))
        except (_Refused, BodyFault):
            return None
        except Exception as fault:
            _log.error("a report was not answered at once", exc_info=fault)
            return None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        headers = _mapping(scope["headers"])
        waits = "expect" in headers  # for 100 Continue: a body that is not wanted may never come
        try:
            try:
                self._judge(scope["method"], headers)
                self._admit(scope["method"])
            except _Refused:
                if not waits:
                    await _drain(receive)
                raise
            if scope["method"] == "OPTIONS":
                await _drain(receive)
                await Response(status_code=204, headers={"allow": METHODS})(scope, receive, send)
                return
            status, body = await self._count(_target(scope), headers, receive)
        except _Refused as refused:
            allow = METHODS if refused.token == "method_not_allowed" else None
            last = waits or refused.token == "body_too_large"
            await self._answers.response(refused.token, allow=allow, last=last)(scope, receive, send)
        except _ClientLeft:
            return
        else:
            await send({"type": "http.response.start", "status": status, "headers": _fields(body)})
            await send({"type": "http.response.body", "body": body})

    def _judge(self, method: str, headers: Mapping[str, str]) -> None:
        """Refuse by the head alone, before the body is read and so before 100 Continue (RFC 9110 section 10.1.1)."""
        if method not in ("POST", "OPTIONS"):
            raise _Refused("method_not_allowed")
        if headers.get("expect", "100-continue").lower() != "100-continue":
            raise _Refused("expectation_failed")
        if headers.get("content-encoding", "identity").lower() not in ("identity", ""):
            raise _Refused("unsupported_encoding")
        if "expect" in headers and not is_readable(headers.get("content-type", "")):
            raise _Refused("unsupported_media_type")
        if "expect" in headers and self._reception.secrets() and "webhook-signature" not in headers:
            raise _Refused("signature_required")
        if int(headers.get("content-length", "0")) > MAX_BODY:
            raise _Refused("body_too_large")

    def _admit(self, method: str) -> None:
        """Refuse what comes at the wrong time."""
        if not self._reception.accepts():
            raise _Refused("shutting_down")
        if method == "POST" and self._reception.rate.exhausted():
            raise _Refused("rate_limited")

    async def _count(self, target: str | None, headers: Mapping[str, str], receive: Receive) -> tuple[int, bytes]:
        """The status and body of the answer to an admitted request. Raises _Refused."""
        body = await self._body(receive)
        fault: SignatureFault | None = None
        rated = False

        def decode_rated() -> Events:
            nonlocal rated
            events = 0
            for items in self._events(headers, body, fault):
                events += len(items)
                yield items
            if not rated:  # events that have to be judged again are decoded again, but came once
                rated = True
                self._reception.rate.take(events)

        self._room.held += len(body)
        try:
            # From some size on, signatures are worked out beside the loop: OpenSSL lets it run meanwhile.
            large = len(body) > LARGE and self._reception.secrets()
            fault = await asyncio.to_thread(self._verified, headers, body) if large else self._verified(headers, body)
            outcome = await self._reception.take(decode_rated, target)
            if outcome.events > LONG:
                await asyncio.sleep(0)
            return self._answer(outcome)
        except BodyFault as body_fault:
            raise _Refused(body_fault.token) from None
        except StorageFull:
            raise _Refused("storage_full") from None
        except StorageError:
            raise _Refused("storage_unavailable") from None
        finally:
            self._room.held -= len(body)

    def _verified(self, headers: Mapping[str, str], body: bytes) -> SignatureFault | None:
        """Why a body does not come from whom it should."""
        secrets = self._reception.secrets()
        return verify(secrets, headers, body, self._reception.now()) if secrets else None

    def _events(self, headers: Mapping[str, str], body: bytes, fault: SignatureFault | None) -> Events:
        """The events of a body, unless it has this `fault`. Raises _Refused."""
        if fault is not None:
            raise _Refused(fault)
        if self._reception.secrets() and not headers.keys().isdisjoint(UNSIGNED):
            raise _Refused("unsupported_media_type")
        return self._read(body, headers.get("content-type", ""), headers)

    async def _body(self, receive: Receive) -> bytes:
        message = await receive()
        if message["type"] == "http.request" and not message["more_body"]:
            body: bytes = message["body"]
        else:
            body = await self._long_body(message, receive)
        if len(body) > MAX_BODY:
            raise _Refused("body_too_large")
        return body

    async def _long_body(self, message: Message, receive: Receive) -> bytes:
        body = bytearray()  # a list of thousands of tiny chunks would take many times their size
        try:
            while message["type"] == "http.request":
                body += message["body"]
                self._room.held += len(message["body"])
                if self._room.held > MAX_HELD:
                    if message["more_body"]:
                        await _drain(receive)
                    raise _Refused("overloaded")
                if not message["more_body"]:
                    return bytes(body)
                message = await receive()
            raise _ClientLeft
        finally:
            self._room.held -= len(body)

    def _answer(self, outcome: Outcome) -> tuple[int, bytes]:
        status = 200 if self._reception.durable else 202
        if not outcome.items:
            return status, b'{"accepted":%d,"duplicate":0,"rejected":0,"items":[]}' % outcome.accepted
        error = b""
        if outcome.rejected == len(outcome.items) and not outcome.accepted:
            first = next(reason for _, reason in outcome.items if reason)
            self._answers.count(first)
            status, error = 422, b'"error":"%b","detail":"%b",' % (first.encode(), ERRORS[first].detail.encode())
        counts = b'"accepted":%d,"duplicate":%d,"rejected":%d' % (outcome.accepted, outcome.duplicate, outcome.rejected)
        items = b",".join([_ITEMS[reason] % index for index, reason in outcome.items])
        return status, b'{%b%b,"items":[%b]}' % (error, counts, items)


_ITEMS: Final[Mapping[Rejection | None, bytes]] = {
    None: b'{"index":%d,"result":"duplicate"}',
    **{reason: b'{"index":%%d,"result":"rejected","error":"%b"}' % reason.encode() for reason in REJECTIONS},
}
"""What became of an event that was not accepted, by the reason."""


def _mapping(fields: Fields) -> dict[str, str]:
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in fields}


def _target(scope: Scope) -> str | None:
    """The target that the query names for events that name none."""
    query: bytes = scope["query_string"]
    return parse_qs(query.decode("latin-1")).get("target", [None])[0] if query else None


_FIELDS: Final = b"content-type: application/json\r\nx-content-type-options: nosniff\r\n"


def _fields(body: bytes) -> list[tuple[bytes, bytes]]:
    return [
        (b"content-type", b"application/json"),
        (b"x-content-type-options", b"nosniff"),
        (b"content-length", b"%d" % len(body)),
    ]


async def _drain(receive: Receive) -> None:
    """Take the rest of the body and drop it, so that a fault in it can still be answered as one."""
    more = True
    while more:
        message = await receive()
        more = message["type"] == "http.request" and message["more_body"]
