"""The web configuration that is in force. It is read again when one of its files has changed.

exporter-toolkit reads its file on every request. Here every request and every handshake looks whether there is anything
new, which takes microseconds, and a thread reads it. A faulty change is logged once, and changes nothing.
"""

import asyncio
import ssl
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import structlog

from exporter.config.certificates import VERIFY_MODES, server_context
from exporter.config.web_file import Reading, Stamp, WebConfig, read_web_config, stamp
from exporter.web.passwords import Passwords

_KEPT: Final = "web configuration not read again, the old one stays in force"

_log = structlog.get_logger(__name__)


class Gate:
    """What all listeners share that one web configuration file guards. `config` is what was read at the start."""

    def __init__(self, config: WebConfig, passwords: Passwords | None = None) -> None:
        self.passwords = passwords or Passwords()
        self._config = config
        self._context = None if config.tls is None else server_context(config.tls)
        self._files = config.files
        self._reading = asyncio.Lock()

    @property
    def config(self) -> WebConfig:
        """What is in force, as of the last look."""
        return self._config

    async def look(self) -> WebConfig:
        """What is in force, read anew if one of its files has changed since the last look."""
        if _changed(self._files):
            async with self._reading:
                if _changed(self._files):
                    await self._read()
        return self._config

    async def context(self) -> ssl.SSLContext:
        """The context of the next handshake; there must be one."""
        await self.look()
        assert self._context is not None
        return self._context

    async def _read(self) -> None:
        try:
            reading, context = await asyncio.to_thread(_load, self._config.path)
        except Exception as fault:
            _log.error(_KEPT, exc_info=fault)
            self._files = {path: stamp(path) for path in self._files}
            return
        self._files = reading.files
        faults = reading.faults if reading.config is None else tuple(_opened(self._config, reading.config))
        if reading.config is None or faults:
            _log.error(_KEPT, faults=list(faults))
            return
        self._config, self._context = reading.config, context
        _log.info("web configuration read again")


def _changed(files: Mapping[Path, Stamp | None]) -> bool:
    return any(stamp(path) != seen for path, seen in files.items())


def _load(path: Path) -> tuple[Reading, ssl.SSLContext | None]:
    reading = read_web_config(path)
    tls = reading.config.tls if reading.config is not None else None
    return reading, server_context(tls) if tls is not None else None


def _opened(old: WebConfig, new: WebConfig) -> Iterator[str]:
    """What was closed and no longer would be: a file that is just being written must not open a door."""
    restart = f"{new.path}: {{}} takes effect at a restart".format
    if (old.tls is None) != (new.tls is None):
        yield restart("tls_server_config, added or removed,")
    if old.users and not new.users:
        yield restart("the removal of all basic_auth_users")
    if old.tls is not None and new.tls is not None:
        if VERIFY_MODES[new.tls.client_auth] < VERIFY_MODES[old.tls.client_auth]:
            yield restart(f"client_auth_type {new.tls.client_auth}, weaker than {old.tls.client_auth},")
        if old.tls.allowed_sans and not new.tls.allowed_sans:
            yield restart("the removal of all client_allowed_sans")
