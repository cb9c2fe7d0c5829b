"""Every way in which a browser ends a WebSocket, or sees it ended, through the tap; the server is made of bytes."""

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.peers.browser import KEPT, Browser, Tab, browser
from tests.peers.peers import SERVERS, server
from tests.peers.raw import BAD_UTF8, RESERVED, TEXT, Raw
from tests.peers.rows import row
from tests.peers.stack import Chain
from tests.peers.test_clients import accepted, listening

NEEDS: Final = ("chromium",)

Act = Callable[[Raw, Tab], None]

PAGE: Final[dict[str, tuple[Act, str]]] = {
    "tab-closed": (lambda server, tab: tab.close(), "1001 client"),
    "navigated": (lambda server, tab: tab.navigate("/second"), "1001 client"),
    "reloaded": (lambda server, tab: tab.reload(), "1001 client"),
    "close": (lambda server, tab: tab.run("socket.close()"), "1005 client"),
    "close-1000": (lambda server, tab: tab.run("socket.close(1000)"), "1000 client"),
    "close-4000": (lambda server, tab: tab.run("socket.close(4000, 'bye')"), "4000 client"),
    "close-4321": (lambda server, tab: tab.run("socket.close(4321)"), "4xxx client"),
    "utf8": (lambda server, tab: server.frame(TEXT, BAD_UTF8), "1002 client"),
    "opcode": (lambda server, tab: server.frame(RESERVED, b"?"), "1002 client"),
    "masked": (lambda server, tab: server.frame(TEXT, b"?", masked=True), "1002 client"),
    "server-1000": (lambda server, tab: server.close(1000), "1000 server"),
    "server-4000": (lambda server, tab: server.close(4000), "4000 server"),
    "server-empty": (lambda server, tab: server.close(None), "1005 server"),
    "server-1005": (lambda server, tab: server.close(1005), "invalid server"),
    "server-half-close": (lambda server, tab: server.finish(), "1006 server"),
    "server-reset": (lambda server, tab: server.reset(), "1006 server"),
}
"""What a page does or meets, and the close counted."""

BROWSER: Final[dict[str, tuple[Callable[[Browser], None], str]]] = {
    "window-closed": (lambda browser: browser.tell("Browser.close"), "1001 client"),
    "sigterm": (lambda browser: browser.program.terminate(), "1001 client"),
    "renderer-killed": (lambda browser: browser.kill_renderers(), "1001 client"),
    "sigkill": (lambda browser: browser.program.signal(signal.SIGKILL), "1006 client"),
}
"""What happens to the whole browser, and the close counted."""


@pytest.fixture(scope="module", name="running")
def running_browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("browser")) as started:
        yield started


@pytest.mark.parametrize("ending", [row(NEEDS, ending) for ending in PAGE])
def test_what_ends_a_page(chain: Chain, running: Browser, ending: str) -> None:
    """People who leave are 1001 from the client; code that closes is its code; a refused frame is the browser's."""
    act, close = PAGE[ending]
    tab = running.tab()
    with listening() as listener, chain.to(listener.getsockname()[1]) as observed:
        tab.start(chain.port)
        with accepted(listener) as peer:
            peer.answer()
            tab.opened()
            act(peer, tab)
            if ending != "server-reset":
                peer.until_over()
        verdict = observed.verdict()
    if ending != "tab-closed":
        tab.close()
    assert verdict.closed_once() == close
    verdict.assert_untouched()


@pytest.mark.matrix
@pytest.mark.needs(*NEEDS)
def test_a_page_kept_for_going_back(chain: Chain, running: Browser) -> None:
    """A page in the back/forward cache says 1001 at the latest when its visitor comes back, which may be minutes."""
    tab = running.tab(KEPT)
    with listening() as listener, chain.to(listener.getsockname()[1]) as observed:
        tab.start(chain.port)
        with accepted(listener) as peer:
            peer.answer()
            tab.opened()
            tab.navigate("/second")
            tab.arrived("/second")
            tab.run("history.back()")
            peer.until_over()
        verdict = observed.verdict()
    tab.close()
    assert verdict.closed_once() == "1001 client"
    verdict.assert_untouched()


@pytest.mark.parametrize("ending", [row(NEEDS, ending) for ending in BROWSER])
def test_what_ends_a_browser(chain: Chain, tmp_path: Path, ending: str) -> None:
    """A browser says 1001 however it ends, unless the kernel ends it."""
    act, close = BROWSER[ending]
    with browser(tmp_path) as running, listening() as listener, chain.to(listener.getsockname()[1]) as observed:
        tab = running.tab()
        tab.start(chain.port)
        with accepted(listener) as peer:
            peer.answer()
            tab.opened()
            act(running)
            peer.until_over()
        verdict = observed.verdict()
    assert verdict.closed_once() == close
    verdict.assert_untouched()


@pytest.mark.parametrize("name", [row((*NEEDS, *peer.needs), name) for name, peer in SERVERS.items()])
def test_a_tab_closed_on_a_server(chain: Chain, running: Browser, name: str) -> None:
    """A closed tab is 1001 from the client with every server, compressed messages before it or not."""
    tab = running.tab()
    with server(name) as serving, chain.to(serving.port) as observed:
        tab.start(chain.port)
        tab.opened()
        heard = "new Promise((resolve) => {socket.onmessage = (event) => resolve(event.data); socket.send('hello')})"
        assert tab.run(heard) == "hello"
        tab.close()
        verdict = observed.verdict()
    assert verdict.closed_once() == "1001 client"
    verdict.assert_untouched()
