"""Everything that can happen to a monitored WebSocket, as dataclasses that nobody changes, and who listens.

Sources (tap, capture, probe, webhook) emit these to a `Sink`; the recorder counts them, the log writes them,
the insights derive from them. Nothing else crosses between a source and the rest of the house.
What events are made of are named tuples, which are cheaper where there are several for each connection.
Times are seconds, sizes are bytes. Label values are bounded before they enter an event;
whatever a peer chose freely (reason, path, user agent, address) is only ever logged.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple, NewType, Protocol, TypeVar, dataclass_transform, get_args

T = TypeVar("T")

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
    "packets_missed",
    "internal_error",
]
"""Why a connection is relayed without being understood. `internal_error` is a fault of ours; `packets_missed` is of a
capture that did not see its opening handshake whole."""

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

After = Literal["going_away", "abnormal", "too_big", "other"]
"""What kind of close a client comes back after."""

Evidence = Literal["close_1009", "suspected"]
"""What shows that a message was refused for its size. The two are never added together."""

Verdict = Literal["moved", "unrecovered", "too_few", "amplified", "herd", "healthy"]
"""How a mass close went; the first that applies, in this order (`insight.incident`)."""

Within = Literal["1s", "5s", "30s", "120s", "later"]
"""When a lost client was accepted again, since the first close of its mass close."""

BuildWithin = Literal["1s", "5s", "30s", "more"]
"""How long after its close a client of a build tried to come back."""

RingName = Literal["lifecycle", "size"]
"""The two rings of a capture: what begins and ends connections, and everything."""

IgnoredReason = Literal["malformed", "out_of_window", "too_many"]
"""Why a captured packet is not looked at: it contradicts itself, no receiver would believe it, or its connection is one
too many to follow."""

Rhythm = Literal["immediate", "fixed_interval", "jittered", "too_few"]
"""How the clients of one build wait before they come back."""

SIDES: Final[tuple[Side, ...]] = get_args(Side)
DIRECTIONS: Final[tuple[Direction, ...]] = get_args(Direction)
INITIATORS: Final[tuple[Initiator, ...]] = get_args(Initiator)
ANOMALY_KINDS: Final[tuple[AnomalyKind, ...]] = get_args(AnomalyKind)
UNPARSED_REASONS: Final[tuple[UnparsedReason, ...]] = get_args(UnparsedReason)
REJECTIONS: Final[tuple[Rejection, ...]] = get_args(Rejection)
PROBE_FAILURES: Final[tuple[ProbeFailure, ...]] = get_args(ProbeFailure)
AFTERS: Final[tuple[After, ...]] = get_args(After)
EVIDENCES: Final[tuple[Evidence, ...]] = get_args(Evidence)
VERDICTS: Final[tuple[Verdict, ...]] = get_args(Verdict)
WITHINS: Final[tuple[Within, ...]] = get_args(Within)
RINGS: Final[tuple[RingName, ...]] = get_args(RingName)
IGNORED_REASONS: Final[tuple[IgnoredReason, ...]] = get_args(IgnoredReason)
BUILD_WITHINS: Final[tuple[BuildWithin, ...]] = get_args(BuildWithin)

ClientKey = NewType("ClientKey", int)
"""By which a returning client is recognised: a keyed hash of 56 bits (`wire.client_key`), never logged or exported."""


def direction_from(side: Side) -> Direction:
    """The direction in which `side` sends."""
    return "client_to_server" if side == "client" else "server_to_client"


def opposite(side: Side) -> Side:
    """The other end of the connection."""
    return "server" if side == "client" else "client"


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def record(cls: type[T]) -> type[T]:
    """A dataclass that is frozen to the type checker.

    At run time it is not: a frozen one takes five times as long to make, and each connection makes several.
    """
    return dataclass(slots=True)(cls)


class Origin(NamedTuple):
    """Where an event was seen: the two labels that every connection series carries."""

    source: Source
    target: str


class Peer(NamedTuple):
    """What one client said of itself in its opening handshake; for the log line, never for labels.

    `path` comes without its query, which may carry credentials.
    """

    address: str = ""
    host: str = ""
    path: str = ""
    user_agent: str = ""
    subprotocol: str = ""


class Traffic(NamedTuple):
    """What passed in one direction of one WebSocket after its handshake.

    `bytes` is everything on the wire, frame headers included; `messages` counts complete data messages;
    `largest_message` is the largest of them (payload bytes on the wire, fragments summed).
    """

    bytes: int = 0
    messages: int = 0
    largest_message: int = 0


class Passing(NamedTuple):
    """The messages of one direction that its receiver may have refused, at the moment when the WebSocket ended.

    Payload bytes on the wire, fragments summed. `unfinished` is the declared size of the message under way, 0 if there
    was none; `last_second` is the largest that was completed in the last second (at least in the last half of it),
    `recent` the largest known of the last 5 seconds. A frame that is of no message (an endless Ping, a stray
    continuation) counts in `recent` too, from its header on: a receiver may refuse it for its length like a message.
    `largest` is the largest message of the connection. Where one direction of TCP ended before the Close frame came in
    the other, the moment is that of TCP's end. `compressed` is whether any of them may be: then the wire's size is not
    the one that limits apply to.
    """

    unfinished: int = 0
    last_second: int = 0
    recent: int = 0
    compressed: bool = False
    largest: int = 0


class TransportEnd(NamedTuple):
    """How TCP ended, by the side that ended it first. Racy for some peers: a detail, never a verdict."""

    side: Initiator
    kind: EndKind


_NOBODY: Final = Peer()
_NOTHING: Final = Traffic()


@record
class HandshakeEnded:
    """An opening handshake (a GET whose Upgrade contains `websocket`) got its answer, or never will.

    `status` is a bounded label: the HTTP status for accepted and rejected, else `refused`, `closed`, `timeout`,
    `limit` or `draining`. `duration` is seconds from the complete request head to the complete response head, or to
    when it was clear that no answer would come. `client` is None where it cannot be recognised.
    """

    origin: Origin
    outcome: HandshakeOutcome
    status: str
    duration: float = 0.0
    client: ClientKey | None = field(default=None, repr=False)
    user_agent: str = ""


@record
class Attached:
    """A WebSocket is followed that was open before it was seen: nothing is known of its handshake.

    `client` is None where it cannot be recognised.
    """

    origin: Origin
    client: ClientKey | None = field(default=None, repr=False)


@record
class Ending:
    """A WebSocket is over for its peers: the first Close frame has passed, or TCP ended without one.

    Emitted exactly once for each accepted handshake (or `Attached`), before its `Closed`; after a Close frame TCP may
    linger for a while, and the client may be back before. `code`, `close_class` and `initiator` are those of `Closed`.
    `passing` is what was on its way to the initiator, None where that is neither client nor server. `client` is None
    where it cannot be recognised.
    """

    origin: Origin
    code: str
    close_class: str
    initiator: Initiator
    passing: Passing | None = None
    client: ClientKey | None = field(default=None, repr=False)
    user_agent: str = ""


@record
class Closed:
    """A WebSocket ended; emitted exactly once for each accepted handshake, or `Attached`.

    `code` and `close_class` are bounded labels (`closecodes`); `wire_code` is the number of the first Close frame,
    None when there was none or it was empty. `reason` is that frame's text as sent. `duration` runs from the 101
    to the end of the TCP connection; of an `attached` one, from when it was first seen.
    """

    origin: Origin
    code: str
    close_class: str
    initiator: Initiator
    duration: float
    wire_code: int | None = None
    reason: str = ""
    peer: Peer = _NOBODY
    client_to_server: Traffic = _NOTHING
    server_to_client: Traffic = _NOTHING
    transport_end: TransportEnd | None = None
    attached: bool = False


@record
class PingAnswered:
    """`peer` answered the other side's Ping with a matching Pong after `rtt` seconds."""

    origin: Origin
    peer: Side
    rtt: float


