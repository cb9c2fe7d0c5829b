"""What held probes cost, and how often a service that closes whoever connects sees a probe.

Run by itself this module is the service: it prints its port, then a line for each connection that it closes at once.
"""

import asyncio
import contextlib
import os
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from websockets.asyncio.server import ServerConnection, serve

from benchmarks.bench import Bench, Effort
from benchmarks.exposition import scrape, total
from benchmarks.load import LoadError
from benchmarks.processes import Process, free_port, healthy, poll, spawned, wait_for
from benchmarks.programs import SILENT
from benchmarks.report import Table

HELD: Final = "held probes"
MEMORY: Final = "RSS of each, series included, KiB"
CONNECTION: Final = "  of it the connection"
CPU: Final = "CPU of the exporter, % of a core"
ALONE: Final = "  with a single probe"
RTT: Final = "round trip, median bucket, ms"

RESTRAINT: Final = "a service that accepts and closes at once"
FIRST_MINUTE: Final = "connections in a probe's first minute"
BUSIEST: Final = "  of the busiest of them"

COUNT: Final = 1000
INTERVAL: Final = 20.0
"""Seconds between two Pings of a probe: the default."""

FLAPPING: Final = 20
MINUTE: Final = 60.0
SETTLE: Final = 3.0
START: Final = 30.0
REFUSED: Final = "/refused/"
COLUMN: Final = "probe"


def probes(bench: Bench) -> list[Table]:
    """A thousand probes of one service, held and pinged at the default interval; beside them, for a minute, some of a
    service that closes them at once.
    """
    count = min(COUNT, bench.effort.idle_connections)
    quick = bench.effort.seconds < Effort.seconds
    with tempfile.TemporaryDirectory(prefix="websocket-exporter-probes-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        service, log = stack.enter_context(_service(bench, folder))
        if not quick:
            refused = [f"ws://127.0.0.1:{service}{REFUSED}{number}" for number in range(FLAPPING)]
            stack.enter_context(_exporter(bench, folder / "flapping", refused))
        began = time.monotonic()
        tables = [_held(bench, folder, service, count)]
        if not quick:
            # The last of them began within 5 s.
            time.sleep(max(0.0, began + MINUTE + 10.0 - time.monotonic()))
            tables.append(_restraint(log))
    return tables


def _held(bench: Bench, folder: Path, service: int, count: int) -> Table:
    url = f"ws://127.0.0.1:{service}/held"
    nobody = f"ws://127.0.0.1:{free_port()}/"
    print(f"{count:,} held probes", file=sys.stderr, flush=True)
    with _exporter(bench, folder / "alone", [url]) as alone:
        time.sleep(SETTLE + 5.0)
        rss_alone, cpu_alone = alone.rss(), _cpu(alone, 5.0)
    with _exporter(bench, folder / "waiting", [nobody] * count) as waiting:
        time.sleep(SETTLE + 5.0)
        rss_waiting = waiting.rss()
    with _exporter(bench, folder / "held", [url] * count) as held:
        poll(lambda: held.descriptors() >= count, START, "not all probes are connected")
        time.sleep(SETTLE)
        rss_held, cpu_held = held.rss(), _cpu(held, INTERVAL)
        samples = scrape(held.web_port)
        if (up := total(samples, "websocket_probe_up")) != count:
            raise LoadError(f"{up:.0f} of {count} probes are up")
        buckets: dict[float, float] = defaultdict(float)
        for sample in samples:
            if sample.name == "websocket_ping_rtt_seconds_bucket":
                buckets[float(sample.labels["le"])] += sample.value
        median = next(bound for bound in sorted(buckets) if buckets[bound] * 2 >= max(buckets.values()))
    rows = {
        MEMORY: (rss_held - rss_alone) / (count - 1) / 1024,
        CONNECTION: (rss_held - rss_waiting) / count / 1024,
        CPU: cpu_held,
        ALONE: cpu_alone,
        RTT: median * 1000,
    }
    return Table(HELD, {label: {COLUMN: [value]} for label, value in rows.items()})


def _cpu(process: Process, seconds: float) -> float:
    """Per cent of a core over this time."""
    before = process.cpu_ns()
    time.sleep(seconds)
    return (process.cpu_ns() - before) / seconds / 1e7


def _restraint(log: Path) -> Table:
    moments: dict[str, list[float]] = defaultdict(list)
    for line in log.read_text().splitlines()[1:]:
        path, moment = line.split()
        moments[path].append(float(moment))
    counts = [float(sum(moment - times[0] < MINUTE for moment in times)) for times in moments.values()]
    if len(counts) != FLAPPING:
        raise LoadError(f"{len(counts)} of {FLAPPING} probes came")
    return Table(RESTRAINT, {FIRST_MINUTE: {COLUMN: counts}, BUSIEST: {COLUMN: [max(counts)]}})


@contextlib.contextmanager
def _service(bench: Bench, folder: Path) -> Iterator[tuple[int, Path]]:
    """The service, on the core of the load: its port, and where it tells of connections that it closed."""
    log = folder / "service.log"
    with spawned([sys.executable, "-m", "benchmarks.probes"], bench.programs.cores.load, log) as child:
        wait_for(child, lambda: log.read_bytes().endswith(b"\n"), log)
        yield int(log.read_text().split()[0]), log


@contextlib.contextmanager
def _exporter(bench: Bench, folder: Path, urls: list[str]) -> Iterator[Process]:
    """The exporter with a probe for each of `urls`, on the measured core."""
    folder.mkdir()
    lines = [f"  - {{target: probe-{number}, url: '{url}'}}\n" for number, url in enumerate(urls)]
    (folder / "config.yaml").write_text("probe:\n" + "".join(lines))
    web_port, log = free_port(), folder / "exporter.log"
    command = [
        *(sys.executable, "-m", "exporter", f"--config.file={folder / 'config.yaml'}"),
        *(f"--web.listen-address=127.0.0.1:{web_port}", "--shutdown.grace=5s", *SILENT),
    ]
    env = {name: value for name, value in os.environ.items() if not name.startswith("WEBSOCKET_EXPORTER_")}
    with spawned(command, bench.programs.cores.measured, log, env) as child:
        wait_for(child, lambda: healthy(web_port), log)
        yield Process(child.pid, 0, web_port)


async def _hold_or_close(connection: ServerConnection) -> None:
    path = connection.request.path if connection.request else ""
    if path.startswith(REFUSED):
        print(path, time.monotonic(), flush=True)
        await connection.close(1011)
    else:
        await connection.wait_closed()


async def _serve() -> None:
    async with serve(_hold_or_close, "127.0.0.1", 0, compression=None, ping_interval=None, backlog=4096) as server:
        print(next(iter(server.sockets)).getsockname()[1], flush=True)
        await asyncio.Future()


if __name__ == "__main__":
    asyncio.run(_serve())
