"""Real clients with real servers, each with each, through the tap."""

from itertools import product
from typing import Final

import pytest

from tests.peers import test_clients, test_servers
from tests.peers.peers import CLIENTS, SERVERS, client, server
from tests.peers.rows import cells, row
from tests.peers.stack import Chain

BY_CLIENT: Final = cells(test_clients.FIRST_CLOSE)
BY_SERVER: Final = cells(test_servers.FIRST_CLOSE)

ENDINGS: Final = ("client-closes", "server-closes", "sigterm")


def expected(one: str, other: str, ending: str) -> str:
    """The close counted, after the tables of servers and clients."""
    if ending == "client-closes":
        return f"{BY_CLIENT[one, 'close']} client"
    return f"{BY_SERVER[other, '4000' if ending == 'server-closes' else 'sigterm']} server"


@pytest.mark.parametrize(
    ("one", "other", "ending"),
    [
        row(CLIENTS[one].needs + SERVERS[other].needs, one, other, ending)
        for one, other, ending in product(CLIENTS, SERVERS, ENDINGS)
    ],
)
def test_a_client_and_a_server(chain: Chain, one: str, other: str, ending: str) -> None:
    """Whoever is at the other end: one close, by the side that began it and with its code."""
    with (
        server(other) as serving,
        chain.to(serving.port) as observed,
        client(one, chain.port) as talking,
    ):
        talking.line("open")
        talking.tell("send hello")
        talking.line("heard hello")
        if ending == "client-closes":
            talking.tell("close")
        elif ending == "server-closes":
            talking.tell("send close 4000")
        else:
            serving.program.terminate()
        verdict = observed.verdict()
    assert verdict.closed_once() == expected(one, other, ending)
    verdict.assert_untouched()
