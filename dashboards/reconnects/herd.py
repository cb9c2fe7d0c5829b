"""Connections lost against handshakes, over all replicas: clients return to other replicas than those they lost."""

from dashboards.panels import time_series
from dashboards.pieces import Heading, Panel, Query
from dashboards.promql import ORIGIN, shown
from dashboards.style import OUTCOME_COLOURS, WHO, WITHIN_COLOURS
from exporter.metrics import catalogue

REPLICA = (*ORIGIN, "instance")


def panels() -> list[Panel]:
    return [
        time_series(
            Heading(
                "Handshakes against connections lost",
                "Connections lost in mass closes, or told to go away (a drain in batches is no mass close; what is "
                "both is in both lines), and opening handshakes, per second, over all replicas. The area under the "
                "handshakes about as large as that under the losses: everybody came back, once. Many times as large, "
                "or rejected ones among them: a storm. failed: attempts while nobody listened. A replica that died "
                "before it was scraped is in no line of losses.",
                ("WebSocketReconnectStorm", "WebSocketReconnectSurgeAfterRestart"),
            ),
            "cps",
            Query(shown.rate(catalogue.MASS_CLOSE_CONNECTIONS, ORIGIN), f"lost {WHO}"),
            Query(shown.rate(catalogue.HANDSHAKES, (*ORIGIN, "outcome")), f"{{{{outcome}}}} {WHO}"),
            Query(
                shown.rate(catalogue.CLOSES, ORIGIN, class_="going_away", initiator=("server", "unknown")),
                f"sent away {WHO}",
            ),
            colours={
                "^lost ": "white",
                "^sent away ": "purple",
                **{f"^{outcome} ": colour for outcome, colour in OUTCOME_COLOURS.items()},
            },
            dashed="^(lost|sent away) ",
        ),
        time_series(
            Heading(
                "Busiest second of the last minute",
                "Opening handshakes in the busiest second of each minute, which no scrape can see, beside the mean "
                "second; the busiest seconds of all replicas added up. Close to the whole minute's handshakes: the "
                "clients come all at once, without jitter. The service has to take this peak, not the mean.",
                "WebSocketReconnectHerd",
            ),
            "cps",
            Query(shown.gauge("sum", catalogue.HANDSHAKES_PEAK, ORIGIN), f"busiest {WHO}"),
            Query(f"{shown.gauge('sum', catalogue.HANDSHAKES_LAST_MINUTE, ORIGIN)} / 60", f"mean {WHO}"),
            dashed="^mean ",
        ),
        time_series(
            Heading(
                "Active connections over all replicas",
                "Open WebSockets per target. A notch that fills again: everybody came back. A step: some did not, or "
                "went where no exporter sees them.",
            ),
            "short",
            Query(shown.gauge("sum", catalogue.CONNECTIONS_ACTIVE, ORIGIN), WHO),
            width=8,
        ),
        time_series(
            Heading(
                "Returns by time",
                "Clients lost in mass closes that were accepted again, per second, by time since the first close. Red: "
                "they did not wait at all. Green and blue: spread, as they should be. later: the service was away "
                "that long, or the clients waited longer than they had to.",
            ),
            "cps",
            Query(shown.rate(catalogue.MASS_CLOSE_RETURNS, (*ORIGIN, "within")), f"{{{{within}}}} {WHO}"),
            width=8,
            colours={f"^{within} ": colour for within, colour in WITHIN_COLOURS.items()},
        ),
        time_series(
            Heading(
                "Closes without a Close frame",
                "Closes with 1006 per second and replica, by the side whose TCP ended first. One replica: it crashed, "
                "or was killed before its drain ended. All at once by client: the proxy in front was reloaded.",
                "WebSocketAbnormalCloseSurge",
            ),
            "cps",
            Query(
                shown.rate(catalogue.CLOSES, (*REPLICA, "initiator"), code="1006"),
                f"by {{{{initiator}}}} {WHO} on {{{{instance}}}}",
            ),
            width=8,
        ),
    ]
