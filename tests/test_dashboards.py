"""The dashboards: committed as rendered, complete, readable, and placed and addressed as Grafana wants it."""

import itertools
import json
import re
from typing import Any, Final, get_args

import pytest
import yaml

from dashboards import promql
from dashboards.build import OUTPUT
from dashboards.frame import Section, assemble, panel_id
from dashboards.overview.closes import close_code_notes
from dashboards.overview.webhook import LATER, REFUSED
from dashboards.panels import note
from dashboards.pieces import Heading
from dashboards.queries import queries
from dashboards.reconnects.verdicts import MEANINGS
from dashboards.style import CLASS_COLOURS, EVIDENCE_COLOURS, OUTCOME_COLOURS, VERDICT_COLOURS, WITHIN_COLOURS
from dashboards.too_big.refusals import remedy_notes
from exporter import closecodes, events
from exporter.metrics import catalogue
from tests.dashboards_support import (
    BY_UID,
    DASHBOARDS,
    RENDERED,
    RULES,
    content,
    every_dashboard,
    panels,
    titled,
)

UIDS: Final = {
    "overview.json": "websocket-overview",
    "too-big.json": "websocket-too-big",
    "reconnects.json": "websocket-reconnects",
}
"""Addresses that people keep and alerts link to: they do not change."""

KEPT: Final = {
    "websocket-too-big": (
        "Closes with 1009 by initiator",
        "Refused again within 5 minutes",
        "Messages near the limit",
    ),
    "websocket-reconnects": (
        "Handshakes against connections lost",
        "Busiest second of the last minute",
        "Closes without a Close frame",
    ),
}
"""Titles that alerts link to by the id they give."""


def test_the_committed_files_are_what_the_code_renders() -> None:
    """A dashboard changed by hand, or code changed without `make dashboards`, is noticed."""
    committed = {path.name: path.read_text(encoding="utf-8") for path in OUTPUT.iterdir()}
    assert committed == RENDERED


def test_uids_and_linked_titles_stay() -> None:
    """Whoever renames one of these has to change the alerts that link to it."""
    assert {name: board["uid"] for name, board in DASHBOARDS.items()} == UIDS
    for uid, titles in KEPT.items():
        assert set(titles) <= {panel["title"] for panel in BY_UID[uid]["panels"]}


def test_an_id_depends_on_the_title_alone() -> None:
    """Panels that are added, removed or moved leave the ids of the others as they are; a clash is a fault."""

    def board(*titles: str) -> dict[str, int]:
        text = [note(Heading(title, "Text."), "Text.", width=8, height=4) for title in titles]
        return {panel.title: panel.id_val for panel in assemble("t", "u", "d", [Section("Row", text)]).panels}

    assert board("Closes") == {"Row": panel_id("Row"), "Closes": panel_id("Closes")}
    assert board("New", "Closes")["Closes"] == board("Closes", "New")["Closes"] == 594774
    with pytest.raises(ValueError, match="two panels have the same id"):
        board("Closes", "Closes")


@every_dashboard
def test_every_panel_says_what_to_conclude_from_it(name: str) -> None:
    """Titles are unique; descriptions are sentences."""
    titles = [panel["title"] for panel in panels(name)]
    assert len(set(titles)) == len(titles)
    for panel in content(name):
        assert panel["description"].endswith("."), panel["title"]


@every_dashboard
def test_every_series_is_named_where_it_is_shown(name: str) -> None:
    """Lines and bars have a visible legend, numbers show their name, and each query says what the name is."""
    shown = {
        "timeseries": lambda options: options["legend"]["showLegend"],
        "state-timeline": lambda options: options["legend"]["showLegend"],
        "heatmap": lambda options: options["legend"]["show"],
        "stat": lambda options: options["textMode"] == "value_and_name",
        "table": lambda options: options["showHeader"],
        "text": lambda options: options["content"],
    }
    for panel in content(name):
        assert shown[panel["type"]](panel["options"]), panel["title"]
        for target in panel.get("targets", ()):
            assert panel["type"] == "table" or "{{" in target["legendFormat"], panel["title"]


@every_dashboard
def test_grafana_can_place_and_address_every_panel(name: str) -> None:
    """Ids are unique and not 0; panels lie within 24 columns, and no cell of the grid is taken twice."""
    assert DASHBOARDS[name]["schemaVersion"] >= 39
    ids = [panel["id"] for panel in panels(name)]
    assert len(set(ids)) == len(ids)
    assert min(ids) > 0
    taken: set[tuple[int, int]] = set()
    for panel in panels(name):
        grid = panel["gridPos"]
        assert 0 <= grid["x"] < grid["x"] + grid["w"] <= 24, panel["title"]
        cells = set(itertools.product(range(grid["x"], grid["x"] + grid["w"]), range(grid["y"], grid["y"] + grid["h"])))
        assert not cells & taken, panel["title"]
        taken |= cells


