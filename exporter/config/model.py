"""The frozen, typed configuration, and the table of settings that are flag, environment variable and YAML key."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import msgspec

from exporter.closecodes import Vocabulary
from exporter.config import values
from exporter.config.probes import ProbeConfig
from exporter.config.values import Address, CaptureMode, KeyRule, Network, UnixPath

DEFAULT_TARGET: Final = "default"
"""The target of a tap that names none."""

TARGET_KEYS: Final = (
    "match",
    "limits",
    "codes",
    "going_away_codes",
    "client_key",
    "trusted_proxies",
    "client_builds",
)
_SECTIONS_BESIDE: Final = {"capture": "capture_options"}  # where a section of the file is a list of its own

LIMITS_KEYS: Final = ("client_to_server", "server_to_client")


class ConfigError(Exception):
    """The configuration cannot be used. `faults` has one line for each thing that is wrong."""

    def __init__(self, faults: tuple[str, ...]) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


class Match(msgspec.Struct, frozen=True):
    """Which opening handshakes belong to a target: patterns in which `*` stands for any text; None matches all."""

    host: str | None = None
    path: str | None = None

    def accepts(self, host: str, path: str) -> bool:
        """Whether a handshake with this Host header (its port does not matter) and path without query belongs here."""
        return (self.host is None or _glob(self.host.lower(), _without_port(host).lower())) and (
            self.path is None or _glob(self.path, path)
        )


class Limits(msgspec.Struct, frozen=True):
    """The service's own maximum message sizes in bytes, by direction; None where not known."""

    client_to_server: int | None = None
    server_to_client: int | None = None


class Target(msgspec.Struct, frozen=True):
    """One value of the `target` label, and what is known about the service behind it.

    `trusted_proxies` are those whose X-Forwarded-For is believed where `client_key` is `forwarded`. `client_builds` are
    patterns of user agents, in which `*` stands for any text; each is a label value.
    """

    name: str
    match: Match = Match()
    limits: Limits = Limits()
    codes: frozenset[int] = frozenset()
    going_away_codes: frozenset[int] = frozenset()
    client_key: KeyRule = KeyRule()
    trusted_proxies: tuple[Network, ...] = ()
    client_builds: tuple[str, ...] = ()

    def vocabulary(self) -> Vocabulary:
        """The bounded close-code labels of this target."""
        return Vocabulary(listed=self.codes, going_away=self.going_away_codes)

    def build(self, user_agent: str) -> str | None:
        """The first of `client_builds` that a User-Agent fits; None if there is none."""
        for pattern in self.client_builds:
            if _glob(pattern, user_agent):
                return pattern
        return None


class TapConfig(msgspec.Struct, frozen=True):
    """One listener that relays to one upstream.

    It dials from `source_addresses` in turn, or from where the kernel chooses. They are IP addresses without zone, and
    all of the upstream's family if that is an address; for a name they may be of both.
    """

    listen: Address
    upstream: Address | UnixPath
    target: str = DEFAULT_TARGET
    source_addresses: tuple[str, ...] = ()


