"""The dashboards: committed as rendered, complete, valid for Grafana, and answered by a real PromQL engine."""

import itertools
import json
import re
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final, get_args

import pytest
import yaml

from dashboards import promql
from dashboards.build import OUTPUT, render
from dashboards.overview.closes import EXPLAINED_CODES, close_code_notes
from dashboards.overview.webhook import LATER, REFUSED
from dashboards.queries import all_panels, annotation_queries, queries
from dashboards.style import CLASS_COLOURS, OUTCOME_COLOURS
from exporter import closecodes, events
from exporter.metrics import catalogue
from exporter.metrics.catalogue import Metric

RENDERED: Final = render()
DASHBOARDS: Final = {name: json.loads(text) for name, text in RENDERED.items()}
KNOWN: Final = {metric.name: metric for metric in (*catalogue.METRICS, *promql.BORROWED)}

RULES: Final = Path(__file__).parent.parent / "alerts/rules/websocket.yaml"
SHIPPED_ALERTS: Final = [
    rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"] if "alert" in rule
]

LABEL_VALUES: Final = {
    "source": ("tap", "probe"),
    "target": ("chat",),
    "outcome": ("accepted", "failed"),
    "status": ("101",),
    "code": ("1001", "1009"),
    "class": ("going_away", "too_big", "abnormal"),
    "initiator": ("client", "server"),
    "result": ("accepted", "rejected"),
    "error": ("invalid_json", "storage_full"),
    "alertstate": ("pending", "firing"),
    "alertname": ("WebSocketTest",),
}
"""What the synthetic exporter's series carry; any other label is "x" unless its values are fixed."""
FIXED_VALUES: Final = {
    "direction": events.DIRECTIONS,
    "peer": events.SIDES,
    "compressed": ("false", "true"),
}

every_dashboard = pytest.mark.parametrize("name", sorted(RENDERED))


def panels(name: str) -> list[dict[str, Any]]:
    return list(all_panels(DASHBOARDS[name]["panels"]))


def content(name: str) -> list[dict[str, Any]]:
    return [panel for panel in panels(name) if panel["type"] != "row"]


def all_queries() -> list[tuple[str, str]]:
    return [pair for text in RENDERED.values() for pair in (*queries(text), *annotation_queries(text))]


def promtool(folder: Path, *command: str, document: object) -> str:
    """What promtool says of `document`, after asserting that it accepts it."""
    path = folder / "document.yaml"
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    done = subprocess.run(["promtool", *command, path], capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def series(metric: Metric) -> Iterator[str]:
    """Every series of `metric` on one replica of the synthetic exporter."""
    labels = {label: LABEL_VALUES.get(label) or FIXED_VALUES.get(label, ("x",)) for label in metric.labels}
    labels |= {"job": ("websocket",), "instance": ("a:11009",)}
    if metric.type == "histogram":
        labels["le"] = (*map(str, metric.bounds), "+Inf")
    suffix = "_bucket" if metric.type == "histogram" else ""
    for values in itertools.product(*labels.values()):
        pairs = ", ".join(f'{label}="{value}"' for label, value in zip(labels, values, strict=True))
        yield f"{metric.name}{suffix}{{{pairs}}}"


def evaluate(folder: Path, samples: dict[str, str], tests: Iterable[tuple[str, list[dict[str, Any]]]]) -> None:
    """Assert that, an hour after `samples` began, each expression has the samples expected of it."""
    document = {
        "evaluation_interval": "15s",
        "tests": [
            {
                "interval": "15s",
                "input_series": [{"series": name, "values": values} for name, values in samples.items()],
                "promql_expr_test": [
                    {"expr": expr, "eval_time": "1h", "exp_samples": expected} for expr, expected in tests
                ],
            }
        ],
    }
    promtool(folder, "test", "rules", document=document)


def answers(expr: str) -> tuple[str, list[dict[str, Any]]]:
    """An `evaluate` test that is passed by any expression with at least one sample."""
    return f"count({expr}) > bool 0", [{"labels": "{}", "value": 1}]


def test_the_committed_files_are_what_the_code_renders() -> None:
    """A dashboard changed by hand, or code changed without `make dashboards`, is noticed."""
    committed = {path.name: path.read_text(encoding="utf-8") for path in OUTPUT.iterdir()}
    assert committed == RENDERED


@every_dashboard
def test_every_panel_says_what_to_conclude_from_it(name: str) -> None:
    """Titles are unique; descriptions are sentences."""
    titles = [panel["title"] for panel in panels(name)]
    assert len(set(titles)) == len(titles)
    for panel in content(name):
        assert panel["description"].endswith("."), panel["title"]


@every_dashboard
def test_every_number_has_a_unit(name: str) -> None:
    """Only a page of text has none."""
    for panel in content(name):
        if panel["type"] != "text":
            assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]


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
    assert DASHBOARDS[name]["uid"]
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