@every_dashboard
def test_every_query_goes_to_the_chosen_data_source(name: str) -> None:
    """Nothing is bound to one Grafana's own data source, and the queries of a panel are told apart."""
    chosen = {"type": "prometheus", "uid": "${datasource}"}
    for panel in content(name):
        refs = [target["refId"] for target in panel.get("targets", ())]
        assert len(set(refs)) == len(refs), panel["title"]
        for target in panel.get("targets", ()):
            assert target["datasource"] == panel["datasource"] == chosen, panel["title"]
    for annotation in DASHBOARDS[name]["annotations"]["list"]:
        assert annotation["datasource"] == chosen
    assert "__inputs" not in DASHBOARDS[name]


@every_dashboard
def test_variables_can_be_narrowed_together(name: str) -> None:
    """Job, target and source take several values or all; each offers what the ones before it leave."""
    data_source, *others, shown, instance = DASHBOARDS[name]["templating"]["list"]
    assert (data_source["type"], data_source["query"]) == ("datasource", "prometheus")
    assert [variable["name"] for variable in others] == ["job", "target", "source"]
    assert [variable["name"] for variable in (shown, instance)] == ["shown", "instance"]
    for place, variable in enumerate(others):
        assert variable["multi"]
        assert variable["includeAll"]
        metric, used = re.match(r"label_values\((\w+)(.*), \w+\)$", variable["query"]).groups()
        assert metric in catalogue.BY_NAME
        assert re.findall(r"\$(\w+)", used) == ["job", "target", "source"][:place]


@every_dashboard
def test_a_few_services_are_shown_of_many_that_are_chosen(name: str) -> None:
    """The highest of a ranking, in its order, and the exporters that see them: All stands for these alone."""
    *_, shown, instance = DASHBOARDS[name]["templating"]["list"]
    assert shown["query"].startswith(f"query_result(topk({promql.MOST_SHOWN}, max by (target) (")
    assert (shown["sort"], "hide" in shown, instance["hide"]) == (0, False, 2)
    assert 'target=~"$shown"' in instance["query"]
    for variable in (shown, instance):
        assert variable["multi"]
        assert variable["current"]["value"] == ["$__all"]
        assert "allValue" not in variable
    said = 'websocket_closes_total{target="chat"} 1 1700000000000'
    assert re.search(shown["regex"].strip("/"), said)[1] == "chat"


@every_dashboard
def test_tiles_of_what_is_not_configured_say_so(name: str) -> None:
    """Numbers of webhook, capture, probe and limit exist only with one: without, the tile does not say "No data"."""
    optional = (
        "websocket_exporter_webhook_",
        "websocket_exporter_storage_",
        "websocket_exporter_capture_",
        "websocket_probe_",
        "websocket_message_limit_ratio",
        "up{",  # nor does an exporter that has been gone for an hour
    )
    for panel in content(name):
        if panel["type"] == "stat":
            spoken = panel["fieldConfig"]["defaults"].get("noValue", "")
            wanted = any(metric in target["expr"] for target in panel["targets"] for metric in optional)
            assert bool(spoken) == wanted, panel["title"]


def test_the_webhooks_errors_are_what_its_alert_counts() -> None:
    """Refused requests of the row are those of WebSocketEventsRejected, and passwords."""
    (rule,) = (
        rule
        for group in yaml.safe_load(RULES.read_text())["groups"]
        for rule in group["rules"]
        if rule.get("record") == "job_instance:websocket_exporter_webhook_refused:sum"
    )
    counted = {tuple(tokens.split("|")) for tokens in re.findall(r'error=~"([^"]*)"', rule["expr"])}
    assert counted == {tuple(token for token in REFUSED if token != "unauthorized")}
    assert not set(REFUSED) & set(LATER)


def test_every_value_has_a_colour_of_its_own() -> None:
    """A value that is added, or two that look alike, is noticed."""
    for colours, values in (
        (CLASS_COLOURS, closecodes.CLASSES),
        (OUTCOME_COLOURS, get_args(events.HandshakeOutcome)),
        (EVIDENCE_COLOURS, events.EVIDENCES),
        (VERDICT_COLOURS, events.VERDICTS),
        (WITHIN_COLOURS, events.WITHINS),
    ):
        assert set(colours) == set(values)
        assert len(set(colours.values())) == len(colours)


