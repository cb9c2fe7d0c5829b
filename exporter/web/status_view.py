"""How each value of the status page is written: pure, without HTML, which the template adds."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from typing import Final

from exporter.closecodes import INVALID, LIBRARIES, PRIVATE, REGISTRY, RESERVED, UNKNOWN
from exporter.events import Bracket, Closed, Direction, MassClose
from exporter.insight.advice import Facts, PastMassClose, remedy, told
from exporter.insight.advice.words import counted, exact, lasting, place, share, size, span
from exporter.status import DirectionStatus, MassClosedAt, TargetStatus, moment

COLUMN: Final = 10.0
"""Width of a bar and the gap after it, in the histogram's own units; its height is HEIGHT."""
HEIGHT: Final = 44.0

SIZE_BOUNDS: Final = tuple(128 << power for power in range(20))
"""Bytes up to which each bar counts, 128 to 64 MiB; one more bar has what is larger."""

WEIGHTS: Final = {"act": "Act now.", "look": "Worth a look.", "calm": "Fine."}
"""The word before each advice; colour alone tells nothing."""

_FOLDED: Final = {
    INVALID: "illegal on the wire",
    RESERVED: "1016 to 2999",
    LIBRARIES: "3000 to 3999, not listed",
    PRIVATE: "4000 to 4999, not listed",
    UNKNOWN: "not observed",
}


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar of a histogram, in its own units. `kind` is `over` if the limit is below all that it counts."""

    kind: str
    x: float
    y: float
    height: float
    title: str


@dataclass(frozen=True, slots=True)
class Histogram:
    """The messages of one direction by size. `spoken` is for those who do not see the bars.

    `limit` is where the configured limit is, `band` from where on, and how wide, it may be, as seen; None if not known.
    """

    bars: tuple[Bar, ...]
    caption: str
    spoken: str
    limit: float | None
    band: tuple[float, float] | None


def shown(text: str) -> str:
    """Text that nothing invisible hides in: control, bidi and format characters and lone surrogates as escapes."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def iso(at: float) -> str:
    """A time for machines."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")


def date(at: float) -> str:
    """A day: "12 May 2026"."""
    then = datetime.fromtimestamp(at, UTC)
    return f"{then.day} {then:%b} {then.year}"


def clock(at: float, now: float) -> str:
    """A time to the second, with the day unless it is today's."""
    then, today = datetime.fromtimestamp(at, UTC), datetime.fromtimestamp(now, UTC)
    return f"{then:%H:%M:%S}" if then.date() == today.date() else f"{then.day} {then:%b} {then:%H:%M:%S}"


def code_name(code: str) -> str:
    """The registered name of a code label, or what a folded or listed one stands for."""
    entry = REGISTRY.get(int(code)) if code.isdecimal() else None
    return entry.name if entry else _FOLDED.get(code, "application")


def close_name(closed: Closed) -> str:
    """The name of a close's code, with the number on the wire where the label has folded it."""
    folded = closed.wire_code is not None and str(closed.wire_code) != closed.code
    return f"{code_name(closed.code)}: {closed.wire_code}" if folded else code_name(closed.code)


def meta(target: TargetStatus) -> Iterator[str]:
    """A target in short facts."""
    facts, standing = target.facts, target.facts.standing
    if facts.probe_up is not None:
        yield "connected" if facts.probe_up else "not connected"
    elif facts.active is not None:
        yield f"{facts.active:,} open"
    yield f"{facts.closed:,} closed since {facts.since}"
    if standing is not None:
        if standing.last_minute:
            yield f"{counted(standing.last_minute, 'attempt')} in the last minute"
        if standing.mass_close_active:
            yield "mass close under way"
        if standing.stuck_clients:
            yield f"{counted(standing.stuck_clients, 'client')} stuck on a message's size"


def mass_close_told(one: MassClosedAt, now: float) -> str:
    """A mass close in one sentence."""
    return told(PastMassClose(moment(one.began, now), now - one.ended, one.mass_close))


def figures(mass_close: MassClose) -> Iterator[tuple[str, str]]:
    """What a mass close's verdict rests on, as (name, value)."""
    yield "Lost", f"{mass_close.lost:,}"
    yield "Tried again", f"{mass_close.tried:,}"
    yield "Connected at the end", f"{mass_close.back:,}"
    yield "First accepted after", "never" if mass_close.gap is None else lasting(mass_close.gap)
    total = 0
    for within, number in mass_close.returned.items():
        total += number
        yield "Returned in all" if within == "later" else f"Returned within {within[:-1]} s", f"{total:,}"
    yield "Busiest second", f"{mass_close.busiest_second:,}"
    yield "Handshakes answered", f"{mass_close.answered:,}"
    yield "of them rejected", f"{mass_close.rejected:,}"
    yield "Lasted", lasting(mass_close.lasted)


