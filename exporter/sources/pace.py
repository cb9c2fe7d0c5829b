"""How much of a side is read at once, so that observing one read keeps the event loop from nobody else for long.

A read costs next to nothing to observe where it is payload, and up to a microsecond or two a byte where it is tiny
frames or heads. So a read takes what is known to need no looking at, and little beyond it.
"""

from typing import Final

READ_SIZE: Final = 256 * 1024
"""Bytes read at once at most."""

FIRST_READ: Final = 17 * 1024
LEAST_READ: Final = 1024
"""Bytes read at once beyond those that need no looking at: usually (16 KiB, which many peers write at once, and their
headers), and from whoever's bytes take long to observe. TCP slows down whoever sends thousands of tiny frames."""

LONG: Final = 0.001
"""Seconds of observing one read from which on less is read at once."""

FORGIVEN: Final = 60.0
"""Seconds after which a side whose bytes took long is read as usual again: on a machine that is busy with other things
anything takes long. Whoever means harm gains nothing, as a new connection is read as usual at once."""


class Pace:
    """How much of one side is read next: `most` bytes.

    `usual` is whether nothing is known of them. `large` is whether a look at how they begin is worth while: the last
    message was larger than what is usual, but not too large for one read.
    """

    __slots__ = ("_allowance", "_forgiven", "large", "most", "usual")

    def __init__(self) -> None:
        self._allowance = FIRST_READ
        self._forgiven = 0.0
        self.most = FIRST_READ
        self.usual = True
        self.large = False

    def observed(self, began: float, ended: float, ahead: int) -> None:
        """A read was observed from `began` to `ended` (monotonic, seconds); `ahead` bytes now need no looking at."""
        if ended - began > LONG:
            self._allowance = max(LEAST_READ, self._allowance // 4)
            self._forgiven = ended + FORGIVEN
        elif self._allowance < FIRST_READ and ended >= self._forgiven:
            self._allowance = FIRST_READ
        if self.usual:
            self.large = self._allowance < ahead <= READ_SIZE
        self.most = min(READ_SIZE, ahead + self._allowance)
        self.usual = ahead == 0

    def foreseen(self, ahead: int) -> None:
        """How the next bytes begin tells that `ahead` of them need no looking at."""
        self.large = self._allowance < ahead <= READ_SIZE
        self.most = min(READ_SIZE, ahead + self._allowance)
        self.usual = ahead == 0
