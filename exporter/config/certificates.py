"""PEM and TLS settings become a context for handshakes, or one sentence about what is wrong with which of them."""

import os
import re
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final, Literal

import msgspec

ClientAuth = Literal["NoClientCert", "RequestClientCert", "VerifyClientCertIfGiven", "RequireAndVerifyClientCert"]
"""Go's crypto/tls.ClientAuthType without RequireAnyClientCert: Python's ssl cannot ask for what nobody verifies."""

VERIFY_MODES: Final[Mapping[ClientAuth, ssl.VerifyMode]] = {
    "NoClientCert": ssl.CERT_NONE,
    "RequestClientCert": ssl.CERT_NONE,
    "VerifyClientCertIfGiven": ssl.CERT_OPTIONAL,
    "RequireAndVerifyClientCert": ssl.CERT_REQUIRED,
}
"""RequestClientCert lets everybody in, whatever they show: nobody notices that they are not asked."""

VERSIONS: Final[Mapping[str, ssl.TLSVersion]] = {"TLS12": ssl.TLSVersion.TLSv1_2, "TLS13": ssl.TLSVersion.TLSv1_3}

_CERTIFICATE: Final = re.compile(rb"-----BEGIN CERTIFICATE-----[\s\x21-\x7e]*?-----END CERTIFICATE-----")
_OF_ANOTHER: Final = ("KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED")
_TOO_WEAK: Final = ("EE_KEY_TOO_SMALL", "CA_KEY_TOO_SMALL", "CA_MD_TOO_WEAK")


class Pem(msgspec.Struct, frozen=True):
    """A PEM file as it was read. It may be a private key, which no traceback and no log shall show."""

    data: bytes

    def __repr__(self) -> str:
        return "Pem(...)"


class TlsConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How the listeners shake hands. `ciphers` are OpenSSL's names, for TLS 1.2; None is OpenSSL's choice.

    `allowed_sans` are the names of which a client's certificate must have one; empty allows every name.
    """

    certificate: Pem
    key: Pem
    client_ca: Pem | None = None
    client_auth: ClientAuth = "NoClientCert"
    allowed_sans: frozenset[str] = frozenset()
    min_version: str = "TLS12"
    max_version: str = "TLS13"
    ciphers: tuple[str, ...] | None = None
    curve: str | None = None
    prefer_server_ciphers: bool = True

    @property
    def verifies_clients(self) -> bool:
        """Whether every client has shown a certificate that its certificate authority signed."""
        return self.client_auth == "RequireAndVerifyClientCert"


class TlsFault(Exception):
    """`key` cannot be used, for the reason that the text gives."""

    def __init__(
        self, key: Literal["cert", "key", "client_ca", "cipher_suites", "curve_preferences"], why: str
    ) -> None:
        super().__init__(why)
        self.key = key


def server_context(tls: TlsConfig) -> ssl.SSLContext:
    """A context for the handshakes of a server. Raises TlsFault."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = VERSIONS[tls.min_version]
    context.maximum_version = VERSIONS[tls.max_version]
    context.options |= ssl.OP_NO_RENEGOTIATION
    if not tls.prefer_server_ciphers:
        context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
    context.set_alpn_protocols(["http/1.1"])
    _select(context, tls)
    _check(tls.certificate)
    _load(context, tls)
    if tls.client_ca is not None:
        _trust(context, tls.client_ca)
        # As in Go, whatever the file holds is trusted as it is, be it an intermediate or the client's own certificate.
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.verify_mode = VERIFY_MODES[tls.client_auth]
    return context


def _select(context: ssl.SSLContext, tls: TlsConfig) -> None:
    if tls.ciphers:
        try:
            context.set_ciphers(":".join(tls.ciphers))
        except ssl.SSLError:
            raise TlsFault("cipher_suites", "OpenSSL has none of them here") from None
    if tls.curve is not None:
        try:
            context.set_ecdh_curve(tls.curve)
        except (ssl.SSLError, ValueError):
            raise TlsFault("curve_preferences", "OpenSSL does not have it here") from None


def _check(certificate: Pem) -> None:
    """OpenSSL reports any fault of a certificate and its key alike: here it sees the certificates alone."""
    try:
        _add(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), certificate)
    except ValueError as fault:
        raise TlsFault("cert", str(fault)) from None


def _trust(context: ssl.SSLContext, client_ca: Pem) -> None:
    try:
        _add(context, client_ca)
    except ValueError as fault:
        raise TlsFault("client_ca", str(fault)) from None


def _add(context: ssl.SSLContext, pem: Pem) -> None:
    # Only the certificates: OpenSSL wants ASCII, and the text around them may be anything (RFC 7468 section 2).
    found = _CERTIFICATE.findall(pem.data)
    if not found:
        raise ValueError("holds no certificate in PEM form")
    try:
        context.load_verify_locations(cadata=b"\n".join([*found, b""]).decode("ascii"))
    except ssl.SSLError:
        raise ValueError("holds a damaged certificate") from None


def _load(context: ssl.SSLContext, tls: TlsConfig) -> None:
    def refuse() -> str:
        raise TlsFault("key", "is encrypted, and there is nobody to ask for its passphrase")

    try:
        with _as_file(tls.certificate) as certificate, _as_file(tls.key) as key:
            context.load_cert_chain(certificate, key, refuse)
    except ssl.SSLError as error:
        if error.reason in _OF_ANOTHER:
            raise TlsFault("key", "does not belong to the certificate") from None
        if error.reason in _TOO_WEAK:
            raise TlsFault("cert", "is too weak: OpenSSL refuses its key or its signature") from None
        raise TlsFault("key", "holds no private key in PEM form") from None


@contextmanager
def _as_file(pem: Pem) -> Iterator[str]:
    """A path under which OpenSSL, which takes no bytes, finds them; a key that came inline never reaches a disk."""
    with open(os.memfd_create("pem"), "wb") as file:
        file.write(pem.data)
        file.flush()
        yield f"/proc/self/fd/{file.fileno()}"
