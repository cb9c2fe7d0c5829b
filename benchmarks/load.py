"""The client: opens WebSockets and exchanges bursts on them, as fast as they are answered or at a fixed rate."""

import contextlib
import select
import socket
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Final

from benchmarks.workload import CLIENT_CLOSE, KEY, Workload, accept_for, opening_handshake

TIMEOUT: Final = 20.0
"""Seconds without any progress after which a measurement is given up."""

READ_SIZE: Final = 256 * 1024
BATCH: Final = 50
"""Connections opened, or closed, side by side."""

ETHERNET_SEGMENT: Final = 1460
NARROW_BUFFER: Final = 16 * 1024

HEAD_END: Final = b"\r\n\r\n"
_ACCEPTED: Final = f"sec-websocket-accept: {accept_for(KEY)}\r\n".lower().encode()


Dial = Callable[[int], socket.socket]
"""Connects to a port of the loopback."""


class LoadError(Exception):
    """What is measured did not behave; the text says how."""


def dial_loopback(port: int) -> socket.socket:
    """A connection as the loopback makes it, with segments of 64 KiB."""
    return socket.create_connection(("127.0.0.1", port), TIMEOUT)


def dial_narrow(port: int) -> socket.socket:
    """A connection with segments as on Ethernet and a small receive buffer.

    The kernel grows send buffers by segments: on the loopback they would take megabytes before anybody has to wait.
    """
    connection = socket.socket()
    connection.settimeout(TIMEOUT)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, ETHERNET_SEGMENT)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, NARROW_BUFFER)
    try:
        connection.connect(("127.0.0.1", port))
    except OSError:
        connection.close()
        raise
    return connection


def connect(port: int, path: str, count: int, dial: Dial = dial_loopback) -> list[socket.socket]:
    """Open `count` WebSockets, in batches, on TCP connections that `dial` makes."""
    handshake = opening_handshake(path)
    connections: list[socket.socket] = []
    try:
        for start in range(0, count, BATCH):
            batch = [dial(port) for _ in range(min(BATCH, count - start))]
            connections += batch
            for connection in batch:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                connection.sendall(handshake)
            for connection in batch:
                _read_answer(connection)
    except OSError as error:
        disconnect(connections)
        raise LoadError(f"opening a WebSocket failed: {error}") from error
    return connections


def _read_answer(connection: socket.socket) -> None:
    answer = b""
    while HEAD_END not in answer and (data := connection.recv(READ_SIZE)):
        answer += data
    head = answer.partition(HEAD_END)[0] + HEAD_END
    if not head.startswith(b"HTTP/1.1 101 ") or _ACCEPTED not in head.lower():
        status_line = head.partition(b"\r\n")[0].decode("latin-1")
        raise LoadError(f"opening a WebSocket was answered by {status_line!r}")


def close(connections: list[socket.socket]) -> None:
    """Close WebSockets by Close frames and wait for the end of each."""
    try:
        for start in range(0, len(connections), BATCH):
            batch = connections[start : start + BATCH]
            for connection in batch:
                connection.settimeout(TIMEOUT)
                connection.sendall(CLIENT_CLOSE)
            for connection in batch:
                while connection.recv(READ_SIZE):
                    pass
                connection.close()
    except OSError as error:
        raise LoadError(f"closing a WebSocket failed: {error}") from error
    finally:
        disconnect(connections)


def disconnect(connections: list[socket.socket]) -> None:
    """Close sockets, whatever state they are in."""
    for connection in connections:
        connection.close()


@contextlib.contextmanager
def websockets(port: int, workload: Workload, count: int) -> Iterator[list[socket.socket]]:
    """`count` open WebSockets, closed at the end."""
    connections = connect(port, workload.path, count)
    try:
        yield connections
        close(connections)
    finally:
        disconnect(connections)


class _Client:
    """One connection of a closed loop."""

    __slots__ = ("connection", "missing", "unsent")

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.missing = 0  # bytes of the reply still to come
        self.unsent = memoryview(b"")


