"""Requests that are answered where they are parsed: to a client there is no difference, except that it is quick."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from starlette.types import Receive, Scope, Send

from exporter.web.prompt import AT_ONCE, KNOWN_HEADS, LARGEST, LONGEST_HEAD
from exporter.web.protocol import Fields, Limits, Prompt, Respond
from tests.web.support import Answer, connected, request, serving

Run = Callable[[Awaitable[None]], None]

PATH = "/count"


class Counting:
    """Answers bodies that begin with a digit at once, all others as an application; notes which of both it was."""

    def __init__(self) -> None:
        self.at_once: list[bytes] = []
        self.handled: list[bytes] = []
        self.judged: list[Fields] = []
        self.prompt = Prompt(frozenset({PATH.encode()}), self.judge)

    def judge(self, path: bytes, fields: Fields) -> Respond | None:
        assert (path, dict(fields)[b"host"]) == (PATH.encode(), b"exporter.test")
        self.judged.append(fields)
        return None if (b"refuse", b"me") in fields else self.respond

    def respond(self, body: bytes) -> tuple[int, bytes] | None:
        if not body[:1].isdigit():
            return None
        self.at_once.append(body)
        return 202, b"content-type: text/plain\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message["body"]
            more = message["more_body"]
        self.handled.append(body)
        fields = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 202, "headers": fields})
        await send({"type": "http.response.body", "body": body})


def post(body: bytes, *fields: str, path: str = PATH) -> bytes:
    return request(path, "POST", f"Content-Length: {len(body)}", *fields) + body


def chunked(body: bytes) -> bytes:
    return request(PATH, "POST", "Transfer-Encoding: chunked") + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)


def seen(answer: Answer) -> tuple[int, bytes, set[str]]:
    return answer.status, answer.body, set(answer.fields)


def test_the_same_answer_either_way(run: Run) -> None:
    """An answer given at once has the status, the fields and the body that the application's has."""

    async def conversation() -> None:
        site = Counting()
        async with serving(site.app, prompt=site.prompt) as served, connected(served.address) as client:
            answers = []
            for body in (b"1", b"a", b"2", b""):
                await client.send(post(body))
                answers.append(seen(await client.answer()))
            fields = {"date", "content-type", "content-length"}
            assert answers == [(202, body, fields) for body in (b"1", b"a", b"2", b"")]
            assert (site.at_once, site.handled) == ([b"1", b"2"], [b"a", b""])

    run(conversation())


def test_split_at_every_byte(run: Run) -> None:
    """However a request arrives, it is answered once, with its own body."""

    async def conversation() -> None:
        site = Counting()
        whole = post(b"1234", "X-Padding: abc")
        async with serving(site.app, prompt=site.prompt) as served, connected(served.address) as client:
            for cut in range(1, len(whole)):
                await client.send(whole[:cut])
                await asyncio.sleep(0)
                await client.send(whole[cut:])
                assert (await client.answer()).body == b"1234"
            assert site.at_once == [b"1234"] * (len(whole) - 1)

    run(conversation())


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(chunked(b"1"), id="no length"),
        pytest.param(post(b"1" * (LARGEST + 1)), id="a large body"),
        pytest.param(post(b"1", "Connection: close"), id="the last on its connection"),
        pytest.param(post(b"1", "Connection: upgrade", "Upgrade: h2c"), id="a wish to upgrade"),
        pytest.param(post(b"1", path="/count?x"), id="another path"),
        pytest.param(post(b"1", "Refuse: me"), id="a head that is refused"),
        pytest.param(request(PATH, "PUT", "Content-Length: 1") + b"1", id="another method"),
        pytest.param(request(PATH, "POST", "Content-Length: 1", version="1.0") + b"1", id="HTTP/1.0"),
    ],
)
def test_what_the_application_handles(run: Run, sent: bytes) -> None:
    """Whatever is not the usual small request goes the usual way."""

    async def conversation() -> None:
        site = Counting()
        limits = Limits(body=2 * LARGEST)
        async with serving(site.app, prompt=site.prompt, limits=limits) as served, connected(served.address) as client:
            await client.send(sent)
            assert (await client.answer()).status == 202
            assert (len(site.at_once), len(site.handled)) == (0, 1)

    run(conversation())


def test_an_expected_100_continue(run: Run) -> None:
    """A client that waits for 100 Continue gets it from the application."""

    async def conversation() -> None:
        site = Counting()
        async with serving(site.app, prompt=site.prompt) as served, connected(served.address) as client:
            await client.send(request(PATH, "POST", "Content-Length: 1", "Expect: 100-continue"))
            assert await client.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            await client.send(b"1")
            assert (await client.answer()).body == b"1"
            assert site.handled == [b"1"]

    run(conversation())


