"""Panels in the house style: every builder asks for a title, a description and a unit, and decides about the legend.

Descriptions say what to conclude from the panel. Units are Grafana's ids ("s", "bytes", "cps" = counts per second).
"""

from collections.abc import Iterable, Mapping
from typing import Final

from grafana_foundation_sdk.builders import common, dashboard, heatmap, stat, statetimeline, table, timeseries
from grafana_foundation_sdk.builders import text as markdown
from grafana_foundation_sdk.models import common as options
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models.heatmap import HeatmapColorMode, HeatmapColorScale
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from dashboards.pieces import (
    DATASOURCE,
    Heading,
    Query,
    Width,
    legend,
    numbered,
    placed,
    target,
    thresholds,
)

POINTS: Final = 300
"""Points of a line, or columns of a heatmap, at most: one every 5 minutes of a day. A panel has room for two or three
times as many, which Prometheus would have to compute."""
FEW_POINTS: Final = 150
"""The same for what costs most: many series for each line, such as quantiles by several labels."""


def time_series(
    heading: Heading,
    unit: str,
    *queries: Query,
    width: Width = 12,
    height: int = 8,
    log_base: int | None = None,
    colours: Mapping[str, str] | None = None,
    dashed: str | None = None,
    threshold: float | None = None,
    below: bool = False,
    points: int = POINTS,
) -> timeseries.Panel:
    """Lines; never stacked, for a stack would add up sources.

    `colours` maps regular expressions on series names to colours; `dashed` is one for dashed lines. `threshold` draws a
    red line where an alert has its own, which is for what lies above it, or with `below` for what lies below.
    Series that are zero throughout stay out of legend and tooltip: most are born at zero and remain so.
    """
    panel = (
        placed(timeseries.Panel(), heading, width, height)
        .datasource(DATASOURCE)
        .targets([target(query, ref).range() for query, ref in numbered(queries)])
        .max_data_points(points)
        .unit(unit)
        .color_scheme(dashboard.FieldColor().mode(model.FieldColorModeId.PALETTE_CLASSIC))
        .legend(legend())
        .tooltip(common.VizTooltipOptions().mode(options.TooltipDisplayMode.MULTI).sort(options.SortOrder.DESCENDING))
        .line_width(1)
        .fill_opacity(10)
        .show_points(options.VisibilityMode.AUTO)
        .with_override(
            model.MatcherConfig("byValue", {"reducer": "allIsZero", "op": "gte", "value": 0}),
            [model.DynamicConfigValue("custom.hideFrom", {"legend": True, "tooltip": True, "viz": False})],
        )
    )
    if log_base is None:
        panel.min(0)
    else:
        panel.scale_distribution(common.ScaleDistributionConfig().type(options.ScaleDistribution.LOG).log(log_base))
    for pattern, colour in (colours or {}).items():
        fixed = model.DynamicConfigValue("color", {"mode": "fixed", "fixedColor": colour})
        panel.override_by_regexp(f"/{pattern}/", [fixed])
    if dashed is not None:
        dashes = model.DynamicConfigValue("custom.lineStyle", {"fill": "dash", "dash": [10, 10]})
        panel.override_by_regexp(f"/{dashed}/", [dashes])
    if threshold is not None:
        line = common.GraphThresholdsStyleConfig().mode(options.GraphThresholdsStyleMode.DASHED)
        steps = (
            thresholds("red", {threshold: "transparent"}) if below else thresholds("transparent", {threshold: "red"})
        )
        panel.thresholds(steps).thresholds_style(line)
    return panel


