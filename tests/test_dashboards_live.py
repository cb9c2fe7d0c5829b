"""Every query of the dashboards, run in a real Prometheus that scraped real exporters."""

import asyncio
import contextlib
import math
from collections.abc import Iterator
from typing import Any

import pytest

from dashboards.queries import annotation_queries, fill_in, variable_queries
from tests.capture.rights import needs_packet_sockets
from tests.dashboards_expected import CAPTURED, CLOSES, EXPECTED, FRESH
from tests.dashboards_live import VARIABLES, Stage, play
from tests.dashboards_rows import Shown, agrees, meant
from tests.dashboards_support import RENDERED, content, every_dashboard, panels, titled

pytestmark = [pytest.mark.needs("prometheus"), pytest.mark.timeout(180)]

BUSY = {**VARIABLES, "job": "busy"}
QUIET = {**VARIABLES, "job": "fresh"}
JUDGED = {**VARIABLES, "job": "judged"}
BESIDE = {**VARIABLES, "job": "captured"}


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """After the play, with everything still running."""
    with asyncio.Runner() as runner:
        stack = contextlib.AsyncExitStack()
        try:
            yield runner.run(stack.enter_async_context(play(tmp_path_factory.mktemp("live"))))
        finally:
            runner.run(stack.aclose())


def repeated_by_source(name: str) -> set[str]:
    """The panels that stand in a row which is there once for each source."""
    found, repeated = set(), False
    for panel in panels(name):
        if panel["type"] == "row":
            repeated = panel.get("repeat") == "source"
        elif repeated:
            found.add(panel["title"])
    return found


def query_of(name: str, title: str, ref: str, variables: dict[str, str]) -> str:
    (target,) = (target for target in titled(name, title)["targets"] if target["refId"] == ref)
    source = {"source": "tap"} if title in repeated_by_source(name) else {}
    return fill_in(target["expr"], {**variables, **source})


@every_dashboard
def test_every_query_has_its_row(name: str) -> None:
    """What a panel that is added must show is written down, once."""
    asked = [(panel["title"], target["refId"]) for panel in content(name) for target in panel.get("targets", ())]
    assert [(row.title, row.ref) for row in EXPECTED[name]] == asked


@pytest.mark.parametrize(
    ("name", "row"),
    [
        pytest.param(name, row, id=f"{name.removesuffix('.json')}-{row.title}-{row.ref}")
        for name, rows in EXPECTED.items()
        for row in rows
    ],
)
def test_a_panel_shows_what_happened(stage: Stage, name: str, row: Shown) -> None:
    """Exactly the series that the traffic gave have values, and they are those of the traffic."""
    shown = meant(row, stage.ask(query_of(name, row.title, row.ref, BUSY)))
    assert row.values.keys() <= shown.keys()
    assert row.others or row.values.keys() == shown.keys()
    assert {key: shown[key] for key, value in row.values.items() if not agrees(value, shown[key])} == {}


@every_dashboard
def test_a_fresh_exporter_shows_zeros(stage: Stage, name: str) -> None:
    """No query fails; every tile says 0, or in words that something is not configured, and never "No data"."""
    for panel in content(name):
        for target in panel.get("targets", ()):
            values = [value for _, value in stage.ask(query_of(name, panel["title"], target["refId"], QUIET))]
            if panel["type"] == "stat":
                assert fine_when_fresh(panel, values), (panel["title"], values)


def test_every_query_finds_series(stage: Stage) -> None:
    """Names, labels and bounds are those of a real /metrics: one of the exporters has them."""
    asked = [(name, row) for name, rows in EXPECTED.items() for row in rows]
    everyone = (BUSY, QUIET, JUDGED, BESIDE)
    empty = {
        (row.title, row.ref)
        for name, row in asked
        if not any(stage.ask(query_of(name, row.title, row.ref, variables)) for variables in everyone)
    }
    assert empty == set()


@needs_packet_sockets
@pytest.mark.parametrize("row", [pytest.param(row, id=f"{row.title}-{row.ref}") for row in CAPTURED])
def test_a_capture_is_shown(stage: Stage, row: Shown) -> None:
    """It is up, follows who is connected, and missed nothing."""
    shown = meant(row, stage.ask(query_of("overview.json", row.title, row.ref, BESIDE)))
    assert row.values.keys() == shown.keys()
    assert {key: shown[key] for key, value in row.values.items() if not agrees(value, shown[key])} == {}


@needs_packet_sockets
def test_a_capture_shows_the_closes_of_the_tap(stage: Stage) -> None:
    """The same codes, classes, initiators and numbers, of the same traffic; and on the dashboard's panel."""
    row = Shown("Closes by code", ("code", "class", "initiator"))
    closes = 'sum by (code, class, initiator) (websocket_closes_total{job="captured", source="capture"})'
    tapped = {tuple(why): count for (*why, source), count in CLOSES.items() if source == "tap"}
    assert meant(row, stage.ask(closes)) == tapped
    assert meant(row, stage.ask(query_of("overview.json", row.title, row.ref, BESIDE))).keys() == tapped.keys()


def test_a_verdict_is_shown(stage: Stage) -> None:
    """Of the exporter that does not wait for ten minutes: nobody came back, or so much as tried."""
    row = Shown("Mass closes by verdict", ("verdict", "source"))
    shown = meant(row, stage.ask(query_of("reconnects.json", row.title, row.ref, JUDGED)))
    # Its last scrape is not that as of which is asked, so that the increase is a little more than what was counted.
    assert [(labels, round(value)) for labels, value in shown.items()] == [(("moved", "tap"), 1)]


def fine_when_fresh(panel: dict[str, Any], values: list[float]) -> bool:
    defaults = panel["fieldConfig"]["defaults"]
    if not values:
        return "noValue" in defaults
    if any(map(math.isnan, values)) and not any(each["type"] == "special" for each in defaults["mappings"]):
        return False
    wanted = FRESH.get(panel["title"], 0)
    return all(agrees(wanted, value) for value in values)


@every_dashboard
def test_annotations_mark_what_happened(stage: Stage, name: str) -> None:
    """The alert that fires, and the start of the exporter at the time at which it started."""
    exprs = dict(annotation_queries(RENDERED[name], BUSY))
    alerts = {labels["alertname"] for labels, _ in stage.ask(exprs.pop("Firing alerts"))}
    assert "WebSocketMessageTooBigSpike" in alerts
    ((labels, milliseconds),) = stage.ask(exprs.pop("Exporter starts"))
    assert labels["job"] == "busy"
    assert stage.moment - 120 < milliseconds / 1000 < stage.moment
    assert exprs == {}


@every_dashboard
def test_variables_offer_what_there_is(stage: Stage, name: str) -> None:
    """All jobs, the target, and of the busy job its exporter, and every source that saw something."""
    variables = dict(variable_queries(RENDERED[name], {**VARIABLES, "job": "busy"}))
    ranked = [labels["target"] for labels, _ in stage.ask(variables.pop("shown"))]
    assert ranked == ["chat"]
    offered = {variable: {labels[variable] for labels, _ in stage.ask(expr)} for variable, expr in variables.items()}
    ((exporter, _),) = stage.ask('up{job="busy"}')
    assert offered == {
        "job": {"busy", "fresh", "judged", "captured"},
        "target": {"chat"},
        "source": {"tap", "probe", "webhook"},
        "instance": {exporter["instance"]},
    }
