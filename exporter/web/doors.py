"""Who may come in: the web configuration file and the webhook's secrets, read together, faults and all."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from exporter.config import Address, Config, ConfigError
from exporter.config.document import DocumentError, read_text
from exporter.config.overlap import is_loopback

if TYPE_CHECKING:
    from exporter.config.web_file import WebConfig


@dataclass(frozen=True, slots=True)
class Doors:
    """The doors of the listeners. `web` is None where they are open; `secrets` sign what the webhook takes."""

    web: "WebConfig | None" = None
    secrets: tuple[bytes, ...] = ()


OPEN: Final = Doors()


def load_doors(config: Config) -> Doors:
    """Read what `config` names. Raises ConfigError with every fault.

    The webhook counts whatever it is told: beyond loopback it must know by whom.
    """
    faults: list[str] = []
    web = None
    secrets: tuple[bytes, ...] = ()
    if config.web_config_file is not None:
        from exporter.config.web_file import load_web_config

        try:
            web = load_web_config(config.web_config_file)
        except ConfigError as error:
            faults += error.faults
    if config.webhook_secrets_file is not None:
        try:
            secrets = _secrets(config.webhook_secrets_file)
        except ValueError as error:
            faults.append(str(error))
    address = config.webhook_listen_address
    if not faults and address is not None and not is_loopback(address.host) and not (secrets or authenticates(web)):
        faults.append(
            f"webhook.listen-address: {address} is reachable from other machines: it needs webhook.secrets-file, or "
            "basic_auth_users or verified client certificates in web.config.file"
        )
    if faults:
        raise ConfigError(tuple(faults))
    return Doors(web, secrets)


def risks(doors: Doors) -> tuple[str, ...]:
    """One sentence for each thing that is allowed and risky."""
    if doors.web is None:
        return ()
    from exporter.config import web_file

    return web_file.risks(doors.web)


def authenticates(web: "WebConfig | None") -> bool:
    """Whether whoever gets in has shown who they are."""
    return web is not None and (bool(web.users) or (web.tls is not None and web.tls.verifies_clients))


def confides(doors: Doors, address: Address) -> bool:
    """Whether the listener at `address` may show addresses, paths and reasons.

    It may to those on this machine, or who have shown who they are. A web configuration file that is read again can
    close these doors further, never open them.
    """
    return authenticates(doors.web) or is_loopback(address.host)


def _secrets(path: Path) -> tuple[bytes, ...]:
    from exporter.reports import parse_secrets

    try:
        return parse_secrets(read_text(path))
    except DocumentError as error:
        raise ValueError(f"webhook.secrets-file: {error}") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
