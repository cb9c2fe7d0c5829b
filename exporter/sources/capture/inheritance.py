"""Opens captures on behalf of a program that is to have no capability: it inherits their sockets."""

import fcntl
import os
import socket
from collections.abc import Sequence
from typing import Final, NoReturn

from exporter.config import CaptureConfig
from exporter.sources.capture.opening import open_for_inheritance
from exporter.sources.capture.privileges import drop_capabilities

FIRST: Final = 3
"""The first descriptor behind the standard streams."""


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
