"""The one shape of every error that the exporter's own listeners answer, and the count of each.

`{"error": "<token>", "detail": "<fixed sentence>"}`: tokens are bounded, and no input is echoed.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final, Literal, get_args

from starlette.responses import Response

ErrorToken = Literal[
    "bad_request",
    "lifecycle_disabled",
    "not_found",
    "method_not_allowed",
    "request_timeout",
    "body_too_large",
    "uri_too_long",
    "head_too_large",
    "internal_error",
    "reload_failed",
    "not_ready",
    "overloaded",
]

Headers = Iterable[tuple[bytes, bytes]]

ERROR_TOKENS: Final[tuple[ErrorToken, ...]] = get_args(ErrorToken)
"""Every value of `error`, in the answers and in the label of the metric that counts them."""


@dataclass(frozen=True, slots=True)
class HttpError:
    """How one error is answered. `retry_after` is in seconds."""

    status: int
    detail: str
    retry_after: int | None = None


ERRORS: Final[Mapping[ErrorToken, HttpError]] = {
    "bad_request": HttpError(400, "This is not a valid HTTP/1.1 request."),
    "lifecycle_disabled": HttpError(403, "Reloading over HTTP is off; --web.enable-lifecycle turns it on."),
    "not_found": HttpError(404, "Nothing is served at this path."),
    "method_not_allowed": HttpError(405, "This path does not answer this method; Allow names those it does."),
    "request_timeout": HttpError(408, "The request did not arrive in time."),
    "body_too_large": HttpError(413, "The request body is larger than this listener takes."),
    "uri_too_long": HttpError(414, "The request target is longer than 8 KiB."),
    "head_too_large": HttpError(431, "The request head is larger than 16 KiB or has more than 100 fields."),
    "internal_error": HttpError(500, "The exporter failed to answer; its log says why."),
    "reload_failed": HttpError(500, "The configuration is faulty and the old one stays in force; the log says why."),
    "not_ready": HttpError(503, "The exporter is starting or shutting down.", retry_after=5),
    "overloaded": HttpError(503, "Too many connections are open.", retry_after=1),
}


class ErrorAnswers:
    """Makes the answers, and calls `count` with the token of each."""

    def __init__(self, count: Callable[[ErrorToken], None]) -> None:
        self._count = count

    def response(self, token: ErrorToken, *, allow: str | None = None) -> Response:
        """The answer to a request that was understood. `allow` lists the methods that would be, for a 405."""
        self._count(token)
        headers = _headers(token) | ({"allow": allow} if allow else {})
        return Response(_body(token), ERRORS[token].status, headers)

    def raw(self, token: ErrorToken, headers: Headers) -> bytes:
        """The whole answer to what never became a request, `headers` before its own; the connection ends with it."""
        self._count(token)
        status, body = HTTPStatus(ERRORS[token].status), _body(token)
        own = _headers(token) | {"content-length": str(len(body)), "connection": "close"}
        lines = [b"HTTP/1.1 %d %s" % (status, status.phrase.encode())]
        lines += [b"%s: %s" % field for field in headers]
        lines += [f"{name}: {value}".encode() for name, value in own.items()]
        return b"\r\n".join([*lines, b"", body])


def _body(token: ErrorToken) -> bytes:
    return json.dumps({"error": token, "detail": ERRORS[token].detail}).encode()


def _headers(token: ErrorToken) -> dict[str, str]:
    headers = {"content-type": "application/json", "x-content-type-options": "nosniff"}
    retry_after = ERRORS[token].retry_after
    return headers if retry_after is None else headers | {"retry-after": str(retry_after)}
