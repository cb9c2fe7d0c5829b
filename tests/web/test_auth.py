"""Basic authentication, the rate limit and the headers of a web configuration file, on real sockets."""

import asyncio
import base64
import itertools
import threading
from pathlib import Path
from typing import Any, Final

import bcrypt
import pytest
from starlette.types import Receive, Scope, Send
from structlog.testing import capture_logs

from exporter.web import passwords as module
from exporter.web.auth import credentials, guard
from exporter.web.errors import ERRORS, ErrorAnswers
from exporter.web.health import check
from exporter.web.passwords import CLIENTS, GUESSES, HASHED_AT_ONCE, WAITING, Bucket, Passwords, Refusal
from exporter.web.protocol import Limits
from tests.support.loops import conversation, eventually, in_both_loops
from tests.web.guarded import ALICE, HASH, PASSWORD, Comparisons, Files, basic, guarding
from tests.web.support import Answer, Client, connected, fetch, request

RIGHT: Final = basic("alice", PASSWORD)
WRONG: Final = Refusal("unauthorized")
USERS: Final = {"alice": HASH.encode()}


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def assert_refused(answer: Answer, status: int, token: Any) -> None:
    assert answer.status == status
    assert answer.error == {"error": token, "detail": ERRORS[token].detail}
    assert (answer.fields.get("www-authenticate") == 'Basic realm="websocket-exporter"') == (status == 401)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


# -- who gets in


@in_both_loops
@conversation
async def test_every_path_wants_a_password(loop: str, files: Files) -> None:
    """Also those that tell nothing, those that do not exist, and health."""
    async with guarding(files.gate(ALICE)) as site:
        for path in ("/metrics", "/-/healthy", "/-/ready", "/", "/nothing"):
            assert_refused(await fetch(site, path), 401, "unauthorized")
        assert_refused(await fetch(site, "/-/reload", "POST"), 401, "unauthorized")
        assert site.errors == {"unauthorized": 6}
        assert (await fetch(site, "/metrics", "GET", RIGHT)).status == 200
        assert (await fetch(site, "/nothing", "GET", RIGHT)).status == 404
        head = await fetch(site, "/metrics", "HEAD")
        assert (head.status, head.body) == (401, b"")
        assert [client for client, _ in site.scrapes] == ["127.0.0.1"]


@pytest.mark.parametrize(
    "fields",
    [
        (),
        ("Authorization: Basic",),
        ("Authorization: Basic ",),
        ("Authorization: Basic %%%",),
        ("Authorization: Basic YWxpY2U=",),
        ("Authorization: Basic " + base64.b64encode(b"\xff:" + PASSWORD.encode()).decode(),),
        ("Authorization: Bearer " + RIGHT.split()[-1],),
        ("Authorization: " + RIGHT.split()[-1],),
        ("Proxy-" + RIGHT,),
        (RIGHT, RIGHT),
        (RIGHT + ",",),
    ],
)
@conversation
async def test_what_is_no_user_and_password_is_refused_at_once(files: Files, fields: tuple[str, ...]) -> None:
    """Nothing is hashed for a request that cannot be right."""
    comparisons = Comparisons()
    async with guarding(files.gate(ALICE, Passwords(matches=comparisons))) as site:
        assert_refused(await fetch(site, "/metrics", "GET", *fields), 401, "unauthorized")
    assert comparisons.made == []


@pytest.mark.parametrize(
    ("user", "password"),
    [
        ("alice", "with:colon"),
        ("alice", ""),
        ("\N{LATIN SMALL LETTER E WITH ACUTE}ve", "\N{EURO SIGN}"),
        ("alice", b"\xff\xfe"),
        ("alice", b"with\0nul"),
        ("a b", " "),
    ],
)
@conversation
async def test_users_and_passwords_are_any_text(files: Files, user: str, password: str | bytes) -> None:
    """Whatever RFC 7617 can carry; only the user's name is UTF-8 for certain."""
    raw = password.encode() if isinstance(password, str) else password
    hashed = bcrypt.hashpw(raw, bcrypt.gensalt(4)).decode()
    async with guarding(files.gate({"basic_auth_users": {user: hashed}})) as site:
        assert (await fetch(site, "/metrics", "GET", basic(user, password))).status == 200
        assert_refused(await fetch(site, "/metrics", "GET", basic(user, raw + b"x")), 401, "unauthorized")


