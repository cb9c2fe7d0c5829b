"""By what a returning client is recognised: a hash of something that its opening handshake carries.

The hash is keyed with a secret of the process, so that nobody who sees it could find out whose it is.
"""

import ipaddress
from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from typing import Final, Literal

from exporter.events import ClientKey
from exporter.wire.upgrade import UpgradeRequest

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Kind = Literal["remote_addr", "forwarded", "header", "cookie", "query"]
Identify = Callable[[str, UpgradeRequest], ClientKey]

MAX_HOPS: Final = 16
"""Proxies in a row that are believed: a client within a trusted network could name thousands."""

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_DIGEST: Final = 7  # bytes: an int of them takes 32, and of 100,000 clients two are mistaken once in ten million times


class Hasher:
    """Makes keys of what clients are recognised by; `secret` is 16 to 64 random bytes of this process."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def __call__(self, identity: bytes) -> ClientKey:
        """The key of whoever has this identity."""
        return ClientKey(int.from_bytes(blake2b(identity, digest_size=_DIGEST, key=self._secret).digest()))


def identifier(kind: Kind, name: str, trusted: Sequence[Network], hasher: Hasher) -> Identify:
    """How to recognise clients: by the TCP peer's address, or by what a header, cookie or query parameter `name` says.

    `forwarded` believes X-Forwarded-For as far as its proxies are in `trusted`. A client whose handshake lacks what it
    should be recognised by is known by its address.
    """
    if kind == "remote_addr":
        return lambda address, _: hasher(address.encode())
    if kind == "forwarded":
        return lambda address, request: hasher(forwarded_for(address, request, trusted).encode())
    said, key = _SAID[kind], name.encode()

    def identify(address: str, request: UpgradeRequest) -> ClientKey:
        found = said(request, key)
        # A prefix keeps what clients choose apart from addresses: nobody can pose as another one's address.
        return hasher(b"=" + found) if found else hasher(address.encode())

    return identify


def forwarded_for(address: str, request: UpgradeRequest, trusted: Sequence[Network]) -> str:
    """The last address on the way to the client that no trusted proxy vouches for.

    Each proxy appends whom it heard from to X-Forwarded-For; what stands before an untrusted hop may be invented. A hop
    that is no address (`unknown`) ends the way too: then the client is known by the proxy that wrote it.
    """
    found = _address(address)
    if found is None:
        return address
    hops = b",".join(request.fields.get(b"x-forwarded-for", ())).decode("ascii", "replace").rsplit(",", MAX_HOPS)
    while hops and any(found in network for network in trusted):
        hop = _address(hops.pop().strip())
        if hop is None:
            break
        found = hop
    return str(found)


def _address(text: str) -> _Address | None:
    """The address that a proxy wrote, in one spelling: without its port, which differs by connection, and unmapped."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        return None
    return (found.ipv4_mapped or found) if isinstance(found, ipaddress.IPv6Address) else found


def _header(request: UpgradeRequest, name: bytes) -> bytes:
    return b",".join(request.fields.get(name.lower(), ()))


def _cookie(request: UpgradeRequest, name: bytes) -> bytes:
    return _pair(b";".join(request.fields.get(b"cookie", ())), b";", name)


def _query(request: UpgradeRequest, name: bytes) -> bytes:
    return _pair(request.query, b"&", name)


def _pair(text: bytes, separator: bytes, key: bytes) -> bytes:
    """The value of the first `key=value` in a list."""
    for pair in text.split(separator):
        name, _, value = pair.strip().partition(b"=")
        if name == key:
            return value
    return b""


_SAID: Final[Mapping[Kind, Callable[[UpgradeRequest, bytes], bytes]]] = {
    "header": _header,
    "cookie": _cookie,
    "query": _query,
}
