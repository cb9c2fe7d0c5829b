"""The status page: who sees it, and that nothing a peer chose becomes more than text."""

import asyncio
import base64
import hashlib
import re
from collections.abc import Awaitable, Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Final

import pytest

from exporter.app import App
from exporter.config import Address
from exporter.config.web_file import load_web_config
from exporter.events import BuildReturns, Closed, MassCloseEnded, Peer
from exporter.metrics.recorder import Recorder
from exporter.status import LONGEST_BUILD, Status, StatusBook
from exporter.web.doors import Doors, confides
from exporter.web.status import addressed_locally
from tests.support.loops import conversation
from tests.support.status_samples import CHAT, HERD, NEWEST, night
from tests.support.watching import configured, watching
from tests.web.guarded import ALICE, PASSWORD, Files, basic
from tests.web.support import Answer, connected, fetch, request, serving

Run = Callable[[Awaitable[None]], None]

HOSTILE: Final = {
    "script": "<script>window.owned = 1</script>",
    "style": "</style></title></textarea><style>body{display:none}</style>",
    "attribute": "\"' onmouseover=owned=1 x='",
    "image": "<img src=//evil.example/x onerror=owned=1>",
    "comment": "<!-- --> ]]> {{ 7 * 7 }} {% raw %} ${7*7}",
    "entity": "&lt;b&gt;&#x3c;&amp;",
    "bidi": "abc\u202egnp.exe\u2066\u200f",
    "control": "a\x00b\x1b[31mred\x9b1m\r\nline\x7f",
    "invisible": "zero\u200bwidth\ufeff\u2028separator\u00a0",
    "surrogate": "lone\ud800\udfff",
    "long": "W" * 100_000,
    "zalgo": "z" + "\u0301" * 300,
}


