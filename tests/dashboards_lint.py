"""The rules of grafana/dashboard-linter for Prometheus dashboards, each as a function from a dashboard to its faults.

Stricter in four places: every kind of panel with queries is looked at, not only those that the linter knows; a counter
is one by the catalogue, not by the end of its name; a variable's query is parsed by itself; and only tiles may ask for
everything that is chosen, since hundreds of services would be seconds of work for each panel: what else there is asks
for the few that are shown, by `target`, or by `instance` where a family has no targets.
"""

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import promql_parser
from promql_parser import Call, Expr, MatchOp, MatrixSelector, VectorSelector

from dashboards.queries import all_panels
from exporter.metrics.catalogue import Metric

RATE_INTERVAL: Final = 7919
"""Seconds that stand for $__rate_interval: no window is that long by chance."""
WINDOWS: Final = {"$__rate_interval": f"{RATE_INTERVAL}s", "$__range": "1h"}

UNITS: Final = frozenset({"none", "short", "percentunit", "bytes", "s", "cps"})
"""Those of Grafana's units that are used here."""

Dashboard = dict[str, Any]
Rule = Callable[[Dashboard], Iterator[str]]


def panels(board: Dashboard) -> list[dict[str, Any]]:
    return [panel for panel in all_panels(board["panels"]) if panel["type"] != "row"]


def exprs(board: Dashboard) -> Iterator[tuple[str, str]]:
    for panel in panels(board):
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"]


def parsed(expr: str) -> Expr:
    """Raises ValueError for what is no PromQL once Grafana's windows are filled in."""
    for variable, window in WINDOWS.items():
        expr = expr.replace(variable, window)
    found: Expr = promql_parser.parse(expr)
    return found


def valid(board: Dashboard) -> Iterator[tuple[str, Expr]]:
    """The queries that are PromQL; that one is not is for one rule to say."""
    for title, expr in exprs(board):
        with contextlib.suppress(ValueError):
            yield title, parsed(expr)


def nodes(expr: Expr) -> list[tuple[Expr, tuple[Expr, ...]]]:
    """Every node below, with the nodes above it from the outermost inwards."""
    above: list[Expr] = []
    found: list[tuple[Expr, tuple[Expr, ...]]] = []

    def enter(node: Expr) -> None:
        found.append((node, tuple(above)))
        above.append(node)

    promql_parser.walk(expr, pre_visit=enter, post_visit=lambda _: above.pop() and None)
    return found


def selectors(expr: Expr) -> list[tuple[VectorSelector, tuple[Expr, ...]]]:
    return [(node, above) for node, above in nodes(expr) if isinstance(node, VectorSelector)]


def family(selector: VectorSelector, known: Mapping[str, Metric]) -> Metric:
    """Raises KeyError for what is in no catalogue."""
    name = selector.name
    return known[name] if name in known else known[re.sub(r"_(bucket|count|sum)$", "", name)]


def variable(board: Dashboard, name: str) -> dict[str, Any]:
    found: dict[str, Any] = next((each for each in board["templating"]["list"] if each["name"] == name), {})
    return found


def template_datasource(board: Dashboard) -> Iterator[str]:
    sources = [each for each in board["templating"]["list"] if each["type"] == "datasource"]
    if [(each["name"], each["label"], each["query"]) for each in sources] != [
        ("datasource", "Data source", "prometheus")
    ]:
        yield "has not one data source variable of Prometheus, named datasource and labelled Data source"


def template_job_and_target(board: Dashboard) -> Iterator[str]:
    for name in ("job", "target"):
        each = variable(board, name)
        wanted = {"type": "query", "label": name.title(), "multi": True, "allValue": ".+"}
        if each.get("datasource", {}).get("uid") != "${datasource}" or not wanted.items() <= each.items():
            yield f"variable {name} is not a multi-value query to the chosen data source with all value .+"


def template_label_promql(board: Dashboard) -> Iterator[str]:
    for each in board["templating"]["list"]:
        if each["type"] != "query":
            continue
        call = re.fullmatch(r"label_values\((.+), \w+\)|query_result\((.+)\)", each["query"])
        try:
            parsed(call[1] or call[2] if call else "")
        except ValueError:
            yield f"variable {each['name']} does not ask for label_values() or query_result() of PromQL"


def template_on_time_change_reload(board: Dashboard) -> Iterator[str]:
    for each in board["templating"]["list"]:
        if each["type"] == "query" and each["refresh"] != 2:
            yield f"variable {each['name']} is not refreshed when the time range changes"


