"""Which target an opening handshake belongs to, and what is watched for it."""

from collections.abc import Callable, Mapping
from dataclasses import replace

from exporter.config import Match, Target
from exporter.events import Origin, Source
from exporter.metrics.recorder import Recorder
from exporter.wire.client_key import Hasher, identifier
from exporter.wire.upgrade import UpgradeRequest
from exporter.wire.websocket import Watch


class Targets:
    """The configured targets as one source sees them. Every target's series are born with it.

    `hasher` makes the keys by which their clients are recognised.
    """

    def __init__(self, source: Source, targets: Mapping[str, Target], recorder: Recorder, hasher: Hasher) -> None:
        self._source = source
        self._recorder = recorder
        self._hasher = hasher
        self._watches: dict[str, Watch] = {}
        self._matches: list[tuple[Match, Watch]] = []
        self.update(targets)

    def update(self, targets: Mapping[str, Target]) -> None:
        """Take these targets from now on; connections that exist keep what they began with."""
        self._watches = {}
        for name, target in targets.items():
            origin = Origin(self._source, name)
            watch = self._recorder.watch(origin, target.vocabulary(), target.client_builds)
            rule = target.client_key
            identify = identifier(rule.kind, rule.name, target.trusted_proxies, self._hasher)
            self._watches[name] = replace(watch, identify=identify)
            self._recorder.message_size_limit(origin, "client_to_server", target.limits.client_to_server)
            self._recorder.message_size_limit(origin, "server_to_client", target.limits.server_to_client)
        self._matches = [
            (target.match, self._watches[name]) for name, target in targets.items() if target.match != Match()
        ]

    @property
    def watches(self) -> Mapping[str, Watch]:
        """What is watched, by target."""
        return self._watches

    def chooser(self, otherwise: str) -> Callable[[UpgradeRequest], Watch]:
        """Finds the first target whose match accepts a handshake; one that none accepts is `otherwise`'s."""

        def choose(request: UpgradeRequest) -> Watch:
            for match, watch in self._matches:
                if match.accepts(request.host, request.path):
                    return watch
            return self._watches[otherwise]

        return choose
