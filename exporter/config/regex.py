"""Regular expressions that take no longer than their text is long.

`re` backtracks: a pattern such as `(a+)+b` takes years for thirty letters, in which nothing else runs. Here the syntax
is that of `re` without what needs backtracking, and matching follows all ways at once (Thompson 1968): the time is
the length of the text times the size of the pattern.

The grammar is the standard library's own, from a private module of it: import this one only where there is a pattern.
"""

import re
from collections.abc import Callable, Iterable
from re import _constants as sre  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any, Final

MAX_SIZE: Final = 500
"""Steps of a pattern, repetitions written out."""

MAX_REPETITIONS: Final = 10 * MAX_SIZE
"""Repetitions written out. Those of nothing make no steps, and `(?:){20000000}` still takes its time."""

_TOO_LARGE: Final = f"is too large: with its repetitions written out it has more than {MAX_SIZE} steps"

_CATEGORIES: Final[dict[Any, str]] = {
    sre.CATEGORY_DIGIT: r"\d",
    sre.CATEGORY_NOT_DIGIT: r"\D",
    sre.CATEGORY_SPACE: r"\s",
    sre.CATEGORY_NOT_SPACE: r"\S",
    sre.CATEGORY_WORD: r"\w",
    sre.CATEGORY_NOT_WORD: r"\W",
}
_PLACES: Final[dict[Any, str]] = {
    sre.AT_BEGINNING: r"\A",
    sre.AT_BEGINNING_STRING: r"\A",
    sre.AT_END: r"$",
    sre.AT_END_STRING: r"\Z",
    sre.AT_BOUNDARY: r"\b",
    sre.AT_NON_BOUNDARY: r"\B",
}
_FLAGS: Final = re.IGNORECASE | re.DOTALL

Single = Callable[[str], object]
"""Whether a pattern of one character matches this one."""

Assertion = Callable[[str, int], object]
"""Whether an assertion holds in a text at an index."""


class Regex:
    """A compiled pattern. Raises ValueError, with a sentence, for one that is faulty or not supported."""

    def __init__(self, pattern: str) -> None:
        try:
            tree = parser.parse(pattern)
        except RecursionError:
            raise ValueError(_TOO_LARGE) from None
        except (re.error, OverflowError) as error:
            fault = str(error).encode("unicode_escape").decode()
            raise ValueError(f"is not a regular expression: {fault}") from None
        self._flags = tree.state.flags & ~re.UNICODE
        if self._flags & ~_FLAGS:
            raise ValueError("has a flag that is not supported; those that are: (?i) and (?s)")
        # What each step takes or asserts, and the steps that follow it; the end is behind the last one.
        self._takes: dict[int, Single] = {}
        self._holds: dict[int, Assertion] = {}
        self._then: list[list[int]] = []
        self._repetitions = 0
        try:
            self._sequence(tree)
        except RecursionError:
            raise ValueError(_TOO_LARGE) from None

    def search(self, text: str) -> bool:
        """Whether the pattern matches anywhere in `text`."""
        alive: set[int] = set()
        for index in range(len(text) + 1):
            reached = self._reached(alive, text, index)
            if len(self._then) in reached:
                return True
            taken = (step for step in reached & self._takes.keys() if index < len(text))
            alive = {after for step in taken if self._takes[step](text[index]) for after in self._then[step]}
        return False

    def _reached(self, alive: Iterable[int], text: str, index: int) -> set[int]:
        """The steps that can be got to without taking a character, from those `alive` and from the start."""
        waiting = [0, *alive]
        reached: set[int] = set()
        while waiting:
            step = waiting.pop()
            if step in reached:
                continue
            reached.add(step)
            if step < len(self._then) and step not in self._takes:
                holds = self._holds.get(step)
                if holds is None or holds(text, index):
                    waiting += self._then[step]
        return reached

    def _step(self) -> int:
        """A new step, which leads to the next one."""
        if len(self._then) >= MAX_SIZE:
            raise ValueError(_TOO_LARGE)
        self._then.append([len(self._then) + 1])
        return len(self._then) - 1

    def _sequence(self, nodes: Iterable[tuple[Any, Any]]) -> None:
        for kind, value in nodes:
            if kind is sre.BRANCH:
                self._branch(value[1])
            elif kind in (sre.MAX_REPEAT, sre.MIN_REPEAT):
                self._repeat(*value)
            elif kind is sre.SUBPATTERN and not value[1] and not value[2]:
                self._sequence(value[3])
            elif kind is sre.AT:
                # At an index `match` still looks at what is before it, and `\A` is the text's beginning.
                self._holds[self._step()] = re.compile(_PLACES[value]).match
            elif kind in (sre.LITERAL, sre.NOT_LITERAL, sre.ANY, sre.IN):
                self._takes[self._step()] = re.compile(_spelled(kind, value), self._flags).fullmatch
            else:
                raise ValueError(
                    "has a lookaround, a backreference, an atomic group or flags of a group: not supported"
                )

    def _branch(self, choices: Iterable[Any]) -> None:
        fork = self._step()
        starts, ends = [], []
        for choice in choices:
            starts.append(len(self._then))
            self._sequence(choice)
            ends.append(self._step())
        self._then[fork] = starts
        for end in ends:
            self._then[end] = [len(self._then)]

    def _repeat(self, least: int, most: Any, body: Any) -> None:
        for _ in range(least):
            self._repetition(body)
        endless = most is sre.MAXREPEAT
        forks = []
        for _ in range(1 if endless else most - least):
            fork = self._step()
            forks.append(fork)
            self._repetition(body)
            if endless:
                self._then[self._step()] = [fork]
        for fork in forks:
            self._then[fork].append(len(self._then))

    def _repetition(self, body: Any) -> None:
        self._repetitions += 1
        if self._repetitions > MAX_REPETITIONS:
            raise ValueError(_TOO_LARGE)
        self._sequence(body)


def _spelled(kind: Any, value: Any) -> str:
    """The pattern of one character, written out again."""
    if kind is sre.ANY:
        return "."
    items = value if kind is sre.IN else [(kind, value)]
    return f"[{''.join(_member(*item) for item in items)}]"


def _member(kind: Any, value: Any) -> str:
    if kind is sre.NEGATE:
        return "^"
    if kind is sre.RANGE:
        return "-".join(map(_character, value))
    if kind is sre.CATEGORY:
        return _CATEGORIES[value]
    return ("^" if kind is sre.NOT_LITERAL else "") + _character(value)


def _character(code: int) -> str:
    return f"\\U{code:08x}"
