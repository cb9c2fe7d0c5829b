"""What is known of clients, within a bound: two generations, of which the older one is forgotten as a whole.

Evicting the oldest entry of one large dict again and again is slow, because it searches past all that went before.
"""

from collections.abc import Callable
from typing import Final, Generic, TypeVar

from exporter.events import ClientKey

SHARDS: Final = 64
"""A dict of 50,000 entries takes milliseconds to grow, and to be given back; a shard of it does not."""

V = TypeVar("V")


class Remembered(Generic[V]):
    """Values by client key, of the `most` clients at least half of which were seen last.

    `forgotten` is called with each value that is dropped to keep the bound.
    """

    __slots__ = ("_current", "_forgotten", "_half", "_previous", "_retired", "_size")

    def __init__(self, most: int, forgotten: Callable[[V], None] | None = None) -> None:
        self._half = max(most // 2, 1)
        self._forgotten = forgotten
        self._current: list[dict[ClientKey, V]] = [{} for _ in range(SHARDS)]
        self._previous: list[dict[ClientKey, V]] = [{} for _ in range(SHARDS)]
        self._retired: list[dict[ClientKey, V]] = []
        self._size = 0  # of the current generation

    def __len__(self) -> int:
        return self._size + sum(map(len, self._previous))

    def get(self, key: ClientKey) -> V | None:
        """What is known of a client."""
        shard = key % SHARDS
        value = self._current[shard].get(key)
        return self._previous[shard].get(key) if value is None else value

    def put(self, key: ClientKey, value: V) -> None:
        """Know this of a client from now on."""
        shard = key % SHARDS
        current = self._current[shard]
        if key not in current:
            self._previous[shard].pop(key, None)
            self._size += 1
            if self._retired:
                self._give_back()
        current[key] = value
        if self._size > self._half:
            self._turn()

    def forget(self, key: ClientKey) -> None:
        """Nothing is known of a client any more."""
        shard = key % SHARDS
        if self._current[shard].pop(key, None) is not None:
            self._size -= 1
        else:
            self._previous[shard].pop(key, None)

    def _turn(self) -> None:
        while self._retired:
            self._give_back()
        self._retired, self._previous = self._previous, self._current
        self._current = [{} for _ in range(SHARDS)]
        self._size = 0

    def _give_back(self) -> None:
        """Let go of a part of what was forgotten."""
        shard = self._retired.pop()
        if self._forgotten is not None:
            for value in shard.values():
                self._forgotten(value)
