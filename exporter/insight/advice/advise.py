"""All advice, what matters most first."""

from collections.abc import Sequence
from typing import Final

from exporter.events import Origin
from exporter.insight.advice.agreement import on_agreement, pairs, repeated
from exporter.insight.advice.closes import on_closes
from exporter.insight.advice.facts import Advice, Facts, PastMassClose, Weight
from exporter.insight.advice.returns import on_mass_close, on_returns
from exporter.insight.advice.sizes import on_sizes

_ORDER: Final[tuple[Weight, ...]] = ("act", "look", "calm")

NOTHING_SEEN: Final = Advice(
    "calm",
    "No WebSocket has been seen yet.",
    "If there should be some: are clients sent to the tap's port, is the webhook called, is it the captured port's?",
)
NOTHING_WRONG: Final = Advice(
    "calm",
    "Nothing needs doing: no message was refused for its size in the last 24 hours, and nobody storms back.",
)


def advise(origins: Sequence[Facts], mass_closes: Sequence[PastMassClose]) -> tuple[Advice, ...]:
    """What to do about each origin and its newest mass close; `mass_closes` has the newest first.

    Where nothing is wrong the first sentence says so. What a tap and a capture both tell of a target is told once.
    """
    told_already = repeated(origins)
    newest: dict[Origin, PastMassClose] = {}
    for past in mass_closes:
        newest.setdefault(past.mass_close.origin, past)
    found: list[Advice] = [
        advice for origin, past in newest.items() if origin not in told_already for advice in on_mass_close(past)
    ]
    found += [advice for tap, capture in pairs(origins) for advice in on_agreement(tap, capture)]
    for facts in origins:
        if facts.origin in told_already:
            continue
        found += on_returns(facts)
        found += on_sizes(facts)
        found += on_closes(facts, [past.mass_close for past in mass_closes if past.mass_close.origin == facts.origin])
    if all(advice.weight == "calm" for advice in found):
        found.insert(0, NOTHING_WRONG if any(map(_seen, origins)) else NOTHING_SEEN)
    return tuple(sorted(found, key=lambda advice: _ORDER.index(advice.weight)))


def _seen(facts: Facts) -> bool:
    return bool(facts.active) or facts.closed > 0
