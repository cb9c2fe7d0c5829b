"""What all measurements share: the relays, how much is measured, and that they take turns."""

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Final, TypeVar

from benchmarks.processes import Process, Starter
from benchmarks.programs import Programs

T = TypeVar("T")

TAP: Final = "tap"
NGINX: Final = "nginx"
HAPROXY: Final = "haproxy"
ENVOY: Final = "envoy"
WEBSOCKETS: Final = "websockets"
DIRECT: Final = "direct"
BESIDE: Final = (NGINX, HAPROXY, ENVOY, WEBSOCKETS)

WARM_UP: Final = 0.2
"""Share of a measurement's time that goes before it, unmeasured."""

Rows = dict[str, dict[str, list[float]]]
"""Samples by row and then by what was measured."""


@dataclass(frozen=True)
class Effort:
    """How much is measured."""

    rounds: int = 5
    seconds: float = 0.8  # of one measurement
    idle_connections: int = 5000
    stopped_readers: int = 1000
    starts: int = 7


@dataclass(frozen=True)
class Bench:
    """One run: the service behind all relays, and how each relay is started."""

    programs: Programs
    effort: Effort
    echo: Process
    starters: Mapping[str, Starter]

    @contextlib.contextmanager
    def relays(self) -> Iterator[dict[str, Process]]:
        """All relays, started anew: how a process happens to lay out its memory must not decide a whole run."""
        with contextlib.ExitStack() as stack:
            yield {name: stack.enter_context(start(self.echo.port)) for name, start in self.starters.items()}

    @contextlib.contextmanager
    def relays_and_none(self) -> Iterator[dict[str, Process]]:
        """All relays, and the service itself."""
        with self.relays() as relays:
            yield relays | {DIRECT: self.echo}


def in_turns(
    what: str,
    rounds: int,
    subjects: Callable[[], AbstractContextManager[Mapping[str, T]]],
    measures: Sequence[Callable[[T], Mapping[str, float]]],
) -> Rows:
    """Take every measure of every subject once per round, so that a disturbance meets all subjects alike."""
    rows: Rows = {}
    for number in range(1, rounds + 1):
        print(f"{what}: round {number} of {rounds}", file=sys.stderr, flush=True)
        with subjects() as present:
            for measure in measures:
                for name, subject in present.items():
                    for label, value in measure(subject).items():
                        rows.setdefault(label, {}).setdefault(name, []).append(value)
    return rows
