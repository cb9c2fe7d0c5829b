"""The guard before a listener's pages: the web configuration's rate limit, and HTTP's basic authentication (RFC 7617).

As in exporter-toolkit no path is open, health included.
"""

import base64
import binascii
import math
import time
from collections.abc import Callable, Mapping
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from exporter.config.web_file import RateLimit
from exporter.web.errors import ErrorAnswers
from exporter.web.gate import Gate
from exporter.web.passwords import Bucket, Refusal

_SCHEME: Final = b"basic "


def guard(app: ASGIApp, gate: Gate, answers: ErrorAnswers, clock: Callable[[], float] = time.monotonic) -> ASGIApp:
    """`app` for those whom `gate` lets in. Others are answered before their body is read, and before 100 Continue.

    The headers that the web configuration sets are the listener's to add; those of `app` with the same name give way.
    `clock` is monotonic, in seconds.
    """
    limiter = _Limiter(clock)

    async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
        config = await gate.look()
        refusal = limiter.refusal(config.rate_limit)
        if refusal is None and config.users:
            refusal = await _refusal(gate, config.users, scope)
        if config.headers:
            send = _without(config.headers, send)
        if refusal is None:
            await app(scope, receive, send)
            return
        # Whether a client that waits for 100 Continue still sends its body cannot be known (RFC 9110 section 10.1.1).
        last = any(name == b"expect" for name, _ in scope["headers"])
        await answers.response(refusal.token, retry_after=refusal.retry_after, last=last)(scope, receive, send)

    return guarded


def credentials(scope: Scope) -> tuple[str, bytes] | None:
    """User name and password of a request; None where there are none, or none that can be read."""
    fields = [value for name, value in scope["headers"] if name == b"authorization"]
    if len(fields) != 1 or fields[0][: len(_SCHEME)].lower() != _SCHEME:
        return None
    try:
        user, colon, password = base64.b64decode(fields[0][len(_SCHEME) :].strip(), validate=True).partition(b":")
        return (user.decode(), password) if colon else None
    except (binascii.Error, UnicodeDecodeError):
        return None


async def _refusal(gate: Gate, users: Mapping[str, bytes], scope: Scope) -> Refusal | None:
    given = credentials(scope)
    if given is None:
        return Refusal("unauthorized")
    client = scope["client"][0].removeprefix("::ffff:") if scope["client"] else ""
    return await gate.passwords.refusal(users, *given, client)


class _Limiter:
    """The web configuration's rate_limit, which counts every request."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._limit: RateLimit | None = None
        self._bucket: Bucket | None = None

    def refusal(self, limit: RateLimit | None) -> Refusal | None:
        """Why the next request is not let in, under the limit that is in force now."""
        if limit != self._limit:
            self._limit = limit
            self._bucket = Bucket(limit.burst, 1 / limit.interval, self._clock) if limit else None
        if self._bucket is None:
            return None
        wait = self._bucket.wait()
        if wait > 0:
            return Refusal("rate_limited", math.ceil(wait))
        self._bucket.take()
        return None


def _without(headers: Mapping[str, str], send: Send) -> Send:
    """`send`, without the fields that the listener sets by itself."""
    names = {name.lower().encode() for name in headers}

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            fields = [field for field in message.get("headers", ()) if field[0].lower() not in names]
            message = {**message, "headers": fields}
        await send(message)

    return sending
