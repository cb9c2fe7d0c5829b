"""Requests that are no reports: the exact answer to each, and that nothing of them is counted."""

import json
from dataclasses import dataclass
from typing import Final

import pytest

from exporter.web.errors import ErrorToken
from tests.support.loops import conversation
from tests.support.reporting import (
    CLOUDEVENT,
    CLOUDEVENTS,
    ERRORS,
    MIB,
    NDJSON,
    OPENAPI,
    REPORTS,
    Desk,
    chunked,
    closing,
    growth,
    ndjson,
    outcome,
    post,
)
from tests.web.support import connected
from tests.webhook.refusals import assert_only_counted_as_error, assert_refused

CLOSE: Final = closing(1001, initiator="server")
BODY: Final = json.dumps(CLOSE).encode()
PADDED: Final = BODY[:-1] + b', "reason": ""}'


def long_body(size: int) -> bytes:
    """A close whose body is so long."""
    return BODY + b" " * (size - len(BODY))


@dataclass(frozen=True)
class Row:
    """A request, and how it is refused."""

    sent: bytes
    status: int
    token: ErrorToken
    closed: bool = False
    allow: frozenset[str] | None = None


POSTS: Final = frozenset({"POST", "OPTIONS"})
GETS: Final = frozenset({"GET", "HEAD"})

ROWS: Final[dict[str, Row]] = {
    **{
        f"{method} {REPORTS}": Row(post(method=method), 405, "method_not_allowed", allow=POSTS)
        for method in ("GET", "PUT", "PATCH", "DELETE")
    },
    "GET of a platform's path": Row(
        post(method="GET", path=f"{REPORTS}/aws-apigateway"), 405, "method_not_allowed", allow=POSTS
    ),
    "POST to the schema": Row(post(CLOSE, path=OPENAPI), 405, "method_not_allowed", allow=GETS),
    "POST to health": Row(post(CLOSE, path="/-/healthy"), 405, "method_not_allowed", allow=GETS),
    "an unknown path": Row(post(CLOSE, path="/api/v1/opens"), 404, "not_found"),
    "an unknown platform": Row(post(CLOSE, path=f"{REPORTS}/none"), 404, "not_found"),
    "a slash too many": Row(post(CLOSE, path=f"{REPORTS}/"), 404, "not_found"),
    "metrics are elsewhere": Row(post(method="GET", path="/metrics"), 404, "not_found"),
    "no Content-Type": Row(post(CLOSE, kind=None), 415, "unsupported_media_type"),
    **{
        f"Content-Type {kind}": Row(post(CLOSE, kind=kind), 415, "unsupported_media_type")
        for kind in (
            "text/plain",
            "application/xml",
            "application/x-www-form-urlencoded",
            "multipart/form-data; boundary=x",
            "application/jsonp",
            "json",
            ",",
        )
    },
    **{
        f"Content-Encoding {coding}": Row(post(CLOSE, f"Content-Encoding: {coding}"), 415, "unsupported_encoding")
        for coding in ("gzip", "deflate", "br", "identity, gzip", "x")
    },
    "1 MiB and a byte": Row(post(long_body(MIB + 1)), 413, "body_too_large", closed=True),
    "1 MiB and a byte, in chunks": Row(chunked(long_body(MIB + 1), 65_536), 413, "body_too_large", closed=True),
    "2 MiB announced": Row(post(length=2 * MIB), 413, "body_too_large", closed=True),
    "2 MiB in chunks": Row(chunked(long_body(2 * MIB), 65_536), 413, "body_too_large", closed=True),
    "Expect: something else": Row(
        post(CLOSE, "Expect: 200-ok"),
        417,
        "expectation_failed",
    ),
    "1,001 events": Row(post([CLOSE] * 1001), 413, "too_many_events"),
    "1,001 lines": Row(post(ndjson([CLOSE] * 1001), kind=NDJSON), 413, "too_many_events"),
    "1,001 CloudEvents": Row(post([{}] * 1001, kind=CLOUDEVENTS), 413, "too_many_events"),
    **{
        f"not JSON: {name}": Row(post(body), 400, "invalid_json")
        for name, body in {
            "nothing": b"",
            "a word": b"close",
            "half an object": b'{"code": 1000',
            "two objects": BODY + BODY,
            "a trailing comma": b'{"code": 1000,}',
            "single quotes": b"{'code': 1000}",
            "a comment": b'{"code": 1000} // bye',
            "NaN": b'{"code": 1000, "duration": NaN}',
            "Infinity": b'{"code": 1000, "duration": Infinity}',
            "-Infinity": b'{"code": 1000, "duration": -Infinity}',
            "1e999": b'{"code": 1000, "duration": 1e999}',
            "a byte order mark": b"\xef\xbb\xbf" + BODY,
            "UTF-16": BODY.decode().encode("utf-16"),
            "bad UTF-8": b'{"code": 1000, "reason": "\xff"}',
            "an overlong NUL": b'{"code": 1000, "reason": "\xc0\x80"}',
            "a surrogate in UTF-8": b'{"code": 1000, "reason": "\xed\xa0\x80"}',
            "a raw control character": b'{"code": 1000, "reason": "\x01"}',
            "100,000 brackets": b"[" * 100_000,
            "100,000 brackets and their ends": b"[" * 100_000 + b"]" * 100_000,
            "100,000 objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
            "5,000 digits": b'{"code": %b}' % (b"9" * 5000),
            "60,000 digits": b'{"code": 1000, "duration": %b}' % (b"9" * 60_000),
            "a million digits": b"9" * 1_000_000,
        }.items()
    },
    "an event of a million digits": Row(
        post(b'{"code": 1000, "duration": %b}' % (b"9" * 1_000_000)), 413, "body_too_large", closed=True
    ),
    "an event of 64 KiB and a byte": Row(
        post(b'{"code": 1000, "reason": "%b"}' % (b"x" * (65_537 - 28))), 413, "body_too_large", closed=True
    ),
    "1,025 chunks": Row(chunked(b" " * 1025, 1), 413, "body_too_large", closed=True),
    "half an array": Row(post(b"[" + BODY), 400, "invalid_json"),
    "half a CloudEvent": Row(post(b'{"specversion": "1.0"', kind=CLOUDEVENT), 400, "invalid_json"),
    "half a batch of CloudEvents": Row(post(b"[{}", kind=CLOUDEVENTS), 400, "invalid_json"),
}