@conversation
async def test_passwords_count_up_to_72_bytes(files: Files) -> None:
    """That is bcrypt; what the toolkit lets in gets in here."""
    hashed = bcrypt.hashpw(b"x" * 72, bcrypt.gensalt(4)).decode()
    async with guarding(files.gate({"basic_auth_users": {"alice": hashed}})) as site:
        assert (await fetch(site, "/metrics", "GET", basic("alice", "x" * 80))).status == 200
        assert (await fetch(site, "/metrics", "GET", basic("alice", "x" * 71))).status == 401


@pytest.mark.parametrize("scheme", ["basic", "BASIC", "Basic  "])
def test_the_scheme_is_read_as_rfc_9110_says(scheme: str) -> None:
    """In any case (section 11.1), with any number of spaces."""
    fields = [(b"authorization", f"{scheme} {RIGHT.split()[-1]}".encode())]
    assert credentials({"headers": fields}) == ("alice", PASSWORD.encode())


@conversation
async def test_without_users_nobody_is_asked(files: Files) -> None:
    """A file that only sets headers guards nothing."""
    async with guarding(files.gate({"http_server_config": {"http2": False}})) as site:
        assert (await fetch(site, "/metrics")).status == 200
        assert site.errors == {}


# -- what it costs


@conversation
async def test_an_unknown_user_costs_what_a_known_one_does() -> None:
    """Exactly one comparison each, with a hash that is there: neither time nor cost tells who exists."""
    comparisons = Comparisons()
    passwords = Passwords(matches=comparisons)
    users = {**USERS, "bob": bcrypt.hashpw(b"bob's", bcrypt.gensalt(5))}
    assert await passwords.refusal(users, "alice", b"wrong", "10.0.0.1") == WRONG
    assert await passwords.refusal(users, "mallory", b"wrong", "10.0.0.1") == WRONG
    assert [hashed in users.values() for _, hashed in comparisons.made] == [True, True]
    for number in range(50):
        await passwords.refusal(users, f"stranger {number}", b"wrong", f"10.0.1.{number}")
    assert {hashed for _, hashed in comparisons.made[2:]} == set(users.values())
    assert len(comparisons.made) == 52


@conversation
async def test_an_unknown_user_is_always_compared_with_the_same_hash() -> None:
    """Asking twice tells no more than asking once."""
    comparisons = Comparisons()
    passwords = Passwords(matches=comparisons)
    users = {str(number): bcrypt.hashpw(b"x", bcrypt.gensalt(4)) for number in range(8)}
    for _ in range(4):
        await passwords.refusal(users, "mallory", b"wrong", "10.0.0.1")
    assert len({hashed for _, hashed in comparisons.made}) == 1


@conversation
async def test_the_password_of_another_lets_no_unknown_user_in() -> None:
    """Although it matches the hash that it was compared with."""
    passwords = Passwords()
    for at_once in (1, 3):
        asked = [passwords.refusal(USERS, "mallory", PASSWORD.encode(), "10.0.0.1") for _ in range(at_once)]
        assert await asyncio.gather(*asked) == [WRONG] * at_once
    assert passwords.remembered == 0


@in_both_loops
@conversation
async def test_what_was_right_is_not_hashed_again(loop: str, files: Files) -> None:
    """A scraper costs one hash in the life of the process; wrong passwords are hashed each time."""
    comparisons = Comparisons()
    async with guarding(files.gate(ALICE, Passwords(matches=comparisons))) as site:
        for _ in range(3):
            assert (await fetch(site, "/metrics", "GET", RIGHT)).status == 200
        assert len(comparisons.made) == 1
        for _ in range(2):
            assert (await fetch(site, "/metrics", "GET", basic("alice", "wrong"))).status == 401
        assert len(comparisons.made) == 3
        assert (await fetch(site, "/metrics", "GET", RIGHT)).status == 200
        assert len(comparisons.made) == 3


