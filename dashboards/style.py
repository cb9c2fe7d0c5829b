"""Names and colours that mean the same in every panel."""

from collections.abc import Mapping
from typing import Final

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
