"""Who refuses, how often, how large the refused messages were, and what to do about it."""

from dashboards.panels import FEW_POINTS, note, time_series
from dashboards.pieces import Heading, Panel, Query
from dashboards.promql import ORIGIN, shown
from dashboards.quantiles import quantiles
from dashboards.style import EVIDENCE_COLOURS, WHO
from exporter import closecodes
from exporter.metrics import catalogue


def panels() -> list[Panel]:
    by_evidence = {f"(^| ){evidence} ": colour for evidence, colour in EVIDENCE_COLOURS.items()}
    return [
        time_series(
            Heading(
                "Closes with 1009 by initiator",
                "Closes with 1009 per second, by the side that refused: its limit was hit. An even level is a client "
                "in a loop; a step at a deploy is a limit or a payload that changed with it. Dashed: refused by the "
                "client side.",
                (
                    "WebSocketMessageTooBigSpike",
                    "WebSocketMessageTooBigSustained",
                    "WebSocketMessageTooBigFirstSeen",
                ),
            ),
            "cps",
            Query(shown.rate(catalogue.CLOSES, (*ORIGIN, "initiator"), code="1009"), f"by {{{{initiator}}}} {WHO}"),
            dashed="^by client ",
        ),
        time_series(
            Heading(
                "Refused again within 5 minutes",
                "Refusals per second of a client that had been refused within the 5 minutes before. As high as the "
                "closes with 1009: all of it is a loop, and the log line of each close names the client.",
                "WebSocketMessageTooBigLoop",
            ),
            "cps",
            Query(shown.rate(catalogue.TOO_BIG_REPEATS, (*ORIGIN, "evidence")), f"{{{{evidence}}}} {WHO}"),
            colours=by_evidence,
        ),
        time_series(
            Heading(
                "Refused messages by evidence",
                "Refused messages per second whose size is known. close_1009: the receiver said so. suspected: it "
                "ended the connection over the largest message yet, in some other way. Compressed messages are left "
                "out: their size on the wire is not what limits apply to.",
            ),
            "cps",
            Query(
                shown.observations(catalogue.OVERSIZE, (*ORIGIN, "direction", "evidence")),
                f"{{{{direction}}}} {{{{evidence}}}} {WHO}",
            ),
            width=8,
            colours=by_evidence,
        ),
        time_series(
            Heading(
                "Sizes of refused messages",
                "How large the messages were that were refused with 1009; suspected ones are in a heatmap below. "
                "Median and largest alike: one payload, a bound can be raised to it. Far apart: no limit will be "
                "enough, such payloads belong into chunks.",
            ),
            "bytes",
            *quantiles(catalogue.OVERSIZE, (0.5, 1), "direction", evidence="close_1009"),
            width=8,
            log_base=2,
            points=FEW_POINTS,
        ),
        time_series(
            Heading(
                "Stuck clients",
                "Clients refused 3 or more times in the last 15 minutes, over all replicas. Falling to 0 after a fix "
                "is the proof that it reached them. Clients behind one address are left out unless the target's "
                "client_key tells them apart.",
            ),
            "short",
            Query(shown.gauge("sum", catalogue.TOO_BIG_STUCK, ORIGIN), WHO),
            width=8,
        ),
        note(
            Heading("What to do about 1009", "Which remedy when, from the exporter's own knowledge of close codes."),
            remedy_notes(1009),
            width=24,
            height=7,
        ),
    ]


def remedy_notes(code: int) -> str:
    """What to do about a code, and when, as Markdown, one line each."""
    return "\n".join(f"- **{remedy.when}**: {remedy.do}" for remedy in closecodes.remedies(code))
