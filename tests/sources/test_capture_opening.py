"""A capture is opened with its filters before it sees anything, or says in one sentence why it cannot be."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from exporter.config import CaptureConfig
from exporter.sources.capture.bpf import lifecycle_filter
from exporter.sources.capture.opening import CaptureError, Rings, open_capture, open_for_inheritance, packet_socket
from exporter.sources.capture.ring import PACKET, Ring
from tests.capture.namespaces import Namespace, namespace
from tests.capture.rights import needs_namespaces, needs_packet_sockets, needs_root
from tests.peers.processes import ROOT
from tests.peers.stack import eventually
from tests.sources.test_capture_bpf import attach
from tests.sources.test_capture_ring import without_address_space

pytestmark = needs_packet_sockets

MIB: Final = 1 << 20
REQUEST: Final = b"GET /chat HTTP/1.1\r\n\r\n"
MESSAGE: Final = b"\x81\x02hi"
NOBODY: Final = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
NO_RIGHT: Final = (
    'capture of lo:9 needs the capability NET_RAW: add it to the container (securityContext.capabilities.add: ["NET_RAW'
    '"]) or to the unit (AmbientCapabilities=CAP_NET_RAW), or use a tap or the webhook'
)


@contextlib.contextmanager
def opened(config: CaptureConfig, *args: Any, **kwargs: Any) -> Iterator[Rings]:
    rings = open_capture(config, *args, **kwargs)
    try:
        yield rings
    finally:
        for ring in filter(None, rings):
            ring.close()


def payloads(ring: Ring, enough: int) -> list[bytes]:
    """What the TCP segments carry that are seen, SYN and FIN as nothing; so many, and whatever comes with them."""
    found: list[bytes] = []

    def read() -> bool:
        while (block := ring.block()) is not None:
            position, packets = block
            for _ in range(packets):
                following, captured, net = PACKET.unpack_from(ring.memory, position)
                packet = ring.memory[position + net : position + net + captured]
                begin = 40 if packet[0] >> 4 == 6 else (packet[0] & 0x0F) * 4
                found.append(packet[begin + (packet[begin + 12] >> 4) * 4 :])
                position += following
            ring.release()
        return len(found) >= enough

    eventually(read, f"{enough} packets come")
    return found


def listener_at(host: str) -> socket.socket:
    return socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET)


def converse(listener: socket.socket, connect: Callable[[Any], socket.socket] = socket.create_connection) -> None:
    """A client that says two things, and whose server ends with a FIN."""
    with connect(listener.getsockname()[:2]) as client, listener.accept()[0] as server:
        for words in (REQUEST, MESSAGE):
            client.sendall(words)
            assert server.recv(100) == words
        server.shutdown(socket.SHUT_WR)
        assert client.recv(1) == b""


def assert_all_is_seen(rings: Rings) -> None:
    """Of `converse`, each packet that is for a ring, once."""
    assert payloads(rings.lifecycle, 5) == [b"", b"", REQUEST, b"", b""]
    assert rings.size is not None
    assert payloads(rings.size, 6) == [b"", b"", REQUEST, MESSAGE, b"", b""]


# -- what is seen


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_loopback_is_seen_once(host: str) -> None:
    """On loopback, where each packet leaves and arrives, it is seen but once."""
    with listener_at(host) as listener, opened(CaptureConfig("lo", listener.getsockname()[1]), "full", MIB) as rings:
        assert (rings.lifecycle.size, rings.size and rings.size.size) == (MIB, MIB)
        converse(listener)
        assert_all_is_seen(rings)


@needs_namespaces
@pytest.mark.parametrize(("net", "prefix"), [("10.78.0.", 24), ("fd78::", 64)])
def test_both_directions_of_an_interface_are_seen(net: str, prefix: int) -> None:
    """Between two namespaces what leaves and what arrives is seen, at either end of the cable."""
    with namespace() as client, namespace() as server, contextlib.ExitStack() as stack:
        client.ip("link", "add", "name", "near", "type", "veth", "peer", "name", "far")
        client.ip("link", "set", "far", "netns", str(server.run(threading.get_native_id)))
        for here, interface, host in ((client, "near", f"{net}1"), (server, "far", f"{net}2")):
            here.ip("address", "add", f"{host}/{prefix}", "dev", interface, *["nodad"] * (":" in host))
            here.ip("link", "set", interface, "up")
        listener = stack.enter_context(server.run(lambda: listener_at(f"{net}2")))
        port = listener.getsockname()[1]
        near = stack.enter_context(opened_in(client, CaptureConfig("near", port)))
        far = stack.enter_context(opened_in(server, CaptureConfig("far", port)))
        converse(listener, lambda address: client.run(lambda: socket.create_connection(address, 10)))
        assert_all_is_seen(near)
        assert_all_is_seen(far)


@contextlib.contextmanager
def opened_in(here: Namespace, config: CaptureConfig) -> Iterator[Rings]:
    made = opened(config, "full", MIB)
    yield here.run(made.__enter__)
    made.__exit__(None, None, None)


def test_lifecycles_alone() -> None:
    """In the mode `lifecycle` there is but one ring."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(listener_at("127.0.0.1"))
        config = CaptureConfig("lo", listener.getsockname()[1])
        rings = stack.enter_context(opened(config, "lifecycle", MIB))
        assert rings.size is None
        converse(listener)
        assert payloads(rings.lifecycle, 5) == [b"", b"", REQUEST, b"", b""]


