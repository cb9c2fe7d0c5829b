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

from benchmarks import (
    captures,
    crowd,
    dashboards,
    insights,
    machine,
    meter,
    peers,
    probes,
    relays,
    rules,
    scrapes,
    stalls,
    webhooks,
)
from benchmarks.bench import ENVOY, HAPROXY, NGINX, TAP, WEBSOCKETS, Bench, Effort
from benchmarks.goals import bounds
from benchmarks.load import LoadError
from benchmarks.processes import Cores, Starter, StartError, ahead_of_others, on_core
from benchmarks.programs import Programs
from benchmarks.report import Table, render, render_bounds

QUICK: Final = Effort(rounds=2, seconds=0.3, idle_connections=500, stopped_readers=100, starts=3)


def frames(bench: Bench) -> list[Table]:
    with on_core(bench.programs.cores.measured):
        return [meter.measure(bench.effort.rounds, bench.effort.seconds / 5)]


SCENARIOS: Final[dict[str, Callable[[Bench], list[Table]]]] = {
    "meter": frames,
    "insights": insights.insights,
    "messages": relays.messages,
    "connections": relays.connections,
    "latency": relays.latency,
    "captures": captures.captures,
    "captured-latency": captures.captured_latency,
    "idle": crowd.idle,
    "stopped": crowd.stopped_readers,
    "scrapes": scrapes.scrapes,
    "start": relays.start,
    "webhook": webhooks.webhook,
    "stalls": stalls.stalls,
    "probes": probes.probes,
    "dashboards": dashboards.dashboards,
    "rules": rules.rules,
}

WAITING: Final = ("latency", "captured-latency", "scrapes", "start", "dashboards")
"""Scenarios that measure time, not CPU: others on the same cores would be measured with them."""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, help=f"rounds of each measurement (default {Effort.rounds})")
    parser.add_argument("--only", action="append", choices=SCENARIOS, help="measure this alone; may be repeated")
    parser.add_argument("--quick", action="store_true", help="a look in a minute, too short to rely on")
    found = parser.parse_args()
    if found.rounds is not None and found.rounds < 1:
        parser.error("--rounds must be at least 1")
    return found


def present(programs: Programs) -> dict[str, Starter]:
    """The tap and those of its peers that are there; says which are not."""
    starters: dict[str, Starter] = {TAP: programs.tap}
    for name, program, starter in (
        (NGINX, peers.nginx_program(), programs.nginx),
        (HAPROXY, peers.haproxy_program(), programs.haproxy),
        (ENVOY, peers.envoy_program(), programs.envoy),
    ):
        if program is None:
            print(f"{name} is missing: measured without it", file=sys.stderr)
        else:
            starters[name] = starter
    return starters | {WEBSOCKETS: programs.reoriginate}


def affordable(effort: Effort) -> Effort:
    """`effort` with as many connections as the limit of open files, taken whole, allows: a relay needs two for each."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    most = hard // 2 - 200
    return replace(
        effort,
        idle_connections=min(effort.idle_connections, most),
        stopped_readers=min(effort.stopped_readers, most),
    )


def run(wanted: list[str], effort: Effort) -> None:
    cores = Cores.take()
    print(machine.describe(cores), end="\n\n", flush=True)
    tables: dict[str, Table] = {}
    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="websocket-exporter-benchmarks-"))
        programs = Programs(cores, Path(directory))
        bench = Bench(programs, affordable(effort), stack.enter_context(programs.echo()), present(programs))
        for name in wanted:
            with ahead_of_others(bench.echo.pid) if name in WAITING else contextlib.nullcontext():
                for table in SCENARIOS[name](bench):
                    tables[table.title] = table
                    print(render(table), end="\n\n", flush=True)
    print(render_bounds(bounds(effort), tables))


def main() -> int:
    options = arguments()
    effort = QUICK if options.quick else Effort()
    if options.rounds is not None:
        effort = replace(effort, rounds=options.rounds)
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
    print(f"this took {time.monotonic() - begin:.0f} s; {machine.load()} at the end")
    return 0


if __name__ == "__main__":
    sys.exit(main())
