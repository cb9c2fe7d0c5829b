"""The form of a row that says what a query of a dashboard must show, and whether it does."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from prometheus_client.utils import floatToGoString

from tests.dashboards_live import WINDOW

Value = float | Callable[[float], bool]
Values = Mapping[tuple[str, ...], Value]


@dataclass(frozen=True)
class Shown:
    """The series of query `ref` of a panel, `by` these labels, that are neither 0 nor NaN."""

    title: str
    by: tuple[str, ...]
    values: Values = field(default_factory=dict)
    ref: str = "A"
    others: bool = False
    """Whether series that are not listed may have values too."""


def rates(counts: Mapping[tuple[str, ...], float]) -> Values:
    return {labels: count / WINDOW for labels, count in counts.items()}


def cumulative(sizes: Mapping[int, int], bounds: tuple[float, ...]) -> Values:
    """The buckets of so many observations of each size."""
    upto = {bound: sum(n for size, n in sizes.items() if size <= bound) for bound in (*bounds, math.inf)}
    return {(floatToGoString(bound),): float(count) for bound, count in upto.items() if count}


def between(low: float, high: float) -> Callable[[float], bool]:
    return lambda value: low <= value <= high


def agrees(expected: Value, value: float) -> bool:
    return expected(value) if callable(expected) else math.isclose(value, expected, rel_tol=1e-6)


def meant(row: Shown, series: list[tuple[dict[str, str], float]]) -> dict[tuple[Any, ...], float]:
    """The values that the row speaks of."""
    return {
        tuple(labels.get(label, "") for label in row.by): value
        for labels, value in series
        if value and not math.isnan(value)
    }
