"""Who came back, and how long after their close.

Each close leaves a token for its client, and the client's next attempt within 10 minutes takes it: reconnects are
never more than closes. A key that several connections hold at once (NAT, a proxy) tells that somebody came back, but
not who: there delays are not known.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from exporter.events import AFTERS, After, ClientKey
from exporter.insight.remembered import Remembered

TOKEN_LIFE: Final = 600.0
"""Seconds that a close waits for its client; also how long a key counts as shared after it was."""

_AFTER: Final[Mapping[str, After]] = MappingProxyType(
    {"going_away": "going_away", "abnormal": "abnormal", "too_big": "too_big"}
)
_NEVER: Final = float("-inf")

Tokens = tuple[int, ...]
"""How many closes wait for their client, for each of `AFTERS`."""

_NONE: Final[Tokens] = (0,) * len(AFTERS)
_ONE: Final[Mapping[After, Tokens]] = {after: tuple(int(after == other) for other in AFTERS) for after in AFTERS}
_INDEX: Final[Mapping[After, int]] = {after: index for index, after in enumerate(AFTERS)}

_Client = tuple[int, float, float, float, Tokens, Tokens]
"""Open connections; when several were open last; when one was closed last; when the newer tokens began; the newer and
the older tokens. A plain tuple of plain values, because the garbage collector leaves those alone: 100,000 objects would
cost it milliseconds at a time."""

_NOBODY: Final[_Client] = (0, _NEVER, _NEVER, _NEVER, _NONE, _NONE)


class CameBack(NamedTuple):
    """A client's attempt took the token of a close; `delay` is seconds since then, None where the key is shared."""

    after: After
    delay: float | None


class Reconnects:
    """The clients of one origin. `shared_connections` is how many open ones have a key that several hold.

    A key of many clients always has some token: so these are kept in two generations of half their life, of which the
    older goes as a whole. A client's one token lives exactly as long as it should.
    """

    def __init__(self, most_clients: int, token_life: float = TOKEN_LIFE) -> None:
        self._life = token_life
        self._clients: Remembered[_Client] = Remembered(most_clients, self._forgotten)
        self.shared_connections = 0

    def __len__(self) -> int:
        return len(self._clients)

    def attempted(self, client: ClientKey, at: float) -> CameBack | None:
        """A client tries to connect, at a moment in seconds. Returns which close it came back from, if from any."""
        known = self._clients.get(client)
        if known is None or (known[4] is _NONE and known[5] is _NONE):
            return None
        opened, several, closed, began, newer, older = known
        waiting = sum(newer) + sum(older)
        if waiting > 1:
            began, newer, older = self._young(at, began, newer, older)
        if at - closed > self._life or (newer is _NONE and older is _NONE):
            self._put(client, (opened, several, closed, began, _NONE, _NONE))
            return None
        after, newer, older = _taken(newer, older)
        self._put(client, (opened, several, closed, began, newer, older))
        shared = opened > 0 or waiting > 1 or at - several <= self._life
        return CameBack(after, None if shared else max(0.0, at - closed))

    def opened(self, client: ClientKey, now: float) -> None:
        """A client's connection was accepted."""
        opened, several, closed, began, newer, older = self._clients.get(client) or _NOBODY
        opened += 1
        if opened > 1:
            self.shared_connections += 2 if opened == 2 else 1
            several = now
        self._put(client, (opened, several, closed, began, newer, older))

    def ended(self, client: ClientKey, close_class: str, now: float, *, token: bool = True) -> None:
        """A client's connection has ended, which leaves a `token` unless the client is back already."""
        opened, several, closed, began, newer, older = self._clients.get(client) or _NOBODY
        if opened > 1:
            self.shared_connections -= 2 if opened == 2 else 1
            several = max(several, now) if token or opened > 2 else _NEVER
        if token:
            if sum(newer) + sum(older) > 1:
                began, newer, older = self._young(now, began, newer, older)
            if now - closed > self._life:
                newer = older = _NONE
            if now - began >= self._life / 2:
                newer, older = _NONE, newer
            if newer is _NONE:
                began = now
            closed = now
            after = after_close(close_class)
            newer = _ONE[after] if newer is _NONE else _changed(newer, _INDEX[after], 1)
        self._put(client, (max(opened - 1, 0), several, closed, began, newer, older))

    def replaced(self, client: ClientKey, now: float, within: float) -> bool:
        """Whether the connection that ends now has a successor, accepted less than `within` seconds ago.

        A client may be back before its old connection is seen to end. Of a key of many clients that cannot be told.
        """
        known = self._clients.get(client)
        return known is not None and known[0] == 2 and now - known[1] <= within

    def shared(self, client: ClientKey, now: float) -> bool:
        """Whether several connections have this key, or had it in the last 10 minutes."""
        opened, several, *_ = self._clients.get(client) or _NOBODY
        return opened > 1 or now - several <= self._life

    def _young(self, now: float, began: float, newer: Tokens, older: Tokens) -> tuple[float, Tokens, Tokens]:
        """When the newer tokens began, and both generations, without what is too old; each lasts for half a life.

        To be asked of several tokens: a single one lives as long as it should.
        """
        half = self._life / 2
        if now - began < half:
            return began, newer, older
        return (began + half, _NONE, newer) if now - began < 2 * half else (now, _NONE, _NONE)

    def holds(self, client: ClientKey) -> bool:
        """Whether a connection of this key is known to be open."""
        known = self._clients.get(client)
        return known is not None and known[0] > 0

    def _put(self, client: ClientKey, known: _Client) -> None:
        if known[0] or known[4] is not _NONE or known[5] is not _NONE or known[1] is not _NEVER:
            self._clients.put(client, known)
        else:
            self._clients.forget(client)

    def _forgotten(self, known: _Client) -> None:
        if known[0] > 1:
            self.shared_connections -= known[0]


def after_close(close_class: str) -> After:
    """What kind of close a class is."""
    return _AFTER.get(close_class, "other")


def _taken(newer: Tokens, older: Tokens) -> tuple[After, Tokens, Tokens]:
    """Take a token, an older one first: which it was, and what is left."""
    tokens = newer if older is _NONE else older
    index = 0
    while not tokens[index]:
        index += 1
    left = _changed(tokens, index, -1)
    return (AFTERS[index], left, older) if older is _NONE else (AFTERS[index], newer, left)


def _changed(tokens: Tokens, index: int, by: int) -> Tokens:
    """Tokens with one count changed; `_NONE` itself if nothing is left."""
    counts = list(tokens)
    counts[index] += by
    return tuple(counts) if any(counts) else _NONE
