"""Metric families as text, piece by piece.

prometheus_client renders a whole registry in one go, 5 to 12 µs for each series: too long to hold the loop that
relays. Here its own renderer works on one part of one family at a time; joined, the pieces are byte for byte what it
would have given.
"""

import copy
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from prometheus_client import Metric, exposition
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector

from exporter.web.negotiation import Choice, choices

PART: Final = 50
"""Series rendered without a pause: well under a millisecond."""

_OPENMETRICS_VERSIONS: Final = {"0.0.1", "1.0.0"}
_WRITTEN_LAST: Final = ("_created", "_gsum", "_gcount")


@dataclass(frozen=True, slots=True)
class Format:
    """One text format. `end` is what `generate` puts behind the last family."""

    content_type: str
    generate: Callable[[Collector], bytes]
    end: bytes


TEXT: Final = Format("text/plain; version=0.0.4; charset=utf-8", exposition.generate_latest, b"")
OPENMETRICS: Final = Format(
    "application/openmetrics-text; version=1.0.0; charset=utf-8", openmetrics.generate_latest, b"# EOF\n"
)


def negotiate(accept: str) -> Format:
    """The format for a client that sent this Accept: OpenMetrics where it is preferred, else the classic text.

    prometheus_client's own choice ignores weights and repeats whatever version it was asked for. Names here are all
    of the classic character set, so that no escaping scheme need be agreed.
    """
    return next((form for choice in choices(accept) if (form := _meant(choice)) is not None), TEXT)


def _meant(choice: Choice) -> Format | None:
    version = choice.parameters.get("version", "1.0.0")
    if choice.weight == 0:
        return None
    if choice.value == "application/openmetrics-text" and version in _OPENMETRICS_VERSIONS:
        return OPENMETRICS
    return TEXT if choice.value in ("text/plain", "text/*", "*/*") else None


def pieces(families: Iterable[Metric], form: Format) -> Iterator[bytes]:
    """`families` in `form`, in pieces of at most PART series each.

    Raises UnicodeEncodeError for a lone surrogate in a label value.
    """
    for family in families:
        for number, part in enumerate(_parts(family, form)):
            text = form.generate(_Single(part)).removesuffix(form.end)
            yield text if number == 0 else _without_head(text)
    if form.end:
        yield form.end


def _parts(family: Metric, form: Format) -> Iterator[Metric]:
    if len(family.samples) <= PART or (form is TEXT and _regrouped(family)):
        yield family
        return
    for start in range(0, len(family.samples), PART):
        part = copy.copy(family)
        part.samples = family.samples[start : start + PART]
        yield part


def _regrouped(family: Metric) -> bool:
    """Whether the classic format moves some samples behind all others, so that parts of it would come out of order."""
    names = {family.name + suffix for suffix in _WRITTEN_LAST}
    return any(sample.name in names for sample in family.samples)


def _without_head(text: bytes) -> bytes:
    """`text` without its HELP, TYPE and UNIT lines: the part before has brought them."""
    while text.startswith(b"#"):
        text = text.partition(b"\n")[2]
    return text


class _Single(Collector):
    """One family as prometheus_client's renderers want it."""

    def __init__(self, family: Metric) -> None:
        self._family = family

    def collect(self) -> Iterable[Metric]:
        return (self._family,)
