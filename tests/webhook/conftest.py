"""Exporters that many tests report to."""

from collections.abc import Iterator

import pytest

from exporter.app import raise_descriptor_limit
from tests.support.reporting import Desk, configured, standing


@pytest.fixture(scope="session", autouse=True)
def _room_for_crowds() -> None:
    raise_descriptor_limit()


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """An exporter with its defaults: no targets listed, nothing stored."""
    with standing(tmp_path_factory.mktemp("desk")) as desk:
        yield desk


@pytest.fixture(scope="module")
def strict_desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """An exporter with two targets that asks for ids and stores what it counts."""
    folder = tmp_path_factory.mktemp("strict")
    targets = {"chat": {"codes": [4001], "going_away_codes": [3001]}, "rooms": {}}
    flags = (configured(folder, targets), "--webhook.require-ids", f"--storage.path={folder / 'state'}")
    with standing(folder, *flags) as desk:
        yield desk
