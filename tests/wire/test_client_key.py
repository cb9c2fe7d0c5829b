"""By what a returning client is recognised: each kind of key, and what nobody may make of it."""

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.closecodes import Vocabulary
from exporter.events import Ending, HandshakeEnded
from exporter.wire.client_key import MAX_HOPS, Hasher, Kind, Network, forwarded_for, identifier
from exporter.wire.upgrade import UpgradeRequest
from exporter.wire.websocket import Watch, unrecognised
from tests.wire.support import KEY, ORIGIN, Observed, accepts, asks, client, close, converse, no_sizes, server

PROXIES = (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))
ADDRESS = "192.0.2.7"


def request(*lines: str, target: str = "/chat") -> UpgradeRequest:
    """The opening handshake with further header lines, as the wire gives it."""
    side, opening = asks(f"GET {target} HTTP/1.1")
    data = opening[:-2] + "".join(f"{line}\r\n" for line in lines).encode("latin-1") + b"\r\n"
    [found] = converse([(side, data)]).requests
    return found


def keys(kind: Kind, name: str, *asked: tuple[str, UpgradeRequest], trusted: Sequence[Network] = PROXIES) -> list[int]:
    """The key of each client, by its address and its handshake, numbered in the order of their appearance."""
    identify = identifier(kind, name, trusted, Hasher(bytes(16)))
    found = [identify(address, request) for address, request in asked]
    return [list(dict.fromkeys(found)).index(key) for key in found]


def test_by_the_address_of_the_peer() -> None:
    """Whatever the handshake says, `remote_addr` is who connects; its port does not come into it."""
    forwarded = request("X-Forwarded-For: 192.0.2.8")
    assert keys("remote_addr", "", (ADDRESS, request()), (ADDRESS, forwarded), ("192.0.2.8", request())) == [0, 0, 1]


@pytest.mark.parametrize(
    ("kind", "name", "mine", "also_mine", "yours", "none"),
    [
        (
            "header",
            "X-Device",
            request("X-Device: a"),
            request("x-device:  a ", "Cookie: X-Device=b"),
            request("X-Device: b"),
            request("X-Device:"),
        ),
        (
            "header",
            "x-device",
            request("X-Device: a", "X-Device: b"),
            request("X-DEVICE: a", "X-Device: b"),
            request("X-Device: b", "X-Device: a"),
            request("Device: a"),
        ),
        (
            "cookie",
            "sid",
            request("Cookie: a=b; sid=1=2; sid=9; c"),
            request("Cookie: c=d", "Cookie:sid=1=2"),
            request("Cookie: sid=1"),
            request("Cookie: SID=1; xsid=1; sid; sid =1"),
        ),
        (
            "query",
            "token",
            request(target="/chat?a=b&token=1%20&token=9"),
            request(target="/other?token=1%20"),
            request(target="/chat?token=1"),
            request("Cookie: token=1", target="/token=1?TOKEN=1&&token&token="),
        ),
    ],
)
def test_by_what_the_handshake_says(
    kind: Kind, name: str, mine: UpgradeRequest, also_mine: UpgradeRequest, yours: UpgradeRequest, none: UpgradeRequest
) -> None:
    """The same value is the same client from any address, another is another; without any it is known by its address.

    Names of headers have no case, those of cookies and parameters do; of equal ones the first counts.
    """
    elsewhere = "198.51.100.1"
    told = ((ADDRESS, mine), (elsewhere, also_mine), (ADDRESS, yours), (ADDRESS, none), (elsewhere, none))
    assert keys(kind, name, *told) == [0, 0, 1, 2, 3]
    missing = identifier(kind, name, (), Hasher(bytes(16)))(ADDRESS, none)
    assert missing == Hasher(bytes(16))(ADDRESS.encode())


