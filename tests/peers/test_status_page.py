"""The status page in a real browser: nothing of what peers chose runs or loads, and everything can be read."""

import asyncio
import base64
import contextlib
import http.server
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from urllib.request import urlopen

import pytest

from tests.peers.browser import Browser, Tab, browser
from tests.peers.raw import CLOSE, PATIENCE, Raw, connected
from tests.peers.stack import Exporter, eventually, exporter
from tests.peers.test_clients import accepted, listening
from tests.support.status_samples import night
from tests.web.support import serving

pytestmark = [pytest.mark.matrix, pytest.mark.needs("chromium")]

OVERFLOWING: Final = """
[...document.querySelectorAll("body *")].filter((element) => {
  const box = element.getBoundingClientRect();
  const end = document.documentElement.clientWidth + 0.5;
  return element.checkVisibility() && box.width > 1 && (box.left < 0 || box.right > end);
}).map((element) => element.outerHTML.slice(0, 80))
"""
"""Elements that stick out of the window."""

FAINT: Final = """
(() => {
  const channels = (color) => color.match(/[\\d.]+/g).map(Number);
  const light = (color) => channels(color).slice(0, 3)
    .map((value) => value / 255)
    .map((value) => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4)
    .reduce((sum, value, channel) => sum + value * [0.2126, 0.7152, 0.0722][channel], 0);
  const ground = (element) => {
    const color = getComputedStyle(element).backgroundColor;
    return (channels(color)[3] ?? 1) === 0 && element.parentElement ? ground(element.parentElement) : color;
  };
  const contrast = (one, other) => (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
  const texts = [...document.querySelectorAll("body *")].filter((element) => element.checkVisibility()
    && !element.closest("svg") && [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim()));
  const faint = texts.filter((element) =>
    contrast(light(getComputedStyle(element).color), light(ground(element))) < 4.5);
  return [texts.length, faint.map((element) => element.outerHTML.slice(0, 80)),
          light(getComputedStyle(document.body).backgroundColor)];
})()
"""
"""How many elements have text, those with less contrast than WCAG 2.2 asks for (1.4.3), and how light the page is."""


class Elsewhere:
    """An HTTP server that nothing on the page may ever talk to; `asked` is who did."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        asked = self.asked

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked.append(self.path)
                self.send_response(204)
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                """Say nothing."""

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"//127.0.0.1:{self.server.server_port}"


@pytest.fixture(name="elsewhere")
def other_site() -> Iterator[Elsewhere]:
    site = Elsewhere()
    with site.server:
        thread = threading.Thread(target=site.server.serve_forever)
        thread.start()
        try:
            yield site
        finally:
            site.server.shutdown()
            thread.join()


@pytest.fixture(scope="module", name="running")
def running_browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("browser")) as started:
        yield started


def hostile(url: str) -> list[str]:
    """Texts that would run or load something if they were more than text."""
    return [
        f"<script src={url}/script></script><script>window.owned=1</script>",
        f"</style></title><img src={url}/image onerror=window.owned=1>",
        f"<style>@import '{url}/style';*{{display:none}}</style>",
        f"\"'><svg onload=window.owned=1><a href={url}/a ping={url}/ping>",
        f"<iframe src=javascript:parent.owned=1></iframe><link rel=prefetch href={url}/link>",
        "\u202e\u2066reversed\u200f <meta http-equiv=refresh content=0>",
    ]


def ask(client: Raw, text: str) -> None:
    """An opening handshake with `text` wherever a client may put it; UTF-8 as it is."""
    key = base64.b64encode(os.urandom(16)).decode()
    path = text.replace(" ", "/")
    fields = (f"Host: {path}", f"User-Agent: {text}", "Upgrade: websocket", "Connection: Upgrade")
    more = ("Sec-WebSocket-Version: 13", f"Sec-WebSocket-Key: {key}")
    client.send("\r\n".join((f"GET /{path} HTTP/1.1", *fields, *more, "", "")).encode())


def closed_with(tapped: Exporter, listener: Any, texts: list[str]) -> None:
    """A connection for each text, which the server closes with as much of it as fits in a reason."""
    for text in texts:
        with connected(tapped.tap) as client:
            ask(client, text)
            with accepted(listener) as server:
                server.answer()
                assert client.head().startswith(b"HTTP/1.1 101 ")
                server.frame(CLOSE, (1001).to_bytes(2) + text.encode()[:120])
                server.finish()
                client.until_over()
    eventually(lambda: b"The last %d, newest first" % len(texts) in page(tapped.metrics), "every close is on the page")


def page(port: int) -> bytes:
    with urlopen(f"http://127.0.0.1:{port}/", timeout=PATIENCE) as answer:
        body: bytes = answer.read()
    return body


def show(running: Browser, tab: Tab, port: int, width: int = 1280, scheme: str = "light") -> None:
    """Have the tab show the exporter's front page."""
    session = tab.session
    running.call(
        "Emulation.setDeviceMetricsOverride",
        session,
        width=width,
        height=900,
        deviceScaleFactor=1,
        mobile=width < 500,
    )
    running.call("Emulation.setEmulatedMedia", session, features=[{"name": "prefers-color-scheme", "value": scheme}])
    running.call("Page.navigate", session, url=f"http://127.0.0.1:{port}/")
    eventually(
        lambda: tab.run(f"location.port === '{port}' && document.readyState === 'complete'"), "the page is there"
    )


