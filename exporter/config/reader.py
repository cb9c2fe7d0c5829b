"""Collects values and faults while the layers of the configuration are read."""

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, NamedTuple, TypeVar

from exporter.config.values import quoted

_T = TypeVar("_T")


class Place(NamedTuple):
    """Where a value was given: a path within the file, or a flag or variable (which has no `file`)."""

    file: str
    name: str = ""

    def __str__(self) -> str:
        return ": ".join(filter(None, self))

    def key(self, key: str) -> "Place":
        """The place of an entry of the mapping that is here."""
        if not self.file:
            return self
        spelled = key if re.fullmatch(r"[A-Za-z0-9_.-]+", key) else quoted(key)
        return Place(self.file, f"{self.name}.{spelled}" if self.name else spelled)

    def item(self, index: int) -> "Place":
        """The place of an item of the list that is here."""
        return Place(self.file, f"{self.name}[{index}]")


class Reader:
    """Keeps each fault and goes on, so that one look shows them all."""

    def __init__(self) -> None:
        self.faults: list[str] = []

    def fault(self, place: Place, sentence: str) -> None:
        """Keep the one line that the operator reads."""
        self.faults.append(f"{place}: {sentence}")

    def value(self, place: Place, value: object, parse: Callable[[object], _T]) -> _T | None:
        """What `parse` makes of a value; None, and a fault, where there is none or it raises ValueError."""
        try:
            if value is None:
                raise ValueError("no value")
            return parse(value)
        except ValueError as error:
            self.fault(place, str(error))
            return None

    def mapping(self, place: Place, value: object, known: Collection[str] = ()) -> dict[str, Any]:
        """The entries of a mapping, only those that are `known` if that is given; an empty section has none."""
        if value is None:
            return {}
        if not isinstance(value, dict):
            self.fault(place, f"expected a mapping, got {quoted(value)}")
            return {}
        for key in value:
            if known and key not in known:
                self.fault(place.key(key), f"unknown key; known keys are {', '.join(sorted(known))}")
        return {key: item for key, item in value.items() if not known or key in known}

    def items(self, place: Place, value: object) -> Iterable[tuple[Place, object]]:
        """The items of a list, each with its place; an empty entry has none."""
        if value is not None and not isinstance(value, list):
            self.fault(place, f"expected a list, got {quoted(value)}")
            return ()
        return [(place.item(index), item) for index, item in enumerate(value or ())]

    def entries(self, place: Place, value: object, parsers: Mapping[str, Callable[[object], _T]]) -> dict[str, _T]:
        """The parsed values of a mapping that may have these keys and no others."""
        found = self.mapping(place, value, parsers).items()
        parsed = ((key, self.value(place.key(key), item, parsers[key])) for key, item in found)
        return {key: item for key, item in parsed if item is not None}
