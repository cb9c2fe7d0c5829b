"""What the refused and accepted message sizes of the last 24 hours show, above all where the real limit lies.

Sizes are payload bytes on the wire; times are seconds on one clock. Everything is kept by the hour: a day of refusals,
however many, is 26 small records, and evidence may stay up to an hour longer than it must.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple

from exporter.events import Bracket, ClientKey

HOURS: Final = 24
"""Into how many parts the time is cut for which evidence counts."""


@dataclass(slots=True)
class Hour:
    """The messages noted within an hour from `began` on, the last of them at `last`.

    `smallest` and `largest` are bytes of those `sized` whose size is known; 0 if there are none.
    """

    began: float
    last: float
    count: int = 0
    sized: int = 0
    smallest: int = 0
    largest: int = 0

    def add(self, size: int, now: float) -> None:
        """Note a message of `size` bytes, 0 where that is not known."""
        self.last = now
        self.count += 1
        if size:
            self.smallest = min(self.smallest or size, size)
            self.largest = max(self.largest, size)
            self.sized += 1


class Hours:
    """Messages of the last `kept` seconds; each hour goes when its last message is older.

    `smallest` and `largest` are bytes of those whose size is known, 0 if there are none. They are kept up to date,
    because every ending with a large message asks for one.
    """

    __slots__ = ("_hours", "_kept", "_length", "largest", "smallest")

    def __init__(self, kept: float) -> None:
        self._kept = kept
        self._length = kept / HOURS
        self._hours: list[Hour] = []
        self.smallest = 0
        self.largest = 0

    def add(self, size: int, now: float) -> None:
        """Note a message of `size` bytes, 0 where that is not known."""
        if not self._hours or now - self._hours[-1].began >= self._length:
            self._hours.append(Hour(now, now))
        self._hours[-1].add(size, now)
        if size:
            self.smallest = min(self.smallest or size, size)
            self.largest = max(self.largest, size)

    def age(self, now: float) -> None:
        """Forget what is too old. Call this every now and then: all else is as of the last call."""
        while self._hours and now - self._hours[0].last > self._kept:
            del self._hours[0]
            self._look_again()

    def drop(self, wrong: Callable[[Hour], bool]) -> None:
        """Forget the hours that are `wrong`."""
        self._hours = [hour for hour in self._hours if not wrong(hour)]
        self._look_again()

    def _look_again(self) -> None:
        self.smallest = min((hour.smallest for hour in self._hours if hour.sized), default=0)
        self.largest = max((hour.largest for hour in self._hours), default=0)

    @property
    def count(self) -> int:
        """How many messages."""
        return sum(hour.count for hour in self._hours)

    @property
    def sized(self) -> int:
        """How many messages of known size."""
        return sum(hour.sized for hour in self._hours)

    @property
    def last(self) -> float | None:
        """When the last message was noted, None if there is none."""
        return self._hours[-1].last if self._hours else None


class _Doubt(NamedTuple):
    """A client (or nobody known) was refused a message of `size` at `at`, although as large ones are accepted."""

    client: ClientKey | None
    size: int
    at: float


class Limit:
    """The bracket of the real limit in one direction: it lies from the largest accepted to the smallest refused size.

    Whatever contradicts an older bound drops it: the limit has changed since, or differs between connections, and the
    newer observation is the better guide (DESIGN 5.8). So the bracket is never inverted, and `contradicted` says for
    as long as evidence counts that there were both. Only plain sizes and only refusals by 1009 belong here.

    A refusal is what a peer says, so one client's word is a doubt and no more: it drops accepted sizes only together
    with another client's, and if nothing as large was accepted in between. Clients that are not recognised are taken
    for different ones.
    """

    __slots__ = ("_accepted", "_contradicted", "_doubt", "_kept", "_refused")

    def __init__(self, kept: float) -> None:
        self._kept = kept
        self._accepted = Hours(kept)
        self._refused = Hours(kept)
        self._contradicted: float | None = None
        self._doubt: _Doubt | None = None

    @property
    def largest_accepted(self) -> int:
        """Bytes, 0 if not known."""
        return self._accepted.largest

    def accepted(self, size: int, now: float) -> None:
        """A message of `size` bytes was accepted."""
        self.age(now)
        if 0 < self._refused.smallest <= size:
            self._refused.drop(lambda hour: hour.smallest <= size)
            self._contradicted = now
        if self._doubt is not None and self._doubt.size <= size:
            self._doubt = None
        self._accepted.add(size, now)

    def refused(self, size: int, now: float, client: ClientKey | None = None) -> None:
        """A message of `size` bytes was refused, of this client."""
        self.age(now)
        if self._accepted.largest >= size:
            self._contradicted = now
            agreed = self._doubted(_Doubt(client, size, now))
            if agreed is None:
                return
            self._accepted.drop(lambda hour: hour.largest >= agreed)
            size = agreed
        self._refused.add(size, now)

    def _doubted(self, new: _Doubt) -> int | None:
        """The size that two clients agree was refused, None if there is no second one. The farther doubt is kept."""
        old = self._doubt
        self._doubt = new if old is None or new.size <= old.size else old
        another = old is not None and (new.client is None or new.client != old.client)
        return max(old.size, new.size) if old is not None and another else None

    def age(self, now: float) -> None:
        """Forget what is too old."""
        self._accepted.age(now)
        self._refused.age(now)
        if self._contradicted is not None and now - self._contradicted > self._kept:
            self._contradicted = None
        if self._doubt is not None and now - self._doubt.at > self._kept:
            self._doubt = None

    def bracket(self) -> Bracket:
        """What is known of the limit, as of the last call of any other method."""
        return Bracket(self._accepted.largest or None, self._refused.smallest or None, self._contradicted is not None)
