"""From a configured URL to an open WebSocket, within one time limit."""

import asyncio
import os
import socket
import ssl
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast

from websockets.client import ClientProtocol
from websockets.typing import Subprotocol
from websockets.uri import parse_uri

from exporter import __version__
from exporter.config import Address
from exporter.config.probes import ProbeConfig, ProbeTls, header_value
from exporter.sources.dial import Dialler
from exporter.sources.probe.connection import LOGGER, Connection
from exporter.sources.probe.failures import Unable, not_opened, timed_out, unreachable
from exporter.sources.probe.lookup import Lookups

USER_AGENT: Final = f"websocket-exporter-probe/{__version__}"


@dataclass(frozen=True, slots=True)
class Texts:
    """What a probe sends, its secrets read."""

    headers: Sequence[tuple[str, str]]
    message: str | None


def read_texts(config: ProbeConfig) -> Texts:
    """Read the files of a probe's headers and first message. Raises ValueError with a sentence."""
    headers = [(name, header_value(text.read())) for name, text in config.headers]
    return Texts(headers, config.send.read() if config.send is not None else None)


@dataclass(frozen=True, slots=True)
class Opened:
    """An open WebSocket, the message to send on it first, if any, and when the attempt began, on its clock."""

    connection: Connection
    message: str | None
    began: float


class Contexts:
    """TLS contexts, which are large, shared by all probes that ask for the same; read anew when a file has changed."""

    def __init__(self) -> None:
        self._known: dict[ProbeTls, tuple[tuple[object, ...], ssl.SSLContext]] = {}

    def get(self, tls: ProbeTls) -> ssl.SSLContext:
        """Takes some milliseconds at first. Raises ValueError with a sentence."""
        stamps = tuple(map(_stamp, tls.files))
        known = self._known.get(tls)
        if known is None or known[0] != stamps:
            known = self._known[tls] = (stamps, tls.context())
        return known[1]


def _stamp(path: Path) -> object:
    with suppress(OSError):
        found = path.stat()
        return found.st_mtime_ns, found.st_size, found.st_ino
    return None


class Opener:
    """Opens the connections of all probes. `clock` is monotonic, `now` the wall clock in Unix seconds."""

    def __init__(self, clock: Callable[[], float], now: Callable[[], float]) -> None:
        self._clock = clock
        self._now = now
        self._lookups = Lookups()
        self._contexts = Contexts()
        self._preparing = asyncio.Lock()

    async def open(self, config: ProbeConfig) -> Opened:
        """Connect.

        Raises Failed where the service is at fault, Unable where this machine or the configuration is.
        """
        texts, context = await self._prepare(config)
        began, resolved = self._clock(), False
        try:
            async with asyncio.timeout(config.timeout) as limit:
                addresses = await self._lookups.addresses(config.url.address.host)
                resolved = True
                sock = await _dial(addresses, config.url.address.port, limit.when() or 0.0)
                connection = self._connection(config, texts.headers)
                await _upgrade(connection, sock, context, config.tls.server_name or config.url.address.host)
                if connection.accepted:
                    return Opened(connection, texts.message, began)
                raise not_opened(connection, config.subprotocols, self._now())
        except TimeoutError:
            raise timed_out(resolved=resolved) from None
        except OSError as error:
            raise unreachable(error) from None

    def _connection(self, config: ProbeConfig, headers: Sequence[tuple[str, str]]) -> Connection:
        protocol = ClientProtocol(
            parse_uri(config.url.full),
            subprotocols=cast("list[Subprotocol]", list(config.subprotocols)) or None,
            max_size=config.max_message_size,
            logger=LOGGER,
        )
        return Connection(protocol, [("User-Agent", USER_AGENT), *headers], self._clock)

    async def _prepare(self, config: ProbeConfig) -> tuple[Texts, ssl.SSLContext | None]:
        """Read what is in files, in a thread."""
        texts = [text for _, text in config.headers] + ([config.send] if config.send else [])
        try:
            if any(text.file is not None for text in texts):
                said = await asyncio.to_thread(read_texts, config)
            else:
                said = read_texts(config)
            if not config.url.secure:
                return said, None
            async with self._preparing:  # a context that many need is made once
                return said, await asyncio.to_thread(self._contexts.get, config.tls)
        except ValueError as fault:
            raise Unable(str(fault)) from None


async def _dial(addresses: Sequence[str], port: int, until: float) -> socket.socket:
    """The first address that accepts. Each has its share of the time left, so that one black hole does not take all."""
    failure = OSError("no address")
    for left, address in zip(range(len(addresses), 0, -1), addresses, strict=True):
        share = max(0.0, until - asyncio.get_running_loop().time()) / left
        try:
            return await Dialler(Address(address, port), share).dial()
        except OSError as error:
            failure = error
    raise failure


async def _upgrade(connection: Connection, sock: socket.socket, context: ssl.SSLContext | None, name: str) -> None:
    """The opening handshake over `sock`, which is the connection's from here on; with TLS if there is a `context`."""
    file = os.fstat(sock.fileno())
    try:
        try:
            await asyncio.get_running_loop().create_connection(
                lambda: connection, sock=sock, ssl=context, server_hostname=name if context else None
            )
        finally:
            _disown(sock, file)
        await connection.answer_or_end()
    except OSError as error:
        connection.lost_by = error
    except BaseException:
        connection.abort()
        raise


def _disown(sock: socket.socket, file: os.stat_result) -> None:
    """Let go of a descriptor that the event loop has closed behind the back of `sock`; it was of this file.

    uvloop (0.23) does where the first write fails: the transport has ended by the time the socket object is tied to it.
    When thrown away the object would close the descriptor again, whoever has its number by then: a tapped client, say.
    """
    if sock.fileno() >= 0:
        with suppress(OSError):
            if os.path.samestat(os.fstat(sock.fileno()), file):
                return
        sock.detach()