def test_nothing_unfiltered_is_ever_seen() -> None:
    """While other ports are busy, rings that are just being opened get nothing of it."""
    stop = threading.Event()

    def chatter() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            while not stop.is_set():
                sock.sendto(b"x", ("127.0.0.1", 9))

    thread = threading.Thread(target=chatter)
    thread.start()
    try:
        with listener_at("127.0.0.1") as listener:
            for _ in range(10):
                with opened(CaptureConfig("lo", listener.getsockname()[1]), "full", MIB) as rings:
                    converse(listener)
                    assert_all_is_seen(rings)
    finally:
        stop.set()
        thread.join()


# -- inherited sockets


def test_sockets_of_others_are_filtered() -> None:
    """Packet sockets that were inherited get the filters, and what waits in them unfiltered is forgotten."""
    with listener_at("127.0.0.1") as listener:
        config = CaptureConfig("lo", listener.getsockname()[1])
        sockets = [packet_socket(), packet_socket()]
        for sock in sockets:
            sock.bind(("lo", 3))
        converse(listener)
        lifecycle, size = (sock.detach() for sock in sockets)
        with opened(config, "full", MIB, (lifecycle, size)) as rings:
            converse(listener)
            assert_all_is_seen(rings)
            assert not os.get_inheritable(lifecycle)


def test_sockets_for_others_are_locked() -> None:
    """Sockets that were opened to be inherited work, and can never see more than their port."""
    with listener_at("127.0.0.1") as listener:
        config = CaptureConfig("lo", listener.getsockname()[1])
        sockets = open_for_inheritance(config)
        for sock in sockets:
            with pytest.raises(PermissionError):
                attach(sock, lifecycle_filter(1))
        lifecycle, size = (sock.detach() for sock in sockets)
        with opened(config, "full", MIB, (lifecycle, size)) as rings:
            converse(listener)
            assert_all_is_seen(rings)


# -- faults


def refused(config: CaptureConfig, *args: Any) -> str:
    """The sentence; no descriptor is left open."""
    before = os.listdir("/proc/self/fd")
    with pytest.raises(CaptureError) as caught:
        open_capture(config, *(args or ("full", MIB)))
    assert os.listdir("/proc/self/fd") == before
    return str(caught.value)


def test_no_such_interface() -> None:
    """What there is instead is named, whoever opens the sockets."""
    there = ", ".join(sorted(name for _, name in socket.if_nameindex()))
    sentence = f"capture of nowhere0:9 finds no interface nowhere0; there are {there}"
    assert refused(CaptureConfig("nowhere0", 9)) == sentence
    with pytest.raises(CaptureError) as caught:
        open_for_inheritance(CaptureConfig("nowhere0", 9))
    assert str(caught.value) == sentence


def test_no_memory() -> None:
    """Where memory is missing, what to lower is said; the ring that was open already is given back."""
    found: list[str] = []
    without_address_space(lambda: found.append(refused(CaptureConfig("lo", 9), "full", 64 * MIB)))
    assert found == [
        "capture of lo:9 finds no memory for its rings; lower --capture.ring-size, or give --capture.mode=lifecycle"
    ]


def test_no_packet_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    """On another system than Linux, the other sources are named."""
    monkeypatch.delattr(socket, "AF_PACKET")
    assert refused(CaptureConfig("lo", 9)) == (
        "capture of lo:9 needs packet sockets with TPACKET_V3 rings, which this kernel does not have; use a tap or the "
        "webhook"
    )


def test_any_other_reason() -> None:
    """What has no remedy that is known, such as sockets that another exporter reads, is said in the kernel's words."""
    sockets = open_for_inheritance(CaptureConfig("lo", 9))
    again = tuple(os.dup(sock.fileno()) for sock in sockets)
    with opened(CaptureConfig("lo", 9), "full", MIB, tuple(sock.detach() for sock in sockets)):
        with pytest.raises(CaptureError) as caught:
            open_capture(CaptureConfig("lo", 9), "full", MIB, (again[0], again[1]))
        os.close(again[1])
    assert str(caught.value) == "capture of lo:9 cannot be opened: device or resource busy"


