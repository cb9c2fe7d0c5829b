"""The exporter with a capture, as a process of its own: its pages, its log, and that it ends well."""

import contextlib
import json
import re
import sys
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, TypeVar

from tests.capture.namespaces import Namespace
from tests.peers.processes import Program
from tests.peers.stack import eventually
from tests.support.scraping import Page

T = TypeVar("T")

CLOSES: Final = "websocket_closes_total"
MESSAGES: Final = "websocket_message_size_bytes_count"
BYTES: Final = "websocket_message_size_bytes_sum"
SIZES: Final = "websocket_message_size_bytes_bucket"
HANDSHAKES: Final = "websocket_handshakes_total"
ACTIVE: Final = "websocket_connections_active"
UP: Final = "websocket_exporter_capture_up"
DROPS: Final = "websocket_exporter_capture_drops_total"
LOST: Final = "websocket_exporter_capture_lost_directions_total"
IGNORED: Final = "websocket_exporter_capture_ignored_packets_total"
UNPARSED: Final = "websocket_exporter_unparsed_streams_total"

LISTENING: Final = re.compile(r'"event":"(\w+) listening","address":"[^"]*:(\d+)"')

CAPTURED: Final = {"source": "capture"}
"""The label of everything that was seen by capture."""


class Exporter:
    """A running exporter."""

    def __init__(self, program: Program, where: Namespace | None) -> None:
        self.program = program
        self._where = where

    @property
    def log(self) -> list[dict[str, Any]]:
        """Every line of its log so far."""
        return [json.loads(line) for line in self.program.errors.splitlines() if line.startswith("{")]

    def said(self, event: str) -> list[dict[str, Any]]:
        """The log's lines of one event."""
        return [line for line in self.log if line["event"] == event]

    def closes(self) -> list[dict[str, Any]]:
        """The log's lines of the WebSockets that capture saw end."""
        return [line for line in self.said("websocket closed") if line["source"] == "capture"]

    def port(self, listener: str) -> int | None:
        """Where its `tap` or its `metrics` are, once it has said so."""
        assert self.program.running, f"the exporter ended: {self.program.errors[-4000:]}"
        found = dict(LISTENING.findall(self.program.errors)).get(listener)
        return None if found is None else int(found)

    def page(self) -> Page:
        """One scrape."""
        return _inside(self._where, self._scrape)

    def page_when(self, condition: Callable[[Page], bool], what: str, within: float = 30.0) -> Page:
        """The first scrape of which `condition` holds."""

        def look() -> Page | None:
            page = self.page()
            return page if condition(page) else None

        return eventually(look, what, within)

    def closed(self, count: int, within: float = 30.0) -> Page:
        """The scrape by which capture has counted `count` closes, and has nothing open any more."""
        return self.page_when(
            lambda page: page.value(CLOSES, **CAPTURED) >= count and not page.value(ACTIVE, **CAPTURED),
            f"capture counts {count} closes",
            within,
        )

    def _scrape(self) -> Page:
        url = f"http://127.0.0.1:{self.port('metrics')}/metrics"
        with urllib.request.urlopen(url, timeout=20) as answer:
            return Page(answer.read().decode())


def _inside(where: Namespace | None, act: Callable[[], T]) -> T:
    return act() if where is None else where.run(act)


@contextlib.contextmanager
def started(where: Namespace | None, command: Sequence[str]) -> Iterator[Program]:
    """A program, in a namespace if one is given, that ends with the block."""
    program = _inside(where, lambda: Program(command))
    try:
        yield program
    finally:
        program.end()


@contextlib.contextmanager
def exporting(
    *flags: str, where: Namespace | None = None, through: Sequence[str] = (), captures: int = 1
) -> Iterator[Exporter]:
    """The exporter with these flags, started by way of the command `through`; once it serves and `captures` are up.

    It must still run when the block ends.
    """
    command = [
        *through,
        *(sys.executable, "-m", "exporter", "--web.listen-address=127.0.0.1:0"),
        *("--log.format=json", "--shutdown.grace=1s", *flags),
    ]
    with started(where, command) as program:
        exporter = Exporter(program, where)
        eventually(lambda: exporter.port("metrics"), "the exporter listens")
        exporter.page_when(lambda page: page.value(UP) >= captures, "its captures are up")
        yield exporter
        assert program.running, f"the exporter ended: {program.errors[-4000:]}"
