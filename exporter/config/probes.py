"""One probe, typed and frozen, and `--probe`, its shortest spelling."""

import re
import ssl
from pathlib import Path
from typing import Final

import msgspec

from exporter.config import document, values
from exporter.config.values import Address, quoted

_PORTS: Final = {"ws": 80, "wss": 443}  # RFC 6455 section 3
_FIELD_VALUE: Final = re.compile(r"[!-~](?:[\t -~]*[!-~])?|")  # RFC 9110 section 5.5, of ASCII


class Url(msgspec.Struct, frozen=True):
    """A ws:// or wss:// URL without user information and fragment. Its text is safe to show: it has no query."""

    secure: bool
    address: Address
    host: str
    path: str
    query: str = ""

    @property
    def full(self) -> str:
        """The whole URL; its query may hold a secret."""
        return str(self) + self.query

    def __str__(self) -> str:
        return f"{'wss' if self.secure else 'ws'}://{self.host}{self.path}"


class Text(msgspec.Struct, frozen=True):
    """Text that is written in the configuration, or read from a file each time it is needed."""

    text: str = ""
    file: Path | None = None

    def read(self) -> str:
        """The text; that of a file without its last line's end. Raises ValueError with a sentence."""
        if self.file is None:
            return self.text
        return re.sub(r"\r?\n\Z", "", _read(self.file))


class ProbeTls(msgspec.Struct, frozen=True):
    """How the service's certificate is checked, and the client certificate to present, if any."""

    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    server_name: str | None = None
    insecure_skip_verify: bool = False

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that are read for it."""
        return tuple(path for path in (self.ca_file, self.cert_file, self.key_file) if path is not None)

    def context(self) -> ssl.SSLContext:
        """For connections; takes some milliseconds. Raises ValueError with a sentence that names the file."""
        for file in self.files:
            _read(file)  # OpenSSL would wait for a pipe, and does not say which file is missing
        try:
            context = ssl.create_default_context(cafile=self.ca_file)
        except OSError as error:
            raise _unusable(self.ca_file, error) from None
        if self.insecure_skip_verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if self.cert_file is not None:
            try:
                # An empty password for encrypted keys: without any, OpenSSL would ask for one on the terminal.
                context.load_cert_chain(self.cert_file, self.key_file, password="")
            except OSError as error:
                raise _unusable(self.key_file or self.cert_file, error) from None
        return context


class ProbeConfig(msgspec.Struct, frozen=True):
    """One probe. `interval`, `timeout` and `hold` are seconds; `hold` is None for ever.

    `timeout` is that of the opening handshake, DNS, TCP and TLS included, of an expected answer, and of each Pong.
    """

    target: str
    url: Url
    interval: float = 20.0
    timeout: float = 10.0
    hold: float | None = None
    subprotocols: tuple[str, ...] = ()
    headers: tuple[tuple[str, Text], ...] = ()
    tls: ProbeTls = ProbeTls()
    send: Text | None = None
    expect: str | None = None
    max_message_size: int = 1 << 20


def parse_probe_flag(text: object) -> ProbeConfig:
    """`NAME=URL`. Raises ValueError with a sentence."""
    name, equals, url = str(text).partition("=")
    if not equals:
        raise ValueError("expected NAME=URL")
    return ProbeConfig(values.parse_target_name(name), parse_url(url))


def parse_url(value: object) -> Url:
    """A ws:// or wss:// URL (RFC 6455 section 3). No message has what may be a secret in it."""
    text = value if isinstance(value, str) else ""
    shown = quoted(without_secrets(text) if isinstance(value, str) else value)
    scheme, separator, rest = text.partition("://")
    if not separator or scheme.lower() not in _PORTS:
        raise ValueError(f"{shown} is not a ws:// or wss:// URL")
    if not re.fullmatch(r"[!-~]{0,4096}", rest):
        raise ValueError(f"{shown} has characters that a URL cannot have, or too many of them")
    parts = re.fullmatch(r"([^/?#]*)([^?#]*)(\?[^#]*)?(#.*)?", rest)
    host, path, query, fragment = parts.groups() if parts else ("", "", None, None)
    if "@" in host:
        raise ValueError(f"{shown} has a user name or password; an Authorization header can be read from a file")
    if fragment is not None:
        raise ValueError(f"{shown} has a fragment (#), which a WebSocket URL cannot have (RFC 6455 section 3)")
    address = values.parse_listen(host if re.search(r":[^\]:]*\Z", host) else f"{host}:{_PORTS[scheme.lower()]}")
    if not address.host or not address.port:
        raise ValueError(f"{shown} names no {'port' if address.host else 'host'} to connect to")
    return Url(scheme.lower() == "wss", address, host, path or "/", query or "")


def header_value(text: str) -> str:
    """What a header can carry, unchanged. Raises ValueError with a sentence that does not repeat it."""
    if not _FIELD_VALUE.fullmatch(text):
        raise ValueError("the value is not one line of printable ASCII without spaces around it")
    return text


def encodable(text: str) -> str:
    """What UTF-8 can carry, unchanged. Raises ValueError with a sentence that does not repeat it."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("the text has half of a surrogate pair, which UTF-8 cannot carry") from None
    return text


def without_secrets(text: str) -> str:
    """A URL, or what was meant as one, without what may be user information, query and fragment."""
    named = re.sub(r"(://|=).*@|\A[^=/]*@", r"\1...@", text, flags=re.DOTALL)
    return re.sub(r"([?#]).*", r"\1...", named, flags=re.DOTALL)


def _read(file: Path) -> str:
    try:
        return document.read_text(file)
    except document.DocumentError as error:
        raise ValueError(str(error)) from None


def _unusable(path: Path | None, error: OSError) -> ValueError:
    reason = error.reason if isinstance(error, ssl.SSLError) else error.strerror
    shown = quoted(str(path)) if path is not None else "the system's certificates"
    return ValueError(f"cannot use {shown}: {(reason or 'not a certificate or key').lower().replace('_', ' ')}")
