"""What a real Alertmanager holds back by the example: of a tap and a capture of one service, the tap's alert speaks."""

import json
import shutil
import urllib.request
from collections.abc import Iterator
from typing import Any, Final

import pytest

from tests.alerts_support import ALERTS
from tests.e2e.stack import eventually
from tests.support.monitoring import alertmanager

pytestmark = [pytest.mark.needs("prometheus-alertmanager"), pytest.mark.timeout(90)]

Labels = dict[str, str]

SPIKE: Final = {"alertname": "WebSocketMessageTooBigSpike", "severity": "warning", "job": "chat", "target": "chat"}
LOOP: Final = {**SPIKE, "alertname": "WebSocketMessageTooBigLoop"}
STORM: Final = {**SPIKE, "alertname": "WebSocketReconnectStorm", "severity": "critical"}
NOT_ACCEPTING: Final = {**SPIKE, "alertname": "WebSocketServiceNotAccepting"}

CAPTURED: Final = {"source": "capture"}
FIRING: Final[tuple[tuple[Labels, bool], ...]] = (
    ({**SPIKE, "job": "both", "source": "tap"}, False),
    ({**SPIKE, "job": "both", **CAPTURED}, True),
    ({**SPIKE, "job": "both", "source": "webhook"}, False),
    ({**SPIKE, "job": "captured", **CAPTURED}, False),
    ({**SPIKE, "job": "another-target", "source": "tap"}, False),
    ({**SPIKE, "job": "another-target", "target": "feed", **CAPTURED}, False),
    ({**SPIKE, "job": "another-alert", "source": "tap"}, False),
    ({**LOOP, "job": "another-alert", "evidence": "close_1009", **CAPTURED}, False),
    ({**LOOP, "job": "evidence", "evidence": "suspected", "source": "tap"}, False),
    ({**LOOP, "job": "evidence", "evidence": "close_1009", **CAPTURED}, False),
    ({**LOOP, "job": "evidence", "evidence": "suspected", **CAPTURED}, True),
    ({**NOT_ACCEPTING, "job": "worse", "source": "tap"}, True),  # a critical one says it, whoever saw it
    ({**NOT_ACCEPTING, "job": "worse", "severity": "critical", **CAPTURED}, False),
    ({**STORM, "job": "storm", "source": "tap"}, False),
    ({**STORM, "job": "storm", **CAPTURED}, True),
)
"""What fires, each job for itself, and whether it is held back."""


@pytest.fixture(scope="module")
def silenced(tmp_path_factory: pytest.TempPathFactory) -> Iterator[set[tuple[tuple[str, str], ...]]]:
    """The labels of the alerts that are held back."""
    folder = tmp_path_factory.mktemp("alertmanager")
    shutil.copy(ALERTS / "alertmanager.example.yaml", folder / "alertmanager.yml")
    with alertmanager(folder) as port:
        api = f"http://127.0.0.1:{port}/api/v2/alerts"
        body = json.dumps([{"labels": labels} for labels, _ in FIRING]).encode()
        headers = {"Content-Type": "application/json"}
        urllib.request.urlopen(urllib.request.Request(api, body, headers), timeout=10).close()

        def known() -> list[dict[str, Any]] | None:
            with urllib.request.urlopen(api, timeout=10) as answer:
                alerts: list[dict[str, Any]] = json.load(answer)
            judged = all(alert["status"]["state"] != "unprocessed" for alert in alerts)
            return alerts if len(alerts) == len(FIRING) and judged else None

        alerts = eventually(known, 60, "every alert is judged")
        yield {tuple(sorted(alert["labels"].items())) for alert in alerts if alert["status"]["state"] == "suppressed"}


@pytest.mark.parametrize(
    ("labels", "held_back"),
    [pytest.param(*one, id="-".join(one[0][name] for name in ("job", "target", "source"))) for one in FIRING],
)
def test_what_a_tap_and_a_capture_both_see_is_told_once(
    silenced: set[tuple[tuple[str, str], ...]], labels: Labels, held_back: bool
) -> None:
    """The capture's alert waits while the same one fires for the tap, and for that of the same target alone."""
    assert (tuple(sorted(labels.items())) in silenced) == held_back