def test_requests_sent_ahead(run: Run) -> None:
    """Requests that come together are answered in their order, also where one of them takes the other way."""

    async def conversation() -> None:
        site = Counting()
        async with serving(site.app, prompt=site.prompt) as served, connected(served.address) as client:
            await client.send(post(b"1") * (AT_ONCE + 5))
            assert [(await client.answer()).body for _ in range(AT_ONCE + 1)] == [b"1"] * (AT_ONCE + 1)
            assert await client.ended()
            assert (len(site.at_once), len(site.handled)) == (AT_ONCE, 1)
        site = Counting()
        async with serving(site.app, prompt=site.prompt) as served, connected(served.address) as client:
            await client.send(post(b"1") + post(b"2") + post(b"a") + post(b"3"))
            assert [(await client.answer()).body for _ in range(3)] == [b"1", b"2", b"a"]
            assert await client.ended()
            assert (site.at_once, site.handled) == ([b"1", b"2"], [b"a"])

    run(conversation())


def test_a_client_that_takes_no_answers(run: Run) -> None:
    """Answers do not pile up: who reads none is handled the usual way, and cut."""

    async def conversation() -> None:
        site = Counting()
        body = b"1" * 60_000
        limits = Limits(write_stall=0.2, body=100_000)
        async with serving(site.app, prompt=site.prompt, limits=limits) as served, connected(served.address) as client:
            client.reader._transport.pause_reading()  # type: ignore[attr-defined]
            with pytest.raises((ConnectionError, TimeoutError)):
                async with asyncio.timeout(10):
                    while True:
                        await client.send(post(body))
            assert sum(map(len, site.at_once)) < 64 << 20

    run(conversation())


def test_a_body_that_never_comes(run: Run) -> None:
    """A request that stops halfway is told so and ended, as on every listener."""

    async def conversation() -> None:
        site = Counting()
        limits = Limits(body_stall=0.1)
        async with serving(site.app, prompt=site.prompt, limits=limits) as served, connected(served.address) as client:
            await client.send(post(b"1"))
            assert (await client.answer()).status == 202
            await client.send(post(b"12")[:-1])
            answer = await client.answer()
            assert (answer.status, answer.error["error"]) == (408, "request_timeout")
            assert await client.ended()
            assert served.errors == {"request_timeout": 1}

    run(conversation())


def test_a_body_that_is_too_large(run: Run) -> None:
    """The limits of a listener hold for these requests too."""

    async def conversation() -> None:
        site = Counting()
        limits = Limits(body=10)
        async with serving(site.app, prompt=site.prompt, limits=limits) as served, connected(served.address) as client:
            await client.send(post(b"1" * 11))
            assert (await client.answer()).status == 413
            assert await client.ended()

    run(conversation())


def test_an_idle_connection(run: Run) -> None:
    """A connection is kept for further requests, and closed when none come."""

    async def conversation() -> None:
        site = Counting()
        limits = Limits(idle=1, head_time=0.1)
        async with serving(site.app, prompt=site.prompt, limits=limits) as served, connected(served.address) as client:
            await client.send(post(b"1"))
            assert (await client.answer()).status == 202
            await asyncio.sleep(0.3)  # longer than a head may take
            await client.send(post(b"2"))
            assert (await client.answer()).status == 202
            assert await client.ended()
            assert site.at_once == [b"1", b"2"]

    run(conversation())


def test_half_a_head_behind_an_answer(run: Run) -> None:
    """The next head has its time, from its first byte on."""

    async def conversation() -> None:
        site = Counting()
        limits = Limits(head_time=0.1)
        async with serving(site.app, prompt=site.prompt, limits=limits) as served, connected(served.address) as client:
            await client.send(post(b"1"))
            assert (await client.answer()).status == 202
            await client.send(post(b"2")[:10])
            assert (await client.answer()).status == 408
            assert await client.ended()

    run(conversation())


def test_a_client_that_half_closes(run: Run) -> None:
    """Who says nothing more after a request still gets the answer."""

    async def conversation() -> None:
        site = Counting()
        async with serving(site.app, prompt=site.prompt) as served, connected(served.address) as client:
            await client.send(post(b"1"))
            client.writer.write_eof()
            assert (await client.answer()).body == b"1"
            assert await client.ended()

    run(conversation())


