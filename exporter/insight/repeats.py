"""Which clients are refused again and again: a 1009 is often a loop, because a client that comes back resends.

A client is recognised by its key, and remembered by the times of its last refusals.
"""

from typing import Final

from exporter.events import EVIDENCES, ClientKey, Evidence
from exporter.insight.remembered import Remembered

Times = tuple[float, ...]
"""When a client was refused: its last few refusals of each evidence, oldest first, one evidence after the other."""

NEVER: Final = -1e12
"""A time (seconds) before any clock began."""

STEPS: Final = 900
"""The time for which a client is stuck is counted in so many steps: of 15 minutes these are seconds."""


class _Counts:
    """How many clients are stuck, by the step of the oldest refusal that makes them so.

    A scrape adds up at most about STEPS numbers, however many clients there are. The price is that a client may count
    for up to one step too long.
    """

    __slots__ = ("_counts", "_step", "_window")

    def __init__(self, window: float) -> None:
        self._window = window
        self._step = window / STEPS
        self._counts: dict[float, int] = {}

    def _edge(self, now: float) -> float:
        return (now - self._window) // self._step

    def change(self, since: float, by: int) -> None:
        """So many more clients are stuck because of refusals since then, or are not if that is too long ago."""
        step = since // self._step
        self._counts[step] = self._counts.get(step, 0) + by

    def total(self, now: float) -> int:
        edge = self._edge(now)
        return sum(count for step, count in self._counts.items() if step >= edge)

    def purge(self, now: float) -> None:
        edge = self._edge(now)
        for step in [step for step in self._counts if step < edge]:
            del self._counts[step]


class Repeats:
    """Remembers the refused clients of one origin, about `most_clients` (two or more) at most.

    A refusal is a repeat within `repeat` seconds of the client's last one; a client is stuck with so many `refusals`
    within the last `stuck` seconds (METRICS.md, Messages). Both look at one evidence at a time. `len()` is how many
    clients are remembered.
    """

    __slots__ = ("_clients", "_counts", "_ends", "_nobody", "_refusals", "_repeat")

    def __init__(self, most_clients: int, *, repeat: float, stuck: float, refusals: int) -> None:
        self._clients: Remembered[Times] = Remembered(most_clients, self._forgotten)
        self._repeat = repeat
        self._refusals = refusals
        self._ends = {evidence: number * refusals for number, evidence in enumerate(EVIDENCES, 1)}
        self._nobody: Times = (NEVER,) * (refusals * len(EVIDENCES))
        self._counts = _Counts(stuck)

    def __len__(self) -> int:
        return len(self._clients)

    def refused(self, client: ClientKey, evidence: Evidence, now: float) -> bool:
        """A message of this client was refused. Returns whether that is a repeat."""
        times = self._clients.get(client) or self._nobody
        end = self._ends[evidence]
        begin = end - self._refusals
        after = (*times[:begin], *times[begin + 1 : end], now, *times[end:])
        self._clients.put(client, after)
        if after[begin] > NEVER:
            self._counts.change(self._since(times), -1)
            self._counts.change(self._since(after), 1)
        return now - times[end - 1] <= self._repeat

    def _since(self, times: Times) -> float:
        """Since when the client has been refused often enough, of either evidence; NEVER if it was not."""
        return max(times[:: self._refusals])

    def _forgotten(self, times: Times) -> None:
        self._counts.change(self._since(times), -1)

    def tick(self, now: float) -> None:
        """Let go of what no answer rests on any more."""
        self._counts.purge(now)

    def stuck(self, now: float) -> int:
        """How many clients are stuck."""
        return self._counts.total(now)
