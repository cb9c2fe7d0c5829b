"""The queries of a rendered dashboard, ready for a Prometheus: what Grafana would fill in is filled in."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

VARIABLES: Final[Mapping[str, str]] = {
    "job": ".*",
    "target": ".*",
    "source": ".*",
    "__rate_interval": "1m",
    "__range": "1h",
}
"""Everything chosen, over the last hour."""

_VARIABLE: Final = re.compile(r"\$(\w+)")


def queries(dashboard_json: str) -> list[tuple[str, str]]:
    """(panel title, PromQL) of every panel's queries, in the order of the dashboard.

    Raises KeyError for a variable that is not in `VARIABLES`.
    """
    return [
        (panel["title"], fill_in(target["expr"]))
        for panel in all_panels(json.loads(dashboard_json)["panels"])
        for target in panel.get("targets", ())
    ]


def annotation_queries(dashboard_json: str) -> list[tuple[str, str]]:
    """(name, PromQL) of every annotation. Raises KeyError for a variable that is not in `VARIABLES`."""
    annotations = json.loads(dashboard_json)["annotations"]["list"]
    return [(annotation["name"], fill_in(annotation["expr"])) for annotation in annotations]


def all_panels(panels: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Every panel, rows and the panels inside collapsed rows included."""
    for panel in panels:
        yield panel
        yield from all_panels(panel.get("panels", ()))


def fill_in(expr: str) -> str:
    """`expr` with each variable replaced by its value in `VARIABLES`."""
    return _VARIABLE.sub(lambda match: VARIABLES[match[1]], expr)
