"""The composition root: builds everything, owns the event loop's tasks, the signals and the order of shutdown."""

import asyncio
import contextlib
import gc
import resource
import secrets
import signal
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import TYPE_CHECKING, Final

import structlog
from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector

from exporter import log
from exporter.closecodes import Vocabulary
from exporter.config import Address, Config, ConfigError, Target, diff_for_reload, warnings
from exporter.events import Direction, Origin, Standing
from exporter.insight.insight import TICKS_PER_SECOND, Insight, Rules, Sizes
from exporter.listening import StartError
from exporter.metrics.bounds import most_series_of
from exporter.metrics.recorder import Recorder
from exporter.sinks import Sinks
from exporter.sources.tap import REFUSED_AT_ONCE, Capacity, Tap
from exporter.status import Status, StatusBook
from exporter.targets import Targets
from exporter.web.app import Hooks, build
from exporter.web.doors import OPEN, Doors, authenticates, confides, load_doors, risks
from exporter.web.errors import ERROR_TOKENS, LISTENER_TOKENS, ErrorAnswers
from exporter.web.listener import Listener, listen
from exporter.web.protocol import CONNECTIONS, LINGERING
from exporter.web.scrapers import Scrapers
from exporter.wire.client_key import Hasher

if TYPE_CHECKING:
    from exporter.sources.capture import Captures
    from exporter.sources.probe import Probes
    from exporter.web.gate import Gate
    from exporter.webhook import WebhookService

SECRET_BYTES: Final = 16
"""Of the secret by which client keys are hashed; it is this process's own, and forgotten with it."""

LAG_INTERVAL: Final = 0.25
"""Seconds between two measurements of how late the event loop wakes up."""

MOST_CONNECTIONS: Final = 1_000_000
"""Where the limit of open files is no limit."""

RESERVED_DESCRIPTORS: Final = REFUSED_AT_ONCE + 64
"""Open files that are not for relaying: clients being refused, and 64 for the rest."""

LISTENER_DESCRIPTORS: Final = CONNECTIONS + LINGERING
"""Open files that each listener of the exporter's own may need on top."""

_log = structlog.get_logger(__name__)


