"""Interfaces besides the loopback: virtual Ethernet with all its offloads, as pods have it, and VLANs."""

import contextlib
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import pytest

from tests.capture.exporting import DROPS, LOST, exporting, started
from tests.capture.namespaces import Namespace, namespace
from tests.capture.rights import needs_namespaces
from tests.capture.test_lossy import expected, seen, told_by

pytestmark = [needs_namespaces, pytest.mark.needs("ip")]

COUNT: Final = 16
TAG: Final = "7"
PARENT: Final = "ether"
VLAN: Final = "vlan"


@dataclass(frozen=True)
class Ethernet:
    """A client and a server on one Ethernet. `host` is the server's address, on the device or its VLAN."""

    client: Namespace
    server: Namespace
    host: str


@contextlib.contextmanager
def ethernet(version: int, *, vlan: bool, protocol: str = "802.1Q") -> Iterator[Ethernet]:
    network, prefix, flags = (("10.78.0.", "30", ()), ("fd78::", "64", ("nodad",)))[version == 6]
    with namespace() as client, namespace() as server:
        there = str(server.run(threading.get_native_id))
        client.ip("link", "add", PARENT, "type", "veth", "peer", "name", PARENT, "netns", there)
        for number, end in enumerate((client, server), 1):
            end.ip("link", "set", PARENT, "up")
            device = PARENT
            if vlan:
                end.ip("link", "add", "link", PARENT, "name", VLAN, "type", "vlan", "protocol", protocol, "id", TAG)
                end.ip("link", "set", VLAN, "up")
                device = VLAN
            end.ip("address", "add", f"{network}{number}/{prefix}", "dev", device, *flags)
        yield Ethernet(client, server, f"{network}2")


@pytest.mark.matrix
@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("watched", ["device", "its-vlan", "below-a-vlan", "below-a-service-vlan"])
def test_what_both_ends_know(watched: str, version: int) -> None:
    """Whichever device is watched of those that the packets pass, it is the same connections."""
    vlan, interface = watched != "device", VLAN if watched == "its-vlan" else PARENT
    protocol = "802.1ad" if watched == "below-a-service-vlan" else "802.1Q"
    try:
        link = ethernet(version, vlan=vlan, protocol=protocol)
        made = link.__enter__()
    except subprocess.CalledProcessError:
        pytest.skip("needs 8021q")
    with contextlib.ExitStack() as stack:
        stack.push(link)
        module = (sys.executable, "-m", "tests.capture.talking")
        server = stack.enter_context(started(made.server, (*module, "serve", made.host)))
        port = server.line("listening")
        exporter = stack.enter_context(exporting(f"--capture={interface}:{port}", where=made.server))
        client = stack.enter_context(started(made.client, (*module, "talk", made.host, port, str(COUNT), "1")))
        by_server, by_client = told_by(server, COUNT), told_by(client, COUNT)
        page = exporter.closed(COUNT)
        closes = {close["path"]: close for close in exporter.closes()}
    assert page.counted(DROPS, "ring") == {}
    assert page.value(LOST) == 0
    assert {path: expected(path, by_server, by_client) for path in by_server} == {
        path: seen(close) for path, close in closes.items()
    }
