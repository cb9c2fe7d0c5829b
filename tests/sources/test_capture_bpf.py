"""The capture's filters accept what they say and nothing else: by an interpreter, by the kernel, and under mutation."""

import contextlib
import ctypes
import itertools
import os
import select
import socket
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Final, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from exporter.sources.capture.bpf import INSTRUCTION_SIZE, LIFECYCLE_SNAP, SIZE_SNAP, lifecycle_filter, size_filter
from tests.capture.namespaces import namespace
from tests.capture.rights import needs_namespaces

PORT: Final = 8080
OTHER: Final = 52814
FILTERS: Final = {"size": size_filter(PORT), "lifecycle": lifecycle_filter(PORT)}
SNAPS: Final = {"size": SIZE_SNAP, "lifecycle": LIFECYCLE_SNAP}

IPV4, IPV6, ARP, TAG, SERVICE_TAG = 0x0800, 0x86DD, 0x0806, 0x8100, 0x88A8
TCP, UDP, ESP, NO_MORE = 6, 17, 50, 59
HOP_BY_HOP, ROUTING, FRAGMENT, AUTHENTICATION, DESTINATION = 0, 43, 44, 51, 60
FIN, SYN, RST, PSH, ACK = 0x01, 0x02, 0x04, 0x08, 0x10
INCOMING, OUTGOING = 0, 4


# -- packets, and what should become of them


@dataclass(frozen=True)
class Ipv4:
    """An IPv4 header; `fragment` is the field with flags and offset."""

    options: bytes = b""
    fragment: int = 0
    protocol: int = TCP
    long: bool = False
    """Whether the packet is too long for the field that says how long it is."""

    ethertype = IPV4

    def around(self, segment: bytes) -> bytes:
        words = 5 + len(self.options) // 4
        total = 0 if self.long else 4 * words + len(segment)
        addresses = bytes((10, 0, 0, 1, 10, 0, 0, 2))
        head = struct.pack("!BBHHHBBH", 0x40 + words, 0, total, 7, self.fragment, 64, self.protocol, 0)
        return head + addresses + self.options + segment

    @property
    def transport(self) -> bool | None:
        """Whether a TCP header follows; None where only user space can tell."""
        return self.protocol == TCP and not self.fragment & 0x1FFF


