"""What panels of every kind are made of: a query, a heading, links, thresholds and value mappings."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from grafana_foundation_sdk.builders import (
    common,
    dashboard,
    heatmap,
    prometheus,
    stat,
    statetimeline,
    table,
    timeseries,
)
from grafana_foundation_sdk.builders import text as markdown
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import common as options
from grafana_foundation_sdk.models import dashboard as model

from dashboards.style import DETAILS, RUNBOOKS, details_url

DATASOURCE: Final = options.DataSourceRef(type_val="prometheus", uid="${datasource}")

WRITTEN_RUNBOOKS: Final = Path(__file__).parent.parent / "alerts/runbooks"

AnyPanel = TypeVar(
    "AnyPanel", timeseries.Panel, stat.Panel, heatmap.Panel, statetimeline.Panel, table.Panel, markdown.Panel
)

Panel = Builder[model.Panel]
Width = int
"""In columns of the dashboard's 24."""


@dataclass(frozen=True, slots=True)
class Query:
    """One PromQL expression and the name of each series it gives, with `{{label}}` for a label's value."""

    expr: str
    legend: str


@dataclass(frozen=True, slots=True)
class Heading:
    """What every panel has: its title, and what an operator should conclude from it.

    `alerts` are those that watch what is shown: their runbooks are one click away. `details` is the uid of the
    dashboard that says more, which a click on a value opens.
    """

    title: str
    description: str
    alerts: str | tuple[str, ...] = ()
    details: str | None = None


@dataclass(frozen=True, slots=True)
class DataLink:
    """A link on a value. The SDK's own would carry what only a link of a whole dashboard has."""

    title: str
    url: str
    new_tab: bool = False

    def build(self) -> Any:
        return self

    def to_json(self) -> dict[str, object]:
        return {"title": self.title, "url": self.url, "targetBlank": self.new_tab}


def placed(panel: AnyPanel, heading: Heading, width: Width, height: int) -> AnyPanel:
    """The panel with what every panel has."""
    panel.title(heading.title).description(heading.description).span(width).height(height)
    if heading.details is not None and not isinstance(panel, markdown.Panel):
        panel.data_links([DataLink(f"Details: {DETAILS[heading.details]}", details_url(heading.details))])
    alerts = (heading.alerts,) if isinstance(heading.alerts, str) else heading.alerts
    # An alert without a runbook is not shipped: a link would lead nowhere.
    shipped = [alert for alert in alerts if (WRITTEN_RUNBOOKS / f"{alert}.md").exists()]
    if shipped:
        panel.links([_runbook(alert) for alert in shipped])
    return panel


def _runbook(alert: str) -> dashboard.DashboardLink:
    link = dashboard.DashboardLink(f"Runbook of {alert}").url(f"{RUNBOOKS}/{alert}.md")
    return link.type(model.DashboardLinkType.LINK).target_blank(True)


def target(query: Query, ref: str) -> prometheus.Dataquery:
    """The query as Grafana's data source takes it."""
    return prometheus.Dataquery().datasource(DATASOURCE).expr(query.expr).legend_format(query.legend).ref_id(ref)


def numbered(queries: tuple[Query, ...]) -> Iterable[tuple[Query, str]]:
    """Each query with a name of its own within the panel."""
    return zip(queries, "ABCDEFGHIJKLMNOPQRSTUVWXYZ", strict=False)


def thresholds(base: str, steps: Mapping[float, str]) -> dashboard.ThresholdsConfig:
    """The colour `base`, and from each value in `steps` upwards its colour."""
    above = [model.Threshold(None, base), *(model.Threshold(*step) for step in steps.items())]
    return dashboard.ThresholdsConfig().mode(model.ThresholdsMode.ABSOLUTE).steps(above)


def legend() -> common.VizLegendOptions:
    """A list below the panel. The SDK hides legends unless told otherwise."""
    return (
        common.VizLegendOptions()
        .show_legend(True)
        .display_mode(options.LegendDisplayMode.LIST)
        .placement(options.LegendPlacement.BOTTOM)
    )


def value_map(texts: Mapping[str, tuple[str, str]]) -> model.ValueMap:
    """Shows each value as a text in a colour."""
    return model.ValueMap({value: model.ValueMappingResult(*shown) for value, shown in texts.items()})


def not_a_number(shown: str) -> model.SpecialValueMap:
    """Shows 0 / 0, which is no fault but the absence of any event, as a text."""
    result = model.ValueMappingResult(text=shown, color="text")
    return model.SpecialValueMap(model.DashboardSpecialValueMapOptions(model.SpecialValueMatch.NULL_AND_NAN, result))
