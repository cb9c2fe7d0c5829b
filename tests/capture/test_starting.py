"""With which rights capture works, with which it does not and says so, and what it keeps of them; and TLS."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Final

import pytest
from _pytest.mark import ParameterSet

from benchmarks import load
from benchmarks.workload import Workload
from tests.capture.exporting import CAPTURED, CLOSES, MESSAGES, UNPARSED, UP, Exporter, exporting
from tests.capture.rights import capabilities, needs_packet_sockets, needs_root
from tests.capture.test_overload import echo
from tests.peers.processes import ROOT
from tests.peers.stack import eventually

pytestmark = needs_packet_sockets

NET_RAW: Final = 1 << 13
NOBODY: Final = ("--reuid=65534", "--regid=65534", "--clear-groups")
SETPRIV: Final = "setpriv"

RIGHTS: Final[dict[str, tuple[str, ...]]] = {
    "root-with-net-raw-only": ("--bounding-set=-all,+net_raw", "--inh-caps=-all"),
    "nobody-with-ambient-net-raw": (*NOBODY, "--inh-caps=+net_raw", "--ambient-caps=+net_raw"),
    "nobody-with-ambient-net-raw-and-no-new-privileges": (
        *NOBODY,
        "--inh-caps=+net_raw",
        "--ambient-caps=+net_raw",
        "--no-new-privs",
    ),
}
"""Options of setpriv(1) with which capture works."""

NO_RIGHTS: Final[dict[str, tuple[str, ...]]] = {
    "root-without-net-raw": ("--bounding-set=-net_raw", "--inh-caps=-net_raw"),
    "nobody": NOBODY,
}


def core_first(table: Mapping[str, object]) -> list[ParameterSet]:
    """The rows of a table; all but the first are long ones."""
    return [pytest.param(name, marks=[pytest.mark.matrix] if number else []) for number, name in enumerate(table)]


needs_setpriv = pytest.mark.needs(SETPRIV)


@pytest.fixture(scope="module")
def readable() -> None:
    """The user nobody may not be able to read the checkout: then there is nothing to be tried."""
    command = [SETPRIV, *NOBODY, sys.executable, "-c", "import exporter"]
    if subprocess.run(command, cwd=ROOT, check=False, capture_output=True).returncode:
        pytest.skip("needs a checkout that everybody may read")


def sees_a_close(exporter: Exporter, port: int) -> None:
    """It captures: one WebSocket, with its messages."""
    workload = Workload(64)
    with load.websockets(port, workload, 1) as connections:
        sent = load.exchange(connections, workload, 0)
    page = exporter.closed(1)
    assert page.counted(CLOSES, "source", "code", "initiator") == {("capture", "1000", "client"): 1}
    assert page.value(MESSAGES, **CAPTURED) == sent * workload.messages


@needs_root
@needs_setpriv
@pytest.mark.usefixtures("readable")
@pytest.mark.parametrize("rights", core_first(RIGHTS))
def test_rights_that_suffice(rights: str) -> None:
    """NET_RAW alone suffices, whoever has it; and once everything is open, no thread has it any more."""
    with echo() as port, exporting(f"--capture=lo:{port}", through=(SETPRIV, *RIGHTS[rights])) as exporter:
        sees_a_close(exporter, port)
        pid = exporter.program.pid
        for thread in os.listdir(f"/proc/{pid}/task"):
            held = capabilities(int(thread))
            assert not (held["CapEff"] | held["CapPrm"] | held["CapInh"] | held["CapAmb"]) & NET_RAW


def test_root_keeps_nothing() -> None:
    """With all rights at the start, NET_RAW is given up too."""
    with echo() as port, exporting(f"--capture=lo:{port}") as exporter:
        sees_a_close(exporter, port)
        assert not capabilities(exporter.program.pid)["CapEff"] & NET_RAW
        assert not capabilities(exporter.program.pid)["CapPrm"] & NET_RAW


@needs_root
@needs_setpriv
@pytest.mark.usefixtures("readable")
@pytest.mark.parametrize("rights", core_first(NO_RIGHTS))
def test_rights_that_do_not(rights: str) -> None:
    """The exporter does not start, and says in one sentence what is missing and what to do."""
    flags = ("--web.listen-address=127.0.0.1:0", "--log.format=json", "--capture=lo:9")
    command = [SETPRIV, *NO_RIGHTS[rights], sys.executable, "-m", "exporter", *flags]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=20, check=False)
    assert ended.returncode == started_on_a_used_port()
    assert [line for line in ended.stderr.splitlines() if "needs the capability NET_RAW" in line] != []
    assert "Traceback" not in ended.stderr


def started_on_a_used_port() -> int:
    """The exit status of an exporter that cannot start for another reason."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        flags = (f"--web.listen-address=127.0.0.1:{port}", "--tap=127.0.0.1:0=127.0.0.1:9")
        command = [sys.executable, "-m", "exporter", *flags]
        return subprocess.run(command, cwd=ROOT, capture_output=True, timeout=20, check=False).returncode


