"""What one value of a web configuration file looks like; the names are those of Go and of exporter-toolkit.

All parsers raise ValueError with the sentence that the operator reads. None shows a hash or a key.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from exporter.config.certificates import VERIFY_MODES, VERSIONS, ClientAuth, Pem
from exporter.config.values import parse_boolean, quoted

LEAST_COST: Final = 4
"""bcrypt's own."""
MOST_COST: Final = 16
"""Takes about four seconds; with more, the first scrape would run into Prometheus' timeout of ten."""

HEADERS: Final[Mapping[str, tuple[str, ...]]] = {
    "Content-Security-Policy": (),
    "Strict-Transport-Security": (),
    "X-Content-Type-Options": ("nosniff",),
    "X-Frame-Options": ("deny", "sameorigin"),
    "X-XSS-Protection": (),
}
_SUITES: Final[Mapping[str, str]] = {
    f"TLS_ECDHE_{key}_WITH_{suite}": f"ECDHE-{key}-{name}"
    for key in ("ECDSA", "RSA")
    for suite, name in {
        "AES_128_CBC_SHA": "AES128-SHA",
        "AES_256_CBC_SHA": "AES256-SHA",
        "AES_128_GCM_SHA256": "AES128-GCM-SHA256",
        "AES_256_GCM_SHA384": "AES256-GCM-SHA384",
        "CHACHA20_POLY1305_SHA256": "CHACHA20-POLY1305",
    }.items()
}
_SUITES_OF_TLS13: Final = ("TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256")
_CURVES: Final = {"CurveP256": "prime256v1", "CurveP384": "secp384r1", "CurveP521": "secp521r1", "X25519": "X25519"}
_UNIT_SECONDS: Final = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION_PART: Final = r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(ns|us|µs|ms|s|m|h)"
_MOST_BURST: Final = 1_000_000
# The 22nd character of the salt has four bits that do not matter: bcrypt's own libraries leave them zero.
_BCRYPT: Final = re.compile(r"\$2[aby]\$([0-9]{2})\$[./A-Za-z0-9]{21}[.Oeu][./A-Za-z0-9]{31}")


def parse_text(value: object) -> str:
    """Text that is not empty."""
    if not isinstance(value, str) or not value:
        raise ValueError("expected text")
    return value


def parse_pem(value: object) -> Pem:
    """PEM that stands in the file itself."""
    return Pem(parse_text(value).encode())


def parse_hash(value: object) -> bytes:
    """A bcrypt hash whose cost is one that can be waited for."""
    parts = _BCRYPT.fullmatch(value) if isinstance(value, str) else None
    if parts is None:
        raise ValueError("is not a bcrypt hash; its 60 characters begin with $2a$, $2b$ or $2y$")
    if not LEAST_COST <= int(parts[1]) <= MOST_COST:
        raise ValueError(f"has a bcrypt cost of {int(parts[1])}, which is not between {LEAST_COST} and {MOST_COST}")
    return parts[0].encode()


def header_parser(allowed: tuple[str, ...]) -> Callable[[object], str]:
    """A parser of a header's value, which is one of those that are `allowed` if there are any. Empty is unset."""

    def parse(value: object) -> str:
        field = str(value) if type(value) is int else value  # X-XSS-Protection: 0
        if not isinstance(field, str) or not re.fullmatch(r"[\t -~]*", field):
            raise ValueError(f"{quoted(value)} is not a header's value")
        if field and allowed and field not in allowed:
            raise ValueError(f"{quoted(value)} is not one of {', '.join(allowed)}")
        return field.strip()

    return parse


def parse_interval(value: object) -> float:
    """Seconds, from one of Go's durations; or 0."""
    duration = str(value) if isinstance(value, str | int) else ""
    if not re.fullmatch(rf"(?:{_DURATION_PART})+|0", duration):
        raise ValueError(f"{quoted(value)} is not a duration like 100ms or 1s")
    return sum(float(number) * _UNIT_SECONDS[unit] for number, unit in re.findall(_DURATION_PART, duration))


def parse_burst(value: object) -> int:
    """A number of requests; with none, nothing would ever pass."""
    if type(value) is not int or not 1 <= value <= _MOST_BURST:
        raise ValueError(f"{quoted(value)} is not a number between 1 and {_MOST_BURST}")
    return value


def parse_client_auth(value: object) -> ClientAuth:
    """One of Go's values that can be done here."""
    if value in ("RequireAnyClientCert", "RequireClientCert"):
        raise ValueError(
            f"{quoted(value)} wants a certificate that nobody verifies, which this exporter cannot ask for; "
            "use RequireAndVerifyClientCert"
        )
    for name in VERIFY_MODES:
        if value == name:
            return name
    raise ValueError(f"{quoted(value)} is not one of {', '.join(VERIFY_MODES)}")


def parse_version(value: object) -> str:
    """TLS12 or TLS13."""
    if value in ("TLS10", "TLS11"):
        raise ValueError(f"{quoted(value)} must not be used any more (RFC 8996); use TLS12 or TLS13")
    if not isinstance(value, str) or value not in VERSIONS:
        raise ValueError(f"{quoted(value)} is not one of {', '.join(VERSIONS)}")
    return value


def parse_suite(value: object) -> str:
    """OpenSSL's name; empty for a suite of TLS 1.3, which are all offered anyway, as in Go."""
    if value in _SUITES_OF_TLS13:
        return ""
    if not isinstance(value, str) or value not in _SUITES:
        raise ValueError(f"{quoted(value)} is not one of the cipher suites of Go's crypto/tls.CipherSuites")
    return _SUITES[value]


def parse_curve(value: object) -> str:
    """OpenSSL's name."""
    if not isinstance(value, str) or value not in _CURVES:
        raise ValueError(f"{quoted(value)} is not one of {', '.join(_CURVES)}")
    return _CURVES[value]


TLS_SETTINGS: Final[Mapping[str, tuple[object, Callable[[object], Any]]]] = {
    "client_auth_type": ("NoClientCert", parse_client_auth),
    "min_version": ("TLS12", parse_version),
    "max_version": ("TLS13", parse_version),
    "prefer_server_cipher_suites": (True, parse_boolean),
}
"""The scalar settings of tls_server_config: the default and the parser of each."""

TLS_KEYS: Final = (
    "cert",
    "cert_file",
    "key",
    "key_file",
    "client_ca",
    "client_ca_file",
    "client_allowed_sans",
    "cipher_suites",
    "curve_preferences",
    *TLS_SETTINGS,
)