def test_the_same_head_again(run: Run) -> None:
    """A head of which each byte is known is judged once, on whichever connection it comes, and each body by itself."""

    async def conversation() -> None:
        site = Counting()
        async with serving(site.app, prompt=site.prompt) as served:
            for bodies in ((b"12", b"34", b"56", b"ab", b"78"), (b"90", b"13", b"cd", b"57")):
                async with connected(served.address) as client:
                    for body in bodies:
                        await client.send(post(body, "X-Sender: me"))
                        assert (await client.answer()).body == body
        assert site.at_once == [b"12", b"34", b"56", b"78", b"90", b"13", b"57"]
        assert site.handled == [b"ab", b"cd"]
        # The first request of each connection, and the one by which the head becomes known.
        assert len(site.judged) == 3

    run(conversation())


@pytest.mark.parametrize("cut", [1, 30, -3, -1])
def test_a_known_head_in_two_reads(run: Run, cut: int) -> None:
    """A known head that comes without its whole body is parsed like any other, and what comes next is, too."""

    async def conversation() -> None:
        site = Counting()
        async with serving(site.app, prompt=site.prompt) as served, connected(served.address) as client:
            for body in (b"11", b"22"):
                await client.send(post(body))
                assert (await client.answer()).body == body
            whole = post(b"33")
            await client.send(whole[:cut])
            await asyncio.sleep(0.05)
            await client.send(whole[cut:])
            assert (await client.answer()).body == b"33"
            await client.send(post(b"44"))
            assert (await client.answer()).body == b"44"
            assert len(site.judged) == 3

    run(conversation())


def test_a_known_head_that_may_go_on(run: Run) -> None:
    """A head is known by its end, too: without the empty line there may be more of it, even where no body follows."""

    async def conversation() -> None:
        site = Counting()
        at_once: list[Fields] = []

        def judge(_: bytes, fields: Fields) -> Respond:
            at_once.append(fields)
            return lambda body: (202, b"content-length: %d\r\n\r\n%b" % (len(body), body))

        prompt = Prompt(frozenset({PATH.encode()}), judge)
        async with serving(site.app, prompt=prompt) as served, connected(served.address) as client:
            for _ in range(3):
                await client.send(post(b""))
                assert (await client.answer()).status == 202
            await client.send(post(b"").removesuffix(b"\r\n\r\n"))
            await asyncio.sleep(0.05)
            await client.send(b"\r\nX-More: of it\r\n\r\n")
            assert (await client.answer()).status == 202
        assert [(b"x-more", b"of it") in fields for fields in at_once] == [False, False, True]

    run(conversation())


def test_a_known_head_and_more(run: Run) -> None:
    """What follows the body of a known head is the next request, or no request at all."""

    async def conversation() -> None:
        site = Counting()
        async with serving(site.app, prompt=site.prompt) as served, connected(served.address) as client:
            for body in (b"1", b"2"):
                await client.send(post(body))
                assert (await client.answer()).body == body
            await client.send(post(b"3") + post(b"4"))
            assert [(await client.answer()).body for _ in range(2)] == [b"3", b"4"]
            await client.send(post(b"5") + b"6")
            assert (await client.answer()).body == b"5"
            assert (await client.answer()).status == 400
            assert await client.ended()
            assert site.at_once == [b"1", b"2", b"3", b"4", b"5"]

    run(conversation())


def test_a_head_with_another_length(run: Run) -> None:
    """Heads are told apart by every byte, the length of the body included."""

    async def conversation() -> None:
        site = Counting()
        async with serving(site.app, prompt=site.prompt) as served, connected(served.address) as client:
            for body in (b"1", b"2", b"34", b"5", b"67"):
                await client.send(post(body))
                assert (await client.answer()).body == body
            assert len(site.judged) == 3  # the first two of "1", as the first on a connection is parsed; and of "34"

    run(conversation())


def test_heads_that_never_repeat(run: Run) -> None:
    """Heads that are all different, or long, are answered like any other; the number of those remembered is bounded."""

    async def conversation() -> None:
        site = Counting()
        async with serving(site.app, prompt=site.prompt) as served, connected(served.address) as client:
            for number in range(2 * KNOWN_HEADS + 1):
                await client.send(post(b"1", f"X-Trace: {number}"))
                assert (await client.answer()).status == 202
            assert len(site.judged) == 2 * KNOWN_HEADS + 1
            await client.send(post(b"1", "X-Trace: 0"))  # forgotten
            assert (await client.answer()).status == 202
            assert len(site.judged) == 2 * KNOWN_HEADS + 2
            for _ in range(2):
                await client.send(post(b"1", f"X-Trace: {'0' * LONGEST_HEAD}"))
                assert (await client.answer()).status == 202
            assert len(site.judged) == 2 * KNOWN_HEADS + 4

    run(conversation())
