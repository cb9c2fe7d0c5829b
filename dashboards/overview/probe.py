"""What a client of the exporter's own sees of each service: whether one could connect now."""

from typing import Final

from dashboards.panels import tile, time_series
from dashboards.pieces import Heading, Panel, Query
from dashboards.promql import ORIGIN, shown
from dashboards.quantiles import quantiles
from dashboards.style import ALARMING, WHO
from exporter.metrics import catalogue

LONGEST_SILENCE: Final = 600
"""Seconds above which WebSocketProbeStalled fires."""

SOURCE: Final = ("source",)
REPLICA: Final = (*ORIGIN, "instance")
ON_REPLICA: Final = f"{WHO} on {{{{instance}}}}"


def panels() -> list[Panel]:
    none = "no probe"
    return [
        tile(
            Heading(
                "Probes connected",
                "How many probes hold a connection now. Fewer than there are: Probe connected shows which.",
                "WebSocketProbeFailing",
            ),
            "short",
            Query(shown.gauge("sum", catalogue.PROBE_UP, SOURCE), "{{source}}"),
            nothing=none,
        ),
        tile(
            Heading(
                "Probe failures (1 h)",
                "Attempts that failed and connections that were lost. A few after a deploy are normal; more, without "
                "one, is a service that users cannot rely on. The reason is below.",
                "WebSocketProbeFailing",
            ),
            "short",
            Query(shown.increase(catalogue.PROBE_FAILURES, SOURCE, "1h"), "{{source}}"),
            decimals=0,
            steps=ALARMING,
            nothing=none,
        ),
        tile(
            Heading(
                "Longest backoff",
                "How long the probe that waits longest waits before it tries again: up to a minute after failures, up "
                "to 5 where the service asked for it. 0: all are connected.",
            ),
            "s",
            Query(shown.gauge("max", catalogue.PROBE_BACKOFF, SOURCE), "{{source}}"),
            nothing=none,
        ),
        time_series(
            Heading(
                "Probe connected",
                "1 while the probe of a target is connected. All replicas down at once: the service. One: its way, or "
                "that replica. A comb: the service accepts and drops again and again.",
                "WebSocketProbeFailing",
            ),
            "short",
            Query(shown.gauge("max", catalogue.PROBE_UP, REPLICA), ON_REPLICA),
            height=5,
        ),
        time_series(
            Heading(
                "Probe failures by reason",
                "Why probes failed, per second. refused, timeout, http_5xx: the service. certificate, http_401: what "
                "the probe presents, or what expired. closed_by_server: its code is in Closes, source probe.",
                "WebSocketProbeFailing",
            ),
            "cps",
            Query(shown.rate(catalogue.PROBE_FAILURES, (*ORIGIN, "reason")), f"{{{{reason}}}} {WHO}"),
            width=6,
        ),
        time_series(
            Heading(
                "Probe connect duration",
                "From the start of an attempt, with DNS, TCP and TLS, to the complete 101: what a user waits for. Above"
                " a second users feel it. Empty while connections are held: it takes an attempt.",
            ),
            "s",
            *quantiles(catalogue.PROBE_CONNECT_DURATION, (0.5, 0.99)),
            width=6,
            log_base=10,
        ),
        time_series(
            Heading(
                "Probe round trip",
                "From the probe's Ping to the service's Pong. Rising: its event loop is busy, or the network is. It is "
                "measured also when nobody else is connected.",
            ),
            "s",
            *quantiles(catalogue.PING_RTT, (0.5, 0.99), source="probe"),
            width=6,
            log_base=10,
        ),
        time_series(
            Heading(
                "Since the probe's last run",
                "How long ago each probe last learned something. It follows the Ping interval; above the red line the "
                "probe itself does not work, and Probe connected is old.",
                "WebSocketProbeStalled",
            ),
            "s",
            Query(f"time() - {shown.gauge('max', catalogue.PROBE_LAST_RUN, REPLICA)}", ON_REPLICA),
            width=6,
            threshold=LONGEST_SILENCE,
        ),
    ]
