"""What all dashboards share: the variables, the annotations, and how rows and panels are placed."""

from collections.abc import Iterable
from dataclasses import dataclass

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import dashboard as model

from dashboards import promql
from dashboards.panels import DATASOURCE, Panel
from dashboards.style import REPLICA, WHO
from exporter.metrics import catalogue


@dataclass(frozen=True, slots=True)
class Section:
    """One row: its panels from left to right, in lines of 24 columns and one height each.

    `repeat` names a variable: the row then appears once for each of its chosen values.
    """

    title: str
    panels: list[Panel]
    repeat: str | None = None


def assemble(title: str, uid: str, description: str, sections: Iterable[Section]) -> model.Dashboard:
    """A dashboard of these rows, with the shared variables and annotations."""
    board = (
        dashboard.Dashboard(title)
        .uid(uid)
        .description(description)
        .tags(["websocket"])
        .time("now-6h", "now")
        .refresh("30s")
        .tooltip(model.DashboardCursorSync.CROSSHAIR)
        .variables(_variables())
        .annotations(_annotations())
    )
    for section in sections:
        row = dashboard.Row(section.title)
        board.with_row(row if section.repeat is None else row.repeat(section.repeat))
        for panel in section.panels:
            board.with_panel(panel)
    built = board.build()
    for number, placed in enumerate(built.panels or (), start=1):
        placed.id_val = number
    return built


def _variables() -> list[Builder[model.VariableModel]]:
    job = promql.label_values(catalogue.BUILD_INFO, "job", ())
    target = promql.label_values(catalogue.TARGET_CREATED, "target", ("job",))
    source = promql.label_values(catalogue.TARGET_CREATED, "source", ("job", "target"))
    return [
        dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus"),
        # No "all value" here: process_* and up exist for other jobs too, so All must be the exporter's jobs only.
        _variable("job", job),
        _variable("target", target).all_value(".*"),
        _variable("source", source).all_value(".*"),
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
    return [
        _annotation("Firing alerts", promql.alerts("firing"), "red")
        .title_format("{{alertname}}")
        .text_format(WHO)
        .tag_keys("severity"),
        # The start time is the sample's value: marks a new replica too, which changes() of its series would not.
        _annotation("Exporter starts", f"{promql.selector(promql.PROCESS_START, 'gauge')} * 1000", "purple")
        .title_format("Exporter started")
        .text_format(f"{REPLICA}: the connections relayed before were cut, the counters began anew")
        .use_value_for_time(True),
    ]


def _annotation(name: str, expr: str, colour: str) -> dashboard.AnnotationQuery:
    return dashboard.AnnotationQuery().name(name).datasource(DATASOURCE).enable(True).icon_color(colour).expr(expr)
