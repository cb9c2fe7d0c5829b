"""exporter-toolkit's web configuration file: TLS, client certificates, passwords and headers of the HTTP listeners.

The format is docs/web-configuration.md of github.com/prometheus/exporter-toolkit. What it can ask for and this exporter
cannot do is a fault, never ignored. No sentence shows a value that could be a password, a hash or a key.
"""

import stat
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import msgspec

from exporter.config import document, web_values
from exporter.config.certificates import ClientAuth, Pem, TlsConfig, TlsFault, server_context
from exporter.config.model import ConfigError
from exporter.config.reader import Place, Reader
from exporter.config.values import parse_boolean, quoted

QUICK_COST: Final = 10
"""What is below is guessed too quickly once the hash is known."""

Stamp = tuple[int, int, int]
"""Time of the last change in nanoseconds, size in bytes, and inode."""

_NONE: Final[Mapping[Any, Any]] = MappingProxyType({})


class RateLimit(msgspec.Struct, frozen=True):
    """One request every `interval` seconds, `burst` of them at once."""

    interval: float
    burst: int


class WebConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What one web configuration file asks for. `users` has the bcrypt hash of each user's password.

    `files` are those that were read, the file itself first, each as it was just before; None where there was none.
    `secret_files` are those of them that hold hashes or a key.
    """

    path: Path
    tls: TlsConfig | None = None
    users: Mapping[str, bytes] = _NONE
    headers: Mapping[str, str] = _NONE
    rate_limit: RateLimit | None = None
    files: Mapping[Path, Stamp | None] = _NONE
    secret_files: tuple[Path, ...] = ()

    def __repr__(self) -> str:
        return f"WebConfig({str(self.path)!r}, users={len(self.users)}, tls={self.tls is not None})"


class Reading(msgspec.Struct, frozen=True):
    """What came of reading a web configuration file: `config`, or one line for each of its faults."""

    config: WebConfig | None
    faults: tuple[str, ...]
    files: Mapping[Path, Stamp | None]


def load_web_config(path: Path) -> WebConfig:
    """What the file at `path` asks for. Raises ConfigError with every fault of it and of the files it names."""
    reading = read_web_config(path)
    if reading.config is None:
        raise ConfigError(reading.faults)
    return reading.config


def read_web_config(path: Path) -> Reading:
    """What the file at `path` asks for, or what is wrong. Reads files: on an event loop, call it in a thread."""
    file = _WebFile(path)
    config = file.read()
    faults = tuple(file.reader.faults)
    return Reading(None if faults else config, faults, MappingProxyType(file.files))


def stamp(path: Path) -> Stamp | None:
    """Changes whenever the file at `path` does. None where there is none, or none that may be looked at."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def risks(config: WebConfig) -> tuple[str, ...]:
    """One sentence for each thing that is allowed and risky."""
    return tuple(_risks(config))


def _risks(config: WebConfig) -> Iterator[str]:
    for path in config.secret_files:
        try:
            open_to_all = path.stat().st_mode & stat.S_IROTH
        except OSError:
            continue
        if open_to_all:
            yield f"{_shown(path)} holds a key or password hashes and can be read by every user of this machine"
    if config.users and config.tls is None:
        yield f"{_shown(config.path)} has users but no tls_server_config: passwords cross the network in clear"
    for user, hashed in config.users.items():
        if int(hashed[4:6]) < QUICK_COST:
            yield f"{_shown(config.path)}: the hash of user {quoted(user)} has a bcrypt cost below {QUICK_COST}"
    if config.tls is not None and config.tls.client_auth == "RequestClientCert":
        yield f"{_shown(config.path)}: RequestClientCert lets every client in, whatever certificate it shows"


