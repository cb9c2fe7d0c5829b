"""The close-code knowledge: what each number says, when it is really seen, how to fix it, and which label it gets.

Numbers and names are those of the IANA WebSocket Close Code Number Registry (RFC 6455 sections 7.4 and 11.7).
`Vocabulary` turns whatever a peer sent into a bounded label; the rest is told to people by `codes`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

CLASSES: Final = (
    "normal",
    "going_away",
    "too_big",
    "protocol_error",
    "policy",
    "internal_error",
    "abnormal",
    "application",
    "invalid",
    "unknown",
)
"""Every value of the `class` label."""

EMPTY_CLOSE: Final = "1005"
"""Label of a Close frame without a code (RFC 6455 section 7.1.5)."""
NO_CLOSE: Final = "1006"
"""Label of a connection that ended without a Close frame (RFC 6455 section 7.1.5)."""
INVALID: Final = "invalid"  # a code, or a one-byte body, that must not be on the wire (sections 5.5.1 and 7.4)
RESERVED: Final = "reserved"  # 1016-2999, kept for future versions and extensions (section 7.4.2)
LIBRARIES: Final = "3xxx"  # 3000-3999, unless registered or listed
PRIVATE: Final = "4xxx"  # 4000-4999, unless listed
UNKNOWN: Final = "unknown"
"""Label of a close whose code could not be observed."""
FOLDED: Final = frozenset({RESERVED, LIBRARIES, PRIVATE})
"""Labels that stand for many codes: a close that got one of them was folded to keep labels bounded."""

LOCAL_ONLY: Final = frozenset({1005, 1006, 1015})
"""Registered, but only for an endpoint's own use: never legal in a Close frame (RFC 6455 section 7.4.1)."""


@dataclass(frozen=True, slots=True)
class CloseCode:
    """One close code: its registered name, its class, and what an operator needs to know about it."""

    code: int
    name: str
    close_class: str
    meaning: str
    seen_when: str
    fix: str

    @property
    def span(self) -> str:
        """The code as people write it."""
        return str(self.code)


@dataclass(frozen=True, slots=True)
class CodeRange:
    """What can be said of every code in `codes` that has no entry of its own."""

    codes: range
    name: str
    close_class: str
    meaning: str
    seen_when: str
    fix: str

    @property
    def span(self) -> str:
        """The codes as people write them: "4000-4999", or "1004" for a single one."""
        return f"{self.codes[0]}-{self.codes[-1]}" if len(self.codes) > 1 else str(self.codes[0])


@dataclass(frozen=True, slots=True)
class Conduct:
    """How a kind of close behaves: the rows by which two codes are told apart."""

    closed_by: str
    error: str
    reconnecting: str
    repeats: str
    alert: str

    def answers(self) -> tuple[tuple[str, str], ...]:
        """The rows, each as (question, answer), in the order in which an operator asks."""
        return (
            ("Who closes?", self.closed_by),
            ("Is it an error?", self.error),
            ("Does reconnecting help?", self.reconnecting),
            ("Does it repeat?", self.repeats),
            ("Which alert?", self.alert),
        )


@dataclass(frozen=True, slots=True)
class Remedy:
    """What to do, and when it is the right thing to do."""

    when: str
    do: str


