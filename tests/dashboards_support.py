"""The rendered dashboards, and a real promtool that evaluates their queries on synthetic series."""

import itertools
import json
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from prometheus_client.utils import floatToGoString

from dashboards import promql
from dashboards.build import render
from dashboards.queries import all_panels, annotation_queries, queries, variable_queries
from exporter.metrics import bounds, catalogue
from exporter.metrics.catalogue import Metric

RENDERED: Final = render()
DASHBOARDS: Final = {name: json.loads(text) for name, text in RENDERED.items()}
BY_UID: Final = {board["uid"]: board for board in DASHBOARDS.values()}
KNOWN: Final = {metric.name: metric for metric in (*catalogue.METRICS, *promql.BORROWED)}

RULES: Final = Path(__file__).parent.parent / "alerts/rules/websocket.yaml"
SHIPPED_ALERTS: Final = [
    rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"] if "alert" in rule
]

FEW_VALUES: Final = {
    "source": ("tap", "probe"),
    "target": ("chat",),
    "status": ("101",),
    "code": ("1006", "1009"),
    "class": ("going_away", "too_big", "abnormal"),
    "error": ("invalid_json", "storage_full"),
    "alertstate": ("pending", "firing"),
    "alertname": ("WebSocketTest",),
}
"""What the synthetic exporter's series carry; else all values that are known, or "x"."""

every_dashboard = pytest.mark.parametrize("name", sorted(RENDERED))


def panels(name: str) -> list[dict[str, Any]]:
    return list(all_panels(DASHBOARDS[name]["panels"]))


def content(name: str) -> list[dict[str, Any]]:
    return [panel for panel in panels(name) if panel["type"] != "row"]


def titled(name: str, title: str) -> dict[str, Any]:
    (panel,) = (panel for panel in content(name) if panel["title"] == title)
    return panel


def all_queries() -> list[tuple[str, str]]:
    """Whatever the dashboards ask of Prometheus, everything chosen."""
    return [
        pair
        for text in RENDERED.values()
        for pair in (*queries(text), *annotation_queries(text), *variable_queries(text))
    ]


def promtool(folder: Path, *command: str, document: object) -> str:
    """What promtool says of `document`, after asserting that it accepts it."""
    path = folder / "document.yaml"
    path.write_text(json.dumps(document), encoding="utf-8")  # JSON is YAML
    done = subprocess.run(["promtool", *command, path], capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def series(metric: Metric) -> Iterator[str]:
    """Every series of `metric` on one replica of the synthetic exporter."""
    labels = {label: _values(metric, label) for label in metric.labels}
    labels |= {"job": ("websocket",), "instance": ("a:11009",)}
    if metric.type == "histogram":
        labels["le"] = (*map(floatToGoString, metric.bounds), "+Inf")
    suffix = "_bucket" if metric.type == "histogram" else ""
    for values in itertools.product(*labels.values()):
        pairs = ", ".join(f'{label}="{value}"' for label, value in zip(labels, values, strict=True))
        yield f"{metric.name}{suffix}{{{pairs}}}"


def _values(metric: Metric, label: str) -> tuple[str, ...]:
    try:
        return FEW_VALUES.get(label) or bounds.values(metric, label) or ("x",)
    except LookupError:
        return ("x",)


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
