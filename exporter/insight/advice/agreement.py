"""A tap and a capture of one target watch the same connections: they ought to tell the same, and it is told once."""

from collections.abc import Iterator, Mapping, Sequence

from exporter.events import Initiator, Origin
from exporter.insight.advice.facts import Advice, Facts
from exporter.insight.advice.words import counted


def pairs(origins: Sequence[Facts]) -> Iterator[tuple[Facts, Facts]]:
    """The tap and the capture of each target that has both."""
    captures = {facts.origin.target: facts for facts in origins if facts.origin.source == "capture"}
    for facts in origins:
        if facts.origin.source == "tap" and facts.origin.target in captures:
            yield facts, captures[facts.origin.target]


def repeated(origins: Sequence[Facts]) -> frozenset[Origin]:
    """Those whose connections another one tells of already: of a tap and a capture, the one that saw fewer closes."""
    return frozenset((capture if capture.closed <= tap.closed else tap).origin for tap, capture in pairs(origins))


def on_agreement(tap: Facts, capture: Facts) -> Iterator[Advice]:
    """Where both tell different closes of the same connections.

    A capture hears of each a moment later: as many as there were lately may differ.
    """
    by_tap, by_capture = _counts(tap), _counts(capture)
    kinds = {kind: by_capture.get(kind, 0) - by_tap.get(kind, 0) for kind in by_tap.keys() | by_capture.keys()}
    if sum(map(abs, kinds.values())) <= tap.lately + capture.lately:
        return
    more = sum(number for number in kinds.values() if number > 0)
    fewer = -sum(number for number in kinds.values() if number < 0)
    (code, initiator), widest = max(kinds.items(), key=lambda kind: (abs(kind[1]), kind[0]))
    yield Advice(
        "look",
        f"{tap.origin.target}: tap and capture disagree: since {capture.since} the capture tells "
        f"{counted(more, 'close')} that the tap does not, and lacks {fewer:,}; most of all {code} by the {initiator} "
        f"({widest:+,}).",
        "Connections that do not go through the tap, or were there before the exporter, are seen by the capture alone. "
        "What the capture lacks, or calls unknown, it has missed: see websocket_exporter_capture_drops_total and "
        "docs/capture.md.",
    )


def _counts(facts: Facts) -> Mapping[tuple[str, Initiator], int]:
    return {(close.code, close.initiator): close.count for close in facts.closes}