_CODES: Final = (
    CloseCode(
        1000,
        "Normal Closure",
        "normal",
        "The purpose of the connection is fulfilled.",
        "A program calls close(1000), or an application returns from its handler. Also sanic and Bandit at shutdown, "
        "sanic when its application fails, tornado ('ping timed out') and websocket-client after a missed Pong, "
        "python-socketio on oversize. Some libraries answer 1000 to any Close frame; such replies are not counted.",
        "Nothing, if the end was meant. If many 1000s come from the server at one moment it is a shutdown: list 1000 "
        "in the target's going_away_codes only if the service never ends connections with it otherwise.",
    ),
    CloseCode(
        1001,
        "Going Away",
        "going_away",
        "An endpoint leaves: a server goes down, or a browser leaves the page.",
        "From the client: a person closed the tab, navigated, reloaded or quit; browsers send it without a reason "
        "text. From the server: a shutdown or deploy (websockets, Tomcat, Jetty; aiohttp and Node ws if the "
        "application closes its clients); then every client comes back at once. picows also sends it after a missed "
        "Pong.",
        "From the client: nothing. From the server: let clients reconnect by themselves after a random first delay "
        "(uniform over 0-5 s, more for large fleets), then with exponential backoff, full jitter and a cap, reset "
        "only after 30 s of a stable connection; on the server, drain in batches instead of closing everyone at once.",
    ),
    CloseCode(
        1002,
        "Protocol error",
        "protocol_error",
        "A peer received a frame that RFC 6455 forbids.",
        "A reserved opcode, an unmasked client frame, RSV bits nobody negotiated, an illegal close code. Chromium "
        "sends it for bad UTF-8 ('Invalid UTF-8 in text frame'), where others send 1007.",
        "The side that did NOT send the 1002 is at fault: update its WebSocket library, or look for a proxy that "
        "alters the stream or two writers interleaving on one socket. Reconnecting alone repeats it.",
    ),
    CloseCode(
        1003,
        "Unsupported Data",
        "protocol_error",
        "A peer received a type of data it cannot accept, such as binary where it only takes text.",
        "Applications send it on purpose; libraries hardly ever do.",
        "Make both ends agree on text or binary, best by a subprotocol (Sec-WebSocket-Protocol) that says so.",
    ),
    CloseCode(
        1005,
        "No Status Rcvd",
        "normal",
        "Empty Close: a Close frame came, without a code. Never a number on the wire (there it counts as invalid).",
        "close() called bare: browsers, Node ws, undici, tornado, autobahn. Also granian for every error it meets and "
        "for oversize messages, and io.close of socket.io.",
        "Nothing, if it comes from clients. From a server that should say why it closes: pass a code to close().",
    ),
    CloseCode(
        1006,
        "Abnormal Closure",
        "abnormal",
        "No Close: TCP ended without a Close frame. Never a number on the wire (there it counts as invalid).",
        "A process was killed or crashed; a proxy reloaded or reached its idle timeout (nginx and HAProxy never write "
        "a Close frame); a network vanished; servers that say nothing at SIGTERM (Node ws, aiohttp, tornado, granian, "
        "daphne, gorilla/websocket) or when the application fails (uvicorn, aiohttp, tornado); servers that drop TCP "
        "on oversize (uWebSockets, autobahn, tungstenite).",
        "Look at the initiator, the side whose end of TCP came first. server: a crash, an OOM kill, a deploy without "
        "Close frames, or a proxy in between. client: networks and phones; ping every 20-30 s, below the shortest "
        "idle timeout on the path (nginx proxy_read_timeout, HAProxy timeout tunnel). Clients reconnect as after a "
        "1001. Many at once: the runbook of WebSocketAbnormalCloseSurge tells their causes apart.",
    ),
    CloseCode(
        1007,
        "Invalid frame payload data",
        "protocol_error",
        "A text message was not UTF-8, or its payload did not match its type.",
        "Binary data sent as text, or text cut inside a character. Strict libraries only; Chromium sends 1002 "
        "instead, and tornado, hypercorn and daphne just drop TCP.",
        "Send bytes as binary messages; encode text as UTF-8 before splitting it. Resending the same message repeats "
        "it.",
    ),
    CloseCode(
        1008,
        "Policy Violation",
        "policy",
        "A peer received a message that violates its policy; the generic refusal where no better code fits.",
        "Applications: failed authentication, an expired token, a rate limit, a forbidden Origin. Node ws: a message "
        "in too many fragments.",
        "Read the reason in the log line of the close. Clients must not reconnect with the same credentials in a "
        "loop: renew them first, or stop and tell the user.",
    ),
    CloseCode(
        1009,
        "Message Too Big",
        "too_big",
        "A peer refused a message over its limit. The limit is that of the side that sent the 1009.",
        "A payload grew past the receiver's limit. Often a loop: the client reconnects and sends the same message "
        "again. Not all say 1009: uWebSockets, autobahn and tungstenite drop TCP (1006), granian sends an empty Close "
        "(1005), python-socketio 1000.",
        "Send large payloads in chunks, each a message of its own below the limit (fragments of one message do not "
        "help: limits count the whole message); or raise the receiver's limit if such messages are expected. Either "
        "way the sender must not send the refused message again unchanged.",
    ),
    CloseCode(
        1010,
        "Mandatory Ext.",
        "protocol_error",
        "The client needs an extension that the server did not negotiate. Only clients send it.",
        "Rare: a client that insists on an extension, and a proxy or server that dropped Sec-WebSocket-Extensions.",
        "Let the extension pass through every proxy, enable it on the server, or make it optional in the client.",
    ),
    CloseCode(
        1011,
        "Internal Error",
        "internal_error",
        "An endpoint met a condition it did not expect and cannot go on.",
        "An unhandled exception in the application (websockets, hypercorn, gunicorn, daphne, picows); an application "
        "that returned without closing (hypercorn, gunicorn); a missed Pong ('keepalive ping timeout': websockets, "
        "uvicorn, sanic); hypercorn at shutdown; a Python client ended by Ctrl-C.",
        "Read the reason. Keepalive: the other side is gone, or its event loop was blocked for longer than the ping "
        "timeout. Else: the service's own log has the traceback. At shutdown by hypercorn: list 1011 in the target's "
        "going_away_codes only if its exceptions may go unnoticed.",
    ),
    CloseCode(
        1012,
        "Service Restart",
        "going_away",
        "The service restarts; clients may come back.",
        "uvicorn at SIGTERM (so also FastAPI, Starlette and python-socketio on it), and Phoenix when it drains. This "
        "is the 1001 of those servers.",
        "As for a server's 1001: a random first delay, exponential backoff with full jitter and a cap in the clients, "
        "and draining in batches on the server.",
    ),
    CloseCode(
        1013,
        "Try Again Later",
        "going_away",
        "The server is overloaded or cannot serve this client now.",
        "Applications and gateways that shed load, on purpose.",
        "Clients wait longer than after a restart and back off with jitter; operators add capacity. A client that "
        "comes back at once makes it worse.",
    ),
    CloseCode(
        1014,
        "Bad Gateway",
        "internal_error",
        "A gateway or proxy got an invalid answer from its upstream; the 502 of WebSocket.",
        "Rare: gateways that speak WebSocket themselves. nginx and HAProxy never send it.",
        "Look at the upstream behind the gateway; clients back off as after a 1001.",
    ),
    CloseCode(
        1015,
        "TLS handshake",
        "abnormal",
        "The TLS handshake failed. Never a number on the wire (there it counts as invalid).",
        "Only as an application's own word for it, reported by the webhook: a connection without TLS has no WebSocket "
        "that a tap could count.",
        "Check the certificate: expiry, names, chain, and the client's trust store and clock.",
    ),
    CloseCode(
        3000,
        "Unauthorized",
        "policy",
        "The client is not authenticated; the 401 of WebSocket.",
        "Applications and frameworks that check a token after the handshake, or when it expires.",
        "Renew the credentials before reconnecting; reconnecting with the same token repeats it for ever.",
    ),
    CloseCode(
        3003,
        "Forbidden",
        "policy",
        "The client is known but not allowed; the 403 of WebSocket.",
        "Applications and frameworks, after an authorization check.",
        "Fix the permission, or stop the client: reconnecting cannot help.",
    ),
    CloseCode(
        3008,
        "Timeout",
        "application",
        "An endpoint waited too long for the other; the 408 of WebSocket.",
        "Applications with a deadline for the first message or for activity. Centrifugo uses 3008 for 'slow': a "
        "client that does not read fast enough.",
        "Find the side that was late: send or read in time, or lengthen the deadline if such pauses are expected.",
    ),
)