@dataclass(frozen=True)
class Ipv6:
    """An IPv6 header and its extensions, by number and length in bytes."""

    extensions: tuple[tuple[int, int], ...] = ()
    protocol: int = TCP
    long: bool = False

    ethertype = IPV6

    def around(self, segment: bytes) -> bytes:
        numbers = [number for number, _ in self.extensions] + [self.protocol]
        chain = b"".join(
            bytes((following, length // 4 - 2 if number == AUTHENTICATION else length // 8 - 1)) + bytes(length - 2)
            for (number, length), following in zip(self.extensions, numbers[1:], strict=True)
        )
        length = 0 if self.long else len(chain) + len(segment)
        return struct.pack("!IHBB", 6 << 28, length, numbers[0], 64) + bytes(32) + chain + segment

    @property
    def transport(self) -> bool | None:
        numbers = [number for number, _ in self.extensions]
        if not numbers:
            return self.protocol == TCP
        if numbers[0] in (FRAGMENT, AUTHENTICATION) or len(numbers) > 1:
            return None
        return self.protocol == TCP


@dataclass(frozen=True)
class Packet:
    """One packet as a cooked socket sees it, and the rules by which it is to be judged."""

    network: Ipv4 | Ipv6 = Ipv4()
    ethertype: int | None = None
    tags: int = 0
    """VLAN tags at its beginning."""
    tag: int = 7
    """The first of them, without its ethertype: priority and network."""
    kind: int = INCOMING
    ports: tuple[int, int] = (OTHER, PORT)
    flags: int = ACK
    options: int = 0
    """Bytes of TCP options."""
    reserved: int = 0
    """The four bits behind the header's length."""
    payload: bytes = b""
    trailer: bytes = b""
    """What the link has padded the packet with."""

    def bytes(self) -> bytes:
        offset = (5 + self.options // 4) << 4 | self.reserved
        segment = struct.pack("!HHIIBBHHH", *self.ports, 1, 1, offset, self.flags, 512, 0, 0)
        packet = self.network.around(segment + b"\x01" * self.options + self.payload)
        inner = (TAG,) * (self.tags - 1) + (self.network.ethertype,) if self.tags else ()
        return b"".join(struct.pack("!HH", self.tag, ethertype) for ethertype in inner) + packet + self.trailer

    @property
    def protocol(self) -> int:
        """The ethertype that the kernel knows it by."""
        if self.ethertype is not None:
            return self.ethertype
        return TAG if self.tags else self.network.ethertype

    @property
    def accepted(self) -> dict[str, bool]:
        """By each filter."""
        if self.tags > 1 or self.protocol not in (IPV4, IPV6, TAG, SERVICE_TAG):
            return {"size": False, "lifecycle": False}
        if self.network.transport is None:
            return {"size": True, "lifecycle": True}
        if not self.network.transport or PORT not in self.ports:
            return {"size": False, "lifecycle": False}
        if self.flags & (SYN | FIN | RST):
            return {"size": True, "lifecycle": True}
        return {
            "size": bool(self.payload) or self.network.long,
            "lifecycle": self.payload[:4] in (b"GET ", b"HTTP") or (is_close(self.payload) and not self.network.long),
        }


def is_close(payload: bytes) -> bool:
    """Whether it is one whole Close frame (RFC 6455 sections 5.2 and 5.5)."""
    if len(payload) < 2 or payload[0] != 0x88:
        return False
    masked, length = payload[1] >> 7, payload[1] & 0x7F
    return length <= 125 and len(payload) == 2 + 4 * masked + length


NETWORKS: Final = (
    Ipv4(),
    Ipv4(options=b"\x01" * 4),
    Ipv4(fragment=0x4000),  # do not fragment
    Ipv4(fragment=0x0010),
    Ipv4(protocol=UDP),
    Ipv6(),
    Ipv6(protocol=UDP),
    Ipv6(extensions=((HOP_BY_HOP, 8),)),
    Ipv6(extensions=((FRAGMENT, 8),)),
)

MORE_NETWORKS: Final = (
    Ipv4(options=b"\x01" * 40),
    Ipv4(long=True),
    Ipv4(fragment=0x2000),  # the first fragment
    *(Ipv4(fragment=1 << bit) for bit in range(13)),
    Ipv4(protocol=1),
    Ipv6(long=True),
    Ipv6(protocol=NO_MORE),
    Ipv6(protocol=ESP),
    *(Ipv6(extensions=((number, length),)) for number in (HOP_BY_HOP, ROUTING, DESTINATION) for length in (8, 24)),
    Ipv6(extensions=((HOP_BY_HOP, 8),), long=True),  # of a jumbogram
    *(Ipv6(extensions=((HOP_BY_HOP, 8),), protocol=protocol) for protocol in (UDP, NO_MORE, ESP)),
    Ipv6(extensions=((AUTHENTICATION, 24),)),
    Ipv6(extensions=((FRAGMENT, 8),), protocol=UDP),
    *(
        Ipv6(extensions=((DESTINATION, 16), (number, 8)))
        for number in (HOP_BY_HOP, ROUTING, FRAGMENT, AUTHENTICATION, DESTINATION)
    ),
)

LINKS: Final[tuple[dict[str, int], ...]] = (
    {},
    {"kind": OUTGOING},
    {"tags": 1},
    {"tags": 1, "ethertype": SERVICE_TAG},
    {"tags": 1, "tag": 0x4507},  # looks like the beginning of IPv4
    {"tags": 1, "tag": 0x6507},
    {"tags": 1, "kind": OUTGOING},  # passed on
    {"tags": 2},
    {"ethertype": TAG, "kind": OUTGOING},  # sent by this machine: behind its tag
    {"ethertype": SERVICE_TAG, "kind": OUTGOING},
    {"ethertype": ARP},
)

PORTS: Final = ((OTHER, PORT), (PORT, OTHER), (PORT, PORT), (OTHER, OTHER), (PORT ^ 1, PORT + 256))


CLOSES: Final = tuple(
    (bytes((0x88, mask | length)) + b"\x88" * 200)[: 2 + 4 * (mask >> 7) + length + more]
    for mask in (0x00, 0x80)
    for length in (0, 1, 2, 3, 64, 124, 125, 126, 127)
    for more in (-1, 0, 1)
)
"""Close frames, those that end too early and too late, and those whose length needs bytes of its own."""

PAYLOADS: Final = (
    b"",
    *(b"GET /chat HTTP/1.1"[:length] for length in (1, 3, 4, 5, 18)),
    *(b"HTTP/1.1 101 Switching"[:length] for length in (1, 3, 4, 22)),
    b"get /",
    b"GET\r\n",
    b"GEX /",
    b"POST /chat",
    b"HTTQ/1.1",
    b"PTTH",
    b"\x81\x02hi",
    b"\x08\x02\x03\xe8",
    b"\x89\x02\x03\xe8",
    b"\xc8\x02\x03\xe8",
    b"\x88" * 1400,
    b"\x88\x02\x03\xe8\x81\x02hi",
    *CLOSES,
)

TRAILERS: Final = (b"\0" * 6, b"\x88\x00", b"\x00", b"ET /", b" ", b"P", b"GET /")


def packets() -> Iterator[Packet]:
    """Each network header with each link, ports, flags and payload that matter to it; the rest one by one."""
    few_flags = (ACK, PSH | ACK, SYN, FIN | ACK, RST)
    few_payloads = (b"", b"GET /", b"HTTP/1.1", b"\x88\x02\x03\xe8", b"\x81\x02hi")
    for network, link, ports, flags, payload in itertools.product(NETWORKS, LINKS, PORTS, few_flags, few_payloads):
        yield Packet(network, ports=ports, flags=flags, payload=payload, **link)  # type: ignore[arg-type]
    for network, flags, payload in itertools.product(MORE_NETWORKS, few_flags, few_payloads):
        yield Packet(network, flags=flags, payload=payload)
    for network in (Ipv4(), Ipv6(), Ipv6(extensions=((HOP_BY_HOP, 8),))):
        for flags, payload in itertools.product(range(256), (b"", b"x")):
            yield Packet(network, flags=flags, payload=payload)
        for payload, options, reserved in itertools.product(PAYLOADS, (0, 4, 12, 40), (0, 15)):
            yield Packet(network, payload=payload, options=options, reserved=reserved)
            yield Packet(replace(network, long=True), payload=payload, options=options)
        for payload, trailer in itertools.product(PAYLOADS, TRAILERS):
            yield Packet(network, payload=payload, trailer=trailer)
    yield Packet(flags=SYN, payload=b"x" * 40_000)


# -- an interpreter of classic BPF


class Instruction(NamedTuple):
    code: int
    jt: int
    jf: int
    k: int


def instructions(program: bytes) -> list[Instruction]:
    return [Instruction(*fields) for fields in struct.iter_unpack("=HBBI", program)]


REFUSED: Final = -1
"""Of a program that the kernel would not have taken."""

WITHOUT_CONSTANT: Final = (0x07, 0x0C, 0x1C, 0x1D)


class _OutOfBounds(Exception):
    pass


def interpret(
    program: Sequence[Instruction],
    packet: bytes,
    protocol: int,
    kind: int,
    branched: Callable[[int, bool | None], None] = lambda where, way: None,
) -> int:
    """What the program returns for a packet, by Linux' Documentation/networking/filter.rst.

    `branched` is told of each instruction that runs, and which way each comparison goes.
    """
    a = x = 0
    memory: dict[int, int] = {}
    ancillary = {0xFFFFF000: protocol, 0xFFFFF004: kind}

    def load(at: int, size: int) -> int:
        if at in ancillary:
            return ancillary[at]
        if at + size > len(packet):
            raise _OutOfBounds
        return int.from_bytes(packet[at : at + size])

    here = 0
    while True:
        code, jt, jf, k = program[here]
        where = here
        way: bool | None = None
        here += 1
        try:
            match code:
                case 0x00:
                    a = k
                case 0x01:
                    x = k
                case 0x20 | 0x28 | 0x30:
                    a = load(k, {0x20: 4, 0x28: 2, 0x30: 1}[code])
                case 0x40 | 0x48 | 0x50:
                    a = load(x + k & 0xFFFFFFFF, {0x40: 4, 0x48: 2, 0x50: 1}[code])
                case 0x60:
                    a = memory[k]
                case 0x61:
                    x = memory[k]
                case 0x02:
                    memory[k] = a
                case 0x03:
                    memory[k] = x
                case 0x04:
                    a = a + k & 0xFFFFFFFF
                case 0x0C:
                    a = a + x & 0xFFFFFFFF
                case 0x1C:
                    a = a - x & 0xFFFFFFFF
                case 0x54:
                    a &= k
                case 0x64:
                    a = a << k & 0xFFFFFFFF
                case 0x74:
                    a >>= k
                case 0x07:
                    x = a
                case 0x05:
                    here += k
                case 0x15:
                    way = a == k
                case 0x1D:
                    way = a == x
                case 0x25:
                    way = a > k
                case 0x35:
                    way = a >= k
                case 0x45:
                    way = bool(a & k)
                case 0x06:
                    return k
                case _:
                    raise AssertionError(f"no such instruction: {code:#x}")
        except _OutOfBounds:
            return 0
        except KeyError:  # it reads what nothing has written
            return REFUSED
        finally:
            branched(where, way)
        if way is not None:
            here += jt if way else jf


NOTHING: Final = Instruction(0x04, 0, 0, 0)  # adds 0


def is_comparison(instruction: Instruction) -> bool:
    return instruction.code & 0x07 == 0x05 and instruction.code != 0x05


def mutants(program: Sequence[Instruction]) -> Iterator[tuple[int, list[Instruction]]]:
    """The program with one instruction changed: its constant by one, left out, or its two ways exchanged or the same.

    What the kernel would not take, as it leads out of the program, is left out.
    """
    for where, (code, jt, jf, k) in enumerate(program):
        changed = []
        if code not in WITHOUT_CONSTANT:
            changed += [Instruction(code, jt, jf, k + 1), Instruction(code, jt, jf, k - 1)]
        if is_comparison(program[where]):
            changed += [Instruction(code, *ways, k) for ways in ((jf, jt), (jt, jt), (jf, jf))]
        elif code not in (0x05, 0x06):
            changed.append(NOTHING)
        for other in changed:
            leads = where + 1 + (other.k if code == 0x05 else 0)  # of a comparison, to what others led to
            if 0 <= other.k < 1 << 32 and other != program[where] and leads < len(program):
                yield where, [*program[:where], other, *program[where + 1 :]]


# -- what the filters say


@pytest.mark.parametrize("name", FILTERS)
def test_accepts_what_it_should_and_nothing_else(name: str) -> None:
    """Each packet of the matrix gets the verdict of its rules; one that is accepted is kept up to the filter's snap."""
    program = instructions(FILTERS[name])
    verdicts = {True: 0, False: 0}
    for packet in packets():
        found = interpret(program, packet.bytes(), packet.protocol, packet.kind)
        expected = packet.accepted[name]
        assert found == (SNAPS[name] if expected else 0), packet
        verdicts[expected] += 1
    assert min(verdicts.values()) > 1000


@pytest.mark.parametrize("name", FILTERS)
def test_every_branch_is_taken(name: str) -> None:
    """The matrix reaches every instruction of the program, and every comparison goes both ways."""
    program = instructions(FILTERS[name])
    seen: set[tuple[int, bool | None]] = set()
    for packet in packets():
        interpret(program, packet.bytes(), packet.protocol, packet.kind, lambda *step: seen.add(step))
    ways = {
        (where, way)
        for where, instruction in enumerate(program)
        for way in ((True, False) if is_comparison(instruction) else (None,))
    }
    assert ways - seen == set()


@pytest.mark.parametrize("name", FILTERS)
def test_no_instruction_can_change_unnoticed(name: str) -> None:
    """Whatever is changed in a program, the matrix has a packet that then gets another verdict."""
    program = instructions(FILTERS[name])
    samples = [(packet.bytes(), packet.protocol, packet.kind) for packet in packets()]
    Random(1).shuffle(samples)  # so that most changes are noticed soon
    results = [interpret(program, *sample) for sample in samples]
    survivors = [
        (where, program[where], mutant[where])
        for where, mutant in mutants(program)
        if all(interpret(mutant, *sample) == result for sample, result in zip(samples, results, strict=True))
    ]
    assert survivors == []


# -- what the kernel says

NEAR: Final = "near"
FAR: Final = "far"
BATCH: Final = 50  # packets that fit into the buffers of a socket
LAST: Final = Packet(flags=SYN, payload=b"the last of a batch")
LONGEST: Final = 1 << 17
ETH_P_ALL: Final = 3
SO_ATTACH_FILTER: Final = 26
SAMPLES: Final = [Packet(network, payload=b"\x88\x02\x03\xe8") for network in (*NETWORKS, *MORE_NETWORKS)]


@pytest.mark.parametrize("name", FILTERS)
def test_programs_are_short(name: str) -> None:
    """Every packet of the interface passes through them."""
    assert len(instructions(FILTERS[name])) < 100


def attach(sock: socket.socket, program: bytes) -> None:
    buffer = ctypes.create_string_buffer(program, len(program))
    fprog = struct.pack("@HP", len(program) // INSTRUCTION_SIZE, ctypes.addressof(buffer))
    sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, fprog)


class Sniffer:
    """Packet sockets with the filters, at one end of a cable."""

    def __init__(self, interface: str) -> None:
        self._sockets = {name: socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0) for name in FILTERS}
        for name, sock in self._sockets.items():
            attach(sock, FILTERS[name])
            sock.bind((interface, ETH_P_ALL))
            sock.setblocking(False)

    def seen(self, name: str) -> list[bytes]:
        """What has passed by now."""
        found = []
        with contextlib.suppress(BlockingIOError):
            while True:
                found.append(self._sockets[name].recv(LONGEST))
        return found

    def before(self, name: str, last: bytes) -> list[bytes]:
        """What passes before the `last` packet."""
        found: list[bytes] = []
        deadline = time.monotonic() + 10
        while last not in found and time.monotonic() < deadline:
            select.select([self._sockets[name]], [], [], 1)
            found += self.seen(name)
        assert found.pop() == last
        return found

    def close(self) -> None:
        for sock in self._sockets.values():
            sock.close()


@dataclass(frozen=True)
class Cable:
    """Two interfaces of which each receives what the other sends."""

    near: Sniffer
    far: Sniffer
    sock: socket.socket

    def send(self, packet: Packet) -> None:
        self.sock.sendto(packet.bytes(), (NEAR, packet.protocol, 0, 0, b"\xff" * 6))

    def close(self) -> None:
        self.near.close()
        self.far.close()
        self.sock.close()


@pytest.fixture
def cable() -> Iterator[Cable]:
    with namespace() as here, on_one_cpu():
        here.ip("link", "add", "name", NEAR, "type", "veth", "peer", "name", FAR)
        for interface in (NEAR, FAR):
            here.ip("link", "set", interface, "mtu", "65535", "up")
        here.await_signal(NEAR, FAR)
        with contextlib.closing(here.run(connect)) as made:
            yield made


def connect() -> Cable:
    return Cable(Sniffer(NEAR), Sniffer(FAR), socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0))


@contextlib.contextmanager
def on_one_cpu() -> Iterator[None]:
    """Packets that one CPU sends arrive in their order."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def sendable() -> Iterator[Packet]:
    """The packets whose ethertype is what they begin with."""
    return (packet for packet in packets() if packet.ethertype is None or packet.tags or packet.ethertype == ARP)


def leaving(packet: Packet) -> Packet:
    """As it is seen where it leaves: behind all of its tags, but with the ethertype of the first."""
    return replace(packet, tags=0, ethertype=packet.protocol, kind=OUTGOING)


def arriving(packet: Packet) -> Packet:
    """As it is seen where it arrives: the kernel has taken the first tag away, and knows the ethertype behind it."""
    return replace(packet, tags=packet.tags - 1, ethertype=None, kind=INCOMING) if packet.tags else packet


def kept(packet: Packet, name: str) -> list[bytes]:
    return [packet.bytes()[: SNAPS[name]]] * packet.accepted[name]


@needs_namespaces
def test_kernel_agrees_about_what_leaves(cable: Cable) -> None:
    """Real packets that leave an interface get the verdict of their rules."""
    for packet in sendable():
        cable.send(packet)
        assert {name: cable.near.seen(name) for name in FILTERS} == {
            name: kept(leaving(packet), name) for name in FILTERS
        }, packet


@needs_namespaces
def test_kernel_agrees_about_what_arrives(cable: Cable) -> None:
    """So do packets that arrive at one."""
    waiting = list(sendable())
    while waiting:
        batch, waiting = waiting[:BATCH], waiting[BATCH:]
        for packet in (*batch, LAST):
            cable.send(packet)
        for name in FILTERS:
            expected = [data for packet in batch for data in kept(arriving(packet), name)]
            assert cable.far.before(name, LAST.bytes()) == expected


@needs_namespaces
@given(st.data())
@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_kernel_and_interpreter_agree_about_anything(cable: Cable, data: st.DataObject) -> None:
    """Cut, altered and random packets as well: no verdict depends on what is not in the packet."""
    packet = bytearray(data.draw(st.sampled_from(SAMPLES)).bytes())
    for position in data.draw(st.lists(st.integers(0, len(packet) - 1), max_size=4)):
        packet[position] = data.draw(st.integers(0, 255))
    del packet[data.draw(st.integers(1, len(packet))) :]
    ethertype = data.draw(st.sampled_from((IPV4, IPV6, ARP)))
    cable.sock.sendto(packet, (NEAR, ethertype, 0, 0, b"\xff" * 6))
    for name, program in FILTERS.items():
        found = interpret(instructions(program), bytes(packet), ethertype, OUTGOING)
        assert cable.near.seen(name) == [bytes(packet[:found])] * bool(found)
