"""What the alert rules cost a Prometheus: one evaluation of all of them over many services with a day of data.

The series are those of a real exporter's page, repeated for every replica. Those that rules read have a sample every
15 s for as long as rules look back on them, all others one every 4 minutes; what rules record and look back on for
longer has a day, or an hour, of its own. It is a quiet day: no exporter begins, nothing fails, and what rules record
only then is not there.

Everything is where a Prometheus has it that runs for long: the last half an hour in memory, what is older in blocks. A
Prometheus reads blocks that were written for it, but what is in its memory it must have scraped: so the last half an
hour is served to it, with times, by pages of some services each.
"""

import contextlib
import io
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, NamedTuple, TextIO

import yaml
from prometheus_client.samples import Sample

from benchmarks import exposition
from benchmarks.bench import Bench, Effort
from benchmarks.peers import prometheus_program, promtool_program
from benchmarks.processes import ROOT, StartError, ahead_of_others, free_port, get, poll, wait_for
from benchmarks.report import Table

TITLE: Final = "alert rules, one evaluation, ms"
ALL: Final = "all groups"
COLUMN: Final = "Prometheus"

SERVICES: Final = 200
REPLICAS: Final = 3
QUICK_SERVICES: Final = 10

JOB: Final = "service-0"
SHARED: Final = ("__name__", "job")
SCRAPE: Final = 15
SELDOM: Final = 240
RAW: Final = 35 * 60
"""Seconds: rules look back on exporters' own series for 30 minutes, and a little. They are what is in memory."""
DAY: Final = 86400
HOUR: Final = 3900
LEAD: Final = 0.7
"""Seconds that it takes to write the blocks of one service and to have its page scraped, about."""

SERVED: Final = 5
"""Services on one page."""

APPENDED: Final = "prometheus_tsdb_head_samples_appended_total"

RULES: Final = ROOT / "alerts/rules/websocket.yaml"
SELDOM_RECORDED: Final = re.compile(r"vector\(time\(\)\) % (\d+) >= \d+")
"""`X unless on () vector(time()) % 300 >= 60` is there for 60 s of 300."""


def rules(bench: Bench) -> list[Table]:
    """A Prometheus on both cores, with nothing else to do. What others on them take is not measured."""
    promtool, prometheus = promtool_program(), prometheus_program()
    if promtool is None or prometheus is None:
        print("prometheus is missing: rules are not measured", file=sys.stderr)
        return []
    services = QUICK_SERVICES if bench.effort.seconds < Effort.seconds else SERVICES
    with bench.programs.tap(bench.echo.port) as exporter:
        page = exposition.scrape(exporter.web_port)
    with tempfile.TemporaryDirectory(prefix="websocket-exporter-rules-") as name:
        folder = Path(name)
        recorded = _recorded_of_one(promtool, prometheus, page)
        print(f"rules: writing {services * REPLICAS * len(page):,} series", file=sys.stderr, flush=True)
        jobs = [f"service-{number}" for number in range(services)]
        # Until it is all there: Prometheus takes nothing that is older than its blocks, and forgets in 5 minutes.
        end = int(time.time() + LEAD * services)
        older = _recorded(recorded, jobs, end, range(end - DAY, end - RAW))
        written = _create_blocks(folder, promtool, "24h", older)
        pages = [
            itertools.chain(_raw(page, some, end), _recorded(recorded, some, end, range(end - RAW, end + 1)))
            for some in (jobs[first : first + SERVED] for first in range(0, services, SERVED))
        ]
        with _serving(pages) as served, _prometheus(prometheus, folder, _scraping(served, len(pages))) as running:
            poll(lambda: len(served.samples) == len(pages), 240.0, "not all pages are scraped", interval=1.0)
            written += sum(served.samples)
            poll(lambda: running.appended() >= sum(served.samples), 240.0, "not all samples are taken", interval=1.0)
            time.sleep(max(0.0, end - time.time()))
            running.evaluate(RULES.read_text(encoding="utf-8"))
            print(f"rules: evaluated {bench.effort.rounds} times", file=sys.stderr, flush=True)
            rows = _evaluations(running.port, bench.effort.rounds)
    table = {f"group {group}": {COLUMN: samples} for group, samples in rows.items()}
    every = [sum(samples) for samples in zip(*rows.values(), strict=True)]
    facts = {
        "services": services,
        "replicas": REPLICAS,
        "series of each": len(page),
        "samples, millions": written / 1e6,
    }
    return [
        Table(TITLE, {ALL: {COLUMN: every}, **table, **{label: {COLUMN: [value]} for label, value in facts.items()}})
    ]


def _documents() -> list[Mapping[str, Any]]:
    """Every rule, with its group's interval."""
    groups: list[Mapping[str, Any]] = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    return [{**rule, "interval": group["interval"]} for group in groups for rule in group["rules"]]


