"""The one chain of witnesses and exporter through which every peer talks."""

from collections.abc import Iterator

import pytest

from tests.peers.stack import Chain, chain


@pytest.fixture(scope="session", name="chain")
def running_chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    with chain(tmp_path_factory.mktemp("chain")) as running:
        yield running
