"""Connecting to an upstream."""

import errno
import socket
from pathlib import Path

import pytest

from exporter.config import Address, UnixPath
from exporter.sources.dial import Dialler
from tests.support.loops import conversation, in_both_loops
from tests.support.peers import Peer, opened

TIMEOUT = 0.2


async def dial(upstream: Address | UnixPath, *sources: str) -> Peer:
    return Peer(await Dialler(upstream, TIMEOUT, sources).dial())


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
@in_both_loops
@conversation
async def test_each_address_is_tried(loop: str, host: str) -> None:
    """A name is dialled at each of its addresses until one accepts; small writes leave at once."""
    with opened() as door, await dial(Address(host, door.address.port)) as dialled:
        assert dialled.sock.getpeername() == ("127.0.0.1", door.address.port)
        assert dialled.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert dialled.sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert not dialled.sock.getblocking()


@in_both_loops
@conversation
async def test_a_closed_port(loop: str) -> None:
    """Where nobody listens dialling raises what the kernel said."""
    with opened() as door:
        nowhere = door.address
    with pytest.raises(ConnectionRefusedError):
        await dial(nowhere)


@pytest.mark.parametrize("host", ["name.invalid", "no..name", "x" * 64])
@conversation
async def test_a_name_that_is_none(host: str) -> None:
    """A name without an address raises what the resolver said, or takes too long."""
    with pytest.raises((socket.gaierror, TimeoutError)):
        await dial(Address(host, 80))


@in_both_loops
@conversation
async def test_a_full_backlog(loop: str) -> None:
    """An upstream that does not accept in time is given up."""
    with opened(backlog=0) as door, await dial(door.address), pytest.raises(TimeoutError):
        await dial(door.address)


@in_both_loops
@conversation
async def test_a_full_unix_socket(loop: str, tmp_path: Path) -> None:
    """A Unix socket with a full backlog is waited for, and is never taken for connected."""
    with opened(backlog=0, path=tmp_path / "service") as door, await dial(door.address):
        with pytest.raises(TimeoutError):
            await dial(door.address)
        await door.accept()
        with await dial(door.address) as second:
            await second.send(b"hello")
            assert await (await door.accept()).read(5) == b"hello"


@conversation
async def test_a_unix_socket_that_is_missing(tmp_path: Path) -> None:
    """A path where nothing is raises what the kernel said."""
    with pytest.raises(FileNotFoundError):
        await dial(UnixPath(str(tmp_path / "nobody")))


@in_both_loops
@conversation
async def test_an_upstream_that_resets_at_once(loop: str) -> None:
    """A connection that was accepted and reset is a connection: what was said on it can be read."""
    with opened() as door:
        for _ in range(20):
            dialling = dial(door.address)
            with await dialling as dialled:
                server = await door.accept()
                server.sock.send(b"hello")
                server.reset()
                assert await dialled.read(5) == b"hello"


@conversation
async def test_source_addresses_take_turns() -> None:
    """Each connection comes from the next of the source addresses, so that each brings its own ports."""
    with opened() as door:
        dialler = Dialler(door.address, TIMEOUT, ("127.0.0.2", "127.0.0.3"))
        seen = []
        for _ in range(4):
            with Peer(await dialler.dial()) as dialled:
                seen.append(dialled.sock.getsockname()[0])
        assert seen == ["127.0.0.2", "127.0.0.3"] * 2


@conversation
async def test_a_source_address_that_is_not_ours() -> None:
    """It raises what the kernel said."""
    with opened() as door, pytest.raises(OSError, check=lambda error: error.errno == errno.EADDRNOTAVAIL):
        await dial(door.address, "192.0.2.1")


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no IPv6")
@conversation
async def test_source_addresses_of_both_families() -> None:
    """A name with addresses of both kinds is dialled from source addresses of the same kind as each."""
    with opened() as door:
        dialler = Dialler(Address("localhost", door.address.port), TIMEOUT, ("127.0.0.2", "::1", "127.0.0.3"))
        for _ in range(6):
            with Peer(await dialler.dial()) as dialled:
                assert dialled.sock.getsockname()[0] in ("127.0.0.2", "127.0.0.3")