def _recorded_of_one(promtool: str, prometheus: str, page: list[Sample]) -> list[Mapping[str, str]]:
    """The labels of every series that the rules record of one service, as a Prometheus tells that evaluates them."""
    hasty = re.sub(r"(interval:) \w+", r"\1 1s", RULES.read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory(prefix="websocket-exporter-rules-") as name:
        folder = Path(name)
        _create_blocks(folder, promtool, "2h", _raw(page, [JOB], int(time.time())))
        with _prometheus(prometheus, folder) as running:
            running.evaluate(SELDOM_RECORDED.sub("vector(1) < 1", hasty))
            _evaluations(running.port, 3)
            found = _answer(running.port, "/api/v1/query?query=%7B__name__%3D~%22.%2B%3A.%2B%3A.%2B%22%7D")["result"]
    return [series["metric"] for series in found]


def _create_blocks(folder: Path, promtool: str, duration: str, lines: Iterable[tuple[str, list[str]]]) -> int:
    """Write series into blocks of at most this duration; returns how many samples."""
    file = folder / "series.om"
    with file.open("w", encoding="utf-8") as out:
        samples = _put(out, lines)
    command = [promtool, "tsdb", "create-blocks-from", f"--max-block-duration={duration}", "--quiet"]
    subprocess.run([*command, "openmetrics", file, folder / "data"], check=True, stdout=subprocess.DEVNULL)
    file.unlink()
    return samples


def _put(out: TextIO, series: Iterable[tuple[str, list[str]]]) -> int:
    count = 0
    for name, samples in series:
        out.write(name + name.join(samples))
        count += len(samples)
    out.write("# EOF\n")
    return count


def _samples(times: range, growth: int) -> list[str]:
    """Values and times of one series, as lines without its name."""
    return [f" {growth * number} {at}\n" for number, at in enumerate(times)]


def _raw(page: list[Sample], jobs: list[str], now: int) -> Iterator[tuple[str, list[str]]]:
    read = set(re.findall(r"websocket_\w+", " ".join(rule["expr"] for rule in _documents())))
    often, seldom = (
        [_samples(range(now - RAW, now + 1, step), growth) for growth in range(2)] for step in (SCRAPE, SELDOM)
    )
    scrapes = range(now - RAW, now + 1, SCRAPE)
    created, up = ([f" {value} {at}\n" for at in scrapes] for value in (now - DAY, 1))
    for job in jobs:
        for replica in range(REPLICAS):
            place = f'job="{job}",instance="{_instance(replica)}"'
            yield f"up{{{place}}}", up
            for sample in page:
                labels = "".join(f",{label}={json.dumps(value)}" for label, value in sample.labels.items())
                growing = (often if sample.name in read else seldom)[_growth(sample)]
                is_start = sample.name == "websocket_target_created_timestamp_seconds"
                yield f"{sample.name}{{{place}{labels}}}", created if is_start else growing


def _instance(replica: int) -> str:
    return f"10.0.0.{replica}:11009"


def _growth(sample: Sample) -> int:
    """How much a series grows in 15 s on a quiet day: people come and go, and send messages; nothing fails."""
    quiet = sample.labels.get("status", "101") == "101" and sample.labels.get("code", "1001") == "1001"
    polite = sample.labels.get("initiator", "client") == "client" and "_exporter_" not in sample.name
    return 1 if quiet and polite and re.search("handshakes_total|closes_total|_bucket$|_count$", sample.name) else 0


def _recorded(
    recorded: list[Mapping[str, str]], jobs: list[str], now: int, within: range
) -> Iterator[tuple[str, list[str]]]:
    """What rules look back on, as often as it is recorded: for a day where one does, else for an hour."""
    documents = _documents()
    text = " ".join(rule["expr"] for rule in documents)
    recording = {rule["record"]: rule for rule in documents if "record" in rule}
    for name, group in itertools.groupby(sorted(recorded, key=_name), _name):
        spans = [_seconds(*span) for span in re.findall(rf"{re.escape(name)}\[(\d+)([smhd])[]:]", text)]
        if not spans:
            continue
        seldom = SELDOM_RECORDED.search(recording[name]["expr"])
        step = int(seldom[1]) if seldom else _seconds(*re.findall(r"\d+|[smhd]", recording[name]["interval"]))
        times = range(now - (DAY if max(spans) > HOUR else HOUR), now + 1, step)
        samples = [line for at, line in zip(times, _samples(times, 0), strict=True) if at in within]
        for series in group:
            own = "".join(f",{label}={json.dumps(value)}" for label, value in series.items() if label not in SHARED)
            for job in jobs:
                yield f'{name}{{job="{job}"{own}}}', samples


def _name(series: Mapping[str, str]) -> str:
    return series["__name__"]


def _seconds(count: str, unit: str) -> int:
    return int(count) * {"s": 1, "m": 60, "h": 3600, "d": DAY}[unit]


class Served(NamedTuple):
    """The port of pages that are served, and how many samples those had that were."""

    port: int
    samples: list[int]


@contextlib.contextmanager
def _serving(pages: Sequence[Iterable[tuple[str, list[str]]]]) -> Iterator[Served]:
    """Serve the series of each page, `/0` and so on, once; after that it is empty."""
    samples: list[int] = []
    left = [*map(iter, pages)]

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "application/openmetrics-text; version=1.0.0; charset=utf-8")
            self.end_headers()
            page = io.StringIO()
            count = _put(page, left[int(self.path[1:])])
            self.wfile.write(page.getvalue().encode())
            if count:
                samples.append(count)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield Served(server.server_port, samples)
        finally:
            server.shutdown()


