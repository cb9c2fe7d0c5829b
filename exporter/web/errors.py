"""The one shape of every error that the exporter's own listeners answer, and the count of each.

`{"error": "<token>", "detail": "<fixed sentence>"}`: tokens are bounded, and no input is echoed.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final, Literal, get_args

from starlette.responses import Response

from exporter.events import Rejection

ListenerToken = Literal[
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
    "expectation_failed",
    "unauthorized",
    "rate_limited",
]
WebhookToken = Literal[
    "unsupported_media_type",
    "unsupported_encoding",
    "too_many_events",
    "signature_required",
    "signature_mismatch",
    "timestamp_out_of_range",
    "storage_full",
    "storage_unavailable",
    "shutting_down",
    Rejection,
]
ErrorToken = Literal[ListenerToken, WebhookToken]

Headers = Iterable[tuple[bytes, bytes]]

ERROR_TOKENS: Final[tuple[ErrorToken, ...]] = get_args(ErrorToken)
"""Every value of `error`, in the answers and in the label of the metric that counts them."""

LISTENER_TOKENS: Final[tuple[ListenerToken, ...]] = get_args(ListenerToken)
"""Those that any listener may answer; the others are the webhook's alone."""


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
    "body_too_large": HttpError(413, "The request body, or an event in it, is larger than this listener takes."),
    "uri_too_long": HttpError(414, "The request target is longer than 8 KiB."),
    "head_too_large": HttpError(431, "The request head is larger than 16 KiB or has more than 100 fields."),
    "internal_error": HttpError(500, "The exporter failed to answer; its log says why."),
    "reload_failed": HttpError(500, "The configuration is faulty and the old one stays in force; the log says why."),
    "not_ready": HttpError(503, "The exporter is starting or shutting down.", retry_after=5),
    "overloaded": HttpError(503, "Too much is under way at once.", retry_after=1),
    "expectation_failed": HttpError(417, "Of Expect only 100-continue is understood."),
    "unsupported_media_type": HttpError(
        415, "The Content-Type is neither application/json, application/x-ndjson nor one of CloudEvents, in UTF-8."
    ),
    "unsupported_encoding": HttpError(415, "Request bodies are taken only without Content-Encoding."),
    "too_many_events": HttpError(413, "A request may hold at most 1,000 events."),
    "unauthorized": HttpError(401, "A valid user name and password are required."),
    "signature_required": HttpError(401, "webhook-id, webhook-timestamp and webhook-signature are required."),
    "signature_mismatch": HttpError(401, "No signature matches the request and a known secret."),
    "timestamp_out_of_range": HttpError(401, "webhook-timestamp is not a time within 5 minutes of the server's."),
    "rate_limited": HttpError(429, "This comes too often; Retry-After says when to try again.", retry_after=1),
    "storage_full": HttpError(507, "The storage is full; nothing of this request was counted.", retry_after=30),
    "storage_unavailable": HttpError(
        503, "The storage cannot be written; nothing of this request was counted.", retry_after=5
    ),
    "shutting_down": HttpError(503, "The exporter is shutting down; nothing of this request was counted.", 5),
    "invalid_json": HttpError(400, "This is not valid JSON in UTF-8."),
    "invalid_event": HttpError(422, "An event is a JSON object whose fields are as the schema says."),
    "unknown_field": HttpError(422, "The event has a field that the schema does not know."),
    "missing_code": HttpError(422, "A close needs its code."),
    "invalid_code": HttpError(422, "code is not an integer from 0 to 4999."),
    "invalid_string": HttpError(422, "A string holds a lone surrogate, which is no text."),
    "invalid_initiator": HttpError(422, "initiator is none of client, server and unknown."),
    "unknown_target": HttpError(422, "target is none of the configured targets."),
    "missing_id": HttpError(422, "Events need an id here."),
    "invalid_id": HttpError(422, "id is not 1 to 256 printable ASCII characters."),
    "invalid_time": HttpError(422, "time is neither RFC 3339 with an offset nor milliseconds since 1970."),
    "too_old": HttpError(422, "The event is older than ids are remembered: whether it was counted cannot be known."),
    "invalid_duration": HttpError(422, "duration is not a number of seconds from 0 to 1,000,000,000."),
    "invalid_size": HttpError(422, "A size is not a whole number of bytes, or message_size came without direction."),
    "invalid_cloudevent": HttpError(422, "This is not a CloudEvent of version 1.0 with an event as its JSON data."),
    "line_too_long": HttpError(422, "A line of NDJSON may hold at most 64 KiB."),
}


class ErrorAnswers:
    """Makes the answers, and calls `count` with the token of each."""

    def __init__(self, count: Callable[[ErrorToken], None]) -> None:
        self.count: Final = count

    def response(
        self, token: ErrorToken, *, allow: str | None = None, last: bool = False, retry_after: int | None = None
    ) -> Response:
        """The answer to a request that was understood. `allow` lists the methods that would be, for a 405.

        The connection ends after it if it is the `last`. `retry_after` is in seconds, where the token's own is not.
        """
        self.count(token)
        headers = _headers(token) | ({"allow": allow} if allow else {}) | ({"connection": "close"} if last else {})
        if retry_after is not None:
            headers["retry-after"] = str(retry_after)
        return Response(_body(token), ERRORS[token].status, headers)

    def raw(self, token: ErrorToken, headers: Headers) -> bytes:
        """The whole answer to what never became a request, `headers` before its own; the connection ends with it."""
        self.count(token)
        status, body = HTTPStatus(ERRORS[token].status), _body(token)
        own = _headers(token) | {"content-length": str(len(body)), "connection": "close"}
        fields = {name.lower(): value for name, value in headers}
        fields |= {name.encode(): value.encode() for name, value in own.items()}
        lines = [b"HTTP/1.1 %d %s" % (status, status.phrase.encode())]
        lines += [b"%s: %s" % field for field in fields.items()]
        return b"\r\n".join([*lines, b"", body])


def _body(token: ErrorToken) -> bytes:
    return json.dumps({"error": token, "detail": ERRORS[token].detail}, separators=(",", ":")).encode()


def _headers(token: ErrorToken) -> dict[str, str]:
    headers = {"content-type": "application/json", "x-content-type-options": "nosniff"}
    if token == "unauthorized":
        headers["www-authenticate"] = 'Basic realm="websocket-exporter"'  # RFC 9110 section 11.6.1
    retry_after = ERRORS[token].retry_after
    return headers if retry_after is None else headers | {"retry-after": str(retry_after)}