@conversation
async def test_no_more_is_remembered_than_there_are_users() -> None:
    """One digest for each, and none for a user who is gone or has another password."""
    comparisons = Comparisons()
    passwords = Passwords(matches=comparisons)
    users = {str(number): bcrypt.hashpw(b"x" * 72, bcrypt.gensalt(4)) for number in range(3)}
    for user, tail in itertools.product(users, range(5)):
        assert await passwords.refusal(users, user, b"x" * 72 + bytes(tail), "10.0.0.1") is None
    assert passwords.remembered == 3
    changed = {**users, "0": bcrypt.hashpw(b"new", bcrypt.gensalt(4))}
    assert await passwords.refusal(changed, "0", b"x" * 72, "10.0.0.1") == WRONG
    assert await passwords.refusal(changed, "0", b"new", "10.0.0.1") is None
    fewer = {"1": users["1"]}
    assert await passwords.refusal(fewer, "2", b"x" * 72, "10.0.0.1") == WRONG
    assert passwords.remembered == 1


@conversation
async def test_what_is_remembered_is_no_password() -> None:
    """Nor anything that could be compared with a list of hashed passwords: the digest is keyed."""
    first, second = Passwords(), Passwords()
    for passwords in (first, second):
        await passwords.refusal(USERS, "alice", PASSWORD.encode(), "10.0.0.1")
        assert PASSWORD not in repr(vars(passwords))
    assert first._right["alice"] != second._right["alice"]


@conversation
async def test_the_same_request_many_times_at_once_is_hashed_once() -> None:
    """A sender that opens a hundred connections when it starts is one client with one password."""
    comparisons = Comparisons()
    passwords = Passwords(matches=comparisons)
    asked = [passwords.refusal(USERS, "alice", PASSWORD.encode(), "10.0.0.1") for _ in range(100)]
    assert await asyncio.gather(*asked) == [None] * 100
    wrong = [passwords.refusal(USERS, "alice", b"wrong", "10.0.0.1") for _ in range(100)]
    assert await asyncio.gather(*wrong) == [WRONG] * 100
    assert len(comparisons.made) == 2


@conversation
async def test_who_gives_up_waiting_does_not_fail_the_others() -> None:
    """One of two that wait for the same comparison may be cancelled."""
    going = threading.Event()

    def slow(password: bytes, hashed: bytes) -> bool:
        return going.wait(10)

    passwords = Passwords(matches=slow)
    async with asyncio.TaskGroup() as tasks:
        first, second, third = (
            tasks.create_task(passwords.refusal(USERS, "alice", b"any", "10.0.0.1")) for _ in range(3)
        )
        await asyncio.sleep(0)
        second.cancel()
        await asyncio.sleep(0)
        going.set()
    assert (first.result(), third.result(), second.cancelled()) == (None, None, True)


@conversation
async def test_what_was_right_for_users_who_are_no_more_is_not_remembered() -> None:
    """The file may change while a password is being hashed: that request was let in, the next one is asked again."""
    going, comparisons = threading.Event(), Comparisons()

    def slow(password: bytes, hashed: bytes) -> bool:
        going.wait(10)
        return comparisons(password, hashed)

    passwords = Passwords(matches=slow)
    async with asyncio.TaskGroup() as tasks:
        before = tasks.create_task(passwords.refusal(USERS, "alice", PASSWORD.encode(), "10.0.0.1"))
        await eventually(lambda: passwords._checking)
        after = tasks.create_task(passwords.refusal({"bob": USERS["alice"]}, "alice", b"x", "10.0.0.1"))
        await asyncio.sleep(0)
        going.set()
    assert (before.result(), after.result(), passwords.remembered) == (None, WRONG, 0)


# -- guessing