class Reader(HTMLParser):
    """What a browser makes of a page: its elements with their attributes, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in {"a", "b", "bdi", "time"}:
            self.texts.append(" ")

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join("".join(self.texts).split())

    def tags(self) -> set[str]:
        return {tag for tag, _ in self.elements}


def night_status() -> Status:
    recorder, book = night()
    return book.snapshot(recorder)


async def seen(status: Callable[[], Status] = night_status, host: str = "127.0.0.1") -> Answer:
    async with serving(status=status) as site:
        return await fetch(site, "/", host=host)


def is_status(answer: Answer) -> bool:
    """Either of the two pages, and which."""
    assert answer.status == 200
    landing = b"Why WebSocket connections die" in answer.body
    assert landing != (b'<h2 id="advice">What to do</h2>' in answer.body)
    return not landing


def test_the_page_is_whole(run: Run) -> None:
    """Advice, mass closes, every target with its closes and sizes, and the last closes, under real headings."""

    async def check() -> None:
        answer = await seen()
        assert is_status(answer)
        page = Reader(answer.body.decode())
        assert "As of 12 May 2026, 14:07:31 UTC." in page.text
        assert "Act now. 14:02 UTC, chat: 3,120 connections lost" in page.text
        assert "11 May, 11:19 UTC, chat: 2,980 connections lost to 1012 by the server" in page.text
        assert "acme-app/3 2,544 2,512 2,390 of 2,540 0.4 s immediate" in page.text
        assert "chat tap 1,358 open 14,642 closed since 9 May, 09:24 UTC" in page.text
        assert "1001 Going Away client 9,413 64 %" in page.text
        assert "4xxx 4000 to 4999, not listed client 1 < 1 %" in page.text
        assert (
            "client to server 4,177 messages, the largest of 1 MiB to 2 MiB. Limit: 1 MiB configured, seen between "
            "1,048,576 and 1,100,210 bytes."
        ) in page.text
        assert "4,140 messages, the largest of 128 KiB to 256 KiB; 240 compressed" in page.text
        assert "Refused with 1009, last 24 hours: 37 between 1.1 and 1.8 MiB, the last one 4 min ago" in page.text
        assert "Suspected, no 1009 was sent, last 24 hours: 2 of 4,194,304 bytes, the last one 85 min ago" in page.text
        assert "feed tap 12 open" in page.text
        assert "chat probe connected" in page.text
        assert "14:07:28 chat 1009 Message Too Big server 1.9 s message too big 203.0.113.24" in page.text
        assert "11 May 11:44:11 chat 4xxx 4000 to 4999, not listed client 8 s 👋 bis später" in page.text
        headings = [tag for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
        assert headings == ["h1", "h2", "h2", "h2", *["h3"] * 4, "h2"]

    run(check())


def test_an_empty_page_says_so(run: Run) -> None:
    """An exporter that has seen nothing yet has nothing wrong to show, and no empty table."""

    async def check() -> None:
        answer = await seen(lambda: StatusBook(lambda: 0.0).snapshot(Recorder(lambda: 0.0)))
        page = Reader(answer.body.decode())
        assert "Fine. No WebSocket has been seen yet." in page.text
        assert "None so far. A mass close is" in page.text
        assert "Nothing is tapped, probed or reported." in page.text
        assert "None was seen on the wire since the exporter started." in page.text
        assert "table" not in page.tags()

    run(check())


def test_the_page_loads_and_runs_nothing(run: Run) -> None:
    """One file: no script, no address of anything else, and a policy that forbids both; nobody keeps it."""

    async def check() -> None:
        answer = await seen()
        page = Reader(answer.body.decode())
        assert not page.tags() & {"script", "link", "img", "iframe", "object", "embed", "form", "base", "input"}
        attributes = {name for _, attrs in page.elements for name in attrs}
        assert attrs_that_act(attributes) == set()
        assert {attrs["href"] for tag, attrs in page.elements if tag == "a"} == {"", "/metrics"}
        assert "url(" not in answer.body.decode()
        assert "@import" not in answer.body.decode()
        fields = answer.fields
        assert fields["x-content-type-options"] == "nosniff"
        assert fields["cache-control"] == "no-store"
        assert fields["referrer-policy"] == "no-referrer"
        assert fields["cross-origin-resource-policy"] == "same-origin"
        (style,) = re.findall(rb"<style>(.*?)</style>", answer.body, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(style).digest()).decode()
        assert fields["content-security-policy"] == (
            f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'; "
            "frame-ancestors 'none'"
        )

    run(check())


def attrs_that_act(names: set[str]) -> set[str]:
    return {name for name in names if name.startswith("on") or name in {"src", "srcset", "style", "action", "ping"}}


def test_head_and_the_way_to_the_metrics(run: Run) -> None:
    """HEAD is the page without its body, and the link to the metrics is where they are."""

    async def check() -> None:
        async with serving(status=night_status, telemetry_path='/the"<metrics>') as site:
            async with connected(site.address) as client:
                await client.send(request("/", "HEAD", host="localhost"))
                answer = await client.answer(head_only=True)
                assert answer.status == 200
                assert int(answer.fields["content-length"]) > 10_000
                await client.send(request("/", host="localhost"))
                page = Reader((await client.answer()).body.decode())
            assert '/the"<metrics>' in {attrs["href"] for tag, attrs in page.elements if tag == "a"}

    run(check())


def hostile_status(text: str) -> Status:
    """Whatever a peer can choose, chosen badly."""
    recorder, book = night()
    closed = replace(NEWEST[0][1], reason=text, peer=Peer(text, text, text, text, text))
    recorder.emit(closed)
    book.emit(closed)
    book.emit(MassCloseEnded(replace(HERD, builds=(BuildReturns(text, 300, 300, 300, 300, 0.1, "immediate"),))))
    return book.snapshot(recorder)


@pytest.mark.parametrize("kind", HOSTILE)
def test_what_a_peer_chose_is_only_text(run: Run, kind: str) -> None:
    """Reasons, paths, hosts, user agents and builds add no element and no attribute, and hide nothing."""

    async def check() -> None:
        harmless = Reader((await seen(lambda: hostile_status("harmless"))).body.decode())
        answer = await seen(lambda: hostile_status(HOSTILE[kind]))
        body = answer.body.decode()
        page = Reader(body)
        assert page.elements == harmless.elements
        assert {tag for tag, _ in page.elements} == harmless.tags()
        assert [c for c in body if not c.isprintable() and c != "\n"] == []
        assert len(answer.body) < 200_000
        shown = {
            "bidi": "abc\\u202egnp.exe\\u2066\\u200f",
            "control": "a\\x00b\\x1b[31mred\\x9b1m\\r\\nline\\x7f",
            "invisible": "zero\\u200bwidth\\ufeff\\u2028separator\\xa0",
            "surrogate": "lone\\ud800\\udfff",
            "long": "W" * 253 + "...",
            "zalgo": "z" + "\u0301" * 252 + "...",
        }.get(kind, HOSTILE[kind])
        assert page.texts.count(shown) == (4 if len(HOSTILE[kind]) <= LONGEST_BUILD else 3)  # with the build's name
        assert shown + shown in page.texts  # host and path

    run(check())


def test_a_fault_of_ours_says_nothing_of_it(run: Run) -> None:
    """A page that cannot be made is a 500 in the one shape, and the next one is made."""
    snapshots: list[Callable[[], Status]] = [night_status, fail]

    async def check() -> None:
        async with serving(status=lambda: snapshots.pop()()) as site:
            answer = await fetch(site, "/", host="localhost")
            assert (answer.status, answer.error["error"]) == (500, "internal_error")
            assert is_status(await fetch(site, "/", host="localhost"))

    run(check())


def fail() -> Status:
    raise RuntimeError("secret")


LOCAL: Final = (
    "localhost",
    "LocalHost:11009",
    "localhost:",
    "127.0.0.1",
    "127.0.0.1:11009",
    "127.8.8.8",
    "[::1]",
    "[::1]:11009",
    "[::FFFF:127.0.0.1]:80",
)
FOREIGN: Final = (
    "exporter.test",
    "evil.example:11009",
    "localhost.evil.example",
    "evil.localhost",
    "192.0.2.7:80",
    "[2001:DB8::7]:80",
    "localhost.",
    "127.0.0.1.evil.example",
    "127.0.0.1.",
    "127.1",
    "2130706433",
    "0x7f.0.0.1",
    "[::1",
    "::1",
    "[127.0.0.1]x",
    "[fe80::1%25lo]",
    "localhost:80:80",
    "localhost:http",
    "",
)


@pytest.mark.parametrize("host", [*LOCAL, *FOREIGN])
def test_an_unguarded_page_is_for_local_names_alone(run: Run, host: str) -> None:
    """A web page elsewhere can have its own name point here (DNS rebinding): it gets the landing page."""

    async def check() -> None:
        async with serving(status=night_status) as site, connected(site.address) as client:
            await client.send(request("/", host=host))
            assert is_status(await client.answer()) == (host in LOCAL)

    run(check())


@pytest.mark.parametrize(
    ("server", "headers", "seen"),
    [
        (("127.0.0.1", 80), [(b"host", b"localhost")], True),
        (("::1", 80), [(b"host", b"[::1]:80")], True),
        (("::ffff:127.0.0.1", 80), [(b"host", b"127.0.0.1")], True),
        (("192.0.2.7", 80), [(b"host", b"192.0.2.7")], False),
        (None, [(b"host", b"localhost")], False),
        (("127.0.0.1", 80), [], False),
        (("127.0.0.1", 80), [(b"host", b"localhost"), (b"host", b"localhost")], False),
        (("127.0.0.1", 80), [(b"host", b"localhost\xff")], False),
        (("127.0.0.1", 80), [(b"host", b"8.8.8.8")], False),
        (("127.0.0.1", 80), [(b"host", b"127.0.0.1"), (b"x-forwarded-for", b"203.0.113.9")], False),
        (("127.0.0.1", 80), [(b"host", b"127.0.0.1"), (b"x-forwarded-proto", b"https")], False),
        (("127.0.0.1", 80), [(b"host", b"127.0.0.1"), (b"x-real-ip", b"203.0.113.9")], False),
        (("127.0.0.1", 80), [(b"host", b"127.0.0.1"), (b"forwarded", b"for=203.0.113.9")], False),
        (("127.0.0.1", 80), [(b"host", b"127.0.0.1"), (b"via", b"1.1 proxy")], False),
    ],
)
def test_what_counts_as_local(server: tuple[str, int] | None, headers: list[tuple[bytes, bytes]], seen: bool) -> None:
    """The connection came over loopback, exactly one Host says so, and no proxy passed the request on."""
    assert addressed_locally({"type": "http", "server": server, "headers": headers}) is seen


def test_behind_authentication_any_name_will_do(run: Run) -> None:
    """Whoever has shown who they are may have come by any name."""

    async def check() -> None:
        async with serving(status=night_status, status_local_only=False) as site:
            assert is_status(await fetch(site, "/", host="exporter.example.com"))

    run(check())


def test_without_a_status_there_is_the_landing_page(run: Run) -> None:
    """It tells nothing of what is tapped, whatever the name."""

    async def check() -> None:
        async with serving() as site:
            assert not is_status(await fetch(site, "/", host="localhost"))

    run(check())


@pytest.mark.parametrize(
    ("host", "confided"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("localhost", True),
        ("::1", True),
        ("", False),
        ("0.0.0.0", False),
        ("::", False),
        ("192.0.2.7", False),
        ("exporter.example.com", False),
    ],
)
def test_an_open_door_confides_on_loopback_alone(host: str, confided: bool) -> None:
    """Without authentication only a listener that no other machine reaches shows paths and reasons."""
    assert confides(Doors(), Address(host, 11009)) is confided


@pytest.mark.parametrize(
    ("settings", "confided"),
    [
        (lambda files: ALICE, True),
        (lambda files: files.tls(), False),
        (lambda files: files.tls(client_auth_type="RequireAndVerifyClientCert", client_ca_file="ca.pem"), True),
        (lambda files: files.tls(client_auth_type="VerifyClientCertIfGiven", client_ca_file="ca.pem"), False),
        (lambda files: files.tls() | ALICE, True),
    ],
    ids=["password", "tls", "verified-certificate", "certificate-if-given", "tls-and-password"],
)
def test_a_guarded_door_confides_to_those_who_have_shown_who_they_are(
    tmp_path: Path, settings: Callable[[Files], dict[str, object]], confided: bool
) -> None:
    """TLS alone hides nothing from a stranger."""
    files = Files(tmp_path)
    doors = Doors(load_web_config(files.write(settings(files))))
    assert confides(doors, Address("0.0.0.0", 11009)) is confided


async def front(app: App, host: str, *fields: str) -> tuple[int, str]:
    """The front page of a running exporter, wherever it listens."""
    async with connected(Address("127.0.0.1", app.web_address.port)) as client:
        await client.send(request("/", "GET", *fields, host=host))
        answer = await client.answer()
        return answer.status, answer.body.decode()


class TestExporter:
    @conversation
    async def test_on_loopback(self) -> None:
        """A whole exporter on loopback shows its status to local names, and a close as soon as it was counted."""
        async with watching(Address("127.0.0.1", 1)) as exporter:
            for sink in exporter.app.recorder, exporter.app.book:
                sink.emit(Closed(CHAT, "1001", "going_away", "server", 2.0, 1001, "<b>deploy</b>"))
            status, page = await front(exporter.app, "localhost")
            assert status == 200
            assert "&lt;b&gt;deploy&lt;/b&gt;" in page
            _, page = await front(exporter.app, "evil.example")
            assert "deploy" not in page
            assert "Why WebSocket connections die" in page

    @conversation
    async def test_on_all_interfaces(self) -> None:
        """Where others can come, unasked, nothing is shown to anyone, also not over loopback."""
        async with watching(Address("127.0.0.1", 1), web_listen_address=Address("", 0)) as exporter:
            _, page = await front(exporter.app, "localhost")
            assert "Why WebSocket connections die" in page
            assert "chat" not in page

    def test_behind_a_password(self, tmp_path: Path) -> None:
        """Where everyone has to log in, everyone who did sees it, by any name."""
        files = Files(tmp_path)

        @conversation
        async def check() -> None:
            settings = configured(Address("127.0.0.1", 1), web_listen_address=Address("", 0))
            app = App(settings, doors=Doors(load_web_config(files.write(ALICE))))
            await app.open()
            async with asyncio.TaskGroup() as tasks:
                running = tasks.create_task(app.run())
                status, page = await front(app, "exporter.example.com")
                assert status == 401
                assert "chat" not in page
                status, page = await front(app, "exporter.example.com", basic("alice", PASSWORD))
                assert status == 200
                assert "chat" in page
                running.cancel()

        check()
