"""The alerts' promtool tests are worth something: whatever is changed in the rules, one of them notices."""

import json
import shutil
from pathlib import Path
from typing import Final

import pytest

from tests.alerts_support import ALERTS, RULES, promtool, rules_behind

FAILING: Final = "refused|closed|timeout|500|502|503|504"
REFUSED: Final = (
    "invalid_json|unsupported_media_type|unsupported_encoding|too_many_events|body_too_large|"
    "signature_required|signature_mismatch|timestamp_out_of_range"
)

MUTANTS: Final = (
    ("too_big:increase5m >= 20", "too_big:increase5m >= 19", "WebSocketMessageTooBigSpike"),
    ("too_big:increase5m >= 20", "too_big:increase5m > 20", "WebSocketMessageTooBigSpike"),
    ("ratio5m >= 0.02", "ratio5m > 0.02", "WebSocketMessageTooBigSpike"),
    ("ratio5m >= 0.02", "ratio5m >= 0", "WebSocketMessageTooBigSpike"),
    ("<= 3 * ", "< 3 * ", "WebSocketMessageTooBigSpike.day"),
    ("[12h] offset 12h", "[12h]", "WebSocketMessageTooBigSpike.day"),
    (
        "                and\n                  job_instance_target_source:websocket_target:restarted30m\n",
        "",
        "WebSocketMessageTooBigSpike",
    ),
    ('{class="too_big", source!="probe"}', '{source!="probe"}', "WebSocketMessageTooBigSpike"),
    ('"probe', '"nobody', "WebSocketMessageTooBigSpike"),
    ("> time() - 300", "> time()", "WebSocketMessageTooBigSpike"),
    ("> time() - 300", "> 0", "WebSocketMessageTooBigSpike"),
    ("keep_firing_for: 5m", "keep_firing_for: 1s", "WebSocketMessageTooBigSpike"),
    ("increase30m >= 20", "increase30m >= 19", "WebSocketReconnectStorm"),
    ("increase30m >= 20", "increase30m > 20", "WebSocketReconnectStorm"),
    ("amplification:ratio5m > 2", "amplification:ratio5m >= 2", "WebSocketReconnectStorm"),
    ("amplification:ratio5m > 2", "amplification:ratio5m > 2.02", "WebSocketReconnectStorm"),
    ("denied:increase5m >= 20", "denied:increase5m >= 19", "WebSocketReconnectStorm"),
    ("denied:increase5m >= 20", "denied:increase5m > 20", "WebSocketReconnectStorm"),
    ("> 0.2 *", ">= 0.2 *", "WebSocketReconnectStorm"),
    ('initiator!="client"', 'initiator!="nobody"', "WebSocketReconnectStorm"),
    ('initiator!="client"', 'initiator="server"', "WebSocketReconnectStorm"),
    ('class="going_away"', 'code="1001"', "WebSocketReconnectStorm"),
    ('status="timeout"', 'status=~"timeout|closed"', "WebSocketReconnectStorm"),
    ('status="timeout"', 'status=~"timeout|refused"', "WebSocketReconnectStorm"),
    ('status="timeout"', 'status=~"timeout|limit"', "WebSocketReconnectStorm"),
    ('status="timeout"', 'status="nothing"', "WebSocketReconnectStorm"),
    ('handshakes_total{source="webhook"}', 'handshakes_total{source="nobody"}', "WebSocketReconnectStorm"),
    ('outcome="accepted"', 'outcome=~"accepted|rejected"', "WebSocketReconnectStorm"),
    (
        "max_over_time(websocket_connections_active",
        "-max_over_time(websocket_connections_active",
        "WebSocketReconnectStorm",
    ),
    ("changes(", "0 * changes(", "WebSocketReconnectStorm"),
    ("[30m]", "[5m]", "WebSocketReconnectStorm"),
    ('"probe', '"nobody', "WebSocketReconnectStorm"),
    ("[1h:1m] offset 5m", "[1h:1m] offset 1h", "WebSocketReconnectStorm"),
    ("[10m] offset 5m", "[10m]", "WebSocketReconnectStorm"),
    ("for: 1m", "for: 0s", "WebSocketReconnectStorm"),
    ("for: 3m", "for: 10m", "WebSocketExporterDown"),
    ("for: 5m", "for: 1m", "WebSocketExporterDown"),
    ("max by (job) (up", "min by (job) (up", "WebSocketExporterDown"),
    (
        "(up) == 0 and on (job, instance) job_instance:websocket_exporter_build_info:present1d",
        "(up) == 0",
        "WebSocketExporterDown",
    ),
    ("surge:increase2m >= 20", "surge:increase2m >= 19", "WebSocketAbnormalCloseSurge"),
    ("surge:increase2m >= 20", "surge:increase2m > 20", "WebSocketAbnormalCloseSurge"),
    (">= 0.5 * ", "> 0.5 * ", "WebSocketAbnormalCloseSurge"),
    (">= 0.5 * ", ">= 0.49 * ", "WebSocketAbnormalCloseSurge"),
    (">= 0.25 * ", "> 0.25 * ", "WebSocketAbnormalCloseSurge"),
    (">= 0.25 * ", ">= 0.24 * ", "WebSocketAbnormalCloseSurge"),
    (
        "0.25 * max_over_time(job_target_source:websocket_connections_active:sum[10m])",
        "0.25 * job_target_source:websocket_connections_active:sum",
        "WebSocketAbnormalCloseSurge",
    ),
    ('class="abnormal", ', "", "WebSocketAbnormalCloseSurge"),
    ('"probe', '"nobody', "WebSocketAbnormalCloseSurge"),
    ('initiator!="exporter"', 'initiator!="nobody"', "WebSocketAbnormalCloseSurge"),
    ('initiator!="exporter"', 'initiator!~"client|exporter"', "WebSocketAbnormalCloseSurge"),
    ('initiator!="exporter"', 'initiator!~"unknown|exporter"', "WebSocketAbnormalCloseSurge"),
    ("[2m] offset 2m", "[2m] offset 5m", "WebSocketAbnormalCloseSurge"),
    ("increase2m offset 3m", "increase2m offset 3m * 0", "WebSocketAbnormalCloseSurge"),
    ("failing:increase2m >= 20", "failing:increase2m >= 19", "WebSocketServiceNotAccepting"),
    ("failing:increase2m >= 20", "failing:increase2m > 20", "WebSocketServiceNotAccepting"),
    ("failing:ratio2m > 0.5", "failing:ratio2m >= 0.5", "WebSocketServiceNotAccepting"),
    ("failing:ratio2m > 0.5", "failing:ratio2m > 0.51", "WebSocketServiceNotAccepting"),
    *(
        (f'{{status=~"{FAILING}", ', f'{{status=~"{FAILING}", status!="{status}", ', "WebSocketServiceNotAccepting")
        for status in FAILING.split("|")
    ),
    *((FAILING, f"{FAILING}|{status}", "WebSocketServiceNotAccepting") for status in ("401", "403", "429", "other")),
    ('{status=~"refused|closed", ', '{status=~"refused|closed|draining", ', "WebSocketServiceNotAccepting"),
    ('"probe', '"nobody', "WebSocketServiceNotAccepting"),
    ("0.5 * 120 / 300 * ", "0.49 * 120 / 300 * ", "WebSocketServiceNotAccepting"),
    ("0.5 * 120 / 300 * ", "0.52 * 120 / 300 * ", "WebSocketServiceNotAccepting"),
    ("for: 5m", "for: 3m", "WebSocketServiceNotAccepting"),
    ("for: 5m", "for: 7m", "WebSocketServiceNotAccepting"),
    (
        """and
                  job_instance_target_source:websocket_target:restarted30m
                and
                  job_instance_target_source:websocket_target:new5m
""",
        """and
                  job_instance_target_source:websocket_target:restarted30m
""",
        "WebSocketMessageTooBigSpike",
    ),
    (
        "last_over_time(job_instance_target_source:websocket_closes_too_big:sum[5m])\n            -",
        "max_over_time(job_instance_target_source:websocket_closes_too_big:sum[5m])\n            -",
        "WebSocketMessageTooBigSpike.restored",
    ),
    ("> time() - ", "> -1000000 + 0 * ", "WebSocketMessageTooBigSpike.restored"),
    ("> time() - 1800", "> time() - 180000", "WebSocketReconnectStorm.restored"),
    ("    0\n            )\n", "    -100000\n            )\n", "WebSocketAbnormalCloseSurge.restored"),
    (">= 0.9\n", "> 0.9\n", "WebSocketTapConnectionLimit"),
    (">= 0.9\n", ">= 0.89\n", "WebSocketTapConnectionLimit"),
    ("min_over_time(job_instance", "max_over_time(job_instance", "WebSocketTapConnectionLimit"),
    ('source="tap", status="limit"', 'source="tap", outcome="refused_by_exporter"', "WebSocketTapConnectionLimit"),
    ('websocket_connections_active{source="tap"}', "websocket_connections_active", "WebSocketTapConnectionLimit"),
    ('_count{source!~"probe|webhook|capture"}', '_count{source!~"probe|webhook"}', "WebSocketAbnormalCloseSurge"),
    ('source=~"webhook|capture"', 'source="webhook"', "WebSocketAbnormalCloseSurge"),
    ('{source!="capture"}', "", "WebSocketReconnectStorm"),
    ("websocket_exporter_capture_up) == 0", "websocket_exporter_capture_up) <= 1", "WebSocketCaptureDown"),
    *(
        ("max by (job, instance, pod, target) (", f"max by ({labels}) (", "WebSocketCaptureDown")
        for labels in ("job, instance, pod", "job, target", "job, instance, target")
    ),
    ("for: 5m", "for: 3m", "WebSocketCaptureDown"),
    ("for: 5m", "for: 15m", "WebSocketCaptureDown"),
    (
        ") >= 20\n            and\n              avg",
        ") >= 19\n            and\n              avg",
        "WebSocketCaptureLosing",
    ),
    (
        ") >= 20\n            and\n              avg",
        ") > 20\n            and\n              avg",
        "WebSocketCaptureLosing",
    ),
    ("losses:present2m[15m]) >= 0.5", "losses:present2m[15m]) >= 0.45", "WebSocketCaptureLosing"),
    ("losses:present2m[15m]) >= 0.5", "losses:present2m[15m]) >= 0.57", "WebSocketCaptureLosing"),
    ("losses:present2m offset 15m", "losses:present2m", "WebSocketCaptureLosing"),
    (") >= 1\n", ") > 1\n", "WebSocketCaptureLosing"),
    ('{ring="size"}', '{ring="lifecycle"}', "WebSocketCaptureLosing"),
    (
        "            or\n              websocket_exporter_capture_lost_directions_total\n",
        "",
        "WebSocketCaptureLosing",
    ),
    (
        'min_over_time(websocket_exporter_capture_drops_total{ring="lifecycle"}',
        '0 * min_over_time(websocket_exporter_capture_drops_total{ring="lifecycle"}',
        "WebSocketCaptureLosing",
    ),
    ("refused:increase30m >= 10", "refused:increase30m >= 8", "WebSocketEventsRejected"),
    ("refused:increase30m >= 10", "refused:increase30m >= 12", "WebSocketEventsRejected"),
    ("refused:sum[5m])) > 0\n", "refused:sum[30m])) > 0\n", "WebSocketEventsRejected"),
    ("for: 10m", "for: 5m", "WebSocketEventsRejected"),
    ("for: 10m", "for: 20m", "WebSocketEventsRejected"),
    ('{result="rejected"}', "", "WebSocketEventsRejected"),
    (
        "            and on (job, instance)\n              websocket_exporter_webhook_ids\n",
        "",
        "WebSocketEventsRejected",
    ),
    *(
        (f'{{error=~"{REFUSED}"}}', f'{{error=~"{REFUSED}", error!="{token}"}}', "WebSocketEventsRejected")
        for token in REFUSED.split("|")
    ),
    *(
        (REFUSED, f"{REFUSED}|{token}", "WebSocketEventsRejected")
        for token in ("invalid_code", "rate_limited", "unauthorized", "storage_full", "shutting_down", "not_found")
    ),
    ("for: 5m", "for: 3m", "WebSocketStorageFailing"),
    ("for: 5m", "for: 15m", "WebSocketStorageFailing"),
    ("storage_errors:increase2m) > 0", "storage_errors:increase2m) > 1", "WebSocketStorageFailing"),
    ('{result="accepted"} > 0', "> 0", "WebSocketStorageFailing"),
    ('{result="accepted"} > 0', '{result="accepted"} >= 0', "WebSocketStorageFailing"),
    (
        "source) (job_instance_target_source:websocket_probe_up:avg10m) < 0.5",
        "source) (job_instance_target_source:websocket_probe_up:avg10m) < 0.39",
        "WebSocketProbeFailing",
    ),
    (
        "source) (job_instance_target_source:websocket_probe_up:avg10m) < 0.5",
        "source) (job_instance_target_source:websocket_probe_up:avg10m) < 0.53",
        "WebSocketProbeFailing",
    ),
    (
        "max by (job, target, source) (job_instance",
        "min by (job, target, source) (job_instance",
        "WebSocketProbeFailing",
    ),
    (
        "        expr: job_instance_target_source:websocket_probe_up:avg10m < 0.5",
        "        expr: job_instance_target_source:websocket_probe_up:avg10m < 0.3",
        "WebSocketProbeFailing",
    ),
    ("            and\n              websocket_probe_up\n", "", "WebSocketProbeFailing"),
    ("websocket_probe_up offset 10m", "websocket_probe_up", "WebSocketProbeFailing"),
    ("avg_over_time(websocket_probe_up[10m])", "avg_over_time(websocket_probe_up[5m])", "WebSocketProbeFailing"),
    ("increase5m\n          unless", "increase5m > 1\n          unless", "WebSocketMessageTooBigFirstSeen"),
    (
        "websocket_closes_too_big:sum[5m])\n              )\n          ) > 0\n",
        "websocket_closes_too_big:sum[5m])\n              )\n          )\n",
        "WebSocketMessageTooBigFirstSeen",
    ),
    (
        " or 0 * job_target_source:websocket_closes:increase5m)\n",
        ")\n",
        "WebSocketMessageTooBigSpike.day",
    ),
    ("[1d] offset 5m", "[1d]", "WebSocketMessageTooBigFirstSeen"),
    ("[1d] offset 5m", "[1h] offset 5m", "WebSocketMessageTooBigFirstSeen.day"),
    (">=\n              0.5\n", ">=\n              0.48\n", "WebSocketMessageTooBigSustained"),
    (">=\n              0.5\n", ">=\n              0.58\n", "WebSocketMessageTooBigSustained"),
    ("closes:increase5m offset 1h", "closes:increase5m offset 10m", "WebSocketMessageTooBigSustained"),
    ("0.02 * sum_over_time", "0.0195 * sum_over_time", "WebSocketMessageTooBigSustained"),
    ("0.02 * sum_over_time", "0.0205 * sum_over_time", "WebSocketMessageTooBigSustained"),
    ('"probe', '"nobody', "WebSocketMessageTooBigSustained"),
    ("increase15m >= 10", "increase15m >= 9", "WebSocketMessageTooBigLoop"),
    ("increase15m >= 10", "increase15m > 10", "WebSocketMessageTooBigLoop"),
    ('repeats_total{source!="probe"}[15m]', 'repeats_total{source!="probe"}[5m]', "WebSocketMessageTooBigLoop"),
    ("sum by (job, target, source, evidence)", "sum by (job, target, source)", "WebSocketMessageTooBigLoop"),
    (
        "changes(websocket_too_big_repeats_total",
        "1 + changes(websocket_too_big_repeats_total",
        "WebSocketMessageTooBigLoop",
    ),
    ('"probe', '"nobody', "WebSocketMessageTooBigLoop"),
    ("> time() - 900", "> time()", "WebSocketMessageTooBigLoop"),
    ("near_limit:increase30m >= 20", "near_limit:increase30m >= 19", "WebSocketMessageSizeNearLimit"),
    ("near_limit:increase30m >= 20", "near_limit:increase30m > 20", "WebSocketMessageSizeNearLimit"),
    ('le="0.9"', 'le="1.0"', "WebSocketMessageSizeNearLimit"),
    ("<= 3 * job_target_source_direction", "< 3 * job_target_source_direction", "WebSocketMessageSizeNearLimit.day"),
    ("<= 3 * job_target_source_direction", "<= 4 * job_target_source_direction", "WebSocketMessageSizeNearLimit.day"),
    ("unsettled:increase5m >= 50", "unsettled:increase5m >= 49", "WebSocketReconnectSurgeAfterRestart"),
    ("unsettled:increase5m >= 50", "unsettled:increase5m > 50", "WebSocketReconnectSurgeAfterRestart"),
    ("> 2 * (\n", ">= 2 * (\n", "WebSocketReconnectSurgeAfterRestart"),
    ("> 2 * (\n", "> 2.02 * (\n", "WebSocketReconnectSurgeAfterRestart"),
    ("> time() - 600", "> -100000", "WebSocketReconnectSurgeAfterRestart"),
    ("[1h] offset 15m", "[1h]", "WebSocketReconnectSurgeAfterRestart"),
    ('class=~"normal|going_away", ', 'class="none", ', "WebSocketReconnectSurgeAfterRestart"),
    ('"probe', '"nobody', "WebSocketReconnectSurgeAfterRestart"),
    (
        "          unless\n          job_target_source:websocket_connections_lost:increase30m >= 20\n",
        "",
        "WebSocketReconnectSurgeAfterRestart",
    ),
    ("busiest_second:ratio5m > 0.5", "busiest_second:ratio5m >= 0.5", "WebSocketReconnectHerd"),
    ("busiest_second:ratio5m > 0.5", "busiest_second:ratio5m > 0.52", "WebSocketReconnectHerd"),
    ("last_minute:max5m >= 50", "last_minute:max5m >= 49", "WebSocketReconnectHerd"),
    ("last_minute:max5m >= 50", "last_minute:max5m > 50", "WebSocketReconnectHerd"),
    ("[5m]) >= 5)", "[5m]) >= 6)", "WebSocketReconnectHerd"),
    ("[5m]) >= 5)", "[5m]) >= 4)", "WebSocketReconnectHerd"),
    ("for: 75s", "for: 45s", "WebSocketReconnectHerd"),
    ('"probe', '"nobody', "WebSocketReconnectHerd"),
    ("lost_at_once:increase30m, ", "lost_at_once:increase30m * 0, ", "WebSocketReconnectStorm"),
    (
        "    job_instance_target_source:websocket_connections_active:max30m,\n",
        "    1000000 * job_instance_target_source:websocket_connections_active:max30m,\n",
        "WebSocketReconnectStorm",
    ),
    ("> 600", "> 580", "WebSocketProbeStalled"),
    ("> 600", "> 720", "WebSocketProbeStalled"),
    ("< 3600", "< 3590", "WebSocketEventIdsForgotten"),
    ("< 3600", "< 3661", "WebSocketEventIdsForgotten"),
    (">= 0.4 *", "> 0.4 *", "WebSocketEventIdsForgotten"),
    (">= 0.4 *", ">= 0.39 *", "WebSocketEventIdsForgotten"),
    ("for: 5m", "for: 3m", "WebSocketEventIdsForgotten"),
    ("keep_firing_for: 1h", "keep_firing_for: 30m", "WebSocketEventIdsForgotten"),
)
"""(what the rule file says, what it must not say, the promtool tests that notice)."""


@pytest.mark.matrix
@pytest.mark.needs("promtool")
@pytest.mark.parametrize(("text", "mutant", "tests"), MUTANTS)
def test_the_promtool_tests_bite(text: str, mutant: str, tests: str, tmp_path: Path) -> None:
    """Each floor, ratio, window and matcher matters: with it changed, a promtool test fails."""
    rules = RULES.read_text()
    assert text in rules
    shutil.copytree(ALERTS / "tests", tmp_path / "tests")
    (tmp_path / "rules").mkdir()
    behind = rules_behind(tests.split(".")[0], rules.replace(text, mutant))
    assert behind != rules_behind(tests.split(".")[0])
    (tmp_path / "rules" / RULES.name).write_text(json.dumps(behind))  # JSON is YAML
    assert promtool("check", "rules", tmp_path / "rules" / RULES.name).returncode == 0
    assert promtool("test", "rules", tmp_path / "tests" / f"{tests}.yaml").returncode != 0
