"""Opens what a capture needs: two packet sockets with their filters, and a ring for each."""

import ctypes
import errno
import fcntl
import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Final, NamedTuple

from exporter.config import CaptureConfig, CaptureMode
from exporter.listening import StartError
from exporter.sources.capture import bpf
from exporter.sources.capture.ring import SOL_PACKET, Ring

LIFECYCLE_RING: Final = 1 << 20
"""Bytes of the lifecycle ring, which messages never reach."""


class _Blocks(NamedTuple):
    """Bytes of a ring's block at least, and how many there are as long as that leaves them no smaller."""

    size: int
    number: int


# A block is handed over after this time however empty; shorter costs several times the CPU, longer saves next to none.
_TIMEOUT_MS: Final = 60
_LIFECYCLE_BLOCKS: Final = _Blocks(32 << 10, 32)  # they bridge 2 s in which nobody looks
_SIZE_BLOCKS: Final = _Blocks(256 << 10, 16)  # they bridge 1 s; and the longest packet fits in

_SO_ATTACH_FILTER: Final = 26
_SO_LOCK_FILTER: Final = 44
_PACKET_IGNORE_OUTGOING: Final = 23
_SIOCGIFFLAGS: Final = 0x8913
_IFF_LOOPBACK: Final = 0x8
_INTERFACE_REQUEST: Final = struct.Struct("=16sH22x")  # struct ifreq of netdevice(7), with its flags

_INSTEAD: Final = "use a tap or the webhook"


class CaptureError(StartError):
    """The capture cannot be opened; the text is one sentence with the reason and, where there is one, the remedy."""


class Rings(NamedTuple):
    """What one capture reads; no `size` ring where only lifecycles are captured."""

    lifecycle: Ring
    size: Ring | None


def open_capture(config: CaptureConfig, mode: CaptureMode, ring_size: int, fds: tuple[int, int] | None = None) -> Rings:
    """Open a capture, whose size ring is to have `ring_size` bytes.

    `fds` are inherited sockets, as `open_socket` makes them, for the lifecycle and the size ring: then no capability is
    needed. Raises CaptureError.
    """
    lifecycle_fd, size_fd = fds or (None, None)
    with _explained(config):
        program = bpf.lifecycle_filter(config.port)
        sock = _socket(config, lifecycle_fd)
        lifecycle = _ring(config, sock, program, LIFECYCLE_RING, _LIFECYCLE_BLOCKS)
        if mode == "lifecycle":
            return Rings(lifecycle, None)
        try:
            program = bpf.size_filter(config.port)
            sock = _socket(config, size_fd)
            return Rings(lifecycle, _ring(config, sock, program, ring_size, _SIZE_BLOCKS))
        except BaseException:
            lifecycle.close()
            raise


def open_for_inheritance(config: CaptureConfig) -> tuple[socket.socket, socket.socket]:
    """The sockets of a capture, for a process that has no capability: it can read this port's traffic and no other.

    The first is for the lifecycle ring, the second for the size ring. Raises CaptureError.
    """
    with _explained(config), ExitStack() as stack:
        sockets = stack.enter_context(packet_socket()), stack.enter_context(packet_socket())
        programs = bpf.lifecycle_filter(config.port), bpf.size_filter(config.port)
        for sock, program in zip(sockets, programs, strict=True):
            _restrict(sock, config.interface, program)
            sock.setsockopt(socket.SOL_SOCKET, _SO_LOCK_FILTER, 1)
        stack.pop_all()
    return sockets


def packet_socket() -> socket.socket:
    """A cooked packet socket, which receives nothing before it is bound. Raises OSError."""
    if not hasattr(socket, "AF_PACKET"):
        raise OSError(errno.EAFNOSUPPORT, "Linux alone has packet sockets")
    return socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)


def _ring(config: CaptureConfig, sock: socket.socket, program: bytes, size: int, blocks: _Blocks) -> Ring:
    """The ring of a socket, which it takes over; nothing unfiltered is ever in it."""
    with ExitStack() as stack:
        stack.callback(sock.close)
        _restrict(sock, config.interface, program)
        ring = Ring(sock, size, *blocks, _TIMEOUT_MS)
        stack.callback(ring.close)
        ring.bind(config.interface)
        stack.pop_all()
    return ring


def _socket(config: CaptureConfig, fd: int | None) -> socket.socket:
    """A packet socket of our own, or the one that was inherited."""
    if fd is None:
        return packet_socket()
    try:
        sock = socket.socket(fileno=fd)
    except OSError as error:
        reason = "is not open" if error.errno == errno.EBADF else "is no socket"
        raise CaptureError(f"capture of {config}: descriptor {fd} {reason}") from None
    if (sock.family, sock.type) != (socket.AF_PACKET, socket.SOCK_DGRAM):
        sock.detach()
        raise CaptureError(f"capture of {config}: descriptor {fd} is no packet socket of the type SOCK_DGRAM")
    sock.set_inheritable(False)
    return sock


def _restrict(sock: socket.socket, interface: str, program: bytes) -> None:
    """Let a socket see what is accepted by the filter, and that once."""
    # A filter that is locked was chosen by whoever opened the socket.
    if not sock.getsockopt(socket.SOL_SOCKET, _SO_LOCK_FILTER):
        _attach(sock, program)
    if _is_loopback(sock, interface):
        # There, each packet goes out and comes in again.
        sock.setsockopt(SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)


def _attach(sock: socket.socket, program: bytes) -> None:
    instructions = ctypes.create_string_buffer(program, len(program))
    fprog = struct.pack("@HP", len(program) // bpf.INSTRUCTION_SIZE, ctypes.addressof(instructions))
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, fprog)


def _is_loopback(sock: socket.socket, interface: str) -> bool:
    request = _INTERFACE_REQUEST.pack(interface.encode(), 0)
    _, flags = _INTERFACE_REQUEST.unpack(fcntl.ioctl(sock, _SIOCGIFFLAGS, request))
    return bool(flags & _IFF_LOOPBACK)


@contextmanager
def _explained(config: CaptureConfig) -> Iterator[None]:
    """Turns what the kernel answers into the sentence that the operator reads."""
    try:
        yield
    except OSError as error:
        raise CaptureError(f"capture of {config} {_explanation(config, error)}") from error


def _explanation(config: CaptureConfig, error: OSError) -> str:
    match error.errno:
        case errno.EPERM | errno.EACCES:
            return (
                'needs the capability NET_RAW: add it to the container (securityContext.capabilities.add: ["NET_RAW"]) '
                f"or to the unit (AmbientCapabilities=CAP_NET_RAW), or {_INSTEAD}"
            )
        case errno.ENODEV:
            there = ", ".join(sorted(name for _, name in socket.if_nameindex()))
            return f"finds no interface {config.interface}; there are {there}"
        case errno.EAFNOSUPPORT | errno.ENOPROTOOPT:
            return f"needs packet sockets with TPACKET_V3 rings, which this kernel does not have; {_INSTEAD}"
        case errno.ENOMEM:
            return "finds no memory for its rings; lower --capture.ring-size, or give --capture.mode=lifecycle"
        case _:
            return f"cannot be opened: {(error.strerror or str(error)).lower()}"
