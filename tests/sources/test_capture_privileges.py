"""Capabilities are given up for good, for the whole process, and for what it executes."""

import json
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest

from exporter.sources.capture.privileges import NET_BIND_SERVICE, NET_RAW, _held
from tests.capture.rights import needs_root
from tests.peers.processes import ROOT

pytestmark = [needs_root, pytest.mark.needs("setpriv")]

NOBODY: Final = ("--reuid=65534", "--regid=65534", "--clear-groups")
ONLY_NET_RAW: Final = ("--bounding-set=-all,+net_raw", "--inh-caps=-all")
AMBIENT: Final = (*NOBODY, "--inh-caps=+net_raw", "--ambient-caps=+net_raw")
CAPSET: Final = {"x86_64": 126, "aarch64": 91}
"""The number of the system call."""

PROGRAM: Final = """
import json, socket, subprocess, sys, threading
from exporter.sources.capture.privileges import PrivilegeError, drop_capabilities

def held(status):
    fields = dict(line.split(":", 1) for line in status.splitlines())
    names = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
    return {name: int(fields[name], 16) for name in names} | {"NoNewPrivs": int(fields["NoNewPrivs"])}

def may(*address):
    try:
        with socket.socket(*address[:2]) as sock:
            if address[2:]:
                sock.bind(address[2])
    except PermissionError:
        return False
    return True

BEFORE
try:
    drop_capabilities(keep=frozenset(json.loads(sys.argv[1])))
except PrivilegeError as error:
    print(json.dumps({"error": str(error)}))
    raise SystemExit
later = []
thread = threading.Thread(target=lambda: later.append(held(open("/proc/thread-self/status").read())))
thread.start()
thread.join()
print(json.dumps({
    "own": held(open("/proc/self/status").read()),
    "thread": later[0],
    "child": held(subprocess.check_output(["cat", "/proc/self/status"], text=True)),
    "packet socket": may(socket.AF_PACKET, socket.SOCK_DGRAM),
    "low port": may(socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", 1)),
}))
"""


def dropped(*rights: str, keep: tuple[int, ...] = (), before: str = "") -> dict[str, Any]:
    """What a process that began with these rights has after it has given up its capabilities."""
    command = ["setpriv", *rights] if rights else []
    command += [sys.executable, "-c", PROGRAM.replace("BEFORE", before), json.dumps(keep)]
    found: dict[str, Any] = json.loads(subprocess.check_output(command, cwd=ROOT, text=True, timeout=30))
    return found


NOTHING: Final = {"CapInh": 0, "CapPrm": 0, "CapEff": 0, "CapBnd": 0, "CapAmb": 0, "NoNewPrivs": 1}


@pytest.mark.parametrize("rights", [(), NOBODY, AMBIENT], ids=["root", "nobody", "ambient"])
def test_nothing_is_left(rights: tuple[str, ...]) -> None:
    """Nobody has any capability afterwards: not the process, not its later threads, not what it executes."""
    found = dropped(*rights)
    if rights:  # what a user has not may stay in the bounding set, from which only SETPCAP can drop it
        for who in ("own", "thread", "child"):
            found[who]["CapBnd"] = 0
    assert (found["own"], found["thread"], found["child"]) == (NOTHING, NOTHING, NOTHING)
    assert not found["packet socket"]
    assert not found["low port"]


def test_what_root_executes_gains_nothing() -> None:
    """Without SETPCAP the bounding set stays as it is; a program that root executes gets nothing of it all the same."""
    found = dropped(*ONLY_NET_RAW)
    assert found["own"] == NOTHING | {"CapBnd": 1 << NET_RAW}
    assert found["child"] == NOTHING | {"CapBnd": 1 << NET_RAW}
    assert not found["packet socket"]


def test_what_is_to_be_kept_is_kept() -> None:
    """Ports below 1024 can still be listened on, where that was so before."""
    found = dropped(keep=(NET_BIND_SERVICE,))
    only = 1 << NET_BIND_SERVICE
    assert found["own"] == NOTHING | {"CapPrm": only, "CapEff": only, "CapBnd": only}
    assert found["low port"]
    assert not found["packet socket"]


def test_what_was_not_there_is_not_kept() -> None:
    """Keeping gives nothing that was not held."""
    assert dropped(*ONLY_NET_RAW, keep=(NET_BIND_SERVICE,))["own"]["CapPrm"] == 0


def test_a_thread_that_was_there_before_is_a_fault() -> None:
    """The kernel drops for one thread alone: another that keeps them would make it worthless, and is named."""
    wait = "threading.Thread(target=threading.Event().wait, daemon=True).start()"
    name = Path(sys.executable).resolve().name[:15]
    found = dropped(before=wait)["error"]
    assert found.startswith("capabilities cannot be dropped: the thread ")
    assert found.endswith(" was started before and has them")
    assert name[:6] in found


def test_a_thread_without_any_is_none() -> None:
    """What another thread never had does not matter."""
    wait = "threading.Thread(target=threading.Event().wait, daemon=True).start()"
    assert dropped(*NOBODY, before=wait)["own"]["CapPrm"] == 0


def test_a_thread_that_has_ended_has_none() -> None:
    """Between the listing of the threads and the look at one it may end."""
    assert _held(Path("/proc/self/task/4194304/status")) == ("", 0)


@pytest.mark.skipif(platform.machine() not in CAPSET, reason="needs a known number of capset")
def test_a_kernel_that_refuses_is_a_fault() -> None:
    """Where a sandbox forbids capset(2), that is one sentence."""
    forbid = f"""
import ctypes, struct
program = struct.pack("=" + "HBBI" * 4, 0x20, 0, 0, 0, 0x15, 0, 1, {CAPSET[platform.machine()]},
    0x06, 0, 0, 0x00050001, 0x06, 0, 0, 0x7FFF0000)  # of the number: EPERM, else allowed
buffer = ctypes.create_string_buffer(program, len(program))
fprog = struct.pack("@HP", 4, ctypes.addressof(buffer))
assert ctypes.CDLL(None).prctl(38, 1, 0, 0, 0) == 0
assert ctypes.CDLL(None).prctl(22, 2, fprog, 0, 0) == 0
"""
    assert dropped(before=forbid) == {"error": "capabilities cannot be dropped: operation not permitted"}
