"""Headless Chromium, driven through its DevTools protocol."""

import contextlib
import http.server
import itertools
import json
import os
import re
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from websockets.sync.client import ClientConnection, connect

from tests.peers.processes import Program, program
from tests.peers.stack import eventually

FLAGS: Final = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-port=0",
)
ADDRESS: Final = re.compile(r"(?P<port>\d+)\n(?P<path>/devtools/browser/[\w-]{36})\n?")
"""What the browser writes into its profile once it listens."""
PATIENCE: Final = 30.0
"""Seconds that an answer may take."""

OPEN: Final = """
new Promise((resolve) => {{
  window.socket = new WebSocket("ws://127.0.0.1:{port}/");
  socket.onopen = () => resolve("open");
  socket.onclose = () => resolve("closed");
}})
"""


KEPT: Final = "/kept"
"""The one page that the browser may keep in its back/forward cache."""


class _Page(http.server.BaseHTTPRequestHandler):
    """An empty page at every path; WebSockets to loopback are only allowed to pages from there."""

    def do_GET(self) -> None:
        body = b"<!doctype html><title>page</title>"
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        if self.path != KEPT:
            self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


class Browser:
    """A running browser. Commands are those of the DevTools protocol; `pages` is where its pages come from."""

    def __init__(self, program: Program, connection: ClientConnection, pages: str) -> None:
        self.program = program
        self.pages = pages
        self._connection = connection
        self._numbers = itertools.count(1)

    def call(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        """The result of one command."""
        number = next(self._numbers)
        command = {"id": number, "method": method, "params": parameters}
        self._connection.send(json.dumps(command if session is None else command | {"sessionId": session}))
        while True:
            answer = json.loads(self._connection.recv(timeout=PATIENCE))
            if answer.get("id") == number:
                assert "error" not in answer, answer
                result: dict[str, Any] = answer["result"]
                return result

    def tell(self, method: str, session: str | None = None, **parameters: Any) -> None:
        """Send a command whose answer may never come."""
        command = {"id": next(self._numbers), "method": method, "params": parameters}
        self._connection.send(json.dumps(command if session is None else command | {"sessionId": session}))

    def tab(self, path: str = "/first") -> "Tab":
        """A new tab with an empty page."""
        target = self.call("Target.createTarget", url=f"{self.pages}{path}")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        tab = Tab(self, target, session)
        tab.arrived(path)
        return tab

    def kill_renderers(self) -> None:
        """Kill the processes that pages live in, which are this browser's own."""
        for process in self.call("SystemInfo.getProcessInfo")["processInfo"]:
            if process["type"] == "renderer":
                os.kill(process["id"], signal.SIGKILL)


class Tab:
    """One page."""

    def __init__(self, browser: Browser, target: str, session: str) -> None:
        self._browser = browser
        self._target = target
        self.session = session

    def run(self, script: str) -> Any:
        """The value of a script, awaited."""
        answer = self._browser.call(
            "Runtime.evaluate", self.session, expression=script, awaitPromise=True, returnByValue=True
        )
        return answer["result"].get("value")

    def start(self, port: int) -> None:
        """Begin to open a WebSocket to `port`; `opened` waits for it."""
        self._browser.tell("Runtime.evaluate", self.session, expression=OPEN.format(port=port))

    def opened(self) -> None:
        eventually(lambda: self.run("socket.readyState === 1"), "the WebSocket is open")

    def arrived(self, path: str) -> None:
        """Wait for the page at `path`."""
        script = f"location.pathname === '{path}' && document.readyState === 'complete'"
        eventually(lambda: self.run(script), f"the page {path} is there")

    def navigate(self, path: str) -> None:
        self._browser.tell("Page.navigate", self.session, url=f"{self._browser.pages}{path}")

    def reload(self) -> None:
        self._browser.tell("Page.reload", self.session)

    def close(self) -> None:
        self._browser.tell("Target.closeTarget", targetId=self._target)


@contextlib.contextmanager
def pages() -> Iterator[str]:
    """An HTTP server of empty pages."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Page) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@contextlib.contextmanager
def browser(profile: Path) -> Iterator[Browser]:
    """A browser with a profile of its own."""
    ready = profile / "DevToolsActivePort"
    with pages() as url, program(["chromium", *FLAGS, f"--user-data-dir={profile}"]) as started:
        found = eventually(lambda: ready.exists() and ADDRESS.fullmatch(ready.read_text()), "the browser listens")
        with connect(f"ws://127.0.0.1:{found['port']}{found['path']}", max_size=None, ping_interval=None) as connection:
            yield Browser(started, connection, url)
