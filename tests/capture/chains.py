"""Chains like that of the tap's own tests, in which somebody else judges each connection too.

`beside_tap`: client - witness - tap - witness - server, and capture on the tap's connection to the witness. What the
two say of each connection must be the same, to the last series.

`beside_relay`: client - witness - witness - server, and capture on the connection between them. What it says must be
what the exporter's own observers make of the bytes that the first witness wrote down, and they lost none.
"""

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Final

from prometheus_client import Metric

from exporter.closecodes import Vocabulary
from exporter.events import Origin
from exporter.metrics.recorder import Recorder
from exporter.wire.connection import ConnectionObserver
from tests.capture import series
from tests.capture.exporting import DROPS, exporting
from tests.capture.exporting import Exporter as Running
from tests.capture.series import differences, grown
from tests.peers import truth
from tests.peers.stack import CLOSES, ENDS, HANDSHAKES, LABELS, Chain, Counts, Observation, Verdict, eventually
from tests.peers.witness import Record, Witness

TARGET: Final = "peers"
LATE: Final = 20.0
"""Seconds in which capture has seen what others saw: rings are read in blocks, and a hole is waited for."""

LIFECYCLE: Final = (CLOSES, HANDSHAKES, ENDS)
"""What is known of closes alone."""

Differences = dict[str, tuple[float, float]]

TOLD_BY_RECORDS: Final = (
    "websocket_handshakes_total",
    "websocket_handshake_duration_seconds_count",
    "websocket_closes_total",
    "websocket_connection_duration_seconds_count",
    "websocket_transport_ends_total",
    "websocket_message_size_bytes",
    "websocket_ping_rtt_seconds_count",
)
"""What the observers say of a record. Insights are derived from it elsewhere, and with time, which records have not."""


class Exporter:
    """A running exporter, as the tap's tests ask it; they are told what `source` counts."""

    def __init__(self, running: Running, source: str) -> None:
        self._running = running
        self._source = source

    def families(self) -> Iterable[Metric]:
        """One scrape."""
        return self._running.page().families.values()

    def dropped(self) -> float:
        """Packets that the kernel has dropped: where it has, a close may be unknown."""
        return self._running.page().value(DROPS)

    def counts(self) -> Counts:
        """What one scrape has counted, by the labels that matter to those tests."""
        counts: Counts = {name: Counter() for name in LABELS}
        for family in self.families():
            for sample in family.samples:
                if sample.name in LABELS and sample.value and sample.labels.get("source") == self._source:
                    labels = tuple(sample.labels[label] for label in LABELS[sample.name])
                    counts[sample.name][labels] += int(sample.value)
        return counts


class BesideTap(Observation):
    """What happens to one connection, by the tap and by capture."""

    def __init__(
        self, exporter: Exporter, near_client: Witness, near_server: Witness, *, closes_alone: bool = False
    ) -> None:
        super().__init__(exporter, near_client, near_server)  # type: ignore[arg-type]
        self._exporters = exporter
        self._closes_alone = closes_alone
        self._start = list(exporter.families())

    def verdict(self) -> Verdict:
        """The tap's account, once capture has been seen to have the same."""
        verdict = super().verdict()
        deadline = time.monotonic() + LATE
        while (found := self._disagreement(verdict)) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert found == {}, f"(tap, capture): {found}; {self._exporters.dropped():.0f} packets dropped so far"
        return verdict

    def _disagreement(self, verdict: Verdict) -> Differences:
        now = list(self._exporters.families())
        tap, capture = (
            grown(series.series(now, source), series.series(self._start, source)) for source in ("tap", "capture")
        )
        odd = series.anomalies(now)
        odd.subtract(series.anomalies(self._start))
        # Both count in the same series.
        single = {f"anomaly {kind}": (number, 0) for kind, number in odd.items() if number % 2}
        found = without_races(differences(tap, capture), verdict)
        if not self._closes_alone:
            return found | single
        if [name for name in capture if name.startswith(CLOSES)] in admitted(verdict):
            found = {name: pair for name, pair in found.items() if not name.startswith(CLOSES)}
        return {name: pair for name, pair in found.items() if name.startswith(LIFECYCLE)}


class BesideRelay(Observation):
    """What happens to one connection, by capture and by a record of its bytes."""

    def __init__(self, exporter: Exporter, near_client: Witness, near_server: Witness) -> None:
        super().__init__(exporter, near_client, near_server)  # type: ignore[arg-type]
        self._exporters = exporter
        self._start = list(exporter.families())

    def verdict(self) -> Verdict:
        """The account of capture, once it has been seen to be that of the record."""
        verdict = super().verdict()
        expected = [account(record) for record in (verdict.near_client, verdict.near_server)]
        deadline = time.monotonic() + LATE
        while True:
            found = [without_races(differences(each, self._told()), verdict) for each in expected]
            # Where both ends act at once, the two witnesses may differ in who was first; capture was between them.
            if {} in found or time.monotonic() > deadline:
                break
            time.sleep(0.02)
        assert {} in found, f"(witness, capture): {found}; {self._exporters.dropped():.0f} packets dropped so far"
        return verdict

    def _told(self) -> dict[str, float]:
        now = list(self._exporters.families())
        told = grown(series.series(now, "capture"), series.series(self._start, "capture"))
        odd = series.anomalies(now)
        odd.subtract(series.anomalies(self._start))
        return _of_records(told) | {f"anomaly {kind}": number for kind, number in odd.items() if number}


