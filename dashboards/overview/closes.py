"""Who leaves, with which close code, and what that code means."""

from dashboards import promql
from dashboards.panels import note, ranking, time_series
from dashboards.pieces import Heading, Panel, Query, value_map
from dashboards.promql import ORIGIN, shown
from dashboards.style import CLASS_COLOURS, RECONNECTS, TOO_BIG, WHO
from exporter import closecodes
from exporter.metrics import catalogue


def panels() -> list[Panel]:
    by_class = {f"^([0-9a-z]+ )?{name} by ": colour for name, colour in CLASS_COLOURS.items()}
    names = {
        str(code): (f"{code} {entry.name}", CLASS_COLOURS[entry.close_class])
        for code, entry in closecodes.REGISTRY.items()
    }
    return [
        time_series(
            Heading(
                "Closes by class and initiator",
                "Why connections end, and who ended them, per second. going_away by client is people leaving, by "
                "server a deploy or restart. too_big: see Message sizes. abnormal: no Close frame at all; the "
                "initiator is the side whose TCP ended first, maybe a proxy there. Dashed: ended by the client side.",
                details=RECONNECTS,
            ),
            "cps",
            Query(
                shown.rate(catalogue.CLOSES, (*ORIGIN, "class", "initiator")),
                f"{{{{class}}}} by {{{{initiator}}}} {WHO}",
            ),
            colours=by_class,
            dashed=" by client ",
        ),
        time_series(
            Heading(
                "Closes by code",
                "The same closes by code of the first Close frame, in the colour of its class. A narrow peak "
                "is an event (deploy, crash); an even level is a habit of clients or a proxy's timeout.",
                details=TOO_BIG,
            ),
            "cps",
            Query(
                shown.rate(catalogue.CLOSES, (*ORIGIN, "code", "class", "initiator")),
                f"{{{{code}}}} {{{{class}}}} by {{{{initiator}}}} {WHO}",
            ),
            colours=by_class,
            dashed=" by client ",
        ),
        time_series(
            Heading(
                "Ended without a Close frame",
                "Closes of class abnormal (1006), per second, by the side whose TCP ended first. A low even level is "
                "devices that vanish. A peak by client is often not clients but the ingress or proxy in front being "
                "reloaded; by server a crash, or a deploy of a service that sends no Close frame.",
                "WebSocketAbnormalCloseSurge",
            ),
            "cps",
            Query(
                shown.rate(catalogue.CLOSES, (*ORIGIN, "initiator"), class_="abnormal"), f"by {{{{initiator}}}} {WHO}"
            ),
        ),
        time_series(
            Heading(
                "Transport ends",
                "How TCP ended under the connections, per second, by the side that ended it first. reset: bytes were "
                "left unread, by a crash or by a peer that refused them; timeout: the network or the device is gone. A "
                "detail for a suspicion: which side comes first is a race for some peers.",
            ),
            "cps",
            Query(shown.rate(catalogue.TRANSPORT_ENDS, (*ORIGIN, "side", "kind")), f"{{{{side}}}} {{{{kind}}}} {WHO}"),
        ),
        ranking(
            Heading(
                "Closes in the time range",
                "Every close code seen in the chosen time range, most frequent first. 1005 is an empty Close frame, "
                "1006 none at all, invalid a code that must not be sent. The reason texts are in the exporter's log.",
            ),
            Query(
                f"{shown.increase(catalogue.CLOSES, (*ORIGIN, 'code', 'class', 'initiator'), promql.RANGE)} > 0",
                "",
            ),
            unit="short",
            columns={
                "code": "Code",
                "class": "Class",
                "initiator": "Initiator",
                "target": "Target",
                "source": "Source",
                "job": "Job",
                "Value": "Closes",
            },
            cells={
                "Code": [value_map(names)],
                "Class": [value_map({name: (name, colour) for name, colour in CLASS_COLOURS.items()})],
            },
            nothing="No close in this time range",
            width=14,
            height=10,
        ),
        note(
            Heading(
                "What the codes mean",
                "Every close code in one line. Codes of 3000 to 4999 that the target does not list are counted as 3xxx "
                "and 4xxx, 1016 to 2999 as reserved, and what must not be sent as invalid.",
            ),
            close_code_notes(),
            width=10,
            height=10,
        ),
    ]


def close_code_notes() -> str:
    """The meaning of every code that a close can be counted under, as Markdown, one line each."""
    lines = [f"- **{entry.span} {entry.name}**: {entry.meaning}" for entry in closecodes.ENTRIES]
    return "\n".join(
        [*lines, "", "`websocket-exporter codes 1009` tells when a code is really seen, and how to fix it."]
    )
