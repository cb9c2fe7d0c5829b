"""Where the listener listens, and how it ends."""

import asyncio
import errno
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import pytest
from starlette.types import Receive, Scope, Send

from exporter import listening as sockets
from exporter.config import Address
from exporter.listening import ListenError
from exporter.web.errors import ErrorAnswers
from exporter.web.listener import Listener, listen
from tests.web.support import LOOPBACK, connected, eventually, fetch, request, serving

Run = Callable[[Awaitable[None]], None]

ROOT: Final = Path(__file__).parents[2]


async def hello(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
    await send({"type": "http.response.body", "body": b"hello"})


async def listening(address: Address) -> Listener:
    return await listen(hello, address, ErrorAnswers(lambda _: None))


async def says_hello(host: str, port: int) -> bool:
    async with connected(Address(host, port)) as client:
        await client.send(request())
        return (await client.answer()).body == b"hello"


def test_port_0_is_a_port_that_the_kernel_chooses(run: Run) -> None:
    """The bound address is known before anything is served."""

    async def check() -> None:
        async with serving(hello) as site:
            assert site.address.host == "127.0.0.1"
            assert site.address.port > 0
            assert await says_hello("127.0.0.1", site.address.port)

    run(check())


def test_an_address_in_use_is_one_exact_sentence(run: Run) -> None:
    """A second listener on the same address fails with what and where."""

    async def check() -> None:
        async with serving(hello) as site:
            with pytest.raises(ListenError) as caught:
                await listening(site.address)
            assert str(caught.value) == f"cannot listen on 127.0.0.1:{site.address.port}: address already in use"

    run(check())


def test_all_interfaces_in_use_is_told_as_it_was_written(run: Run) -> None:
    """An empty host appears as such: `:11009`."""

    async def check() -> None:
        async with serving(hello, address=Address("", 0)) as site:
            port = site.address.port
            with pytest.raises(ListenError, match=rf"^cannot listen on :{port}: address already in use$"):
                await listening(Address("", port))

    run(check())


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        (Address("192.0.2.1", 11009), "cannot listen on 192.0.2.1:11009: cannot assign requested address"),
        (Address("nowhere.invalid", 11009), "cannot listen on nowhere.invalid:11009: "),
    ],
)
def test_an_address_that_is_not_ours_is_one_sentence(run: Run, address: Address, sentence: str) -> None:
    """Foreign addresses and unknown names are faults with a reason."""

    async def check() -> None:
        with pytest.raises(ListenError, match=f"^{re.escape(sentence)}"):
            await listening(address)

    run(check())


@pytest.mark.parametrize("host", ["", "::"])
def test_all_interfaces_means_both_kinds_of_address(run: Run, host: str) -> None:
    """An empty host and :: are reached over IPv4 and, where the machine has it, IPv6."""

    async def check() -> None:
        async with serving(hello, address=Address(host, 0)) as site:
            assert await says_hello("127.0.0.1", site.address.port)
            if site.address.host == "::":
                assert await says_hello("::1", site.address.port)

    run(check())


