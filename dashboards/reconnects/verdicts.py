"""How mass closes went, as each replica judged them, and what its verdict means."""

from collections.abc import Mapping
from typing import Final

from dashboards import promql
from dashboards.panels import note, ranking, states
from dashboards.pieces import Heading, Panel, Query, value_map
from dashboards.promql import ORIGIN, shown
from dashboards.style import VERDICT_COLOURS, WHO
from exporter.events import Verdict
from exporter.metrics import catalogue

MEANINGS: Final[Mapping[Verdict, str]] = {
    "moved": "the clients went elsewhere: this exporter was draining, or fewer than 20 % came back here",
    "unrecovered": "fewer than 80 % were back when it ended",
    "too_few": "fewer than 50 came back: too few to judge how",
    "amplified": "the service had to answer more than two handshakes for each client, or rejected over 20 % of them",
    "herd": "more than half of the returns fell into one second: no jitter",
    "healthy": "the clients came back spread out, and the service took them",
}
"""What each verdict means."""


def panels() -> list[Panel]:
    return [
        states(
            Heading(
                "Mass closes by replica",
                "Orange while a mass close is not over on a replica. One after another: a rolling deploy. All at once: "
                "something that they share, such as the proxy in front.",
            ),
            Query(shown.gauge("max", catalogue.MASS_CLOSE_ACTIVE, (*ORIGIN, "instance")), f"{WHO} on {{{{instance}}}}"),
            value_map({"0": ("none", "green"), "1": ("under way", "orange")}),
        ),
        ranking(
            Heading(
                "Mass closes by verdict",
                "Mass closes that ended in the chosen time range, as the replicas judged them. A verdict is one "
                "replica's view: clients that went to others are missing in it.",
            ),
            Query(f"{shown.increase(catalogue.MASS_CLOSES, (*ORIGIN, 'verdict'), promql.RANGE)} > 0", ""),
            unit="short",
            columns={
                "verdict": "Verdict",
                "target": "Target",
                "source": "Source",
                "job": "Job",
                "Value": "Mass closes",
            },
            cells={"Verdict": [value_map({verdict: (verdict, colour) for verdict, colour in VERDICT_COLOURS.items()})]},
            nothing="No mass close ended in this time range",
            width=12,
            height=8,
        ),
        note(
            Heading("What the verdicts mean", "The first that applies is given, in this order."),
            "\n".join(f"- **{verdict}**: {meaning}" for verdict, meaning in MEANINGS.items()),
            width=12,
            height=8,
        ),
    ]
