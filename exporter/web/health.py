"""Asks a running exporter whether it is healthy; imports nothing heavy, because containers ask every few seconds."""

from http.client import HTTPConnection, HTTPException, HTTPSConnection, InvalidURL
from typing import Final
from urllib.parse import urlsplit

DEFAULT_URL: Final = "http://127.0.0.1:11009/-/healthy"

_CONNECTIONS: Final = {"http": HTTPConnection, "https": HTTPSConnection}


def check(url: str = DEFAULT_URL, timeout: float = 3.0) -> tuple[bool, str]:
    """Whether a GET of `url` is answered 200 within `timeout` seconds, and one sentence that says what came of it.

    Goes straight to the host: proxies of the environment are not asked, and redirects not followed.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return False, f"{url} is not a URL"
    if parts.scheme not in _CONNECTIONS or not host:
        return False, f"{url} is not an http:// or https:// URL"
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    connection = _CONNECTIONS[parts.scheme](host, port, timeout=timeout)
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
    except OSError as reason:
        return False, f"cannot reach {url}: {(reason.strerror or str(reason)).lower()}"
    finally:
        connection.close()
    return status == 200, f"{url} is healthy" if status == 200 else f"{url} answered {status}"
