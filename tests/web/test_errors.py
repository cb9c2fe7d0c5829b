"""The one shape of every error."""

import json
from collections import Counter

import pytest

from exporter.web.errors import ERROR_TOKENS, ERRORS, ErrorAnswers, ErrorToken

EXPECTED: dict[ErrorToken, tuple[int, str]] = {
    "bad_request": (400, "This is not a valid HTTP/1.1 request."),
    "lifecycle_disabled": (403, "Reloading over HTTP is off; --web.enable-lifecycle turns it on."),
    "not_found": (404, "Nothing is served at this path."),
    "method_not_allowed": (405, "This path does not answer this method; Allow names those it does."),
    "request_timeout": (408, "The request did not arrive in time."),
    "body_too_large": (413, "The request body, or an event in it, is larger than this listener takes."),
    "uri_too_long": (414, "The request target is longer than 8 KiB."),
    "head_too_large": (431, "The request head is larger than 16 KiB or has more than 100 fields."),
    "internal_error": (500, "The exporter failed to answer; its log says why."),
    "reload_failed": (500, "The configuration is faulty and the old one stays in force; the log says why."),
    "not_ready": (503, "The exporter is starting or shutting down."),
    "overloaded": (503, "Too much is under way at once."),
    "expectation_failed": (417, "Of Expect only 100-continue is understood."),
    "unsupported_media_type": (
        415,
        "The Content-Type is neither application/json, application/x-ndjson nor one of CloudEvents, in UTF-8.",
    ),
    "unsupported_encoding": (415, "Request bodies are taken only without Content-Encoding."),
    "too_many_events": (413, "A request may hold at most 1,000 events."),
    "unauthorized": (401, "A valid user name and password are required."),
    "signature_required": (401, "webhook-id, webhook-timestamp and webhook-signature are required."),
    "signature_mismatch": (401, "No signature matches the request and a known secret."),
    "timestamp_out_of_range": (401, "webhook-timestamp is not a time within 5 minutes of the server's."),
    "rate_limited": (429, "This comes too often; Retry-After says when to try again."),
    "storage_full": (507, "The storage is full; nothing of this request was counted."),
    "storage_unavailable": (503, "The storage cannot be written; nothing of this request was counted."),
    "shutting_down": (503, "The exporter is shutting down; nothing of this request was counted."),
    "invalid_json": (400, "This is not valid JSON in UTF-8."),
    "invalid_event": (422, "An event is a JSON object whose fields are as the schema says."),
    "unknown_field": (422, "The event has a field that the schema does not know."),
    "missing_code": (422, "A close needs its code."),
    "invalid_code": (422, "code is not an integer from 0 to 4999."),
    "invalid_string": (422, "A string holds a lone surrogate, which is no text."),
    "invalid_initiator": (422, "initiator is none of client, server and unknown."),
    "unknown_target": (422, "target is none of the configured targets."),
    "missing_id": (422, "Events need an id here."),
    "invalid_id": (422, "id is not 1 to 256 printable ASCII characters."),
    "invalid_time": (422, "time is neither RFC 3339 with an offset nor milliseconds since 1970."),
    "too_old": (422, "The event is older than ids are remembered: whether it was counted cannot be known."),
    "invalid_duration": (422, "duration is not a number of seconds from 0 to 1,000,000,000."),
    "invalid_size": (422, "A size is not a whole number of bytes, or message_size came without direction."),
    "invalid_cloudevent": (422, "This is not a CloudEvent of version 1.0 with an event as its JSON data."),
    "line_too_long": (422, "A line of NDJSON may hold at most 64 KiB."),
}


def test_the_tokens_are_those_and_no_others() -> None:
    """Tokens are label values and part of the contract: each has its status and its sentence."""
    assert {token: (error.status, error.detail) for token, error in ERRORS.items()} == EXPECTED
    assert set(ERROR_TOKENS) == set(EXPECTED)


@pytest.mark.parametrize("token", EXPECTED)
def test_a_response_has_the_one_shape_and_is_counted(token: ErrorToken) -> None:
    """A response carries token and sentence as JSON that no browser sniffs; making it counts it once."""
    counted: Counter[str] = Counter()
    response = ErrorAnswers(lambda each: counted.update([each])).response(token)
    status, detail = EXPECTED[token]
    assert response.status_code == status
    assert json.loads(bytes(response.body)) == {"error": token, "detail": detail}
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-content-type-options"] == "nosniff"
    assert ("retry-after" in response.headers) == (status in (429, 503, 507))
    assert counted == {token: 1}


def test_a_405_names_what_is_allowed() -> None:
    """Allow goes with the answer it belongs to."""
    response = ErrorAnswers(lambda _: None).response("method_not_allowed", allow="GET, HEAD")
    assert response.headers["allow"] == "GET, HEAD"


def test_a_raw_answer_is_a_whole_response_that_ends_the_connection() -> None:
    """Below HTTP the same shape goes out as bytes, behind the listener's own fields."""
    counted: Counter[str] = Counter()
    raw = ErrorAnswers(lambda each: counted.update([each])).raw("overloaded", [(b"date", b"today")])
    body = b'{"error":"overloaded","detail":"Too much is under way at once."}'
    assert raw == (
        b"HTTP/1.1 503 Service Unavailable\r\n"
        b"date: today\r\n"
        b"content-type: application/json\r\n"
        b"x-content-type-options: nosniff\r\n"
        b"retry-after: 1\r\n"
        b"content-length: %d\r\n"
        b"connection: close\r\n"
        b"\r\n%s" % (len(body), body)
    )
    assert counted == {"overloaded": 1}
