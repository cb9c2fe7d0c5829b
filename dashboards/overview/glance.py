"""The first row: is anything wrong right now?"""

from typing import Final

from grafana_foundation_sdk.models.dashboard import DynamicConfigValue

from dashboards import promql
from dashboards.panels import Heading, Panel, Query, not_a_number, states, tile, value_map
from dashboards.promql import ORIGIN
from dashboards.style import ALARMING, RUNBOOKS
from exporter.metrics import catalogue

RUNBOOK: Final = {"title": "Runbook", "url": f"{RUNBOOKS}/${{__field.labels.alertname}}.md", "targetBlank": True}
"""Grafana's data link to the runbook of the alert that a bar stands for."""

NOT_CLIENT: Final = ("server", "unknown")
"""Initiators that count as the server's side: a webhook that did not say is taken as not the client."""


def panels() -> list[Panel]:
    attempts = promql.increase(catalogue.HANDSHAKES, ORIGIN, "15m")
    accepted = promql.increase(catalogue.HANDSHAKES, ORIGIN, "15m", outcome="accepted")
    return [
        tile(
            Heading(
                "Active connections",
                "WebSockets open now, one number per source: a connection seen by two sources is still one connection. "
                "A sudden drop is a mass close: look at Closes. Slow growth without an end is a leak of connections.",
            ),
            "short",
            Query(promql.gauge("sum", catalogue.CONNECTIONS_ACTIVE, ("source",)), "{{source}}"),
        ),
        tile(
            Heading(
                "Closed by the server side",
                "Closes per second that did not come from a client. Steady and low is normal; a peak is a deploy, "
                "a crash or a limit. Closes below says which.",
            ),
            "cps",
            Query(promql.rate(catalogue.CLOSES, ("source",), initiator=NOT_CLIENT), "{{source}}"),
            decimals=2,
        ),
        tile(
            Heading(
                "1009 Message Too Big (1 h)",
                "Connections closed because a message was over the receiver's limit. Above 0, messages were lost; many "
                "are often one client in a loop. Send such payloads in chunks, or raise the limit if they are meant.",
                "WebSocketMessageTooBigSpike",
            ),
            "short",
            Query(promql.increase(catalogue.CLOSES, ("source",), "1h", code="1009"), "{{source}}"),
            decimals=0,
            steps=ALARMING,
        ),
        tile(
            Heading(
                "1001 Going Away by server (1 h)",
                "Connections that the server side ended by leaving: 1001, 1012, 1013 and the target's own codes for a "
                "restart. A deploy explains them; without one the service restarts unasked. Clients that close a tab "
                "are not in here.",
                "WebSocketReconnectStorm",
            ),
            "short",
            Query(
                promql.increase(catalogue.CLOSES, ("source",), "1h", class_="going_away", initiator=NOT_CLIENT),
                "{{source}}",
            ),
            decimals=0,
        ),
        tile(
            Heading(
                "Handshake success, worst target",
                "Accepted share of the opening handshakes of the last 15 minutes, for the target where it is lowest. "
                "Below 99 % clients are turned away: see Handshakes not accepted for the status.",
                "WebSocketServiceNotAccepting",
            ),
            "percentunit",
            Query(f"min by (source) ({accepted} / {attempts})", "{{source}}"),
            decimals=1,
            steps={0: "red", 0.9: "orange", 0.99: "green"},
            mappings=[not_a_number("none tried")],
        ),
        tile(
            Heading(
                "Exporter up",
                "Whether Prometheus can scrape the exporter, or the share of its replicas that it can. When it is "
                "down, every other panel is blind, and the connections that it relayed are cut.",
                "WebSocketExporterDown",
            ),
            "percentunit",
            Query(promql.gauge("avg", promql.UP, ("job",)), "{{job}}"),
            decimals=0,
            steps={0: "orange", 1: "green"},
            mappings=[value_map({"0": ("down", "red"), "1": ("up", "green")})],
        ),
        states(
            Heading(
                "Alerts",
                "The alerts of this product over time: orange is pending, red is firing, green is none (also where "
                "their rules are not loaded). A click on a bar leads to its runbook, which says what to do; compare "
                "the panels below at that moment.",
            ),
            Query(_alert_states(), "{{alertname}} {{job}} {{target}} {{source}}"),
            value_map({"0": ("none", "green"), "1": ("pending", "orange"), "2": ("firing", "red")}),
        ).override_by_regexp("/^WebSocket/", [DynamicConfigValue("links", [RUNBOOK])]),
    ]


def _alert_states() -> str:
    """2 for a firing alert, 1 for a pending one; a series of 0 where there is neither, since no data says nothing."""
    firing, pending = promql.alerts("firing"), promql.alerts("pending")
    states_of_all = f"max by (alertname, job, target, source) ({firing} * 2 or {pending})"
    return f'{states_of_all} or on () label_replace(vector(0), "alertname", "no alert", "", "")'
