"""The kernel's own list of TCP connections: sock_diag(7), for which no privilege is needed."""

import socket
import struct
from collections.abc import Iterator
from typing import Final

_NETLINK_SOCK_DIAG: Final = 4
_SOCK_DIAG_BY_FAMILY: Final = 20
_NLMSG_ERROR: Final = 2
_NLMSG_DONE: Final = 3
_REQUEST_DUMP: Final = 0x301  # NLM_F_REQUEST | NLM_F_DUMP
_MESSAGE: Final = struct.Struct("=IHHII")  # struct nlmsghdr: length, type, flags, sequence number, port
_QUERY: Final = struct.Struct("=4BI")  # struct inet_diag_req_v2: family, protocol, extensions, padding, states
_SOCKET_ID: Final = struct.Struct("!HH44x")  # struct inet_diag_sockid: ports, addresses, interface, cookie
_FAMILY_AND_ID: Final = struct.Struct("=B3x2s2s16s16s")  # the beginning of struct inet_diag_msg
_READ: Final = 1 << 18
_TIMEOUT: Final = 1.0  # seconds; the kernel answers at once

_CONNECTED: Final = sum(1 << state for state in (1, 3, 4, 5, 8, 9, 11))
"""ESTABLISHED, SYN_RECV, FIN_WAIT1, FIN_WAIT2, CLOSE_WAIT, LAST_ACK and CLOSING of net/tcp_states.h."""

_MAPPED: Final = bytes(10) + b"\xff\xff"  # an IPv4 address as one of IPv6 (RFC 4291 section 2.5.5.2)


def established(port: int) -> set[bytes] | None:
    """This network namespace's TCP connections of which either end has this port, or None if the kernel does not tell.

    Each is the addresses and ports of a packet from the client to the server, in network order: source and destination
    address, source and destination port; 12 bytes or, of IPv6, 36. The server's port is `port`.
    """
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as sock:
            sock.settimeout(_TIMEOUT)
            found = {
                key
                for family in (socket.AF_INET, socket.AF_INET6)
                for is_server in (True, False)
                for key in _connections(sock, family, port, is_server=is_server)
            }
    except OSError:
        return None
    return found


def _connections(sock: socket.socket, family: int, port: int, *, is_server: bool) -> Iterator[bytes]:
    """The connections whose local port, or else remote port, is `port`."""
    local, remote = (port, 0) if is_server else (0, port)
    query = _QUERY.pack(family, socket.IPPROTO_TCP, 0, 0, _CONNECTED) + _SOCKET_ID.pack(local, remote)
    sock.send(_MESSAGE.pack(_MESSAGE.size + len(query), _SOCK_DIAG_BY_FAMILY, _REQUEST_DUMP, 0, 0) + query)
    for answer in _answers(sock):
        kind, *ports, here, there = _FAMILY_AND_ID.unpack_from(answer)
        here, there = _address(kind, here), _address(kind, there)
        yield there + here + ports[1] + ports[0] if is_server else here + there + ports[0] + ports[1]


def _answers(sock: socket.socket) -> Iterator[bytes]:
    """What the kernel says in answer to a dump. Raises OSError where it refuses."""
    while True:
        data = sock.recv(_READ)
        position = 0
        while position < len(data):
            length, kind, *_ = _MESSAGE.unpack_from(data, position)
            if kind == _NLMSG_DONE:
                return
            if kind == _NLMSG_ERROR:
                raise OSError("the kernel refuses to list its sockets")
            yield data[position + _MESSAGE.size : position + length]
            position += length + 3 & ~3  # NLMSG_ALIGN


def _address(family: int, padded: bytes) -> bytes:
    if family == socket.AF_INET:
        return padded[:4]
    return padded.removeprefix(_MAPPED)
