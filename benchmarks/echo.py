"""The service behind every relay: answers each burst of messages with one like it, or floods the client with messages.
Prints its port, then serves.

It knows from the request path what comes, so it counts bytes where a real service would parse frames: the cheaper
the two ends are, the more of the machine is left to what is measured.
"""

import asyncio
import re
import socket
from functools import cache
from typing import Final, cast

import uvloop

from benchmarks.workload import FIN_CLOSE, FLOOD, FLOOD_PATH, SERVER_CLOSE, Workload, accept_for

HEAD_END: Final = b"\r\n\r\n"
FLOOD_SEND_BUFFER: Final = 64 * 1024
KEY_FIELD: Final = re.compile(r"(?im)^sec-websocket-key:\s*(\S+)")

workload_at = cache(Workload.from_path)


class Echo(asyncio.Protocol):
    transport: asyncio.Transport

    def __init__(self) -> None:
        self._head = b""
        self._burst = 0  # bytes of one burst; 0 until the handshake is through
        self._reply = b""
        self._received = 0  # bytes of the burst under way
        self._flooding = False
        self._paused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's are no subclass of it

    def data_received(self, data: bytes) -> None:
        if not self._burst:
            data = self._handshake(data)
        self._received += len(data)
        while self._received >= self._burst > 0:
            self._received -= self._burst
            self.transport.write(self._reply)
        # Clients end between bursts only.
        if 0 < self._received <= len(data) and data[-self._received] == FIN_CLOSE:
            self.transport.write(SERVER_CLOSE)
            self.transport.close()

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._flood()

    def _flood(self) -> None:
        """Write until the client is behind."""
        while self._flooding and not self._paused:
            self.transport.write(FLOOD)

    def _handshake(self, data: bytes) -> bytes:
        """Answer the opening handshake once it is complete. Returns what came behind it."""
        self._head += data
        if HEAD_END not in self._head:
            return b""
        head, _, rest = self._head.partition(HEAD_END)
        text = head.decode()
        path = text.split(" ", 2)[1]
        key = KEY_FIELD.search(text)
        assert key is not None, text
        self._head = b""
        self.transport.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accept_for(key[1]).encode() + HEAD_END
        )
        if path == FLOOD_PATH:
            self._flooding = True
            peer = self.transport.get_extra_info("socket")
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, FLOOD_SEND_BUFFER)
            self._flood()
            return b""
        workload = workload_at(path)
        self._burst, self._reply = len(workload.request), workload.reply
        return rest


async def main() -> None:
    server = await asyncio.get_running_loop().create_server(Echo, "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main())
