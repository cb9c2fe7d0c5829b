"""Advice on closes that are errors by themselves, and on the probe."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from exporter.closecodes import REGISTRY
from exporter.events import Initiator, MassClose
from exporter.insight.advice.facts import Advice, CloseCount, Facts
from exporter.insight.advice.words import by, counted, listed, place, share

FEW: Final = 5
"""Closes below which nothing is said of a code."""
RARE: Final = 0.01
"""The share of all closes below which nothing is said of a code."""
NAMED: Final = 3
"""Codes of one origin, and failures of one probe, that are named."""

_FIXES: Final[Mapping[tuple[str, Initiator], str]] = {
    ("1011", "client"): (
        "Read the reason. Keepalive: the service answered no Ping in time, its event loop was blocked or the network "
        "is gone. Else the cause is in the client, and in its log. A Python client ended by Ctrl-C says 1011, too."
    ),
}
"""What to do where who closed makes another thing of a code than what is known of it in general."""

_ERRORS: Final = frozenset({"protocol_error", "policy", "internal_error"})


def on_closes(facts: Facts, mass_closes: Sequence[MassClose]) -> Iterator[Advice]:
    """The most frequent errors among one origin's closes, with what is known of their codes.

    What was lost in `mass_closes` is told there.
    """
    if facts.origin.source == "probe":
        yield from _probe(facts)
        return
    closed = facts.closed
    errors = [
        close
        for close in facts.closes
        if close.count >= _floor(close, closed) and _wrong(facts, close) and not _mostly_in(mass_closes, close)
    ]
    for close in sorted(errors, key=lambda close: -close.count)[:NAMED]:
        entry = REGISTRY[int(close.code)]
        yield Advice(
            "look",
            f"{place(facts.origin)}: {close.count:,} of {counted(closed, 'connection')} closed since {facts.since} "
            f"({share(close.count, closed)}) ended with {close.code} {entry.name}{by(close.initiator)}.",
            _FIXES.get((close.code, close.initiator), entry.fix),
        )


def _floor(close: CloseCount, closed: int) -> float:
    """Closes from which on they are worth a word. A message that was refused always is."""
    return 1 if close.close_class == "too_big" else max(FEW, RARE * closed)


def _wrong(facts: Facts, close: CloseCount) -> bool:
    if not close.code.isdecimal() or int(close.code) not in REGISTRY or close.initiator == "exporter":
        return False
    if close.close_class == "abnormal":
        return close.initiator == "server"  # from clients it is mostly networks and phones
    if close.close_class == "too_big":
        refusals = facts.standing.refusals if facts.standing is not None else ()
        return not any(one.evidence == "close_1009" for one in refusals)
    return close.close_class in _ERRORS


def _mostly_in(mass_closes: Sequence[MassClose], close: CloseCount) -> bool:
    lost = sum(mass_close.lost_by.get((close.code, close.initiator), 0) for mass_close in mass_closes)
    return 2 * lost >= close.count


def _probe(facts: Facts) -> Iterator[Advice]:
    if facts.probe_up is not False:
        return
    failures = sorted(facts.probe_failures.items(), key=lambda failure: -failure[1])[:NAMED]
    reasons = listed([f"{reason} ({number:,})" for reason, number in failures if number])
    yield Advice(
        "act",
        f"{facts.origin.target}: the probe is not connected now"
        + (f"; its failures since {facts.since}: {reasons}." if reasons else "."),
        "A user could probably not connect either. Its log lines say what the service answered.",
    )