@every_dashboard
def test_variables_can_be_narrowed_together(name: str) -> None:
    """Job, target and source take several values or all; each offers what the ones before it leave."""
    data_source, *others = DASHBOARDS[name]["templating"]["list"]
    assert (data_source["type"], data_source["query"]) == ("datasource", "prometheus")
    assert [variable["name"] for variable in others] == ["job", "target", "source"]
    for place, variable in enumerate(others):
        assert variable["multi"]
        assert variable["includeAll"]
        metric, used = re.match(r"label_values\((\w+)(.*), \w+\)$", variable["query"]).groups()
        assert metric in catalogue.BY_NAME
        assert re.findall(r"\$(\w+)", used) == ["job", "target", "source"][:place]


def test_only_catalogued_names_and_labels_are_queried() -> None:
    """Each selector names a family of the catalogue (or one of Prometheus' own) and only labels that it has."""
    seen = set()
    for title, expr in all_queries():
        for name, matchers in re.findall(r"(\w+)\{([^}]*)\}", expr):
            metric = KNOWN[name.removesuffix("_bucket")]
            assert name.endswith("_bucket") == (metric.type == "histogram"), title
            labels = set(re.findall(r"(\w+)!?[=~]+\"", matchers))
            assert labels <= {*metric.labels, "job", "instance"}, title
            seen.add(name)
    assert len(seen) > 10


@every_dashboard
def test_sources_are_never_added_up(name: str) -> None:
    """A connection seen by the tap and by the webhook is one: sums keep `source`, or their row repeats by it."""
    repeated = False
    for panel in panels(name):
        if panel["type"] == "row":
            repeated = panel.get("repeat") == "source"
        for target in panel.get("targets", ()):
            for by in re.findall(r"sum by \(([^)]*)\) \([^{]*\{[^}]*source=~", target["expr"]):
                assert repeated or "source" in by.split(", "), panel["title"]


@pytest.mark.needs("promtool")
def test_prometheus_accepts_every_query(tmp_path: Path) -> None:
    """Panels and annotations, with every variable filled in, are valid PromQL."""
    rules = [{"record": f"query_{number}", "expr": expr} for number, (_, expr) in enumerate(all_queries())]
    report = promtool(tmp_path, "check", "rules", document={"groups": [{"name": "dashboards", "rules": rules}]})
    assert f"{len(rules)} rules found" in report


@pytest.mark.needs("promtool")
def test_a_fresh_exporter_fills_every_panel(tmp_path: Path) -> None:
    """Where all counters are at zero every panel has data; the one that has none says in words what that means."""
    samples = {name: "0x240" for metric in KNOWN.values() if metric is not promql.ALERTS for name in series(metric)}
    empty = "Closes in the time range"
    expected = [answers(expr) for text in RENDERED.values() for title, expr in queries(text) if title != empty]
    assert len(expected) > 20
    evaluate(tmp_path, samples, expected)
    (table,) = (panel for panel in content("overview.json") if panel["title"] == empty)
    assert table["fieldConfig"]["defaults"]["noValue"]


