"""A twentieth of a core while messages flow flat out: every end is seen, sizes partly, and nothing that is not true."""

import socket
import struct
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import pytest

from benchmarks import load
from benchmarks.limits import limited
from benchmarks.workload import Workload
from tests.capture.exporting import ACTIVE, CAPTURED, CLOSES, DROPS, MESSAGES, exporting
from tests.capture.rights import needs_packet_sockets
from tests.peers.processes import program

pytestmark = needs_packet_sockets

SHARE: Final = 0.05
CONNECTIONS: Final = 50
SECONDS: Final = 1.5
RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)

WORKLOADS: Final = {
    "64-bytes": Workload(64),
    "bursts": Workload(64, 64),
    "64-KiB": Workload(64 * 1024),
}


def finish(connections: list[socket.socket]) -> None:
    for connection in connections:
        connection.settimeout(load.TIMEOUT)
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(load.READ_SIZE):
            pass
        connection.close()


def reset(connections: list[socket.socket]) -> None:
    for connection in connections:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        connection.close()


ENDINGS: Final[dict[str, tuple[Callable[[list[socket.socket]], None], str]]] = {
    "close": (load.close, "1000"),
    "fin": (finish, "1006"),
    "reset": (reset, "1006"),
}
"""How clients end their connections, and the code of it."""


@contextmanager
def echo() -> Iterator[int]:
    """The service of the benchmarks; its port."""
    with program([sys.executable, "-m", "benchmarks.echo"]) as service:
        yield int(service.line(""))


@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    ("load_name", "ending"),
    [
        pytest.param(name, ending, marks=[] if (name, ending) == ("bursts", "close") else pytest.mark.matrix)
        for name in WORKLOADS
        for ending in ENDINGS
    ],
)
def test_every_end_is_seen(load_name: str, ending: str) -> None:
    """Half of the clients leave while the others talk, then these: each with its code, or `unknown`, and no ghosts.

    No message is counted that was not sent, and where some are missing the kernel has been heard to drop packets.
    """
    workload = WORKLOADS[load_name]
    end, code = ENDINGS[ending]
    with echo() as port, exporting(f"--capture=lo:{port}") as exporter:
        staying, leaving = (load.connect(port, workload.path, CONNECTIONS // 2) for _ in range(2))
        exporter.page_when(lambda page: page.value(ACTIVE, **CAPTURED) == CONNECTIONS, "all are open")
        with limited(exporter.program.pid, SHARE) as how:
            sent = load.exchange(leaving, workload, SECONDS / 3)
            counts: list[int] = []
            talking = threading.Thread(target=lambda: counts.append(load.exchange(staying, workload, SECONDS)))
            talking.start()
            end(leaving)
            talking.join()
            sent += counts[0]
            end(staying)
        page = exporter.closed(CONNECTIONS, within=60)
    closes = page.counted(CLOSES, "source", "code", "initiator")
    counted = page.value(MESSAGES, **CAPTURED)
    drops = page.counted(DROPS, "ring")
    print(f"{how}: {counted:.0f} of {sent * workload.messages} messages, {drops} dropped, {closes}")
    assert set(closes) <= {("capture", code, "client"), ("capture", "unknown", "unknown")}
    assert sum(closes.values()) == CONNECTIONS
    assert counted <= sent * workload.messages
    assert counted == sent * workload.messages or sum(drops.values()) > 0
    assert ("lifecycle",) not in drops