@pytest.mark.parametrize(
    ("address", "lines", "client"),
    [
        # Nobody between us and the client.
        (ADDRESS, [], ADDRESS),
        ("10.0.0.1", [], "10.0.0.1"),
        # Somebody who is not trusted may send what they like.
        (ADDRESS, ["203.0.113.9"], ADDRESS),
        (ADDRESS, ["203.0.113.9, 10.0.0.2"], ADDRESS),
        # One proxy, then several; before the first untrusted hop anything may be invented.
        ("10.0.0.1", ["203.0.113.9"], "203.0.113.9"),
        ("10.0.0.1", ["198.51.100.1, 203.0.113.9"], "203.0.113.9"),
        ("10.0.0.1", ["198.51.100.1,203.0.113.9 ,10.0.0.2"], "203.0.113.9"),
        ("10.0.0.1", ["10.9.9.9, 10.0.0.2"], "10.9.9.9"),
        # Several header lines are one list (RFC 9110 section 5.3).
        ("10.0.0.1", ["198.51.100.1", "203.0.113.9", "10.0.0.2"], "203.0.113.9"),
        ("10.0.0.1", ["198.51.100.1, 203.0.113.9", "10.0.0.2, 10.0.0.3"], "203.0.113.9"),
        # What is no address ends the way, whoever wrote it.
        ("10.0.0.1", ["unknown"], "10.0.0.1"),
        ("10.0.0.1", ["203.0.113.9, _hidden, 10.0.0.2"], "10.0.0.2"),
        ("10.0.0.1", ["203.0.113.9,"], "10.0.0.1"),
        ("10.0.0.1", ["203.0.113.9,,10.0.0.2"], "10.0.0.2"),
        ("10.0.0.1", ["203.0.113.256"], "10.0.0.1"),
        ("10.0.0.1", ["203.0.113.9 10.0.0.2"], "10.0.0.1"),
        ("10.0.0.1", ["\xb9\xb2.1.1.1"], "10.0.0.1"),
        ("10.0.0.1", ["2130706433"], "10.0.0.1"),
        # A port, which differs by connection, and the ways to spell an address.
        ("10.0.0.1", ["203.0.113.9:4711"], "203.0.113.9"),
        ("10.0.0.1", ["[2001:db8::9]:4711"], "2001:db8::9"),
        ("10.0.0.1", ["[2001:DB8:0:0::9]"], "2001:db8::9"),
        ("10.0.0.1", ["2001:db8::9"], "2001:db8::9"),
        ("10.0.0.1", ["::ffff:203.0.113.9"], "203.0.113.9"),
        ("10.0.0.1", ["203.0.113.9, ::ffff:10.0.0.2"], "203.0.113.9"),
        ("10.0.0.1", ["::ffff:2001:db8"], "32.1.13.184"),
        # Proxies of the other family.
        ("fd00::1", ["203.0.113.9"], "203.0.113.9"),
        ("fd00::1", ["2001:db8::9, 10.0.0.2, fd00::2"], "2001:db8::9"),
        ("2001:db8::1", ["203.0.113.9"], "2001:db8::1"),
        # No address at all, as of a Unix socket.
        ("", ["203.0.113.9"], ""),
    ],
)
def test_whom_trusted_proxies_vouch_for(address: str, lines: list[str], client: str) -> None:
    """The last address of X-Forwarded-For that is no trusted proxy's, if the connection comes from one."""
    asked = request(*(f"X-Forwarded-For: {line}" for line in lines))
    assert forwarded_for(address, asked, PROXIES) == client
    assert keys("forwarded", "", (address, asked), (client, request())) == [0, 0]


def test_a_chain_of_trusted_proxies_is_followed_only_so_far() -> None:
    """A client in a trusted network may name thousands of proxies, and each costs time: the rest is not looked at."""
    chain = [f"10.0.1.{number}" for number in range(1, 100)]
    asked = request(f"X-Forwarded-For: {', '.join(chain)}")
    assert forwarded_for("10.0.0.1", asked, PROXIES) == chain[-MAX_HOPS]


@given(st.lists(st.ip_addresses(), max_size=8), st.ip_addresses(), st.integers(0, 8))
def test_nobody_behind_an_untrusted_hop_chooses_the_address(
    invented: list[IPv4Address | IPv6Address], own: IPv4Address | IPv6Address, proxies: int
) -> None:
    """Whatever a client sends, trusted proxies append its own address, and that is what it is known by."""
    if isinstance(own, IPv6Address) and own.ipv4_mapped:
        own = own.ipv4_mapped
    trusted = () if any(own in network for network in PROXIES) else PROXIES
    hops = [*map(str, invented), str(own), *(f"10.0.0.{number}" for number in range(proxies))]
    address = "10.0.0.99" if trusted else str(own)
    assert forwarded_for(address, request(f"X-Forwarded-For: {', '.join(hops)}"), trusted) == str(own)