@every_dashboard
def test_tiles_of_what_is_not_configured_say_so(name: str) -> None:
    """Numbers of the webhook exist only with a webhook: without one the tile does not say "No data"."""
    optional = ("websocket_exporter_webhook_", "websocket_exporter_storage_", "websocket_probe_")
    for panel in content(name):
        if panel["type"] == "stat":
            spoken = panel["fieldConfig"]["defaults"].get("noValue", "")
            wanted = any(metric in target["expr"] for target in panel["targets"] for metric in optional)
            assert bool(spoken) == wanted, panel["title"]


@pytest.mark.needs("promtool")
def test_the_first_numbers_of_a_fresh_exporter_are_zero(tmp_path: Path) -> None:
    """Not "No data": the operator must see that nothing is wrong."""
    samples = {name: "0x240" for metric in (catalogue.CLOSES, catalogue.CONNECTIONS_ACTIVE) for name in series(metric)}
    zeros = [{"labels": f'{{source="{source}"}}', "value": 0} for source in LABEL_VALUES["source"]]
    tiles = {
        "Active connections",
        "Closed by the server side",
        "1009 Message Too Big (1 h)",
        "1001 Going Away by server (1 h)",
    }
    exprs = [expr for title, expr in queries(RENDERED["overview.json"]) if title in tiles]
    assert len(exprs) == len(tiles)
    evaluate(tmp_path, samples, [(expr, zeros) for expr in exprs])


@pytest.mark.needs("promtool")
def test_the_first_numbers_of_a_fresh_webhook_are_zero(tmp_path: Path) -> None:
    """Each tile of its row shows 0, by job."""
    own = (catalogue.WEBHOOK_EVENTS, catalogue.HTTP_ERRORS, catalogue.STORAGE_ERRORS, catalogue.WEBHOOK_IDS)
    samples = {name: "0x240" for metric in own for name in series(metric)}
    tiles = {panel["title"] for panel in content("overview.json") if panel["type"] == "stat"}
    names = tuple(metric.name for metric in own)
    exprs = [
        expr for title, expr in queries(RENDERED["overview.json"]) if title in tiles and any(n in expr for n in names)
    ]
    assert len(exprs) == 6
    evaluate(tmp_path, samples, [(expr, [{"labels": '{job="websocket"}', "value": 0}]) for expr in exprs])


@pytest.mark.needs("promtool")
def test_the_first_numbers_of_a_fresh_probe_are_zero(tmp_path: Path) -> None:
    """Nothing connected yet, nothing failed, nothing waited for."""
    own = (catalogue.PROBE_UP, catalogue.PROBE_FAILURES, catalogue.PROBE_BACKOFF)
    samples = {name: "0x240" for metric in own for name in series(metric) if 'source="probe"' in name}
    tiles = {panel["title"] for panel in content("overview.json") if panel["type"] == "stat"}
    exprs = [
        expr for title, expr in queries(RENDERED["overview.json"]) if title in tiles and "websocket_probe_" in expr
    ]
    assert len(exprs) == 3
    evaluate(tmp_path, samples, [(expr, [{"labels": '{source="probe"}', "value": 0}]) for expr in exprs])