def test_close_codes_are_explained_in_one_line_each() -> None:
    """The text panel says what the knowledge base says of every code and range."""
    lines = [line for line in close_code_notes().splitlines() if line.startswith("- ")]
    assert len(lines) == len(closecodes.ENTRIES)
    for code in (1001, 1009):
        entry = closecodes.REGISTRY[code]
        assert f"- **{code} {entry.name}**: {entry.meaning}" in lines
    assert titled("overview.json", "What the codes mean")["options"]["content"] == close_code_notes()


def test_remedies_and_verdicts_are_explained() -> None:
    """What to do is what `codes` says; each verdict has a line, in the order in which they are tried."""
    for name, code in (("too-big.json", 1009), ("reconnects.json", 1001)):
        text = titled(name, f"What to do about {code}")["options"]["content"]
        assert text == remedy_notes(code)
        assert text.count("- **") == len(closecodes.REMEDIES[code])
    assert tuple(MEANINGS) == events.VERDICTS


def test_close_codes_are_shown_by_name() -> None:
    """The table of closes maps every registered code to its name, in the colour of its class."""
    (table,) = (panel for panel in content("overview.json") if panel["type"] == "table")
    (code,) = (override for override in table["fieldConfig"]["overrides"] if override["matcher"]["options"] == "Code")
    (mapping,) = code["properties"][0]["value"]
    assert mapping["options"].keys() == {str(code) for code in closecodes.REGISTRY}
    assert mapping["options"]["1009"] == {"text": "1009 Message Too Big", "color": CLASS_COLOURS["too_big"]}


@pytest.mark.parametrize(
    ("build", "fault"),
    [
        (lambda: promql.chosen.rate(catalogue.CONNECTIONS_ACTIVE, promql.ORIGIN), "is a gauge, not a counter"),
        (lambda: promql.chosen.gauge("sum", catalogue.CLOSES, promql.ORIGIN), "is a counter, not a gauge"),
        (lambda: promql.chosen.quantile(0.5, catalogue.CLOSES, promql.ORIGIN), "is a counter, not a histogram"),
        (lambda: promql.chosen.rate(catalogue.CLOSES, (*promql.ORIGIN, "status")), "has no label status"),
        (lambda: promql.chosen.rate(catalogue.CLOSES, promql.ORIGIN, status="101"), "has no label status"),
        (lambda: promql.chosen.rate(catalogue.CLOSES, promql.ORIGIN, code="1oo9"), 'never has code="1oo9"'),
        (
            lambda: promql.chosen.rate(catalogue.CLOSES, promql.ORIGIN, initiator=("server", "me")),
            'never has initiator="me"',
        ),
        (
            lambda: promql.chosen.rate(catalogue.MASS_CLOSE_RETURNS, promql.ORIGIN, within="more"),
            'never has within="more"',
        ),
        (lambda: promql.chosen.above(0.7, catalogue.MESSAGE_LIMIT_RATIO, promql.ORIGIN), "has no bound 0.7"),
        (lambda: promql.chosen.rate(catalogue.CLOSES, ("job", "target")), "must not be summed over source"),
        (lambda: promql.label_values(catalogue.BUILD_INFO, "target", {}), "has no label target"),
        (lambda: promql.alerts("fired"), 'never has alertstate="fired"'),
    ],
)
def test_a_query_that_cannot_be_right_fails_the_build(build: Any, fault: str) -> None:
    """Misspelt labels and values, wrong types, and sums over sources raise ValueError with the reason."""
    with pytest.raises(ValueError, match=re.escape(fault)):
        build()


def test_queries_fill_in_what_grafana_would() -> None:
    """Variables become values, panels of collapsed rows included; a variable nobody knows is a KeyError."""

    def board(expr: str) -> str:
        inner = {"title": "inner", "targets": [{"expr": expr}]}
        return json.dumps({"panels": [{"title": "row", "panels": [inner]}, {"title": "text"}]})

    expr = 'increase(x{job=~"$job|", source=~"$source"}[$__rate_interval]) + increase(x[$__range])'
    assert queries(board(expr)) == [("inner", 'increase(x{job=~".+|", source=~".+"}[1m]) + increase(x[1h])')]
    with pytest.raises(KeyError, match="cluster"):
        queries(board("x{cluster=~'$cluster'}"))
