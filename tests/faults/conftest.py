"""Room for crowds."""

import pytest

from exporter.app import raise_descriptor_limit


@pytest.fixture(scope="session", autouse=True)
def _room_for_crowds() -> None:
    raise_descriptor_limit()
