"""What the demo's clients know of themselves, by habit: how they fared since the last deploy."""

from dataclasses import dataclass
from typing import Final, Literal

from exporter.events import Side

Habit = Literal["well-behaved", "herd", "too big"]

AT_ONCE: Final = 1.0
"""Seconds after the beginning of a deploy within which a client that returns has not waited for anything."""


@dataclass(slots=True)
class Score:
    """The clients of one habit. What follows `last_close` counts from the beginning of the last deploy."""

    clients: int
    connected: int = 0
    last_close: tuple[int, Side] | None = None
    lost: int = 0
    at_once: int = 0
    refused: int = 0

    def closed(self, code: int, initiator: Side) -> bool:
        """Note how a connection ended. Returns whether it was lost to a deploy."""
        self.last_close = code, initiator
        lost = code == 1001 and initiator == "server"
        self.lost += lost
        return lost


@dataclass(slots=True)
class Board:
    """Everybody's scores, and the deploys. Moments are seconds of a monotonic clock."""

    scores: dict[Habit, Score]
    deploys: int = 0
    last_deploy: float = float("-inf")
    next_deploy: float | None = None
    """None while a deploy is under way."""

    def deploy(self, now: float) -> None:
        """A deploy begins: count anew from here."""
        self.deploys += 1
        self.last_deploy = now
        self.next_deploy = None
        for score in self.scores.values():
            score.lost = score.at_once = score.refused = 0

    def returns(self, score: Score, now: float) -> None:
        """A client lost to the last deploy makes its first attempt to come back."""
        score.at_once += now - self.last_deploy <= AT_ONCE