@record
class AnomalySeen:
    """`side` sent a frame that RFC 6455 forbids."""

    origin: Origin
    side: Side
    kind: AnomalyKind


@record
class StreamUnparsed:
    """A tapped connection is relayed without being understood, from here on."""

    origin: Origin
    reason: UnparsedReason


@record
class ProbeWaits:
    """A probe will try to connect in `delay` seconds."""

    origin: Origin
    delay: float


@record
class ProbeUp:
    """A probe has connected, and got the answer that it expected, if any.

    `connect_duration` is seconds from the start of the attempt (looking up the name) to the complete 101.
    """

    origin: Origin
    connect_duration: float


@record
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


class ClientReport(NamedTuple):
    """An open or close that a service reported and that was counted, of a client that can be recognised.

    Or a message that was refused, of whomever: then `client` may be None.

    `ago` is how many seconds before now it happened, less than 0 where the service's clock is ahead. For a close,
    `code` and `close_class` are its labels, and `message_size` (bytes) with `direction` is the message that was
    refused, if it says.
    """

    origin: Origin
    event: Literal["open", "close"]
    ago: float
    client: ClientKey | None
    user_agent: str
    code: str = ""
    close_class: str = ""
    initiator: Initiator = "unknown"
    message_size: int | None = None
    direction: Direction | None = None


