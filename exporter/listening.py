"""Listening sockets, opened alike for every listener of the exporter."""

import asyncio
import errno
import socket
from typing import Any, Final

from exporter.config import Address

_NO_IPV6: Final = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.EPROTONOSUPPORT)


class StartError(Exception):
    """The exporter cannot start; the text is one sentence that says what and where."""


class ListenError(StartError):
    """The address cannot be listened on; the text is one sentence that names it and says why."""

    def __init__(self, address: Address, reason: OSError) -> None:
        super().__init__(f"cannot listen on {address}: {(reason.strerror or str(reason)).lower()}")


async def listen(address: Address, backlog: int) -> socket.socket:
    """A non-blocking listening socket. An empty host means all interfaces, port 0 one that the kernel chooses.

    Raises ListenError.
    """
    try:
        if not address.host:
            return _bind_to_all(address.port, backlog)
        found = await asyncio.get_running_loop().getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        # A name with addresses of both kinds, such as localhost, means the IPv4 one, as it does in Go's exporters.
        family, _, _, _, sockaddr = min(found, key=lambda info: info[0] != socket.AF_INET)
        return _bind(family, sockaddr, backlog)
    except UnicodeError as fault:  # a label that is empty or over 63 bytes long
        raise ListenError(address, OSError(errno.EINVAL, "not a host name")) from fault
    except OSError as reason:
        raise ListenError(address, reason) from reason


def address_of(sock: socket.socket) -> Address:
    """Where a TCP socket is bound."""
    host, port = sock.getsockname()[:2]
    return Address(host, port)


def _bind_to_all(port: int, backlog: int) -> socket.socket:
    try:
        return _bind(socket.AF_INET6, ("::", port), backlog)
    except OSError as reason:
        if reason.errno not in _NO_IPV6:
            raise
        return _bind(socket.AF_INET, ("0.0.0.0", port), backlog)


def _bind(family: int, sockaddr: tuple[Any, ...], backlog: int) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, sockaddr[0] != "::")
        sock.setblocking(False)
        sock.bind(sockaddr)
        sock.listen(backlog)
    except OSError:
        sock.close()
        raise
    return sock
