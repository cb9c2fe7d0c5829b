"""A peer made of bytes: it can send what no library would, and is polite about all the rest unless told otherwise."""

import base64
import hashlib
import os
import select
import socket
import struct
import time
from types import TracebackType
from typing import Final

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
RESERVED: Final = 0x3
BAD_UTF8: Final = b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited"
PATIENCE: Final = 20.0
"""Seconds that a conversation may take to its end."""

GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class Over(Exception):
    """The other end has ended the connection, by FIN or by RST."""


def frame(opcode: int, payload: bytes = b"", *, masked: bool) -> bytes:
    """A whole message or control frame (RFC 6455 section 5.2)."""
    size = len(payload)
    if size < 126:
        head = bytes([0x80 | opcode, masked << 7 | size])
    elif size < 1 << 16:
        head = bytes([0x80 | opcode, masked << 7 | 126]) + size.to_bytes(2)
    else:
        head = bytes([0x80 | opcode, masked << 7 | 127]) + size.to_bytes(8)
    if not masked:
        return head + payload
    key = os.urandom(4)
    return head + key + xor(payload, key)


def xor(payload: bytes, key: bytes) -> bytes:
    size = len(payload)
    pad = int.from_bytes((key * (size // 4 + 1))[:size])
    return (int.from_bytes(payload) ^ pad).to_bytes(size)


class Raw:
    """One end of a connection. `with` closes it."""

    def __init__(self, sock: socket.socket, *, client: bool) -> None:
        self.sock = sock
        self.client = client
        self._answers_pings = True
        self._sent_close = False
        self._buffer = b""
        self._deadline = time.monotonic() + PATIENCE

    def __enter__(self) -> "Raw":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.sock.close()

    # HTTP.

    def ask(self, path: str = "/") -> int:
        """Ask for a WebSocket; the status of the answer."""
        key = base64.b64encode(os.urandom(16)).decode()
        fields = ("Host: 127.0.0.1", "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13")
        self.send("\r\n".join((f"GET {path} HTTP/1.1", *fields, f"Sec-WebSocket-Key: {key}", "", "")).encode())
        return int(self.head()[9:12])

    def answer(self) -> None:
        """Accept the WebSocket that the other end asks for."""
        lines = (line.partition(b":") for line in self.head().split(b"\r\n"))
        fields = {name.lower(): value.strip() for name, _, value in lines}
        accept = base64.b64encode(hashlib.sha1(fields[b"sec-websocket-key"] + GUID).digest())
        self.send(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
        )

    def refuse(self) -> None:
        """Refuse the WebSocket that the other end asks for."""
        self.head()
        self.send(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        self.sock.shutdown(socket.SHUT_WR)

    def head(self) -> bytes:
        """An HTTP head."""
        while b"\r\n\r\n" not in self._buffer:
            self._more()
        head, self._buffer = self._buffer.split(b"\r\n\r\n", 1)
        return head

    # Frames.

    def send(self, data: bytes) -> None:
        self.sock.settimeout(max(0.01, self._deadline - time.monotonic()))
        try:
            self.sock.sendall(data)
        except TimeoutError:
            raise
        except OSError as error:
            raise Over(str(error)) from error

    def frame(self, opcode: int, payload: bytes = b"", *, masked: bool | None = None) -> None:
        self.send(frame(opcode, payload, masked=self.client if masked is None else masked))

    def text(self, message: str) -> None:
        self.frame(TEXT, message.encode())

    def flood(self, size: int) -> None:
        """Send a message of `size` bytes, but only until the other end says anything."""
        left = memoryview(frame(BINARY, bytes(size), masked=self.client))
        while left:
            readable, _, _ = select.select([self.sock], [self.sock], [], PATIENCE)
            if readable:
                return
            try:
                left = left[self.sock.send(left) :]
            except OSError as error:
                raise Over(str(error)) from error

    def close(self, code: int | None) -> None:
        """Send a Close frame; an empty one for None."""
        self._sent_close = True
        self.frame(CLOSE, b"" if code is None else code.to_bytes(2))

    def read(self) -> tuple[int, bytes]:
        """Opcode and payload of the next frame. Raises Over."""
        opcode = self._take(1)[0] & 0xF
        second = self._take(1)[0]
        size = second & 0x7F
        if size >= 126:
            size = int.from_bytes(self._take(2 if size == 126 else 8))
        key = self._take(4) if second & 0x80 else b""
        payload = self._take(size)
        return opcode, xor(payload, key) if key else payload

    def message(self) -> bytes:
        """The next message; Pings before it are answered."""
        while True:
            opcode, payload = self.read()
            if opcode in (TEXT, BINARY):
                return payload
            self._reply(opcode, payload)

    def until_over(self) -> None:
        """Read to the end; answer Pings and a Close; then close as RFC 6455 section 7.1.1 has it, the server first."""
        closed = False
        try:
            while True:
                opcode, payload = self.read()
                closed = self._reply(opcode, payload) or closed
                if closed and not self.client:
                    break
        except Over:
            pass
        self.sock.close()

    def _reply(self, opcode: int, payload: bytes) -> bool:
        """Answer a control frame. Returns whether it was a Close."""
        try:
            if opcode == PING and self._answers_pings:
                self.frame(PONG, payload)
            elif opcode == CLOSE and not self._sent_close:
                self._sent_close = True
                self.frame(CLOSE, payload[:2])
        except Over:
            pass  # it does not wait for answers; what it said before may still be unread
        return opcode == CLOSE

    def fall_silent(self) -> None:
        """Answer no Pings from now on."""
        self._answers_pings = False

    def finish(self) -> None:
        """Send a FIN, and go on reading."""
        self.sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Break off with a RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def _take(self, size: int) -> bytes:
        while len(self._buffer) < size:
            self._more()
        taken, self._buffer = self._buffer[:size], self._buffer[size:]
        return taken

    def _more(self) -> None:
        self.sock.settimeout(max(0.01, self._deadline - time.monotonic()))
        try:
            data = self.sock.recv(1 << 16)
        except TimeoutError:
            raise
        except OSError as error:
            raise Over(str(error)) from error
        if not data:
            raise Over("FIN")
        self._buffer += data


def connected(port: int) -> Raw:
    """A client."""
    sock = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return Raw(sock, client=True)
