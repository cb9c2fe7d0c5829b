"""Checks passwords against bcrypt hashes, so that guessing costs the guesser and not the relay.

What was right once is remembered, as a keyed digest. Everything else is hashed in a thread, few at a time, and what
turns out to be wrong has to be afforded: each client has so many guesses, and all together so much of the processor.
"""

import asyncio
import hashlib
import hmac
import ipaddress
import math
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import bcrypt
import structlog

from exporter.web.errors import ErrorToken

HASHED_AT_ONCE: Final = 2
WAITING: Final = 8
"""Hashes that may wait for their turn; more than these are refused as overload."""

GUESSES: Final = 10
"""Wrong passwords that one client has at once."""
GUESS_EVERY: Final = 10.0
"""Seconds after which a client has one more."""
CLIENTS: Final = 1024
"""Clients whose guesses are remembered; IPv6 ones by their /64, which is what one of them has at its disposal."""

SHARE: Final = 0.1
"""Of one processor, for the wrong passwords of everybody."""
SAVED: Final = 3.0
"""Seconds of one processor that may be spent at once, before that share applies."""

COMPLAIN_EVERY: Final = 60.0
"""Seconds between two lines of the log about guessing."""

_MOST_BYTES: Final = 72  # bcrypt takes no more into account
_DIGEST_BYTES: Final = 32

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request is not let in. `retry_after` is in seconds; None where waiting does not help."""

    token: ErrorToken
    retry_after: int | None = None


class Bucket:
    """Holds `size` tokens at most and gets `rate` more a second. `clock` is monotonic, in seconds."""

    def __init__(self, size: float, rate: float, clock: Callable[[], float]) -> None:
        self._size = size
        self._rate = rate
        self._clock = clock
        self._tokens = size
        self._at = clock()

    def wait(self, tokens: float = 1.0) -> float:
        """Seconds until there are so many; 0 if there are."""
        now = self._clock()
        self._tokens = min(self._size, self._tokens + (now - self._at) * self._rate)
        self._at = now
        return max(0.0, (tokens - self._tokens) / self._rate)

    def take(self, tokens: float = 1.0) -> None:
        """Take so many, whether or not they are there; a negative number gives them back."""
        self._tokens -= tokens


class Passwords:
    """Knows which passwords are right. `clock` is monotonic, in seconds; `matches` compares password and hash."""

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        matches: Callable[[bytes, bytes], bool] = bcrypt.checkpw,
    ) -> None:
        self._clock = clock
        self._matches = matches
        self._secret = secrets.token_bytes(_DIGEST_BYTES)
        self._right: dict[str, bytes] = {}
        self._right_for: Mapping[str, bytes] = {}
        self._checking: dict[bytes, asyncio.Future[bool]] = {}
        self._turns = asyncio.Semaphore(HASHED_AT_ONCE)
        self._guesses: OrderedDict[str, Bucket] = OrderedDict()
        self._processor = Bucket(SAVED, SHARE, clock)
        self._last_complaint = float("-inf")

    @property
    def remembered(self) -> int:
        """How many passwords are known to be right: one for each user at most."""
        return len(self._right)

    async def refusal(self, users: Mapping[str, bytes], user: str, password: bytes, client: str) -> Refusal | None:
        """Why this user is not let in from this client's address; None if they are. `users` have bcrypt hashes.

        A user who is not known takes as long as one who is: the password is compared with the hash of another.
        """
        self._forget_all_but(users)
        hashed = users.get(user)
        digest = self._digest(user.encode(), hashed or b"", password)
        if hmac.compare_digest(self._right.get(user, b""), digest):
            return None
        under_way = self._checking.get(digest)
        if under_way is not None:
            return None if await asyncio.shield(under_way) else Refusal("unauthorized")
        refusal = self._admit(client)
        if refusal is not None:
            return refusal
        right, cost = await self._check(
            digest, hashed or self._stand_in(users, user), password, known=hashed is not None
        )
        if not right:
            self._processor.take(cost)
            return Refusal("unauthorized")
        self._guesses_of(client).take(-1)
        if self._right_for is users:
            self._right[user] = digest
        return None

    def _forget_all_but(self, users: Mapping[str, bytes]) -> None:
        if users is not self._right_for:
            self._right_for = users
            self._right = {user: digest for user, digest in self._right.items() if user in users}

    def _admit(self, client: str) -> Refusal | None:
        """Take one guess from the client's; it is given back if it was none."""
        guesses = self._guesses_of(client)
        wait = max(guesses.wait(), self._processor.wait(0.0))
        if wait > 0:
            self._complain(client)
            return Refusal("rate_limited", math.ceil(wait))
        if len(self._checking) >= HASHED_AT_ONCE + WAITING:
            return Refusal("overloaded")
        guesses.take()
        return None

    def _guesses_of(self, client: str) -> Bucket:
        name = _network(client)
        bucket = self._guesses.pop(name, None) or Bucket(GUESSES, 1 / GUESS_EVERY, self._clock)
        self._guesses[name] = bucket
        if len(self._guesses) > CLIENTS:
            self._guesses.popitem(last=False)
        return bucket

    async def _check(self, digest: bytes, hashed: bytes, password: bytes, *, known: bool) -> tuple[bool, float]:
        """Whether the password is right, and the seconds of processor that it took to find out."""
        result: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._checking[digest] = result
        try:
            async with self._turns:
                matched, cost = await asyncio.to_thread(self._timed, password[:_MOST_BYTES], hashed)
            result.set_result(matched and known)
            return matched and known, cost
        finally:
            del self._checking[digest]
            result.cancel()  # in case there is no result, for whoever waits for it

    def _timed(self, password: bytes, hashed: bytes) -> tuple[bool, float]:
        begun = time.thread_time()
        matched = self._matches(password, hashed)
        return matched, time.thread_time() - begun

    def _digest(self, user: bytes, hashed: bytes, password: bytes) -> bytes:
        parts = b"".join(len(part).to_bytes(4) + part for part in (user, hashed, password))
        return hashlib.blake2b(parts, key=self._secret, digest_size=_DIGEST_BYTES).digest()

    def _stand_in(self, users: Mapping[str, bytes], user: str) -> bytes:
        """The hash of a user, always the same for the same unknown name: costs may differ from user to user."""
        number = int.from_bytes(self._digest(user.encode(), b"", b"")[:8])
        return list(users.values())[number % len(users)]

    def _complain(self, client: str) -> None:
        if self._clock() - self._last_complaint >= COMPLAIN_EVERY:
            self._last_complaint = self._clock()
            _log.warning("too many wrong passwords", client=client)


def _network(client: str) -> str:
    try:
        address = ipaddress.ip_address(client)
    except ValueError:
        return client
    return client if address.version == 4 else str(ipaddress.ip_network((address.packed, 64), strict=False))
