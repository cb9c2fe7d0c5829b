"""Who comes back: after which kind of close, and which client builds do not wait."""

from dashboards import promql
from dashboards.panels import FEW_POINTS, note, ranking, time_series
from dashboards.pieces import Heading, Panel, Query
from dashboards.promql import ORIGIN, shown
from dashboards.quantiles import quantiles
from dashboards.style import CLASS_COLOURS, WHO
from dashboards.too_big.refusals import remedy_notes
from exporter.metrics import catalogue


def panels() -> list[Panel]:
    by_close = {f"(^| ){close_class} ": colour for close_class, colour in CLASS_COLOURS.items()}
    return [
        time_series(
            Heading(
                "Reconnects by kind of close",
                "Clients that tried to come back, per second, by the close they come back after. too_big: they come "
                "back to be refused again. Far fewer than closes: people leave for good, or clients share a key.",
            ),
            "cps",
            Query(shown.rate(catalogue.RECONNECTS, (*ORIGIN, "after")), f"{{{{after}}}} {WHO}"),
            width=8,
            colours=by_close,
        ),
        time_series(
            Heading(
                "Delay by kind of close",
                "Quantiles of the time from a close to the next attempt. A p50 far below a second after going_away: "
                "most clients do not wait, and the next deploy ends in a herd.",
            ),
            "s",
            *quantiles(catalogue.RECONNECT_DELAY, (0.5, 0.95), "after"),
            width=8,
            log_base=10,
            points=FEW_POINTS,
            colours=by_close,
        ),
        time_series(
            Heading(
                "Reconnects by client build",
                "Attempts to come back per second, by the builds that the target lists in client_builds and by the "
                "time they waited. A build that is mostly within 1s has no backoff.",
            ),
            "cps",
            Query(
                shown.rate(catalogue.BUILD_RECONNECTS, (*ORIGIN, "build", "within")),
                f"{{{{build}}}} {{{{within}}}} {WHO}",
            ),
            width=8,
        ),
        ranking(
            Heading(
                "Client builds",
                "Listed builds by how often they came back in the chosen time range and how long they had waited. At "
                "the top with 1s: the build to fix first.",
            ),
            Query(f"{shown.increase(catalogue.BUILD_RECONNECTS, (*ORIGIN, 'build', 'within'), promql.RANGE)} > 0", ""),
            unit="short",
            columns={
                "build": "Build",
                "within": "Waited up to",
                "target": "Target",
                "source": "Source",
                "job": "Job",
                "Value": "Attempts",
            },
            cells={},
            nothing="No listed build came back in this time range (client_builds of the target)",
            width=12,
            height=9,
        ),
        note(
            Heading("What to do about 1001", "Which remedy when, from the exporter's own knowledge of close codes."),
            remedy_notes(1001),
            width=12,
            height=9,
        ),
    ]
