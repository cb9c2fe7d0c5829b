"""One real exporter between two witnesses: what its metrics say of each connection, and what really passed."""

import contextlib
import re
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from prometheus_client.parser import text_string_to_metric_families

from tests.peers import truth
from tests.peers.processes import Program, program
from tests.peers.witness import Record, Side, Witness

SETTLE: Final = 30.0
"""Seconds in which a connection that is being ended is over: the longest close timeout of a peer, and some more."""

CLOSES: Final = "websocket_closes_total"
HANDSHAKES: Final = "websocket_handshakes_total"
ENDS: Final = "websocket_transport_ends_total"
ACTIVE: Final = "websocket_connections_active"
LABELS: Final = {
    CLOSES: ("code", "initiator"),
    HANDSHAKES: ("outcome", "status"),
    ENDS: ("side", "kind"),
    ACTIVE: (),
}

LISTENING: Final = re.compile(r'"event":"(tap|metrics) listening","address":"127\.0\.0\.1:(\d+)"')

T = TypeVar("T")
Counts = dict[str, Counter[tuple[str, ...]]]


def eventually(look: Callable[[], T | None], what: str, within: float = SETTLE) -> T:
    """What `look` finds as soon as it finds something; fails after `within` seconds."""
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        if found := look():
            return found
        time.sleep(0.01)
    raise AssertionError(f"not within {within} s: {what}")


@dataclass(frozen=True)
class Exporter:
    """A running exporter with one tap."""

    program: Program
    tap: int
    metrics: int

    def counts(self) -> Counts:
        """What one scrape has counted, by the labels that matter here."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics}/metrics", timeout=10) as answer:
            text = answer.read().decode()
        counts: Counts = {name: Counter() for name in LABELS}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name in LABELS and sample.value:
                    labels = tuple(sample.labels[label] for label in LABELS[sample.name])
                    counts[sample.name][labels] += int(sample.value)
        return counts


@contextlib.contextmanager
def exporter(upstream: int, folder: Path) -> Iterator[Exporter]:
    """The exporter as a process of its own, tapping the port `upstream`."""
    config = folder / "exporter.yaml"
    config.write_text(
        f"targets:\n  peers:\n    codes: [{truth.LISTED}]\n"
        f'tap:\n  - {{listen: "127.0.0.1:0", upstream: "127.0.0.1:{upstream}", target: peers}}\n'
    )
    options = (
        f"--config.file={config}",
        "--web.listen-address=127.0.0.1:0",
        "--log.format=json",
        "--shutdown.grace=1s",
    )
    with program([sys.executable, "-m", "exporter", *options]) as running:
        ports = eventually(lambda: listening(running), "the exporter listens")
        yield Exporter(running, int(ports["tap"]), int(ports["metrics"]))
        assert running.running, f"the exporter ended: {running.errors[-4000:]}"


def listening(exporter: Program) -> dict[str, str] | None:
    """The ports of the tap and of the metrics, once both are known."""
    ports = dict(LISTENING.findall(exporter.errors))
    return ports if len(ports) == 2 else None


@dataclass(frozen=True)
class Verdict:
    """What the exporter counted of one connection, and what both witnesses saw of it."""

    counted: Counts
    near_client: Record
    near_server: Record

    def closed_once(self) -> str:
        """The code and initiator of the one close, which must be what the witnesses saw."""
        endings = [truth.ending(record) for record in (self.near_client, self.near_server)]
        assert self.counted[HANDSHAKES] == {("accepted", "101"): 1}
        [((code, initiator), number)] = self.counted[CLOSES].items()
        assert number == 1
        # A Close that only one witness saw did pass. Where both ends act at once the witnesses may differ in who was
        # first; the tap was between them.
        seen = {str(ending) for ending in endings if ending.code != truth.NO_CLOSE} or {str(end) for end in endings}
        assert f"{code} {initiator}" in seen
        [(end, number)] = self.counted[ENDS].items()
        assert number == 1
        assert end in [ending.transport for ending in endings]
        return f"{code} {initiator}"

    def transport_ends(self) -> set[tuple[str, ...]]:
        """How TCP ended first, by the exporter's account and both witnesses'."""
        seen = {truth.ending(record).transport for record in (self.near_client, self.near_server)}
        return seen | set(self.counted[ENDS])

    def assert_refused(self, status: int) -> None:
        """No WebSocket and no close, only a handshake that the server refused with `status`."""
        assert (truth.status(self.near_client), truth.status(self.near_server)) == (status, status)
        assert self.counted[HANDSHAKES] == {("rejected", str(status)): 1}
        assert self.counted[CLOSES] == {}

    def assert_untouched(self) -> None:
        """Every byte came out as it went in; what a reset left undelivered is missing at the end, and only there."""
        passages: tuple[tuple[Side, Record, Record, Side], ...] = (
            ("client", self.near_client, self.near_server, "server"),
            ("server", self.near_server, self.near_client, "client"),
        )
        for sender, entered, left, receiver in passages:
            sent, arrived = entered.sent_by(sender), left.sent_by(sender)
            broken = any(record.was_reset_by(side) for record in (entered, left) for side in (sender, receiver))
            assert arrived == (sent[: len(arrived)] if broken else sent), f"bytes from the {sender} changed"


class Chain:
    """client - witness - exporter - witness - server. Connect to `port`; `upstream` says where the server is."""

    def __init__(self, exporter: Exporter, near_client: Witness, near_server: Witness, upstream: list[int]) -> None:
        self._exporter = exporter
        self._near_client = near_client
        self._near_server = near_server
        self._upstream = upstream
        self.port = near_client.port

    @contextlib.contextmanager
    def to(self, server: int) -> Iterator["Observation"]:
        """Relay to `server` from now on; what is observed is one connection."""
        self._upstream[:] = [server]
        self._near_client.forget()
        self._near_server.forget()
        yield Observation(self._exporter, self._near_client, self._near_server)


class Observation:
    """What happens to the one connection that is made while it lasts."""

    def __init__(self, exporter: Exporter, near_client: Witness, near_server: Witness) -> None:
        self._exporter = exporter
        self._witnesses = (near_client, near_server)
        self._before = exporter.counts()

    def verdict(self) -> Verdict:
        """The account of the connection, as soon as it is over everywhere."""
        eventually(lambda: all(witness.records for witness in self._witnesses), "both witnesses saw a connection")
        for witness in self._witnesses:
            eventually(lambda witness=witness: all(record.over.is_set() for record in witness.records), "it is over")
        counts = eventually(self._settled, "the exporter counts the connection and has none open")
        [near_client], [near_server] = (witness.records for witness in self._witnesses)
        return Verdict({name: counts[name] - self._before[name] for name in LABELS}, near_client, near_server)

    def _settled(self) -> Counts | None:
        counts = self._exporter.counts()
        answered = counts[HANDSHAKES].total() > self._before[HANDSHAKES].total()
        return counts if answered and not counts[ACTIVE] else None


@contextlib.contextmanager
def chain(folder: Path) -> Iterator[Chain]:
    """A running chain."""
    upstream = [0]
    with (
        Witness(lambda: upstream[0]).running() as near_server,
        exporter(near_server.port, folder) as tapped,
        Witness(lambda: tapped.tap).running() as near_client,
    ):
        yield Chain(tapped, near_client, near_server, upstream)
