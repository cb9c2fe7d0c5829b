"""Asks a running exporter whether it is healthy; imports nothing heavy, because containers ask every few seconds."""

import ipaddress
import ssl
from http.client import HTTPConnection, HTTPException, HTTPSConnection, InvalidURL
from typing import Final
from urllib.parse import urlsplit

DEFAULT_URL: Final = "http://127.0.0.1:11009/-/healthy"

_GUARDED: Final = {401: "asks for a password", 429: "asks to come less often"}
_CERTIFICATE_WANTED: Final = ("TLSV13_ALERT_CERTIFICATE_REQUIRED", "SSLV3_ALERT_HANDSHAKE_FAILURE")
"""What a server that wants a client certificate says in TLS 1.3 and 1.2."""


def check(url: str = DEFAULT_URL, timeout: float = 3.0) -> tuple[bool, str]:
    """Whether a GET of `url` is answered 200 within `timeout` seconds, and one sentence that says what came of it.

    Whoever is asked for a password or a client certificate has met an exporter that is alive: that is health, too.
    Goes straight to the host: proxies of the environment are not asked, and redirects not followed. Over loopback a
    certificate is not verified, because it names another host; elsewhere it is.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return False, f"{url} is not a URL"
    if parts.scheme not in ("http", "https") or not host:
        return False, f"{url} is not an http:// or https:// URL"
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if parts.scheme == "https":
        connection: HTTPConnection = HTTPSConnection(host, port, timeout=timeout, context=_context(host))
    else:
        connection = HTTPConnection(host, port, timeout=timeout)
    try:
        connection.request("GET", path, headers={"User-Agent": "websocket-exporter-health"})
        status = connection.getresponse().status
    except ConnectionRefusedError:
        return False, f"{url} refused the connection"
    except TimeoutError:
        return False, f"{url} did not answer within {timeout:g} s"
    except InvalidURL:
        return False, f"{url} is not a URL"
    except HTTPException:
        return False, f"{url} did not answer in HTTP"
    except ssl.SSLCertVerificationError as reason:
        return False, f"{url} has a certificate that is not trusted: {reason.verify_message.lower()}"
    except ssl.SSLError as reason:
        if reason.reason in _CERTIFICATE_WANTED:
            return True, f"{url} is healthy, and asks for a client certificate"
        return False, f"{url} did not answer in TLS: {(reason.reason or str(reason)).replace('_', ' ').lower()}"
    except OSError as reason:
        return False, f"cannot reach {url}: {(reason.strerror or str(reason)).lower()}"
    finally:
        connection.close()
    if status in _GUARDED:
        return True, f"{url} is healthy, and {_GUARDED[status]}"
    return status == 200, f"{url} is healthy" if status == 200 else f"{url} answered {status}"


def _context(host: str) -> ssl.SSLContext:
    if not _is_loopback(host):
        return ssl.create_default_context()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