@given(st.binary(max_size=60).map(lambda data: data.decode("latin-1")), st.sampled_from(["10.0.0.1", "::1", ""]))
def test_garbage_is_no_fault(text: str, address: str) -> None:
    """Any bytes of a head make some key, of each kind."""
    fields = {name: [text.encode("latin-1")] for name in (b"x-forwarded-for", b"cookie", b"x")}
    asked = UpgradeRequest(b"", "", "/", "", text.encode("latin-1"), fields)
    kinds: list[Kind] = ["remote_addr", "forwarded", "header", "cookie", "query"]
    for kind in kinds:
        assert 0 <= identifier(kind, "x", PROXIES, Hasher(bytes(16)))(address, asked) < 1 << 56


@pytest.mark.parametrize(
    ("kind", "asked"),
    [
        ("header", request(f"x: {ADDRESS}")),
        ("cookie", request(f"Cookie: x={ADDRESS}")),
        ("query", request(target=f"/?x={ADDRESS}")),
    ],
)
def test_nobody_can_pose_as_an_address(kind: Kind, asked: UpgradeRequest) -> None:
    """A client that says another's address is not taken for that other, who says nothing and is known by it."""
    assert keys(kind, "x", ("198.51.100.1", asked), (ADDRESS, request())) == [0, 1]


@given(st.binary(max_size=100), st.binary(min_size=16, max_size=64), st.binary(min_size=16, max_size=64))
def test_a_key_is_a_hash_with_the_secret_of_the_process(identity: bytes, one: bytes, other: bytes) -> None:
    """56 bits, the same for the same identity and secret, and another with another secret."""
    key = Hasher(one)(identity)
    assert 0 <= key < 1 << 56
    assert key == Hasher(one)(identity)
    assert (key == Hasher(other)(identity)) == (one.ljust(64, b"\0") == other.ljust(64, b"\0"))


def test_keys_use_all_of_their_bits() -> None:
    """Of a thousand keys no two are equal, and each bit is set in about half."""
    found = [Hasher(bytes(16))(str(number).encode()) for number in range(1000)]
    assert len(set(found)) == 1000
    assert all(400 < sum(key >> bit & 1 for key in found) < 600 for bit in range(56))


class TestOnAConnection:
    """How keys get into events."""

    @staticmethod
    def observed(kind: Kind = "remote_addr") -> Observed:
        observed = Observed()
        identify = identifier(kind, "x", (), Hasher(bytes(16)))
        observed.watch = Watch(ORIGIN, Vocabulary(frozenset(), frozenset()), no_sizes(), no_sizes(), identify)
        return observed

    @pytest.mark.parametrize("answer", [accepts(), server("HTTP/1.1 503 No\nContent-Length: 0")])
    def test_each_attempt_tells_who_and_with_what(self, answer: tuple[str, bytes]) -> None:
        """Also one that was rejected; one that nobody answered too."""
        observed = self.observed()
        observed.take(asks(User_Agent="acme/2"), answer)  # type: ignore[arg-type]
        [ended] = observed.of(HandshakeEnded)
        assert (ended.client, ended.user_agent) == (Hasher(bytes(16))(b"192.0.2.7"), "acme/2")
        unanswered = self.observed()
        unanswered.take(asks(User_Agent="acme/2"))
        unanswered.observer.unanswered("failed", "refused")
        [ended] = unanswered.of(HandshakeEnded)
        assert (ended.client, ended.user_agent) == (Hasher(bytes(16))(b"192.0.2.7"), "acme/2")

    def test_the_ending_is_of_the_client_that_was_accepted(self) -> None:
        """By the handshake that made the WebSocket, not by one before it on the same connection."""
        observed = self.observed("header")
        observed.take(asks(X="one"), server("HTTP/1.1 503 No\nContent-Length: 0"), asks(X="two"), accepts())
        observed.take(client(close(1000, key=KEY)))
        one, two = observed.of(HandshakeEnded)
        [ending] = observed.of(Ending)
        assert ending.client == two.client
        assert one.client not in (two.client, None)

    def test_user_agents_are_cut(self) -> None:
        """They live as long as their connection, and a head may be long."""
        observed = self.observed()
        observed.take(asks(User_Agent="a" * 5000), accepts())
        [ended] = observed.of(HandshakeEnded)
        assert ended.user_agent == "a" * 1024

    def test_keys_do_not_show(self) -> None:
        """Neither an event that is printed nor one that is logged whole tells a key."""
        observed = self.observed()
        observed.take(asks(), accepts(), client(close(1000, key=KEY)))
        key = observed.of(Ending)[0].client
        assert key is not None
        assert not [event for event in observed.events if str(key) in repr(event)]


def test_without_a_rule_no_client_is_told_from_another() -> None:
    """A source that recognises nobody gives no key."""
    assert unrecognised(ADDRESS, request()) is None