@pytest.mark.parametrize("absent", [errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL])
def test_without_ipv6_all_interfaces_means_ipv4(run: Run, absent: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without IPv6 is listened on all the same."""
    bind = sockets._bind

    def without_ipv6(family: socket.AddressFamily, sockaddr: tuple[str, int], backlog: int) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(absent, os.strerror(absent))
        return bind(family, sockaddr, backlog)

    monkeypatch.setattr(sockets, "_bind", without_ipv6)

    async def check() -> None:
        async with serving(hello, address=Address("", 0)) as site:
            assert site.address.host == "0.0.0.0"
            assert await says_hello("127.0.0.1", site.address.port)

    run(check())


def test_an_ipv6_address_is_only_that(run: Run) -> None:
    """::1 is listened on as written, and leaves IPv4 alone."""

    async def check() -> None:
        async with serving(hello, address=Address("::1", 0)) as site:
            assert await says_hello("::1", site.address.port)
            with pytest.raises(ConnectionRefusedError):
                await says_hello("127.0.0.1", site.address.port)

    run(check())


def test_localhost_is_the_ipv4_one(run: Run) -> None:
    """A name with both kinds of address is listened on at its IPv4 address."""

    async def check() -> None:
        async with serving(hello, address=Address("localhost", 0)) as site:
            assert site.address.host == "127.0.0.1"

    run(check())


def test_clients_that_connect_before_it_runs_are_served_once_it_does(run: Run) -> None:
    """From `listen` on nobody is refused."""

    async def check() -> None:
        listener = await listening(LOOPBACK)
        async with connected(listener.address) as client, asyncio.TaskGroup() as tasks:
            await client.send(request())
            tasks.create_task(listener.run())
            assert (await client.answer()).body == b"hello"
            listener.stop()

    run(check())


def test_a_listener_that_never_ran_can_be_stopped(run: Run) -> None:
    """The address is free again, and stopping twice does no harm."""

    async def check() -> None:
        listener = await listening(LOOPBACK)
        listener.stop()
        listener.stop()
        with pytest.raises(ConnectionRefusedError):
            await says_hello("127.0.0.1", listener.address.port)

    run(check())


def test_stopping_ends_idle_connections_and_refuses_new_ones(run: Run) -> None:
    """After `stop`, `run` ends by itself and at once, kept connections are closed, and the port is free."""

    async def check() -> None:
        async with serving(hello) as site, connected(site.address) as client:
            await client.send(request())
            assert (await client.answer()).body == b"hello"
            site.listener.stop()
            assert await client.ended()
            with pytest.raises(ConnectionRefusedError):
                await says_hello("127.0.0.1", site.address.port)

    run(check())


def test_stopping_lets_an_answer_under_way_end(run: Run) -> None:
    """A request that is being handled gets its answer, which says that it is the last."""
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        begun.set()
        await go_on.wait()
        await hello(scope, receive, send)

    async def check() -> None:
        async with serving(slow) as site, connected(site.address) as client:
            await client.send(request())
            await begun.wait()
            site.listener.stop()
            await eventually(lambda: not accepting(site.address))
            go_on.set()
            answer = await client.answer()
            assert (answer.body, answer.fields["connection"]) == (b"hello", "close")
            assert await client.ended()

    run(check())


def accepting(address: Address) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((address.host, address.port)) == 0


def test_an_answer_that_never_ends_is_cut_after_the_grace(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopping does not wait for ever, and half-sent requests are not waited for at all."""
    monkeypatch.setattr("exporter.web.listener.GRACE", 0.1)
    begun = asyncio.Event()

    async def never(scope: Scope, receive: Receive, send: Send) -> None:
        begun.set()
        while (await receive())["type"] != "http.disconnect":
            pass

    async def check() -> None:
        async with serving(never) as site, connected(site.address) as client, connected(site.address) as half:
            await half.send(b"GET /")
            await client.send(request())
            await begun.wait()
            site.listener.stop()
            assert await half.ended()
            assert await client.ended()

    run(check())


def test_a_cancelled_listener_lets_go_of_everything(run: Run) -> None:
    """A second signal ends at once: no socket is left, and no connection."""

    async def check() -> None:
        listener = await listening(LOOPBACK)
        async with connected(listener.address) as client:
            async with asyncio.TaskGroup() as tasks:
                running = tasks.create_task(listener.run())
                await client.send(request())
                assert (await client.answer()).body == b"hello"
                running.cancel()
            assert not accepting(listener.address)
            assert await client.ended()

    run(check())


def handlers() -> list[object]:
    return [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]


def test_signals_are_left_to_their_owner(run: Run) -> None:
    """While the listener runs, SIGTERM and SIGINT do what they did before."""

    async def check() -> None:
        before = handlers()
        async with serving(hello) as site:
            assert await says_hello("127.0.0.1", site.address.port)
            assert handlers() == before

    run(check())


def test_answers_carry_the_date_and_no_product(run: Run) -> None:
    """The Date field is there from the first answer on; what serves is nobody's business."""

    async def check() -> None:
        async with serving() as site:
            answer = await fetch(site, "/-/healthy")
            assert re.fullmatch(r"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT", answer.fields["date"])
            assert "server" not in answer.fields

    run(check())


def python(code: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code]
    environment = os.environ | variables
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=30)


def test_the_environment_does_not_configure_the_listener() -> None:
    """uvicorn's own variables, however wrong, change nothing."""
    code = (
        "from tests.web.support import run_in, serving, fetch\n"
        "async def main():\n"
        "    async with serving() as site:\n"
        "        print((await fetch(site, '/-/healthy')).body.decode())\n"
        "run_in('uvloop', main())\n"
    )
    result = python(code, WEB_CONCURRENCY="many", FORWARDED_ALLOW_IPS="*")
    assert (result.stdout, result.stderr) == ("OK\n", "")


def test_importing_the_listener_brings_nothing_that_it_does_not_use() -> None:
    """A quick start: no other HTTP parser, no WebSocket library, no test client, no templates."""
    code = "import exporter.web.app, exporter.web.listener, sys; print(*sorted(sys.modules))"
    result = python(code)
    loaded = {name.partition(".")[0] for name in result.stdout.split()}
    assert {"starlette", "uvicorn", "httptools"} <= loaded
    assert not loaded & {"h11", "httpx", "jinja2", "multipart", "websockets", "wsproto"}
    assert "starlette.testclient" not in result.stdout.split()
