"""What an exporter that probes shows and does as a whole: series, shutdown, reload, and the process itself."""

import asyncio
import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from itertools import product
from pathlib import Path
from typing import Any, Final, get_args

import msgspec
import pytest
from structlog.testing import capture_logs

from exporter.app import App
from exporter.closecodes import Vocabulary
from exporter.config import Address, Config, Target, load
from exporter.events import Origin, PingAnswered, ProbeFailed, ProbeFailure, ProbeUp, ProbeWaits
from exporter.metrics import catalogue
from exporter.metrics.bounds import most_series_of
from exporter.metrics.recorder import Recorder
from exporter.sources.probe.schedule import Schedule
from tests.sources.probing import configured, serving, upgrading
from tests.support.loops import conversation, eventually
from tests.support.processes import exporter_process
from tests.support.scraping import Page, scrape
from tests.support.services import ROOT, service

NOW: Final = 1_700_000_000.0
CHAT: Final = Origin("probe", "chat")
LISTED: Final = Vocabulary(frozenset({4001}), frozenset({3001}))


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


def values(recorder: Recorder, metric: catalogue.Metric) -> dict[tuple[str, ...], float]:
    """The samples of a counter or gauge, by their labels other than source and target."""
    (family,) = [family for family in recorder.collect() if metric.name.removesuffix("_total") == family.name]
    names = metric.labels[2:]
    return {tuple(sample.labels[name] for name in names): sample.value for sample in family.samples}


class TestRecorder:
    def test_born_at_zero(self) -> None:
        """Every reason, and every close that a probe can see: by the server and by the exporter."""
        recorder = Recorder(lambda: NOW)
        recorder.watch_probe("chat", LISTED)
        assert values(recorder, catalogue.PROBE_FAILURES) == {(reason,): 0.0 for reason in get_args(ProbeFailure)}
        closes = (
            *product(LISTED.labels(), ["server"]),
            *product(("1000", "1002", "1006", "1007", "1009"), ["exporter"]),
        )
        expected = {(code, LISTED.close_class(code), initiator): 0.0 for code, initiator in closes}
        assert values(recorder, catalogue.CLOSES) == expected
        assert {outcome for outcome, _ in values(recorder, catalogue.HANDSHAKES)} == {"accepted", "rejected", "failed"}
        for metric in (catalogue.PROBE_UP, catalogue.PROBE_BACKOFF, catalogue.CONNECTIONS_ACTIVE):
            assert values(recorder, metric) == {(): 0.0}
        for metric in (catalogue.PROBE_LAST_RUN, catalogue.TARGET_CREATED):
            assert values(recorder, metric) == {(): NOW}

    def test_watching_again_changes_nothing(self) -> None:
        """A reload lets new codes be born and leaves what was counted."""
        clock = Clock()
        recorder = Recorder(clock)
        recorder.watch_probe("chat", LISTED)
        recorder.emit(ProbeFailed(CHAT, "dns"))
        recorder.emit(ProbeWaits(CHAT, 9.0))
        clock.now += 60
        recorder.watch_probe("chat", Vocabulary(frozenset({4404}), frozenset()))
        assert values(recorder, catalogue.PROBE_FAILURES)["dns",] == 1.0
        assert values(recorder, catalogue.PROBE_LAST_RUN) == {(): NOW}
        assert values(recorder, catalogue.PROBE_BACKOFF) == {(): 9.0}
        assert ("4404", "application", "server") in values(recorder, catalogue.CLOSES)

    def test_up_and_down(self) -> None:
        """Up from a success to the next failure; waiting alone changes nothing but the delay."""
        recorder = Recorder(lambda: NOW)
        recorder.watch_probe("chat", LISTED)
        found = []
        for event in (
            ProbeWaits(CHAT, 3.0),
            ProbeUp(CHAT, 0.02),
            ProbeWaits(CHAT, 4.0),
            ProbeUp(CHAT, 0.02),
            ProbeFailed(CHAT, "closed_by_server"),
            ProbeWaits(CHAT, 5.0),
        ):
            recorder.emit(event)
            up, backoff = values(recorder, catalogue.PROBE_UP)[()], values(recorder, catalogue.PROBE_BACKOFF)[()]
            found.append((up, backoff))
        assert found == [(0, 3), (1, 0), (1, 4), (1, 0), (0, 0), (0, 5)]

    def test_the_last_run(self) -> None:
        """It is the time of whatever the probe learned last; the Pongs that a tap sees are none of its business."""
        clock = Clock()
        recorder = Recorder(clock)
        recorder.watch_probe("chat", LISTED)
        for event, runs in (
            (ProbeUp(CHAT, 0.02), True),
            (PingAnswered(CHAT, "server", 0.01), True),
            (ProbeFailed(CHAT, "timeout"), True),
            (ProbeWaits(CHAT, 5.0), False),
        ):
            clock.now += 10
            before = values(recorder, catalogue.PROBE_LAST_RUN)[()]
            recorder.emit(event)
            after = values(recorder, catalogue.PROBE_LAST_RUN)[()]
            assert after == (clock.now if runs else before)
        recorder.emit(PingAnswered(Origin("tap", "chat"), "server", 0.01))
        assert len(values(recorder, catalogue.PROBE_LAST_RUN)) == 1

    def test_the_bound_on_series_holds(self) -> None:
        """A probe adds no more series than are announced at start."""
        recorder = Recorder(lambda: NOW)
        before = sum(len(family.samples) for family in recorder.collect())
        recorder.watch_probe("chat", LISTED)
        added = sum(len(family.samples) for family in recorder.collect()) - before
        assert added <= most_series_of([LISTED], 0) - most_series_of([], 0)


