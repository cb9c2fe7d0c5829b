"""The Sink that counts, and the one writer of every metric. It never touches a socket."""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final

from prometheus_client.core import Metric as Family
from prometheus_client.registry import Collector

from exporter import __version__
from exporter.closecodes import FOLDED, REGISTRY, Vocabulary
from exporter.events import (
    AFTERS,
    ANOMALY_KINDS,
    BUILD_WITHINS,
    DIRECTIONS,
    EVIDENCES,
    PROBE_FAILURES,
    REJECTIONS,
    RINGS,
    SIDES,
    UNPARSED_REASONS,
    VERDICTS,
    WITHINS,
    AnomalySeen,
    Attached,
    BuildWithin,
    CaptureStanding,
    Closed,
    Count,
    Direction,
    HandshakeEnded,
    Listener,
    MassCloseEnded,
    MassCloseLost,
    MassCloseReturned,
    MessageRefused,
    Origin,
    PingAnswered,
    ProbeFailed,
    ProbeUp,
    ProbeWaits,
    Reconnected,
    Reported,
    Standing,
    StreamUnparsed,
)
from exporter.metrics import catalogue
from exporter.metrics.bounds import OVERFLOWING, STATUSES
from exporter.metrics.series import Histogram, LabelValues, Values
from exporter.metrics.sizes import LimitRatioSeries, MessageSizeSeries
from exporter.wire.sizes import MessageSizes
from exporter.wire.websocket import Watch

_TRANSPORT_KINDS: Final = ("fin", "reset")

PROBE_CODES: Final = ("1000", "1002", "1006", "1007", "1009")
"""The closes that a probe may bring about itself: its planned end, forbidden frames, silence, bad UTF-8, oversize."""

LARGEST_REFUSED: Final = 1 << 30
"""Bytes to which a refused size is clamped: a header can declare any number, and one would drown the sum of all."""

BUILD_BOUNDS: Final[tuple[tuple[float, BuildWithin], ...]] = ((1.0, "1s"), (5.0, "5s"), (30.0, "30s"))
"""Seconds up to which a delay is within each value of the label; above the last it is `more`."""


