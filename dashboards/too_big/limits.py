"""How close messages are to the configured limit, and where the real one seems to be."""

from typing import Final

from dashboards.panels import time_series
from dashboards.pieces import Heading, Panel, Query
from dashboards.promql import ORIGIN, shown
from dashboards.style import WHO
from exporter.metrics import catalogue

SHARES: Final = (0.8, 0.95, 1.0)
"""Shares of the limit above which messages are counted."""

SCARCE: Final = 0.2
"""Headroom below which the next larger payload is likely to be refused."""

LIMIT_COLOURS: Final = {"^configured ": "red", "^accepted ": "green", "^rejected ": "orange"}


def panels() -> list[Panel]:
    return [
        time_series(
            Heading(
                "Messages near the limit",
                "Messages per second above each share of the configured limit. Some above 80 % that were not there "
                "last week: raise the limit, or split the payload, before users are cut off. Above 100 %: they are.",
                "WebSocketMessageSizeNearLimit",
            ),
            "cps",
            *(
                Query(
                    shown.above(share, catalogue.MESSAGE_LIMIT_RATIO, (*ORIGIN, "direction")),
                    f"above {share:.0%} {{{{direction}}}} {WHO}",
                )
                for share in SHARES
            ),
            width=8,
            colours={"^above 80%": "yellow", "^above 95%": "orange", "^above 100%": "red"},
        ),
        time_series(
            Heading(
                "Headroom",
                "What is left of the configured limit above the largest message, in steps: the largest message's "
                "bucket counts as full. At 0 messages are being refused. Empty where no limit is configured, or "
                "nothing sent.",
            ),
            "percentunit",
            Query(
                f"1 - {shown.quantile(1, catalogue.MESSAGE_LIMIT_RATIO, (*ORIGIN, 'direction'))}",
                f"{{{{direction}}}} {WHO}",
            ),
            width=8,
            threshold=SCARCE,
            below=True,
        ),
        time_series(
            Heading(
                "Bracket of the real limit",
                "The real limit lies between the largest message that was accepted and the smallest that was rejected "
                "in the last day, over all replicas. The configured one outside of it: the configuration says "
                "something else than the service, or than a gateway on the way.",
            ),
            "bytes",
            *(
                Query(
                    shown.gauge(operator, catalogue.MESSAGE_SIZE_LIMIT, (*ORIGIN, "direction"), origin=origin),
                    f"{origin} {{{{direction}}}} {WHO}",
                )
                for origin, operator in (("configured", "min"), ("accepted", "max"), ("rejected", "min"))
            ),
            width=8,
            log_base=2,
            colours=LIMIT_COLOURS,
            dashed="^configured ",
        ),
    ]
