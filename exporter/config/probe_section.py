"""Reads the probes that the layers of the configuration have, keeps every fault, and checks what must fit together."""

import ipaddress
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from exporter.config import values
from exporter.config.probes import (
    ProbeConfig,
    ProbeTls,
    Text,
    Url,
    encodable,
    header_value,
    parse_probe_flag,
    parse_url,
    without_secrets,
)
from exporter.config.reader import Place, Reader
from exporter.config.values import quoted

MAX_MESSAGE_SIZE: Final = 64 << 20
"""Bytes of a message that a probe may be told to take at most; it is held in memory."""

LEAST_HOLD: Final = 10.0
"""Seconds for which a connection is held at least before the probe ends it: more would be a load, not a probe."""

_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}")  # RFC 9110 section 5.6.2
_OWN_HEADERS: Final = ("connection", "content-length", "host", "transfer-encoding", "upgrade", "user-agent")
_OWN_PREFIX: Final = "sec-websocket-"


class GivenProbe(NamedTuple):
    """A probe as given; None stands for what had a fault."""

    place: Place
    target: str | None
    config: ProbeConfig | None


def read_probe_texts(reader: Reader, origin: str, texts: Sequence[str]) -> list[GivenProbe]:
    """The probes of flags or of the environment."""
    given = []
    for text in texts:
        place = Place("", f"{origin} {quoted(without_secrets(text))}")
        config = reader.value(place, text, parse_probe_flag)
        if config is not None:
            given.append(GivenProbe(place, config.target, config))
    return given


def read_probes(reader: Reader, place: Place, value: object) -> list[GivenProbe]:
    """The probes of the file's section."""
    given = []
    checked: set[ProbeTls] = set()
    for at, item in reader.items(place, value):
        body = reader.mapping(at, item, PROBE_KEYS)
        if item is not None and not isinstance(item, dict):
            continue
        for key in ("target", "url"):
            if key not in body:
                reader.fault(at.key(key), "missing")
        found: dict[str, Any] = reader.entries(
            at, {key: body[key] for key in body if key in _PARSERS and not _left_out(key, body)}, _PARSERS
        )
        found |= {
            "subprotocols": _subprotocols(reader, at.key("subprotocols"), body.get("subprotocols")),
            "headers": _headers(reader, at.key("headers"), body.get("headers")),
            "tls": _tls(reader, at.key("tls"), body.get("tls"), found.get("url"), checked),
        }
        if body.get("send") is not None:
            found["send"] = _text(reader, at.key("send"), body["send"])
        complete = "target" in found and "url" in found
        given.append(GivenProbe(at, found.get("target"), ProbeConfig(**found) if complete else None))
    return given


def _left_out(key: str, body: Mapping[str, object]) -> bool:
    return key in _OPTIONAL and body[key] is None


def check_probes(reader: Reader, given: Sequence[GivenProbe], targets: Collection[str]) -> None:
    """Each target may be probed once, and is one of `targets` where there are any."""
    first: dict[str, Place] = {}
    for probe in given:
        if probe.target is None:
            continue
        if targets and probe.target not in targets:
            known = ", ".join(targets)
            reader.fault(probe.place.key("target"), f"{quoted(probe.target)} is not one of the targets: {known}")
        if probe.target in first:
            reader.fault(
                probe.place.key("target"), f"{quoted(probe.target)} is probed already by {first[probe.target].name}"
            )
        first.setdefault(probe.target, probe.place)


def _duration(least: float, most: float) -> Callable[[object], float]:
    def parse(value: object) -> float:
        seconds = values.parse_duration(value)
        if not least <= seconds <= most:
            low, high = values.show_duration(least), values.show_duration(most)
            raise ValueError(f"{quoted(value)} is not between {low} and {high}")
        return seconds

    return parse


def _parse_hold(value: object) -> float | None:
    if value == "forever":
        return None
    seconds = values.parse_duration(value)
    if seconds < LEAST_HOLD:
        raise ValueError(f"{quoted(value)} is neither forever nor a duration from 10s to 24h")
    return seconds


