"""The wire of these tests is judged itself: in any weather TCP brings every byte, and it does what it is told."""

import hashlib
import socket
import threading
from random import Random
from typing import Final

import pytest

from tests.capture.namespaces import CALM, Land, Weather, land
from tests.capture.rights import needs_namespaces

pytestmark = [needs_namespaces, pytest.mark.needs("ip")]

STORM: Final = Weather(loss=0.05, reordering=0.2, duplication=0.05)


def through(land: Land, data: bytes) -> bytes:
    """What arrives at the server of what a client sends."""
    family = socket.AF_INET6 if ":" in land.addresses.server else socket.AF_INET
    address = (land.addresses.server, 0)
    listener = land.server.run(lambda: socket.create_server(address, family=family))
    port = listener.getsockname()[1]
    client = land.client.run(lambda: socket.create_connection((land.addresses.server, port), 20))
    with listener, client:
        server, _ = listener.accept()
        server.settimeout(30)
        with server:

            def send() -> None:
                client.sendall(data)
                client.shutdown(socket.SHUT_WR)

            sending = threading.Thread(target=send)
            sending.start()
            received = bytearray()
            while part := server.recv(1 << 16):
                received += part
            sending.join()
    return bytes(received)


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("weather", [CALM, STORM], ids=["calm", "storm"])
def test_every_byte_arrives(version: int, weather: Weather) -> None:
    """TCP repairs whatever this wire does."""
    data = Random(1).randbytes(300_000)
    with land(version, weather) as made:
        arrived = through(made, data)
    assert hashlib.sha256(arrived).digest() == hashlib.sha256(data).digest()


def test_what_is_lost_is_lost() -> None:
    """A wire that loses everything lets nobody connect."""
    with land(4, Weather(loss=1.0)) as made, pytest.raises(TimeoutError):
        made.client.run(lambda: socket.create_connection((made.addresses.server, 9), 0.5))
