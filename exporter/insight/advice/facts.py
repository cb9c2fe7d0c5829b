"""What advice is made of, and what it is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from exporter.events import Direction, Evidence, Initiator, MassClose, Origin, ProbeFailure, Standing

Weight = Literal["act", "look", "calm"]
"""How much a sentence matters: something hurts now, something is worth a look in daylight, or nothing is wrong."""

NEAR: Final = 0.8
"""The share of a configured limit from which on a message is near it."""


@dataclass(frozen=True, slots=True)
class Advice:
    """`says` is what was seen, `do` what to do about it; empty where there is nothing to do."""

    weight: Weight
    says: str
    do: str = ""


@dataclass(frozen=True, slots=True)
class CloseCount:
    """How many connections were closed with one code by one initiator; both are label values."""

    code: str
    close_class: str
    initiator: Initiator
    count: int


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of one origin.

    `since` says when its counts began. `active` is connections open now, None where that is not known. `limits` has
    the configured limits in bytes, `near` how many messages were over NEAR of them, both by direction. `repeats` is
    refusals of clients that had been refused within the 5 minutes before. `probe_up` is None unless it is a probe's,
    and `probe_failures` its failures by reason. `lately` is how many of the closes were within the last moment.
    """

    origin: Origin
    since: str
    active: int | None = None
    closes: Sequence[CloseCount] = ()
    limits: Mapping[Direction, int] = field(default_factory=dict)
    near: Mapping[Direction, int] = field(default_factory=dict)
    repeats: Mapping[Evidence, int] = field(default_factory=dict)
    standing: Standing | None = None
    probe_up: bool | None = None
    probe_failures: Mapping[ProbeFailure, int] = field(default_factory=dict)
    lately: int = 0

    @property
    def closed(self) -> int:
        """All connections closed since the counts began."""
        return sum(close.count for close in self.closes)


@dataclass(frozen=True, slots=True)
class PastMassClose:
    """A mass close, `when` it began in words, and how many seconds `ago` it ended."""

    when: str
    ago: float
    mass_close: MassClose
