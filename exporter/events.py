"""Everything that can happen to a monitored WebSocket, as frozen dataclasses, and who listens.

Sources (tap, capture, probe, webhook) emit these to a `Sink`; the recorder counts them, the log writes them,
the insights derive from them. Nothing else crosses between a source and the rest of the house.
Times are seconds, sizes are bytes. Label values are bounded before they enter an event;
whatever a peer chose freely (reason, path, user agent, address) is only ever logged.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple, Protocol, get_args

Source = Literal["tap", "capture", "probe", "webhook"]
Side = Literal["client", "server"]
Direction = Literal["client_to_server", "server_to_client"]
Initiator = Literal["client", "server", "exporter", "unknown"]
EndKind = Literal["fin", "reset", "timeout", "error"]
HandshakeOutcome = Literal["accepted", "rejected", "failed", "refused_by_exporter"]

AnomalyKind = Literal[
    "data_after_close",
    "second_close",
    "illegal_close_code",
    "oversized_control",
    "fragmented_control",
    "wrong_masking",
    "rsv_without_extension",
    "reserved_opcode",
    "unexpected_continuation",
    "interrupted_message",
    "illegal_length",
    "echo_mismatch",
]
"""Frames the RFC forbids although peers send (and often accept) them; counted per frame, always relayed."""

UnparsedReason = Literal[
    "tls",
    "http2",
    "connect",
    "not_http",
    "bad_request_head",
    "bad_response_head",
    "head_too_large",
    "incomplete_head",
    "too_many_requests",
    "early_data",
    "early_answer",
    "unexpected_101",
    "other_upgrade",
    "accept_mismatch",
    "internal_error",
]
"""Why a connection is relayed without being understood. `internal_error` is a fault of ours."""

Rejection = Literal[
    "invalid_json",
    "invalid_event",
    "unknown_field",
    "missing_code",
    "invalid_code",
    "invalid_string",
    "invalid_initiator",
    "unknown_target",
    "missing_id",
    "invalid_id",
    "invalid_time",
    "too_old",
    "invalid_duration",
    "invalid_size",
    "invalid_cloudevent",
    "line_too_long",
]
"""Why a reported event is not counted. `invalid_event` is any other fault of its fields."""

ProbeFailure = Literal[
    "refused",
    "dns",
    "timeout",
    "tls",
    "certificate",
    "http_401",
    "http_403",
    "http_429",
    "http_4xx",
    "http_5xx",
    "redirect",
    "not_websocket",
    "subprotocol",
    "ping_timeout",
    "expectation",
    "too_big",
    "closed_by_server",
]
"""Why a probe failed: no WebSocket came about, or it ended otherwise than the probe had planned."""

Tallied = Literal["closes", "opens", "closes_since_open", "duration", "refused_size"]
"""What is tallied of reports: see `Count`."""

SIDES: Final[tuple[Side, ...]] = get_args(Side)
DIRECTIONS: Final[tuple[Direction, ...]] = get_args(Direction)
INITIATORS: Final[tuple[Initiator, ...]] = get_args(Initiator)
ANOMALY_KINDS: Final[tuple[AnomalyKind, ...]] = get_args(AnomalyKind)
UNPARSED_REASONS: Final[tuple[UnparsedReason, ...]] = get_args(UnparsedReason)
REJECTIONS: Final[tuple[Rejection, ...]] = get_args(Rejection)
PROBE_FAILURES: Final[tuple[ProbeFailure, ...]] = get_args(ProbeFailure)


def direction_from(side: Side) -> Direction:
    """The direction in which `side` sends."""
    return "client_to_server" if side == "client" else "server_to_client"


def opposite(side: Side) -> Side:
    """The other end of the connection."""
    return "server" if side == "client" else "client"


@dataclass(frozen=True, slots=True)
class Origin:
    """Where an event was seen: the two labels that every connection series carries."""

    source: Source
    target: str


@dataclass(frozen=True, slots=True)
class Peer:
    """What one client said of itself in its opening handshake; for the log line, never for labels.

    `path` comes without its query, which may carry credentials.
    """

    address: str = ""
    host: str = ""
    path: str = ""
    user_agent: str = ""
    subprotocol: str = ""


@dataclass(frozen=True, slots=True)
class Traffic:
    """What passed in one direction of one WebSocket after its handshake.

    `bytes` is everything on the wire, frame headers included; `messages` counts complete data messages;
    `largest_message` is the largest of them (payload bytes on the wire, fragments summed).
    """

    bytes: int = 0
    messages: int = 0
    largest_message: int = 0


@dataclass(frozen=True, slots=True)
class TransportEnd:
    """How TCP ended, by the side that ended it first. Racy for some peers: a detail, never a verdict."""

    side: Initiator
    kind: EndKind


@dataclass(frozen=True, slots=True)
class HandshakeEnded:
    """An opening handshake (a GET whose Upgrade contains `websocket`) got its answer, or never will.

    `status` is a bounded label: the HTTP status for accepted and rejected, else `refused`, `closed`, `timeout`,
    `limit` or `draining`. `duration` (request head complete to response head complete, seconds) is None
    when no answer came.
    """

    origin: Origin
    outcome: HandshakeOutcome
    status: str
    duration: float | None = None


@dataclass(frozen=True, slots=True)
class Closed:
    """A WebSocket ended; emitted exactly once for each accepted handshake.

    `code` and `close_class` are bounded labels (`closecodes`); `wire_code` is the number of the first Close frame,
    None when there was none or it was empty. `reason` is that frame's text as sent. `duration` runs from the 101
    to the end of the TCP connection.
    """

    origin: Origin
    code: str
    close_class: str
    initiator: Initiator
    duration: float
    wire_code: int | None = None
    reason: str = ""
    peer: Peer = Peer()
    client_to_server: Traffic = Traffic()
    server_to_client: Traffic = Traffic()
    transport_end: TransportEnd | None = None


@dataclass(frozen=True, slots=True)
class PingAnswered:
    """`peer` answered the other side's Ping with a matching Pong after `rtt` seconds."""

    origin: Origin
    peer: Side
    rtt: float


