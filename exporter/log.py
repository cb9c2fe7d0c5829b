"""Logs: one event is one line on standard error, whatever peers wrote into it, and logging never holds up the relay.

JSON lines, or for people on a terminal the console format. Standard error, as other exporters do; standard output
belongs to what a command was asked to print. Lines are handed to a thread that writes them: a blocked pipe costs
lines, which are counted, never time.
"""

import atexit
import json
import logging
import os
import select
import sys
import threading
import time
from collections.abc import Mapping, MutableMapping
from contextlib import suppress
from datetime import UTC, datetime
from functools import lru_cache
from queue import Empty, SimpleQueue
from typing import Any, Final

import msgspec

from exporter.closecodes import REGISTRY
from exporter.events import (
    BuildReturns,
    Closed,
    Listener,
    MassClose,
    MassCloseEnded,
    MessageRefused,
    Peer,
    StreamUnparsed,
)

# structlog imports rich where it is installed, for tracebacks that are not used here: 5 MiB and 30 ms in each sidecar.
if "rich" not in sys.modules:
    sys.modules["rich"] = None  # type: ignore[assignment]
import structlog

if sys.modules.get("rich") is None:
    del sys.modules["rich"]

CAPACITY: Final = 10_000
"""Lines that wait for the pipe at most; further ones are dropped and counted."""
FLUSH_TIMEOUT: Final = 1.0
"""Seconds that the end of the process may be delayed by a pipe that nobody reads."""
REST: Final = 0.02
"""Seconds from one write to the next, unless lines are many: waking the thread for each line of a storm would cost the
relay more than the line itself, because the two take turns."""

_STDERR: Final = 2
_BATCH_BYTES: Final = 1 << 16
_MAX_REASON_BYTES: Final = 123  # RFC 6455 section 5.5: 125 bytes of payload, two of them the code
_MAX_PEER_TEXT: Final = 512
_NAMES: Final = {str(code): entry.name for code, entry in REGISTRY.items()}


