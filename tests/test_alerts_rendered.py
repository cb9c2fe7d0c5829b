"""What is generated of the alerts: the shipped rules are the default rendering, and values of one's own are checked."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from alerts import render
from exporter import assets
from tests.alerts_support import ALERTS, RULES, promtool

VALUES: Final[dict[str, Any]] = yaml.safe_load((ALERTS / "values.yaml").read_text())
GENERATED: Final = render.rendered(VALUES)
PANELS: Final = render.panel_ids(render.GRAFANA)
ALERT_RULES: Final = [
    rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"] if "alert" in rule
]
COMPLETE: Final = {render.TOO_BIG, render.RECONNECTS} <= {uid for uid, _ in PANELS}
"""Whether every dashboard that alerts lead to is there."""


@pytest.mark.parametrize("name", GENERATED)
def test_the_committed_rules_are_rendered_from_the_default_values(name: str) -> None:
    """A rule changed by hand, or values, template or dashboards changed without `make alerts`, are noticed."""
    assert (ALERTS / name).read_text() == GENERATED[name], "run `make alerts`"


def test_expected_links_are_those_of_the_rules() -> None:
    """In the promtool tests too, so that a panel with a new number needs no more than `make alerts`."""
    expected = render.relinked(VALUES)
    assert {name: (ALERTS / name).read_text() for name in expected} == expected, "run `make alerts`"


def test_every_value_is_used(tmp_path: Path) -> None:
    """Each value, when it is another, changes the rules; so none is left over."""
    for path, value in leaves(VALUES):
        if isinstance(value, str):
            other = f"{value}x" if value.startswith("http") else f"{render.seconds(value) * 2}s"
        else:
            other = value + 1
        file = tmp_path / "values.yaml"
        file.write_text(json.dumps(nested(path, other)))
        assert render.rendered(render.read_values(file, VALUES)) != GENERATED, path


def leaves(values: dict[str, Any], path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], Any]]:
    found = []
    for key, value in values.items():
        found += leaves(value, (*path, key)) if isinstance(value, dict) else [((*path, key), value)]
    return found


def nested(path: tuple[str, ...], value: object) -> object:
    for key in reversed(path):
        value = {key: value}
    return value


@pytest.mark.needs("promtool")
def test_rules_of_ones_own_values(tmp_path: Path) -> None:
    """`render.py --values --out` writes valid rules with these values, names and sentences that go with them."""
    values = tmp_path / "own.yaml"
    values.write_text("recent: 10m\nbefore: 20m\nstorm: {lost: 7}\nrunbook_base: https://wiki.example.com/ws\n")
    command = [sys.executable, ALERTS / "render.py", "--values", values, "--out", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    rules = tmp_path / "rules/websocket.yaml"
    assert promtool("check", "rules", "--lint=all", "--lint-fatal", rules).returncode == 0
    text = rules.read_text()
    assert "connections_lost:increase30m >= 7\n" in text
    assert "record: job_target_source:websocket_closes:increase10m\n" in text
    assert "in the last 10 minutes" in text
    assert "runbook_url: https://wiki.example.com/ws/WebSocketReconnectStorm.md\n" in text
    assert not re.search(r"\b(increase|ratio|growth)5m\b|\[5m\]", text)


def test_rules_are_rendered_anew_where_they_were_copied_to(tmp_path: Path) -> None:
    """`websocket-exporter assets` brings all that render.py needs, the dashboards with the panels' numbers too."""
    assets.copy_to(tmp_path / "copy")
    command = [sys.executable, tmp_path / "copy/alerts/render.py", "--out", tmp_path / "out"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert {name: (tmp_path / "out" / name).read_text() for name in GENERATED} == GENERATED


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("strom: {lost: 5}", "there is no value strom"),
        ("storm: {loss: 5}", "there is no value storm.loss"),
        ("storm: 5", "storm must be a mapping"),
        ("[]", "the file must be a mapping"),
        ("storm: {lost: many}", "storm.lost must be a number such as 20"),
        ("storm: {lost: -1}", "storm.lost must be a number such as 20"),
        ("storm: {lost: true}", "storm.lost must be a number such as 20"),
        ("recent: 300", "recent must be a duration such as 5m"),
        ("recent: 0m", "recent must be a duration such as 5m"),
        ("recent: 5 minutes", "recent must be a duration such as 5m"),
        ("grafana_base: grafana/", "grafana_base must be an address such as https://grafana.example.com"),
        ("grafana_base: https://grafana/", "grafana_base must be an address such as https://grafana.example.com"),
    ],
)
def test_bad_values_end_in_one_sentence(text: str, sentence: str, tmp_path: Path) -> None:
    """A value that is misspelt or of another kind is named, and nothing is written."""
    file = tmp_path / "own.yaml"
    file.write_text(text)
    command = [sys.executable, ALERTS / "render.py", "--values", file, "--out", tmp_path / "out"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stderr) == (2, f"{file}: {sentence}\n")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("longer", "shorter", "difference"), [("5m", "2m", "3m"), ("20s", "8s", "12s"), ("2m", "30s", "90s")]
)
def test_windows_are_subtracted(longer: str, shorter: str, difference: str) -> None:
    """Differences keep the largest unit that leaves them whole."""
    assert render.minus(longer, shorter) == difference


def test_every_alert_has_a_panel_and_every_panel_an_alert() -> None:
    """The table of panels lists the alerts; each panel is there once its dashboard is."""
    assert set(render.PANELS) == {rule["alert"] for rule in ALERT_RULES}
    built = {uid for uid, _ in PANELS}
    missing = {(uid, title) for uid, title, _ in render.PANELS.values()} - set(PANELS)
    assert {(uid, title) for uid, title in missing if COMPLETE or uid in built} == set()


@pytest.mark.parametrize("rule", ALERT_RULES, ids=lambda rule: f"{rule['alert']} {rule['labels']['severity']}")
def test_an_alert_leads_to_its_panel(rule: dict[str, Any]) -> None:
    """Its link opens the panel for what the alert is about; a dashboard that is not there yet has no panel."""
    uid, title, labels = render.PANELS[rule["alert"]]
    chosen = "&".join(f"var-{label}={{{{ $labels.{label} | urlquery }}}}" for label in labels)
    number = PANELS.get((uid, title))
    panel = f"viewPanel={number}&" if number is not None else ""
    assert rule["annotations"]["dashboard_url"] == f"{VALUES['grafana_base']}/d/{uid}?{panel}{chosen}"
    assert number is not None or not COMPLETE


@pytest.mark.parametrize("alert", sorted(render.PANELS))
def test_a_runbook_names_the_panel(alert: str) -> None:
    """Whoever reads the runbook without the link finds it by its title."""
    text = " ".join((ALERTS / f"runbooks/{alert}.md").read_text().split())
    assert f"*{render.PANELS[alert][1]}*" in text


def test_the_operator_gets_the_same_rules() -> None:
    """The PrometheusRule carries the groups of the rule file, and nothing else."""
    custom = yaml.safe_load((ALERTS / "operator/prometheusrule.yaml").read_text())
    assert (custom["apiVersion"], custom["kind"]) == ("monitoring.coreos.com/v1", "PrometheusRule")
    assert custom["spec"] == yaml.safe_load(RULES.read_text())
