"""Settings that are allowed and risky: for check-config and for the log."""

import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from exporter.config.model import Config, Target, covers
from exporter.config.overlap import dials_loopback, is_loopback

_NEVER_IN_A_NAME: Final = frozenset("&#")
"""One separates the parameters of a query, the other ends it (RFC 3986 section 3.4)."""

_SECRET_HEADERS: Final = ("authorization", "cookie", "proxy-authorization", "x-api-key")


def warnings(config: Config) -> tuple[str, ...]:
    """One sentence for each risk."""
    return (
        *(warning for target in config.targets.values() for warning in _of_target(target)),
        *_trusted_loopback(config),
        *_open_lifecycle(config),
        *_careless_probes(config),
    )


def _of_target(target: Target) -> Iterator[str]:
    place = f"targets.{target.name}"
    for network in target.trusted_proxies:
        if network.prefixlen == 0:
            yield (
                f"{place}.trusted_proxies has {network}, which is everybody: any client can write X-Forwarded-For "
                "itself, and pass for another one each time"
            )
    key = target.client_key
    if key.kind == "query" and (never := _NEVER_IN_A_NAME & set(key.name)):
        yield (
            f"{place}.client_key is query:{key.name}, but no parameter of a query has {min(never)} in its name: no "
            "client is recognised"
        )
    for number, build in enumerate(target.client_builds):
        before = next((one for one in target.client_builds[:number] if covers(one, build)), None)
        if before == build:
            yield f'{place}.client_builds: "{build}" is given twice'
        elif before is not None:
            yield f'{place}.client_builds: "{build}" never counts: "{before}" before it fits all that it fits'


def _trusted_loopback(config: Config) -> Iterator[str]:
    for tap in config.tap:
        if dials_loopback(tap.upstream):
            yield (
                f"tap {tap.listen} connects to {tap.upstream} over loopback, so the service sees 127.0.0.1 as its "
                "client; a service that trusts loopback (for X-Forwarded-For, as uvicorn does by default, or for "
                "admin paths) must be tapped over the pod's own address or a Unix socket"
            )


def _open_lifecycle(config: Config) -> Iterator[str]:
    if config.web_enable_lifecycle and not is_loopback(config.web_listen_address.host):
        yield (
            f"web.enable-lifecycle is on and {config.web_listen_address} is reachable from other machines: whoever "
            "reaches it can reload the configuration"
        )


def _careless_probes(config: Config) -> Iterator[str]:
    for probe in config.probe:
        if probe.tls.insecure_skip_verify:
            yield (
                f"probe {probe.target} does not check the service's certificate: it would not notice one that has "
                "expired, and gives what it sends to whoever answers"
            )
        secrets = [name for name, text in probe.headers if text.file is None and name.lower() in _SECRET_HEADERS]
        if secrets and _others_read(config.config_file):
            yield (
                f"probe {probe.target} has {', '.join(secrets)} in a configuration file that others can read; "
                "headers can be read from a file of their own: {file: PATH}"
            )


def _others_read(path: Path | None) -> bool:
    try:
        return path is not None and bool(path.stat().st_mode & stat.S_IROTH)
    except OSError:
        return False