@pytest.mark.parametrize("name", ROWS)
@conversation
async def test_a_request_that_is_no_report(desk: Desk, name: str) -> None:
    """It is answered with its error, which is counted, and nothing of it is; where demanded the connection ends."""
    row = ROWS[name]
    before = await desk.scrape()
    async with connected(desk.address) as client:
        await client.send(row.sent)
        answer = await client.answer()
        assert_refused(answer, row.status, row.token)
        if row.allow is not None:
            assert frozenset(answer.fields["allow"].split(", ")) == row.allow
        if row.closed:
            assert await client.ended()
    assert_only_counted_as_error(before, await desk.scrape(), row.token)


HEAD: Final = b"POST /api/v1/closes HTTP/1.1\r\nHost: exporter.test\r\nContent-Type: application/json\r\n"
CHUNKS: Final = HEAD + b"Transfer-Encoding: chunked\r\n"

BELOW_HTTP: Final[dict[str, tuple[bytes, int, ErrorToken]]] = {
    "a head over 16 KiB": (HEAD + b"X: " + b"x" * 16_384 + b"\r\n\r\n", 431, "head_too_large"),
    "101 fields": (HEAD + b"X: x\r\n" * 99 + b"\r\n", 431, "head_too_large"),
    "a target over 8 KiB": (b"POST /%b HTTP/1.1\r\nHost: a\r\n\r\n" % (b"u" * 8192), 414, "uri_too_long"),
    "no Host": (b"POST /api/v1/closes HTTP/1.1\r\n\r\n", 400, "bad_request"),
    "two Hosts": (HEAD + b"Host: exporter.test\r\n\r\n", 400, "bad_request"),
    "Content-Length and Transfer-Encoding": (
        CHUNKS + b"Content-Length: 5\r\n\r\n0\r\n\r\n",
        400,
        "bad_request",
    ),
    "two Content-Lengths": (HEAD + b"Content-Length: 4\r\nContent-Length: 4\r\n\r\nnull", 400, "bad_request"),
    "Content-Lengths that differ": (HEAD + b"Content-Length: 4\r\nContent-Length: 5\r\n\r\nnull", 400, "bad_request"),
    "a bad chunk size": (CHUNKS + b"\r\nzz\r\n", 400, "bad_request"),
    "a chunk longer than its size": (CHUNKS + b"\r\n1\r\nnull\r\n", 400, "bad_request"),
    "obs-fold": (HEAD + b"X: a\r\n b\r\n\r\n", 400, "bad_request"),
    "a space before the colon": (HEAD + b"X : a\r\n\r\n", 400, "bad_request"),
    "NUL in a value": (HEAD + b"X: a\0b\r\n\r\n", 400, "bad_request"),
    "CR in a value": (HEAD + b"X: a\rb\r\n\r\n", 400, "bad_request"),
    "the preface of HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, "bad_request"),
    "a TLS hello": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(32), 400, "bad_request"),
}


@pytest.mark.parametrize("listener", ["webhook", "metrics"])
@pytest.mark.parametrize("name", BELOW_HTTP)
@conversation
async def test_a_request_that_is_no_http(desk: Desk, name: str, listener: str) -> None:
    """On either listener what is not sound HTTP/1.1 gets the same shape of error, and a closed connection."""
    sent, status, token = BELOW_HTTP[name]
    before = await desk.scrape()
    async with connected(desk.address if listener == "webhook" else desk.web) as client:
        await client.send(sent)
        answer = await client.answer()
        assert_refused(answer, status, token)
        assert answer.fields["connection"] == "close"
        assert await client.ended()
    assert_only_counted_as_error(before, await desk.scrape(), token)


