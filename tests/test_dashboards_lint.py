"""The dashboards against grafana/dashboard-linter's rules, without exclusions, and against what else a query can get
wrong: names that do not exist, sums over sources, two panels with one query, a metric that no panel shows.
"""

import copy
import json
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

import pytest
from prometheus_client.utils import floatToGoString
from promql_parser import AggModifierType, AggregateExpr

from dashboards.queries import fill_in
from exporter.metrics import bounds, catalogue
from exporter.web.errors import ERROR_TOKENS
from tests.dashboards_lint import exprs, family, lint, parsed, selectors
from tests.dashboards_support import DASHBOARDS, KNOWN, RENDERED, all_queries, every_dashboard, panels

ELSEWHERE: Final = {
    catalogue.CLOSE_CODE_INFO: "names for tables made elsewhere: the dashboards have them from the same knowledge base",
    catalogue.WEBHOOK_IDS_LIMIT: "a constant; Memory of ids shows what follows from it",
    catalogue.RELOAD_SUCCESS_TIME: "the tile Configuration says what matters: whether the last load was good",
}
"""Families that no panel, annotation or variable asks for, and why."""


@every_dashboard
def test_the_linter_has_no_complaint(name: str) -> None:
    """Data source, variables, titles, units, PromQL, windows of rates, matchers, counters, not editable."""
    assert lint(DASHBOARDS[name], KNOWN) == []


def first_query(change: Callable[[str], str]) -> Callable[[dict[str, Any]], None]:
    def spoil(board: dict[str, Any]) -> None:
        target = next(panel for panel in board["panels"] if panel["type"] == "timeseries")["targets"][0]
        target["expr"] = change(target["expr"])

    return spoil


def first_panel(**change: object) -> Callable[[dict[str, Any]], None]:
    return lambda board: next(panel for panel in board["panels"] if panel["type"] == "stat").update(change)


def job_variable(**change: object) -> Callable[[dict[str, Any]], None]:
    return lambda board: board["templating"]["list"][1].update(change)


FAULTS: Final[dict[str, Callable[[dict[str, Any]], None]]] = {
    "has not one data source variable": lambda board: board["templating"]["list"].pop(0),
    "variable job is not a multi-value query": job_variable(allValue=".*"),
    "variable job does not ask for label_values()": job_variable(query="label_values(up{, job)"),
    "variable job is not refreshed": job_variable(refresh=1),
    "does not use the chosen data source": first_panel(datasource={"uid": "P1234"}),
    "has no title or no description": first_panel(description=""),
    "has no unit": first_panel(fieldConfig={"defaults": {}}),
    "asks nothing": first_panel(targets=[]),
    "no PromQL": first_query(lambda expr: f"{expr})"),
    "a rate over something else": first_query(lambda expr: expr.replace("$__rate_interval", "5m")),
    'without job=~"$job"': first_query(lambda expr: expr.replace('job=~"$job", ', "")),
    'without target=~"$shown"': first_query(lambda expr: expr.replace('target=~"$shown"', 'target=~"$target"')),
    'without source=~"$source"': first_query(lambda expr: expr.replace('source=~"$source"', 'source="tap"')),
    "is not within rate": first_query(lambda expr: expr.replace("rate(", "sum_over_time(")),
    "can be edited": lambda board: board.update(editable=True),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_linter_finds_what_is_wrong(fault: str) -> None:
    """Each rule, on a dashboard with one fault put in."""
    board = copy.deepcopy(DASHBOARDS["too-big.json"])
    FAULTS[fault](board)
    assert any(fault in found for found in lint(board, KNOWN)), lint(board, KNOWN)


def test_every_query_is_promql() -> None:
    """Of panels, annotations and variables, with every variable filled in, by a parser other than Prometheus' own."""
    assert len([parsed(expr) for _, expr in all_queries()]) > 100


def test_only_catalogued_names_labels_and_values_are_queried() -> None:
    """Each selector names a family that exists, labels that it has, values that they can have, bounds as exposed."""
    seen = set()
    for title, expr in all_queries():
        for selector, _ in selectors(parsed(expr)):
            metric = family(selector, KNOWN)
            seen.add(metric.name)
            own = {"le"} if metric.type == "histogram" else set()
            for matcher in selector.matchers.matchers:
                assert matcher.name in {*metric.labels, "job", "instance", *own}, title
                if matcher.name == "le":
                    assert matcher.value in {"+Inf", *map(floatToGoString, metric.bounds)}, title
                elif "$" not in fill_in(matcher.value) and matcher.value not in (".+", ".+|", "WebSocket.*"):
                    assert set(matcher.value.split("|")) <= set(_possible(metric, matcher.name)), title
    assert len(seen) > 40


def _possible(metric: catalogue.Metric, label: str) -> tuple[str, ...]:
    if metric.name == "ALERTS":
        return ("pending", "firing")
    return tuple(ERROR_TOKENS) if label == "error" else bounds.values(metric, label)


@every_dashboard
def test_sources_are_never_added_up(name: str) -> None:
    """A connection seen by the tap and by the webhook is one: sums keep `source`, or their row repeats by it."""
    repeated = False
    for panel in panels(name):
        if panel["type"] == "row":
            repeated = panel.get("repeat") == "source"
        for target in panel.get("targets", ()):
            for selector, above in selectors(parsed(target["expr"])):
                sums = [node for node in above if isinstance(node, AggregateExpr)]
                if "source" in family(selector, KNOWN).labels and not repeated:
                    assert sums, panel["title"]
                    for node in sums:
                        assert node.modifier.type == AggModifierType.By, panel["title"]
                        assert "source" in node.modifier.labels, panel["title"]


@every_dashboard
def test_no_two_panels_ask_the_same(name: str) -> None:
    """A second panel with the same query would say the same again."""
    asked = Counter(expr for _, expr in exprs(DASHBOARDS[name]))
    assert [expr for expr, times in asked.items() if times > 1] == []


def test_every_metric_is_shown_somewhere() -> None:
    """Each family of the catalogue is asked for by a panel, an annotation or a variable, or it is said why not."""
    shown = {family(selector, KNOWN) for _, expr in all_queries() for selector, _ in selectors(parsed(expr))}
    assert {metric for metric in catalogue.METRICS if metric not in shown} == set(ELSEWHERE)


def test_grafana_gets_no_more_than_json() -> None:
    """Nothing in a dashboard is NaN or infinite, which JSON does not have and Grafana does not read."""
    for text in RENDERED.values():
        json.loads(text, parse_constant=lambda constant: pytest.fail(constant))