class LineWriter:
    """Writes lines to a file descriptor from a thread of its own. `write` never blocks and never raises.

    It writes to a duplicate of the descriptor: if that were closed and its number reused for a socket,
    the log would be written into somebody's connection.
    """

    def __init__(self, fd: int, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._queue: SimpleQueue[bytes | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._dropped = 0
        self._closed = threading.Event()
        try:
            self._fd = os.dup(fd)
        except OSError:
            self._fd = -1  # closed from the start: every write fails with EBADF and is counted
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    @property
    def dropped(self) -> int:
        """Lines lost so far, because the pipe was full for too long, closed or broken."""
        return self._dropped

    def write(self, line: str) -> None:
        """Queue one line, without its newline."""
        if self._closed.is_set() or self._queue.qsize() >= self._capacity:
            self._drop(1)
        else:
            self._queue.put(line.encode("utf-8", "backslashreplace") + b"\n")

    def close(self, timeout: float = FLUSH_TIMEOUT) -> None:
        """Write what waits, for `timeout` seconds at most; later lines are dropped."""
        self._closed.set()
        self._queue.put(None)
        self._thread.join(timeout)

    def _run(self) -> None:
        ending = False
        while not ending:
            lines, ending = self._take()
            if not self._write_all(b"".join(lines)):
                self._drop(len(lines))
            if self._queue.empty():
                self._closed.wait(REST)
        with suppress(OSError):
            os.close(self._fd)

    def _take(self) -> tuple[list[bytes], bool]:
        """Lines to be written at once, waiting for the first; and whether they are the last."""
        lines: list[bytes] = []
        size = 0
        line = self._queue.get()
        with suppress(Empty):
            while line is not None:
                lines.append(line)
                size += len(line)
                if size >= _BATCH_BYTES:
                    return lines, False
                line = self._queue.get_nowait()
            return lines, True
        return lines, False

    def _write_all(self, data: bytes) -> bool:
        while data:
            try:
                data = data[os.write(self._fd, data) :]
            except BlockingIOError:  # somebody else made the shared terminal or pipe non-blocking
                poll = select.poll()
                poll.register(self._fd, select.POLLOUT)
                poll.poll()
            except OSError:
                return False
        return True

    def _drop(self, lines: int) -> None:
        with self._lock:
            self._dropped += lines


class _Output:
    """What structlog takes for the logger underneath: every level writes the rendered line."""

    def __init__(self, writer: LineWriter) -> None:
        self.debug = self.info = self.warning = self.error = self.critical = self.msg = writer.write


class _Bridge(logging.Handler):
    """Brings what libraries log with `logging` into the same lines."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = record.getMessage()
        except (TypeError, ValueError, KeyError):  # arguments that do not fit their format string
            text = str(record.msg)
        level = max(logging.DEBUG, record.levelno // 10 * 10)  # structlog knows no levels in between
        structlog.get_logger().log(
            min(level, logging.CRITICAL), text, logger=record.name, exc_info=record.exc_info or None
        )


_LEVELS: Final = {"info": logging.INFO, "warning": logging.WARNING}

_writer: LineWriter | None = None
_level = logging.NOTSET
_dropped_before = 0


def configure(level: str, format: str, fd: int = _STDERR) -> None:
    """Send everything that is logged to `fd`, as JSON lines, or as text where `format` says so or fd is a terminal.

    `level` is debug, info, warning or error, `format` auto, json or console.
    May be called again; what was queued before is flushed first.
    """
    global _writer
    shutdown()
    terminal = os.isatty(fd)
    console = format == "console" or (format == "auto" and terminal)
    _writer = LineWriter(fd)
    output = _Output(_writer)
    structlog.configure(
        processors=[
            _headed,
            structlog.processors.format_exc_info,
            *((_printable, _console_renderer(terminal)) if console else (_json_line,)),
        ],
        logger_factory=lambda *_: output,
        cache_logger_on_first_use=False,  # loggers must follow set_level and capture_logs
    )
    root = logging.getLogger()
    for handler in [handler for handler in root.handlers if isinstance(handler, _Bridge)]:
        root.removeHandler(handler)
    root.addHandler(_Bridge())
    logging.captureWarnings(True)
    set_level(level)


def set_level(level: str) -> None:
    """Change the least severity that is logged, from now on, for all loggers."""
    global _level
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(level))
    root = logging.getLogger()
    root.setLevel(level.upper())
    _level = root.level


def dropped_lines() -> int:
    """Lines that were lost since the process started, because the log's pipe was blocked or closed."""
    return _dropped_before + (_writer.dropped if _writer else 0)


def shutdown(timeout: float = FLUSH_TIMEOUT) -> None:
    """Write what is queued, for `timeout` seconds at most; later lines are dropped. Done at exit by itself."""
    global _writer, _dropped_before
    if _writer is not None:
        _writer.close(timeout)
        _dropped_before += _writer.dropped
        _writer = None


atexit.register(shutdown)


def _tell(level: str, line: MutableMapping[str, Any]) -> None:
    """Log a line, with its `event`, as any logger does.

    A logger would hand on what is in the line as keyword arguments, four times: of a close that takes as long as
    everything else.
    """
    if _LEVELS[level] < _level:
        return
    configured = structlog.get_config()
    rendered: Any = line
    try:
        for process in configured["processors"]:
            rendered = process(None, level, rendered)
    except structlog.DropEvent:
        return
    getattr(configured["logger_factory"](), level)(rendered)


class EventLog(Listener):
    """Writes one canonical line for each WebSocket that ended, each mass close and each refused message.

    And a warning for each fault of ours.
    """

    def __init__(self) -> None:
        self.handlers = {
            Closed: self._closed,
            MessageRefused: self._message_refused,
            MassCloseEnded: self._mass_close_ended,
            StreamUnparsed: self._stream_unparsed,
        }

    def _closed(self, event: Closed) -> None:
        _tell("info", _close_line(event))

    def _message_refused(self, event: MessageRefused) -> None:
        _tell("info", _refused_line(event))

    def _mass_close_ended(self, event: MassCloseEnded) -> None:
        over = event.mass_close
        _tell("info" if over.verdict == "healthy" or over.draining else "warning", _mass_close_line(over))

    def _stream_unparsed(self, event: StreamUnparsed) -> None:
        if event.reason == "internal_error":
            _tell("warning", _fault_line(event))


def _close_line(event: Closed) -> dict[str, Any]:
    peer = event.peer if max(map(len, event.peer)) <= _MAX_PEER_TEXT else Peer(*map(_cut, event.peer))
    line = {
        "event": "websocket closed",
        "source": event.origin.source,
        "target": event.origin.target,
        "code": event.code,
        "name": _NAMES.get(event.code, ""),
        "class": event.close_class,
        "initiator": event.initiator,
        "reason": _cut_bytes(event.reason, _MAX_REASON_BYTES),
        "duration": round(event.duration, 3),
        "client_to_server_bytes": event.client_to_server.bytes,
        "client_to_server_messages": event.client_to_server.messages,
        "client_to_server_largest_message": event.client_to_server.largest_message,
        "server_to_client_bytes": event.server_to_client.bytes,
        "server_to_client_messages": event.server_to_client.messages,
        "server_to_client_largest_message": event.server_to_client.largest_message,
        "client": peer.address,
        "host": peer.host,
        "path": peer.path,
        "user_agent": peer.user_agent,
        "subprotocol": peer.subprotocol,
    }
    if event.transport_end is not None:
        line["transport_end_side"] = event.transport_end.side
        line["transport_end_kind"] = event.transport_end.kind
    if event.attached:
        line["attached"] = True
    if event.wire_code is not None and str(event.wire_code) != event.code:
        line["wire_code"] = event.wire_code
    return line


def _refused_line(event: MessageRefused) -> dict[str, Any]:
    return {
        "event": "message refused",
        "source": event.origin.source,
        "target": event.origin.target,
        "direction": event.direction,
        "evidence": event.evidence,
        "size": event.size or None,
        "compressed": event.compressed,
        "repeated": event.repeated,
    }


def _fault_line(event: StreamUnparsed) -> dict[str, Any]:
    return {
        "event": "internal fault: a connection is relayed unread from here on",
        "source": event.origin.source,
        "target": event.origin.target,
    }


def _mass_close_line(over: MassClose) -> dict[str, Any]:
    return {
        "event": "mass close",
        "source": over.origin.source,
        "target": over.origin.target,
        "verdict": over.verdict,
        "lost": over.lost,
        "lost_by": {f"{code} {initiator}": number for (code, initiator), number in over.lost_by.items()},
        "duration": round(over.lasted, 3),
        "gap": None if over.gap is None else round(over.gap, 3),
        "tried": over.tried,
        "returned": over.returns,
        "returned_within": dict(over.returned),
        "back": over.back,
        "busiest_second": over.busiest_second,
        "answered": over.answered,
        "rejected": over.rejected,
        "refused_by_exporter": over.refused,
        "answered_per_returned": round(over.answered / over.returns, 2) if over.returns else None,
        "draining": over.draining,
        "builds": [_build_fields(build) for build in over.builds],
    }


def _build_fields(build: BuildReturns) -> dict[str, Any]:
    return {
        "build": build.build,
        "lost": build.lost,
        "returned": build.returned,
        "share_within_1s": round(build.at_once / build.delays, 3) if build.delays else None,
        "median_delay": None if build.median_delay is None else round(build.median_delay, 3),
        "rhythm": build.rhythm,
    }


def _cut(text: str) -> str:
    return text if len(text) <= _MAX_PEER_TEXT else text[: _MAX_PEER_TEXT - 3] + "..."


def _cut_bytes(text: str, limit: int) -> str:
    if len(text) <= limit // 4:  # no character takes more than four bytes
        return text
    data = text.encode("utf-8", "surrogatepass")
    return text if len(data) <= limit else data[:limit].decode("utf-8", "ignore")


def _headed(_: object, level: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Begin the line with what is common to all: when, how severe, and what."""
    second, nanosecond = divmod(time.time_ns(), 1_000_000_000)
    timestamp = f"{_date_and_time(second)}.{nanosecond // 1000:06d}Z"
    return {"timestamp": timestamp, "level": level, "event": event["event"], **event}


@lru_cache(maxsize=1)  # the lines of a storm share their second
def _date_and_time(second: int) -> str:
    """A Unix time in UTC (RFC 3339), without its offset."""
    return datetime.fromtimestamp(second, UTC).isoformat()[: -len("+00:00")]


# `ensure_ascii` escapes C1 controls, line separators, bidi controls and lone surrogates with everything else that is
# not ASCII; the writer then has nothing to decide. DEL is the one control character that JSON leaves as it is. msgspec
# is several times as fast, but escapes nothing beyond ASCII, and a null of its may have been a NaN.
_quick: Final = msgspec.json.Encoder()
_encoder: Final = json.JSONEncoder(separators=(",", ":"), allow_nan=False, default=repr)


def _json_line(_: object, __: str, event: MutableMapping[str, Any]) -> str:
    try:
        quick = _quick.encode(event)
    except Exception:
        quick = b"null"
    if quick.isascii() and b"null" not in quick and b"\x7f" not in quick:
        return quick.decode()
    try:
        line = _encoder.encode(event)
    except Exception:  # NaN, keys that are not text, circles, depth, a repr() that raises: never the relay's problem
        line = _encoder.encode({_shown(key): _shown(value) for key, value in event.items()})
    return line.replace("\x7f", "\\u007f")


def _console_renderer(colors: bool) -> structlog.dev.ConsoleRenderer:
    return structlog.dev.ConsoleRenderer(
        colors=colors, sort_keys=False, exception_formatter=structlog.dev.plain_traceback
    )


def _printable(_: object, __: str, event: MutableMapping[str, Any]) -> Mapping[str, Any]:
    """Escape what could forge a line or confuse a terminal: ConsoleRenderer prints text without spaces raw."""
    traceback = event.pop("exception", None)
    shown = {_escaped(_shown(key)): _escaped(_shown(value)) for key, value in event.items()}
    if traceback is not None:
        shown["exception"] = "\n".join(f"    {_escaped(line)}" for line in str(traceback).split("\n"))
    return shown


def _shown(value: object) -> str:
    try:
        return value if isinstance(value, str) else repr(value)
    except Exception:
        return f"<{type(value).__name__}>"


def _escaped(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