@dataclass(frozen=True, slots=True)
class AnomalySeen:
    """`side` sent a frame that RFC 6455 forbids."""

    origin: Origin
    side: Side
    kind: AnomalyKind


@dataclass(frozen=True, slots=True)
class StreamUnparsed:
    """A tapped connection is relayed without being understood, from here on."""

    origin: Origin
    reason: UnparsedReason


@dataclass(frozen=True, slots=True)
class ProbeWaits:
    """A probe will try to connect in `delay` seconds."""

    origin: Origin
    delay: float


@dataclass(frozen=True, slots=True)
class ProbeUp:
    """A probe has connected, and got the answer that it expected, if any.

    `connect_duration` is seconds from the start of the attempt (looking up the name) to the complete 101.
    """

    origin: Origin
    connect_duration: float


@dataclass(frozen=True, slots=True)
class ProbeFailed:
    """A probe's attempt failed, or the connection that it held ended."""

    origin: Origin
    reason: ProbeFailure


class Count(NamedTuple):
    """What one number of a tally is of; `key` has the label values that are not implied, by `what`:

    closes: `CODE INITIATOR`, the code label and who closed. opens: empty. closes_since_open: empty; closes since the
    target's first open. duration: a bucket's upper bound as exposed (`0.1`, `+Inf`; not cumulative), or `sum`,
    seconds. refused_size: `DIRECTION BOUND` or `DIRECTION sum`, bytes.
    """

    target: str
    what: Tallied
    key: str = ""


@dataclass(frozen=True, slots=True)
class Reported:
    """Services reported opens and closes: by how much each count grows, and what became of the events.

    Many events at once, because they come in batches and each is cheap only then. Each is in `counts` exactly once,
    however often it was reported.
    """

    counts: Mapping[Count, float]
    accepted: int = 0
    duplicate: int = 0
    rejected: Mapping[Rejection, int] = field(default_factory=dict)


Event = (
    HandshakeEnded
    | Closed
    | PingAnswered
    | AnomalySeen
    | StreamUnparsed
    | ProbeWaits
    | ProbeUp
    | ProbeFailed
    | Reported
)


class Sink(Protocol):
    """Whoever wants to know. Must return quickly and never raise: it runs on the relay's event loop."""

    def emit(self, event: Event) -> None:
        """Take one event."""
        ...