REGISTRY: Final[Mapping[int, CloseCode]] = {entry.code: entry for entry in _CODES}
"""Every registered close code, those never on the wire included (1004 is reserved: see `RANGES`)."""

_WIRE_CODES: Final = frozenset(REGISTRY) - LOCAL_ONLY
_OWN_RANGE: Final = range(3000, 5000)
_LABEL_CLASSES: Final[Mapping[str, str]] = {
    **{str(entry.code): entry.close_class for entry in _CODES},
    INVALID: "invalid",
    RESERVED: "invalid",
    LIBRARIES: "application",
    PRIVATE: "application",
}

RANGES: Final = (
    CodeRange(
        range(1000),
        "Not used",
        "invalid",
        "No code: RFC 6455 leaves 0-999 unused, and a Close frame must not carry them.",
        "0 from naive programs that echo an empty Close (picows examples).",
        "Correct the side that sent it; strict peers answer it with 1002.",
    ),
    CodeRange(
        range(1004, 1005),
        "Reserved",
        "invalid",
        "Reserved by RFC 6455 without a meaning; a Close frame must not carry it.",
        "Practically never.",
        "Correct the side that sent it; strict peers answer it with 1002.",
    ),
    CodeRange(
        range(1016, 3000),
        "Reserved",
        "invalid",
        "Kept for future versions of WebSocket and its extensions; nothing is registered here yet.",
        "Practically never: an application that picked its code from the wrong range.",
        "Use 4000-4999 for the application's own codes; close() in a browser takes only 1000 and 3000-4999.",
    ),
    CodeRange(
        range(3000, 4000),
        "Libraries and frameworks",
        "application",
        "For libraries, frameworks and applications, registered with IANA first come, first served. Those not named "
        "here are unregistered: only the software that sent one knows what it means.",
        "A framework's own protocol. Centrifugo sends 3001 for 'shutdown'.",
        "Read that framework's documentation and the reason in the log line of the close. To count it by itself, list "
        "it in the target's codes; if it means 'restarting', list it in going_away_codes.",
    ),
    CodeRange(
        range(4000, 5000),
        "Private Use",
        "application",
        "For agreements between one service and its clients. Never registered: only that service knows what one means.",
        "The application chose it. Any client may send any of these 1000 numbers, so they share one label unless "
        "listed.",
        "Read the service's own documentation and the reason in the log line of the close. To count it by itself, "
        "list it in the target's codes; if it means 'restarting', list it in going_away_codes.",
    ),
    CodeRange(
        range(5000, 65536),
        "Not used",
        "invalid",
        "No code: RFC 6455 defines nothing above 4999, and a Close frame must not carry it.",
        "A broken or hostile peer.",
        "Correct the side that sent it; strict peers answer it with 1002.",
    ),
)
"""The numbers without an entry of their own, in ascending order; with `REGISTRY` they cover every 16-bit number."""