@conversation
async def test_a_client_has_so_many_guesses() -> None:
    """Then it is told when the next one is its own; it gets them back one by one."""
    clock, comparisons = Clock(), Comparisons()
    passwords = Passwords(clock, comparisons)
    for number in range(GUESSES):
        assert await passwords.refusal(USERS, "alice", b"%d" % number, "10.0.0.1") == WRONG
    assert await passwords.refusal(USERS, "alice", b"more", "10.0.0.1") == Refusal("rate_limited", 10)
    assert len(comparisons.made) == GUESSES
    clock.now += 4.5
    assert await passwords.refusal(USERS, "alice", b"more", "10.0.0.1") == Refusal("rate_limited", 6)
    clock.now += 5.5
    assert await passwords.refusal(USERS, "alice", b"more", "10.0.0.1") == WRONG
    assert await passwords.refusal(USERS, "alice", b"more", "10.0.0.1") == Refusal("rate_limited", 10)
    assert await passwords.refusal(USERS, "alice", b"more", "10.0.0.2") == WRONG


@conversation
async def test_what_is_right_is_no_guess() -> None:
    """A hundred users may come from one address."""
    passwords = Passwords(Clock())
    users = {str(number): bcrypt.hashpw(b"x", bcrypt.gensalt(4)) for number in range(3 * GUESSES)}
    for user in users:
        assert await passwords.refusal(users, user, b"x", "10.0.0.1") is None


@conversation
async def test_who_is_known_is_let_in_whoever_else_guesses_there() -> None:
    """Behind one address, a scraper is not locked out by its neighbour."""
    passwords = Passwords(Clock())
    assert await passwords.refusal(USERS, "alice", PASSWORD.encode(), "10.0.0.1") is None
    for number in range(GUESSES + 1):
        await passwords.refusal(USERS, "alice", b"%d" % number, "10.0.0.1")
    assert await passwords.refusal(USERS, "alice", b"wrong", "10.0.0.1") == Refusal("rate_limited", 10)
    assert await passwords.refusal(USERS, "alice", PASSWORD.encode(), "10.0.0.1") is None


