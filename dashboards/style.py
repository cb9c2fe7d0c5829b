"""Names and colours that mean the same in every panel."""

from collections.abc import Mapping
from typing import Final

from exporter.events import Verdict, Within

RUNBOOKS: Final = "https://github.com/websocket-exporter/websocket-exporter/blob/main/alerts/runbooks"

WHO: Final = "{{job}}/{{target}} ({{source}})"
REPLICA: Final = "{{job}} {{instance}}"

CLASS_COLOURS: Final[Mapping[str, str]] = {
    "normal": "green",
    "going_away": "blue",
    "too_big": "red",
    "protocol_error": "purple",
    "policy": "yellow",
    "internal_error": "orange",
    "abnormal": "#A16A3A",
    "application": "#37CAD6",
    "invalid": "#E54BC4",
    "unknown": "#9FA7B3",
}
"""One colour for each value of the `class` label."""
OUTCOME_COLOURS: Final[Mapping[str, str]] = {
    "accepted": "green",
    "rejected": "orange",
    "failed": "red",
    "refused_by_exporter": "purple",
}
"""One colour for each value of the `outcome` label."""

ALARMING: Final[Mapping[float, str]] = {0: "green", 1: "orange", 10: "red"}
"""Colours of a count that should be zero."""

OVERVIEW: Final = "websocket-overview"
TOO_BIG: Final = "websocket-too-big"
RECONNECTS: Final = "websocket-reconnects"
DETAILS: Final[Mapping[str, str]] = {TOO_BIG: "Message too big", RECONNECTS: "Going away and reconnects"}
"""The dashboards that the overview leads to: uid -> what it is about."""

EVIDENCE_COLOURS: Final[Mapping[str, str]] = {"close_1009": "red", "suspected": "orange"}
"""One colour for each value of the `evidence` label."""
VERDICT_COLOURS: Final[Mapping[Verdict, str]] = {
    "healthy": "green",
    "too_few": "#9FA7B3",
    "moved": "blue",
    "herd": "orange",
    "amplified": "red",
    "unrecovered": "purple",
}
"""One colour for each value of the `verdict` label."""
WITHIN_COLOURS: Final[Mapping[Within, str]] = {
    "1s": "red",
    "5s": "orange",
    "30s": "green",
    "120s": "blue",
    "later": "purple",
}
"""One colour for each value of the `within` label of returns: at once is a herd, late is an outage."""


def details_url(uid: str) -> str:
    """Grafana's address of a dashboard, with the variables and the time range chosen in this one."""
    return f"/d/{uid}?${{__url_time_range}}&${{__all_variables}}"
