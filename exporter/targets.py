"""Which target an opening handshake belongs to, and what is watched for it."""

from collections.abc import Callable, Mapping

from exporter.config import Match, Target
from exporter.events import Origin, Source
from exporter.metrics.recorder import Recorder
from exporter.wire.upgrade import UpgradeRequest
from exporter.wire.websocket import Watch


class Targets:
    """The configured targets as one source sees them. Every target's series are born with it."""

    def __init__(self, source: Source, targets: Mapping[str, Target], recorder: Recorder) -> None:
        self._source = source
        self._recorder = recorder
        self._watches: dict[str, Watch] = {}
        self._matches: list[tuple[Match, Watch]] = []
        self.update(targets)

    def update(self, targets: Mapping[str, Target]) -> None:
        """Take these targets from now on; connections that exist keep what they began with."""
        self._watches = {
            name: self._recorder.watch(Origin(self._source, name), target.vocabulary())
            for name, target in targets.items()
        }
        self._matches = [
            (target.match, self._watches[name]) for name, target in targets.items() if target.match != Match()
        ]

    def chooser(self, otherwise: str) -> Callable[[UpgradeRequest], Watch]:
        """Finds the first target whose match accepts a handshake; one that none accepts is `otherwise`'s."""

        def choose(request: UpgradeRequest) -> Watch:
            for match, watch in self._matches:
                if match.accepts(request.host, request.path):
                    return watch
            return self._watches[otherwise]

        return choose