@conversation
async def test_all_guesses_together_have_a_share_of_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many addresses they come from: what they used too much has to be saved up again."""
    monkeypatch.setattr(module, "SAVED", 1e-6)
    clock = Clock()
    passwords = Passwords(clock)
    assert await passwords.refusal(USERS, "alice", PASSWORD.encode(), "10.0.0.9") is None
    assert await passwords.refusal(USERS, "alice", b"wrong", "10.0.0.1") == WRONG
    refusal = await passwords.refusal(USERS, "alice", b"wrong", "10.0.0.2")
    assert refusal is not None
    assert refusal.token == "rate_limited"
    assert await passwords.refusal(USERS, "alice", PASSWORD.encode(), "10.0.0.9") is None
    clock.now += 1.0  # a tenth of a second of the processor, for a hash of one millisecond
    assert await passwords.refusal(USERS, "alice", b"wrong", "10.0.0.2") == WRONG


@conversation
async def test_few_are_hashed_at_once_and_few_wait() -> None:
    """More are refused as overload, and lose no guess by it."""
    going = threading.Event()
    lock = threading.Lock()
    at_once, most = 0, 0

    def slow(password: bytes, hashed: bytes) -> bool:
        nonlocal at_once, most
        with lock:
            at_once += 1
            most = max(most, at_once)
        going.wait(10)
        with lock:
            at_once -= 1
        return False

    passwords = Passwords(Clock(), slow)
    room = HASHED_AT_ONCE + WAITING
    async with asyncio.TaskGroup() as tasks:
        asked = [
            tasks.create_task(passwords.refusal(USERS, "alice", b"%d" % number, f"10.0.0.{number}"))
            for number in range(room + 5)
        ]
        await eventually(lambda: sum(task.done() for task in asked) == 5)
        assert {task.result() for task in asked if task.done()} == {Refusal("overloaded")}
        going.set()
    assert sum(task.result() == WRONG for task in asked) == room
    assert most == HASHED_AT_ONCE


@conversation
async def test_guesses_are_remembered_for_so_many_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    """The memory that strangers can fill is bounded; an IPv6 client is its /64."""
    passwords = Passwords(Clock(), lambda password, hashed: False)
    for number in range(CLIENTS + 100):
        await passwords.refusal(USERS, "alice", b"x", f"10.{number // 65536}.{number // 256 % 256}.{number % 256}")
    assert len(passwords._guesses) == CLIENTS
    passwords = Passwords(Clock(), lambda password, hashed: False)
    for number in range(GUESSES):
        assert await passwords.refusal(USERS, "alice", b"x", f"2001:db8::{number:x}") == WRONG
    assert await passwords.refusal(USERS, "alice", b"x", "2001:db8::ffff") == Refusal("rate_limited", 10)
    assert await passwords.refusal(USERS, "alice", b"x", "2001:db8:0:1::") == WRONG
    assert await passwords.refusal(USERS, "alice", b"x", "") == WRONG


@conversation
async def test_guessing_is_one_line_a_minute() -> None:
    """The log names the client, not what it tried."""
    clock = Clock()
    passwords = Passwords(clock, lambda password, hashed: False)
    with capture_logs() as lines:
        for _ in range(2):
            for number in range(3 * GUESSES):
                await passwords.refusal(USERS, "alice", b"%d" % number, "10.0.0.1")
            clock.now += 60
    line = {"event": "too many wrong passwords", "client": "10.0.0.1", "log_level": "warning"}
    assert lines == [line, line]


@conversation
async def test_a_broken_hash_is_our_fault_and_nobody_waits_for_it() -> None:
    """Whoever asked is answered with an error; the next one is asked anew."""

    def broken(password: bytes, hashed: bytes) -> bool:
        raise ValueError("Invalid salt")

    passwords = Passwords(matches=broken)
    for _ in range(2):
        with pytest.raises(ValueError, match="Invalid salt"):
            await passwords.refusal(USERS, "alice", b"x", "10.0.0.1")


@in_both_loops
@conversation
async def test_a_crowd_of_guessers_leaves_the_scraper_its_answers(loop: str, files: Files) -> None:
    """200 connections with a wrong password each: at most ten are hashed, and /metrics is answered meanwhile."""
    comparisons = Comparisons()
    hashed = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(10)).decode()
    gate = files.gate({"basic_auth_users": {"alice": hashed}}, Passwords(matches=comparisons))
    async with guarding(gate) as site, connected(site.address) as scraper:
        await scraper.send(request("/metrics", "GET", RIGHT))
        assert (await scraper.answer()).status == 200
        async with asyncio.TaskGroup() as tasks:
            guessers = [
                tasks.create_task(fetch(site, "/metrics", "GET", basic("alice", f"guess {number}")))
                for number in range(200)
            ]
            slowest = 0.0
            while not all(guesser.done() for guesser in guessers):
                begun = asyncio.get_running_loop().time()
                await scraper.send(request("/metrics", "GET", RIGHT))
                assert (await scraper.answer()).status == 200
                slowest = max(slowest, asyncio.get_running_loop().time() - begun)
                await asyncio.sleep(0.001)
        statuses = [guesser.result().status for guesser in guessers]
        assert set(statuses) == {401, 429}
        assert statuses.count(401) == GUESSES
        waits = [int(guesser.result().fields["retry-after"]) for guesser in guessers if guesser.result().status == 429]
        assert set(waits) <= set(range(1, 11))
        assert len(comparisons.made) == 1 + GUESSES
        assert slowest < 5.0  # all of this in one process, on whatever machine


# -- before the body


async def small(scope: Scope, receive: Receive, send: Send) -> None:
    """Reads the body, and says how long it was."""
    size, more = 0, True
    while more:
        message = await receive()
        size += len(message.get("body", b""))
        more = message.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(str(size)))]})
    await send({"type": "http.response.body", "body": str(size).encode()})


@in_both_loops
@conversation
async def test_a_stranger_is_refused_before_the_body_and_may_try_again(loop: str, files: Files) -> None:
    """The connection stays: the body of the refused request is skipped, and the next one is handled."""
    async with guarding(files.gate(ALICE), small) as site, connected(site.address) as client:
        await client.send(request("/", "POST", "Content-Length: 10"))
        assert_refused(await client.answer(), 401, "unauthorized")
        await client.send(b"0123456789" + request("/", "POST", RIGHT, "Content-Length: 3") + b"abc")
        assert (await client.answer()).body == b"3"
        await client.send(request("/", "POST", "Transfer-Encoding: chunked") + b"3\r\nabc\r\n")
        assert_refused(await client.answer(), 401, "unauthorized")
        await client.send(b"0\r\n\r\n", request("/", "POST", RIGHT))
        assert (await client.answer()).body == b"0"


@in_both_loops
@conversation
async def test_a_stranger_is_not_told_to_continue(loop: str, files: Files) -> None:
    """Whether the body still comes cannot be known then: the connection ends (RFC 9110 section 10.1.1)."""
    async with guarding(files.gate(ALICE), small) as site:
        async with connected(site.address) as client:
            await client.send(request("/", "POST", "Content-Length: 3", "Expect: 100-continue"))
            answer = await client.answer()
            assert_refused(answer, 401, "unauthorized")
            assert answer.fields["connection"] == "close"
            assert await client.ended()
        async with connected(site.address) as client:
            await client.send(request("/", "POST", "Content-Length: 3", "Expect: 100-continue", RIGHT))
            assert await client.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            await client.send(b"abc")
            assert (await client.answer()).body == b"3"


async def refused_with_body(client: Client, body: bytes = b"abc") -> None:
    await client.send(request("/", "POST", f"Content-Length: {len(body)}"))
    assert (await client.answer()).status == 401
    await client.send(body)


@in_both_loops
@conversation
async def test_time_limits_hold_after_an_early_answer(loop: str, files: Files) -> None:
    """A body that does not come, a next request that does not come, and one that comes in part: none is waited for."""
    async with guarding(files.gate(ALICE), small, Limits(body_stall=0.2)) as site, connected(site.address) as client:
        await client.send(request("/", "POST", "Content-Length: 10") + b"0")
        assert (await client.answer()).status == 401
        assert await client.ended()
    async with guarding(files.gate(ALICE), small, Limits(idle=1)) as site, connected(site.address) as client:
        await refused_with_body(client)
        assert await client.ended()
    async with guarding(files.gate(ALICE), small, Limits(head_time=0.2)) as site, connected(site.address) as client:
        await refused_with_body(client, b"abc")
        await client.send(b"GET / HTTP/1.1\r\n")
        assert (await client.answer()).status == 408
    async with guarding(files.gate(ALICE), small, Limits(head_time=0.2)) as site, connected(site.address) as client:
        await client.send(request("/", "POST", "Content-Length: 3"))
        assert (await client.answer()).status == 401
        await client.send(b"abcGET / HTTP/1.1\r\n")
        assert (await client.answer()).status == 408


@conversation
async def test_a_head_behind_a_skipped_body_has_the_same_limit(files: Files) -> None:
    """Even where both come in one segment."""
    padding = "X-Padding: " + "x" * 16 * 1024
    async with guarding(files.gate(ALICE), small, Limits(body=64 * 1024)) as site, connected(site.address) as client:
        await client.send(request("/", "POST", "Content-Length: 3"))
        assert (await client.answer()).status == 401
        await client.send(b"abc" + request("/", "GET", RIGHT, padding))
        assert (await client.answer()).error["error"] == "head_too_large"


@conversation
async def test_an_idle_limit_does_not_cut_the_request_that_ends_it(files: Files) -> None:
    """A request in the same segment as a skipped body is handled for as long as it takes."""
    slow = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await slow.wait()
        await small(scope, receive, send)

    async with guarding(files.gate(ALICE), app, Limits(idle=1)) as site, connected(site.address) as client:
        await client.send(request("/", "POST", "Content-Length: 3"))
        assert (await client.answer()).status == 401
        await client.send(b"abc" + request("/", "GET", RIGHT))
        asyncio.get_running_loop().call_later(1.2, slow.set)
        assert (await client.answer()).status == 200


# -- rate_limit


@conversation
async def test_the_rate_limit_counts_every_request(files: Files) -> None:
    """Whoever asks, and whatever for; Retry-After says when the next one passes."""
    clock = Clock()
    gate = files.gate({**ALICE, "rate_limit": {"interval": "10s", "burst": 3}})
    guarded = guard(small, gate, ErrorAnswers(lambda _: None), clock)
    async with guarding(files.gate({}), guarded) as site:
        assert [(await fetch(site, "/", "GET", *fields)).status for fields in ((RIGHT,), (), (RIGHT,))] == [
            200,
            401,
            200,
        ]
        answer = await fetch(site, "/", "GET", RIGHT)
        assert_refused(answer, 429, "rate_limited")
        assert answer.fields["retry-after"] == "10"
        clock.now += 9.5
        assert (await fetch(site, "/", "GET", RIGHT)).fields["retry-after"] == "1"
        clock.now += 0.5
        assert (await fetch(site, "/", "GET", RIGHT)).status == 200
        assert (await fetch(site, "/", "GET", RIGHT)).status == 429
        clock.now += 1000
        assert [(await fetch(site, "/", "GET", RIGHT)).status for _ in range(4)] == [200, 200, 200, 429]


@conversation
async def test_the_rate_limit_can_change(files: Files) -> None:
    """A new limit begins full; none lets everything pass."""
    async with guarding(files.gate({"rate_limit": {"interval": "1h", "burst": 1}})) as site:
        assert [(await fetch(site, "/metrics")).status for _ in range(2)] == [200, 429]
        files.write({"rate_limit": {"interval": "1h", "burst": 2}})
        assert [(await fetch(site, "/metrics")).status for _ in range(3)] == [200, 200, 429]
        files.write({})
        assert [(await fetch(site, "/metrics")).status for _ in range(3)] == [200, 200, 200]


def test_a_bucket_holds_what_it_can() -> None:
    """It fills with time, never beyond its size, and may be owed."""
    clock = Clock()
    bucket = Bucket(2, 0.5, clock)
    assert bucket.wait() == 0
    bucket.take(5)
    assert bucket.wait() == pytest.approx(8)
    assert bucket.wait(0) == pytest.approx(6)
    bucket.take(-1)
    assert bucket.wait() == pytest.approx(6)
    clock.now += 1e9
    assert bucket.wait(2) == 0
    assert bucket.wait(3) == pytest.approx(2)


# -- headers


HEADERS: Final = {
    "Strict-Transport-Security": "max-age=60",
    "X-Frame-Options": "deny",
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'self'",
}


@in_both_loops
@conversation
async def test_headers_are_in_every_answer_once(loop: str, files: Files) -> None:
    """Also in those to what was no request; the pages' own give way."""
    gate = files.gate({**ALICE, "http_server_config": {"headers": HEADERS}})
    async with guarding(gate) as site:
        answers = [
            await fetch(site, "/", "GET", RIGHT),
            await fetch(site, "/metrics", "GET", RIGHT),
            await fetch(site, "/nothing", "GET", RIGHT),
            await fetch(site, "/"),
        ]
        async with connected(site.address) as client:
            await client.send(b"no request\r\n\r\n")
            answers.append(await client.answer())
        assert [answer.status for answer in answers] == [200, 200, 404, 401, 400]
        for answer in answers:
            assert {name: answer.fields[name.lower()] for name in HEADERS} == HEADERS