@record
class ClientsReported:
    """What services reported of clients that can be recognised, a few at a time, after it was counted (`Reported`)."""

    reports: Sequence[ClientReport]


@record
class Reported:
    """Services reported opens and closes: by how much each count grows, and what became of the events.

    Many events at once, because they come in batches and each is cheap only then. Each is in `counts` exactly once,
    however often it was reported.
    """

    counts: Mapping[Count, float]
    accepted: int = 0
    duplicate: int = 0
    rejected: Mapping[Rejection, int] = field(default_factory=dict)


@record
class Reconnected:
    """A client whose connection had ended tried to come back, `delay` seconds after the end; its first attempt.

    It may have been back before its old connection was seen to end: then the delay is 0. `delay` is None where several
    connections have the same key: which of them came back cannot be told. `build` is the operator's pattern that the
    client's user agent fits, None if none does.
    """

    origin: Origin
    after: After
    delay: float | None
    build: str | None = None


@record
class MassCloseLost:
    """So many more `connections` were lost in a mass close."""

    origin: Origin
    connections: int


@record
class MassCloseReturned:
    """A client that was lost in a mass close was accepted again."""

    origin: Origin
    within: Within


@dataclass(frozen=True, slots=True)
class BuildReturns:
    """How the clients of one build (`product/major`, or the operator's pattern) came back from a mass close.

    `lost` and `returned` are clients; `at_once` is how many tried to come back within 1 s of their close, of those
    `delays` whose delay is known; `median_delay` is seconds, None if there is none.
    """

    build: str
    lost: int
    returned: int
    delays: int
    at_once: int
    median_delay: float | None
    rhythm: Rhythm


@dataclass(frozen=True, slots=True)
class MassClose:
    """A mass close that is over, and how it went. Durations are seconds since its first close.

    `lost` is clients, by (code, initiator) in `lost_by`; `back` is how many of them were connected at the end, `tried`
    how many made any attempt. `returned` is how many were accepted again, by when; `busiest_second` the most that did
    so in one second. `answered` is the handshakes of the lost clients that the service accepted or rejected, from the
    first accepted one on, while they were not back; `rejected` the rejected ones of them, `refused` those that this
    exporter refused itself. `gap` is until that first accepted one, None if there was none. `draining` is whether this
    exporter was being shut down.
    """

    origin: Origin
    verdict: Verdict
    lasted: float
    lost: int
    lost_by: Mapping[tuple[str, Initiator], int]
    back: int
    tried: int
    returned: Mapping[Within, int]
    busiest_second: int
    answered: int
    rejected: int
    gap: float | None
    draining: bool
    refused: int = 0
    builds: Sequence[BuildReturns] = ()

    @property
    def returns(self) -> int:
        """Lost clients that were accepted again, whether or not they stayed."""
        return sum(self.returned.values())


