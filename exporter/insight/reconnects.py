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

_Client = tuple[int, float, float, Tokens]
"""Open connections; when several were open last; when one was closed last; what waits. A plain tuple of plain values,
because the garbage collector leaves those alone: 100,000 objects would cost it milliseconds at a time."""

_NOBODY: Final[_Client] = (0, _NEVER, _NEVER, _NONE)


class CameBack(NamedTuple):
    """A client's attempt took the token of a close; `delay` is seconds since then, None where the key is shared."""

    after: After
    delay: float | None


class Reconnects:
    """The clients of one origin. `shared_connections` is how many open ones have a key that several hold."""

    def __init__(self, most_clients: int, token_life: float = TOKEN_LIFE) -> None:
        self._life = token_life
        self._clients: Remembered[_Client] = Remembered(most_clients, self._forgotten)
        self.shared_connections = 0

    def __len__(self) -> int:
        return len(self._clients)

    def attempted(self, client: ClientKey, at: float) -> CameBack | None:
        """A client tries to connect, at a moment in seconds. Returns which close it came back from, if from any."""
        known = self._clients.get(client)
        if known is None or known[3] is _NONE:
            return None
        opened, several, closed, tokens = known
        if at - closed > self._life:
            self._put(client, (opened, several, closed, _NONE))
            return None
        after = next(after for after, waiting in zip(AFTERS, tokens, strict=True) if waiting)
        self._put(client, (opened, several, closed, _less(tokens, after)))
        shared = opened > 0 or sum(tokens) > 1 or at - several <= self._life
        return CameBack(after, None if shared else max(0.0, at - closed))

    def opened(self, client: ClientKey, now: float) -> None:
        """A client's connection was accepted."""
        opened, several, closed, tokens = self._clients.get(client) or _NOBODY
        opened += 1
        if opened > 1:
            self.shared_connections += 2 if opened == 2 else 1
            several = now
        self._put(client, (opened, several, closed, tokens))

    def ended(self, client: ClientKey, close_class: str, now: float) -> None:
        """A client's connection has ended."""
        opened, several, closed, tokens = self._clients.get(client) or _NOBODY
        if opened > 1:
            self.shared_connections -= 2 if opened == 2 else 1
            several = now
        if now - closed > self._life:
            tokens = _NONE
        after = _AFTER.get(close_class, "other")
        tokens = _ONE[after] if tokens is _NONE else _more(tokens, after)
        self._put(client, (max(opened - 1, 0), several, now, tokens))

    def shared(self, client: ClientKey, now: float) -> bool:
        """Whether several connections have this key, or had it in the last 10 minutes."""
        opened, several, *_ = self._clients.get(client) or _NOBODY
        return opened > 1 or now - several <= self._life

    def holds(self, client: ClientKey) -> bool:
        """Whether a connection of this key is known to be open."""
        known = self._clients.get(client)
        return known is not None and known[0] > 0

    def _put(self, client: ClientKey, known: _Client) -> None:
        if known[0] or known[3] is not _NONE or known[1] is not _NEVER:
            self._clients.put(client, known)
        else:
            self._clients.forget(client)

    def _forgotten(self, known: _Client) -> None:
        if known[0] > 1:
            self.shared_connections -= known[0]


def _more(tokens: Tokens, after: After) -> Tokens:
    return tuple(waiting + (after == kind) for kind, waiting in zip(AFTERS, tokens, strict=True))


def _less(tokens: Tokens, after: After) -> Tokens:
    left = tuple(waiting - (after == kind) for kind, waiting in zip(AFTERS, tokens, strict=True))
    return left if any(left) else _NONE
