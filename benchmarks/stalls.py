"""How long one turn of the webhook's event loop takes at most, when a megabyte is made to be slow."""

import asyncio
import base64
import json
import socket
import time
from collections.abc import Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import Final

import uvloop

from benchmarks import posting
from benchmarks.bench import Bench
from benchmarks.load import LoadError
from benchmarks.processes import on_core
from benchmarks.report import Table
from exporter.closecodes import Vocabulary
from exporter.config import Address
from exporter.events import Event
from exporter.sources.webhook import MemoryBook, Rules, Webhook
from exporter.web.errors import ErrorAnswers
from exporter.web.listener import listen
from exporter.web.webhook import LIMITS, MAX_BODY, RateLimit, Reception, build

TITLE: Final = "webhook: longest turn of the loop, ms"
COLUMN: Final = "CPU"
LONGEST: Final = "longest of all"
SECRETS: Final = (b"k" * 32, b"l" * 32)

STRUCTURED: Final = "application/cloudevents+json"
BATCHED: Final = "application/cloudevents-batch+json"


@dataclass(frozen=True)
class Slow:
    """A body that takes long for its size, `signed` with no known key, or in chunks of so many bytes."""

    body: bytes
    content_type: str = posting.JSON
    chunk: int | None = None
    signed: bool = False
    trailers: bytes = b""

    @property
    def headers(self) -> Mapping[str, str]:
        """Those of its signature, which is of this moment: an old one is refused before anything is worked out."""
        return _SIGNED | {"webhook-timestamp": str(int(time.time()))} if self.signed else {}

    @property
    def request(self) -> bytes:
        """The whole request, whose connection ends with the answer."""
        headers = {"Host": "benchmark.test", "Content-Type": self.content_type, "Connection": "close", **self.headers}
        if self.chunk is None:
            headers["Content-Length"] = str(len(self.body))
        else:
            headers["Transfer-Encoding"] = "chunked"
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        return f"POST /api/v1/closes HTTP/1.1\r\n{head}\r\n".encode() + self._on_the_wire()

    def _on_the_wire(self) -> bytes:
        if self.chunk is None:
            return self.body
        pieces = (self.body[start : start + self.chunk] for start in range(0, len(self.body), self.chunk))
        return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n%b\r\n" % self.trailers


def _filled(start: bytes, again: bytes, end: bytes, size: int = MAX_BODY, separator: bytes = b"") -> bytes:
    """As often `again` as has room between start and end."""
    times = (size - len(start) - len(end)) // (len(again) + len(separator))
    return start + separator.join([again] * times) + end


def _times(events: int, event: bytes) -> bytes:
    return b"[%b]" % b",".join([event] * events)


_LONG_EVENT: Final = b'{"code":1000,"reason":"%b"}'
_AGAIN: Final = b',"time":"2026-01-01T00:00:00.123456+01:00"'
_ENVELOPE: Final = b'{"specversion":"1.0","type":"t","source":"s","id":"1",%b"data":{"code":1000}}'
_SIGNED: Final = {
    "webhook-id": "1",
    "webhook-signature": "v1," + base64.b64encode(bytes(32)).decode(),
}


