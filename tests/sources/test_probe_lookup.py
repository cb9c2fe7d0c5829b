"""Names become addresses without holding up anything else."""

import asyncio
import errno
import socket
import threading

import pytest

from exporter.sources.probe.lookup import AT_ONCE, Lookups
from tests.support.loops import conversation, eventually


@conversation
async def test_an_address_is_its_own() -> None:
    """Addresses of both families need no lookup."""
    lookups = Lookups()
    assert await lookups.addresses("127.0.0.1") == ["127.0.0.1"]
    assert await lookups.addresses("::1") == ["::1"]


@conversation
async def test_a_name() -> None:
    """A name has addresses, each once."""
    found = await Lookups().addresses("localhost")
    assert found
    assert set(found) <= {"127.0.0.1", "::1"}
    assert len(set(found)) == len(found)


@pytest.mark.parametrize("host", ["nothing.invalid", "a..b", "a" * 64])
@conversation
async def test_a_name_without_an_address(host: str) -> None:
    """A name that does not exist, or cannot, is an error of the resolver."""
    with pytest.raises(socket.gaierror):
        await Lookups().addresses(host)


class NameServer:
    """A resolver that answers only when it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[str] = []
        self.answer = threading.Event()
        monkeypatch.setattr(socket, "getaddrinfo", self._look_up)

    def _look_up(self, host: str, *_: object, **__: object) -> list[tuple[object, ...]]:
        self.asked.append(host)
        self.answer.wait(20)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", 0))]


@conversation
async def test_a_name_server_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few lookups are under way at a time, in threads of their own; whoever gives up leaves them to others."""
    server = NameServer(monkeypatch)
    lookups = Lookups()
    async with asyncio.TaskGroup() as tasks:
        waiting = [tasks.create_task(lookups.addresses(f"host-{number % 10}")) for number in range(40)]
        await eventually(lambda: len(server.asked) == AT_ONCE)
        assert await asyncio.to_thread(len, server.asked) == AT_ONCE
        for task in waiting[:10]:
            task.cancel()
        server.answer.set()
        for task in waiting[10:]:
            assert await task == ["192.0.2.1"]
    assert sorted(server.asked) == [f"host-{number}" for number in range(10)]


@conversation
async def test_no_thread_to_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system grants no thread, that is this machine's fault, and the next lookup may be luckier."""

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    lookups = Lookups()
    with monkeypatch.context() as patch, pytest.raises(OSError, match="can't start new thread") as caught:
        patch.setattr(threading.Thread, "start", refuse)
        await lookups.addresses("localhost")
    assert caught.value.errno == errno.ENOMEM
    assert await lookups.addresses("localhost")


def test_a_loop_that_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer that comes when nobody is left to take it disturbs nothing."""
    server = NameServer(monkeypatch)

    async def give_up() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await Lookups().addresses("late")

    asyncio.run(give_up())
    threads = [thread for thread in threading.enumerate() if thread.name == "lookup"]
    server.answer.set()
    for thread in threads:
        thread.join(10)
    assert threads
    assert not any(thread.is_alive() for thread in threads)