ENTRIES: Final[tuple[CloseCode | CodeRange, ...]] = tuple(
    sorted([*_CODES, *RANGES], key=lambda entry: int(entry.span.partition("-")[0]))
)
"""All of `REGISTRY` and `RANGES` in ascending order; 3000 stands before its range."""

_RETURNING: Final = "yes, after a random delay"
_NO_ALERT: Final = "none of its own"

CLASS_CONDUCT: Final[Mapping[str, Conduct]] = {
    "normal": Conduct(
        "either side, by calling close()",
        "no",
        "only if the client still needs the connection",
        "as often as sessions end",
        _NO_ALERT,
    ),
    "going_away": Conduct(
        "the server: it restarts, shuts down or is overloaded",
        "no, it is announced; it becomes one if all clients return at once",
        _RETURNING,
        "once per deploy, for many clients at the same moment",
        "WebSocketReconnectStorm, if the clients do not come back calmly",
    ),
    "too_big": Conduct(
        "the receiver of the message: server = a client sent too much, client = the server did",
        "yes: that message was not delivered",
        "no: the same message is refused again",
        "often a loop: one client, again and again, until the message or the limit changes",
        "WebSocketMessageTooBigSpike whichever side closes",
    ),
    "protocol_error": Conduct(
        "the side that received what it must not",
        "yes: a fault in the other side's software or in a proxy",
        "no: the same frames are refused again",
        "for every connection of that client version",
        _NO_ALERT,
    ),
    "policy": Conduct(
        "the server, by decision of the application",
        "yes, for that client; the service works as meant",
        "only with renewed credentials or a changed request",
        "in a loop, if the client retries unchanged",
        _NO_ALERT,
    ),
    "internal_error": Conduct(
        "the side that failed, mostly the server",
        "yes: a fault in the service or a peer that fell silent",
        _RETURNING,
        "as long as the fault lasts",
        _NO_ALERT,
    ),
    "abnormal": Conduct(
        "nobody said: a crash, a proxy, a network; the initiator label is the side whose TCP ended first",
        "yes: the reason is lost",
        _RETURNING,
        "one by one for networks, many at once for a crash, a proxy reload or a silent deploy",
        "WebSocketAbnormalCloseSurge, if many end at once",
    ),
    "application": Conduct(
        "whichever side the application's protocol says",
        "only the application knows",
        "only the application knows",
        "only the application knows",
        _NO_ALERT,
    ),
    "invalid": Conduct(
        "a peer that breaks RFC 6455",
        "yes: a fault in that peer's software",
        "the connection, yes; the fault stays",
        "for every connection of that peer's version",
        _NO_ALERT,
    ),
}
"""How closes of a class behave; `unknown` is missing, because nothing is known of them."""

