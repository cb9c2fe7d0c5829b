"""A whole exporter: when it cannot start, while it serves, and when it is reloaded."""

import asyncio
import resource
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import structlog
from websockets.asyncio.client import connect

from exporter.app import App, StartError, affordable_connections, raise_descriptor_limit
from exporter.config import Address, Config, ConfigError, Limits, Match, TapConfig, Target
from exporter.web.errors import ERROR_TOKENS, LISTENER_TOKENS, ErrorToken
from tests.support.loops import conversation, eventually, in_both_loops
from tests.support.peers import connected, opened
from tests.support.processes import Exporter, exporter_process
from tests.support.scraping import fetch
from tests.support.services import service
from tests.support.watching import LOOPBACK, Watched, configured, watching

SUCCESSFUL = "websocket_exporter_config_last_reload_successful"
SUCCESS_TIME = "websocket_exporter_config_last_reload_success_timestamp_seconds"


async def end_with(code: int, address: Address, path: str = "/chat") -> None:
    """A client that comes, and closes with `code`."""
    async with connect(f"ws://{address}{path}") as connection:
        await connection.close(code)


class TestStarting:
    @pytest.mark.parametrize("listener", ["tap", "web"])
    @in_both_loops
    @conversation
    async def test_a_port_in_use(self, loop: str, listener: str) -> None:
        """A port that is taken is named in one sentence, and the port that was free is given back."""
        with opened() as taken, opened() as other:
            free = other.address
            other.close()
            tap, web = (taken.address, free) if listener == "tap" else (free, taken.address)
            upstream = Address("127.0.0.1", 1)
            app = App(configured(upstream, tap=(TapConfig(tap, upstream, "chat"),), web_listen_address=web))
            with pytest.raises(StartError) as error:
                await app.open()
            assert str(error.value) == f"cannot listen on {taken.address}: address already in use"
            with pytest.raises(ConnectionRefusedError):
                await connected(free)

    @conversation
    async def test_running_without_opening(self) -> None:
        """Running needs opening first: else nobody knows where."""
        with pytest.raises(RuntimeError, match="run needs open first"):
            await App(configured(Address("127.0.0.1", 1))).run()

    @conversation
    async def test_clients_that_come_early(self) -> None:
        """From opening on clients can connect; they are relayed as soon as it runs."""
        async with service() as (_, upstream):
            app = App(configured(upstream))
            await app.open()
            with await connected(app.addresses[0]) as client:
                await client.send(b"GET / HTTP/1.1\r\nHost: chat.test\r\n\r\n")
                async with asyncio.TaskGroup() as tasks:
                    running = tasks.create_task(app.run())
                    assert (await client.rest()).startswith(b"HTTP/1.1 426 ")
                    running.cancel()


class TestErrorTokens:
    @pytest.mark.parametrize(
        ("webhook", "tokens"),
        [(None, LISTENER_TOKENS), (Address("127.0.0.1", 0), ERROR_TOKENS)],
        ids=["none", "webhook"],
    )
    def test_what_its_listeners_may_answer(self, webhook: Address | None, tokens: tuple[ErrorToken, ...]) -> None:
        """Errors are counted from 0 on for what a listener that is there can answer, and for nothing else."""
        app = App(configured(Address("127.0.0.1", 1), webhook_listen_address=webhook))
        [errors] = [family for family in app.recorder.collect() if family.name == "websocket_exporter_http_errors"]
        assert {(sample.labels["error"], sample.value) for sample in errors.samples} == {(token, 0) for token in tokens}


class TestConnectionLimit:
    @pytest.mark.parametrize(
        ("descriptors", "connections"), [(64, 16), (1024, 256), (65_536, 32_512), (1 << 20, 524_032)]
    )
    def test_what_descriptors_allow(self, descriptors: int, connections: int, monkeypatch: pytest.MonkeyPatch) -> None:
        """Two descriptors for each connection, and 512 that are not for relaying, at most half of them all."""
        monkeypatch.setattr(resource, "getrlimit", lambda _: (descriptors, 1 << 20))
        assert affordable_connections() == connections

    def test_more_descriptors(self) -> None:
        """The exporter takes as many descriptors as it may without asking."""
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (before[0] // 2, before[1]))
            raise_descriptor_limit()
            assert resource.getrlimit(resource.RLIMIT_NOFILE) == (before[1], before[1])
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)

    @conversation
    async def test_where_it_shows(self) -> None:
        """The limit in force is a gauge: the configured one, or else what descriptors allow."""
        for limit, expected in ((7, 7), (None, affordable_connections())):
            async with watching(Address("127.0.0.1", 1), limits_connections=limit) as watched:
                assert (await watched.scrape()).value("websocket_exporter_tap_connection_limit") == expected


