"""Advice on message sizes: what was refused, where the limit really is, and what is about to meet it."""

from collections.abc import Iterator
from typing import Final

from exporter.events import DIRECTIONS, Bracket, Direction, Evidence, Refusals, Standing
from exporter.insight.advice.facts import NEAR, Advice, Facts, Weight
from exporter.insight.advice.words import (
    counted,
    exact,
    exact_and_rounded,
    lasting,
    listed,
    place,
    receiver,
    share,
    size,
    span,
)
from exporter.insight.oversize import LEAST_SIZE

RECENT: Final = 3600.0
"""Seconds for which a refusal is something that hurts now."""

LARGEST_MESSAGE: Final = 64 << 20
"""Bytes that a limit may reasonably be raised to: it is memory that any client can claim. A header can say anything."""

SMALLEST_CHUNK: Final = 4 << 10
"""Bytes below which chunks cost more than they help; then no size is suggested."""

_TELLS_NOTHING: Final = f"(compressed, not seen, or under {size(LEAST_SIZE)})"
_NO_BRACKET: Final = Bracket()
_WORDS: Final[dict[Evidence, str]] = {
    "close_1009": "refused with 1009",
    "suspected": "probably refused (suspected, no 1009 was sent)",
}


def on_sizes(facts: Facts) -> Iterator[Advice]:
    """Everything about the sizes of one origin's messages."""
    standing = facts.standing
    if standing is None:
        return
    for refusals in standing.refusals:
        if refusals.count:
            yield _refused(facts, standing, refusals)
    yield from _stuck(facts, standing)
    for direction in DIRECTIONS:
        yield from _limit(facts, direction, standing.brackets.get(direction, _NO_BRACKET))


def room_for(largest: int) -> int | None:
    """The next power of two above `largest` bytes, as some receivers refuse at the limit itself; None if absurd."""
    power = 1 << largest.bit_length()
    return power if power <= LARGEST_MESSAGE else None


def chunk_under(accepted: int) -> int | None:
    """A power of two at most a quarter of what was `accepted`, in bytes; None if that would be tiny."""
    chunk = (1 << accepted.bit_length() - 1) // 4 if accepted else 0
    return chunk if chunk >= SMALLEST_CHUNK else None


def _refused(facts: Facts, standing: Standing, refusals: Refusals) -> Advice:
    direction, certain = refusals.direction, refusals.evidence == "close_1009"
    bracket = standing.brackets.get(direction, _NO_BRACKET)
    limit = _bracketed(bracket, direction) if certain else _accepted(bracket)
    says = (
        f"{place(facts.origin, direction)}: {counted(refusals.count, 'message')} {_WORDS[refusals.evidence]} "
        f"in the last 24 hours (the last one {lasting(refusals.last)} ago), {_sizes(refusals)}"
    )
    weight: Weight = "act" if certain and refusals.last < RECENT else "look"
    return Advice(weight, "; ".join(filter(None, (says, limit))) + ".", _remedy(facts, refusals, bracket))


def _sizes(refusals: Refusals) -> str:
    unknown = refusals.count - refusals.sized
    if refusals.sized == 0:
        return f"{'its size tells' if unknown == 1 else 'their sizes tell'} nothing {_TELLS_NOTHING}"
    sizes = span(refusals.smallest, refusals.largest)
    if unknown == 0:
        return sizes if refusals.count == 1 else f"all {sizes}"
    missing = f"the size{'s' if unknown > 1 else ''} of {unknown:,} tell{'' if unknown > 1 else 's'} nothing"
    return f"{refusals.sized:,} of them {sizes}, {missing} {_TELLS_NOTHING}"


def _bracketed(bracket: Bracket, direction: Direction) -> str:
    whose, lies = f"the {receiver(direction)}'s limit", _lies(bracket)
    if bracket.contradicted:
        guess = f"; the best guess is that it {lies}" if lies else ""
        return (
            f"{whose} has changed, or is not the same for all connections: sizes were both accepted and refused{guess}"
        )
    return f"{whose} {lies}" if lies else ""


def _lies(bracket: Bracket) -> str:
    accepted, rejected = bracket.accepted, bracket.rejected
    if accepted is None:
        return "" if rejected is None else f"is at most {exact(rejected)}"
    if rejected is None:
        return f"is at least {exact(accepted)}"
    return f"lies between {accepted:,} and {exact(rejected)}{_round_within(accepted, rejected)}"


def _round_within(accepted: int, rejected: int) -> str:
    """The power of two in a narrow bracket: nearly every default is one."""
    power = 1 << rejected.bit_length() - 1
    return f" (perhaps {size(power)})" if accepted <= power and rejected < 2 * accepted and power >= 1024 else ""


def _accepted(bracket: Bracket) -> str:
    known = bracket.accepted is not None and not bracket.contradicted
    return f"messages of up to {exact(bracket.accepted or 0)} were accepted" if known else ""