@record
class MassCloseEnded:
    """A mass close was judged."""

    mass_close: MassClose


@record
class MessageRefused:
    """A message of `size` bytes (payload on the wire, declared) was refused by its receiver; 0 if that is not known.

    `repeated` is whether the same client was refused within the last 5 minutes too. `compressed` is whether the size
    may be of a compressed message, which says nothing about the limit.
    """

    origin: Origin
    direction: Direction
    evidence: Evidence
    size: int
    compressed: bool = False
    repeated: bool = False


@dataclass(frozen=True, slots=True)
class Bracket:
    """What is known of the real limit of message sizes in one direction: it lies from `accepted` to `rejected` bytes.

    `accepted` is the largest message that was accepted lately, `rejected` the smallest one refused with 1009; None
    where not known. `contradicted` is whether sizes were both accepted and refused: then the limit has changed, or is
    not the same for all connections.
    """

    accepted: int | None = None
    rejected: int | None = None
    contradicted: bool = False


@dataclass(frozen=True, slots=True)
class Refusals:
    """The refused messages of one direction of the last 24 hours, by what shows it.

    `smallest` and `largest` are bytes of those `sized` whose size tells of a limit: it is known, uncompressed and not
    tiny; 0 if there are none.
    `last` is how many seconds ago the last one was.
    """

    direction: Direction
    evidence: Evidence
    count: int
    sized: int
    smallest: int
    largest: int
    last: float


@dataclass(frozen=True, slots=True)
class Standing:
    """What holds of one origin now. `brackets` has both directions, `refusals` only what there was.

    `last_minute` is the opening handshakes attempted in the last 60 s, `peak_per_second` the most of them in one
    second; `shared_connections` those open connections whose client key several hold at once; `stuck_clients` those
    that were refused 3 times in the last 15 minutes for a message's size.
    """

    last_minute: int
    peak_per_second: int
    mass_close_active: bool
    shared_connections: int
    stuck_clients: int
    brackets: Mapping[Direction, Bracket]
    refusals: Sequence[Refusals] = ()


@dataclass(frozen=True, slots=True)
class CaptureStanding:
    """What holds of all captures together now, and what they have missed since they began.

    `up` is by target, whether its packets are captured; `ring_bytes` and `drops` (packets) are by ring, `ignored` is
    packets by reason. `connections` are followed now. `lifecycle_only` is whether a capture looks at closes alone.
    """

    up: Mapping[str, bool]
    connections: int
    ring_bytes: Mapping[RingName, int]
    lifecycle_only: bool
    drops: Mapping[RingName, int]
    lost_directions: int
    resyncs: int
    missed_bytes: int
    ignored: Mapping[IgnoredReason, int]


Event = (
    HandshakeEnded
    | Attached
    | Ending
    | Closed
    | PingAnswered
    | AnomalySeen
    | StreamUnparsed
    | ProbeWaits
    | ProbeUp
    | ProbeFailed
    | Reported
    | ClientsReported
    | Reconnected
    | MassCloseLost
    | MassCloseReturned
    | MassCloseEnded
    | MessageRefused
)


class Sink(Protocol):
    """Whoever wants to know. Must return quickly and never raise: it runs on the relay's event loop."""

    def emit(self, event: Event) -> None:
        """Take one event."""
        ...


class Listener:
    """A Sink of those kinds of events that it has `handlers` for, by their class."""

    handlers: Mapping[type, Callable[[Any], None]]

    def emit(self, event: Event) -> None:
        """Take one event, if it is of such a kind."""
        handler = self.handlers.get(type(event))
        if handler is not None:
            handler(event)