def tile(
    heading: Heading,
    unit: str,
    query: Query,
    *,
    width: Width = 4,
    height: int = 5,
    decimals: int | None = None,
    steps: Mapping[float, str] | None = None,
    mappings: Iterable[model.ValueMapping] = (),
    nothing: str | None = None,
) -> stat.Panel:
    """One number per series, as of now. `steps` maps a value to the colour from there up; the default is blue.

    `nothing` is shown where there are no series, because what they would count is not configured.
    """
    panel = (
        placed(stat.Panel(), heading, width, height)
        .datasource(DATASOURCE)
        .with_target(target(query, "A").instant())
        .unit(unit)
        .mappings(list(mappings))
        .thresholds(thresholds("blue", steps or {}))
        .color_scheme(dashboard.FieldColor().mode(model.FieldColorModeId.THRESHOLDS))
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).fields("").values(False))
        .graph_mode(options.BigValueGraphMode.NONE)
        .color_mode(options.BigValueColorMode.VALUE)
        .text_mode(options.BigValueTextMode.VALUE_AND_NAME)
    )
    if nothing is not None:
        panel.no_value(nothing)
    return panel if decimals is None else panel.decimals(decimals)


def bucket_heatmap(heading: Heading, unit: str, expr: str, *, width: Width, height: int = 8) -> heatmap.Panel:
    """How many observations of `unit` fell into each bucket of a histogram, over time."""
    return (
        placed(heatmap.Panel(), heading, width, height)
        .datasource(DATASOURCE)
        .with_target(target(Query(expr, "{{le}}"), "A").range().format(PromQueryFormat.HEATMAP))
        .max_data_points(POINTS)
        .unit("short")
        .calculate(False)
        .color(
            heatmap.HeatmapColorOptions()
            .mode(HeatmapColorMode.SCHEME)
            .scheme("Oranges")
            .fill("dark-orange")
            .scale(HeatmapColorScale.EXPONENTIAL)
            .exponent(0.5)
            .steps(64)
        )
        .cell_values(heatmap.CellValues().unit("short").decimals(0))
        .show_value(options.VisibilityMode.NEVER)
        .y_axis(heatmap.YAxisConfig().unit(unit).axis_placement(options.AxisPlacement.LEFT))
        .tooltip(heatmap.HeatmapTooltip().mode(options.TooltipDisplayMode.SINGLE).y_histogram(True))
        .show_legend()
    )


def states(heading: Heading, query: Query, values: model.ValueMap, *, height: int = 5) -> statetimeline.Panel:
    """Coloured bars over time, one line per series."""
    return (
        placed(statetimeline.Panel(), heading, 24, height)
        .datasource(DATASOURCE)
        .with_target(target(query, "A").range())
        .unit("none")
        .mappings([values])
        .show_value(options.VisibilityMode.NEVER)
        .legend(legend())
    )


def ranking(
    heading: Heading,
    query: Query,
    *,
    unit: str,
    columns: Mapping[str, str],
    cells: Mapping[str, Iterable[model.ValueMapping]],
    nothing: str,
    width: Width,
    height: int,
) -> table.Panel:
    """A table of one instant query, largest value first.

    `columns` maps each label to show, in order, and "Value" to its heading; `cells` gives a heading's value mappings.
    """
    order = {name: place for place, name in enumerate(columns)}
    panel = (
        placed(table.Panel(), heading, width, height)
        .datasource(DATASOURCE)
        .with_target(target(query, "A").instant().format(PromQueryFormat.TABLE))
        .unit(unit)
        .decimals(0)
        .no_value(nothing)
        .thresholds(thresholds("text", {}))
        .sort_by([common.TableSortByFieldState().display_name(columns["Value"]).desc(True)])
        .with_transformation(
            model.DataTransformerConfig(
                id_val="organize",
                options={"excludeByName": {"Time": True}, "indexByName": order, "renameByName": dict(columns)},
            )
        )
    )
    for name, mappings in cells.items():
        panel.override_by_name(
            name,
            [
                model.DynamicConfigValue("mappings", list(mappings)),
                model.DynamicConfigValue("custom.cellOptions", {"type": "color-text"}),
            ],
        )
    return panel


def note(heading: Heading, content: str, *, width: Width, height: int) -> markdown.Panel:
    """A page of Markdown."""
    return placed(markdown.Panel(), heading, width, height).content(content)
