"""The rows of the tap once more, without a tap: capture beside a relay that writes every byte down.

Here `chain` is one without a tap; the account of capture must be what the record of each connection says.
"""

from collections.abc import Iterator

import pytest

from tests.capture.chains import beside_relay
from tests.capture.rights import needs_packet_sockets
from tests.peers.stack import Chain
from tests.peers.test_clients import (
    test_a_client_that_is_refused,
    test_what_ends_a_client,
    test_what_ends_every_client_alike,
)
from tests.peers.test_pairs import test_a_client_and_a_server
from tests.peers.test_servers import (
    test_a_refused_upgrade,
    test_last_words,
    test_what_ends_a_server,
    test_what_ends_every_server_alike,
)

__all__ = [
    "test_a_client_and_a_server",
    "test_a_client_that_is_refused",
    "test_a_refused_upgrade",
    "test_last_words",
    "test_what_ends_a_client",
    "test_what_ends_a_server",
    "test_what_ends_every_client_alike",
    "test_what_ends_every_server_alike",
]

ONE_IN = 3

pytestmark = [needs_packet_sockets, pytest.mark.matrix]


@pytest.fixture(scope="module", name="chain")
def judged_chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    with beside_relay(tmp_path_factory.mktemp("chain")) as running:
        yield running
