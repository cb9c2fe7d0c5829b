"""By what a returning client is recognised: a hash of something that its opening handshake carries.

The hash is keyed with a secret of the process, so that nobody who sees it could find out whose it is.
"""

import ipaddress
from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import Final, Literal

from exporter.events import ClientKey
from exporter.wire.upgrade import UpgradeRequest

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Kind = Literal["remote_addr", "forwarded", "header", "cookie", "query"]
Identify = Callable[[str, UpgradeRequest], ClientKey]

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
    find: Callable[[str, UpgradeRequest], bytes]
    key = name.encode()
    match kind:
        case "remote_addr":
            return lambda address, _: hasher(address.encode())
        case "forwarded":
            return lambda address, request: hasher(forwarded_for(address, request, trusted).encode())
        case "header":
            lower = key.lower()

            def find(_: str, request: UpgradeRequest) -> bytes:
                return b",".join(request.fields.get(lower, ()))
        case "cookie":

            def find(_: str, request: UpgradeRequest) -> bytes:
                return _pair(b";".join(request.fields.get(b"cookie", ())), b";", key)
        case "query":

            def find(_: str, request: UpgradeRequest) -> bytes:
                return _pair(request.query, b"&", key)

    def identify(address: str, request: UpgradeRequest) -> ClientKey:
        found = find(address, request)
        # A prefix keeps what clients choose apart from addresses: nobody can pose as another one's address.
        return hasher(b"=" + found) if found else hasher(address.encode())

    return identify


def forwarded_for(address: str, request: UpgradeRequest, trusted: Sequence[Network]) -> str:
    """The last address on the way to the client that no trusted proxy vouches for.

    Each proxy appends whom it heard from (X-Forwarded-For); what comes before an untrusted hop may be invented.
    """
    hops = b",".join(request.fields.get(b"x-forwarded-for", ())).decode("ascii", "replace").split(",")
    while _within(address, trusted) and hops:
        hop = hops.pop().strip()
        if not hop:
            break
        address = hop
    return address


def _within(address: str, networks: Sequence[Network]) -> bool:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    return any(parsed in network for network in networks)


def _pair(text: bytes, separator: bytes, key: bytes) -> bytes:
    """The value of the first `key=value` in a list."""
    for pair in text.split(separator):
        name, equals, value = pair.strip().partition(b"=")
        if equals and name == key:
            return value
    return b""