_GOING_AWAY: Final = Conduct(
    "server = a shutdown or deploy; client = a person leaving the page",
    "no; a server's 1001 becomes one if all clients return at once",
    "after a server's 1001: yes, after a random delay; after a client's: nobody is left to reconnect",
    "once per deploy, for many clients at the same moment; after that it is over",
    "WebSocketReconnectStorm, only after a server's 1001; clients that leave stay silent",
)

REMEDIES: Final[Mapping[int, tuple[Remedy, ...]]] = {
    1001: (
        Remedy("If the client sent it", "Nothing: people closed a tab or navigated. Do not alert on it."),
        Remedy(
            "If the server sent it",
            "Automatic reconnection in the client: wait a random first delay (uniform over 0-5 s, more for large "
            "fleets), then exponential backoff with full jitter and a cap (1 s doubling, up to 30-120 s); reset it "
            "only after 30 s of a stable connection.",
        ),
        Remedy(
            "If the returning clients overload the service",
            "Also drain in batches on the server: close a share of the connections every few seconds. It helps at "
            "once, before all clients are updated.",
        ),
        Remedy(
            "If the server sends it without a deploy",
            "Look for restarts of the service: failing liveness probes, scaling in, moved pods, spot instances.",
        ),
    ),
    1009: (
        Remedy(
            "If such messages are expected, and their size has a known bound",
            "Raise the receiver's limit to that bound plus headroom. It costs memory: each connection may hold one "
            "message of that size. Raise every gateway on the path too. The limit is max_size in websockets, "
            "--ws-max-size in uvicorn, max_msg_size in aiohttp, websocket_max_message_size in tornado and hypercorn, "
            "WEBSOCKET_MAX_SIZE in sanic, maxPayload in Node ws, maxHttpBufferSize in socket.io, SetReadLimit in "
            "gorilla/websocket.",
        ),
        Remedy(
            "If the size has no known bound (files, histories, whole states)",
            "Send large payloads in chunks, each a message of its own below the limit, and put them together in the "
            "application; or send a link and fetch it over HTTP. Any limit would be hit again.",
        ),
        Remedy(
            "If such messages are not expected (a bug, abuse)",
            "Keep the limit, it protects the service; find the sender by the address, path and user agent in the log "
            "line of the close.",
        ),
        Remedy(
            "If the same clients are refused again and again",
            "Stop the loop first: after a 1009 the client must drop or split the message, not resend it. Backoff only "
            "slows the loop down.",
        ),
    ),
}
"""Which remedy when, for the codes that have more than one; for all others the one remedy is `fix`."""

CONTRASTS: Final[Mapping[tuple[int, int], str]] = {
    (1000, 1005): ("Both are a wanted end: 1000 says so, 1005 is a close() without arguments."),
    (1001, 1006): (
        "1001 announces that an endpoint leaves; 1006 means that nobody announced anything. A deploy that gives 1006 "
        "comes from a server (or a proxy) that sends no Close frame, so the same storm can follow both."
    ),
    (1001, 1009): (
        "1001 cuts many clients once, and what matters is how they come back: spread them. 1009 cuts one client again "
        "and again, and coming back is the problem: change the message or the limit. Backoff cures the first and only "
        "slows down the second; chunks and limits cure the second and do nothing for the first."
    ),
    (1001, 1012): (
        "From a server both mean the same: uvicorn and Phoenix say 1012 where websockets, Tomcat and Jetty say 1001. "
        "A 1001 may also come from a client that leaves; a 1012 is always a server's."
    ),
    (1005, 1006): (
        "1005: a Close frame came, but empty; somebody meant to close. 1006: no Close frame came at all; something "
        "broke, was killed, or never learned to say goodbye."
    ),
    (1012, 1013): ("1012 restarts and is back in seconds; 1013 is overloaded, so clients should wait longer."),
}
"""Pairs (lower code first) that deserve a sentence of their own, side by side."""