class TestServing:
    @conversation
    async def test_two_taps(self) -> None:
        """Each tap relays to its own upstream and counts for its own target."""
        with opened() as one, opened() as two:
            taps = tuple(TapConfig(LOOPBACK, door.address, name) for door, name in ((one, "chat"), (two, "feed")))
            async with watching(one.address, Target("chat"), Target("feed"), tap=taps) as watched:
                for address, door in zip(watched.app.addresses, (one, two), strict=True):
                    with await connected(address) as client:
                        await client.send(b"\x16\x03\x01")
                        assert await (await door.accept()).read(3) == b"\x16\x03\x01"

    @conversation
    async def test_targets_by_host_and_path(self) -> None:
        """A handshake counts for the first target that matches it; others for the tap's own."""
        targets = (
            Target("chat"),
            Target("rooms", match=Match(path="/rooms/*")),
            Target("local", match=Match(host="127.0.0.1", path="/local")),
        )
        async with service() as (_, upstream), watching(upstream, *targets) as watched:
            for path in ("/rooms/7?token=x", "/local", "/elsewhere", "/rooms"):
                await end_with(1000, watched.address, path)
            page = await watched.page(lambda page: page.value("websocket_closes_total") == 4)
            assert page.counted("websocket_closes_total", "target", "code") == {
                ("rooms", "1000"): 1,
                ("local", "1000"): 1,
                ("chat", "1000"): 2,
            }

    @conversation
    async def test_one_line_for_each_close(self) -> None:
        """A closed connection writes one log line that says what no label may: who, where, why, how much."""
        async with service() as (_, upstream), watching(upstream) as watched:
            with structlog.testing.capture_logs() as lines:
                async with connect(
                    f"{watched.url}/room?token=secret", user_agent_header="acme/1.0", compression=None
                ) as connection:
                    await connection.send("hello")
                    await connection.recv()
                    await connection.close(4001, "enough")
                await watched.closes()
            closed = [line for line in lines if line["event"] == "websocket closed"]
            assert len(closed) == 1
            expected = {
                "source": "tap",
                "target": "chat",
                "code": "4xxx",
                "wire_code": 4001,
                "class": "application",
                "initiator": "client",
                "reason": "enough",
                "client": "127.0.0.1",
                "user_agent": "acme/1.0",
                "path": "/chat/room",
                "client_to_server_messages": 1,
                "server_to_client_largest_message": 5,
            }
            assert expected.items() <= closed[0].items()

    @conversation
    async def test_how_late_the_loop_is(self) -> None:
        """The exporter measures all the time how late its event loop wakes up."""
        async with service() as (_, upstream), watching(upstream) as watched:
            page = await watched.page(lambda page: page.value("websocket_exporter_event_loop_lag_seconds_count") >= 2)
            assert page.value("websocket_exporter_event_loop_lag_seconds_sum") >= 0
            assert page.value("process_open_fds") > 0
            assert page.value("websocket_exporter_build_info") == 1

    @conversation
    async def test_ending_it_at_once(self) -> None:
        """A run that is cancelled ends every connection and every listener."""
        with opened() as door:
            async with watching(door.address) as watched:
                with await connected(watched.address) as client:
                    await client.send(b"hello")
                    server = await door.accept()
                    assert await server.read(5) == b"hello"
                    watched.running.cancel()
                    assert (await client.rest(), await server.rest()) == (b"", b"")
                for address in (watched.address, watched.app.web_address):
                    with pytest.raises(ConnectionRefusedError):
                        await connected(address)


class Reloads:
    """Loads what it is told to."""

    def __init__(self) -> None:
        self.next: Callable[[], Config] = self.fail

    def __call__(self) -> Config:
        return self.next()

    def fail(self) -> Config:
        raise ConfigError(("exporter.yaml: tap: expected a list, got 7",))


async def reload(watched: Watched) -> int:
    status, _ = await fetch(watched.app.web_address, "/-/reload", "POST")
    return status


