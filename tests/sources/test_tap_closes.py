"""How real WebSockets end, as the tap counts it: each exactly once, with the first Close frame's code and sender."""

from collections.abc import Awaitable, Callable

import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed

from exporter.config import Address, Target
from tests.support.loops import conversation
from tests.support.services import close_empty, program, service
from tests.support.watching import watching

CHAT = Target("chat", codes=frozenset({4001}), going_away_codes=frozenset({3001}))


def closer(code: int, reason: str = "") -> Callable[[ServerConnection], Awaitable[None]]:
    """A service that closes whoever comes."""

    async def close(connection: ServerConnection) -> None:
        await connection.close(code, reason)

    return close


@pytest.mark.parametrize(
    ("code", "label", "close_class"),
    [
        (1000, "1000", "normal"),
        (1001, "1001", "going_away"),
        (1008, "1008", "policy"),
        (1011, "1011", "internal_error"),
        (1012, "1012", "going_away"),
        (3001, "3001", "going_away"),
        (3999, "3xxx", "application"),
        (4000, "4xxx", "application"),
        (4001, "4001", "application"),
    ],
)
class TestCloses:
    @conversation
    async def test_by_the_client(self, code: int, label: str, close_class: str) -> None:
        """A close that the client begins is the client's, although the server answers it with the same code."""
        async with service() as (_, upstream), watching(upstream, CHAT) as watched:
            async with connect(watched.url) as connection:
                await connection.close(code, "bye")
            assert await watched.closes() == {(label, close_class, "client"): 1}
            assert await watched.handshakes() == {("accepted", "101"): 1}

    @conversation
    async def test_by_the_server(self, code: int, label: str, close_class: str) -> None:
        """A close that the server begins is the server's, although the client answers it with the same code."""
        async with service(closer(code, "bye")) as (_, upstream), watching(upstream, CHAT) as watched:
            async with connect(watched.url) as connection:
                with pytest.raises(ConnectionClosed) as closed:
                    await connection.recv()
            assert closed.value.rcvd is not None
            assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (code, "bye")
            assert await watched.closes() == {(label, close_class, "server"): 1}


@conversation
async def test_a_service_that_shuts_down() -> None:
    """A service that ends closes everyone with 1001: one going_away close by the server for each client."""
    async with service() as (server, upstream), watching(upstream) as watched:
        clients = [await connect(watched.url) for _ in range(3)]
        server.close()
        for client in clients:
            await client.wait_closed()
        assert await watched.closes(3) == {("1001", "going_away", "server"): 3}


@conversation
async def test_a_message_over_the_service_s_limit() -> None:
    """A service that refuses a message closes with 1009; the refused message is not counted as one that passed."""
    async with service(max_size=1024) as (_, upstream), watching(upstream) as watched:
        async with connect(watched.url, compression=None) as connection:
            await connection.send(bytes(1024))
            assert await connection.recv() == bytes(1024)
            await connection.send(bytes(1 << 20))
            with pytest.raises(ConnectionClosed) as closed:
                await connection.recv()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1009
        assert await watched.closes() == {("1009", "too_big", "server"): 1}
        page = await watched.scrape()
        assert page.value("websocket_message_size_bytes_sum", direction="server_to_client") == 1024
        assert page.value("websocket_message_size_bytes_bucket", direction="client_to_server", le="1024.0") == 1


@conversation
async def test_a_message_over_the_client_s_limit() -> None:
    """A client that refuses a message closes with 1009, as the client."""
    async with service() as (_, upstream), watching(upstream) as watched:
        async with connect(watched.url, compression=None, max_size=1024) as connection:
            await connection.send(bytes(1025))
            with pytest.raises(ConnectionClosed):
                await connection.recv()
        assert await watched.closes() == {("1009", "too_big", "client"): 1}


@conversation
async def test_an_empty_close_by_the_client() -> None:
    """A Close frame without a code counts as 1005."""
    async with service() as (_, upstream), watching(upstream) as watched:
        async with connect(watched.url) as connection:
            await close_empty(connection)
            await connection.wait_closed()
        assert await watched.closes() == {("1005", "normal", "client"): 1}


@conversation
async def test_an_empty_close_by_the_server() -> None:
    """A Close frame without a code counts as 1005, as the server's if that sent it."""
    async with service(close_empty) as (_, upstream), watching(upstream) as watched:
        async with connect(watched.url) as connection:
            await connection.wait_closed()
        assert await watched.closes() == {("1005", "normal", "server"): 1}


@conversation
async def test_a_killed_service() -> None:
    """A service that is killed says nothing: 1006, by the server, whose kernel ends TCP."""
    async with (
        program("tests.support.killable", "serve") as (process, port),
        watching(Address("127.0.0.1", int(port))) as watched,
    ):
        async with connect(watched.url) as connection:
            await connection.send("hello")
            assert await connection.recv() == "hello"
            process.kill()
            with pytest.raises(ConnectionClosed) as closed:
                await connection.recv()
        assert closed.value.rcvd is None
        assert await watched.closes() == {("1006", "abnormal", "server"): 1}
        page = await watched.scrape()
        assert page.counted("websocket_transport_ends_total", "side", "kind") == {("server", "fin"): 1}


@conversation
async def test_a_vanished_client() -> None:
    """A client that is killed says nothing: 1006, by the client, whose kernel ends TCP."""
    async with (
        service() as (_, upstream),
        watching(upstream) as watched,
        program("tests.support.killable", "connect", watched.url) as (process, echoed),
    ):
        assert echoed == "hello"
        process.kill()
        assert await watched.closes() == {("1006", "abnormal", "client"): 1}


@conversation
async def test_keepalive_pings_are_timed() -> None:
    """A Ping that the service sends and the client answers is a round trip of the client."""
    async with service(ping_interval=0.02) as (_, upstream), watching(upstream) as watched:
        async with connect(watched.url, ping_interval=None):
            page = await watched.page(lambda page: page.value("websocket_ping_rtt_seconds_count", peer="client") >= 2)
        assert page.value("websocket_ping_rtt_seconds_count", peer="server") == 0


@conversation
async def test_compressed_messages_are_counted_apart() -> None:
    """With permessage-deflate a message counts by its size on the wire, under compressed="true"."""
    async with service() as (_, upstream), watching(upstream) as watched:
        async with connect(watched.url, compression="deflate") as connection:
            await connection.send("a" * 100_000)
            assert await connection.recv() == "a" * 100_000
        await watched.closes()
        page = await watched.scrape()
        for direction in ("client_to_server", "server_to_client"):
            assert page.value("websocket_message_size_bytes_count", direction=direction, compressed="false") == 0
            assert page.value("websocket_message_size_bytes_count", direction=direction, compressed="true") == 1
            assert 0 < page.value("websocket_message_size_bytes_sum", direction=direction) < 1000
