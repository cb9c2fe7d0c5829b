"""Where everything that is logged goes: structlog, and what libraries log with `logging`."""

import atexit
import logging
import os
import sys
from collections.abc import MutableMapping
from typing import Any, Final

from exporter.log.rendering import headed, json_line, printable
from exporter.log.writer import FLUSH_TIMEOUT, LineWriter

# structlog imports rich where it is installed, for tracebacks that are not used here: 5 MiB and 30 ms in each sidecar.
if "rich" not in sys.modules:
    sys.modules["rich"] = None  # type: ignore[assignment]
import structlog

if sys.modules.get("rich") is None:
    del sys.modules["rich"]

_STDERR: Final = 2


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
            headed,
            structlog.processors.format_exc_info,
            *((printable, _console_renderer(terminal)) if console else (json_line,)),
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


def _console_renderer(colors: bool) -> structlog.dev.ConsoleRenderer:
    return structlog.dev.ConsoleRenderer(
        colors=colors, sort_keys=False, exception_formatter=structlog.dev.plain_traceback
    )


def tell(level: str, line: MutableMapping[str, Any]) -> None:
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
