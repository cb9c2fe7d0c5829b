"""Who connects, how fast, and for how long."""

from typing import Final

from dashboards.panels import FEW_POINTS, time_series
from dashboards.pieces import Heading, Panel, Query
from dashboards.promql import ORIGIN, PROCESS, replicas, shown
from dashboards.quantiles import quantiles
from dashboards.style import OUTCOME_COLOURS, REPLICA, WHO
from exporter.metrics import catalogue

NOT_ACCEPTED: Final = ("rejected", "failed", "refused_by_exporter")


def panels() -> list[Panel]:
    by_outcome = {f"^{outcome} ": colour for outcome, colour in OUTCOME_COLOURS.items()}
    return [
        time_series(
            Heading(
                "Handshakes by outcome and status",
                "Opening handshakes per second. A peak of accepted ones is clients coming back. rejected: the service "
                "said no, with this HTTP status. failed: nobody answered (refused, closed, timeout). "
                "refused_by_exporter: the exporter's own limit or drain.",
            ),
            "cps",
            Query(
                shown.rate(catalogue.HANDSHAKES, (*ORIGIN, "outcome", "status")),
                f"{{{{outcome}}}} {{{{status}}}} {WHO}",
            ),
            colours=by_outcome,
        ),
        time_series(
            Heading(
                "Handshakes not accepted",
                "The same without the accepted ones. failed refused or closed: nobody is there. failed timeout, 5xx: "
                "it cannot keep up, or something it needs is down. 401, 403, 429: it works, and turns clients away. "
                "refused_by_exporter limit: see Connections beside the limit.",
                "WebSocketServiceNotAccepting",
            ),
            "cps",
            Query(
                shown.rate(catalogue.HANDSHAKES, (*ORIGIN, "outcome", "status"), outcome=NOT_ACCEPTED),
                f"{{{{outcome}}}} {{{{status}}}} {WHO}",
            ),
            colours=by_outcome,
        ),
        time_series(
            Heading(
                "Active connections by replica",
                "Open WebSockets per target and replica. Replicas far apart mean that balancing is uneven: clients "
                "stay where they first connected. A cliff is a mass close; on one replica only, it is that replica.",
            ),
            "short",
            Query(
                shown.gauge("sum", catalogue.CONNECTIONS_ACTIVE, (*ORIGIN, "instance")), f"{WHO} on {{{{instance}}}}"
            ),
        ),
        time_series(
            Heading(
                "Connections beside the limit",
                "WebSockets through the taps of each replica, as a share of the connections that it may relay; all "
                "targets chosen, or it looks emptier than it is. At 100 % new clients get 503. Other connections count "
                "towards the limit too, but not in here.",
                "WebSocketTapConnectionLimit",
            ),
            "percentunit",
            Query(_share_of_limit(), REPLICA),
            threshold=0.9,
        ),
        time_series(
            Heading(
                "Connection duration",
                "How long the connections that closed had lived. A p95 that stays at a round number (60 s, 1 h) is an "
                "idle or lifetime limit of a proxy on the path; a falling p50 is clients that connect and lose again.",
            ),
            "s",
            *quantiles(catalogue.CONNECTION_DURATION, (0.5, 0.95)),
            width=8,
            log_base=10,
        ),
        time_series(
            Heading(
                "Handshake duration",
                "From the complete request head to the complete answer. A rising p99 is a service that struggles to "
                "accept, first seen when many clients come back at once.",
            ),
            "s",
            *quantiles(catalogue.HANDSHAKE_DURATION, (0.5, 0.99)),
            width=8,
            log_base=10,
        ),
        time_series(
            Heading(
                "Ping round trip",
                "From a Ping to the matching Pong, by the side that answered. client answers slowly: networks or busy "
                "devices. server answers slowly: its event loop is blocked; keepalive timeouts (1011) follow. Empty: "
                "nobody pings, so dead connections stay open unnoticed.",
            ),
            "s",
            *quantiles(catalogue.PING_RTT, (0.5, 0.99), "peer"),
            width=8,
            log_base=10,
            points=FEW_POINTS,
        ),
    ]


def _share_of_limit() -> str:
    relayed = replicas.gauge("sum", catalogue.CONNECTIONS_ACTIVE, (*PROCESS, "source"), source="tap")
    return f"{relayed} / ignoring (source) {replicas.gauge('max', catalogue.TAP_CONNECTION_LIMIT, PROCESS)}"