def _remedy(facts: Facts, refusals: Refusals, bracket: Bracket) -> str:
    whose = receiver(refusals.direction)
    if refusals.sized == 0:
        return (
            f"Compare the {whose}'s limit with the size before compression: that is what a limit applies to. What was "
            'seen is in the log ("message refused").'
        )
    if refusals.largest <= (bracket.accepted or 0):
        return _accepted_too(refusals)
    room = room_for(refusals.largest)
    chunk = chunk_under(_surely_accepted(facts, refusals, bracket))
    chunks = f"chunks of {size(chunk)}" if chunk else "smaller chunks"
    if room is None:
        remedy = f"Too large to raise a limit for: send {chunks}, each a message of its own, or upload over HTTP."
    else:
        raising = "Raising it" if refusals.evidence == "close_1009" else f"If it is the {whose}'s limit, raising it"
        remedy = (
            f"{raising} to {size(room)} would have admitted {_sized_ones(refusals)}, so would {chunks} "
            "(each a message of its own: fragments of one do not help)."
        )
    return remedy if refusals.evidence == "close_1009" else f"{remedy} {_SILENT[refusals.direction]}"


def _accepted_too(refusals: Refusals) -> str:
    """What to do if messages as large as those refused are accepted: since then, or on other connections."""
    if refusals.evidence == "suspected":
        return f"Messages as large are accepted: it was hardly the size. {_SILENT[refusals.direction]}"
    return (
        "Messages as large are accepted: if the limit has not been raised since, look for what these connections have "
        "of their own (a client, an instance or a proxy with a lower limit), or send smaller ones."
    )


def _sized_ones(refusals: Refusals) -> str:
    """Those of which sizes are said."""
    if refusals.count == 1:
        return "it"
    if refusals.sized == refusals.count:
        return "all of them"
    return "that one" if refusals.sized == 1 else f"those {refusals.sized:,}"


_SILENT: Final[dict[Direction, str]] = {
    "client_to_server": (
        "The server's own log may know: on oversize uWebSockets, autobahn and tungstenite drop TCP, granian sends an "
        "empty Close, python-socketio 1000."
    ),
    "server_to_client": "The client's own log may know.",
}


def _surely_accepted(facts: Facts, refusals: Refusals, bracket: Bracket) -> int:
    """Bytes that the receiver takes: as seen, or as configured where that is more; 0 if none is under those refused."""
    known = (bracket.accepted or 0, facts.limits.get(refusals.direction, 0))
    return max((size for size in known if size < refusals.smallest), default=0)


def _stuck(facts: Facts, standing: Standing) -> Iterator[Advice]:
    where = place(facts.origin)
    if standing.stuck_clients:
        one = standing.stuck_clients == 1
        sized = any(refusals.sized for refusals in standing.refusals)
        until = "; until then only a higher limit lets them through" if sized else ""
        yield Advice(
            "act",
            f"{where}: {counted(standing.stuck_clients, 'client')} {'is' if one else 'are'} stuck in a loop, "
            f"{'' if one else 'each '}refused 3 times or more in the last 15 minutes for a message's size.",
            f"They reconnect and send the same message again. Have the client drop or split a message that was refused"
            f"{until}.",
        )
        return
    repeated = [
        f"{counted(facts.repeats[evidence], 'message')} {_WORDS[evidence]}"
        for evidence in dict.fromkeys(refusals.evidence for refusals in standing.refusals)
        if facts.repeats.get(evidence)
    ]
    if repeated:
        yield Advice(
            "look",
            f"{where}: since {facts.since} {listed(repeated)} came from clients that had been refused within the 5 "
            "minutes before; none is stuck now.",
            "They send the refused message again. Have the client drop or split it.",
        )


def _limit(facts: Facts, direction: Direction, bracket: Bracket) -> Iterator[Advice]:
    """Where what is configured is not what is seen, or where it is nearly reached."""
    limit = facts.limits.get(direction)
    if limit is None or bracket.contradicted:
        return
    where, key = place(facts.origin, direction), f"targets.{facts.origin.target}.limits.{direction}"
    accepted, rejected = bracket.accepted or 0, bracket.rejected
    if rejected is not None and rejected < limit:
        yield Advice(
            "look",
            f"{where}: a message of {exact(rejected)} was refused with 1009, under the configured limit of "
            f"{exact_and_rounded(limit)}.",
            f"The limit in force is lower: the {receiver(direction)}'s own, or that of a hop before it. Correct it "
            f"there, or {key}.",
        )
    elif accepted > limit:
        yield Advice(
            "look",
            f"{where}: a message of {exact(accepted)} was accepted, over the configured limit of "
            f"{exact_and_rounded(limit)}.",
            f"{key} is not the {receiver(direction)}'s limit: correct it, and what is said of headroom will be true.",
        )
    elif rejected is None and accepted >= NEAR * limit:
        yield _near(facts, direction, accepted, limit)


def _near(facts: Facts, direction: Direction, accepted: int, limit: int) -> Advice:
    near = facts.near.get(direction, 0)
    more = f"; since {facts.since} {counted(near, 'message was', 'messages were')} over 80 % of it" if near else ""
    room, chunk = room_for(limit), chunk_under(accepted)
    ways = [f"send chunks of {size(chunk)}" if chunk else "", f"raise the limit to {size(room)}" if room else ""]
    return Advice(
        "look",
        f"{place(facts.origin, direction)}: the largest message accepted in the last 24 hours had {exact(accepted)}, "
        f"{share(accepted, limit)} of the configured limit of {exact_and_rounded(limit)}{more}.",
        f"Before one is refused: {' or '.join(filter(None, ways)) or 'send smaller messages'}.",
    )
