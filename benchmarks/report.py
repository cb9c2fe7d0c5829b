"""Samples become tables: medians with their spread, ratios taken round by round, and what must be reached."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

Samples = Sequence[float]
"""One value for each round."""

LABEL_WIDTH: Final = 40
CELL_WIDTH: Final = 20
RATIO_LABEL: Final = "    ratio to it"


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
    """A figure that must be reached: a row's median, or its ratio to `beside`, is at most `limit`, or at `least` that.

    The figure is that of the first column unless `column` names another.
    """

    text: str
    table: str
    row: str
    limit: float
    unit: str
    beside: str | None = None
    column: str | None = None
    least: bool = False

    def measured(self, tables: Mapping[str, Table]) -> float | None:
        """The figure; None where it was not measured."""
        table = tables.get(self.table)
        row = table.rows.get(self.row) if table else None
        if not row:
            return None
        ours = row[self.column or next(iter(row))]
        if self.beside is None:
            return median(ours)
        return median(ratios(ours, row[self.beside])) if self.beside in row else None

    def reached(self, value: float) -> bool:
        """Whether `value` is on the right side of the limit."""
        return value >= self.limit if self.least else value <= self.limit


def ratios(ours: Samples, theirs: Samples) -> list[float]:
    """Ratios within each round: what slows a whole round down does not show in them."""
    return [mine / other for mine, other in zip(ours, theirs, strict=True)]


def number(value: float) -> str:
    """Three digits that mean something."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def spread(samples: Samples) -> str:
    """Median, and in brackets the least and the greatest where they differ."""
    middle, least, greatest = (number(pick(samples)) for pick in (median, min, max))
    return middle if least == greatest else f"{middle} ({least}-{greatest})"


def render(table: Table) -> str:
    """The table as lines of text."""
    columns = table.columns()
    lines = [_line(table.title, columns)]
    for label, row in table.rows.items():
        lines.append(_line(f"  {label}", [spread(row[column]) if column in row else "-" for column in columns]))
        beside = [column for column in columns if column in table.beside and column in row]
        if beside:
            shown = {column: spread(ratios(row[columns[0]], row[column])) for column in beside}
            lines.append(_line(RATIO_LABEL, [shown.get(column, "") for column in columns]))
    return "\n".join(lines)


def render_bounds(bounds: Sequence[Bound], tables: Mapping[str, Table]) -> str:
    """What must be reached, as lines of text, each with its verdict."""
    lines = ["must reach"]
    width = max(len(bound.text) for bound in bounds) + 4
    for bound in bounds:
        value = bound.measured(tables)
        figure = "-" if value is None else f"{number(value)} {bound.unit}"
        limit = f"{'>=' if bound.least else '<='} {bound.limit:g} {bound.unit}"
        verdict = "not measured" if value is None else "reached" if bound.reached(value) else "NOT REACHED"
        lines.append(f"  {bound.text:<{width}}{figure:<20}{limit:<22}{verdict}")
    return "\n".join(lines)


def _line(label: str, cells: Sequence[str]) -> str:
    return (f"{label:<{LABEL_WIDTH}}" + "".join(f"{cell:>{CELL_WIDTH}}" for cell in cells)).rstrip()
