"""What these tests need besides programs: rights. Where they are missing, tests are skipped by the right's name."""

import ctypes
import os
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import pytest

CLONE_NEWNET: Final = 0x40000000
TUN: Final = "/dev/net/tun"

_libc: Final = ctypes.CDLL(None, use_errno=True)


def unshare_network() -> None:
    """Give the calling thread, and what it starts from now on, a network namespace of its own. Raises OSError."""
    if _libc.unshare(CLONE_NEWNET):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _open_packet_socket() -> None:
    socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0).close()


def _make_namespace() -> None:
    with ThreadPoolExecutor(1) as thread:
        thread.submit(unshare_network).result()


def _open_tun() -> None:
    os.close(os.open(TUN, os.O_RDWR))


def _may(act: Callable[[], None]) -> bool:
    try:
        act()
    except OSError:
        return False
    return True


def _needs(right: str, *acts: Callable[[], None]) -> pytest.MarkDecorator:
    return pytest.mark.skipif(not all(map(_may, acts)), reason=f"needs {right}")


needs_packet_sockets: Final = _needs("CAP_NET_RAW", _open_packet_socket)
"""To see packets at all."""

needs_namespaces: Final = _needs("CAP_NET_ADMIN", _open_packet_socket, _make_namespace, _open_tun)
"""To make network namespaces and a wire between them."""

needs_root: Final = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
"""To give rights up."""


def capabilities(pid: int) -> dict[str, int]:
    """The capability sets of a process as bit masks, by their names in proc(5): `CapEff` and others."""
    lines = (line.split() for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("Cap"))
    return {name.rstrip(":"): int(mask, 16) for name, mask in lines}