class TestReloading:
    @conversation
    async def test_new_codes_and_matches(self) -> None:
        """Codes, going_away_codes, match and new targets hold for connections that begin after the reload."""
        load = Reloads()
        async with service() as (_, upstream), watching(upstream, load=load) as watched:
            load.next = lambda: configured(
                upstream,
                Target("chat", codes=frozenset({4001}), going_away_codes=frozenset({3001})),
                Target("rooms", match=Match(path="/rooms/*")),
            )
            async with connect(watched.url) as older:
                await end_with(4001, watched.address)
                assert await reload(watched) == 200
                for path in ("/chat", "/rooms/1"):
                    await end_with(4001, watched.address, path)
                await end_with(3001, watched.address)
                await older.close(4001)
            page = await watched.page(lambda page: page.value("websocket_closes_total") == 5)
            assert page.counted("websocket_closes_total", "target", "code", "class") == {
                ("chat", "4xxx", "application"): 2,
                ("chat", "4001", "application"): 1,
                ("chat", "3001", "going_away"): 1,
                ("rooms", "4xxx", "application"): 1,
            }
            assert page.value(SUCCESSFUL) == 1

    @conversation
    async def test_a_fault_of_ours(self) -> None:
        """Whatever goes wrong while the configuration is read, the exporter goes on with the old one and says so."""
        load = Reloads()
        load.next = lambda: [][0]
        async with service() as (_, upstream), watching(upstream, load=load) as watched:
            with structlog.testing.capture_logs() as lines:
                assert await reload(watched) == 500
            assert "configuration not reloaded, the old one stays in force" in [line["event"] for line in lines]
            assert (await watched.scrape()).value(SUCCESSFUL) == 0
            async with connect(watched.url) as client:
                await client.send("still here")

    @conversation
    async def test_limits(self) -> None:
        """The configured maximum message sizes are exported, and follow a reload."""
        load = Reloads()
        limited = Target("chat", limits=Limits(client_to_server=1024, server_to_client=2048))
        async with service() as (_, upstream), watching(upstream, limited, load=load) as watched:
            limits = (await watched.scrape()).counted("websocket_message_size_limit_bytes", "direction", "origin")
            assert limits == {("client_to_server", "configured"): 1024, ("server_to_client", "configured"): 2048}
            load.next = lambda: configured(upstream, Target("chat", limits=Limits(server_to_client=4096)))
            assert await reload(watched) == 200
            limits = (await watched.scrape()).counted("websocket_message_size_limit_bytes", "direction", "origin")
            assert limits == {("server_to_client", "configured"): 4096}

    @conversation
    async def test_a_broken_configuration(self) -> None:
        """A faulty configuration changes nothing, is counted, and is logged with its faults; a sound one heals it."""
        load = Reloads()
        targets = (Target("chat", codes=frozenset({4001})),)
        async with service() as (_, upstream), watching(upstream, *targets, load=load) as watched:
            before = await watched.scrape()
            with structlog.testing.capture_logs() as lines:
                assert await reload(watched) == 500
            assert [line["faults"] for line in lines if line["log_level"] == "error"] == [
                ["exporter.yaml: tap: expected a list, got 7"]
            ]
            page = await watched.scrape()
            assert page.value(SUCCESSFUL) == 0
            assert page.value(SUCCESS_TIME) == before.value(SUCCESS_TIME)
            await end_with(4001, watched.address)
            assert await watched.closes() == {("4001", "application", "client"): 1}
            load.next = lambda: configured(upstream, *targets)
            assert await reload(watched) == 200
            page = await watched.scrape()
            assert page.value(SUCCESSFUL) == 1
            assert page.value(SUCCESS_TIME) > before.value(SUCCESS_TIME)

    @conversation
    async def test_what_has_to_wait(self) -> None:
        """A change that needs a restart is said in the log, and the tap goes on as it was."""
        load = Reloads()
        async with service() as (_, upstream), watching(upstream, load=load) as watched:
            load.next = lambda: configured(Address("127.0.0.1", 1))
            with structlog.testing.capture_logs() as lines:
                assert await reload(watched) == 200
            assert any(f"stays {upstream} (target chat) until a restart" in line["event"] for line in lines)
            await end_with(1000, watched.address)
            assert await watched.closes() == {("1000", "normal", "client"): 1}

    @conversation
    async def test_without_anything_to_load(self) -> None:
        """Where there is nothing to load, as in the demo, a reload changes nothing and is no success."""
        async with service() as (_, upstream), watching(upstream) as watched:
            assert await reload(watched) == 500
            assert (await watched.scrape()).value(SUCCESSFUL) == 1

    @conversation
    async def test_over_http_only_if_enabled(self) -> None:
        """Without --web.enable-lifecycle nobody reloads over HTTP."""
        load = Reloads()
        async with service() as (_, upstream), watching(upstream, load=load, web_enable_lifecycle=False) as watched:
            assert await reload(watched) == 403
            assert (await watched.scrape()).value(SUCCESSFUL) == 1

    @conversation
    async def test_a_hangup_signal_reads_the_file_again(self, tmp_path: Path) -> None:
        """SIGHUP reloads the file for the next connections; a broken file leaves the old one in force."""
        file = tmp_path / "exporter.yaml"
        async with service() as (_, upstream):
            configuration = (
                f"tap: [{{listen: '127.0.0.1:0', upstream: '{upstream}', target: chat}}]\ntargets: {{chat: %s}}\n"
            )
            file.write_text(configuration % "{}")
            async with exporter_process(tmp_path, f"--config.file={file}") as exporter:
                tap = await exporter.address("tap")
                file.write_text(configuration % "{codes: [4001]}")
                await hang_up(exporter, "configuration reloaded")
                await end_with(4001, tap)
                file.write_text(configuration % "{codes: [1]}")
                await hang_up(exporter, "configuration not reloaded, the old one stays in force")
                await end_with(4001, tap)
                page = await exporter.scrape()
                assert page.value("websocket_closes_total", code="4001", initiator="client") == 2
                assert page.value(SUCCESSFUL) == 0


async def hang_up(exporter: Exporter, expected: str) -> None:
    exporter.signal(signal.SIGHUP)
    await eventually(lambda: exporter.said(expected))
