"""Below HTTP: what the listener takes, and the exact answer to everything else."""

import asyncio
import itertools
import os
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from starlette.types import Receive, Scope, Send

from exporter.web import protocol
from exporter.web.errors import ERRORS, ErrorToken
from exporter.web.protocol import Limits, head_fault
from tests.web.support import Answer, Client, Site, connected, eventually, fetch, request, serving

Run = Callable[[Awaitable[None]], None]

HEAD = b"GET /-/healthy HTTP/1.1\r\nHost: exporter.test\r\n"
POST = b"POST /-/healthy HTTP/1.1\r\nHost: exporter.test\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"


def padded(length: int) -> bytes:
    """A healthy request whose head is so long."""
    start = HEAD + b"X-Padding: "
    return start + b"x" * (length - len(start) - 4) + b"\r\n\r\n"


def with_fields(count: int) -> bytes:
    return HEAD + b"".join(b"X-%d: y\r\n" % number for number in range(count - 1)) + b"\r\n"


def with_target(length: int) -> bytes:
    return b"GET /%s HTTP/1.1\r\nHost: exporter.test\r\n\r\n" % (b"u" * (length - 1))


BAD_INPUT: dict[str, tuple[bytes, ErrorToken]] = {
    "head over 16 KiB": (padded(16 * 1024 + 1), "head_too_large"),
    "one endless field": (HEAD + b"X: " + b"x" * 20_000, "head_too_large"),
    "one endless field name": (HEAD + b"X" * 20_000, "head_too_large"),
    "empty lines without end": (b"\r\n" * 10_000, "head_too_large"),
    "101 fields": (with_fields(101), "head_too_large"),
    "target over 8 KiB": (with_target(8 * 1024 + 1), "uri_too_long"),
    "an endless target": (b"GET /" + b"u" * 20_000, "uri_too_long"),
    "no Host": (b"GET / HTTP/1.1\r\n\r\n", "bad_request"),
    "two Hosts": (HEAD + b"Host: exporter.test\r\n\r\n", "bad_request"),
    "a Host of two words": (b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", "bad_request"),
    "a Host with a path": (b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", "bad_request"),
    "Content-Length and Transfer-Encoding": (
        POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "bad_request",
    ),
    "two Content-Lengths": (POST + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\nx", "bad_request"),
    "a list of Content-Lengths": (POST + b"Content-Length: 1, 1\r\n\r\nx", "bad_request"),
    "a signed Content-Length": (POST + b"Content-Length: +1\r\n\r\nx", "bad_request"),
    "a Transfer-Encoding that does not end in chunked": (
        POST + b"Transfer-Encoding: chunked, gzip\r\n\r\n",
        "bad_request",
    ),
    "an unknown Transfer-Encoding": (POST + b"Transfer-Encoding: gzip\r\n\r\nx", "bad_request"),
    "Transfer-Encoding in HTTP/1.0": (
        b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "bad_request",
    ),
    "a bad chunk size": (CHUNKED + b"zz\r\n", "bad_request"),
    "an overflowing chunk size": (CHUNKED + b"ffffffffffffffffff\r\n", "bad_request"),
    "a chunk longer than its size": (CHUNKED + b"1\r\nxyz\r\n", "bad_request"),
    "obs-fold": (HEAD + b"X: a\r\n b\r\n\r\n", "bad_request"),
    "a space before the colon": (HEAD + b"X : a\r\n\r\n", "bad_request"),
    "a field without a name": (HEAD + b": a\r\n\r\n", "bad_request"),
    "a space before the first field": (b"GET / HTTP/1.1\r\n Host: a\r\n\r\n", "bad_request"),
    "NUL in a value": (HEAD + b"X: a\0b\r\n\r\n", "bad_request"),
    "CR in a value": (HEAD + b"X: a\rb\r\n\r\n", "bad_request"),
    "bare LF": (b"GET / HTTP/1.1\nHost: a\n\n", "bad_request"),
    "a control character in a value": (HEAD + b"X: a\x01b\r\n\r\n", "bad_request"),
    "HTTP/2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "bad_request"),
    "HTTP/2.0 by name": (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", "bad_request"),
    "HTTP/0.9 by name": (b"GET / HTTP/0.9\r\nHost: a\r\n\r\n", "bad_request"),
    "TLS hello": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(32), "bad_request"),
    "an unknown method": (b"GRAB / HTTP/1.1\r\nHost: a\r\n\r\n", "bad_request"),
    "a method in lower case": (b"get / HTTP/1.1\r\nHost: a\r\n\r\n", "bad_request"),
    "CONNECT": (b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", "bad_request"),
    "a target of raw UTF-8": ("GET /é HTTP/1.1\r\nHost: a\r\n\r\n".encode(), "bad_request"),
    "a declared body over 16 KiB": (POST + b"Content-Length: 16385\r\n\r\n", "body_too_large"),
    "a chunked body over 16 KiB": (CHUNKED + b"8000\r\n" + b"x" * 0x8000, "body_too_large"),
    "a chunk extension without end": (CHUNKED + b"1;" + b"x" * 40_000, "body_too_large"),
    "trailers without end": (CHUNKED + b"0\r\nX: " + b"x" * 40_000, "body_too_large"),
    "1,025 chunks": (CHUNKED + b"1\r\nx\r\n" * 1025, "body_too_large"),
    "1,100 trailers": (CHUNKED + b"0\r\n" + b"a:b\r\n" * 1100, "body_too_large"),
}
STATUSES = {
    "bad_request": 400,
    "request_timeout": 408,
    "body_too_large": 413,
    "uri_too_long": 414,
    "head_too_large": 431,
    "overloaded": 503,
}


def assert_refused(answer: Answer, token: ErrorToken) -> None:
    assert answer.status == STATUSES[token]
    assert answer.error == {"error": token, "detail": ERRORS[token].detail}
    assert answer.fields["content-type"] == "application/json"
    assert answer.fields["x-content-type-options"] == "nosniff"
    assert answer.fields["connection"] == "close"


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input_gets_its_error_and_a_closed_connection(run: Run, case: str) -> None:
    """A malformed or oversized request is answered in the one error shape, counted once, and ends its connection."""
    sent, token = BAD_INPUT[case]

    async def check() -> None:
        async with serving() as site:
            async with connected(site.address) as client:
                await client.send(sent)
                assert_refused(await client.answer(), token)
                assert await client.ended()
            assert site.errors == {token: 1}

    run(check())


@pytest.mark.parametrize("case", [case for case, (sent, _) in BAD_INPUT.items() if len(sent) < 200])
def test_bad_input_that_comes_byte_by_byte_gets_the_same_answer(case: str, run: Run) -> None:
    """How a request is cut into segments changes nothing, even where only its body is at fault."""
    sent, token = BAD_INPUT[case]

    async def check() -> None:
        async with serving() as site, connected(site.address) as client:
            no_delay(client)
            for byte in sent:
                await client.send(bytes([byte]))
                await asyncio.sleep(0)
                if site.errors:
                    break
            assert_refused(await client.answer(), token)
            assert await client.ended()

    run(check())


def no_delay(client: Client) -> None:
    client.writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (padded(16 * 1024), 200),
        (with_fields(100), 200),
        (with_target(8 * 1024), 404),
        (b"GET /-/healthy HTTP/1.0\r\n\r\n", 200),
        (b"GET /-/healthy HTTP/1.1\r\nHost:\r\n\r\n", 200),
        (b"GET /-/healthy HTTP/1.1\r\nHost: [::1]:11009\r\n\r\n", 200),
        (b"\r\n\r\n" + request(), 200),
        (b"GET http://exporter.test/-/healthy?verbose HTTP/1.1\r\nHost: exporter.test\r\n\r\n", 200),
        (HEAD + b"Content-Length: 16384\r\n\r\n" + b"x" * 16384, 200),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nHost: late\r\nX: y\r\n\r\n", 200),
    ],
)
def test_what_is_within_the_limits_is_served(run: Run, sent: bytes, status: int) -> None:
    """The largest head, field count, target and body, and every valid spelling of them, are no error below HTTP."""

    async def check() -> None:
        async with serving() as site, connected(site.address) as client:
            await client.send(sent)
            assert (await client.answer()).status == status

    run(check())


def test_an_answer_reaches_a_client_that_is_still_sending(run: Run) -> None:
    """A client that sends megabytes without looking gets its error whole: no RST overtakes it."""

    async def check() -> None:
        async with serving() as site:
            for _ in range(20):
                async with connected(site.address) as client:
                    await client.send(HEAD + b"X: ", *[b"x" * 65536] * 16)
                    assert_refused(await client.answer(), "head_too_large")
                    assert await client.ended()

    run(check())


def test_a_client_that_never_stops_sending_is_closed_after_a_moment(run: Run) -> None:
    """After an error the connection is read for one linger time, then closed whatever still comes."""

    async def check() -> None:
        async with serving(limits=Limits(linger=0.05)) as site, connected(site.address) as client:
            with pytest.raises(OSError, match=r"Broken pipe|reset|lost"):
                await client.send(*itertools.repeat(b"x" * 1024, 10_000_000))

    run(check())


def test_an_expected_100_continue_is_sent_before_the_body(run: Run) -> None:
    """A client that waits for 100 Continue gets it, then the answer to its request."""

    async def check() -> None:
        async with serving() as site, connected(site.address) as client:
            await client.send(request("/-/healthy", "GET", "Expect: 100-continue", "Content-Length: 2"))
            assert (await client.answer()).status == 100
            await client.send(b"hi")
            assert (await client.answer()).status == 200

    run(check())


@pytest.mark.parametrize(
    "sent",
    [
        b"G",
        HEAD,
        padded(16 * 1024)[:-1],
        b"\r\n",
        POST + b"Content-Length: 2\r\n\r\nx",
        CHUNKED + b"0\r\nX: y",
    ],
)
def test_a_request_that_does_not_arrive_in_time_gets_408(run: Run, sent: bytes) -> None:
    """A head or a body that stalls is answered 408, counted, and its connection closed."""

    async def check() -> None:
        async with serving(limits=Limits(head_time=0.1, body_stall=0.1)) as site, connected(site.address) as client:
            await client.send(sent)
            assert_refused(await client.answer(), "request_timeout")
            assert await client.ended()
            assert site.errors == {"request_timeout": 1}

    run(check())


def test_the_time_of_a_head_is_not_prolonged_by_dripping(run: Run) -> None:
    """The limit is on the whole head: a byte now and then does not start it anew."""

    async def check() -> None:
        async with serving(limits=Limits(head_time=0.3)) as site, connected(site.address) as client:
            for byte in HEAD * 100:
                if site.errors:
                    break
                await client.send(bytes([byte]))
                await asyncio.sleep(0.02)
            assert_refused(await client.answer(), "request_timeout")

    run(check())


def test_a_second_request_has_its_own_time(run: Run) -> None:
    """On a kept connection the clock of a head starts with its first byte."""

    async def check() -> None:
        async with serving(limits=Limits(head_time=0.2)) as site, connected(site.address) as client:
            await client.send(request())
            assert (await client.answer()).status == 200
            await asyncio.sleep(0.4)
            await client.send(request())
            assert (await client.answer()).status == 200
            await client.send(b"GET /")
            assert_refused(await client.answer(), "request_timeout")

    run(check())


def test_a_connection_on_which_nothing_is_asked_is_closed_without_an_error(run: Run) -> None:
    """Port checks that only connect are closed in time, and are not counted as errors."""

    async def check() -> None:
        async with serving(limits=Limits(head_time=0.1)) as site, connected(site.address) as client:
            assert await client.ended()
            assert not site.errors

    run(check())


def test_an_idle_connection_is_closed_after_its_time(run: Run) -> None:
    """A kept connection without a further request is closed, and that is no error either."""

    async def check() -> None:
        async with serving(limits=Limits(idle=1)) as site, connected(site.address) as client:
            await client.send(request())
            assert (await client.answer()).status == 200
            assert await client.ended()
            assert not site.errors

    run(check())


def test_half_sent_heads_do_not_keep_others_from_being_served(run: Run) -> None:
    """200 clients that never finish their heads cost little memory, others are served meanwhile, and all get 408."""

    async def check() -> None:
        async with serving(limits=Limits(head_time=2.0)) as site:
            before = resident_bytes()
            half = [Client(*await asyncio.open_connection("127.0.0.1", site.address.port)) for _ in range(200)]
            for client in half:
                await client.send(padded(16 * 1024)[:-3])
            for _ in range(20):
                assert (await fetch(site, "/metrics")).status == 200
            assert not site.errors
            assert resident_bytes() - before < 24 * 1024 * 1024
            for client in half:
                assert_refused(await client.answer(), "request_timeout")
                await client.close()
            assert site.errors == {"request_timeout": 200}

    run(check())


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_connections_over_the_limit_are_turned_away(run: Run) -> None:
    """Over the limit a connection is answered 503 with Retry-After; those before are served, and so are those after."""

    async def check() -> None:
        async with serving(limits=Limits(connections=2)) as site:
            async with connected(site.address) as first, connected(site.address) as second:
                for client in (first, second):
                    await client.send(request())
                    assert (await client.answer()).status == 200
                async with connected(site.address) as third:
                    await third.send(request())
                    answer = await third.answer()
                    assert_refused(answer, "overloaded")
                    assert answer.fields["retry-after"] == "1"
                await first.send(request())
                assert (await first.answer()).status == 200
            assert site.errors == {"overloaded": 1}
            await served_again(site)

    run(check())


async def served_again(site: Site) -> None:
    while (await fetch(site, "/-/healthy")).status != 200:
        await asyncio.sleep(0.01)


def test_few_connections_linger_at_a_time(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused clients that do not hang up hold no more than their share of file descriptors."""
    monkeypatch.setattr(protocol, "LINGERING", 1)

    async def check() -> None:
        async with (
            serving(limits=Limits(linger=3600)) as site,
            connected(site.address) as lingering,
            connected(site.address) as closed,
        ):
            await lingering.send(b"?")
            assert_refused(await lingering.answer(), "bad_request")
            await closed.send(b"?")
            assert_refused(await closed.answer(), "bad_request")
            assert await closed.ended()
            await eventually(lambda: rst_on_writing(closed))
            assert not rst_on_writing(lingering)

    run(check())


def rst_on_writing(client: Client) -> bool:
    """Whether the server has closed its reading side too."""
    if not client.writer.is_closing():
        client.writer.write(b"?")
    return client.writer.is_closing() or client.reader.exception() is not None


def test_a_request_sent_before_the_answer_to_the_last_is_not_handled(run: Run) -> None:
    """Requests are handled one at a time: of pipelined ones the first is answered, and the connection closed."""

    async def check() -> None:
        async with serving() as site, connected(site.address) as client:
            await client.send(request() + request("/-/ready") * 1000)
            answer = await client.answer()
            assert (answer.status, answer.body, answer.fields["connection"]) == (200, b"OK", "close")
            assert await client.ended()
            assert not site.errors

    run(check())


def test_garbage_behind_a_request_does_not_spoil_its_answer(run: Run) -> None:
    """A fault in what follows a whole request ends the connection after that request's answer."""

    async def check() -> None:
        async with serving() as site, connected(site.address) as client:
            await client.send(request() + b"\x00\x01\x02")
            assert (await client.answer()).body == b"OK"
            assert await client.ended()

    run(check())


def test_requests_follow_each_other_on_one_connection(run: Run) -> None:
    """A connection is kept for the next request unless the client asks otherwise."""

    async def check() -> None:
        async with serving() as site, connected(site.address) as client:
            for _ in range(3):
                await client.send(request())
                answer = await client.answer()
                assert answer.status == 200
                assert "connection" not in answer.fields
            await client.send(request("/-/healthy", "GET", "Connection: close"))
            assert (await client.answer()).fields["connection"] == "close"
            assert await client.ended()

    run(check())


def test_a_client_that_half_closes_gets_its_answer(run: Run) -> None:
    """A FIN behind the request does not cost the client the answer, although it may have left for good."""

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        for _ in range(50):  # turns of the loop, in which the FIN is read
            await asyncio.sleep(0)
        await early(scope, receive, send)

    async def check() -> None:
        async with serving(slow) as site, connected(site.address) as client:
            client.writer.write(request())
            client.writer.write_eof()
            assert (await client.answer()).body == b"hi"
            assert await client.ended()

    run(check())


def test_a_client_that_leaves_in_its_request_is_let_go(run: Run) -> None:
    """A FIN within a head closes the connection without an answer or an error."""

    async def check() -> None:
        async with serving() as site, connected(site.address) as client:
            client.writer.write(HEAD)
            client.writer.write_eof()
            assert await client.ended()
            assert not site.errors

    run(check())


@pytest.mark.parametrize("protocol_name", ["h2c", "websocket"])
def test_a_wish_to_upgrade_is_answered_as_if_it_were_not_there(run: Run, protocol_name: str) -> None:
    """The request is answered and the connection closed: what follows is never read as another request."""

    async def check() -> None:
        async with serving() as site, connected(site.address) as client:
            fields = ("Connection: Upgrade", f"Upgrade: {protocol_name}", "Content-Length: 5")
            await client.send(request("/-/healthy", "GET", *fields) + request("/-/ready"))
            answer = await client.answer()
            assert (answer.status, answer.body, answer.fields["connection"]) == (200, b"OK", "close")
            assert await client.ended()

    run(check())


def test_a_body_behind_a_wish_to_upgrade(run: Run) -> None:
    """Java's HttpClient offers h2c with its first request, whatever that is: its body is read all the same."""

    async def echo(scope: Scope, receive: Receive, send: Send) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body += message["body"]
            more = message["more_body"]
        fields = [(b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": fields})
        await send({"type": "http.response.body", "body": body})

    async def check() -> None:
        fields = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAEAAEAAAAIAAAAB")
        whole = request("/", "POST", *fields, "Content-Length: 5") + b"hello"
        async with serving(echo) as site:
            for cut in range(1, len(whole) + 1):
                async with connected(site.address) as client:
                    await client.send(whole[:cut])
                    await asyncio.sleep(0)
                    await client.send(whole[cut:])
                    answer = await client.answer()
                    assert (answer.status, answer.body) == (200, b"hello"), cut
                    assert await client.ended()
            assert not site.errors

    run(check())


def test_a_client_that_does_not_read_is_cut(run: Run) -> None:
    """An answer that is not taken holds its connection for the time limit of writing, not for ever."""
    ended = asyncio.Event()

    async def endless(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(4096):  # 256 MiB: more than any socket buffer takes
            await send({"type": "http.response.body", "body": bytes(65536), "more_body": True})
        ended.set()

    async def check() -> None:
        async with serving(endless, limits=Limits(write_stall=0.2)) as site, connected(site.address) as client:
            await client.send(request())
            async with asyncio.timeout(5):
                await ended.wait()

    run(check())


def test_a_client_that_reads_slowly_gets_everything(run: Run) -> None:
    """The time limit of writing starts anew each time the client has taken what there was."""
    size, pieces = 1024 * 1024, 32

    async def large(scope: Scope, receive: Receive, send: Send) -> None:
        fields = [(b"content-length", b"%d" % (size * pieces))]
        await send({"type": "http.response.start", "status": 200, "headers": fields})
        for left in reversed(range(pieces)):
            await send({"type": "http.response.body", "body": bytes(size), "more_body": left > 0})

    async def check() -> None:
        async with serving(large) as site, connected(site.address) as client:
            await client.send(request())
            assert len((await client.answer()).body) == size * pieces

    run(check())


async def early(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers without waiting for the body."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"hi"})


def test_a_bad_body_behind_an_early_answer_ends_the_connection(run: Run) -> None:
    """Where an application has answered before the body was there, a fault in the body gets no second answer."""

    async def check() -> None:
        async with serving(early) as site, connected(site.address) as client:
            await client.send(CHUNKED)
            assert (await client.answer()).body == b"hi"
            await client.send(b"zz\r\n")
            assert await client.ended()
            assert not site.errors

    run(check())


def test_an_early_answer_leaves_the_connection_usable(run: Run) -> None:
    """Where the rest of the body comes after the answer, the next request on the connection is still understood."""

    async def check() -> None:
        async with serving(early) as site, connected(site.address) as client:
            await client.send(CHUNKED)
            assert (await client.answer()).body == b"hi"
            await client.send(b"1\r\nx\r\n0\r\n\r\n")
            await client.send(request())
            assert (await client.answer()).body == b"hi"

    run(check())


async def tardy(scope: Scope, receive: Receive, send: Send) -> None:
    """Begins its answer, then waits for the body."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    while (message := await receive())["type"] == "http.request" and message["more_body"]:
        pass
    await send({"type": "http.response.body", "body": b"hi"})


def test_a_bad_body_under_a_begun_answer_lets_it_end(run: Run) -> None:
    """An answer whose head is out already is not cut in two by an error."""

    async def check() -> None:
        async with serving(tardy) as site, connected(site.address) as client:
            await client.send(CHUNKED)
            head = await client.answer(head_only=True)
            assert head.status == 200
            await client.send(b"zz\r\n")
            client.writer.write_eof()
            assert b"error" not in await client.reader.read()
            assert not site.errors

    run(check())


HOST = (b"host", b"a")


@pytest.mark.parametrize(
    ("version", "fields", "token"),
    [
        ("1.1", [HOST], None),
        ("1.0", [], None),
        ("1.0", [HOST, HOST], "bad_request"),
        ("1.1", [], "bad_request"),
        ("3.0", [HOST], "bad_request"),
        ("1.1", [(b"host", b"a\xc3\xa9")], "bad_request"),
        ("1.0", [(b"transfer-encoding", b"chunked")], "bad_request"),
        ("1.1", [HOST, (b"content-length", b"10")], None),
        ("1.1", [HOST, (b"content-length", b"11")], "body_too_large"),
    ],
)
def test_a_head_is_judged_by_its_version_host_and_framing(
    version: str, fields: list[tuple[bytes, bytes]], token: ErrorToken | None
) -> None:
    """One Host (none in HTTP/1.0), no chunks in HTTP/1.0, and no more body declared than is taken."""
    assert head_fault(version, fields, body_limit=10) == token