def _parse_expect(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{quoted(value)} is not text")
    from exporter.config.regex import Regex

    try:
        Regex(value)
    except ValueError as error:
        raise ValueError(f"{quoted(value)} {error}") from None
    return value


def _parse_max_message_size(value: object) -> int:
    size = values.parse_size(value)
    if size > MAX_MESSAGE_SIZE:
        raise ValueError(f"{quoted(value)} is larger than 64MiB")
    return size


def _parse_server_name(value: object) -> str:
    name = value if isinstance(value, str) else ""
    if not re.fullmatch(r"(?:[A-Za-z0-9_-]{1,63}\.){0,126}[A-Za-z0-9_-]{1,63}", name) and not _is_ip_address(name):
        raise ValueError(f"{quoted(value)} is not a host name")
    return name


def _is_ip_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _parse_file(value: object) -> Path:
    path = values.parse_path(value)
    if path is None:
        raise ValueError("names no file")
    return path


_PARSERS: Final[Mapping[str, Callable[[object], object]]] = {
    "target": values.parse_target_name,
    "url": parse_url,
    "interval": _duration(1.0, 300.0),
    "timeout": _duration(0.001, 60.0),
    "hold": _parse_hold,
    "expect": _parse_expect,
    "max_message_size": _parse_max_message_size,
}
_TLS_PARSERS: Final[Mapping[str, Callable[[object], object]]] = {
    "ca_file": _parse_file,
    "cert_file": _parse_file,
    "key_file": _parse_file,
    "server_name": _parse_server_name,
    "insecure_skip_verify": values.parse_boolean,
}
_OPTIONAL: Final = ("expect", "hold")
"""Keys that may be there without a value, which is as if they were not."""

PROBE_KEYS: Final = (*_PARSERS, "subprotocols", "headers", "tls", "send")


def _subprotocols(reader: Reader, place: Place, value: object) -> tuple[str, ...]:
    found: list[str] = []
    for at, item in reader.items(place, value):
        if not isinstance(item, str) or not _TOKEN.fullmatch(item):
            reader.fault(at, f"{quoted(item)} is not a subprotocol (a token of RFC 9110 section 5.6.2)")
        elif item in found:
            reader.fault(at, f"{quoted(item)} is given twice")
        else:
            found.append(item)
    return tuple(found)


def _headers(reader: Reader, place: Place, value: object) -> tuple[tuple[str, Text], ...]:
    found = []
    for name, given in reader.mapping(place, value).items():
        at = place.key(name)
        if not _TOKEN.fullmatch(name):
            reader.fault(at, "is not a header's name (a token of RFC 9110 section 5.6.2)")
        elif name.lower() in _OWN_HEADERS or name.lower().startswith(_OWN_PREFIX):
            reader.fault(at, "is a header that the probe sets by itself")
        else:
            text = _text(reader, at, given, header_value)
            if text is not None:
                found.append((name, text))
    return tuple(found)


def _text(reader: Reader, place: Place, value: object, check: Callable[[str], str] = str) -> Text | None:
    """Text, or `{file: PATH}`, which must be readable now and will be read again."""

    def parse(given: object) -> Text:
        if isinstance(given, dict):
            text = Text(file=_parse_file(given["file"]))
        elif isinstance(given, str) or (isinstance(given, int) and not isinstance(given, bool)):
            text = Text(str(given))
        else:
            raise ValueError(f"{quoted(given)} is neither text nor a mapping with file")
        check(encodable(text.read()))
        return text

    if isinstance(value, dict) and "file" not in reader.mapping(place, value, ("file",)):
        if not value:
            reader.fault(place.key("file"), "missing")
        return None
    return reader.value(place, value, parse)


def _tls(reader: Reader, place: Place, value: object, url: Url | None, checked: set[ProbeTls]) -> ProbeTls:
    found: dict[str, Any] = reader.entries(place, value, _TLS_PARSERS)
    tls = ProbeTls(**found)
    if not found:
        return tls
    if url is not None and not url.secure:
        reader.fault(place, "is for wss:// URLs")
    if tls.key_file is not None and tls.cert_file is None:
        reader.fault(place.key("key_file"), "is of no use without cert_file")
    try:
        if tls not in checked:
            tls.context()
            checked.add(tls)
    except ValueError as error:
        reader.fault(place, str(error))
    return tls
