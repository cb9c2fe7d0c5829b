"""The exporter that all emitters report to."""

from collections.abc import Iterator

import pytest

from tests.support.reporting import Desk, standing


@pytest.fixture(scope="session")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """An exporter with its defaults."""
    with standing(tmp_path_factory.mktemp("desk")) as desk:
        yield desk
