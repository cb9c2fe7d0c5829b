"""Which rows of the long suites run."""

import os
from zlib import crc32

import pytest

ALL = "CAPTURE_ROWS"
"""Environment variable: `all` has every row run."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Of a module that says `ONE_IN = n`, every n-th row runs, always the same ones: the others take half an hour."""
    if os.environ.get(ALL) == "all":
        return
    left_out = [item for item in items if crc32(item.name.encode()) % getattr(module_of(item), "ONE_IN", 1)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        gone = set(left_out)
        items[:] = [item for item in items if item not in gone]


def module_of(item: pytest.Item) -> object:
    return getattr(item, "module", None)