@conversation
async def test_headers_can_change(files: Files) -> None:
    """Within a second or so."""
    async with guarding(files.gate({"http_server_config": {"headers": {"X-Frame-Options": "deny"}}})) as site:
        assert (await fetch(site, "/-/healthy")).fields["x-frame-options"] == "deny"
        files.write({"http_server_config": {"headers": {"X-Frame-Options": "sameorigin"}}})

        async def changed() -> bool:
            return (await fetch(site, "/-/healthy")).fields["x-frame-options"] == "sameorigin"

        assert await eventually(changed)


# -- changes of the file


@in_both_loops
@conversation
async def test_users_change_with_the_file(loop: str, files: Files) -> None:
    """The next request after a change sees it; a password that was right before is not remembered for another hash."""
    bob = bcrypt.hashpw(b"bob's", bcrypt.gensalt(4)).decode()
    async with guarding(files.gate(ALICE)) as site, connected(site.address) as client:

        async def status(*fields: str) -> int:
            await client.send(request("/metrics", "GET", *fields))
            return (await client.answer()).status

        assert (await status(RIGHT), await status(basic("bob", "bob's"))) == (200, 401)
        files.write({"basic_auth_users": {"alice": bob, "bob": bob}})
        assert (await status(RIGHT), await status(basic("bob", "bob's"))) == (401, 200)
        assert await status(basic("alice", "bob's")) == 200