def exchange(connections: list[socket.socket], workload: Workload, seconds: float) -> int:
    """Closed loop: each connection sends its next burst as soon as the last is answered, for `seconds`.

    Then the answers under way are awaited. Returns the number of round trips, which have all passed completely.
    """
    request, reply_size = memoryview(workload.request), len(workload.reply)
    buffer = bytearray(READ_SIZE)
    done = 0
    with select.epoll() as poll:
        clients: dict[int, _Client] = {}
        for connection in connections:
            connection.setblocking(False)
            clients[connection.fileno()] = client = _Client(connection)
            poll.register(connection, select.EPOLLIN)
            _send_burst(poll, client, request, reply_size)
        deadline = time.monotonic() + seconds
        under_way = len(clients)
        while under_way:
            ready = poll.poll(TIMEOUT)
            if not ready:
                raise LoadError(f"{under_way} of {len(clients)} connections were not answered in {TIMEOUT:.0f} s")
            late = time.monotonic() >= deadline
            for fd, events in ready:
                client = clients[fd]
                if events & select.EPOLLOUT:
                    _send(poll, client)
                if not events & ~select.EPOLLOUT:
                    continue
                received = client.connection.recv_into(buffer)
                if not received:
                    raise LoadError("a connection ended while messages were exchanged")
                client.missing -= received
                if client.missing:
                    continue
                done += 1
                if late:
                    under_way -= 1
                else:
                    _send_burst(poll, client, request, reply_size)
    return done


def _send_burst(poll: select.epoll, client: _Client, request: memoryview, reply_size: int) -> None:
    client.missing = reply_size
    sent = client.connection.send(request)
    if sent < len(request):
        client.unsent = request[sent:]
        poll.modify(client.connection, select.EPOLLIN | select.EPOLLOUT)


def _send(poll: select.epoll, client: _Client) -> None:
    with contextlib.suppress(BlockingIOError):
        client.unsent = client.unsent[client.connection.send(client.unsent) :]
    if not client.unsent:
        poll.modify(client.connection, select.EPOLLIN)


def paced(connections: list[socket.socket], workload: Workload, rate: float, seconds: float) -> list[float]:
    """Open loop: `rate` bursts a second, round the connections in turn, whether answered or not.

    Returns the seconds from each burst's sending to the last byte of its answer.
    """
    request, reply_size = workload.request, len(workload.reply)
    buffer = bytearray(READ_SIZE)
    started: dict[int, deque[float]] = {}
    received: dict[int, int] = {}
    by_fd: dict[int, socket.socket] = {}
    latencies: list[float] = []
    total = int(rate * seconds)
    sent = 0
    with select.epoll() as poll:
        for connection in connections:
            connection.setblocking(False)
            poll.register(connection, select.EPOLLIN)
            fd = connection.fileno()
            by_fd[fd], started[fd], received[fd] = connection, deque(), 0
        begin = time.perf_counter()
        while len(latencies) < total:
            now = time.perf_counter()
            due = begin + sent / rate if sent < total else now + TIMEOUT
            if now >= due:
                connection = connections[sent % len(connections)]
                started[connection.fileno()].append(now)
                connection.sendall(request)
                sent += 1
                continue
            # epoll counts its timeout in milliseconds, select in microseconds.
            if not select.select([poll], [], [], due - now)[0]:
                if sent == total:
                    raise LoadError(f"{total - len(latencies)} messages were not answered in {TIMEOUT:.0f} s")
                continue
            for fd, _ in poll.poll(0):
                size = by_fd[fd].recv_into(buffer)
                if not size:
                    raise LoadError("a connection ended while messages were exchanged")
                received[fd] += size
                while received[fd] >= reply_size:
                    received[fd] -= reply_size
                    latencies.append(time.perf_counter() - started[fd].popleft())
    return latencies