def panel_datasource(board: Dashboard) -> Iterator[str]:
    for panel in panels(board):
        if panel["type"] != "text" and panel["datasource"].get("uid") != "${datasource}":
            yield f"{panel['title']}: does not use the chosen data source"


def panel_title_description(board: Dashboard) -> Iterator[str]:
    for panel in panels(board):
        if not panel.get("title") or not panel.get("description"):
            yield f"{panel.get('title')}: has no title or no description"


def panel_units(board: Dashboard) -> Iterator[str]:
    for panel in panels(board):
        if panel["type"] != "text" and panel["fieldConfig"]["defaults"].get("unit") not in UNITS:
            yield f"{panel['title']}: has no unit, or an unknown one"


def panel_no_targets(board: Dashboard) -> Iterator[str]:
    for panel in panels(board):
        if panel["type"] != "text" and not panel.get("targets"):
            yield f"{panel['title']}: asks nothing"


def target_promql(board: Dashboard) -> Iterator[str]:
    for title, expr in exprs(board):
        try:
            parsed(expr)
        except ValueError as fault:
            yield f"{title}: no PromQL: {fault}"


def target_rate_interval(board: Dashboard) -> Iterator[str]:
    for title, expr in valid(board):
        for node, above in nodes(expr):
            if not isinstance(node, MatrixSelector):
                continue
            chosen = node.range.total_seconds() == RATE_INTERVAL
            call = above[-1] if above else None
            if isinstance(call, Call) and call.func.name in ("rate", "irate") and not chosen:
                yield f"{title}: a rate over something else than $__rate_interval"


def target_job(board: Dashboard) -> Iterator[str]:
    for title, expr in valid(board):
        for selector, _ in selectors(expr):
            if not _matched(selector, "job", "$job"):
                yield f'{title}: {selector.name} without job=~"$job"'


def target_counter_agg(board: Dashboard, known: Mapping[str, Metric]) -> Iterator[str]:
    for title, expr in valid(board):
        for selector, above in selectors(expr):
            counts = family(selector, known).type in ("counter", "histogram")
            call = above[-2] if len(above) > 1 and isinstance(above[-1], MatrixSelector) else None
            if counts and not (isinstance(call, Call) and call.func.name in ("rate", "irate", "increase")):
                yield f"{title}: {selector.name} is not within rate, irate or increase"


def target_target(board: Dashboard, known: Mapping[str, Metric]) -> Iterator[str]:
    tiles = {panel["title"] for panel in panels(board) if panel["type"] == "stat"}
    for title, expr in valid(board):
        for selector, _ in selectors(expr):
            metric = family(selector, known)
            for wanted in _narrowed_by(metric, few=title not in tiles):
                if not any(_matched(selector, label, value) for label, value in wanted):
                    label, value = wanted[0]
                    yield f'{title}: {selector.name} without {label}=~"{value}"'


def _narrowed_by(metric: Metric, *, few: bool) -> Iterator[list[tuple[str, str]]]:
    """Matchers of which a selector needs one of each list."""
    if metric.name == "ALERTS":  # those that have no such label are shown too
        yield from ([("target", "$target|")], [("source", "$source|")])
        return
    if "source" in metric.labels:
        yield [("source", "$source")]
    shown = (
        [("target", "$shown"), ("instance", "$instance")] if "target" in metric.labels else [("instance", "$instance")]
    )
    if few:
        yield shown
    elif "target" in metric.labels:
        yield [*shown, ("target", "$target")]


def uneditable(board: Dashboard) -> Iterator[str]:
    if board.get("editable"):
        yield "can be edited: what is changed by hand would be lost"


def _matched(selector: VectorSelector, label: str, value: str) -> bool:
    return any((each.name, each.op, each.value) == (label, MatchOp.Re, value) for each in selector.matchers.matchers)


RULES: Final[tuple[Rule, ...]] = (
    template_datasource,
    template_job_and_target,
    template_label_promql,
    template_on_time_change_reload,
    panel_datasource,
    panel_title_description,
    panel_units,
    panel_no_targets,
    target_promql,
    target_rate_interval,
    target_job,
    uneditable,
)


def lint(board: Dashboard, known: Mapping[str, Metric]) -> list[str]:
    """Every fault of a dashboard; the last two rules need to know what each name stands for."""
    faults = [fault for rule in RULES for fault in rule(board)]
    return [*faults, *target_counter_agg(board, known), *target_target(board, known)]
