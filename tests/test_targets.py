"""Which target a handshake belongs to."""

from collections.abc import Mapping
from ipaddress import ip_network

import msgspec
import pytest

from exporter.config import Limits, Match, Target
from exporter.config.values import KeyRule
from exporter.events import Origin
from exporter.metrics.recorder import Recorder
from exporter.targets import Targets
from exporter.wire.client_key import Hasher
from exporter.wire.sizes import UNLIMITED
from exporter.wire.upgrade import UpgradeRequest


def named(*targets: Target) -> Mapping[str, Target]:
    return {target.name: target for target in targets}


def watched(*targets: Target, recorder: Recorder | None = None) -> Targets:
    return Targets("tap", named(*targets), recorder or Recorder(lambda: 0.0), Hasher(bytes(16)))


def asked(host: str = "chat.example.com", path: str = "/") -> UpgradeRequest:
    return UpgradeRequest(key=b"", host=host, path=path, user_agent="")


CHAT = Target("chat")
ROOMS = Target("rooms", match=Match(path="/rooms/*"))
EXAMPLE = Target("example", match=Match(host="*.example.com"))
NARROW = Target("narrow", match=Match(host="*.example.com", path="/rooms/7"))


@pytest.mark.parametrize(
    ("targets", "request_", "chosen"),
    [
        ((CHAT,), asked(), "chat"),
        ((CHAT, ROOMS), asked(path="/rooms/1"), "rooms"),
        ((CHAT, ROOMS), asked(path="/room"), "chat"),
        ((CHAT, EXAMPLE), asked(host="CHAT.Example.com:8080"), "example"),
        ((CHAT, EXAMPLE), asked(host="example.org"), "chat"),
        ((CHAT, EXAMPLE), asked(host=""), "chat"),
        ((CHAT, ROOMS, NARROW), asked(path="/rooms/7"), "rooms"),
        ((CHAT, NARROW, ROOMS), asked(path="/rooms/7"), "narrow"),
        ((ROOMS, CHAT), asked(path="/elsewhere"), "chat"),
    ],
)
def test_the_first_match_wins(targets: tuple[Target, ...], request_: UpgradeRequest, chosen: str) -> None:
    """Targets are tried in the order of the configuration; what none matches is the listener's own target's."""
    choose = watched(*targets).chooser("chat")
    assert choose(request_).origin == Origin("tap", chosen)


def test_a_listener_s_own_target_need_not_match() -> None:
    """What no target matches counts for the listener's own, even if that has a match of its own."""
    choose = watched(ROOMS).chooser("rooms")
    assert choose(asked(path="/elsewhere")).origin.target == "rooms"


def test_series_are_born_with_the_targets() -> None:
    """A target has its series before anybody connects, also one that a reload adds."""
    recorder = Recorder(lambda: 0.0)
    targets = watched(CHAT, recorder=recorder)
    assert active(recorder) == {"chat"}
    targets.update(named(CHAT, ROOMS))
    assert active(recorder) == {"chat", "rooms"}


def test_new_settings_hold_for_new_handshakes() -> None:
    """A chooser made before an update follows it; what it gave before keeps its codes and shares its sizes."""
    targets = watched(CHAT)
    choose = targets.chooser("chat")
    before = choose(asked())
    targets.update(named(Target("chat", codes=frozenset({4001})), ROOMS))
    after = choose(asked())
    assert (before.vocabulary.wire_label(4001), after.vocabulary.wire_label(4001)) == ("4xxx", "4001")
    assert after.client_to_server.plain is before.client_to_server.plain
    assert choose(asked(path="/rooms/1")).origin.target == "rooms"


def test_a_new_rule_recognises_clients_of_new_handshakes() -> None:
    """By another part of the handshake, with the same secret; a watch given before keeps its rule."""
    targets = watched(CHAT)
    choose = targets.chooser("chat")
    before = choose(asked())
    mine = msgspec.structs.replace(CHAT, client_key=KeyRule("query", "id"))
    targets.update(named(mine))
    after = choose(asked())
    one, other = (UpgradeRequest(b"", "", "/", "", query) for query in (b"id=1", b"id=2"))
    assert before.identify("192.0.2.1", one) == before.identify("192.0.2.1", other)
    assert after.identify("192.0.2.1", one) != after.identify("192.0.2.1", other)
    assert after.identify("192.0.2.1", asked()) == before.identify("192.0.2.1", asked())


def test_trusted_proxies_are_those_of_the_target() -> None:
    """Each target has its own."""
    trusting = Target("chat", client_key=KeyRule("forwarded"), trusted_proxies=(ip_network("10.0.0.0/8"),))
    other = msgspec.structs.replace(trusting, name="other", trusted_proxies=(ip_network("192.0.2.0/24"),))
    watches = watched(trusting, other).watches
    request = UpgradeRequest(b"", "", "/", "", fields={b"x-forwarded-for": [b"203.0.113.9"]})
    client = Hasher(bytes(16))(b"203.0.113.9")
    assert watches["chat"].identify("10.0.0.1", request) == client
    assert watches["other"].identify("10.0.0.1", request) == Hasher(bytes(16))(b"10.0.0.1")


def test_a_new_limit_holds_for_what_is_open() -> None:
    """Sizes are held against the limit of the moment, for old connections too, and no longer when it is taken away."""
    recorder = Recorder(lambda: 0.0)
    targets = watched(msgspec.structs.replace(CHAT, limits=Limits(1000)), recorder=recorder)
    sizes = targets.watches["chat"].client_to_server
    assert sizes.moment.near == 125
    targets.update(named(msgspec.structs.replace(CHAT, limits=Limits(10_000, 20_000))))
    assert sizes.moment.near == 1000
    assert targets.watches["chat"].server_to_client.moment.near == 2000
    targets.update(named(CHAT))
    assert sizes.moment.near == UNLIMITED


def test_builds_have_series_from_the_start() -> None:
    """Each listed client build, also one that a reload adds."""
    recorder = Recorder(lambda: 0.0)
    targets = watched(msgspec.structs.replace(CHAT, client_builds=("acme-app/*",)), recorder=recorder)
    targets.update(named(msgspec.structs.replace(CHAT, client_builds=("okhttp/*",))))
    assert labels(recorder, "websocket_client_build_reconnects_total", "build") == {"acme-app/*", "okhttp/*"}


def active(recorder: Recorder) -> set[str]:
    """The targets that have series."""
    return labels(recorder, "websocket_connections_active", "target")


def labels(recorder: Recorder, name: str, label: str) -> set[str]:
    """The values of a label of these samples."""
    return {sample.labels[label] for family in recorder.collect() for sample in family.samples if sample.name == name}
