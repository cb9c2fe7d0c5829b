"""What all dashboards share: the variables, the annotations, and how rows and panels are placed."""

import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import dashboard as model

from dashboards import promql
from dashboards.pieces import DATASOURCE, Panel
from dashboards.promql import MOST_SHOWN, RANGE, chosen, shown
from dashboards.style import REPLICA, WHO
from exporter.metrics import catalogue

TAG: Final = "websocket"
"""Carried by every dashboard of this product, and by no other: they link to each other by it."""


@dataclass(frozen=True, slots=True)
class Section:
    """One row: its panels from left to right, in lines of 24 columns and one height each.

    `repeat` names a variable: the row then appears once for each of its chosen values.
    """

    title: str
    panels: list[Panel]
    repeat: str | None = None


@dataclass(frozen=True, slots=True)
class Rank:
    """By what services are ranked where more are chosen than are shown: a query by target and source, and in words."""

    expr: str
    words: str


MOST_CLOSES: Final = Rank(
    chosen.observations(catalogue.CONNECTION_DURATION, ("target", "source"), RANGE), "connections closed"
)


def assemble(
    title: str, uid: str, description: str, sections: Iterable[Section], rank: Rank = MOST_CLOSES
) -> model.Dashboard:
    """A dashboard of these rows, with the shared variables, annotations and links.

    Raises ValueError where two titles give the same id.
    """
    board = (
        dashboard.Dashboard(title)
        .uid(uid)
        .description(description)
        .tags([TAG])
        .readonly()  # what is changed by hand is lost with the next version: save a copy under another name
        .time("now-6h", "now")
        .refresh("30s")
        .tooltip(model.DashboardCursorSync.CROSSHAIR)
        .variables(_variables(rank))
        .annotations(_annotations())
        .link(_others())
    )
    for section in sections:
        row = dashboard.Row(section.title)
        board.with_row(row if section.repeat is None else row.repeat(section.repeat))
        for panel in section.panels:
            board.with_panel(panel)
    built = board.build()
    for placed in built.panels or ():
        placed.id_val = panel_id(placed.title or "")
    if len({placed.id_val for placed in built.panels or ()}) != len(built.panels or ()):
        raise ValueError(f"{title}: two panels have the same id; change one of their titles")
    for link in built.links or ():
        link.placement = None  # the SDK would hide it in a menu
    return built


def panel_id(title: str) -> int:
    """The id of the panel with this title, whatever stands before it: alerts link to `/d/<uid>?viewPanel=<id>`."""
    return zlib.crc32(title.encode()) % 1_000_000 + 1


def _others() -> dashboard.DashboardLink:
    """Links to all dashboards of this product, with what is chosen here."""
    link = dashboard.DashboardLink("WebSocket").type(model.DashboardLinkType.DASHBOARDS).tags([TAG])
    return link.include_vars(True).keep_time(True)


def _variables(rank: Rank) -> list[Builder[model.VariableModel]]:
    job = promql.label_values(catalogue.BUILD_INFO, "job", {})
    target = promql.label_values(catalogue.TARGET_CREATED, "target", {"job": "job"})
    source = promql.label_values(catalogue.TARGET_CREATED, "source", {"job": "job", "target": "target"})
    instance = promql.label_values(catalogue.TARGET_CREATED, "instance", {"job": "job", "target": "shown"})
    return [
        dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus"),
        _variable("job", job).all_value(".+"),
        _variable("target", target).all_value(".+"),
        _variable("source", source).all_value(".+"),
        # All of these two has no value of its own: it stands for the options, which are few.
        _variable("shown", promql.highest(rank.expr))
        .description(
            f"Where more than {MOST_SHOWN} targets are chosen, panels are about the {MOST_SHOWN} with the most "
            f"{rank.words} in the time range; only the first row of the Overview is about all. Choose targets to see "
            "others."
        )
        .regex('/target="([^"]*)"/')
        .sort(model.VariableSort.DISABLED),
        _variable("instance", instance).hide(model.VariableHide.HIDE_VARIABLE),
    ]


def _variable(name: str, query: str) -> dashboard.QueryVariable:
    return (
        dashboard.QueryVariable(name)
        .label(name.capitalize())
        .datasource(DATASOURCE)
        .query(query)
        .definition(query)
        .refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(model.VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .current(model.VariableOption(selected=True, text=["All"], value=["$__all"]))
    )


def _annotations() -> list[Builder[model.AnnotationQuery]]:
    starts = shown.exporters(shown.selector(promql.PROCESS_START, "gauge"))
    return [
        _annotation("Firing alerts", promql.alerts("firing"), "red")
        .title_format("{{alertname}}")
        .text_format(WHO)
        .tag_keys("severity"),
        # The start time is the sample's value: marks a new replica too, which changes() of its series would not.
        _annotation("Exporter starts", f"{starts} * 1000", "purple")
        .title_format("Exporter started")
        .text_format(f"{REPLICA}: the connections through its taps were cut, the counters began anew")
        .use_value_for_time(True),
    ]


def _annotation(name: str, expr: str, colour: str) -> dashboard.AnnotationQuery:
    return dashboard.AnnotationQuery().name(name).datasource(DATASOURCE).enable(True).icon_color(colour).expr(expr)
