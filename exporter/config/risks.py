"""Settings that are allowed and risky: for check-config and for the log."""

from collections.abc import Iterator

from exporter.config.model import Config
from exporter.config.overlap import dials_loopback, is_loopback


def warnings(config: Config) -> tuple[str, ...]:
    """One sentence for each risk."""
    return (*_trusted_loopback(config), *_open_lifecycle(config))


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
