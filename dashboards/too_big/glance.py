"""The first row: is anyone cut off for the size of a message right now, and is anything about to be?"""

from typing import Final

from dashboards import promql
from dashboards.panels import tile
from dashboards.pieces import Heading, Panel, Query
from dashboards.promql import shown
from dashboards.style import ALARMING
from exporter.metrics import catalogue

NEAR: Final = 0.8
"""Share of the limit from which a message is near it."""


def panels() -> list[Panel]:
    return [
        tile(
            Heading(
                "Closed with 1009, by whom",
                "Connections closed with 1009 in the chosen time range. server: a client sent more than the service "
                "takes. client: the service sent more than its clients take.",
                "WebSocketMessageTooBigSpike",
            ),
            "short",
            Query(
                shown.increase(catalogue.CLOSES, ("source", "initiator"), promql.RANGE, code="1009"),
                "by {{initiator}} ({{source}})",
            ),
            width=6,
            decimals=0,
            steps=ALARMING,
        ),
        tile(
            Heading(
                "Clients stuck now",
                "Clients refused 3 or more times in the last 15 minutes. Each sends the same message again after every "
                "reconnect: backoff only slows that down. The message has to be split, or the limit raised.",
            ),
            "short",
            Query(shown.gauge("sum", catalogue.TOO_BIG_STUCK, ("job", "source")), "{{job}} ({{source}})"),
            steps=ALARMING,
        ),
        tile(
            Heading(
                "Refused again",
                "Refusals, in the chosen time range, of a client that had been refused within the 5 minutes before. As "
                "many as closes: it is a loop of a few clients. Far fewer: many clients, once each.",
            ),
            "short",
            Query(
                shown.increase(catalogue.TOO_BIG_REPEATS, ("source", "evidence"), promql.RANGE),
                "{{evidence}} ({{source}})",
            ),
            width=5,
            decimals=0,
            steps=ALARMING,
        ),
        tile(
            Heading(
                "Suspected refusals",
                "Connections, in the chosen time range, that the receiver ended over the largest message yet, without "
                "saying 1009: some servers drop TCP, some send an empty Close. Never added to the certain ones.",
            ),
            "short",
            Query(
                shown.observations(catalogue.OVERSIZE, ("source",), promql.RANGE, evidence="suspected"), "{{source}}"
            ),
            decimals=0,
            steps=ALARMING,
        ),
        tile(
            Heading(
                "Near the limit (1 h)",
                f"Messages above {NEAR:.0%} of the configured limit in the last hour: the next larger one is refused. "
                "Known where the target's limits are configured.",
            ),
            "short",
            Query(shown.above(NEAR, catalogue.MESSAGE_LIMIT_RATIO, ("source",), "1h"), "{{source}}"),
            width=5,
            decimals=0,
            steps=ALARMING,
            nothing="no limit configured",
        ),
    ]