def range_of(code: int) -> CodeRange | None:
    """The range that speaks for a code without an entry of its own; None for registered codes and non-codes."""
    if code in REGISTRY:
        return None
    return next((entry for entry in RANGES if code in entry.codes), None)


def lookup(code: int) -> CloseCode:
    """What is known about any number a Close frame can carry, registered or not.

    Raises LookupError outside 0-65535: the code is two bytes (RFC 6455 section 5.5.1).
    """
    entry = range_of(code)
    if entry is None:
        return REGISTRY[code]
    return CloseCode(code, entry.name, entry.close_class, entry.meaning, entry.seen_when, entry.fix)


def conduct(code: int) -> Conduct:
    """How closes with this code behave: its class, except for 1001, which clients and servers use differently.

    Raises LookupError outside 0-65535.
    """
    return _GOING_AWAY if code == 1001 else CLASS_CONDUCT[lookup(code).close_class]


def conduct_rows(left: int, right: int) -> tuple[tuple[str, str, str], ...]:
    """How two codes differ: rows of (question, answer for `left`, answer for `right`).

    Raises LookupError outside 0-65535.
    """
    pairs = zip(conduct(left).answers(), conduct(right).answers(), strict=True)
    return tuple((question, one, other) for (question, one), (_, other) in pairs)


def remedies(code: int) -> tuple[Remedy, ...]:
    """Which remedy when; at least one. Raises LookupError outside 0-65535."""
    return REMEDIES.get(code) or (Remedy("Always", lookup(code).fix),)


def legal_on_wire(code: int) -> bool:
    """Whether a Close frame may carry this number: registered or in a range for later or own use (RFC 6455 7.4)."""
    return code in _WIRE_CODES or 1016 <= code <= 4999


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The bounded label values of one target's close codes.

    `listed` are the application codes worth a label of their own, `going_away` those by which the service says that
    it restarts (listed by that). Only 3000-4999 can be listed: no list makes an illegal or reserved code a label.
    """

    listed: frozenset[int]
    going_away: frozenset[int]

    def wire_label(self, code: int | None) -> str:
        """The `code` label for a Close frame that carried `code`; None is an empty Close.

        Always one of `labels()` or "reserved". A result in `FOLDED` means that the number itself was dropped.
        """
        if code is None:
            return EMPTY_CLOSE
        if code in _WIRE_CODES:
            return str(code)
        if not legal_on_wire(code):
            return INVALID
        if code not in _OWN_RANGE:
            return RESERVED
        if code in self.listed or code in self.going_away:
            return str(code)
        return LIBRARIES if code < 4000 else PRIVATE

    def reported_label(self, code: int) -> str:
        """The `code` label for a close that an application reports: its own words, so that 1005, 1006 and 1015 count.

        Else as `wire_label`.
        """
        return str(code) if code in LOCAL_ONLY else self.wire_label(code)

    def close_class(self, label: str) -> str:
        """The `class` label that goes with a `code` label; "unknown" for "unknown" and for whatever is no such label.

        `going_away` decides first, also for registered codes (a service may restart with 1000 or 1011), but never for
        1005 and 1006, which no service says.
        """
        number = int(label) if len(label) == 4 and label.isascii() and label.isdecimal() else 0
        if number in _WIRE_CODES or number in _OWN_RANGE:
            if number in self.going_away:
                return "going_away"
            if number not in REGISTRY:
                return "application"
        return _LABEL_CLASSES.get(label, UNKNOWN)

    def labels(self) -> tuple[str, ...]:
        """The `code` labels born at zero: registered wire codes, 1005, 1006, invalid, 3xxx, 4xxx, each listed code.

        Not among them: "reserved", and what only other sources know ("1015", "unknown").
        """
        own = {code for code in self.listed | self.going_away if code in _OWN_RANGE}
        numbers = own | _WIRE_CODES | {int(EMPTY_CLOSE), int(NO_CLOSE)}
        return (*map(str, sorted(numbers)), INVALID, LIBRARIES, PRIVATE)
