"""The kernel's list of TCP connections is that of the packets on the wire, and needs no privilege."""

import contextlib
import resource
import socket
from collections.abc import Iterator

import pytest

from exporter.sources.capture.sockets import _connections, established

ANY: dict[str, tuple[int, str, str]] = {
    "IPv4": (socket.AF_INET, "127.0.0.1", "127.0.0.1"),
    "IPv6": (socket.AF_INET6, "::1", "::1"),
    "IPv4 of an IPv6 listener": (socket.AF_INET6, "::", "127.0.0.1"),
}


@contextlib.contextmanager
def connection(family: int, listen: str, dial: str) -> Iterator[tuple[int, socket.socket, socket.socket]]:
    """A port, the client that is connected to it, and the server's end."""
    with socket.create_server((listen, 0), family=family, dualstack_ipv6=listen == "::") as listener:
        port = listener.getsockname()[1]
        with socket.create_connection((dial, port)) as client, listener.accept()[0] as server:
            yield port, client, server


def key(client: socket.socket) -> bytes:
    """The addresses and ports of the packets that a client sends."""
    (here, from_port, *_), (there, to_port, *_) = client.getsockname(), client.getpeername()
    addresses = b"".join(socket.inet_pton(client.family, address) for address in (here, there))
    return addresses + from_port.to_bytes(2) + to_port.to_bytes(2)


@pytest.mark.parametrize("kind", ANY)
def test_a_connection_is_its_packets(kind: str) -> None:
    """Both ends, which are both here, are one connection: from the client to the server, in network order."""
    with connection(*ANY[kind]) as (port, client, _):
        assert established(port) == {key(client)}
        assert len(key(client)) == (36 if client.family == socket.AF_INET6 else 12)


def test_the_server_is_the_one_with_the_port() -> None:
    """Asked for the other port, the same connection is seen the other way around."""
    with connection(*ANY["IPv4"]) as (_, client, server):
        assert established(client.getsockname()[1]) == {key(server)}


def test_half_closed_connections_are_connections() -> None:
    """A FIN of one side alone ends nothing; that of both does, and so does a RST."""
    with connection(*ANY["IPv4"]) as (port, client, server):
        client.shutdown(socket.SHUT_WR)
        assert established(port) == {key(client)}
        server.shutdown(socket.SHUT_WR)
        assert established(port) == set()


def test_listeners_are_no_connections() -> None:
    """A port that is only listened on has none; one that waits to be accepted is one."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        assert established(port) == set()
        with socket.create_connection(("127.0.0.1", port)) as client:
            assert established(port) == {key(client)}


def test_many_connections_are_all_listed() -> None:
    """An answer of many messages is read to its end."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=400))
        port = listener.getsockname()[1]
        clients = [stack.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(400)]
        assert established(port) == {key(client) for client in clients}


def test_a_kernel_that_does_not_answer_is_not_taken_for_an_empty_one() -> None:
    """Where no socket can be opened to ask, nothing is known."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        assert established(80) is None
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_refusal_is_an_error() -> None:
    """What the kernel answers to a question that it does not understand is no empty list."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 4) as sock:
        sock.settimeout(5)
        with pytest.raises(OSError, match="the kernel refuses to list its sockets"):
            list(_connections(sock, 200, 80, is_server=True))