def position(size: float) -> float:
    """Where a size stands on the histogram's axis: each power of two from 64 bytes on is a column."""
    column = math.log2(max(size, 1.0) / SIZE_BOUNDS[0]) + 1
    return round(COLUMN * min(max(column, 0.0), len(SIZE_BOUNDS) + 1.0), 2)


def histogram(direction: DirectionStatus) -> Histogram:
    """How the messages of one direction are drawn, and said."""
    counts, messages, _ = direction.plain.cumulative(SIZE_BOUNDS)
    numbers = [above - below for below, above in pairwise((0, *counts, messages))]
    _, compressed, _ = direction.compressed.cumulative(())
    bars = tuple(_bars(numbers, direction.limit))
    spoken = "Messages by size: " + ", ".join(bar.title for bar in bars)
    limit = None if direction.limit is None else position(direction.limit)
    return Histogram(bars, _caption(direction, numbers, compressed), spoken, limit, _band(direction.bracket))


def _bars(numbers: Sequence[int], limit: int | None) -> Iterator[Bar]:
    """The bars that are not empty; a single message among millions is still seen."""
    most = math.log1p(max(numbers))
    end = math.inf if limit is None else position(limit)
    for column, number in enumerate(numbers):
        if number:
            height = round(max(2.0, HEIGHT * math.log1p(number) / most), 2)
            kind = "over" if COLUMN * column >= end else "fits"
            title = f"{counted(number, 'message')} {_sizes(column)}"
            yield Bar(kind, COLUMN * column + 1, round(HEIGHT - height, 2), height, title)


def _band(bracket: Bracket) -> tuple[float, float] | None:
    if bracket.accepted is None or bracket.rejected is None:
        return None
    start, end = position(bracket.accepted), position(bracket.rejected)
    return start, max(2.0, round(end - start, 2))


def _caption(direction: DirectionStatus, numbers: Sequence[int], compressed: int) -> str:
    filled = [column for column, number in enumerate(numbers) if number]
    if not filled:
        said = "no uncompressed message yet" if compressed else "no message yet"
    else:
        said = f"{counted(sum(numbers), 'message')}, the largest {_sizes(filled[-1])}"
    if compressed:
        said += f"; {compressed:,} compressed, whose wire size says nothing about the limit"
    limit = "none" if direction.limit is None else size(direction.limit)
    return f"{said}. Limit: {limit} configured{_seen(direction.bracket)}."


def _seen(bracket: Bracket) -> str:
    return f"{_bounds(bracket)}, other sizes too" if bracket.contradicted else _bounds(bracket)


def _bounds(bracket: Bracket) -> str:
    if bracket.accepted is not None and bracket.rejected is not None:
        return f", seen between {bracket.accepted:,} and {exact(bracket.rejected)}"
    if bracket.rejected is not None:
        return f", seen at most {exact(bracket.rejected)}"
    return "" if bracket.accepted is None else f", accepted up to {exact(bracket.accepted)}"


def _sizes(column: int) -> str:
    if column == len(SIZE_BOUNDS):
        return f"of more than {size(SIZE_BOUNDS[-1])}"
    upper = size(SIZE_BOUNDS[column])
    return f"of up to {upper}" if column == 0 else f"of {size(SIZE_BOUNDS[column - 1])} to {upper}"


def refused(facts: Facts, direction: Direction) -> Iterator[str]:
    """What was refused lately; the two kinds of evidence stay apart."""
    for refusals in facts.standing.refusals if facts.standing is not None else ():
        if refusals.direction == direction and refusals.count:
            kind = "Refused with 1009" if refusals.evidence == "close_1009" else "Suspected, no 1009 was sent"
            sizes = f" {span(refusals.smallest, refusals.largest)}" if refusals.sized else ""
            yield f"{kind}, last 24 hours: {refusals.count:,}{sizes}, the last one {lasting(refusals.last)} ago"


def _grouped(number: int) -> str:
    return f"{number:,}"


def _spaced(words: str) -> str:
    return words.replace("_", " ")


FILTERS: Final[Mapping[str, Callable[..., object]]] = {
    "clock": clock,
    "close_name": close_name,
    "code_name": code_name,
    "date": date,
    "figures": lambda mass_close: tuple(figures(mass_close)),
    "grouped": _grouped,
    "histogram": histogram,
    "iso": iso,
    "lasting": lasting,
    "meta": meta,
    "place": place,
    "refused": refused,
    "remedy": remedy,
    "share": share,
    "spaced": _spaced,
    "told": mass_close_told,
}
"""By the names that the template calls them."""
