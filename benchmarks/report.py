"""Samples become tables: medians with their spread, ratios taken round by round, and what must be reached."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

Samples = Sequence[float]
"""One value for each round."""

LABEL_WIDTH: Final = 38
CELL_WIDTH: Final = 21


@dataclass(frozen=True)
class Table:
    """Rows of samples by column. The first column is ours; `beside` are those it is divided by."""

    title: str
    rows: Mapping[str, Mapping[str, Samples]]
    beside: tuple[str, ...] = ()

    def columns(self) -> list[str]:
        """The columns of all rows, in the order in which they first appear."""
        return list(dict.fromkeys(column for row in self.rows.values() for column in row))


@dataclass(frozen=True)
class Bound:
    """A figure that must be reached: a row's median, or its ratio to `beside`, is at most `limit`."""

    text: str
    table: str
    row: str
    limit: float
    unit: str
    beside: str | None = None

    def measured(self, tables: Mapping[str, Table]) -> float | None:
        """The figure; None where it was not measured."""
        table = tables.get(self.table)
        row = table.rows.get(self.row) if table else None
        if not row:
            return None
        ours = next(iter(row.values()))
        if self.beside is None:
            return median(ours)
        return median(ratios(ours, row[self.beside])) if self.beside in row else None


def ratios(ours: Samples, theirs: Samples) -> list[float]:
    """Ratios within each round: what slows a whole round down does not show in them."""
    return [mine / other for mine, other in zip(ours, theirs, strict=True)]


def number(value: float) -> str:
    """Three digits that mean something."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def spread(samples: Samples) -> str:
    """Median, and in brackets the least and the greatest."""
    return f"{number(median(samples))} ({number(min(samples))}-{number(max(samples))})"


def render(table: Table) -> str:
    """The table as lines of text."""
    columns = table.columns()
    beside = [column for column in table.beside if column in columns]
    lines = [_line(table.title, [*columns, *(f"ratio to {column}" for column in beside)])]
    for label, row in table.rows.items():
        cells = [spread(row[column]) if column in row else "-" for column in columns]
        cells += [spread(ratios(row[columns[0]], row[column])) if column in row else "-" for column in beside]
        lines.append(_line(f"  {label}", cells))
    return "\n".join(lines)


def render_bounds(bounds: Sequence[Bound], tables: Mapping[str, Table]) -> str:
    """What must be reached, as lines of text, each with its verdict."""
    lines = ["must reach"]
    width = max(len(bound.text) for bound in bounds) + 4
    for bound in bounds:
        value = bound.measured(tables)
        figure = "-" if value is None else f"{number(value)} {bound.unit}"
        limit = f"<= {bound.limit:g} {bound.unit}"
        verdict = "not measured" if value is None else "reached" if value <= bound.limit else "NOT REACHED"
        lines.append(f"  {bound.text:<{width}}{figure:<16}{limit:<16}{verdict}")
    return "\n".join(lines)


def _line(label: str, cells: Sequence[str]) -> str:
    return (f"{label:<{LABEL_WIDTH}}" + "".join(f"{cell:>{CELL_WIDTH}}" for cell in cells)).rstrip()
