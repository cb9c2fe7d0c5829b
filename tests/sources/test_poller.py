"""Readiness of many sockets through one descriptor of the event loop."""

import asyncio
import contextlib
import socket
import struct
from collections.abc import Iterator

from exporter.sources.poller import BATCH, ENDED, FAILED, READ, WRITE, Poller
from tests.support.loops import conversation, eventually, in_both_loops


@contextlib.contextmanager
def polling() -> Iterator[Poller]:
    poller = Poller(asyncio.get_running_loop())
    try:
        yield poller
    finally:
        poller.close()


@contextlib.contextmanager
def connection() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two ends of one TCP connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as near:
        far, _ = listener.accept()
        with far:
            near.setblocking(False)
            yield near, far


@in_both_loops
@conversation
async def test_what_is_asked_for(loop: str) -> None:
    """A socket is called for while what was asked for holds, and as soon as more is asked for, for that."""
    seen: list[int] = []
    with polling() as poller, connection() as (near, far):
        poller.watch(near.fileno(), READ, seen.append)
        await asyncio.sleep(0.02)
        assert seen == []
        far.send(b"hello")
        await eventually(lambda: len(seen) >= 2)
        assert set(seen) == {READ}
        poller.watch(near.fileno(), READ | WRITE, seen.append)
        await eventually(lambda: READ | WRITE in seen)
        assert near.recv(5) == b"hello"
        seen.clear()
        await eventually(lambda: seen)
        assert set(seen) == {WRITE}


@in_both_loops
@conversation
async def test_a_reset_is_told_unasked(loop: str) -> None:
    """A failed socket is called for even where nothing was asked for, and for as long as it is watched."""
    seen: list[int] = []
    with polling() as poller, connection() as (near, far):
        poller.watch(near.fileno(), 0, seen.append)
        far.send(b"last words")
        await asyncio.sleep(0.02)
        assert seen == []
        far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        far.close()
        await eventually(lambda: len(seen) >= 3)
        assert set(seen) == {FAILED | ENDED}
        assert near.recv(100) == b"last words"


@in_both_loops
@conversation
async def test_nothing_is_told_of_what_was_forgotten(loop: str) -> None:
    """A forgotten socket is not called for, not even later in the look that is under way; forgetting twice is fine."""
    with polling() as poller, connection() as (one, far), connection() as (two, also_far):
        sockets = {one, two}
        calls = []

        def close_the_other(me: socket.socket) -> None:
            calls.append(me)
            for sock in sockets - {me}:
                poller.forget(sock.fileno())
                sock.close()

        for sock in sockets:
            poller.watch(sock.fileno(), WRITE, lambda _, me=sock: close_the_other(me))  # type: ignore[misc]
        far.send(b"hello")
        also_far.send(b"hello")
        await eventually(lambda: len(calls) >= 5)
        assert len(set(calls)) == 1
        survivor = calls[0]
        poller.forget(survivor.fileno())
        poller.forget(survivor.fileno())
        calls.clear()
        await asyncio.sleep(0.02)
        assert calls == []


@in_both_loops
@conversation
async def test_the_loop_gets_its_turn(loop: str) -> None:
    """Of many sockets that are ready all the time each gets its turn, and so does the rest of the loop."""
    with contextlib.ExitStack() as stack:
        poller = stack.enter_context(polling())
        served: dict[int, int] = {}
        for _ in range(BATCH + 5):
            near, _far = stack.enter_context(connection())
            number = near.fileno()
            served[number] = 0
            poller.watch(number, WRITE, lambda _, number=number: served.update({number: served[number] + 1}))  # type: ignore[misc]
        for _ in range(20):
            await asyncio.sleep(0.001)
        assert min(served.values()) >= 1
        assert max(served.values()) - min(served.values()) <= max(served.values()) / 2 + 2