def test_descriptors_that_are_no_packet_sockets() -> None:
    """What is wrong with an inherited descriptor is said, and it is left alone."""
    config = CaptureConfig("lo", 9)
    assert refused(config, "full", MIB, (4000, 4001)) == "capture of lo:9: descriptor 4000 is not open"
    with Path("/dev/null").open() as file, socket.socket() as tcp:
        number = file.fileno()
        assert refused(config, "full", MIB, (number, number)) == f"capture of lo:9: descriptor {number} is no socket"
        number = tcp.fileno()
        assert refused(config, "full", MIB, (number, number)) == (
            f"capture of lo:9: descriptor {number} is no packet socket of the type SOCK_DGRAM"
        )
        assert tcp.getsockname() == ("0.0.0.0", 0)


# -- before everything else


def test_inherited_descriptors_come_in_pairs() -> None:
    """Two for each capture, from the first one on."""
    script = """
from exporter.config import load
from exporter.sources.capture.inheritance import prepare
print(prepare(load({"capture.fd": "7"}, captures=["lo:1", "lo:2", "lo:3"])))
"""
    assert python(script) == "[(7, 8), (9, 10), (11, 12)]\n"


PREPARE: Final = """
import socket
from exporter.config import load
from exporter.sources.capture.inheritance import prepare
pairs = prepare(load(captures=["lo:1", "lo:2"]))
print(pairs and [socket.socket(fileno=fd).family.name for pair in pairs for fd in pair])
try:
    socket.socket(socket.AF_PACKET)
except PermissionError:
    print("no more")
"""


def test_sockets_come_before_the_capabilities_go() -> None:
    """Each capture has its two, and no other can be opened."""
    assert python(PREPARE) == f"{['AF_PACKET'] * 4}\nno more\n"


@needs_root
@pytest.mark.needs("setpriv")
def test_where_none_can_be_opened_the_reason_comes_later() -> None:
    """Without the capability there are no sockets, and opening the capture says why."""
    assert python(PREPARE, *NOBODY) == "None\nno more\n"
    script = """
from exporter.config import CaptureConfig
from exporter.sources.capture.opening import open_capture
try:
    open_capture(CaptureConfig("lo", 9), "full", 1 << 20)
except Exception as error:
    print(error)
"""
    assert python(script, *NOBODY) == f"{NO_RIGHT}\n"


def python(script: str, *through: str) -> str:
    command = [*through, sys.executable, "-c", script]
    return subprocess.check_output(command, cwd=ROOT, text=True, timeout=30)


# -- capture-exec


def capture_exec(*words: str, through: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    command = [*through, sys.executable, "-m", "exporter", "capture-exec", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)


INHERITOR: Final = """
import json, os, socket, sys
fields = dict(line.split(":", 1) for line in open("/proc/self/status").read().splitlines())
sockets = [socket.socket(fileno=fd) for fd in range(3, 7)]
print(json.dumps({
    "sockets": [(sock.family.name, sock.type.name, sock.getsockopt(socket.SOL_SOCKET, 44)) for sock in sockets],
    "capabilities": [int(fields[name], 16) for name in ("CapPrm", "CapEff", "CapInh", "CapAmb")],
    "arguments": sys.argv[1:],
}))
raise SystemExit(7)
"""


@pytest.mark.parametrize("taken", [0, 3])
def test_command_inherits_the_sockets_and_nothing_else(taken: int) -> None:
    """It has two sockets for each capture from 3 on, whatever these were before, its arguments, and no capability."""
    before = ("sh", "-c", "".join(f"exec {fd}</dev/null; " for fd in range(3, 3 + taken)) + 'exec "$@"', "sh")
    captures = ("--capture=lo:1", "--capture=lo:2,target=a")
    ended = capture_exec(*captures, "--", sys.executable, "-c", INHERITOR, "--help", "--", through=before)
    assert json.loads(ended.stdout) == {
        "sockets": [["AF_PACKET", "SOCK_DGRAM", 1]] * 4,
        "capabilities": [0, 0, 0, 0],
        "arguments": ["--help", "--"],
    }
    assert ended.returncode == 7
    assert ended.stderr == ""


def test_a_command_that_cannot_be_executed() -> None:
    """It is named, with the reason."""
    ended = capture_exec("--capture=lo:1", "--", "no-such-program")
    assert (ended.returncode, ended.stderr) == (
        2,
        "websocket-exporter: cannot execute no-such-program: no such file or directory\n",
    )


@needs_root
@pytest.mark.needs("setpriv")
def test_capture_exec_without_the_right() -> None:
    """What is missing is said, and the command not executed."""
    ended = capture_exec("--capture=lo:9", "--", "echo", through=NOBODY)
    assert (ended.returncode, ended.stdout, ended.stderr) == (2, "", f"websocket-exporter: {NO_RIGHT}\n")
