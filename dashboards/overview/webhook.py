"""What services report themselves: whether it arrives, is counted, and can be known again."""

from typing import Final

from dashboards.panels import tile, time_series
from dashboards.pieces import Heading, Panel, Query
from dashboards.promql import PROCESS, shown
from dashboards.style import ALARMING, REPLICA
from exporter.metrics import catalogue
from exporter.web.errors import ErrorToken

REFUSED: Final[tuple[ErrorToken, ...]] = (
    "invalid_json",
    "unsupported_media_type",
    "unsupported_encoding",
    "too_many_events",
    "body_too_large",
    "unauthorized",
    "signature_required",
    "signature_mismatch",
    "timestamp_out_of_range",
)
"""Whole requests that are wrong in themselves, and those of strangers."""

LATER: Final[tuple[ErrorToken, ...]] = (
    "rate_limited",
    "overloaded",
    "request_timeout",
    "storage_full",
    "storage_unavailable",
    "shutting_down",
)
"""Whole requests that are to be sent again."""

SHORTEST_MEMORY: Final = 3600
"""Seconds below which WebSocketEventIdsForgotten fires."""


def panels() -> list[Panel]:
    by_result = {"^accepted ": "green", "^duplicate ": "blue", "^rejected ": "red"}
    none = "no webhook"
    return [
        tile(
            Heading(
                "Events counted (1 h)",
                "Opens and closes that services reported and that were counted. 0 where nobody reports, or all that "
                "comes is refused: see the tiles beside.",
            ),
            "short",
            Query(shown.increase(catalogue.WEBHOOK_EVENTS, ("job",), "1h", result="accepted"), "{{job}}"),
            decimals=0,
            nothing=none,
        ),
        tile(
            Heading(
                "Events rejected (1 h)",
                "Reported events that cannot be counted. Above 0 a sender is wrong: sending them again does not help. "
                "The reason is beside.",
                "WebSocketEventsRejected",
            ),
            "short",
            Query(shown.increase(catalogue.WEBHOOK_EVENTS, ("job",), "1h", result="rejected"), "{{job}}"),
            decimals=0,
            steps=ALARMING,
            nothing=none,
        ),
        tile(
            Heading(
                "Requests refused (1 h)",
                "Requests refused as a whole, each with up to 1,000 events: not JSON, too large, not signed, a wrong "
                "password. Errors of scrapers with a wrong password are among them.",
                "WebSocketEventsRejected",
            ),
            "short",
            Query(shown.increase(catalogue.HTTP_ERRORS, ("job",), "1h", error=REFUSED), "{{job}}"),
            decimals=0,
            steps=ALARMING,
        ),
        tile(
            Heading(
                "Requests to come again (1 h)",
                "Requests that were sent away for now: over the rate limit, too much at once, no room on the disk, a "
                "shutdown. Senders try again; when it goes on, their queues fill and closes are lost.",
            ),
            "short",
            Query(shown.increase(catalogue.HTTP_ERRORS, ("job",), "1h", error=LATER), "{{job}}"),
            decimals=0,
            steps=ALARMING,
        ),
        tile(
            Heading(
                "Failed commits (1 h)",
                "Commits to the storage that failed. Their events were refused, to be sent again. Mostly the disk is "
                "full.",
                "WebSocketStorageFailing",
            ),
            "short",
            Query(shown.increase(catalogue.STORAGE_ERRORS, ("job",), "1h"), "{{job}}"),
            decimals=0,
            steps=ALARMING,
            nothing=none,
        ),
        tile(
            Heading(
                "Ids remembered",
                "Ids by which events that are sent again are known. Flat at a high level: the limit is reached, see "
                "Memory of ids.",
            ),
            "short",
            Query(shown.gauge("sum", catalogue.WEBHOOK_IDS, ("job",)), "{{job}}"),
            decimals=0,
            nothing=none,
        ),
        time_series(
            Heading(
                "Reported events",
                "Events per second by what became of them, rejected ones by reason. Many duplicates: a sender repeats "
                "what was accepted, or its answers are lost. Rejected since a deploy: that sender, or the exporter's "
                "configuration.",
                "WebSocketEventsRejected",
            ),
            "cps",
            Query(
                shown.rate(catalogue.WEBHOOK_EVENTS, (*PROCESS, "result", "reason")),
                f"{{{{result}}}} {{{{reason}}}} {REPLICA}",
            ),
            width=8,
            colours=by_result,
        ),
        time_series(
            Heading(
                "Requests answered with an error",
                "Requests refused as a whole, per second by error. Steady signature_mismatch: one side has rotated its "
                "secret alone. rate_limited in peaks: as meant. storage_full, storage_unavailable: see Failed commits.",
                "WebSocketStorageFailing",
            ),
            "cps",
            Query(
                shown.rate(catalogue.HTTP_ERRORS, (*PROCESS, "error"), error=(*REFUSED, *LATER)),
                f"{{{{error}}}} {REPLICA}",
            ),
            width=8,
        ),
        time_series(
            Heading(
                "Memory of ids",
                "For how long every id has been remembered. Level at the configured window is right. Below it there "
                "are too many events: what is sent again after that time is refused as too_old.",
                "WebSocketEventIdsForgotten",
            ),
            "s",
            Query(f"time() - {shown.gauge('max', catalogue.WEBHOOK_IDS_SINCE, PROCESS)}", REPLICA),
            width=8,
            log_base=10,
            threshold=SHORTEST_MEMORY,
            below=True,
        ),
    ]