@contextlib.asynccontextmanager
async def running(config: Config, again: Callable[[], Config] | None = None) -> AsyncIterator[App]:
    app = App(config, again)
    await app.open()
    async with asyncio.TaskGroup() as tasks:
        run = tasks.create_task(app.run())
        try:
            yield app
        finally:
            run.cancel()


def exporting(address: Address, **settings: Any) -> Config:
    target = Target("chat", codes=frozenset({4001}))
    defaults = load({"web.listen-address": "127.0.0.1:0", "shutdown.grace": "1s"})
    return msgspec.structs.replace(
        defaults, targets={"chat": target}, probe=(configured(address, **settings),), targets_listed=True
    )


async def until(app: App, condition: Callable[[Page], object], within: float = 10.0) -> Page:
    async def look() -> Page | None:
        page = await scrape(app.web_address)
        return page if condition(page) else None

    page = await eventually(look, within)
    assert page is not None
    return page


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spare the tests the first delay, which is random."""
    monkeypatch.setattr(Schedule, "first", lambda _: 0.0)


@pytest.mark.usefixtures("at_once")
@conversation
async def test_what_is_exposed() -> None:
    """A held probe has its own families and its share of the common ones; there is nothing of a tap."""
    async with serving(upgrading()) as address, running(exporting(address)) as app:
        page = await until(app, lambda page: page.value("websocket_ping_rtt_seconds_count") >= 2)
        assert page.value("websocket_probe_up", source="probe", target="chat") == 1
        assert page.value("websocket_connections_active", source="probe") == 1
        assert page.counted("websocket_handshakes_total", "outcome", "status") == {("accepted", "101"): 1}
        assert page.value("websocket_probe_connect_duration_seconds_count") == 1
        assert page.value("websocket_probe_backoff_seconds") == 0
        assert abs(page.value("websocket_probe_last_run_timestamp_seconds") - time.time()) < 5
        assert page.counted("websocket_ping_rtt_seconds_count", "peer").keys() == {("server",)}
        assert 'source="tap"' not in page.text


@pytest.mark.usefixtures("at_once")
@conversation
async def test_the_end_of_the_exporter() -> None:
    """A shutdown ends what is held with 1000, which is counted, and then the exporter is through."""
    async with service() as (_, address):
        app = App(exporting(address))
        await app.open()
        async with asyncio.TaskGroup() as tasks:
            run = tasks.create_task(app.run())
            await until(app, lambda page: page.value("websocket_probe_up"))
            app.stop()
            await run
        closes = values(app.recorder, catalogue.CLOSES)
        assert {labels: count for labels, count in closes.items() if count} == {("1000", "normal", "exporter"): 1}
        assert values(app.recorder, catalogue.CONNECTIONS_ACTIVE) == {(): 0}


@pytest.mark.usefixtures("at_once")
@conversation
async def test_a_reload() -> None:
    """A reload changes the labels of codes and keeps the probe, and says so."""
    async with serving(upgrading()) as address:
        before = exporting(address)
        other = msgspec.structs.replace(before.probe[0], interval=7.0)
        listed = {"chat": Target("chat", codes=frozenset({4404}))}
        after = msgspec.structs.replace(before, targets=listed, probe=(other,))
        async with running(before, lambda: after) as app:
            await until(app, lambda page: page.value("websocket_probe_up"))
            with capture_logs() as logs:
                assert await app.reload()
            assert [line["event"] for line in logs if line["log_level"] == "warning"] == [
                "probe chat keeps its settings until a restart; it is now configured with others"
            ]
            page = await scrape(app.web_address)
            assert page.value("websocket_connections_active") == 1
            codes = {sample.labels["code"] for sample in page.samples["websocket_closes_total"]}
            assert {"4001", "4404"} <= codes


@conversation
async def test_a_process_that_probes(tmp_path: Path) -> None:
    """`--probe=NAME=URL` reports up, then the code and initiator when the service stops, and recovers by itself."""
    async with service() as (server, address):
        flags = f"--probe=demo=ws://{address}/ws?token=canary", "--shutdown.grace=1s"
        async with exporter_process(tmp_path, *flags) as exporter:
            await eventually(lambda: exporter.said("probe up"), within=20)
            server.close()
            await server.wait_closed()
            (closed,) = await eventually(lambda: exporter.said("websocket closed"))
            assert (closed["code"], closed["initiator"], closed["client"]) == ("1001", "server", "")
            assert (closed["host"], closed["path"]) == (str(address), "/ws")
            page = await exporter.scrape()
            assert page.value("websocket_probe_up", target="demo") == 0
            assert page.counted("websocket_closes_total", "code", "initiator") == {("1001", "server"): 1}
            assert page.value("websocket_probe_failures_total", reason="closed_by_server") == 1
            async with service(port=address.port):
                await eventually(lambda: len(exporter.said("probe up")) == 2, within=20)
                assert (await exporter.scrape()).value("websocket_probe_up", target="demo") == 1
                exporter.signal(signal.SIGTERM)
                assert await exporter.ended() == 0
            assert "canary" not in (tmp_path / "exporter.log").read_text()


@conversation
async def test_no_secret_at_the_debug_level(tmp_path: Path) -> None:
    """Not even the debug level shows a header, a query or a message."""
    secret = tmp_path / "token"
    secret.write_text("canary")
    config = tmp_path / "config.yaml"
    async with service() as (_, address):
        headers = f"{{X-Token: {{file: {secret}}}, X-Other: canary}}"
        config.write_text(f"probe: [{{target: a, url: 'ws://{address}/?canary', headers: {headers}, send: canary}}]")
        async with exporter_process(tmp_path, f"--config.file={config}", "--log.level=debug") as exporter:
            await eventually(lambda: exporter.said("probe up"), within=20)
            assert "canary" not in (tmp_path / "exporter.log").read_text()


@pytest.mark.parametrize("flag", ["--tap=127.0.0.1:0=127.0.0.1:1", "--probe=a=ws://127.0.0.1:1/"])
def test_the_library_is_loaded_where_it_is_needed(flag: str) -> None:
    """Without a probe nothing of `websockets` is imported: a sidecar that only taps does without."""
    code = f"""
import asyncio, sys
from exporter.app import App
from exporter.config import load
async def main():
    App(load(taps={[flag[6:]] if flag.startswith("--tap") else []!r}, probes={[flag[8:]] if "probe" in flag else []!r}))
asyncio.run(main())
print("websockets" in sys.modules)
"""
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=30, check=True
    )
    assert found.stdout.strip() == str("probe" in flag)