class CaptureConfig(msgspec.Struct, frozen=True):
    """The traffic of one TCP port on one network interface, as captured in passing."""

    interface: str
    port: int
    target: str = DEFAULT_TARGET

    def __str__(self) -> str:
        return f"{self.interface}:{self.port}"


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that can be configured. `targets` has every target that something names; durations are seconds.

    Rings are in bytes: `capture_ring_size` that to begin with, `capture_ring_size_limit` that to grow to.
    `capture_fd` is the first of two inherited descriptors for each capture; None to open them.

    `targets_listed` is whether the file lists them; else they are implied by whatever names one.

    `limits_connections` is None for `auto`: to be derived from the limit of open files. Files, folders and the
    webhook's address are None where they are not given; `webhook_rate_limit` is in events per second, 0 for none.
    """

    targets: Mapping[str, Target]
    targets_listed: bool = False
    tap: tuple[TapConfig, ...]
    capture: tuple[CaptureConfig, ...] = ()
    capture_mode: CaptureMode = "full"
    capture_ring_size: int = 8 << 20
    capture_ring_size_limit: int = 16 << 20
    capture_optional: bool = False
    capture_fd: int | None = None
    probe: tuple[ProbeConfig, ...] = ()
    web_listen_address: Address
    web_telemetry_path: str
    web_enable_lifecycle: bool
    log_level: str
    log_format: str
    limits_connections: int | None = None
    limits_connect_timeout: float = 5.0
    web_config_file: Path | None = None
    webhook_listen_address: Address | None = None
    webhook_secrets_file: Path | None = None
    webhook_require_ids: bool = False
    webhook_rate_limit: int = 10_000
    storage_path: Path | None = None
    storage_window: float = 72 * 3600.0
    storage_max_ids: int = 5_000_000
    shutdown_grace: float
    config_file: Path | None = None


class Setting(msgspec.Struct, frozen=True):
    """One scalar setting. `name` is its flag without the dashes; its other spellings follow from it."""

    name: str
    default: str
    metavar: str
    help: str
    parse: Callable[[object], object]
    reloadable: bool = False

    @property
    def flag(self) -> str:
        """`--web.listen-address`."""
        return f"--{self.name}"

    @property
    def variable(self) -> str:
        """`WEBSOCKET_EXPORTER_WEB_LISTEN_ADDRESS`."""
        return environment_variable(self.name)

    @property
    def attribute(self) -> str:
        """`web_listen_address`, the field of `Config`."""
        return _underscored(self.name)

    @property
    def section(self) -> str:
        """`web`, the section of the file."""
        section = self.name.partition(".")[0]
        return _SECTIONS_BESIDE.get(section, section)

    @property
    def key(self) -> str:
        """`listen_address`, the key in that section."""
        return _underscored(self.name.partition(".")[2])


def environment_variable(name: str) -> str:
    """The environment variable of a flag: `web.listen-address` is `WEBSOCKET_EXPORTER_WEB_LISTEN_ADDRESS`."""
    return f"WEBSOCKET_EXPORTER_{_underscored(name).upper()}"


SETTINGS: Final = (
    Setting(
        "web.listen-address",
        ":11009",
        "ADDRESS",
        "where /metrics and the health endpoints are served",
        values.parse_listen,
    ),
    Setting(
        "web.telemetry-path", "/metrics", "PATH", "path under which metrics are served", values.parse_telemetry_path
    ),
    Setting("web.enable-lifecycle", "false", "", "let POST /-/reload reload the configuration", values.parse_boolean),
    Setting(
        "web.config.file",
        "",
        "FILE",
        "TLS, client certificates and passwords of the listeners, in exporter-toolkit's web configuration format",
        values.parse_path,
    ),
    Setting(
        "capture.mode",
        "full",
        "MODE",
        "full: closes and message sizes; lifecycle: closes alone, at nearly no cost",
        values.parse_capture_mode,
    ),
    Setting(
        "capture.ring-size",
        "8MiB",
        "SIZE",
        "memory in which captured packets wait to be read, to begin with",
        values.parse_ring_size,
    ),
    Setting(
        "capture.ring-size-limit",
        "16MiB",
        "SIZE",
        "what that memory may grow to when packets are dropped",
        values.parse_ring_size,
    ),
    Setting(
        "capture.optional",
        "false",
        "",
        "go on without captures that cannot be opened, and set websocket_exporter_capture_up to 0",
        values.parse_boolean,
    ),
    Setting(
        "capture.fd",
        "",
        "NUMBER",
        "first of the packet sockets that were inherited, two for each capture, see capture-exec; they are opened "
        "unless given",
        values.parse_descriptor,
    ),
    Setting(
        "webhook.listen-address",
        "",
        "ADDRESS",
        "where services report their closes; off unless given",
        values.parse_optional_listen,
    ),
    Setting(
        "webhook.secrets-file",
        "",
        "FILE",
        "secrets that sign reports (Standard Webhooks, whsec_...), one a line",
        values.parse_path,
    ),
    Setting("webhook.require-ids", "false", "", "refuse reported events without an id", values.parse_boolean),
    Setting(
        "webhook.rate-limit",
        "10000",
        "NUMBER",
        "most reported events per second, 0 for no limit",
        values.parse_rate,
    ),
    Setting(
        "storage.path",
        "",
        "DIR",
        "folder in which reported events and their counts outlive a restart; only in memory unless given",
        values.parse_path,
    ),
    Setting(
        "storage.window",
        "72h",
        "DURATION",
        "how long the ids of reported events are remembered",
        values.parse_window,
    ),
    Setting(
        "storage.max-ids",
        "5000000",
        "NUMBER",
        "most ids remembered in the storage, whatever the window",
        values.parse_max_ids,
    ),
    Setting(
        "log.level",
        "info",
        "LEVEL",
        f"least severity to log: {', '.join(values.LOG_LEVELS)}",
        values.parse_log_level,
        reloadable=True,
    ),
    Setting(
        "log.format",
        "auto",
        "FORMAT",
        "json, console, or auto: console on a terminal, else JSON lines",
        values.parse_log_format,
    ),
    Setting(
        "limits.connections",
        "auto",
        "NUMBER",
        "most connections relayed at once; auto derives it from the limit of open files",
        values.parse_connections,
    ),
    Setting(
        "limits.connect-timeout",
        "5s",
        "DURATION",
        "time an upstream has to accept a connection",
        values.parse_timeout,
    ),
    Setting(
        "shutdown.grace",
        "25s",
        "DURATION",
        "time from SIGTERM to the end, for connections to finish by themselves",
        values.parse_duration,
    ),
)


def _underscored(name: str) -> str:
    return re.sub(r"[.-]", "_", name)


def _without_port(host: str) -> str:
    bracketed = re.match(r"\[[^\]]*\]", host)
    return bracketed[0] if bracketed else host.partition(":")[0]


def covers(pattern: str, other: str) -> bool:
    """Whether whatever matches the pattern `other` matches `pattern`, too: as a text, its `*` fits only another `*`."""
    return _glob(pattern, other)


def _glob(pattern: str, text: str) -> bool:
    """Whether `text` matches `pattern`. Linear in `text`, which peers choose: no backtracking."""
    head, *rest = pattern.split("*")
    if not rest:
        return text == pattern
    *middle, tail = rest
    position, end = len(head), len(text) - len(tail)
    if position > end or not text.startswith(head) or not text.endswith(tail):
        return False
    for part in middle:
        found = text.find(part, position, end)
        if found < 0:
            return False
        position = found + len(part)
    return True
