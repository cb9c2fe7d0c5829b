"""What `health` says of an exporter, in one sentence each."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from exporter.web.health import check
from tests.web.support import serving

Run = Callable[[Awaitable[None]], None]


def test_a_running_exporter_is_healthy(run: Run) -> None:
    """A 200 from /-/healthy is health."""

    async def asking() -> None:
        async with serving() as site:
            url = f"http://{site.address}/-/healthy"
            assert await asyncio.to_thread(check, url) == (True, f"{url} is healthy")

    run(asking())


def test_another_status_is_not_health(run: Run) -> None:
    """Whatever else is answered is told by its status, redirects included."""

    async def asking() -> None:
        async with serving(ready=lambda: False) as site:
            ready, nothing = f"http://{site.address}/-/ready", f"http://{site.address}?x"
            assert await asyncio.to_thread(check, ready) == (False, f"{ready} answered 503")
            assert await asyncio.to_thread(check, nothing) == (True, f"{nothing} is healthy")

    run(asking())


def test_nobody_there_is_a_refused_connection() -> None:
    """A port on which nobody listens refuses."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/-/healthy"
        assert check(url) == (False, f"{url} refused the connection")


def test_silence_is_a_timeout() -> None:
    """A process that accepts but does not answer, as a stopped one does, is not waited for longer than asked."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/-/healthy"
        assert check(url, timeout=0.1) == (False, f"{url} did not answer within 0.1 s")


@asynccontextmanager
async def answering(answer: bytes) -> AsyncIterator[str]:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (b"", "did not answer in HTTP"),
        (b"SSH-2.0-OpenSSH\r\n", "did not answer in HTTP"),
        (b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n", "answered 302"),
    ],
)
def test_what_is_no_exporter_is_told_apart(run: Run, answer: bytes, sentence: str) -> None:
    """Another protocol, an empty answer and a redirect are not health."""

    async def asking() -> None:
        async with answering(answer) as url:
            assert await asyncio.to_thread(check, url) == (False, f"{url} {sentence}")

    run(asking())


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("127.0.0.1:11009", "127.0.0.1:11009 is not an http:// or https:// URL"),
        ("file:///etc/passwd", "file:///etc/passwd is not an http:// or https:// URL"),
        ("http://", "http:// is not an http:// or https:// URL"),
        ("http://[::1", "http://[::1 is not a URL"),
        ("http://127.0.0.1:port/", "http://127.0.0.1:port/ is not a URL"),
        ("http://127.0.0.1/a b", "http://127.0.0.1/a b is not a URL"),
        ("http://nowhere.invalid/", "cannot reach http://nowhere.invalid/: "),
    ],
)
def test_a_url_that_leads_nowhere_is_said_so(url: str, sentence: str) -> None:
    """What is not a URL, or names nobody, fails with a sentence and without a traceback."""
    healthy, said = check(url, timeout=1.0)
    assert not healthy
    assert said.startswith(sentence)


def test_the_proxies_of_the_environment_are_not_asked(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container's http_proxy has no say about its own health check."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")

    async def asking() -> None:
        async with serving() as site:
            assert (await asyncio.to_thread(check, f"http://{site.address}/-/healthy"))[0]

    run(asking())
