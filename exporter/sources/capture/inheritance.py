"""Opens the sockets of captures before everything else, so that what comes then needs no capability.

What comes then is the exporter itself, or a program that inherits the sockets.
"""

import fcntl
import os
import socket
from collections.abc import Sequence
from typing import Final, NoReturn

from exporter.config import CaptureConfig, Config
from exporter.sources.capture.opening import open_for_inheritance, packet_socket
from exporter.sources.capture.privileges import NET_BIND_SERVICE, drop_capabilities

FIRST: Final = 3
"""The first descriptor behind the standard streams."""


def prepare(config: Config) -> list[tuple[int, int]] | None:
    """Give up all capabilities but that for ports below 1024, and have the sockets of each capture before.

    To be called before any thread is started. The descriptors are for `open_capture`; None where packet sockets cannot
    be opened: it will say why. Raises PrivilegeError.
    """
    descriptors = _descriptors(config)
    drop_capabilities(keep=frozenset({NET_BIND_SERVICE}))
    return descriptors


def _descriptors(config: Config) -> list[tuple[int, int]] | None:
    first = config.capture_fd
    if first is not None:
        return [(first + 2 * number, first + 2 * number + 1) for number in range(len(config.capture))]
    try:
        sockets = [(packet_socket(), packet_socket()) for _ in config.capture]
    except OSError:
        return None
    return [(lifecycle.detach(), size.detach()) for lifecycle, size in sockets]


def execute(captures: Sequence[CaptureConfig], command: Sequence[str]) -> NoReturn:
    """Become `command`, without any capability, with two sockets for each capture as descriptors from `FIRST` on.

    Raises CaptureError, PrivilegeError, or OSError where there is no such program.
    """
    sockets = [sock for capture in captures for sock in open_for_inheritance(capture)]
    drop_capabilities()
    _number(sockets)
    os.execvp(command[0], list(command))


def _number(sockets: Sequence[socket.socket]) -> None:
    """Give the sockets the descriptors from `FIRST` on, whatever had them before."""
    end = FIRST + len(sockets)
    aside = [fcntl.fcntl(sock, fcntl.F_DUPFD_CLOEXEC, end) for sock in sockets]  # none has the number of another
    for sock in sockets:
        sock.close()
    for number, descriptor in zip(range(FIRST, end), aside, strict=True):
        os.dup2(descriptor, number)
