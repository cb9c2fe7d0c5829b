"""The first row: is anything wrong right now?"""

from collections.abc import Mapping
from typing import Final

from grafana_foundation_sdk.models.dashboard import DynamicConfigValue

from dashboards import promql
from dashboards.overview.connections import NOT_ACCEPTED
from dashboards.panels import states, tile
from dashboards.pieces import DataLink, Heading, Panel, Query, not_a_number, value_map
from dashboards.promql import MOST_SHOWN, ORIGIN, chosen
from dashboards.style import ALARMING, DETAILS, RECONNECTS, RUNBOOKS, TOO_BIG, details_url
from exporter.metrics import catalogue

RUNBOOK: Final = DataLink("Runbook", f"{RUNBOOKS}/${{__field.labels.alertname}}.md", new_tab=True)
"""Leads to the runbook of the alert that a bar stands for."""

DETAILS_OF: Final[Mapping[str, str]] = {
    TOO_BIG: "^WebSocketMessage",
    RECONNECTS: "^WebSocket(Reconnect|AbnormalClose)",
}
"""Which alerts have a dashboard of their own: uid -> regular expression on the alert's name."""

NOT_CLIENT: Final = ("server", "unknown")
"""Initiators that count as the server's side: a webhook that did not say is taken as not the client."""


def panels() -> list[Panel]:
    attempts = chosen.increase(catalogue.HANDSHAKES, ORIGIN, "15m")
    accepted = chosen.increase(catalogue.HANDSHAKES, ORIGIN, "15m", outcome="accepted")
    return [
        tile(
            Heading(
                "Active connections",
                "WebSockets open now, one number per source: a connection seen by two sources is still one connection. "
                "A sudden drop is a mass close: look at Closes. Slow growth without an end is a leak of connections.",
            ),
            "short",
            Query(chosen.gauge("sum", catalogue.CONNECTIONS_ACTIVE, ("source",)), "{{source}}"),
        ),
        tile(
            Heading(
                "Closed by the server side",
                "Closes per second that did not come from a client. Steady and low is normal; a peak is a deploy, "
                "a crash or a limit. Closes below says which.",
            ),
            "cps",
            Query(chosen.rate(catalogue.CLOSES, ("source",), initiator=NOT_CLIENT), "{{source}}"),
            decimals=2,
        ),
        tile(
            Heading(
                "1009 Message Too Big (1 h)",
                "Connections closed because a message was over the receiver's limit. Above 0, messages were lost; many "
                "are often one client in a loop. Send such payloads in chunks, or raise the limit if they are meant.",
                "WebSocketMessageTooBigSpike",
                TOO_BIG,
            ),
            "short",
            Query(chosen.increase(catalogue.CLOSES, ("source",), "1h", code="1009"), "{{source}}"),
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
                RECONNECTS,
            ),
            "short",
            Query(
                chosen.increase(catalogue.CLOSES, ("source",), "1h", class_="going_away", initiator=NOT_CLIENT),
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
                "Whether Prometheus can scrape the exporter, or the share of its replicas that it can, for the jobs "
                "where it is lowest. When it is down, every other panel is blind, and the connections that it relayed "
                "are cut. Replicas gone for an hour do not count.",
                "WebSocketExporterDown",
            ),
            "percentunit",
            Query(_share_up(), "{{job}}"),
            decimals=0,
            steps={0: "orange", 1: "green"},
            mappings=[value_map({"0": ("down", "red"), "1": ("up", "green")})],
            nothing="none within the hour",
        ),
        tile(
            Heading(
                "Clients stuck with 1009",
                "Clients whose messages were refused for their size 3 or more times in the last 15 minutes: they come "
                "back and send the same again. A click leads to sizes and limits.",
                details=TOO_BIG,
            ),
            "short",
            Query(chosen.gauge("sum", catalogue.TOO_BIG_STUCK, ("source",)), "{{source}}"),
            width=8,
            steps=ALARMING,
        ),
        tile(
            Heading(
                "Lost in mass closes (1 h)",
                "Connections that ended many at once, without a Close frame from the client, whatever the code. A "
                "deploy explains them; a click leads to how their clients came back.",
                details=RECONNECTS,
            ),
            "short",
            Query(chosen.increase(catalogue.MASS_CLOSE_CONNECTIONS, ("source",), "1h"), "{{source}}"),
            width=8,
            decimals=0,
        ),
        tile(
            Heading(
                "Handshakes not accepted (1 h)",
                "Opening handshakes that the service rejected, that nobody answered, or that the exporter refused at "
                "its limit. A few are bots and old clients; the statuses are below.",
            ),
            "short",
            Query(chosen.increase(catalogue.HANDSHAKES, ("source",), "1h", outcome=NOT_ACCEPTED), "{{source}}"),
            width=8,
            decimals=0,
        ),
        _alerts(),
    ]


def _alerts() -> Panel:
    panel = states(
        Heading(
            "Alerts",
            "The alerts of this product over time: orange is pending, red is firing, green is none (also where "
            "their rules are not loaded). A click on a bar leads to its runbook, which says what to do; compare "
            "the panels below at that moment.",
        ),
        Query(_alert_states(), "{{alertname}} {{job}} {{target}} {{source}}"),
        value_map({"0": ("none", "green"), "1": ("pending", "orange"), "2": ("firing", "red")}),
    )
    panel.override_by_regexp("/^WebSocket/", [DynamicConfigValue("links", [RUNBOOK])])
    for uid, alerts in DETAILS_OF.items():
        links = [RUNBOOK, DataLink(f"Details: {DETAILS[uid]}", details_url(uid))]
        panel.override_by_regexp(f"/{alerts}/", [DynamicConfigValue("links", links)])
    return panel


def _share_up() -> str:
    return f"bottomk({MOST_SHOWN}, avg by (job) {chosen.exporters(chosen.selector(promql.UP, 'gauge'), within='1h')})"


def _alert_states() -> str:
    """2 for a firing alert, 1 for a pending one; a series of 0 where there is neither, since no data says nothing."""
    firing, pending = promql.alerts("firing"), promql.alerts("pending")
    states_of_all = f"max by (alertname, job, target, source) ({firing} * 2 or {pending})"
    return f'{states_of_all} or on () label_replace(vector(0), "alertname", "no alert", "", "")'