def admitted(verdict: Verdict) -> list[list[str]]:
    """What who looks at closes alone may say instead: the code of any Close frame that passed, but not who began.

    And nothing at all unless both sides sent a Close frame, and the one that counts has a code that may be on the wire:
    there may have been others behind the messages that were not looked at.
    """
    closes = [truth.first_close(verdict.near_server.sent_by(side)) for side in ("client", "server")]
    codes = {truth.label(close[1]) for close in closes if close is not None}
    if None in closes or "invalid" in {code for code, _ in verdict.counted[CLOSES]}:
        codes.add("unknown")
    return [[spelled_close(code)] for code in codes]


def spelled_close(code: str) -> str:
    """The series of a close by nobody in particular."""
    vocabulary = Vocabulary(frozenset({truth.LISTED}), frozenset())
    return f"{CLOSES}{{class={vocabulary.close_class(code)}, code={code}, initiator=unknown, target={TARGET}}}"


def without_races(found: Differences, verdict: Verdict) -> Differences:
    """The same without what is of no account: how TCP ended first behind a Close frame.

    Each side answers the other's Close frame by closing TCP, within microseconds, and whoever is between them sees
    either first; a tap has still to pass on what one side sent before its end, when the other ends. Without a Close
    frame it decides who is counted as the initiator, and must be the same.
    """
    ends = [pair for name, pair in found.items() if name.startswith(ENDS)]
    as_many = sum(ours for ours, _ in ends) == sum(theirs for _, theirs in ends)
    closed_by_frame = truth.NO_CLOSE not in {code for code, _ in verdict.counted[CLOSES]}
    return {name: pair for name, pair in found.items() if not (name.startswith(ENDS) and as_many and closed_by_frame)}


def account(record: Record) -> dict[str, float]:
    """What the exporter's observers say of the bytes of a record, in the order in which they were read."""
    recorder = Recorder(time.time)
    watch = recorder.watch(Origin("capture", TARGET), Vocabulary(frozenset({truth.LISTED}), frozenset()))
    born = list(recorder.collect())
    observer = ConnectionObserver(lambda _: watch, origin=watch.origin, sink=recorder, clock=lambda: 0.0)
    for seen in record.seen:
        if seen.kind != "data":
            observer.transport_ended(seen.side, seen.kind)
        elif seen.side == "client":
            observer.from_client(seen.data)
        else:
            observer.from_server(seen.data)
    observer.finish()
    told = list(recorder.collect())
    before = series.series(born, "capture")
    odd = series.anomalies(told)
    return _of_records(grown(series.series(told, "capture"), before)) | {
        f"anomaly {kind}": number for kind, number in odd.items() if number
    }


def _of_records(told: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in told.items() if name.startswith(TOLD_BY_RECORDS)}


class Judged(Chain):
    """A chain whose connections are observed by `observation` instead."""

    def __init__(
        self,
        observation: Callable[[Exporter, Witness, Witness], Observation],
        exporter: Exporter,
        near_client: Witness,
        near_server: Witness,
        upstream: list[int],
    ) -> None:
        super().__init__(exporter, near_client, near_server, upstream)  # type: ignore[arg-type]
        self._make = lambda: observation(exporter, near_client, near_server)

    @contextlib.contextmanager
    def to(self, server: int) -> Iterator[Observation]:
        """Relay to `server` from now on; what is observed is one connection."""
        with super().to(server):
            yield self._make()


@contextlib.contextmanager
def beside_tap(folder: Path, *, closes_alone: bool = False) -> Iterator[Chain]:
    """A running chain with a tap; capture may look at closes alone."""
    upstream = [0]
    with Witness(lambda: upstream[0]).running() as near_server:
        flags = (
            f"--capture.mode={'lifecycle' if closes_alone else 'full'}",
            _configured(folder),
            f"--tap=127.0.0.1:0=127.0.0.1:{near_server.port},target={TARGET}",
            f"--capture=lo:{near_server.port},target={TARGET}",
        )
        with exporting(*flags) as running:
            tap = eventually(lambda: running.port("tap"), "the tap listens")
            with Witness(lambda: tap).running() as near_client:
                observation = partial(BesideTap, closes_alone=closes_alone)
                yield Judged(observation, Exporter(running, "tap"), near_client, near_server, upstream)


@contextlib.contextmanager
def beside_relay(folder: Path) -> Iterator[Chain]:
    """A running chain without one."""
    upstream = [0]
    with (
        Witness(lambda: upstream[0]).running() as near_server,
        Witness(lambda: near_server.port).running() as near_client,
        exporting(_configured(folder), f"--capture=lo:{near_server.port},target={TARGET}") as running,
    ):
        yield Judged(BesideRelay, Exporter(running, "capture"), near_client, near_server, upstream)


def _configured(folder: Path) -> str:
    config = folder / "exporter.yaml"
    config.write_text(f"targets:\n  {TARGET}:\n    codes: [{truth.LISTED}]\n")
    return f"--config.file={config}"