@conversation
async def test_a_body_that_is_too_large_is_not_read_on(desk: Desk) -> None:
    """An announced body over the limit is refused before a byte of it, one in chunks as soon as it is over."""
    async with connected(desk.address) as client:
        await client.send(post(length=1 << 40))
        assert_refused(await client.answer(), 413, "body_too_large")
        assert await client.ended()
    async with connected(desk.address) as client:
        endless = chunked(bytes(3 * MIB), 65_536).removesuffix(b"0\r\n\r\n")
        await client.send(endless)
        assert_refused(await client.answer(), 413, "body_too_large")
        assert await client.ended()


@conversation
async def test_no_error_for_head(desk: Desk) -> None:
    """HEAD is answered as GET is: 405 with Allow, without a body."""
    async with connected(desk.address) as client:
        await client.send(post(method="HEAD"))
        answer = await client.answer(head_only=True)
        assert answer.status == 405
        assert set(answer.fields["allow"].split(", ")) == POSTS
        await client.send(post(CLOSE))
        assert outcome(await client.answer()) == (1, 0, 0)


@pytest.mark.parametrize(
    "sent",
    [
        post(long_body(MIB)),
        chunked(long_body(MIB), 65_536),
        chunked(BODY, 1),
        post(CLOSE, "Content-Encoding: identity"),
        post(CLOSE, "Content-Encoding: Identity"),
        post(CLOSE, kind="application/json; charset=utf-8"),
        post(CLOSE, kind="Application/JSON"),
        post(ndjson([CLOSE]), kind="application/x-ndjson; charset=UTF-8"),
        post(PADDED),
        post(b" \n\t\r" + BODY + b"\n"),
        post(CLOSE, "X: " + "x" * 8000),
        post(CLOSE).replace(b"HTTP/1.1", b"HTTP/1.0"),
    ],
    ids=lambda sent: f"{sent.partition(b' HTTP')[2][50:110]!r}",
)
@conversation
async def test_what_is_within_the_limits(desk: Desk, sent: bytes) -> None:
    """The largest body, the smallest chunks, and every valid spelling of a field are taken."""
    answer = await desk.ask(sent)
    assert (answer.status, outcome(answer)) == (202, (1, 0, 0))


@conversation
async def test_methods_are_told(desk: Desk) -> None:
    """OPTIONS says what a path answers, without a body."""
    before = await desk.scrape()
    answer = await desk.ask(post(method="OPTIONS", kind=None))
    assert (answer.status, answer.body) == (204, b"")
    assert set(answer.fields["allow"].split(", ")) == POSTS
    assert growth(before, await desk.scrape(), ERRORS, "error") == {}


@conversation
async def test_an_error_leaves_the_connection_usable(desk: Desk) -> None:
    """After an error in a request that was read whole, the next request on the same connection is answered."""
    async with connected(desk.address) as client:
        for sent in (post(method="PUT", body=CLOSE), post(CLOSE, kind="text/plain"), post(b"{"), post([CLOSE] * 1001)):
            await client.send(sent)
            assert (await client.answer()).status >= 400
        await client.send(post(CLOSE))
        assert outcome(await client.answer()) == (1, 0, 0)


class TestExpect:
    @conversation
    async def test_a_sound_head(self, desk: Desk) -> None:
        """The body is asked for by 100 Continue; with it comes the answer."""
        async with connected(desk.address) as client:
            await client.send(post(length=len(BODY)).replace(b"\r\n\r\n", b"\r\nExpect: 100-Continue\r\n\r\n"))
            assert (await client.answer()).status == 100
            await client.send(BODY)
            assert outcome(await client.answer()) == (1, 0, 0)

    @pytest.mark.parametrize(
        ("sent", "status", "token"),
        [
            (post(method="PUT", length=10), 405, "method_not_allowed"),
            (post("", "Content-Encoding: gzip", length=10), 415, "unsupported_encoding"),
            (post(kind="text/plain", length=10), 415, "unsupported_media_type"),
            (post(kind=None, length=10), 415, "unsupported_media_type"),
            (post(path="/elsewhere", length=10), 404, "not_found"),
            (post(length=MIB + MIB), 413, "body_too_large"),
        ],
        ids=["method", "encoding", "media type", "no media type", "path", "length"],
    )
    @conversation
    async def test_a_head_that_is_refused(self, desk: Desk, sent: bytes, status: int, token: ErrorToken) -> None:
        """A body that would be refused for its head is not asked for: the error comes instead of 100 Continue."""
        head = sent.partition(b"\r\n\r\n")[0] + b"\r\nExpect: 100-continue\r\n\r\n"
        async with connected(desk.address) as client:
            await client.send(head)
            assert_refused(await client.answer(), status, token)