def affordable_connections(listeners: int = 1, probes: int = 0) -> int:
    """How many connections the limit of open files allows, at two descriptors each. At least half are for relaying.

    `listeners` is the number of the exporter's own, `probes` that of the connections it makes by itself.
    """
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    reserved = RESERVED_DESCRIPTORS + listeners * LISTENER_DESCRIPTORS + probes
    return min((soft - min(reserved, soft // 2)) // 2, MOST_CONNECTIONS)


def affordable_refusals() -> int:
    """How many clients may be told at a time that they are too many: where descriptors are few, an eighth of them."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return min(soft // 8, REFUSED_AT_ONCE)


def raise_descriptor_limit() -> None:
    """Take as many open files as the system grants without asking."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, hard), hard))


class App:
    """One running exporter. `open` it, `run` it, `stop` it; `load` reads the configuration anew, for reloads.

    `addresses` has where each tap listens, in the order of the configuration; `web_address` where metrics are;
    `webhook` is None where none is configured.
    """

    def __init__(
        self,
        config: Config,
        load: Callable[[], Config] | None = None,
        doors: Doors = OPEN,
        insight_rules: Rules | None = None,
        capture_sockets: Sequence[tuple[int, int]] | None = None,
    ) -> None:
        self._config = config
        self._load = load
        self._doors = doors
        self._reloading = asyncio.Lock()
        self._stopping = asyncio.Event()
        self._draining = False
        self._scraped = asyncio.Event()
        self._scrapers = Scrapers()
        self._error_tokens = LISTENER_TOKENS if config.webhook_listen_address is None else ERROR_TOKENS
        self.recorder = Recorder(time.time, self._error_tokens)
        self._sinks = Sinks(time.monotonic, self.recorder.event_dropped)
        self._insight = Insight(self._sinks, time.monotonic, insight_rules)
        self.book = StatusBook(time.time)
        for listener in (self.recorder, log.EventLog(), self.book, self._insight):
            self._sinks.add(listener)
        self.recorder.standings = self._standings
        self._hasher = Hasher(secrets.token_bytes(SECRET_BYTES))
        self._targets = Targets("tap", self._tapped(config), self.recorder, self._hasher)
        self._captured = Targets("capture", self._captured_by(config), self.recorder, self._hasher)
        self._derive(config)
        listeners = 1 if config.webhook_listen_address is None else 2
        capacity = Capacity(
            config.limits_connections or affordable_connections(listeners, len(config.probe)), affordable_refusals()
        )
        self.recorder.connection_limit(capacity.limit)
        self._taps = [
            Tap(
                tap,
                self._targets.chooser(tap.target),
                origin=Origin("tap", tap.target),
                sink=self._sinks,
                clock=time.monotonic,
                capacity=capacity,
                connect_timeout=config.limits_connect_timeout,
            )
            for tap in config.tap
        ]
        self.recorder.buffered_bytes = lambda: sum(tap.buffered for tap in self._taps)
        self.recorder.dropped_lines = log.dropped_lines
        self._gate = _gate(doors)
        self._listener: Listener | None = None
        self.webhook = self._webhook()
        self._captures = self._configured_captures(capture_sockets)
        self._probes = self._configured_probes()
        self.addresses: list[Address] = []
        self.web_address = config.web_listen_address

    async def open(self) -> None:
        """Listen everywhere. Raises StartError, and then nothing is left open."""
        try:
            if self.webhook is not None:
                await self.webhook.open()
            if self._captures is not None:
                self._captures.open()
            for tap in self._taps:
                self.addresses.append(await tap.open())
            self._listener = await self._open_web()
        except StartError:
            if self._captures is not None:
                self._captures.close()
            for tap in self._taps:
                tap.stop_accepting()
            if self.webhook is not None:
                self.webhook.stop()
                self.webhook.close()
            raise
        self.web_address = self._listener.address

    async def run(self) -> None:
        """Serve until `stop`, then drain. Cancelling it ends everything at once."""
        if self._listener is None:
            raise RuntimeError("run needs open first")
        for tap, address in zip(self._config.tap, self.addresses, strict=True):
            _log.info("tap listening", address=str(address), upstream=str(tap.upstream), target=tap.target)
        _log.info(
            "metrics listening",
            address=str(self.web_address),
            path=self._config.web_telemetry_path,
            most_series=self._most_series(),
        )
        self._warn((*warnings(self._config), *risks(self._doors)))
        try:
            await self._serve(self._listener)
        finally:
            if self.webhook is not None:
                self.webhook.close()

    async def _serve(self, listener: Listener) -> None:
        async with asyncio.TaskGroup() as tasks:
            serving = tasks.create_task(listener.run())
            others = [tasks.create_task(tap.run()) for tap in self._taps]
            others.append(tasks.create_task(self._measure_lag()))
            others.append(tasks.create_task(self._tick()))
            if self._captures is not None:
                others.append(tasks.create_task(self._captures.run()))
            if self._probes is not None:
                others.append(tasks.create_task(self._probes.run()))
            reporting = tasks.create_task(self.webhook.run()) if self.webhook is not None else None
            await self._stopping.wait()
            await self._drain()
            for task in others:
                task.cancel()
            if self.webhook is not None and reporting is not None:
                self.webhook.stop()
                await reporting
            listener.stop()
            await serving

    def stop(self) -> None:
        """Have `run` drain and return."""
        self._draining = True
        self._insight.drain()
        self._stopping.set()

    async def reload(self) -> bool:
        """Read the configuration anew; a faulty one changes nothing. Returns whether it was sound."""
        if self._load is None:
            return False
        async with self._reloading:
            try:
                plan = diff_for_reload(self._config, await asyncio.to_thread(self._load))
                doors = await asyncio.to_thread(load_doors, plan.config)
                if self.webhook is not None:
                    await self.webhook.update(plan.config, doors.secrets)
            except ConfigError as error:
                _log.error("configuration not reloaded, the old one stays in force", faults=list(error.faults))
                self.recorder.config_loaded(successful=False)
                return False
            except Exception as fault:
                _log.error("configuration not reloaded, the old one stays in force", exc_info=fault)
                self.recorder.config_loaded(successful=False)
                return False
            self._config = plan.config
            self._targets.update(self._tapped(plan.config))
            self._captured.update(self._captured_by(plan.config))
            self._derive(plan.config)
            if self._probes is not None:
                self._probes.update(self._watch_probed())
            log.set_level(plan.config.log_level)
            self.recorder.config_loaded(successful=True)
            _log.info("configuration reloaded")
            self._warn((*plan.kept, *warnings(plan.config)))
            return True

    def _most_series(self) -> int:
        """The series of the catalogue that there can be, however peers behave; process_* and python_* come on top."""
        vocabularies = (target.vocabulary() for target in self._config.targets.values())
        sources = (
            bool(self._taps) + (self.webhook is not None) + (self._probes is not None) + (self._captures is not None)
        )
        builds = sum(len(target.client_builds) for target in self._config.targets.values())
        return most_series_of(vocabularies, len(self._error_tokens), sources, builds)

    def _warn(self, sentences: Sequence[str]) -> None:
        for sentence in sentences:
            _log.warning(sentence)

    def _webhook(self) -> "WebhookService | None":
        address = self._config.webhook_listen_address
        if address is None:
            return None
        from exporter.webhook import WebhookService

        return WebhookService(
            address, self._config, self._doors.secrets, self._gate, self.recorder, self._sinks, self._hasher
        )

    def _standings(self) -> Mapping[Origin, Standing]:
        """What the insights make of each origin now; a fault of theirs costs no scrape."""
        return self._sinks.guarded(self._insight.standings, {})

    def _derive(self, config: Config) -> None:
        """Have the insights watch whatever clients can be recognised of."""
        for name, watch in (*self._targets.watches.items(), *self._captured.watches.items()):
            sizes: dict[Direction, Sizes] = {
                "client_to_server": watch.client_to_server,
                "server_to_client": watch.server_to_client,
            }
            self._insight.watch(watch.origin, config.targets[name].build, sizes)
        if config.webhook_listen_address is not None:
            for name, target in config.targets.items():
                self._insight.watch(Origin("webhook", name), target.build)

    def _tapped(self, config: Config) -> Mapping[str, Target]:
        return config.targets if config.tap else {}

    def _captured_by(self, config: Config) -> Mapping[str, Target]:
        return config.targets if config.capture else {}

    def _configured_captures(self, sockets: Sequence[tuple[int, int]] | None) -> "Captures | None":
        if not self._config.capture:
            return None
        from exporter.sources.capture import Captures

        captures = Captures(self._config, self._captured.chooser, self._sinks, sockets)
        self.recorder.captures = captures.standing
        return captures

    def _configured_probes(self) -> "Probes | None":
        if not self._config.probe:
            return None
        from exporter.sources.probe import Probes

        return Probes(self._config.probe, self._watch_probed(), self._sinks)

    def _watch_probed(self) -> dict[str, Vocabulary]:
        """Let the series of everything that is probed exist. Returns the labels of its close codes, by target."""
        vocabularies = {probe.target: self._config.targets[probe.target].vocabulary() for probe in self._config.probe}
        for target, vocabulary in vocabularies.items():
            self.recorder.watch_probe(target, vocabulary)
        return vocabularies

    async def _open_web(self) -> Listener:
        registry = CollectorRegistry()
        registry.register(self.recorder)
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        GCCollector(registry=registry)
        answers = ErrorAnswers(self.recorder.http_error)
        hooks = Hooks(
            collect=registry.collect,
            scraped=self._note_scrape,
            clock=time.monotonic,
            ready=lambda: not self._draining,
            reload=self.reload if self._config.web_enable_lifecycle else None,
            status=self._status if confides(self._doors, self._config.web_listen_address) else None,
            status_local_only=not authenticates(self._doors.web),
        )
        app = build(hooks, answers, self._config.web_telemetry_path)
        return await listen(app, self._config.web_listen_address, answers, gate=self._gate)

    def _status(self) -> Status:
        return self.book.snapshot(self.recorder)

    def _note_scrape(self, client: str, snapshot_taken_at: float) -> None:
        self._scrapers.answered(client, snapshot_taken_at)
        self._scraped.set()

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(1 / TICKS_PER_SECOND)
            self._sinks.guarded(self._insight.tick, None)

    async def _measure_lag(self) -> None:
        while True:
            due = time.monotonic() + LAG_INTERVAL
            await asyncio.sleep(LAG_INTERVAL)
            self.recorder.loop_woke(max(0.0, time.monotonic() - due))

    async def _drain(self) -> None:
        """Use the grace, as much of it as is needed: let connections end, then let every scraper see that they did."""
        grace = self._config.shutdown_grace
        _log.info("shutting down", grace_seconds=grace)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace):
                async with asyncio.TaskGroup() as tasks:
                    for tap in self._taps:
                        tasks.create_task(tap.drain(grace))
                    if self.webhook is not None:
                        tasks.create_task(self.webhook.drain(grace))
                    if self._probes is not None:
                        tasks.create_task(self._probes.stop())
                if self._captures is not None:
                    self._captures.catch_up()
                self._sinks.guarded(self._insight.finish, None)
                while self._scrapers.waiting_for(self._sinks.last_event):
                    self._scraped.clear()
                    await self._scraped.wait()
        _log.info("shut down")


def run(
    config: Config,
    load: Callable[[], Config],
    doors: Doors = OPEN,
    capture_sockets: Sequence[tuple[int, int]] | None = None,
) -> int:
    """Run the exporter until SIGTERM or SIGINT, and return the process's exit status; a second one ends it at once.

    SIGHUP reloads the configuration with `load`. `capture_sockets` are the descriptors that each capture has already,
    if they have. Raises StartError.
    """

    async def serve() -> None:
        raise_descriptor_limit()
        app = App(config, load, doors, capture_sockets=capture_sockets)
        await app.open()
        # What exists by now stays; a full collection that visits it would stop the relay for 10 ms and more.
        gc.collect()
        gc.freeze()
        stop_on_signals(app.stop)
        async with asyncio.TaskGroup() as tasks:
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, lambda: tasks.create_task(app.reload()))
            await app.run()

    return run_loop(serve)


def _gate(doors: Doors) -> "Gate | None":
    if doors.web is None:
        return None
    from exporter.web.gate import Gate

    return Gate(doors.web)


def stop_on_signals(stop: Callable[[], None]) -> None:
    """Call `stop` at the first SIGTERM or SIGINT; cancel the current task at the second."""
    task = asyncio.current_task()
    answers = iter((stop,))

    def signalled() -> None:
        answer = next(answers, None)
        if answer is not None:
            answer()
        elif task is not None:
            task.cancel()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, signalled)


def run_loop(main: Callable[[], Coroutine[None, None, None]]) -> int:
    """Run `main` on uvloop where there is one. Returns the exit status: 1 if it was cancelled, else 0."""
    new_loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
    with contextlib.suppress(ImportError):
        from uvloop import new_event_loop as new_loop
    with asyncio.Runner(loop_factory=new_loop) as runner:
        try:
            runner.run(main())
        except (asyncio.CancelledError, KeyboardInterrupt):
            return 1
    return 0
