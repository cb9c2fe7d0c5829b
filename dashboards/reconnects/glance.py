"""The first row: was anyone cut off, and did they come back?"""

from dashboards import promql
from dashboards.panels import tile
from dashboards.pieces import Heading, Panel, Query
from dashboards.promql import shown
from dashboards.style import ALARMING
from exporter.metrics import catalogue


def panels() -> list[Panel]:
    return [
        tile(
            Heading(
                "Mass closes under way",
                "On how many replicas a mass close is not over: less than 95 % of its clients are back, and less than "
                "10 minutes have passed.",
            ),
            "short",
            Query(shown.gauge("sum", catalogue.MASS_CLOSE_ACTIVE, ("source",)), "{{source}}"),
            steps={0: "green", 1: "orange"},
        ),
        tile(
            Heading(
                "Lost in mass closes",
                "Connections that ended many at once in the chosen time range, without a Close frame from the client.",
            ),
            "short",
            Query(shown.increase(catalogue.MASS_CLOSE_CONNECTIONS, ("source",), promql.RANGE), "{{source}}"),
            decimals=0,
        ),
        tile(
            Heading(
                "Back again",
                "Clients lost in mass closes that were accepted again, in the chosen time range. Fewer than were lost: "
                "some went to other replicas' exporters, or did not come back.",
            ),
            "short",
            Query(shown.increase(catalogue.MASS_CLOSE_RETURNS, ("source",), promql.RANGE), "{{source}}"),
            decimals=0,
        ),
        tile(
            Heading(
                "Back within a second",
                "Those of them that were back within a second of the first close: they did not wait. Most of all that "
                "came back: a herd, which the service survived this time.",
            ),
            "short",
            Query(shown.increase(catalogue.MASS_CLOSE_RETURNS, ("source",), promql.RANGE, within="1s"), "{{source}}"),
            decimals=0,
        ),
        tile(
            Heading(
                "Mass closes that went badly",
                "Mass closes, in the chosen time range, that one replica judged amplified, herd or unrecovered. Each "
                "is one line in its log with all figures.",
            ),
            "short",
            Query(
                shown.increase(
                    catalogue.MASS_CLOSES, ("source",), promql.RANGE, verdict=("amplified", "herd", "unrecovered")
                ),
                "{{source}}",
            ),
            decimals=0,
            steps=ALARMING,
        ),
        tile(
            Heading(
                "Connections with a shared key",
                "Open connections whose client key several hold at once (NAT, a proxy): they are left out of delays "
                "and repeats. Most of all connections: set the target's client_key to something that tells clients "
                "apart.",
            ),
            "short",
            Query(shown.gauge("sum", catalogue.SHARED_KEYS, ("source",)), "{{source}}"),
        ),
    ]
