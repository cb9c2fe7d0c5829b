"""What each panel shows after the traffic of `dashboards_live`: one row for each query, in the order of the dashboards.

A row says which series are not 0, by which labels they are told apart, and how much each is.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from exporter.metrics.catalogue import MIB, RATIO_BOUNDS, SIZE_BOUNDS
from tests.dashboards_live import (
    ACCEPTED,
    ATTEMPTS,
    BROKEN,
    CALM,
    CLOSED,
    CUT,
    FORBIDDEN,
    LEFT,
    LIMIT,
    NEAR,
    NEARLY,
    NOBODY,
    OPEN,
    OVER,
    REFUSED,
    REFUSED_BY_CLIENT,
    REPLY,
    REPORTED,
    SMALL,
    WINDOW,
)
from tests.dashboards_rows import Shown, Value, between, cumulative, rates

SOURCE: Final = ("source",)
PROBED: Final = ("probe",)
TAPPED: Final = ("tap",)
WEBHOOK: Final = ("webhook",)

SOME_TIME: Final = between(1e-5, 5)
SENT: Final = {0: LEFT + BROKEN, SMALL: CALM + OPEN, NEAR: NEARLY, OVER: REFUSED}
"""Messages of clients by size, in bytes."""
ANSWERED: Final = {0: LEFT, SMALL: CALM + OPEN, NEAR: NEARLY, REPLY: REFUSED_BY_CLIENT}

CLOSES: Final = {
    ("1000", "normal", "client", "tap"): CALM + NEARLY,
    ("1001", "going_away", "client", "tap"): LEFT,
    ("1001", "going_away", "server", "tap"): CUT,
    ("1001", "going_away", "server", "probe"): 1,
    ("1001", "going_away", "server", "webhook"): 1,
    ("1006", "abnormal", "server", "tap"): BROKEN,
    ("1009", "too_big", "server", "tap"): REFUSED,
    ("1009", "too_big", "client", "tap"): REFUSED_BY_CLIENT,
    ("1009", "too_big", "client", "webhook"): 1,
}
REFUSED_BY_WHOM: Final = {(who, source): n for (code, _, who, source), n in CLOSES.items() if code == "1009"}
NOT_ACCEPTED: Final = {("rejected", "403", "tap"): FORBIDDEN, ("failed", "refused", "tap"): NOBODY}
REFUSED_SIZES: Final = {
    ("client_to_server", "close_1009", "tap"): REFUSED,
    ("server_to_client", "close_1009", "tap"): REFUSED_BY_CLIENT,
    ("server_to_client", "close_1009", "webhook"): 1,
}
CAME_BACK: Final = {("going_away", "tap"): CUT, ("too_big", "tap"): REFUSED - 1}
"""Clients by the close after which they came back: of those refused there is one, again and again."""
WAITED: Final = CUT + REFUSED - 1
QUICKLY: Final = ("acme-app/*", "1s", "tap")
LOST: Final = between(CUT, CUT + BROKEN + REFUSED)
"""All who were cut off, and of those that broke and were refused as many as fell into the same ten seconds."""
BACK: Final = between(CUT, CUT + REFUSED)
ACTIVE: Final = {TAPPED: OPEN, PROBED: 1}


def size_quantiles(title: str, sizes: Mapping[int, int]) -> tuple[Shown, ...]:
    largest = next(bound for bound in SIZE_BOUNDS if bound >= max(sizes))
    return (
        Shown(title, SOURCE, {TAPPED: between(1, largest)}),
        Shown(title, SOURCE, {TAPPED: between(max(sizes) / 2, largest)}, "B"),
        Shown(title, SOURCE, {TAPPED: largest}, "C"),
    )


CAPTURED: Final = (
    Shown("Captures", ("job", "target"), {("captured", "chat"): 1}),
    Shown("Packets dropped (1 h)", ("ring",)),
    Shown("Bytes missed (1 h)", ("job",)),
    Shown("What is captured", ("job",)),
    Shown("Connections followed", ("job",), {("captured",): OPEN}),
    Shown("Memory of the rings", ("ring",), {("lifecycle",): MIB, ("size",): 8 * MIB}),
    Shown("Captures by replica", ("target",), {("chat",): 1}),
    Shown("Packets dropped by ring", ("ring",)),
    *(Shown("Directions lost and found again", ("job",), ref=ref) for ref in "AB"),
    Shown("Packets not looked at", ("reason",)),
)
"""The same traffic, captured between the clients and the tap. A scrape is a connection to another port."""
NO_CAPTURE: Final = tuple(replace(row, values={}) for row in CAPTURED)

OVERVIEW: Final = (
    Shown("Active connections", SOURCE, ACTIVE),
    Shown(
        "Closed by the server side",
        SOURCE,
        rates({TAPPED: CUT + BROKEN + REFUSED, PROBED: 1, WEBHOOK: 1}),
    ),
    Shown("1009 Message Too Big (1 h)", SOURCE, {TAPPED: REFUSED + REFUSED_BY_CLIENT, WEBHOOK: 1}),
    Shown("1001 Going Away by server (1 h)", SOURCE, {TAPPED: CUT, PROBED: 1, WEBHOOK: 1}),
    Shown("Handshake success, worst target", SOURCE, {TAPPED: ACCEPTED / ATTEMPTS, PROBED: 1}),
    Shown("Exporter up", ("job",), {("busy",): 1}),
    Shown("Clients stuck with 1009", SOURCE, {TAPPED: 1}),
    Shown("Lost in mass closes (1 h)", SOURCE, {TAPPED: LOST}),
    Shown("Handshakes not accepted (1 h)", SOURCE, {TAPPED: FORBIDDEN + NOBODY}),
    Shown(
        "Alerts", ("alertname", "target", "source"), {("WebSocketMessageTooBigSpike", "chat", "tap"): 2}, others=True
    ),
    Shown(
        "Handshakes by outcome and status",
        ("outcome", "status", "source"),
        {
            **rates({**NOT_ACCEPTED, ("accepted", "101", "tap"): ACCEPTED}),
            ("accepted", "101", "probe"): between(1 / WINDOW, 3 / WINDOW),
        },
    ),
    Shown("Handshakes not accepted", ("outcome", "status", "source"), rates(NOT_ACCEPTED)),
    Shown("Active connections by replica", SOURCE, ACTIVE),
    Shown("Connections beside the limit", ("job",), {("busy",): between(1e-6, 1)}),
    *(Shown("Connection duration", SOURCE, {TAPPED: between(0, 60), PROBED: between(0, 60)}, ref) for ref in "AB"),
    *(Shown("Handshake duration", SOURCE, {TAPPED: SOME_TIME, PROBED: SOME_TIME}, ref) for ref in "AB"),
    *(Shown("Ping round trip", ("peer", "source"), {("server", "tap"): SOME_TIME}, ref, others=True) for ref in "AB"),
    Shown(
        "Closes by class and initiator",
        ("class", "initiator", "source"),
        rates({(name, who, source): n for (_, name, who, source), n in CLOSES.items()}),
    ),
    Shown("Closes by code", ("code", "class", "initiator", "source"), rates(CLOSES)),
    Shown("Ended without a Close frame", ("initiator", "source"), rates({("server", "tap"): BROKEN})),
    Shown("Transport ends", ("side", "source"), {("server", "tap"): between(1 / WINDOW, CLOSED / WINDOW)}, others=True),
    Shown("Closes in the time range", ("code", "class", "initiator", "source"), CLOSES),
    Shown("Client to server", ("le",), cumulative(SENT, SIZE_BOUNDS)),
    Shown("Client to server, compressed", ("le",)),
    Shown("Server to client", ("le",), cumulative(ANSWERED, SIZE_BOUNDS)),
    Shown("Server to client, compressed", ("le",)),
    *size_quantiles("Client to server: p50, p99, largest", SENT),
    *(Shown("Client to server, compressed: p50, p99, largest", SOURCE, ref=ref) for ref in "ABC"),
    *size_quantiles("Server to client: p50, p99, largest", ANSWERED),
    *(Shown("Server to client, compressed: p50, p99, largest", SOURCE, ref=ref) for ref in "ABC"),
    *NO_CAPTURE,
    Shown("Events counted (1 h)", ("job",), {("busy",): 2}),
    Shown("Events rejected (1 h)", ("job",), {("busy",): 1}),
    Shown("Requests refused (1 h)", ("job",)),
    Shown("Requests to come again (1 h)", ("job",)),
    Shown("Failed commits (1 h)", ("job",)),
    Shown("Ids remembered", ("job",)),
    Shown("Reported events", ("result", "reason"), rates({("accepted", "none"): 2, ("rejected", "invalid_code"): 1})),
    Shown("Requests answered with an error", ("error",)),
    Shown("Memory of ids", ("job",), {("busy",): between(1, 10 * 86400)}),
    Shown("Probes connected", SOURCE, {PROBED: 1}),
    Shown("Probe failures (1 h)", SOURCE, {PROBED: between(1, 20)}),
    Shown("Longest backoff", SOURCE),
    Shown("Probe connected", SOURCE, {PROBED: 1}),
    Shown("Probe failures by reason", ("reason",), {("closed_by_server",): 1 / WINDOW}, others=True),
    *(Shown("Probe connect duration", SOURCE, {PROBED: SOME_TIME}, ref) for ref in "AB"),
    *(Shown("Probe round trip", SOURCE, {PROBED: SOME_TIME}, ref) for ref in "AB"),
    Shown("Since the probe's last run", SOURCE, {PROBED: between(0, 60)}),
    Shown("Memory", ("job",), {("busy",): between(10 * MIB, 500 * MIB)}),
    Shown("CPU", ("job",), {("busy",): between(1e-6, 1)}),
    *(Shown("Event loop lag", ("job",), {("busy",): between(1e-6, 5)}, ref) for ref in "AB"),
    Shown("Buffered bytes", ("job",)),
    Shown("Streams not understood", ("reason",)),
    Shown("Frame anomalies", ("kind",)),
    Shown("Errors and folded labels", ("error",)),
    Shown("Errors and folded labels", ("label",), ref="B"),
    Shown("Log lines and events dropped", ("job",)),
    Shown("Log lines and events dropped", ("reason",), ref="B"),
    Shown("Configuration", ("job",), {("busy",): 1}),
    Shown("Replicas by version", ("job",), {("busy",): 1}),
)

TOO_BIG: Final = (
    Shown("Closed with 1009, by whom", ("initiator", "source"), REFUSED_BY_WHOM),
    Shown("Clients stuck now", SOURCE, {TAPPED: 1}),
    Shown("Refused again", ("evidence", "source"), {("close_1009", "tap"): REFUSED - 1}),
    Shown("Suspected refusals", SOURCE),
    Shown("Near the limit (1 h)", SOURCE, {TAPPED: NEARLY + REFUSED}),
    Shown("Closes with 1009 by initiator", ("initiator", "source"), rates(REFUSED_BY_WHOM)),
    Shown("Refused again within 5 minutes", ("evidence", "source"), rates({("close_1009", "tap"): REFUSED - 1})),
    Shown("Refused messages by evidence", ("direction", "evidence", "source"), rates(REFUSED_SIZES)),
    *(
        Shown(
            "Sizes of refused messages",
            ("direction", "source"),
            {
                ("client_to_server", "tap"): between(OVER / 2, OVER),
                ("server_to_client", "tap"): between(REPLY / 2, 2048),
                ("server_to_client", "webhook"): between(REPORTED / 2, REPORTED),
            },
            ref,
        )
        for ref in "AB"
    ),
    Shown("Stuck clients", SOURCE, {TAPPED: 1}),
    *(
        Shown("Messages near the limit", ("direction", "source"), rates({("client_to_server", "tap"): n}), ref)
        for ref, n in (("A", NEARLY + REFUSED), ("B", REFUSED), ("C", REFUSED))
    ),
    # Nothing left for what clients send; what the service sends is far below its limit.
    Shown("Headroom", ("direction", "source"), {("server_to_client", "tap"): 1 - RATIO_BOUNDS[0]}),
    Shown(
        "Bracket of the real limit",
        ("direction", "source"),
        {("client_to_server", "tap"): LIMIT, ("server_to_client", "tap"): MIB},
    ),
    Shown(
        "Bracket of the real limit",
        ("direction", "source"),
        {("client_to_server", "tap"): SMALL, ("server_to_client", "tap"): SMALL},
        "B",
    ),
    Shown(
        "Bracket of the real limit",
        ("direction", "source"),
        {("client_to_server", "tap"): OVER, ("server_to_client", "webhook"): REPORTED},  # REPLY is too small to tell
        "C",
    ),
    Shown("Message sizes, client_to_server", ("le",), cumulative(SENT, SIZE_BOUNDS)),
    Shown("Message sizes, server_to_client", ("le",), cumulative(ANSWERED, SIZE_BOUNDS)),
    *size_quantiles("Sizes beside the limit, client_to_server", SENT),
    Shown("Sizes beside the limit, client_to_server", SOURCE, {TAPPED: LIMIT}, "D"),
    *size_quantiles("Sizes beside the limit, server_to_client", ANSWERED),
    Shown("Sizes beside the limit, server_to_client", SOURCE, {TAPPED: MIB}, "D"),
    Shown("Refused sizes, close_1009", ("le",), cumulative({OVER: REFUSED, REPLY: REFUSED_BY_CLIENT}, SIZE_BOUNDS)),
    Shown("Refused sizes, suspected", ("le",)),
)

RECONNECTS: Final = (
    Shown("Mass closes under way", SOURCE, {TAPPED: 1}),
    Shown("Lost in mass closes", SOURCE, {TAPPED: LOST}),
    Shown("Back again", SOURCE, {TAPPED: BACK}),
    Shown("Back within a second", SOURCE, {TAPPED: BACK}),
    Shown("Mass closes that went badly", SOURCE),
    Shown("Connections with a shared key", SOURCE),
    Shown(
        "Handshakes against connections lost",
        SOURCE,
        {TAPPED: between(CUT / WINDOW, (CUT + BROKEN + REFUSED) / WINDOW)},
    ),
    Shown(
        "Handshakes against connections lost",
        ("outcome", "source"),
        {
            **rates({("accepted", "tap"): ACCEPTED, ("rejected", "tap"): FORBIDDEN, ("failed", "tap"): NOBODY}),
            ("accepted", "probe"): between(1 / WINDOW, 3 / WINDOW),
        },
        "B",
    ),
    Shown(
        "Handshakes against connections lost",
        SOURCE,
        {**rates({TAPPED: CUT, WEBHOOK: 1}), PROBED: between(1 / WINDOW, 3 / WINDOW)},
        "C",
    ),
    Shown("Busiest second of the last minute", SOURCE, {TAPPED: between(CUT, ATTEMPTS)}),
    Shown("Busiest second of the last minute", SOURCE, {TAPPED: ATTEMPTS / 60}, "B"),
    Shown("Active connections over all replicas", SOURCE, ACTIVE),
    Shown("Returns by time", ("within", "source"), rates({("1s", "tap"): CUT})),
    Shown("Closes without a Close frame", ("initiator", "source"), rates({("server", "tap"): BROKEN})),
    Shown("Mass closes by replica", SOURCE, {TAPPED: 1}),
    Shown("Mass closes by verdict", ("verdict", "source")),
    Shown("Delay after a loss", ("le",), {("1.0",): between(1, CUT), ("+Inf",): CUT}, others=True),
    Shown("Delay after other closes", ("le",), {("1.0",): between(1, REFUSED), ("+Inf",): REFUSED - 1}, others=True),
    Shown("Reconnects by kind of close", ("after", "source"), rates(CAME_BACK)),
    *(Shown("Delay by kind of close", ("after", "source"), dict.fromkeys(CAME_BACK, SOME_TIME), ref) for ref in "AB"),
    Shown(
        "Reconnects by client build",
        ("build", "within", "source"),
        {QUICKLY: between(1 / WINDOW, WAITED / WINDOW)},
        others=True,
    ),
    Shown("Client builds", ("build", "within", "source"), {QUICKLY: between(1, WAITED)}, others=True),
)

EXPECTED: Final[Mapping[str, tuple[Shown, ...]]] = {
    "overview.json": OVERVIEW,
    "too-big.json": TOO_BIG,
    "reconnects.json": RECONNECTS,
}

FRESH: Final[Mapping[str, Value]] = {
    "Exporter up": 1,
    "Configuration": 1,
    "Replicas by version": 1,
    "Handshake success, worst target": math.isnan,
}
"""Tiles that do not show 0 before anything has happened."""