@conversation
async def test_a_faulty_change_is_logged_once_and_changes_nothing(files: Files) -> None:
    """Until the next one; the log shows what is wrong, and no secret."""
    gate = files.gate(ALICE)
    async with guarding(gate) as site:
        with capture_logs() as lines:
            files.write({"basic_auth_users": {"alice": "swordfish"}})
            for _ in range(3):
                assert (await fetch(site, "/metrics", "GET", RIGHT)).status == 200
            files.path.unlink()
            for _ in range(3):
                assert (await fetch(site, "/metrics", "GET", RIGHT)).status == 200
            files.write({**ALICE, "http_server_config": {"http2": True}})
            for _ in range(3):
                assert (await fetch(site, "/metrics", "GET", RIGHT)).status == 200
        kept = {"event": "web configuration not read again, the old one stays in force", "log_level": "error"}
        why = "is not a bcrypt hash; its 60 characters begin with $2a$, $2b$ or $2y$"
        assert lines == [
            {**kept, "faults": [f"{files.path}: basic_auth_users.alice: {why}"]},
            {**kept, "faults": [f"cannot read {files.path}: no such file"]},
            {"event": "web configuration read again", "log_level": "info"},
        ]


@pytest.mark.parametrize("emptied", ["", "{}", "basic_auth_users:\n"])
@conversation
async def test_a_file_that_is_emptied_opens_no_door(files: Files, emptied: str) -> None:
    """A file that is just being written has no users for a moment: the old ones stay, until a restart."""
    async with guarding(files.gate(ALICE)) as site:
        with capture_logs() as lines:
            files.path.write_text(emptied)
            assert (await fetch(site, "/metrics")).status == 401
            assert (await fetch(site, "/metrics", "GET", RIGHT)).status == 200
        assert [line["faults"] for line in lines] == [
            [f"{files.path}: the removal of all basic_auth_users takes effect at a restart"]
        ]


