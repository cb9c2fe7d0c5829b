"""`python -m benchmarks`: measures, and prints medians, ratios and what must be reached. See docs/performance.md."""

import argparse
import contextlib
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

from benchmarks import machine, meter, relays
from benchmarks.load import LoadError
from benchmarks.processes import Cores, Programs, StartError, nginx_program, on_core
from benchmarks.relays import Bench, Effort
from benchmarks.report import Bound, Table, render, render_bounds

QUICK: Final = Effort(rounds=2, seconds=0.3, idle_connections=500, starts=3)

BOUNDS: Final = (
    Bound(f"tap CPU per relayed message, {relays.SMALL}", relays.MESSAGES, relays.SMALL, 2.0, "x nginx", relays.NGINX),
    Bound(f"tap CPU per relayed message, {relays.LARGE}", relays.MESSAGES, relays.LARGE, 0.4, "x nginx", relays.NGINX),
    Bound(f"frame meter, {meter.BURST_64}", meter.TITLE, meter.BURST_64, 200, "ns"),
    Bound("RSS per idle connection", relays.MEMORY, relays.IDLE, 6, "KiB"),
    Bound("from start to listening (about 0.4 s)", relays.START, relays.UNTIL_LISTENING, 450, "ms"),
    Bound("RSS at rest", relays.START, relays.RESTING, 45, "MiB"),
)


def frames(bench: Bench) -> list[Table]:
    with on_core(bench.programs.cores.measured):
        return [meter.measure(bench.effort.rounds, bench.effort.seconds / 5)]


SCENARIOS: Final[dict[str, Callable[[Bench], list[Table]]]] = {
    "meter": frames,
    "messages": relays.messages,
    "connections": relays.connections,
    "latency": relays.latency,
    "idle": relays.idle,
    "start": relays.start,
}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, help=f"rounds of each measurement (default {Effort.rounds})")
    parser.add_argument("--only", action="append", choices=SCENARIOS, help="measure this alone; may be repeated")
    parser.add_argument("--quick", action="store_true", help="a look in half a minute, too short to rely on")
    found = parser.parse_args()
    if found.rounds is not None and found.rounds < 1:
        parser.error("--rounds must be at least 1")
    return found


def run(wanted: list[str], effort: Effort) -> None:
    cores = Cores.take()
    print(machine.describe(cores), end="\n\n", flush=True)
    tables: dict[str, Table] = {}
    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="websocket-exporter-benchmarks-"))
        programs = Programs(cores, Path(directory))
        starters = {relays.TAP: programs.tap, relays.NGINX: programs.nginx, relays.WEBSOCKETS: programs.reoriginate}
        if nginx_program() is None:
            print("nginx is missing: measured without it", file=sys.stderr)
            del starters[relays.NGINX]
        bench = Bench(programs, effort, stack.enter_context(programs.echo()), starters)
        for name in wanted:
            for table in SCENARIOS[name](bench):
                tables[table.title] = table
                print(render(table), end="\n\n", flush=True)
    print(render_bounds(BOUNDS, tables))


def main() -> int:
    options = arguments()
    effort = QUICK if options.quick else Effort()
    if options.rounds is not None:
        effort = replace(effort, rounds=options.rounds)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    # A relay needs two descriptors for each connection.
    effort = replace(effort, idle_connections=min(effort.idle_connections, hard // 2 - 200))
    # A terminated run ends its processes too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    begin = time.monotonic()
    try:
        run(options.only or list(SCENARIOS), effort)
    except (StartError, LoadError, ConnectionError) as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    print("\nfigures are medians (least-greatest) of the rounds; ratios are taken within each round")
    print(f"this took {time.monotonic() - begin:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
