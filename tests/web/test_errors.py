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
    "body_too_large": (413, "The request body is larger than this listener takes."),
    "uri_too_long": (414, "The request target is longer than 8 KiB."),
    "head_too_large": (431, "The request head is larger than 16 KiB or has more than 100 fields."),
    "internal_error": (500, "The exporter failed to answer; its log says why."),
    "reload_failed": (500, "The configuration is faulty and the old one stays in force; the log says why."),
    "not_ready": (503, "The exporter is starting or shutting down."),
    "overloaded": (503, "Too many connections are open."),
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
    assert ("retry-after" in response.headers) == (status == 503)
    assert counted == {token: 1}


def test_a_405_names_what_is_allowed() -> None:
    """Allow goes with the answer it belongs to."""
    response = ErrorAnswers(lambda _: None).response("method_not_allowed", allow="GET, HEAD")
    assert response.headers["allow"] == "GET, HEAD"


def test_a_raw_answer_is_a_whole_response_that_ends_the_connection() -> None:
    """Below HTTP the same shape goes out as bytes, behind the listener's own fields."""
    counted: Counter[str] = Counter()
    raw = ErrorAnswers(lambda each: counted.update([each])).raw("overloaded", [(b"date", b"today")])
    body = b'{"error": "overloaded", "detail": "Too many connections are open."}'
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
