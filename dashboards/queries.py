"""The queries of a rendered dashboard, ready for a Prometheus: what Grafana would fill in is filled in."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

VARIABLES: Final[Mapping[str, str]] = {
    "job": ".+",
    "target": ".+",
    "source": ".+",
    "shown": ".+",
    "instance": ".+",
    "__rate_interval": "1m",
    "__range": "1h",
}
"""Everything chosen, over the last hour."""

_VARIABLE: Final = re.compile(r"\$(\w+)")
_LABEL_VALUES: Final = re.compile(r"^label_values\((.*), (\w+)\)$")
_QUERY_RESULT: Final = re.compile(r"^query_result\((.*)\)$")


def queries(dashboard_json: str, variables: Mapping[str, str] = VARIABLES) -> list[tuple[str, str]]:
    """(panel title, PromQL) of every panel's queries, in the order of the dashboard.

    Raises KeyError for a variable that is not in `variables`.
    """
    return [
        (panel["title"], fill_in(target["expr"], variables))
        for panel in all_panels(json.loads(dashboard_json)["panels"])
        for target in panel.get("targets", ())
    ]


def annotation_queries(dashboard_json: str, variables: Mapping[str, str] = VARIABLES) -> list[tuple[str, str]]:
    """(name, PromQL) of every annotation. Raises KeyError for a variable that is not in `variables`."""
    annotations = json.loads(dashboard_json)["annotations"]["list"]
    return [(annotation["name"], fill_in(annotation["expr"], variables)) for annotation in annotations]


def variable_queries(dashboard_json: str, variables: Mapping[str, str] = VARIABLES) -> list[tuple[str, str]]:
    """(name, PromQL that has a series for each option) of every variable that asks Prometheus for its options.

    Grafana's label_values() and query_result() are no PromQL. Raises KeyError for a variable that is unknown.
    """
    return [
        (variable["name"], fill_in(_promql(variable["query"]), variables))
        for variable in json.loads(dashboard_json)["templating"]["list"]
        if variable["type"] == "query"
    ]


def _promql(query: str) -> str:
    return _QUERY_RESULT.sub(r"\1", _LABEL_VALUES.sub(r"count by (\2) (\1)", query))


def all_panels(panels: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Every panel, rows and the panels inside collapsed rows included."""
    for panel in panels:
        yield panel
        yield from all_panels(panel.get("panels", ()))


def fill_in(expr: str, variables: Mapping[str, str] = VARIABLES) -> str:
    """`expr` with each variable replaced by its value."""
    return _VARIABLE.sub(lambda match: variables[match[1]], expr)
