"""Which clients are refused again and again: a 1009 is often a loop, because a client that comes back resends.

A client is recognised by its key, and remembered by the times of its last refusals. Memory is bounded whatever the
number of clients: the store is cut into shards, and each shard has two generations. Who is refused goes into the newer
one; when that is full or old, the older one is dropped whole. Many small shards, because dropping 50,000 entries at
once would hold up the event loop for milliseconds.
"""

from typing import Final

from exporter.events import EVIDENCES, ClientKey, Evidence

Times = tuple[float, ...]
"""When a client was refused: its last few refusals of each evidence, oldest first, one evidence after the other."""

NEVER: Final = -1e12
"""A time (seconds) before any clock began."""

SHARD: Final = 1000
"""Clients that one shard may hold, in both generations."""

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

    def change(self, since: float, by: int, now: float) -> None:
        """So many more clients are stuck because of refusals since then; nothing if that is too long ago."""
        step = since // self._step
        if step >= self._edge(now):
            self._counts[step] = self._counts.get(step, 0) + by

    def total(self, now: float) -> int:
        edge = self._edge(now)
        return sum(count for step, count in self._counts.items() if step >= edge)

    def purge(self, now: float) -> None:
        edge = self._edge(now)
        for step in [step for step in self._counts if step < edge]:
            del self._counts[step]


class _Shard:
    """Some of the clients, in two generations; the newer one began at `began`."""

    __slots__ = ("began", "new", "old")

    def __init__(self) -> None:
        self.began = NEVER
        self.new: dict[ClientKey, Times] = {}
        self.old: dict[ClientKey, Times] = {}


class Repeats:
    """Remembers at most `most_clients` (two or more) refused clients of one origin.

    A refusal is a repeat within `repeat` seconds of the client's last one; a client is stuck with so many `refusals`
    within the last `stuck` seconds (METRICS.md, Messages). Both look at one evidence at a time. `len()` is how many
    clients are remembered.
    """

    __slots__ = ("_counts", "_ends", "_kept", "_most", "_next", "_nobody", "_refusals", "_repeat", "_shards")

    def __init__(self, most_clients: int, *, repeat: float, stuck: float, refusals: int) -> None:
        shards = max(1, most_clients // SHARD)
        self._shards = [_Shard() for _ in range(shards)]
        self._most = max(1, most_clients // (2 * shards))  # in one generation of one shard
        self._next = 0
        self._repeat = repeat
        self._kept = max(repeat, stuck)
        self._refusals = refusals
        self._ends = {evidence: number * refusals for number, evidence in enumerate(EVIDENCES, 1)}
        self._nobody: Times = (NEVER,) * (refusals * len(EVIDENCES))
        self._counts = _Counts(stuck)

    def __len__(self) -> int:
        return sum(len(shard.new) + len(shard.old) for shard in self._shards)

    def refused(self, client: ClientKey, evidence: Evidence, now: float) -> bool:
        """A message of this client was refused. Returns whether that is a repeat."""
        shard = self._shards[client % len(self._shards)]
        times = shard.new.get(client)
        if times is None:
            times = shard.old.pop(client, self._nobody)
            if len(shard.new) >= self._most:
                self._turn(shard, now)
        end = self._ends[evidence]
        begin = end - self._refusals
        after = shard.new[client] = (*times[:begin], *times[begin + 1 : end], now, *times[end:])
        if after[begin] > NEVER:
            self._counts.change(self._since(times), -1, now)
            self._counts.change(self._since(after), 1, now)
        return now - times[end - 1] <= self._repeat

    def _since(self, times: Times) -> float:
        """Since when the client has been refused often enough, of either evidence; NEVER if it was not."""
        return max(times[:: self._refusals])

    def _turn(self, shard: _Shard, now: float) -> None:
        """Drop the older generation, and begin a new one."""
        for times in shard.old.values():
            self._counts.change(self._since(times), -1, now)
        shard.old = shard.new
        shard.new = {}
        shard.began = now

    def tick(self, now: float) -> None:
        """Forget who has not been refused for long. One shard a call, so that no call is long."""
        self._counts.purge(now)
        shard = self._shards[self._next]
        self._next = (self._next + 1) % len(self._shards)
        if now - shard.began > self._kept:
            self._turn(shard, now)

    def stuck(self, now: float) -> int:
        """How many clients are stuck."""
        return self._counts.total(now)