def _scraping(served: Served, pages: int) -> Mapping[str, Any]:
    """The configuration to scrape these pages by."""
    page = {"honor_labels": True, "scrape_interval": "1m", "scrape_timeout": "1m"}
    targets = [{"targets": [f"127.0.0.1:{served.port}"]}]
    return {
        "scrape_configs": [
            {"job_name": f"page {number}", "metrics_path": f"/{number}", "static_configs": targets, **page}
            for number in range(pages)
        ]
    }


@dataclass(frozen=True)
class Running:
    """A Prometheus."""

    port: int
    child: subprocess.Popen[bytes]
    rules: Path

    def appended(self) -> float:
        """How many samples it has taken into its memory."""
        return exposition.total(exposition.scrape(self.port), APPENDED)

    def evaluate(self, rules: str) -> None:
        """Have it evaluate these from now on."""
        self.rules.write_text(rules, encoding="utf-8")
        self.child.send_signal(signal.SIGHUP)


@contextlib.contextmanager
def _prometheus(program: str, folder: Path, config: Mapping[str, Any] = MappingProxyType({})) -> Iterator[Running]:
    """A Prometheus of this configuration that evaluates nothing yet, ahead of other programs."""
    port = free_port()
    file, rules = folder / "prometheus.yml", folder / "rules.yaml"
    rules.write_text("groups: []\n", encoding="utf-8")
    file.write_text(json.dumps({"rule_files": [str(rules)], **config}), encoding="utf-8")  # JSON is YAML
    log = folder / "prometheus.log"
    flags = [f"--storage.tsdb.path={folder / 'data'}", "--storage.tsdb.retention.time=10d"]
    command = [program, f"--config.file={file}", *flags, f"--web.listen-address=127.0.0.1:{port}"]
    with log.open("wb") as output, ahead_of_others():
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        os.sched_setaffinity(child.pid, set(range(os.cpu_count() or 1)))
        wait_for(child, lambda: get(port, "/-/ready").startswith(b"HTTP/1.1 200 "), log)
        yield Running(port, child, rules)
    finally:
        child.terminate()
        child.wait()


def _evaluations(port: int, rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each group's evaluations, the first of which reads everything for the first time."""
    found: dict[str, dict[str, float]] = {}

    def enough() -> bool:
        for group in _groups(port):
            if group["evaluationTime"]:
                found.setdefault(group["name"], {})[group["lastEvaluation"]] = 1000 * group["evaluationTime"]
        return len(found) == 3 and min(len(times) for times in found.values()) > 1 and _most(found) > rounds

    poll(enough, 240.0, "the rules are not evaluated often enough", interval=1.0)
    if unhealthy := [rule["name"] for group in _groups(port) for rule in group["rules"] if rule["health"] != "ok"]:
        raise StartError(f"rules that Prometheus cannot evaluate: {', '.join(unhealthy)}")
    later = {name: list(times.values())[1:] for name, times in found.items()}
    # Groups of a minute are evaluated less often: their last stands for the rounds without.
    return {
        name: [samples[min(number, len(samples) - 1)] for number in range(rounds)] for name, samples in later.items()
    }


def _most(found: Mapping[str, Mapping[str, float]]) -> int:
    return max(len(times) for times in found.values())


def _groups(port: int) -> list[Mapping[str, Any]]:
    return list(_answer(port, "/api/v1/rules")["groups"])


def _answer(port: int, path: str) -> Mapping[str, Any]:
    """The data that Prometheus answers a GET with."""
    found: Mapping[str, Any] = json.loads(_unchunked(get(port, path).partition(b"\r\n\r\n")[2]))["data"]
    return found


def _unchunked(body: bytes) -> bytes:
    """The body without what HTTP/1.1 puts around its chunks, if it has any."""
    if body[:1] == b"{":
        return body
    whole = b""
    while body:
        size, _, body = body.partition(b"\r\n")
        length = int(size or b"0", 16)
        whole, body = whole + body[:length], body[length + 2 :]
        if not length:
            break
    return whole
