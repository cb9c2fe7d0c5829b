"""What one value looks like: each parser takes YAML's value or a flag's text.

All of them raise ValueError with the sentence that the operator reads.
"""

import ipaddress
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal, get_args

import msgspec

from exporter.closecodes import legal_on_wire

LOG_LEVELS: Final = ("debug", "info", "warning", "error")
LOG_FORMATS: Final = ("auto", "json", "console")

CaptureMode = Literal["full", "lifecycle"]
"""What is captured: closes and message sizes, or closes alone."""

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_UNIX_PREFIX: Final = "unix:"
_MAX_UNIX_PATH: Final = 107  # sun_path holds 108 bytes, the last of them NUL: unix(7)
_MAX_PAYLOAD: Final = (1 << 63) - 1  # RFC 6455 section 5.2
_SIZE_UNITS: Final = {"": 1, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_MAX_DURATION: Final = 24 * 3600.0
_MAX_WINDOW: Final = 30 * 24 * 3600.0
_MAX_CONNECTIONS: Final = 1_000_000
_MAX_RATE: Final = 1_000_000
_MAX_IDS: Final = 100_000_000
_MIN_RING: Final = 1 << 20
_MAX_RING: Final = 1 << 30
_MAX_DESCRIPTOR: Final = 1_000_000
_SHOWN: Final = 80


class Address(msgspec.Struct, frozen=True):
    """A TCP address. An empty host stands for all interfaces, port 0 for one that the kernel chooses."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class KeyRule(msgspec.Struct, frozen=True):
    """By what returning clients are recognised; `name` is that of the header, cookie or query parameter."""

    kind: Literal["remote_addr", "forwarded", "header", "cookie", "query"] = "remote_addr"
    name: str = ""


class UnixPath(msgspec.Struct, frozen=True):
    """A Unix stream socket in the file system."""

    path: str

    def __str__(self) -> str:
        return _UNIX_PREFIX + self.path


def quoted(value: object) -> str:
    """A value as messages show it: one line of printable ASCII, about as wide as a terminal at most."""
    match value:
        case str():
            text = json.dumps(value if len(value) <= _SHOWN else value[: _SHOWN - 3] + "...")
            return text.replace("\x7f", "\\u007f")  # the one control character that JSON leaves alone
        case None:
            return "nothing"
        case bool():
            return str(value).lower()
        case dict():
            return "a mapping"
        case list():
            return "a list"
        case _:
            return str(value)


def parse_listen(value: object) -> Address:
    """`host:port`, `:port` or `[::1]:port`, with a port from 0 to 65535."""
    return _address(value, "host:port")


def parse_optional_listen(value: object) -> Address | None:
    """As `parse_listen`, or None for an empty text."""
    return None if value == "" else parse_listen(value)


def parse_upstream(value: object) -> Address | UnixPath:
    """`host:port`, `[::1]:port` or `unix:PATH`: something that can be dialled."""
    if isinstance(value, str) and value.startswith(_UNIX_PREFIX):
        return _unix_path(value)
    address = _address(value, "host:port or unix:PATH")
    if not address.host:
        raise ValueError(f"{quoted(value)} names no host to connect to")
    if not address.port:
        raise ValueError(f"{quoted(value)} names no port to connect to")
    return address


def _address(value: object, form: str) -> Address:
    text = _text(value)
    parts = re.fullmatch(r"(?:\[([^\[\]]*)\]|([^:\[\]]*)):([^:\[\]]*)", text)
    if parts is None:
        if text.count(":") > 1 and re.fullmatch(r"[0-9A-Fa-f:.]+", text):
            raise ValueError(f"{quoted(value)} needs brackets around its IPv6 address, as in [::1]:8080")
        raise ValueError(f"{quoted(value)} is not {form}")
    ipv6, name, port = parts.groups()
    if not re.fullmatch(r"[0-9]{1,5}", port) or int(port) > 65535:
        raise ValueError(f"{quoted(value)} is not a port between 0 and 65535")
    if ipv6 is not None:
        if not _parses(ipaddress.IPv6Address, ipv6):
            raise ValueError(f"{quoted(value)} has no valid IPv6 address in its brackets")
        return Address(ipv6, int(port))
    if name and not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,252}", name):
        raise ValueError(f"{quoted(value)} is not {form}")
    if re.fullmatch(r"[0-9.]+", name) and not _parses(ipaddress.IPv4Address, name):
        raise ValueError(f"{quoted(value)} has no valid IPv4 address")
    return Address(name, int(port))


def _unix_path(text: str) -> UnixPath:
    path = text.removeprefix(_UNIX_PREFIX)
    if not path or "\0" in path:
        raise ValueError(f"{quoted(text)} names no path")
    if len(path.encode(errors="surrogateescape")) > _MAX_UNIX_PATH:
        raise ValueError(f"{quoted(text)} is longer than the {_MAX_UNIX_PATH} bytes of a Unix socket's path")
    return UnixPath(path)


def parse_target_name(value: object) -> str:
    """1 to 64 characters that need no quoting anywhere: the value becomes a label and part of messages."""
    name = _text_or_number(value)
    if not re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", name):
        raise ValueError(f"{quoted(value)} is not a target name (1 to 64 of A-Z a-z 0-9 _ . -)")
    return name


def parse_size(value: object) -> int:
    """Bytes: `512`, `16KiB`, `1MiB`, `1GiB`."""
    parts = re.fullmatch(r"([0-9]{1,19})(B|KiB|MiB|GiB|)", _text_or_number(value))
    if parts is None:
        raise ValueError(f"{quoted(value)} is not a size like 512, 16KiB, 1MiB or 1GiB")
    size = int(parts[1]) * _SIZE_UNITS[parts[2]]
    if not 1 <= size <= _MAX_PAYLOAD:
        raise ValueError(f"{quoted(value)} is not between 1 byte and the largest message of RFC 6455, 2^63-1 bytes")
    return size


def parse_ring_size(value: object) -> int:
    """Bytes: a size from 1 MiB to 1 GiB."""
    size = parse_size(value)
    if not _MIN_RING <= size <= _MAX_RING:
        raise ValueError(f"{quoted(value)} is not between {show_size(_MIN_RING)} and {show_size(_MAX_RING)}")
    return size


def show_size(size: int) -> str:
    """A size as it may be written, in the largest unit of which it is a multiple: `4MiB`."""
    unit = next(unit for unit, factor in reversed(_SIZE_UNITS.items()) if size % factor == 0)
    return f"{size // _SIZE_UNITS[unit]}{unit}"


def parse_duration(value: object) -> float:
    """Seconds: `25s`, `2m`, `500ms`, `1m30s` or `0`, up to 24 hours."""
    total = _duration(value)
    if total > _MAX_DURATION:
        raise ValueError(f"{quoted(value)} is longer than 24h")
    return total


def parse_window(value: object) -> float:
    """Seconds: a duration from one minute to 30 days."""
    total = _duration(value)
    if not 60 <= total <= _MAX_WINDOW:
        raise ValueError(f"{quoted(value)} is not between 1m and 720h")
    return total


def _duration(value: object) -> float:
    text = _text_or_number(value)
    parts = re.fullmatch(r"(?:([0-9]+)h)?(?:([0-9]+)m)?(?:([0-9]+)s)?(?:([0-9]+)ms)?|0", text[:40])
    if parts is None or not text:
        raise ValueError(f"{quoted(value)} is not a duration like 25s, 2m or 500ms")
    hours, minutes, seconds, milliseconds = (int(part or 0) for part in parts.groups())
    return hours * 3600 + minutes * 60 + seconds + milliseconds / 1000


def show_duration(seconds: float) -> str:
    """A duration as it may be written: `25s`, `0.5s` as `500ms`."""
    return f"{seconds:.0f}s" if seconds == round(seconds) else f"{seconds * 1000:.0f}ms"


def parse_timeout(value: object) -> float:
    """Seconds: a duration of at least 1 ms."""
    seconds = parse_duration(value)
    if not seconds:
        raise ValueError(f"{quoted(value)} is shorter than 1ms")
    return seconds


def parse_connections(value: object) -> int | None:
    """A number from 1 to a million, or None for `auto`."""
    text = _text_or_number(value)
    if text == "auto":
        return None
    if not re.fullmatch(r"[0-9]{1,7}", text) or not 1 <= int(text) <= _MAX_CONNECTIONS:
        raise ValueError(f"{quoted(value)} is neither auto nor a number between 1 and {_MAX_CONNECTIONS}")
    return int(text)


def parse_rate(value: object) -> int:
    """Events per second: a number from 1 to a million, or 0 for no limit."""
    return _number(value, 0, _MAX_RATE)


def parse_max_ids(value: object) -> int:
    """A number from a thousand to a hundred million."""
    return _number(value, 1000, _MAX_IDS)


def _number(value: object, least: int, most: int) -> int:
    text = _text_or_number(value)
    if not re.fullmatch(r"[0-9]{1,9}", text) or not least <= int(text) <= most:
        raise ValueError(f"{quoted(value)} is not a number between {least} and {most}")
    return int(text)


def parse_descriptor(value: object) -> int | None:
    """The number of an open file behind the standard streams, or None for an empty text."""
    return None if value == "" else _number(value, 3, _MAX_DESCRIPTOR)


def parse_interface(value: object) -> str:
    """A network interface's name, as the kernel takes it."""
    text = _text_or_number(value)
    if not re.fullmatch(r"[!-~]{1,15}", text) or re.search(r"[/:,]", text) or text in (".", ".."):
        raise ValueError(f"{quoted(value)} is not a network interface like eth0")
    return text


def parse_port(value: object) -> int:
    """A TCP port that something can listen on."""
    text = _text_or_number(value)
    if not re.fullmatch(r"[0-9]{1,5}", text) or not 1 <= int(text) <= 65535:
        raise ValueError(f"{quoted(value)} is not a port between 1 and 65535")
    return int(text)


def parse_capture_mode(value: object) -> str:
    """One of `CaptureMode`."""
    return _one_of(get_args(CaptureMode), value)


def parse_path(value: object) -> Path | None:
    """A file or folder, or None for an empty text."""
    if not isinstance(value, str) or "\0" in value:
        raise ValueError(f"{quoted(value)} is not a path")
    return Path(value) if value else None


def parse_source_address(value: object) -> str:
    """An IPv4 or IPv6 address to dial from, in its shortest spelling."""
    text = _text(value)
    if not _parses(ipaddress.ip_address, text):
        raise ValueError(f"{quoted(value)} is not an IP address")
    address = ipaddress.ip_address(text)
    of_a_link = address.version == 6 and (address.is_link_local or "%" in text)  # RFC 4007: needs an interface too
    if address.is_unspecified or address.is_multicast or of_a_link:
        raise ValueError(f"{quoted(value)} is unspecified, multicast or link-local: nothing can be dialled from it")
    return str(address)


def parse_network(value: object) -> Network:
    """An IPv4 or IPv6 network such as `10.0.0.0/8`, or one address."""
    text = _text(value)
    if not _parses(ipaddress.ip_interface, text):
        raise ValueError(f"{quoted(value)} is not an IP address or network like 10.0.0.0/8")
    network = ipaddress.ip_interface(text).network
    if not _parses(ipaddress.ip_network, text):
        raise ValueError(f"{quoted(value)} is an address within a network; that is {network}")
    return network


def parse_client_key(value: object) -> KeyRule:
    """`remote_addr`, `forwarded`, `header:NAME`, `cookie:NAME` or `query:NAME`."""
    text = _text(value)
    parts = re.fullmatch(r"(remote_addr|forwarded)|(header|cookie|query):([!#$%&'*+.^_`|~0-9A-Za-z-]{1,128})", text)
    if parts is None:
        raise ValueError(f"{quoted(value)} is not remote_addr, forwarded, header:NAME, cookie:NAME or query:NAME")
    return KeyRule(parts[1] or parts[2], parts[3] or "")  # type: ignore[arg-type]


def parse_client_build(value: object) -> str:
    """A pattern of user agents, 1 to 64 printable characters of ASCII: it becomes a label."""
    text = _text(value)
    if not re.fullmatch(r"[ -~]{1,64}", text):
        raise ValueError(f"{quoted(value)} is not a pattern of 1 to 64 printable characters of ASCII")
    return text


def parse_boolean(value: object) -> bool:
    """YAML's true and false, or these words as text."""
    if not isinstance(value, bool) and value not in ("true", "false"):
        raise ValueError(f"{quoted(value)} is not true or false")
    return value in (True, "true")


def parse_log_level(value: object) -> str:
    """One of `LOG_LEVELS`; `warn` is another word for `warning`."""
    return "warning" if value == "warn" else _one_of(LOG_LEVELS, value)


def parse_log_format(value: object) -> str:
    """One of `LOG_FORMATS`."""
    return _one_of(LOG_FORMATS, value)


def parse_telemetry_path(value: object) -> str:
    """An absolute HTTP path that needs no escaping and is not under `/-/`."""
    if not re.fullmatch(r"(?:/[A-Za-z0-9_.~-]+)+", _text(value)[:1024]):
        raise ValueError(f"{quoted(value)} is not a path like /metrics")
    if _text(value).startswith("/-/"):
        raise ValueError(f"{quoted(value)} is taken: paths under /-/ are the exporter's own")
    return _text(value)


def parse_host_pattern(value: object) -> str:
    """A host name without a port, in which `*` stands for any text."""
    if not re.fullmatch(r"[A-Za-z0-9_.*-]{1,253}|\[[0-9A-Fa-f:.]+\]", _text(value)):
        raise ValueError(f"{quoted(value)} is not a host without port, or a pattern like *.example.com")
    return _text(value)


def parse_path_pattern(value: object) -> str:
    """An absolute path without a query, in which `*` stands for any text."""
    if not re.fullmatch(r"[/*][!-~]{0,1023}", _text(value)) or re.search(r"[?#]", _text(value)):
        raise ValueError(f"{quoted(value)} is not a path without query, or a pattern like /ws/*")
    return _text(value)


def parse_application_code(value: object) -> int:
    """A close code for libraries or private use (RFC 6455 section 7.4.2)."""
    code = _integer(value)
    if code is None or not 3000 <= code <= 4999:
        raise ValueError(f"{quoted(value)} is not an application's close code between 3000 and 4999")
    return code


def parse_going_away_code(value: object) -> int:
    """A close code that a server can send and that has a label of its own (RFC 6455 section 7.4)."""
    code = _integer(value)
    if code is None or not 1000 <= code <= 4999:
        raise ValueError(f"{quoted(value)} is not a close code between 1000 and 4999")
    if not legal_on_wire(code):
        raise ValueError(f"{quoted(value)} must not appear in a Close frame (RFC 6455 section 7.4.1)")
    if 1016 <= code <= 2999:
        raise ValueError(f"{quoted(value)} is reserved (RFC 6455 section 7.4.2) and has no label of its own")
    return code


def _one_of(words: tuple[str, ...], value: object) -> str:
    if _text(value) not in words:
        raise ValueError(f"{quoted(value)} is not one of {', '.join(words)}")
    return _text(value)


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _integer(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _text_or_number(value: object) -> str:
    number = _integer(value)
    return _text(value) if number is None else str(number)


def _parses(parse: Callable[[str], object], text: str) -> bool:
    try:
        parse(text)
    except ValueError:
        return False
    return True
