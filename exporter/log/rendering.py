"""Fields become a line, JSON or for people, whatever peers wrote into them: no text forges a line or moves a cursor."""

import json
import time
from collections.abc import Mapping, MutableMapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final

import msgspec


def headed(_: object, level: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
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


def json_line(_: object, __: str, event: MutableMapping[str, Any]) -> str:
    """The line as one JSON object in ASCII, whatever is in it."""
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


def printable(_: object, __: str, event: MutableMapping[str, Any]) -> Mapping[str, Any]:
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