@pytest.mark.needs("promtool")
def test_the_webhooks_tiles_count_what_they_say(tmp_path: Path) -> None:
    """60 events of each kind in the hour, and 60 requests of each error: each tile shows its own."""
    events = 'websocket_exporter_webhook_events_total{job="j", instance="i", result="%s", reason="%s"}'
    errors = 'websocket_exporter_http_errors_total{job="j", instance="i", error="%s"}'
    ticking = " ".join(str(tick // 4) for tick in range(241))  # one more a minute
    samples = {
        events % ("accepted", "none"): ticking,
        events % ("duplicate", "none"): ticking,
        events % ("rejected", "too_old"): ticking,
        errors % "signature_mismatch": ticking,
        errors % "unauthorized": ticking,
        errors % "rate_limited": ticking,
        errors % "not_found": ticking,
    }
    shown = {
        "Events counted (1 h)": 60,
        "Events rejected (1 h)": 60,
        "Requests refused (1 h)": 120,
        "Requests to come again (1 h)": 60,
    }
    by_title = dict(queries(RENDERED["overview.json"]))
    evaluate(
        tmp_path,
        samples,
        [(f"round({by_title[title]})", [{"labels": '{job="j"}', "value": count}]) for title, count in shown.items()],
    )


def test_the_webhooks_errors_are_what_its_alert_counts() -> None:
    """Refused requests of the row are those of WebSocketEventsRejected, and passwords."""
    (rule,) = (
        rule
        for group in yaml.safe_load(RULES.read_text())["groups"]
        for rule in group["rules"]
        if rule.get("record") == "job_reason:websocket_exporter_webhook_refused:increase5m"
    )
    counted = {tuple(tokens.split("|")) for tokens in re.findall(r'error=~"([^"]*)"', rule["expr"])}
    assert counted == {tuple(token for token in REFUSED if token != "unauthorized")}
    assert not set(REFUSED) & set(LATER)


@pytest.mark.needs("promtool")
def test_a_busy_exporter_fills_every_panel_and_annotation(tmp_path: Path) -> None:
    """With traffic, closes and alerts there is no query without an answer."""
    samples = {name: "1+1x240" for metric in KNOWN.values() for name in series(metric)}
    evaluate(tmp_path, samples, [answers(expr) for _, expr in all_queries()])


@pytest.mark.needs("promtool")
def test_alerts_are_shown_by_their_worst_state(tmp_path: Path) -> None:
    """2 while any replica of the rule fires, 1 while pending; alerts of other products and labels do not disturb."""
    samples = {
        'ALERTS{alertname="WebSocketStorm", alertstate="pending", job="j", target="a", source="tap", pod="1"}': "1x240",
        'ALERTS{alertname="WebSocketStorm", alertstate="firing", job="j", target="a", source="tap", pod="2"}': "1x240",
        'ALERTS{alertname="WebSocketDown", alertstate="pending", job="j"}': "1x240",
        'ALERTS{alertname="DiskFull", alertstate="firing", job="j"}': "1x240",
    }
    expr = dict(queries(RENDERED["overview.json"]))["Alerts"]
    shown = [
        {"labels": '{alertname="WebSocketStorm", job="j", target="a", source="tap"}', "value": 2},
        {"labels": '{alertname="WebSocketDown", job="j"}', "value": 1},
    ]
    evaluate(tmp_path, samples, [(expr, shown)])
    evaluate(tmp_path, {"up": "1x240"}, [(expr, [{"labels": '{alertname="no alert"}', "value": 0}])])


def runbook_of(alert: dict[str, Any]) -> str:
    url: str = alert["annotations"]["runbook_url"]
    return url


def test_every_alert_has_a_panel_that_leads_to_its_runbook() -> None:
    """Beside what an alert watches there is the link to what to do about it; no link leads anywhere else."""
    linked = {link["url"]: link for name in RENDERED for panel in content(name) for link in panel.get("links") or ()}
    assert linked.keys() == {runbook_of(alert) for alert in SHIPPED_ALERTS}
    for link in linked.values():
        assert (link["type"], link["targetBlank"]) == ("link", True)


def test_a_bar_of_the_alerts_panel_leads_to_the_runbook_of_its_alert() -> None:
    """Also for alerts that no other panel mentions; the bar that says "no alert" leads nowhere."""
    (panel,) = (panel for panel in content("overview.json") if panel["type"] == "state-timeline")
    (override,) = panel["fieldConfig"]["overrides"]
    (links,) = (each["value"] for each in override["properties"] if each["id"] == "links")
    pattern, (link,) = override["matcher"]["options"].strip("/"), links
    for alert in SHIPPED_ALERTS:
        assert re.search(pattern, f"{alert['alert']} chat")
        assert link["url"].replace("${__field.labels.alertname}", alert["alert"]) == runbook_of(alert)
    assert not re.search(pattern, "no alert")


@pytest.mark.needs("promtool")
def test_connections_are_shown_beside_their_replicas_limit(tmp_path: Path) -> None:
    """45 and 18 WebSockets of two targets, 70 allowed: 90 %; what other sources see does not count."""
    active = 'websocket_connections_active{job="j", instance="i", target="%s", source="%s"}'
    samples = {
        active % ("a", "tap"): "45x240",
        active % ("b", "tap"): "18x240",
        active % ("a", "webhook"): "45x240",
        'websocket_exporter_tap_connection_limit{job="j", instance="i"}': "70x240",
    }
    expr = dict(queries(RENDERED["overview.json"]))["Connections beside the limit"]
    evaluate(tmp_path, samples, [(expr, [{"labels": '{job="j", instance="i"}', "value": 0.9}])])


@pytest.mark.needs("promtool")
def test_the_tiles_count_what_they_say(tmp_path: Path) -> None:
    """60 server-side 1009 and as many client-side 1001 in the hour: the first are counted, the second left out."""

    def close(code: str, close_class: str, initiator: str) -> str:
        labels = f'code="{code}", class="{close_class}", initiator="{initiator}"'
        return f'websocket_closes_total{{job="j", instance="i", target="t", source="tap", {labels}}}'

    # One more per minute, sampled every 15 s.
    ticking = " ".join(str(tick // 4) for tick in range(241))
    samples = {
        close("1009", "too_big", "server"): ticking,
        close("1001", "going_away", "client"): ticking,
        close("1001", "going_away", "server"): "0x240",
    }
    by_title = dict(queries(RENDERED["overview.json"]))
    evaluate(
        tmp_path,
        samples,
        [
            (f"round({by_title['1009 Message Too Big (1 h)']})", [{"labels": '{source="tap"}', "value": 60}]),
            (by_title["1001 Going Away by server (1 h)"], [{"labels": '{source="tap"}', "value": 0}]),
        ],
    )


def test_every_class_and_outcome_has_a_colour_of_its_own() -> None:
    """A class that is added, or two that look alike, is noticed."""
    assert set(CLASS_COLOURS) == set(closecodes.CLASSES)
    assert len(set(CLASS_COLOURS.values())) == len(CLASS_COLOURS)
    assert set(OUTCOME_COLOURS) == set(get_args(events.HandshakeOutcome))


def test_close_codes_are_explained_in_one_line_each() -> None:
    """The text panel says what the knowledge base says, 1001 and 1009 among it."""
    lines = [line for line in close_code_notes().splitlines() if line.startswith("- ")]
    assert len(lines) == len(EXPLAINED_CODES)
    for code in (1001, 1009):
        entry = closecodes.REGISTRY[code]
        assert f"- **{code} {entry.name}**: {entry.meaning}" in lines


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
        (lambda: promql.rate(catalogue.CONNECTIONS_ACTIVE, promql.ORIGIN), "is a gauge, not a counter"),
        (lambda: promql.gauge("sum", catalogue.CLOSES, promql.ORIGIN), "is a counter, not a gauge"),
        (lambda: promql.quantile(0.5, catalogue.CLOSES, promql.ORIGIN), "is a counter, not a histogram"),
        (lambda: promql.rate(catalogue.CLOSES, (*promql.ORIGIN, "status")), "has no label status"),
        (lambda: promql.rate(catalogue.CLOSES, promql.ORIGIN, status="101"), "has no label status"),
        (lambda: promql.rate(catalogue.CLOSES, promql.ORIGIN, code="1oo9"), 'never has code="1oo9"'),
        (lambda: promql.rate(catalogue.CLOSES, promql.ORIGIN, initiator=("server", "me")), 'never has initiator="me"'),
        (lambda: promql.rate(catalogue.CLOSES, ("job", "target")), "must not be summed over source"),
        (lambda: promql.label_values(catalogue.BUILD_INFO, "target", ()), "has no label target"),
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
    assert queries(board(expr)) == [("inner", 'increase(x{job=~".*|", source=~".*"}[1m]) + increase(x[1h])')]
    with pytest.raises(KeyError, match="cluster"):
        queries(board("x{cluster=~'$cluster'}"))