class _WebFile:
    """One file while it is read."""

    def __init__(self, path: Path) -> None:
        self.reader = Reader()
        self.files: dict[Path, Stamp | None] = {}
        self._path = path
        self._place = Place(_shown(path))
        self._secret_files: list[Path] = []

    def read(self) -> WebConfig:
        sections = self._sections()
        users = self._users(self._place.key("basic_auth_users"), sections.get("basic_auth_users"))
        tls = self._tls(self._place.key("tls_server_config"), sections.get("tls_server_config"))
        if users:
            self._secret_files.insert(0, self._path)
        return WebConfig(
            path=self._path,
            tls=tls,
            users=MappingProxyType(users),
            headers=MappingProxyType(
                self._http(self._place.key("http_server_config"), sections.get("http_server_config"))
            ),
            rate_limit=self._rate_limit(self._place.key("rate_limit"), sections.get("rate_limit")),
            files=MappingProxyType(self.files),
            secret_files=tuple(dict.fromkeys(self._secret_files)),
        )

    def _sections(self) -> dict[str, Any]:
        text = self._text_of(self._path)
        if isinstance(text, document.DocumentError):
            self.reader.faults.append(str(text))
            return {}
        data, faults = document.parse(text)
        for sentence in faults:
            self.reader.fault(self._place, sentence)
        known = ("tls_server_config", "http_server_config", "basic_auth_users", "rate_limit")
        return self._mapping(self._place, data, known)

    def _text_of(self, path: Path) -> str | document.DocumentError:
        # In this order: a change while the file is being read is seen by whoever compares.
        self.files[path] = stamp(path)
        try:
            return document.read_text(path)
        except document.DocumentError as error:
            return error

    def _mapping(self, place: Place, value: object, known: Collection[str] = ()) -> dict[str, Any]:
        """As the reader's, but shows nothing of what is no mapping: it may be a key or password in the wrong place."""
        if value is not None and not isinstance(value, dict):
            self.reader.fault(place, "expected a mapping")
            return {}
        return self.reader.mapping(place, value, known)

    def _users(self, place: Place, value: object) -> dict[str, bytes]:
        users = {}
        for name, hashed in self._mapping(place, value).items():
            if not name or ":" in name or not name.isprintable():
                self.reader.fault(place.key(name), "a user name is not empty and has no colon or control character")
            found = self.reader.value(place.key(name), hashed, web_values.parse_hash)
            if found is not None:
                users[name] = found
        return users

    def _http(self, place: Place, value: object) -> dict[str, str]:
        body = self._mapping(place, value, ("http2", "headers"))
        if "http2" in body:
            self.reader.value(place.key("http2"), body["http2"], parse_boolean)
        place = place.key("headers")
        fields = self._mapping(place, body.get("headers"), web_values.HEADERS)
        parsed = {
            name: self.reader.value(place.key(name), field, web_values.header_parser(web_values.HEADERS[name]))
            for name, field in fields.items()
        }
        return {name: field for name, field in parsed.items() if field}

    def _rate_limit(self, place: Place, value: object) -> RateLimit | None:
        body = self._mapping(place, value, ("interval", "burst"))
        for key, other in (("interval", "burst"), ("burst", "interval")):
            if key in body and other not in body:
                self.reader.fault(place.key(other), f"missing; {key} has no meaning without it")
        if not body:
            return None
        interval = self.reader.value(place.key("interval"), body.get("interval", "0"), web_values.parse_interval)
        burst = self.reader.value(place.key("burst"), body.get("burst", 1), web_values.parse_burst)
        return RateLimit(interval, burst) if interval and burst else None

    def _tls(self, place: Place, value: object) -> TlsConfig | None:
        before = len(self.reader.faults)
        # To the toolkit, an empty text is no text.
        body = {key: item for key, item in self._mapping(place, value, web_values.TLS_KEYS).items() if item != ""}
        if not body:
            return None
        certificate, key = (self._pem(place, body, name, required=True) for name in ("cert", "key"))
        settings = {
            name: self.reader.value(place.key(name), body.get(name, default), parse)
            for name, (default, parse) in web_values.TLS_SETTINGS.items()
        }
        client_auth: ClientAuth | None = settings["client_auth_type"]
        client_ca = self._client_ca(place, body, client_auth)
        sans = self._sans(place.key("client_allowed_sans"), body.get("client_allowed_sans"), client_auth)
        ciphers = self._ciphers(place.key("cipher_suites"), body.get("cipher_suites"))
        least, most = self._versions(place, settings["min_version"], settings["max_version"], ciphers)
        curve = self._curve(place.key("curve_preferences"), body.get("curve_preferences"))
        if certificate is None or key is None or client_auth is None or len(self.reader.faults) > before:
            return None
        tls = TlsConfig(
            certificate=certificate,
            key=key,
            client_ca=client_ca,
            client_auth=client_auth,
            allowed_sans=sans,
            min_version=least,
            max_version=most,
            ciphers=ciphers,
            curve=curve,
            prefer_server_ciphers=settings["prefer_server_cipher_suites"] is not False,
        )
        try:
            server_context(tls)
        except TlsFault as fault:
            given = fault.key if fault.key in body else f"{fault.key}_file"
            named = f"{quoted(body[given])} " if given.endswith("_file") else ""
            self.reader.fault(place.key(given), f"{named}{fault}")
        return tls

    def _versions(
        self, place: Place, least: str | None, most: str | None, ciphers: tuple[str, ...] | None
    ) -> tuple[str, str]:
        if not least or not most:
            return "", ""
        if least > most:
            self.reader.fault(place.key("min_version"), f"{least} is above max_version, {most}")
        if ciphers != ():
            return least, most
        if most == "TLS12":
            self.reader.fault(place.key("cipher_suites"), "none of them is for TLS 1.2, which is the max_version")
        return "TLS13", most  # no suite for TLS 1.2 may be used

    def _pem(self, place: Place, body: Mapping[str, object], name: str, *, required: bool) -> Pem | None:
        """The PEM that is given as text or as a file, by its key of the section."""
        inline, by_path = place.key(name), place.key(f"{name}_file")
        if name in body and f"{name}_file" in body:
            self.reader.fault(inline, f"is given by {name}_file as well")
            return None
        if name in body:
            if name == "key":
                self._secret_files.append(self._path)
            return self.reader.value(inline, body[name], web_values.parse_pem)
        if f"{name}_file" not in body:
            if required:
                self.reader.fault(by_path, "missing")
            return None
        path = self.reader.value(by_path, body[f"{name}_file"], self._parse_path)
        if path is None:
            return None
        if name == "key":
            self._secret_files.append(path)
        text = self._text_of(path)
        if isinstance(text, document.DocumentError):
            self.reader.fault(by_path, str(text))
            return None
        return Pem(text.encode())

    def _parse_path(self, value: object) -> Path:
        if not isinstance(value, str) or "\0" in value:
            raise ValueError("is not a path")
        return self._path.parent / value

    def _client_ca(self, place: Place, body: Mapping[str, object], client_auth: ClientAuth | None) -> Pem | None:
        given = next((key for key in ("client_ca", "client_ca_file") if key in body), None)
        verifies = client_auth in ("VerifyClientCertIfGiven", "RequireAndVerifyClientCert")
        if verifies and given is None:
            self.reader.fault(place.key("client_ca_file"), f"missing; {client_auth} needs it")
        if client_auth and given is not None and not verifies:
            self.reader.fault(
                place.key(given),
                "needs client_auth_type RequireAndVerifyClientCert or VerifyClientCertIfGiven; it is not used with "
                f"{client_auth}",
            )
        return self._pem(place, body, "client_ca", required=False)

    def _sans(self, place: Place, value: object, client_auth: ClientAuth | None) -> frozenset[str]:
        found = [self.reader.value(at, item, web_values.parse_text) for at, item in self.reader.items(place, value)]
        if found and client_auth not in (None, "RequireAndVerifyClientCert"):
            sentence = "needs client_auth_type RequireAndVerifyClientCert; it is not used with"
            self.reader.fault(place, f"{sentence} {client_auth}")
        return frozenset(san for san in found if san)

    def _ciphers(self, place: Place, value: object) -> tuple[str, ...] | None:
        """OpenSSL's names of the suites for TLS 1.2; None where the list is empty, which leaves the choice open."""
        found = [self.reader.value(at, item, web_values.parse_suite) for at, item in self.reader.items(place, value)]
        return tuple(suite for suite in found if suite) if found else None

    def _curve(self, place: Place, value: object) -> str | None:
        found = [self.reader.value(at, item, web_values.parse_curve) for at, item in self.reader.items(place, value)]
        if len(found) > 1:
            self.reader.fault(place, "only one curve can be asked for; leave it out to have OpenSSL's order of them")
        return found[0] if found else None


def _shown(path: Path) -> str:
    return str(path) if str(path).isprintable() else quoted(str(path))
