"""Which addresses are the same socket, as far as their text tells: names are not resolved."""

import ipaddress
from typing import Final

from exporter.config.values import Address, UnixPath

_LOOPBACK_NAMES: Final = {"localhost": "127.0.0.1", "ip6-localhost": "::1", "ip6-loopback": "::1"}


def same_socket(one: Address, other: Address) -> bool:
    """Whether two listeners cannot exist at the same time."""
    hosts = _canonical(one.host), _canonical(other.host)
    return one.port == other.port != 0 and (_covers(*hosts) or _covers(*reversed(hosts)))


def dials(upstream: Address | UnixPath, listener: Address) -> bool:
    """Whether connecting to `upstream` surely reaches `listener`, both seen from the same machine."""
    if isinstance(upstream, UnixPath) or upstream.port != listener.port:
        return False
    here, there = _canonical(listener.host), _canonical(upstream.host)
    return here == there or (dials_loopback(upstream) and _covers(here, there))


def dials_loopback(upstream: Address | UnixPath) -> bool:
    """Whether connecting to `upstream` goes over TCP on the loopback interface."""
    # Linux takes the unspecified address, as a destination, for its own loopback address.
    return isinstance(upstream, Address) and (upstream.host in ("0.0.0.0", "::") or is_loopback(upstream.host))


def ip_version(host: str) -> int | None:
    """4 or 6; None for a name, which may have addresses of both."""
    try:
        return ipaddress.ip_address(host).version
    except ValueError:
        return None


def is_loopback(host: str) -> bool:
    """Whether `host` is an address of the loopback interface."""
    try:
        address = ipaddress.ip_address(_canonical(host))
    except ValueError:
        return host.lower().endswith(".localhost")  # RFC 6761 section 6.3
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


def _canonical(host: str) -> str:
    host = _LOOPBACK_NAMES.get(host.lower(), host.lower())
    return ipaddress.IPv6Address(host).compressed if ":" in host else host


def _covers(listener: str, host: str) -> bool:
    match listener:
        case "" | "::":  # an unspecified IPv6 listener takes IPv4 connections too: ipv6(7), IPV6_V6ONLY
            return True
        case "0.0.0.0":
            return ":" not in host
        case _:
            return listener == host
