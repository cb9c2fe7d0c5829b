"""Which target a handshake belongs to."""

from collections.abc import Mapping

import pytest

from exporter.config import Match, Target
from exporter.events import Origin
from exporter.metrics.recorder import Recorder
from exporter.targets import Targets
from exporter.wire.client_key import Hasher
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


def active(recorder: Recorder) -> set[str]:
    """The targets that have series."""
    return {
        sample.labels["target"]
        for family in recorder.collect()
        for sample in family.samples
        if sample.name == "websocket_connections_active"
    }