def _extended(size: int) -> bytes:
    """A CloudEvent with extensions, of which there may be any number."""
    event = _ENVELOPE % b""
    return _ENVELOPE % (b'"a":1,' * ((size - len(event)) // 6))


SLOW: Final[Mapping[str, Slow]] = {
    "1,000 events": Slow(f"[{','.join(map(posting.event, range(1000)))}]".encode()),
    "1,000 events of 1 KiB": Slow(_times(1000, _LONG_EVENT % (b"x" * 1000))),
    "1,000 events of 1 KiB, NDJSON": Slow(b"\n".join([_LONG_EVENT % (b"x" * 1000)] * 1000), posting.NDJSON),
    "1,000 events with many escapes": Slow(_times(1000, _LONG_EVENT % (b"\\u0041" * 160))),
    "1,000 events with fields repeated": Slow(_times(1000, b'{"code":1000%b}' % (_AGAIN * 23))),
    "1,000 events with one id": Slow(_times(1000, b'{"code":1000,"id":"a"}')),
    "1,000 events with long ids": Slow(
        f"[{','.join(json.dumps({'code': 1000, 'id': f'{number:0256}'}) for number in range(1000))}]".encode()
    ),
    "1,000 refused messages": Slow(
        b"".join(
            b'{"code":1009,"message_size":%d,"direction":"client_to_server"}\n' % (number * 1111)
            for number in range(1000)
        ),
        posting.NDJSON,
    ),
    "1,000 bad events": Slow(_times(1000, b'{"code":"x"}')),
    "1,000 bad lines": Slow(b'{"code":"x"}\n' * 1000, posting.NDJSON),
    "empty events": Slow(_filled(b"[", b"{}", b"]", separator=b",")),
    "an event of nested arrays": Slow(_filled(b"[[", b"[]", b"]]", separator=b",")),
    "events of nested arrays": Slow(_times(15, _filled(b"[", b"[]", b"]", 65_000, b","))),
    "events of nested arrays, with escapes": Slow(_times(15, _filled(b'["\\u0041",', b"[]", b"]", 65_000, b","))),
    "events of half surrogate pairs": Slow(_times(16, _filled(b'"', b"\\ud800", b'"', 65_000))),
    "an event of fields repeated": Slow(_filled(b'{"code":1000', _AGAIN, b"}", 255 * 1024)),
    "an event of fields repeated, with braces": Slow(
        _filled(b'{"code":1000', _AGAIN * 800 + b',"reason":"{"', b"}", 255 * 1024)
    ),
    "commas": Slow(b"[" + b"," * (MAX_BODY - 2) + b"]"),
    "blanks": Slow(b" " * MAX_BODY),
    "blank lines": Slow(b"\n" * MAX_BODY, posting.NDJSON),
    "events among blank lines": Slow(_filled(b"", b'{"code":1000}' + b"\n" * 1100, b""), posting.NDJSON),
    "bad lines among good ones": Slow(
        _filled(b"", (b'{"code":1000%b}\n' % (_AGAIN * 20)) * 30 + b"x\n", b""), posting.NDJSON
    ),
    "a line of 1 MiB": Slow(b"x" * MAX_BODY, posting.NDJSON),
    "a CloudEvent with extensions": Slow(_extended(MAX_BODY), STRUCTURED),
    "CloudEvents with extensions": Slow(_times(15, _extended(65_000)), BATCHED),
    "chunks of a byte": Slow(b" " * 180_000, chunk=1),
    "chunks of 512 bytes": Slow(_times(1000, _LONG_EVENT % (b"x" * 1000)), chunk=512),
    "trailers": Slow(b"", chunk=1, trailers=b"a:b\r\n" * 50_000),
    f"a signature and {len(SECRETS)} secrets": Slow(_times(1000, _LONG_EVENT % (b"x" * 1000)), signed=True),
}


class Nobody:
    """Wants to know nothing."""

    def emit(self, event: Event) -> None:
        """Forget it."""


def stalls(bench: Bench) -> list[Table]:
    """Each body in turn, as often as there are rounds."""
    rows: dict[str, dict[str, list[float]]] = {}
    with on_core(bench.programs.cores.measured):
        for _ in range(bench.effort.rounds):
            turns = {name: uvloop.run(_longest_turn(slow)) for name, slow in SLOW.items()}
            for name, longest in {**turns, LONGEST: max(turns.values())}.items():
                rows.setdefault(name, {COLUMN: []})[COLUMN].append(longest * 1e3)
    return [Table(TITLE, rows)]


async def _longest_turn(slow: Slow) -> float:
    """Seconds of CPU that one turn of the loop took at most, from the connection to the end of the answer."""
    targets = {posting.TARGET: Vocabulary(frozenset(), frozenset())}
    webhook = Webhook(Rules(targets, posting.TARGET), MemoryBook(3600.0, time.time), Nobody())
    reception = Reception(
        take=webhook.take,
        take_at_once=webhook.take_at_once,
        durable=False,
        secrets=lambda: SECRETS if slow.signed else (),
        rate=RateLimit(0, time.monotonic),
        accepts=lambda: True,
        now=time.time,
    )
    answers = ErrorAnswers(lambda _: None)
    app, prompt = build(reception, answers)
    listener = await listen(app, Address("127.0.0.1", 0), answers, LIMITS, prompt=prompt)
    longest = 0.0
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(listener.run())
        asked = tasks.create_task(asyncio.to_thread(_ask, listener.address.port, slow.request))
        while not asked.done():
            began = time.thread_time()
            await asyncio.sleep(0)
            longest = max(longest, time.thread_time() - began)
        listener.stop()
    if not asked.result().startswith(b"HTTP/1.1 "):
        raise LoadError("a slow request was not answered")
    return longest


def _ask(port: int, request: bytes) -> bytes:
    """The beginning of the answer."""
    with closing(socket.create_connection(("127.0.0.1", port), timeout=10)) as connection:
        with suppress(ConnectionError):  # it is answered before all of it is there
            connection.sendall(request)
        return connection.recv(1024)
