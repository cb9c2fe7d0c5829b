"""Requests that report events, as templates in which only a number changes, and wrk, which sends them."""

import contextlib
import re
import resource
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from http.client import HTTPConnection
from itertools import count
from typing import Final

from benchmarks import peers
from benchmarks.load import TIMEOUT, LoadError
from benchmarks.processes import ROOT, StartError

MARK: Final = "@"
"""Stands in a template for the number of the request, which is written with 16 digits."""

SCRIPT: Final = ROOT / "benchmarks/wrk/requests.lua"
JSON: Final = "application/json"
NDJSON: Final = "application/x-ndjson"
TARGET: Final = "benchmark"

CODES: Final = (1001, 1000, 1006, 1001, 1011, 1009, 4000)
INITIATORS: Final = ("server", "client", "unknown")

# Ahead: the exporter refuses events from before the time since when it remembers all ids. In memory it remembers
# 200,000, and they come so fast here that this time is a fraction of a second ago.
_TIME: Final = datetime.now(UTC) + timedelta(days=1)

_runs: Final[Iterator[int]] = count(1)
_TOLD: Final = re.compile(r"(\d+) answered in (\d+) us, (\d+) refused, (\d+) broken")


@dataclass(frozen=True)
class Post:
    """A request that reports `events` events, each time others: their ids contain its number."""

    method: str
    path: str
    content_type: str
    body: str
    events: int = 1

    @cached_property
    def template(self) -> bytes:
        """The whole request, with MARK where its number belongs."""
        return (
            f"{self.method} {self.path} HTTP/1.1\r\nHost: benchmark.test\r\nContent-Type: {self.content_type}\r\n"
            f"Content-Length: {len(_numbered(self.body, 0, 0))}\r\n\r\n{self.body}"
        ).encode()


def _numbered(text: str, run: int, number: int) -> str:
    return text.replace(MARK, f"{run:06}{number:010}")


def event(number: int) -> str:
    """One close as a service would report it, with an id as long as a UUID; `number` tells those of a request apart."""
    return (
        f'{{"id":"close-event-{MARK}-{number:07}","target":"{TARGET}","time":"{_TIME:%Y-%m-%dT%H:%M:%SZ}",'
        f'"code":{CODES[number % len(CODES)]},"reason":"going away","initiator":"{INITIATORS[number % 3]}",'
        f'"duration":{1.7 ** (number % 17):.3f}}}'
    )


def single(path: str) -> Post:
    """One event as a JSON object."""
    return Post("POST", path, JSON, event(0))


def batch(path: str, events: int) -> Post:
    """Events as a JSON array."""
    return Post("POST", path, JSON, f"[{','.join(map(event, range(events)))}]", events)


def ndjson(path: str, events: int) -> Post:
    """Events as lines."""
    return Post("POST", path, NDJSON, "".join(f"{event(number)}\n" for number in range(events)), events)


def push() -> Post:
    """One sample in the text format, in a group of the Pushgateway; the number is its value."""
    return Post(
        "PUT",
        f"/metrics/job/{TARGET}/instance/1",
        "text/plain; version=0.0.4",
        f'# TYPE websocket_closes_total counter\nwebsocket_closes_total{{code="1001"}} {MARK}\n',
    )


@dataclass(frozen=True)
class Driven:
    """What wrk has done: requests answered, seconds, and the share of its core that it used."""

    answered: int
    seconds: float
    busy: float


def drive(port: int, post: Post, connections: int, seconds: int) -> Driven:
    """Closed loop by wrk with keep-alive, for whole seconds. Raises LoadError unless every answer is a success."""
    program = peers.wrk_program()
    if program is None:
        raise StartError("wrk is missing")
    command = [
        *(program, "--threads", "1", "--connections", str(connections), "--duration", f"{seconds}s"),
        *("--timeout", f"{TIMEOUT:.0f}s", "--script", str(SCRIPT), f"http://127.0.0.1:{port}", "--", str(next(_runs))),
    ]
    before = _cpu_of_children()
    ran = subprocess.run(command, input=post.template, capture_output=True, check=False)
    told = _TOLD.search(ran.stdout.decode())
    if told is None:
        raise LoadError(f"wrk failed: {ran.stderr.decode().strip() or ran.stdout.decode().strip()}")
    answered, taken, refused, broken = map(int, told.groups())
    if not answered or refused or broken:
        raise LoadError(f"of {answered} requests {refused} were refused, {broken} connections broke")
    return Driven(answered, taken / 1e6, (_cpu_of_children() - before) / (taken / 1e6))


def _cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def send(port: int, post: Post, requests: int) -> None:
    """Send so many requests one after another. Raises LoadError unless each is answered by a success."""
    run = next(_runs)
    with contextlib.closing(HTTPConnection("127.0.0.1", port, timeout=TIMEOUT)) as connection:
        for number in range(requests):
            body = _numbered(post.body, run, number)
            connection.request(post.method, post.path, body, {"Content-Type": post.content_type})
            response = connection.getresponse()
            answer = response.read()
            if response.status >= 300:
                raise LoadError(f"a request was answered by {response.status}: {answer[:200]!r}")