class Recorder(Collector, Listener):
    """Counts events into the catalogue's families, and gives them to prometheus_client as a custom Collector.

    An `Ending` is nothing to count yet: its `Closed` follows.

    `now` is the wall clock, in Unix seconds. `error_tokens` are those of the exporter's own listeners.
    `buffered_bytes`, `dropped_lines`, `known_ids` (how many ids of reports are remembered, and since what Unix time
    all are; None without a webhook), `standings` (what the insights make of each origin now) and `captures` (None
    without any) are asked at each scrape.
    """

    def __init__(self, now: Callable[[], float], error_tokens: Iterable[str] = ()) -> None:
        self._now = now
        self._families: dict[str, Values | Histogram | MessageSizeSeries | LimitRatioSeries] = {}
        self._handshakes = self._values(catalogue.HANDSHAKES)
        self._handshake_duration = self._histogram(catalogue.HANDSHAKE_DURATION)
        self._active = self._values(catalogue.CONNECTIONS_ACTIVE)
        self._connection_duration = self._histogram(catalogue.CONNECTION_DURATION)
        self._closes = self._values(catalogue.CLOSES)
        self._transport_ends = self._values(catalogue.TRANSPORT_ENDS)
        self._code_info = self._values(catalogue.CLOSE_CODE_INFO)
        self._created = self._values(catalogue.TARGET_CREATED)
        self._message_sizes = MessageSizeSeries()
        self._families[catalogue.MESSAGE_SIZE.name] = self._message_sizes
        self._message_size_limit = self._values(catalogue.MESSAGE_SIZE_LIMIT)
        self._families[catalogue.MESSAGE_LIMIT_RATIO.name] = LimitRatioSeries(self._message_sizes.headrooms)
        self._oversize = self._histogram(catalogue.OVERSIZE)
        self._too_big_repeats = self._values(catalogue.TOO_BIG_REPEATS)
        self._too_big_stuck = self._values(catalogue.TOO_BIG_STUCK)
        self._ping_rtt = self._histogram(catalogue.PING_RTT)
        self._reconnects = self._values(catalogue.RECONNECTS)
        self._reconnect_delay = self._histogram(catalogue.RECONNECT_DELAY)
        self._handshakes_peak = self._values(catalogue.HANDSHAKES_PEAK)
        self._handshakes_last_minute = self._values(catalogue.HANDSHAKES_LAST_MINUTE)
        self._mass_close_connections = self._values(catalogue.MASS_CLOSE_CONNECTIONS)
        self._mass_closes = self._values(catalogue.MASS_CLOSES)
        self._mass_close_returns = self._values(catalogue.MASS_CLOSE_RETURNS)
        self._mass_close_active = self._values(catalogue.MASS_CLOSE_ACTIVE)
        self._shared_keys = self._values(catalogue.SHARED_KEYS)
        self._build_reconnects = self._values(catalogue.BUILD_RECONNECTS)
        self._probe_up = self._values(catalogue.PROBE_UP)
        self._probe_connect_duration = self._histogram(catalogue.PROBE_CONNECT_DURATION)
        self._probe_last_run = self._values(catalogue.PROBE_LAST_RUN)
        self._probe_backoff = self._values(catalogue.PROBE_BACKOFF)
        self._probe_failures = self._values(catalogue.PROBE_FAILURES)
        self._build_info = self._values(catalogue.BUILD_INFO)
        self._unparsed = self._values(catalogue.UNPARSED_STREAMS)
        self._anomalies = self._values(catalogue.FRAME_ANOMALIES)
        self._events_dropped = self._values(catalogue.EVENTS_DROPPED)
        self._overflow = self._values(catalogue.LABEL_OVERFLOW)
        self._http_errors = self._values(catalogue.HTTP_ERRORS)
        self._buffered = self._values(catalogue.TAP_BUFFERED)
        self._connection_limit = self._values(catalogue.TAP_CONNECTION_LIMIT)
        self._capture_up = self._values(catalogue.CAPTURE_UP)
        self._capture_drops = self._values(catalogue.CAPTURE_DROPS)
        self._capture_lost = self._values(catalogue.CAPTURE_LOST)
        self._capture_resyncs = self._values(catalogue.CAPTURE_RESYNCS)
        self._capture_missed = self._values(catalogue.CAPTURE_MISSED)
        self._capture_ignored = self._values(catalogue.CAPTURE_IGNORED)
        self._capture_lifecycle_only = self._values(catalogue.CAPTURE_LIFECYCLE_ONLY)
        self._capture_ring_bytes = self._values(catalogue.CAPTURE_RING_BYTES)
        self._capture_connections = self._values(catalogue.CAPTURE_CONNECTIONS)
        self._webhook_events = self._values(catalogue.WEBHOOK_EVENTS)
        self._webhook_ids = self._values(catalogue.WEBHOOK_IDS)
        self._webhook_ids_limit = self._values(catalogue.WEBHOOK_IDS_LIMIT)
        self._webhook_ids_since = self._values(catalogue.WEBHOOK_IDS_SINCE)
        self._storage_errors = self._values(catalogue.STORAGE_ERRORS)
        self._log_lines_dropped = self._values(catalogue.LOG_LINES_DROPPED)
        self._loop_lag = self._histogram(catalogue.LOOP_LAG)
        self._reload_successful = self._values(catalogue.RELOAD_SUCCESSFUL)
        self._reload_time = self._values(catalogue.RELOAD_SUCCESS_TIME)
        self.buffered_bytes: Callable[[], int] = lambda: 0
        self.dropped_lines: Callable[[], int] = lambda: 0
        self.known_ids: Callable[[], tuple[int, float] | None] = lambda: None
        self.standings: Callable[[], Mapping[Origin, Standing]] = dict
        self.captures: Callable[[], CaptureStanding | None] = lambda: None
        self._vocabularies: dict[str, Vocabulary] = {}
        self._adders: dict[Count, Callable[[float], None]] = {}  # of what services report
        self._balance: dict[str, float] = {}  # opens less closes since then, as reported, by target
        self.handlers = {
            HandshakeEnded: self._handshake_ended,
            Attached: self._attached,
            Closed: self._closed,
            PingAnswered: self._ping_answered,
            AnomalySeen: self._anomaly_seen,
            StreamUnparsed: self._stream_unparsed,
            ProbeWaits: self._probe_waits,
            ProbeUp: self._probe_is_up,
            ProbeFailed: self._probe_failed,
            Reported: self._reported,
            Reconnected: self._reconnected,
            MassCloseLost: self._mass_close_lost,
            MassCloseReturned: self._mass_close_returned,
            MassCloseEnded: self._mass_close_ended,
            MessageRefused: self._message_refused,
        }
        self._born(error_tokens)

    def watch(self, origin: Origin, vocabulary: Vocabulary, builds: Iterable[str] = ()) -> Watch:
        """Let every series of `origin` exist at 0, and give its sources what they fill themselves.

        `builds` are the listed client builds.
        """
        self._insights_born(origin, builds)
        for code in vocabulary.labels():
            for side in SIDES:
                self._closes.born(*origin, code, vocabulary.close_class(code), side)
        for outcome, statuses in STATUSES.items():
            for status in statuses:
                self._handshakes.born(*origin, outcome, status)
        for side in SIDES:
            self._ping_rtt.born(*origin, side)
            for kind in _TRANSPORT_KINDS:
                self._transport_ends.born(*origin, side, kind)
        self._active.born(*origin)
        self._handshake_duration.born(*origin)
        self._connection_duration.born(*origin)
        if origin not in self._created.values:
            self._created.set(self._now(), *origin)
        client_to_server, server_to_client = (self._message_sizes.born(origin, direction) for direction in DIRECTIONS)
        return Watch(origin, vocabulary, client_to_server, server_to_client)

    def watch_reports(
        self, target: str, vocabulary: Vocabulary, created: float | None = None, builds: Iterable[str] = ()
    ) -> None:
        """Let every series of what is reported of `target` exist at 0; `builds` are the listed client builds.

        `created` is the Unix time at which its counts began; now, unless they are older than this process.
        Opens and what is active appear with the first open: most services report closes alone.
        """
        labels = ("webhook", target)
        self._insights_born(Origin("webhook", target), builds)
        self._vocabularies[target] = vocabulary
        self._adders.clear()  # a code may belong to another class now
        for code in vocabulary.labels():
            for initiator in (*SIDES, "unknown"):
                self._closes.born(*labels, code, vocabulary.close_class(code), initiator)
        self._connection_duration.born(*labels)
        if labels not in self._created.values:
            self._created.set(self._now() if created is None else created, *labels)

    def watch_probe(self, target: str, vocabulary: Vocabulary) -> None:
        """Let every series of the probe of `target` exist at 0; its last run is now, as it has just been started."""
        labels = ("probe", target)
        own = (("exporter", code) for code in PROBE_CODES)
        for initiator, code in (*(("server", code) for code in vocabulary.labels()), *own):
            self._closes.born(*labels, sys.intern(code), vocabulary.close_class(code), initiator)
        for outcome, statuses in STATUSES.items():
            if outcome != "refused_by_exporter":
                for status in statuses:
                    self._handshakes.born(*labels, outcome, status)
        for reason in PROBE_FAILURES:
            self._probe_failures.born(*labels, reason)
        for gauge in (self._active, self._probe_up, self._probe_backoff):
            gauge.born(*labels)
        for histogram in (self._handshake_duration, self._connection_duration, self._probe_connect_duration):
            histogram.born(*labels)
        self._ping_rtt.born(*labels, "server")
        for moment in (self._created, self._probe_last_run):
            if labels not in moment.values:
                moment.set(self._now(), *labels)

    def webhook_born(self, ids_limit: int) -> None:
        """Let what is counted of the webhook itself exist at 0; `ids_limit` is how many ids are remembered at most."""
        self._webhook_ids_limit.set(ids_limit)
        for result in ("accepted", "duplicate"):
            self._webhook_events.born(result, "none")
        for reason in REJECTIONS:
            self._webhook_events.born("rejected", reason)
        self._storage_errors.born()

    def storage_failed(self) -> None:
        """Count a commit that failed."""
        self._storage_errors.add()

    def restore(self, counts: Mapping[Count, float]) -> None:
        """Add counts of targets that are watched, from before this process or just reported."""
        for count, number in counts.items():
            self._adder(count)(number)

    def message_size_limit(self, origin: Origin, direction: Direction, limit: int | None) -> None:
        """Note the service's configured maximum message size in bytes; None where there is none (any more)."""
        self._set_or_forget(self._message_size_limit, limit, origin.source, origin.target, direction, "configured")
        self._message_sizes.limit(origin, direction, limit)

    def http_error(self, token: str) -> None:
        """Count a request to one of the exporter's own listeners that was answered with the error `token`."""
        self._http_errors.add(token)

    def event_dropped(self) -> None:
        """Count an event whose effect was lost by a fault of ours."""
        self._events_dropped.add("internal_error")

    def loop_woke(self, late: float) -> None:
        """Count how many seconds later than asked the event loop woke up."""
        self._loop_lag.observe(late)

    def connection_limit(self, limit: int) -> None:
        """Note how many connections all taps together may relay."""
        self._connection_limit.set(limit)

    def config_loaded(self, *, successful: bool) -> None:
        """Note how the last load of the configuration went."""
        self._reload_successful.set(float(successful))
        if successful:
            self._reload_time.set(self._now())

    def collect(self) -> Iterator[Family]:
        """The families of this very moment. Each is built when it is asked for, so that rendering can pause."""
        self._buffered.set(self.buffered_bytes())
        known = self.known_ids()
        if known is not None:
            self._webhook_ids.set(known[0])
            self._webhook_ids_since.set(known[1])
        self._log_lines_dropped.set(self.dropped_lines())
        captures = self.captures()
        if captures is not None:
            self._captures_stand(captures)
        for origin, standing in self.standings().items():
            self._stands(origin, standing)
        moment = [series.copy() for series in self._families.values()]
        return (series.family() for series in moment)

    def values(self, metric: catalogue.Metric) -> Mapping[LabelValues, float]:
        """The series of a counter or gauge as they are now, by label values in the catalogue's order."""
        family = self._families[metric.name]
        assert isinstance(family, Values)
        return family.values

    def message_sizes(self) -> Mapping[LabelValues, MessageSizes]:
        """The buckets of message sizes as they are now, by source, target, direction and whether compressed."""
        return self._message_sizes.series

    def limit_shares(self) -> Mapping[LabelValues, Sequence[int]]:
        """Messages by their share of the configured limit, per bucket, by source, target and direction."""
        shares = ((labels, sizes.headroom.shares()) for labels, sizes in self._message_sizes.directions.items())
        return {labels: share[0] for labels, share in shares if share is not None}

    def _stands(self, origin: Origin, standing: Standing) -> None:
        self._handshakes_last_minute.set(standing.last_minute, *origin)
        self._handshakes_peak.set(standing.peak_per_second, *origin)
        self._mass_close_active.set(float(standing.mass_close_active), *origin)
        self._shared_keys.set(standing.shared_connections, *origin)
        self._too_big_stuck.set(standing.stuck_clients, *origin)
        for direction, bracket in standing.brackets.items():
            self._set_or_forget(self._message_size_limit, bracket.accepted, *origin, direction, "accepted")
            self._set_or_forget(self._message_size_limit, bracket.rejected, *origin, direction, "rejected")

    def _captures_stand(self, standing: CaptureStanding) -> None:
        for target, up in standing.up.items():
            self._capture_up.set(float(up), target)
        for ring in RINGS:
            self._capture_drops.set(standing.drops[ring], ring)
            self._capture_ring_bytes.set(standing.ring_bytes[ring], ring)
        self._capture_lost.set(standing.lost_directions)
        self._capture_resyncs.set(standing.resyncs)
        self._capture_missed.set(standing.missed_bytes)
        for reason, packets in standing.ignored.items():
            self._capture_ignored.set(packets, reason)
        self._capture_lifecycle_only.set(float(standing.lifecycle_only))
        self._capture_connections.set(standing.connections)

    @staticmethod
    def _set_or_forget(gauge: Values, value: float | None, *labels: str) -> None:
        if value is None:
            gauge.forget(*labels)
        else:
            gauge.set(value, *labels)

    def _insights_born(self, origin: Origin, builds: Iterable[str]) -> None:
        for after in AFTERS:
            self._reconnects.born(*origin, after)
            self._reconnect_delay.born(*origin, after)
        for verdict in VERDICTS:
            self._mass_closes.born(*origin, verdict)
        for within in WITHINS:
            self._mass_close_returns.born(*origin, within)
        for evidence in EVIDENCES:
            self._too_big_repeats.born(*origin, evidence)
            for direction in DIRECTIONS:
                self._oversize.born(*origin, direction, evidence)
        for series in (
            self._mass_close_connections,
            self._mass_close_active,
            self._handshakes_peak,
            self._handshakes_last_minute,
            self._shared_keys,
            self._too_big_stuck,
        ):
            series.born(*origin)
        for build in builds:
            for build_within in BUILD_WITHINS:
                self._build_reconnects.born(*origin, build, build_within)

    def _values(self, metric: catalogue.Metric) -> Values:
        series = Values(metric)
        self._families[metric.name] = series
        return series

    def _histogram(self, metric: catalogue.Metric) -> Histogram:
        series = Histogram(metric)
        self._families[metric.name] = series
        return series

    def _born(self, error_tokens: Iterable[str]) -> None:
        for code, entry in REGISTRY.items():
            self._code_info.set(1.0, str(code), entry.name)
        self._build_info.set(1.0, __version__)
        for reason in UNPARSED_REASONS:
            self._unparsed.born(reason)
        for kind in ANOMALY_KINDS:
            self._anomalies.born(kind)
        self._events_dropped.born("internal_error")
        for label in OVERFLOWING:
            self._overflow.born(label)
        for token in error_tokens:
            self._http_errors.born(token)
        self._loop_lag.born()
        self.config_loaded(successful=True)

    def _handshake_ended(self, event: HandshakeEnded) -> None:
        self._handshakes.add(*event.origin, event.outcome, event.status)
        if event.outcome == "accepted":
            self._active.add(*event.origin)
        if event.status == "other":
            self._overflow.add("status")
        if event.outcome in ("accepted", "rejected"):
            self._handshake_duration.observe(event.duration, *event.origin)

    def _attached(self, event: Attached) -> None:
        self._active.add(*event.origin)

    def _closed(self, event: Closed) -> None:
        self._closes.add(*event.origin, event.code, event.close_class, event.initiator)
        self._active.add(*event.origin, by=-1.0)
        if not event.attached:  # when it began is not known
            self._connection_duration.observe(event.duration, *event.origin)
        if event.code in FOLDED:
            self._overflow.add("code")
        if event.transport_end is not None:
            self._transport_ends.add(*event.origin, event.transport_end.side, event.transport_end.kind)

    def _ping_answered(self, event: PingAnswered) -> None:
        self._ping_rtt.observe(event.rtt, *event.origin, event.peer)
        if event.origin.source == "probe":
            self._probe_ran(event.origin)

    def _anomaly_seen(self, event: AnomalySeen) -> None:
        self._anomalies.add(event.kind)

    def _stream_unparsed(self, event: StreamUnparsed) -> None:
        self._unparsed.add(event.reason)

    def _probe_waits(self, event: ProbeWaits) -> None:
        self._probe_backoff.set(event.delay, *event.origin)

    def _probe_is_up(self, event: ProbeUp) -> None:
        self._probe_up.set(1.0, *event.origin)
        self._probe_backoff.set(0.0, *event.origin)
        self._probe_connect_duration.observe(event.connect_duration, *event.origin)
        self._probe_ran(event.origin)

    def _probe_failed(self, event: ProbeFailed) -> None:
        self._probe_up.set(0.0, *event.origin)
        self._probe_failures.add(*event.origin, event.reason)
        self._probe_ran(event.origin)

    def _probe_ran(self, origin: Origin) -> None:
        self._probe_last_run.set(self._now(), *origin)

    def _reported(self, event: Reported) -> None:
        adders = self._adders
        for count, number in event.counts.items():
            add = adders.get(count) or self._adder_of_reports(count)
            add(number)
        if event.accepted:
            self._webhook_events.add("accepted", "none", by=event.accepted)
        if event.duplicate:
            self._webhook_events.add("duplicate", "none", by=event.duplicate)
        for reason, number in event.rejected.items():
            self._webhook_events.add("rejected", reason, by=number)

    def _reconnected(self, event: Reconnected) -> None:
        self._reconnects.add(*event.origin, event.after)
        if event.delay is None:
            return
        self._reconnect_delay.observe(event.delay, *event.origin, event.after)
        if event.build is not None:
            self._build_reconnects.add(*event.origin, event.build, _build_within(event.delay))

    def _mass_close_lost(self, event: MassCloseLost) -> None:
        self._mass_close_connections.add(*event.origin, by=event.connections)

    def _mass_close_returned(self, event: MassCloseReturned) -> None:
        self._mass_close_returns.add(*event.origin, event.within)

    def _mass_close_ended(self, event: MassCloseEnded) -> None:
        over = event.mass_close
        self._mass_closes.add(*over.origin, over.verdict)

    def _message_refused(self, event: MessageRefused) -> None:
        """Sizes that services report are counted with their reports, which may be too old for an insight."""
        if event.repeated:
            self._too_big_repeats.add(*event.origin, event.evidence)
        if event.size and not event.compressed and event.origin.source != "webhook":
            self._oversize.observe(min(event.size, LARGEST_REFUSED), *event.origin, event.direction, event.evidence)

    def _adder_of_reports(self, count: Count) -> Callable[[float], None]:
        """As `_adder`, but that it also notes where codes are counted together; found once, as reports are many."""
        add = self._adder(count)
        if count.what == "closes" and count.key.partition(" ")[0] in FOLDED:
            add = _both(add, self._overflow.adder("code"))
        self._adders[count] = add
        return add

    def _adder(self, count: Count) -> Callable[[float], None]:
        """What adds to the series that this is a count of."""
        labels = ("webhook", count.target)
        first, _, second = count.key.partition(" ")
        match count.what:
            case "closes":
                close_class = self._vocabularies[count.target].close_class(first)
                return self._closes.adder(*labels, first, close_class, second)
            case "opens":
                accepted = self._handshakes.adder(*labels, "accepted", "101")

                def opened(number: float) -> None:
                    accepted(number)
                    self._balance_by(count.target, number)

                return opened
            case "closes_since_open":
                return lambda number: self._balance_by(count.target, -number)
            case "duration":
                return self._connection_duration.adder(first, *labels)
            case "refused_size":
                return self._oversize.adder(second, *labels, first, "close_1009")

    def _balance_by(self, target: str, number: float) -> None:
        """A service that lost opens or closes must not show fewer connections than none."""
        balance = self._balance[target] = self._balance.get(target, 0.0) + number
        self._active.set(max(0.0, balance), "webhook", target)


def _both(first: Callable[[float], None], second: Callable[[float], None]) -> Callable[[float], None]:
    def add(number: float) -> None:
        first(number)
        second(number)

    return add


def _build_within(delay: float) -> BuildWithin:
    return next((within for bound, within in BUILD_BOUNDS if delay <= bound), "more")