@conversation
async def test_a_fault_of_ours_keeps_the_old_configuration(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever goes wrong while the file is read, requests are answered, and it is logged once per change."""

    def fail(path: Path) -> object:
        raise MemoryError

    gate = files.gate(ALICE)
    monkeypatch.setattr("exporter.web.gate.read_web_config", fail)
    files.write({**ALICE, "rate_limit": {}})
    with capture_logs() as lines:
        for _ in range(3):
            assert (await gate.look()).users == USERS
    assert [(line["log_level"], type(line["exc_info"])) for line in lines] == [("error", MemoryError)]


@conversation
async def test_a_crowd_reads_a_change_once(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests that come while it is being read wait for it."""
    from exporter.web import gate as gate_module

    gate = files.gate(ALICE)
    reads = []
    read = gate_module.read_web_config

    def counting(path: Path) -> object:
        reads.append(path)
        return read(path)

    monkeypatch.setattr(gate_module, "read_web_config", counting)
    files.write({"basic_auth_users": {"bob": HASH}})
    seen = await asyncio.gather(*(gate.look() for _ in range(50)))
    assert {tuple(config.users) for config in seen} == {("bob",)}
    assert len(reads) == 1


# -- health


@conversation
async def test_health_is_being_asked_for_a_password(files: Files) -> None:
    """An exporter that asks for one is alive; the check needs to know none."""
    async with guarding(files.gate(ALICE)) as site:
        url = f"http://{site.address}/-/healthy"
        assert await asyncio.to_thread(check, url) == (True, f"{url} is healthy, and asks for a password")
    async with guarding(files.gate({"rate_limit": {"interval": "1h", "burst": 1}})) as site:
        url = f"http://{site.address}/-/healthy"
        assert await asyncio.to_thread(check, url) == (True, f"{url} is healthy")
        assert await asyncio.to_thread(check, url) == (True, f"{url} is healthy, and asks to come less often")
