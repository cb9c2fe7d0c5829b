"""Listening sockets, on every kind of address."""

import contextlib
import errno
import socket
from collections.abc import Callable

import pytest

from exporter import listening
from exporter.config import Address
from exporter.listening import ListenError, address_of, listen
from tests.support.loops import conversation, in_both_loops

BACKLOG = 16

needs_ipv6 = pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no IPv6")


def reachable(family: int, host: str, port: int) -> bool:
    with socket.socket(family) as client:
        return client.connect_ex((host, port)) == 0


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
@in_both_loops
@conversation
async def test_one_address(loop: str, host: str) -> None:
    """Clients can connect at once, on the port that the kernel chose; a name means its IPv4 address."""
    with await listen(Address(host, 0), BACKLOG) as sock:
        where = address_of(sock)
        assert where.host == "127.0.0.1"
        assert where.port > 0
        assert not sock.getblocking()
        assert reachable(socket.AF_INET, "127.0.0.1", where.port)


@needs_ipv6
@conversation
async def test_ipv6() -> None:
    """An IPv6 address is listened on as such."""
    with await listen(Address("::1", 0), BACKLOG) as sock:
        assert str(address_of(sock)) == f"[::1]:{address_of(sock).port}"
        assert reachable(socket.AF_INET6, "::1", address_of(sock).port)
        assert not reachable(socket.AF_INET, "127.0.0.1", address_of(sock).port)


@needs_ipv6
@conversation
async def test_all_interfaces() -> None:
    """No host means all interfaces, of both kinds."""
    with await listen(Address("", 0), BACKLOG) as sock:
        port = address_of(sock).port
        assert reachable(socket.AF_INET, "127.0.0.1", port)
        assert reachable(socket.AF_INET6, "::1", port)


@conversation
async def test_all_interfaces_without_ipv6(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the kernel has no IPv6, no host means all IPv4 interfaces."""
    monkeypatch.setattr(listening, "_bind", refusing_ipv6(listening._bind, errno.EAFNOSUPPORT))
    with await listen(Address("", 0), BACKLOG) as sock:
        assert address_of(sock).host == "0.0.0.0"
        assert reachable(socket.AF_INET, "127.0.0.1", address_of(sock).port)


def refusing_ipv6(bind: Callable[..., socket.socket], number: int) -> Callable[..., socket.socket]:
    def refuse(family: int, *rest: object) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(number, "refused")
        return bind(family, *rest)

    return refuse


@pytest.mark.parametrize("everywhere", [False, True])
@conversation
async def test_a_port_in_use(everywhere: bool) -> None:
    """A port that is taken is refused in one sentence, which never hides behind the lack of IPv6."""
    with await listen(Address("" if everywhere else "127.0.0.1", 0), BACKLOG) as taken:
        address = Address("" if everywhere else "127.0.0.1", address_of(taken).port)
        with pytest.raises(ListenError) as error:
            await listen(address, BACKLOG)
        assert str(error.value) == f"cannot listen on {address}: address already in use"


@pytest.mark.parametrize(
    ("host", "reason"),
    [
        ("192.0.2.1", "cannot assign requested address"),
        ("name.invalid", None),
        ("no..name", "not a host name"),
    ],
)
@conversation
async def test_an_address_that_is_not_ours(host: str, reason: str | None) -> None:
    """An address of another machine, or a name that is none, is refused in one sentence."""
    with pytest.raises(ListenError) as error:
        await listen(Address(host, 0), BACKLOG)
    assert str(error.value).startswith(f"cannot listen on {host}:0: ")
    assert reason is None or str(error.value).endswith(reason)
    assert isinstance(error.value.__cause__, OSError | UnicodeError)


@conversation
async def test_a_port_is_free_again_at_once() -> None:
    """A port whose last connections are still in TIME_WAIT can be listened on, as after a restart."""
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(await listen(Address("127.0.0.1", 0), BACKLOG))
        address = address_of(first)
        client = stack.enter_context(socket.create_connection((address.host, address.port)))
        server, _ = first.accept()
        server.close()  # whoever closes first keeps the port in TIME_WAIT
        client.close()
        first.close()
        stack.enter_context(await listen(address, BACKLOG))
