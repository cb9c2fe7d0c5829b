"""Gives up what opening packet sockets took: capabilities(7), by capset(2) and prctl(2)."""

import ctypes
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from exporter.listening import StartError

NET_BIND_SERVICE: Final = 10
"""The capability to listen on ports below 1024."""

NET_RAW: Final = 13
"""The capability to open packet sockets."""

_PR_CAPBSET_READ: Final = 23
_PR_CAPBSET_DROP: Final = 24
_PR_SET_NO_NEW_PRIVS: Final = 38
_HEADER: Final = struct.pack("=Ii", 0x20080522, 0)  # version 3 of linux/capability.h, this thread
_TASKS: Final = Path("/proc/self/task")

_libc: Final = ctypes.CDLL(None, use_errno=True)


class PrivilegeError(StartError):
    """Capabilities cannot be given up; the text is one sentence that says why."""


def drop_capabilities(keep: frozenset[int] = frozenset()) -> None:
    """Give up all capabilities but those to `keep`, as far as they are held, for good and for programs executed later.

    The kernel does this for the calling thread alone, and threads inherit it: call this before there are others. A root
    user without capabilities is one like any other: it reads and writes what its own files' permissions let it.
    Raises PrivilegeError, also where another thread still holds some: then nothing is won.
    """
    _, permitted = _held(_TASKS / str(os.getpid()) / "status")
    kept = sum(1 << capability for capability in keep) & permitted
    # A program that root executes gets whatever is in the bounding set, and dropping from that takes SETPCAP: this does
    # not, and is for good too.
    _check(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    for capability in _bounding_set():
        if capability not in keep and _libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0):
            break
    low, high = kept & 0xFFFFFFFF, kept >> 32
    # Effective, permitted, inheritable; the ambient set loses what is not in the last two.
    sets = struct.pack("=6I", low, low, 0, high, high, 0)
    _check(_libc.capset(_HEADER, sets))
    _check_threads(kept)


def _bounding_set() -> Iterator[int]:
    """The capabilities in it; the kernel refuses to answer for those that it does not know."""
    capability = 0
    while (there := _libc.prctl(_PR_CAPBSET_READ, capability, 0, 0, 0)) >= 0:
        if there:
            yield capability
        capability += 1


def _check(result: int) -> None:
    if result:
        raise PrivilegeError(f"capabilities cannot be dropped: {os.strerror(ctypes.get_errno()).lower()}")


def _check_threads(kept: int) -> None:
    for status in _TASKS.glob("*/status"):
        name, permitted = _held(status)
        if permitted & ~kept:
            raise PrivilegeError(f"capabilities cannot be dropped: the thread {name} was started before and has them")


def _held(status: Path) -> tuple[str, int]:
    """A thread's name, and the capabilities that it may use, as a bit mask; none of a thread that has just ended."""
    try:
        fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
    except (FileNotFoundError, ProcessLookupError):
        return "", 0
    return fields["Name"].strip(), int(fields["CapPrm"], 16)