@needs_root
@needs_setpriv
@pytest.mark.usefixtures("readable")
@pytest.mark.parametrize("rights", core_first(NO_RIGHTS))
def test_an_optional_capture(rights: str) -> None:
    """The exporter runs on without it, says so in its log, and `capture_up` is 0."""
    flags = ("--capture=lo:9,target=chat", "--capture.optional")
    with exporting(*flags, through=(SETPRIV, *NO_RIGHTS[rights]), captures=0) as exporter:
        page = exporter.page()
        complaints = [line for line in exporter.log if "NET_RAW" in str(line.get("reason", ""))]
    assert [(sample.labels, sample.value) for sample in page.samples[UP]] == [({"target": "chat"}, 0)]
    assert [(line["level"], line["target"]) for line in complaints] == [("error", "chat")]


def test_an_interface_that_is_not_there() -> None:
    """What is there is named."""
    command = [sys.executable, "-m", "exporter", "--capture=nowhere0:9", "--web.listen-address=127.0.0.1:0"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=20, check=False)
    assert ended.returncode != 0
    assert "finds no interface nowhere0; there are " in ended.stderr
    assert "lo" in ended.stderr.rpartition("there are ")[2]


@needs_root
@needs_setpriv
@pytest.mark.usefixtures("readable")
def test_inherited_sockets() -> None:
    """Who opens the sockets and passes them on spares the exporter every capability, from its beginning on."""
    with echo() as port:
        opener = (sys.executable, "-m", "exporter", "capture-exec", f"--capture=lo:{port}", "--")
        without = (SETPRIV, "--no-new-privs")
        with exporting(f"--capture=lo:{port}", "--capture.fd=3", through=(*opener, *without)) as exporter:
            sees_a_close(exporter, port)
            assert capabilities(exporter.program.pid)["CapPrm"] == 0


@needs_root
@needs_setpriv
@pytest.mark.usefixtures("readable")
def test_sockets_of_another_program() -> None:
    """Any program may open them: packet sockets, whose filter the exporter then sets itself."""
    with echo() as port:
        opener = (sys.executable, "-m", "tests.capture.opener", "lo", SETPRIV, *NOBODY)
        with exporting(f"--capture=lo:{port}", "--capture.fd=3", through=opener) as exporter:
            sees_a_close(exporter, port)
            assert capabilities(exporter.program.pid)["CapPrm"] == 0


HELLO: Final = bytes.fromhex("16030100c8010000c40303") + bytes(194)
"""How a TLS connection begins."""


def test_tls_is_said_once() -> None:
    """What speaks TLS is counted, and the log says once what to do."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with exporting(f"--capture=lo:{port},target=chat") as exporter:
            for number in range(1, 4):
                with socket.create_connection(("127.0.0.1", port)) as client, listener.accept()[0] as server:
                    client.sendall(HELLO)
                    server.recv(1000)
                exporter.page_when(lambda page, n=number: page.value(UNPARSED, reason="tls") == n, "TLS is counted")
            said = eventually(lambda: [line for line in exporter.log if "TLS" in line["event"]], "the log says so")
            assert exporter.page().value(CLOSES, **CAPTURED) == 0
            deadline = time.monotonic() + 1.0
            while time.monotonic() < deadline:  # a second line would come by now
                said = [line for line in exporter.log if "TLS" in line["event"]]
                time.sleep(0.05)
    assert [(line["level"], line["event"], line["target"]) for line in said] == [
        (
            "warning",
            "only TLS is seen, closes and messages cannot be: capture behind the terminator where it is plain text,"
            " or use a tap there or the webhook",
            "chat",
        )
    ]
