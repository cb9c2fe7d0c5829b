"""The dashboards' queries: answered by a real PromQL engine with what their titles say, on synthetic series."""

from pathlib import Path

import pytest

from dashboards import promql
from dashboards.queries import queries, variable_queries
from exporter.metrics import catalogue
from tests.dashboards_support import (
    DASHBOARDS,
    FEW_VALUES,
    KNOWN,
    RENDERED,
    all_queries,
    answers,
    content,
    evaluate,
    promtool,
    series,
)

pytestmark = pytest.mark.needs("promtool")

TOP = {"two": 8, "f": 4, "a": 3, "e": 3, "d": 2}
"""Of `test_those_are_shown_that_rank_highest`: the targets shown, and how many closes a scrape each had."""


def test_prometheus_accepts_every_query(tmp_path: Path) -> None:
    """Panels and annotations, with every variable filled in, are valid PromQL."""
    rules = [{"record": f"query_{number}", "expr": expr} for number, (_, expr) in enumerate(all_queries())]
    report = promtool(tmp_path, "check", "rules", document={"groups": [{"name": "dashboards", "rules": rules}]})
    assert f"{len(rules)} rules found" in report


def test_a_fresh_exporter_fills_every_panel(tmp_path: Path) -> None:
    """Where all counters are at zero every panel has data; tables, which have none, say in words what that means."""
    samples = {name: "0x240" for metric in KNOWN.values() if metric is not promql.ALERTS for name in series(metric)}
    tables = {panel["title"]: panel for name in DASHBOARDS for panel in content(name) if panel["type"] == "table"}
    expected = [answers(expr) for text in RENDERED.values() for title, expr in queries(text) if title not in tables]
    assert len(expected) > 100
    evaluate(tmp_path, samples, expected)
    assert all(table["fieldConfig"]["defaults"]["noValue"] for table in tables.values())


def test_the_first_numbers_of_a_fresh_exporter_are_zero(tmp_path: Path) -> None:
    """Not "No data": the operator must see that nothing is wrong."""
    samples = {name: "0x240" for metric in (catalogue.CLOSES, catalogue.CONNECTIONS_ACTIVE) for name in series(metric)}
    zeros = [{"labels": f'{{source="{source}"}}', "value": 0} for source in FEW_VALUES["source"]]
    tiles = {
        "Active connections",
        "Closed by the server side",
        "1009 Message Too Big (1 h)",
        "1001 Going Away by server (1 h)",
    }
    exprs = [expr for title, expr in queries(RENDERED["overview.json"]) if title in tiles]
    assert len(exprs) == len(tiles)
    evaluate(tmp_path, samples, [(expr, zeros) for expr in exprs])


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


def test_a_busy_exporter_fills_every_panel_and_annotation(tmp_path: Path) -> None:
    """With traffic, closes and alerts there is no query without an answer."""
    samples = {name: "1+1x240" for metric in KNOWN.values() for name in series(metric)}
    evaluate(tmp_path, samples, [answers(expr) for _, expr in all_queries()])


def test_those_are_shown_that_rank_highest(tmp_path: Path) -> None:
    """Five of seven targets with the most closes as one of their sources saw them; without any, whichever there are."""
    closed = 'websocket_connection_duration_seconds_bucket{job="j", instance="%s", target="%s", source="%s", le="+Inf"}'
    born = 'websocket_target_created_timestamp_seconds{job="j", instance="i", target="%s", source="tap"}'

    def rising(each: int) -> str:
        return f"0+{each}x240"

    samples = {closed % ("i", name, "tap"): rising(each) for each, name in enumerate("bcdef")}
    samples |= {closed % (replica, "two", "webhook"): rising(4) for replica in "ik"}
    samples |= {closed % ("i", "a", source): rising(3) for source in ("webhook", "probe")}
    expr = dict(variable_queries(RENDERED["overview.json"]))["shown"]
    shown = [{"labels": f'{{target="{name}"}}', "value": 240 * each} for name, each in TOP.items()]
    evaluate(tmp_path, samples, [(f"round({expr})", shown)])
    fresh = [{"labels": f'{{target="{name}"}}', "value": 0} for name in "ab"]
    evaluate(tmp_path, {born % name: "1700000000x240" for name in "ab"}, [(expr, fresh)])


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
