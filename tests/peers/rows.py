"""Tables of what is expected, turned into tests."""

import pytest
from _pytest.mark import ParameterSet


def cells(table: str) -> dict[tuple[str, str], str]:
    """What a table says, by line and column."""
    header, *lines = (line.split() for line in table.strip().splitlines())
    return {(name, column): cell for name, *found in lines for column, cell in zip(header, found, strict=True)}


def row(needs: tuple[str, ...], *values: str, matrix: bool = True) -> ParameterSet:
    """One row: skipped where something it needs is missing, long unless it is a peer's core one."""
    marks = [pytest.mark.needs(*needs)] + ([pytest.mark.matrix] if matrix else [])
    return pytest.param(*values, marks=marks, id="-".join(values))
