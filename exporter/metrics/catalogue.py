"""Every metric's name, type, help, labels and buckets: the only spelling of each.

The recorder, the dashboards and `docs/metrics.md` are built from this table; alert rules are checked against it.
`websocket_*` families carry the labels `source` and `target` first; `websocket_exporter_*` are about this process.
Durations are seconds, sizes are bytes.
"""

from dataclasses import dataclass
from typing import Final, Literal

MetricType = Literal["counter", "gauge", "histogram"]

KIB: Final = 1024
MIB: Final = 1024 * KIB

ORIGIN_LABELS: Final = ("source", "target")

HANDSHAKE_BOUNDS: Final = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
CONNECTION_BOUNDS: Final = (0.1, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14400.0, 43200.0, 86400.0)
SIZE_BOUNDS: Final = (128.0, *(float(KIB << n) for n in range(15)), float(64 * MIB))
PING_BOUNDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
RATIO_BOUNDS: Final = (0.1, 0.25, 0.5, 0.8, 0.9, 0.95, 1.0)
RETURN_BOUNDS: Final = (0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0)
LAG_BOUNDS: Final = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0)

REJECTED_STATUSES: Final = ("400", "401", "403", "404", "426", "429", "500", "502", "503", "504", "other")
FAILED_STATUSES: Final = ("refused", "closed", "timeout")
REFUSED_BY_EXPORTER_STATUSES: Final = ("limit", "draining")


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric family. `labels` lists them in exposition order; `bounds` only for histograms, without +Inf."""

    name: str
    type: MetricType
    help: str
    labels: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()


def _connection(name: str, kind: MetricType, text: str, *labels: str, bounds: tuple[float, ...] = ()) -> Metric:
    return Metric(name, kind, text, (*ORIGIN_LABELS, *labels), bounds)


HANDSHAKES: Final = _connection(
    "websocket_handshakes_total",
    "counter",
    "Opening handshakes attempted, by outcome (accepted, rejected, failed, refused_by_exporter) and status.",
    "outcome",
    "status",
)
HANDSHAKE_DURATION: Final = _connection(
    "websocket_handshake_duration_seconds",
    "histogram",
    "Time from the complete request head to the complete response head of an opening handshake.",
    bounds=HANDSHAKE_BOUNDS,
)
CONNECTIONS_ACTIVE: Final = _connection("websocket_connections_active", "gauge", "WebSocket connections open now.")
CONNECTION_DURATION: Final = _connection(
    "websocket_connection_duration_seconds",
    "histogram",
    "How long closed WebSocket connections had lived, from the 101 to the end of TCP.",
    bounds=CONNECTION_BOUNDS,
)
CLOSES: Final = _connection(
    "websocket_closes_total",
    "counter",
    "WebSocket connections closed, each exactly once, by the first Close frame's code, its class and who sent it.",
    "code",
    "class",
    "initiator",
)
TRANSPORT_ENDS: Final = _connection(
    "websocket_transport_ends_total",
    "counter",
    "How TCP ended under WebSocket connections, by the side that ended it first (a detail: racy for some peers).",
    "side",
    "kind",
)
CLOSE_CODE_INFO: Final = Metric(
    "websocket_close_code_info", "gauge", "Names of the close codes; always 1.", ("code", "name")
)
TARGET_CREATED: Final = _connection(
    "websocket_target_created_timestamp_seconds", "gauge", "Unix time at which this target's counters began."
)
MESSAGE_SIZE: Final = _connection(
    "websocket_message_size_bytes",
    "histogram",
    "Payload bytes on the wire of each complete message, fragments summed; compressed messages apart.",
    "direction",
    "compressed",
    bounds=SIZE_BOUNDS,
)
MESSAGE_SIZE_LIMIT: Final = _connection(
    "websocket_message_size_limit_bytes",
    "gauge",
    "The service's maximum message size: configured, as the operator says, or between the largest message that was "
    "accepted and the smallest that was rejected in the last day.",
    "direction",
    "origin",
)
MESSAGE_LIMIT_RATIO: Final = _connection(
    "websocket_message_limit_ratio",
    "histogram",
    "Size of each uncompressed message as a share of the configured limit, where there is one.",
    "direction",
    bounds=RATIO_BOUNDS,
)
OVERSIZE: Final = _connection(
    "websocket_oversize_message_size_bytes",
    "histogram",
    "Size of uncompressed messages that were refused for it, by what shows it: the close was a 1009 (close_1009), or "
    "the receiver ended the connection over the largest message yet (suspected).",
    "direction",
    "evidence",
    bounds=SIZE_BOUNDS,
)
TOO_BIG_REPEATS: Final = _connection(
    "websocket_too_big_repeats_total",
    "counter",
    "Messages refused for their size, of a client that had been refused within the 5 minutes before.",
    "evidence",
)
TOO_BIG_STUCK: Final = _connection(
    "websocket_too_big_stuck_clients",
    "gauge",
    "Clients whose messages were refused for their size 3 or more times in the last 15 minutes.",
)
PING_RTT: Final = _connection(
    "websocket_ping_rtt_seconds",
    "histogram",
    "Time from a Ping to the matching Pong, by the side that answered.",
    "peer",
    bounds=PING_BOUNDS,
)

RECONNECTS: Final = _connection(
    "websocket_reconnects_total",
    "counter",
    "Clients that tried to come back within 10 minutes of their close, once for each close, by what kind it was.",
    "after",
)
RECONNECT_DELAY: Final = _connection(
    "websocket_reconnect_delay_seconds",
    "histogram",
    "Time from a close to the client's next opening handshake, where the client is the only one with its key.",
    "after",
    bounds=RETURN_BOUNDS,
)
HANDSHAKES_PEAK: Final = _connection(
    "websocket_handshakes_peak_per_second",
    "gauge",
    "The most opening handshakes attempted in any one second of the last 60 s, refused_by_exporter left out.",
)
HANDSHAKES_LAST_MINUTE: Final = _connection(
    "websocket_handshakes_last_minute",
    "gauge",
    "Opening handshakes attempted in the last 60 s, refused_by_exporter left out.",
)
MASS_CLOSE_CONNECTIONS: Final = _connection(
    "websocket_mass_close_connections_total",
    "counter",
    "Connections lost in mass closes: many at once, without a Close frame from the client.",
)
MASS_CLOSES: Final = _connection(
    "websocket_mass_closes_total", "counter", "Mass closes that are over, by how they went on this replica.", "verdict"
)
MASS_CLOSE_RETURNS: Final = _connection(
    "websocket_mass_close_returns_total",
    "counter",
    "Clients lost in a mass close that were accepted again, by time since its first close.",
    "within",
)
MASS_CLOSE_ACTIVE: Final = _connection(
    "websocket_mass_close_active", "gauge", "1 while a mass close is not over, else 0."
)
SHARED_KEYS: Final = _connection(
    "websocket_client_key_shared_connections",
    "gauge",
    "Open connections whose client key several hold at once (NAT, proxy): they are left out of delays and repeats.",
)
BUILD_RECONNECTS: Final = _connection(
    "websocket_client_build_reconnects_total",
    "counter",
    "Clients of the listed builds that tried to come back, by time since their close.",
    "build",
    "within",
)

PROBE_UP: Final = _connection(
    "websocket_probe_up",
    "gauge",
    "1 if the probe's last attempt got a connection that was not lost since, else 0.",
)
PROBE_CONNECT_DURATION: Final = _connection(
    "websocket_probe_connect_duration_seconds",
    "histogram",
    "Time from the start of a probe's attempt, with DNS, TCP and TLS, to the complete 101.",
    bounds=HANDSHAKE_BOUNDS,
)
PROBE_LAST_RUN: Final = _connection(
    "websocket_probe_last_run_timestamp_seconds",
    "gauge",
    "Unix time at which the probe last learned something: an attempt ended, a Ping was answered, or a connection lost.",
)
PROBE_BACKOFF: Final = _connection(
    "websocket_probe_backoff_seconds",
    "gauge",
    "The probe's delay before its attempt that comes next or is under way; 0 while it is connected.",
)
PROBE_FAILURES: Final = _connection(
    "websocket_probe_failures_total",
    "counter",
    "Attempts of the probe that failed, and connections that it lost, by reason.",
    "reason",
)

BUILD_INFO: Final = Metric("websocket_exporter_build_info", "gauge", "The exporter's version; always 1.", ("version",))
UNPARSED_STREAMS: Final = Metric(
    "websocket_exporter_unparsed_streams_total",
    "counter",
    "Tapped or captured connections that are not understood, by reason.",
    ("reason",),
)
FRAME_ANOMALIES: Final = Metric(
    "websocket_exporter_frame_anomalies_total",
    "counter",
    "Frames seen although RFC 6455 forbids them, by kind.",
    ("kind",),
)
EVENTS_DROPPED: Final = Metric(
    "websocket_exporter_events_dropped_total",
    "counter",
    "Events whose effect was lost, wholly or in part, by reason: a fault of the exporter's own (internal_error).",
    ("reason",),
)
LABEL_OVERFLOW: Final = Metric(
    "websocket_exporter_label_overflow_total",
    "counter",
    "Values folded into other, 3xxx or 4xxx to keep labels bounded, by label.",
    ("label",),
)
HTTP_ERRORS: Final = Metric(
    "websocket_exporter_http_errors_total",
    "counter",
    "Requests to the exporter's own listeners answered with an error, by error token.",
    ("error",),
)
TAP_BUFFERED: Final = Metric(
    "websocket_exporter_tap_buffered_bytes", "gauge", "Bytes the tap holds for peers that do not read."
)
TAP_CONNECTION_LIMIT: Final = Metric(
    "websocket_exporter_tap_connection_limit", "gauge", "Connections that all taps together relay at most."
)
CAPTURE_UP: Final = Metric(
    "websocket_exporter_capture_up",
    "gauge",
    "1 while the packets of the target are captured, 0 where a capture could not be opened.",
    ("target",),
)
CAPTURE_DROPS: Final = Metric(
    "websocket_exporter_capture_drops_total",
    "counter",
    "Packets that the kernel dropped for want of room in a capture's ring, by ring (lifecycle, size).",
    ("ring",),
)
CAPTURE_LOST: Final = Metric(
    "websocket_exporter_capture_lost_directions_total",
    "counter",
    "Times that one direction of a captured WebSocket could not be followed any more, since bytes of it were missed.",
)
CAPTURE_RESYNCS: Final = Metric(
    "websocket_exporter_capture_resyncs_total",
    "counter",
    "Lost directions in which frames were found again.",
)
CAPTURE_MISSED: Final = Metric(
    "websocket_exporter_capture_missed_bytes_total",
    "counter",
    "Bytes of captured WebSockets that passed without being seen or understood.",
)
CAPTURE_IGNORED: Final = Metric(
    "websocket_exporter_capture_ignored_packets_total",
    "counter",
    "Captured packets that were not looked at, by reason: contradictory or a fragment (malformed), nothing that their "
    "receiver would believe (out_of_window), or of one connection too many to follow (too_many).",
    ("reason",),
)
CAPTURE_LIFECYCLE_ONLY: Final = Metric(
    "websocket_exporter_capture_lifecycle_only",
    "gauge",
    "1 while a capture looks at closes alone, not at messages: by configuration, or because it could not keep up.",
)
CAPTURE_RING_BYTES: Final = Metric(
    "websocket_exporter_capture_ring_bytes", "gauge", "Memory of the captures' rings, by ring.", ("ring",)
)
CAPTURE_CONNECTIONS: Final = Metric(
    "websocket_exporter_capture_connections", "gauge", "TCP connections that the captures follow, of any protocol."
)
WEBHOOK_EVENTS: Final = Metric(
    "websocket_exporter_webhook_events_total",
    "counter",
    "Events that services reported, by what became of them (accepted, duplicate, rejected) and why they were rejected.",
    ("result", "reason"),
)
WEBHOOK_IDS: Final = Metric(
    "websocket_exporter_webhook_ids", "gauge", "Ids of reported events that are remembered, to know them again."
)
WEBHOOK_IDS_LIMIT: Final = Metric(
    "websocket_exporter_webhook_ids_limit", "gauge", "Ids that are remembered at most; then the oldest are forgotten."
)
WEBHOOK_IDS_SINCE: Final = Metric(
    "websocket_exporter_webhook_ids_since_timestamp_seconds",
    "gauge",
    "Unix time since which every id is remembered; older events are refused as too_old.",
)
STORAGE_ERRORS: Final = Metric(
    "websocket_exporter_storage_errors_total",
    "counter",
    "Commits to the storage that failed; their events were refused, to be sent again.",
)
LOG_LINES_DROPPED: Final = Metric(
    "websocket_exporter_log_lines_dropped_total",
    "counter",
    "Log lines lost because the log's pipe was blocked or closed.",
)
LOOP_LAG: Final = Metric(
    "websocket_exporter_event_loop_lag_seconds",
    "histogram",
    "How much later than asked the event loop woke up.",
    (),
    LAG_BOUNDS,
)
RELOAD_SUCCESSFUL: Final = Metric(
    "websocket_exporter_config_last_reload_successful",
    "gauge",
    "1 if the configuration was last loaded without a fault, else 0.",
)
RELOAD_SUCCESS_TIME: Final = Metric(
    "websocket_exporter_config_last_reload_success_timestamp_seconds",
    "gauge",
    "Unix time of the last load of the configuration without a fault.",
)

METRICS: Final[tuple[Metric, ...]] = tuple(value for value in list(globals().values()) if isinstance(value, Metric))
"""Every family, in the order above, which is also the order of exposition."""

BY_NAME: Final[dict[str, Metric]] = {metric.name: metric for metric in METRICS}