@pytest.mark.timeout(180)
def test_what_peers_chose_stays_text(running: Browser, elsewhere: Elsewhere, tmp_path: Path) -> None:
    """Through a real exporter: hostile reasons, paths, hosts and user agents are shown, and do nothing."""
    texts = hostile(elsewhere.url)
    with listening() as listener, exporter(listener.getsockname()[1], tmp_path) as tapped:
        closed_with(tapped, listener, texts)
        tab = running.tab()
        show(running, tab, tapped.metrics)
        assert tab.run("document.querySelector('h1').innerText") == "websocket-exporter"
        shown = tab.run("document.body.innerText")
        for text in texts[:-1]:
            assert shown.count(text) >= 2, "user agent and reason"
            assert f"/{text.replace(' ', '/')}" in shown
        assert "\\u202e\\u2066reversed\\u200f <meta http-equiv=refresh content=0>" in shown
        assert tab.run("typeof window.owned") == "undefined"
        assert tab.run("document.querySelectorAll('script, img, iframe, link, main svg a').length") == 0
        assert tab.run("performance.getEntriesByType('resource').length") == 0
        assert elsewhere.asked == []
        tab.close()


def test_the_same_texts_would_act_elsewhere(running: Browser, elsewhere: Elsewhere) -> None:
    """What the test above looks for is found where such a text is not escaped."""
    tab = running.tab()
    tab.run(f"document.body.innerHTML = {hostile(elsewhere.url)[1]!r}")
    eventually(lambda: elsewhere.asked == ["/image"], "the image was asked for")
    eventually(lambda: tab.run("window.owned === 1"), "and its script ran")
    tab.close()


@contextlib.contextmanager
def sampled() -> Iterator[int]:
    """A listener that shows a night at a service; its port."""
    recorder, book = night()
    listening_at: list[tuple[int, asyncio.AbstractEventLoop, asyncio.Event]] = []
    ready = threading.Event()

    async def serve() -> None:
        async with serving(status=lambda: book.snapshot(recorder)) as site:
            done = asyncio.Event()
            listening_at.append((site.address.port, asyncio.get_running_loop(), done))
            ready.set()
            await done.wait()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    try:
        assert ready.wait(PATIENCE)
        [(port, loop, done)] = listening_at
        yield port
        loop.call_soon_threadsafe(done.set)
    finally:
        thread.join()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 375, 768, 1280])
def test_it_can_be_read(running: Browser, width: int, scheme: str) -> None:
    """On a phone and on a wide screen nothing sticks out, all text has contrast, and tables stay tables."""
    with sampled() as port:
        tab = running.tab()
        show(running, tab, port, width, scheme)
        tab.run("document.querySelectorAll('details').forEach((details) => details.open = true)")
        assert tab.run("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
        assert tab.run(OVERFLOWING) == []
        texts, faint, lightness = tab.run(FAINT)
        assert texts > 200
        assert faint == []
        assert (lightness > 0.8) if scheme == "light" else (lightness < 0.05)
        roles = [
            node["role"]["value"]
            for node in running.call("Accessibility.getFullAXTree", tab.session)["nodes"]
            if not node.get("ignored")
        ]
        assert roles.count("table") == 5
        assert roles.count("columnheader") == 6 + 3 * 3 + 7
        assert roles.count("image") == 4
        tab.close()
