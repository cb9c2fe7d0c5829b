"""The alerts as a whole: valid for the real tools, spelt as the catalogue spells, each with its tests and its runbook.

How they behave over simulated services is in test_alerts_scenarios.py.
"""

import json
import math
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, get_args

import promql_parser
import pytest
import yaml
from prometheus_client.utils import floatToGoString
from structlog.testing import capture_logs

from exporter import closecodes, events
from exporter.log import EventLog
from exporter.metrics import catalogue
from exporter.web.errors import ERROR_TOKENS
from tests.alerts_promql import calls, family, grouping_labels, nodes, ranges, selectors, unaggregated
from tests.alerts_support import ALERTS, RULES, promtool, rules_behind

ALERTMANAGER: Final = ALERTS / "alertmanager.example.yaml"
RUNBOOK_BASE: Final = "https://github.com/websocket-exporter/websocket-exporter/blob/main/alerts/runbooks/"
SECTIONS: Final = ["Meaning", "Impact", "Diagnosis", "Mitigation"]

GROUPS: Final = yaml.safe_load(RULES.read_text())["groups"]
EVERY_RULE: Final = [rule for group in GROUPS for rule in group["rules"]]
ALERT_RULES: Final = [rule for rule in EVERY_RULE if "alert" in rule]
RECORDED: Final = {rule["record"]: rule["expr"] for rule in EVERY_RULE if "record" in rule}
COUNTER_SUMS: Final = [name for name in RECORDED if re.fullmatch(r"job_instance(_\w+)?:\w+:sum", name)]
"""Recordings that add up the counters of one exporter, and are counters themselves."""
NAMES: Final = sorted({rule["alert"] for rule in ALERT_RULES})

TEST_FILES: Final = sorted((ALERTS / "tests").glob("*.yaml"))
SEEN_BY_A_TAP: Final = [
    file for file in TEST_FILES if 'source="tap"' in file.read_text() and file.stem != "WebSocketTapConnectionLimit"
]
CUT_BY_A_TAP: Final = {"fires when the exporter restarts under the same name and its clients storm"}
"""Tests that are about a tap itself."""
PAGES: Final = sorted((ALERTS / "runbooks").iterdir())

PROMETHEUS_OWN: Final = {"up": (), "process_resident_memory_bytes": ()}
"""What expressions use of other people's metrics, and their labels beside job and instance."""
SCRAPED_LABELS: Final = {"job", "instance", "pod"}
"""What scrapes add to a series, the pod in Kubernetes alone."""

VALUES: Final[Mapping[str, frozenset[str]]] = {
    "source": frozenset(get_args(events.Source)),
    "class": frozenset(closecodes.CLASSES),
    "code": frozenset({closecodes.UNKNOWN, *closecodes.Vocabulary(frozenset(), frozenset()).labels()}),
    "initiator": frozenset(events.INITIATORS),
    "outcome": frozenset(get_args(events.HandshakeOutcome)),
    "status": frozenset(
        ("101", *catalogue.REJECTED_STATUSES, *catalogue.FAILED_STATUSES, *catalogue.REFUSED_BY_EXPORTER_STATUSES)
    ),
    "direction": frozenset(events.DIRECTIONS),
    "compressed": frozenset({"true", "false"}),
    "result": frozenset({"accepted", "duplicate", "rejected"}),
    "error": frozenset(ERROR_TOKENS),
    "ring": frozenset(events.RINGS),
    "evidence": frozenset(get_args(events.Evidence)),
    "origin": frozenset({"configured", "accepted", "rejected"}),
    "le": frozenset(
        "+Inf" if bound == math.inf else floatToGoString(bound)
        for metric in catalogue.METRICS
        for bound in (*metric.bounds, math.inf)
    ),
}
"""Every value a label can have, of those that rules and runbooks select by."""


def annotation_queries() -> Iterator[str]:
    """The queries that alert descriptions make, with their placeholders filled in."""
    for rule in ALERT_RULES:
        for query in re.findall(r'printf "((?:[^"\\]|\\.)*)"', rule["annotations"]["description"]):
            yield (
                query.replace('\\"', '"')
                .replace("source=%q", 'source="tap"')
                .replace("direction=%q", 'direction="client_to_server"')
                .replace("%q", '"any"')
            )


def runbook_queries() -> Iterator[str]:
    for page in PAGES:
        yield from re.findall(r"```promql\n(.*?)```", page.read_text().replace('"SOURCE"', '"tap"'), re.DOTALL)


EXPRESSIONS: Final = [*(rule["expr"] for rule in EVERY_RULE), *annotation_queries(), *runbook_queries()]


def labels_of(metric: str) -> set[str]:
    """The labels of a metric of the catalogue or of a recording. Raises KeyError for one that does not exist."""
    if metric in RECORDED:
        return set(metric.partition(":")[0].split("_"))
    if metric in PROMETHEUS_OWN:
        return SCRAPED_LABELS | set(PROMETHEUS_OWN[metric])
    le = {"le"} if metric.endswith("_bucket") else set()
    return SCRAPED_LABELS | set(catalogue.BY_NAME[family(metric)].labels) | le


def cases_of(name: str) -> Iterator[dict[str, Any]]:
    for file in TEST_FILES:
        if file.name.split(".")[0] == name:
            yield from yaml.safe_load(file.read_text())["tests"]


def samples(test: dict[str, Any]) -> Iterator[str]:
    """The labels of the firing alerts that a promtool test expects."""
    for alert in test.get("alert_rule_test", []):
        yield from (str(expected["exp_labels"] | {"alertname": alert["alertname"]}) for expected in alert["exp_alerts"])
    for query in test.get("promql_expr_test", []):
        if "ALERTS" in query["expr"]:
            yield from (expected["labels"] for expected in query["exp_samples"])


@pytest.mark.needs("promtool")
def test_the_rules_are_valid() -> None:
    """promtool accepts the rule file, and its lint has nothing to say."""
    done = promtool("check", "rules", "--lint=all", "--lint-fatal", RULES)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"SUCCESS: {len(EVERY_RULE)} rules found" in done.stdout


@pytest.mark.needs("promtool")
@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    "file",
    [
        pytest.param(file, id=file.stem, marks=[pytest.mark.matrix] if file.stem.endswith(".day") else [])
        for file in TEST_FILES
    ],
)
def test_promtool_tests_hold(file: Path, tmp_path: Path) -> None:
    """Each alert fires, stays silent and keeps its boundary as its promtool tests say, over the rules it rests on."""
    (tmp_path / "rules").mkdir()
    (tmp_path / "tests").mkdir()
    (tmp_path / "rules" / RULES.name).write_text(json.dumps(rules_behind(file.name.split(".")[0])))  # JSON is YAML
    done = promtool("test", "rules", shutil.copy(file, tmp_path / "tests"))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.matrix
@pytest.mark.needs("promtool")
@pytest.mark.timeout(240)
@pytest.mark.parametrize("file", TEST_FILES, ids=lambda file: file.stem)
def test_promtool_tests_hold_beside_all_other_rules(file: Path) -> None:
    """The same with every rule, as it is shipped: what `promtool test rules tests/*.yaml` runs."""
    done = promtool("test", "rules", file)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.matrix
@pytest.mark.needs("promtool")
@pytest.mark.timeout(120)
@pytest.mark.parametrize("file", SEEN_BY_A_TAP, ids=lambda file: file.stem)
def test_what_a_tap_sees_a_capture_alerts_on_too(file: Path, tmp_path: Path) -> None:
    """The same series with `source="capture"` fire the same, but where an exporter's restart is what cut them."""
    text = file.read_text()
    for seen in ('source="{}"', "source: {}", "seen by {}", "var-source={}"):
        text = text.replace(seen.format("tap"), seen.format("capture"))
    head, *cases = re.split(r"(?m)^(?=  - name: )", text)  # as text: 0x60 is no number but sixty times 0
    kept = [case for case in cases if case.partition("\n")[0].removeprefix("  - name: ") not in CUT_BY_A_TAP]
    (tmp_path / "rules").mkdir()
    (tmp_path / "tests").mkdir()
    (tmp_path / "rules" / RULES.name).write_text(json.dumps(rules_behind(file.name.split(".")[0])))  # JSON is YAML
    (tmp_path / "tests" / file.name).write_text(head + "".join(kept))
    done = promtool("test", "rules", tmp_path / "tests" / file.name)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.needs("amtool")
def test_the_alertmanager_example_is_valid() -> None:
    """amtool accepts the example."""
    done = subprocess.run(
        ["amtool", "check-config", ALERTMANAGER], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.needs("amtool")
@pytest.mark.parametrize(("severity", "receiver"), [("critical", "pager"), ("warning", "team"), ("info", "log")])
def test_alerts_are_routed_by_severity(severity: str, receiver: str) -> None:
    """Critical alerts reach the pager, warnings the team, the rest is written down."""
    command = ["amtool", "config", "routes", "test", f"--config.file={ALERTMANAGER}", f"--verify.receivers={receiver}"]
    labels = [f"alertname={NAMES[0]}", f"severity={severity}"]
    done = subprocess.run([*command, *labels], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.needs("promtool")
def test_the_readmes_prometheus_configuration_is_valid(tmp_path: Path) -> None:
    """The lines for prometheus.yml, which drop a second alert, are what Prometheus takes."""
    lines = re.findall(r"```yaml\n(# prometheus\.yml\n.*?)```", (ALERTS / "README.md").read_text(), re.DOTALL)
    assert lines
    file = tmp_path / "prometheus.yml"
    for text in lines:
        file.write_text(text)
        done = promtool("check", "config", "--syntax-only", file)
        assert done.returncode == 0, done.stdout + done.stderr


def test_services_of_the_same_name_are_told_apart() -> None:
    """What is notified together, or silences another, is of one cluster, namespace and job."""
    config = yaml.safe_load(ALERTMANAGER.read_text())
    kept = [config["route"]["routes"][0]["group_by"], *(rule["equal"] for rule in config["inhibit_rules"])]
    assert len(kept) > 5
    for labels in kept:
        assert {"cluster", "namespace", "job"} <= set(labels)


def test_inhibition_names_alerts_that_exist() -> None:
    """Each alert that an inhibition rule starts from is one of the rules'."""
    rules = yaml.safe_load(ALERTMANAGER.read_text())["inhibit_rules"]
    sources = {
        name for rule in rules for text in rule["source_matchers"] for name in re.findall(r"WebSocket[A-Z]\w+", text)
    }
    assert sources
    assert sources <= set(NAMES)


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_everything_selected_exists(expression: str) -> None:
    """Metrics, labels and label values in rules, descriptions and runbooks are the catalogue's or a recording's."""
    found = list(selectors(expression))
    assert found
    for metric, matchers in found:
        assert set(matchers) <= labels_of(metric), metric
        for label, values in matchers.items():
            assert label not in VALUES or set(values) <= VALUES[label], f"{metric} never has {label} {values}"
        if "le" in matchers:
            assert {float(bound) for bound in matchers["le"]} <= {*catalogue.BY_NAME[family(metric)].bounds, math.inf}
    known = set().union(*(labels_of(metric) for metric, _ in found))
    assert grouping_labels(expression) <= known


def test_the_expression_reader_sees_what_is_there() -> None:
    """The reader used above finds metrics, matchers and groupings, and no functions, durations or strings."""
    expression = (
        'sum by (job, le) (rate(a_total{x=~"1|2", y!="3|4"}[5m] offset 1h)) > bool 2 and on (z) l:b:c '
        'unless ignoring (w) max_over_time(topk(1, -label_replace(up, "x", "$1", "y", "(.+)"))[10m:1m]) # d'
    )
    assert list(selectors(expression)) == [("a_total", {"x": ["1", "2"], "y": ["3|4"]}), ("l:b:c", {}), ("up", {})]
    assert grouping_labels(expression) == {"job", "le", "z", "w"}
    assert ranges(expression) == [timedelta(minutes=5), timedelta(minutes=10)]
    assert [name for name, _ in calls(expression)] == ["rate", "max_over_time", "label_replace"]
    assert list(unaggregated("-(a + max_over_time(b[5m])) or sum(c) or d and e unless f")) == ["a", "b", "d"]


@pytest.mark.parametrize("name", RECORDED)
def test_recordings_are_named_after_what_they_are(name: str) -> None:
    """level:metric:operation, where the level lists exactly the labels that are left; and somebody uses it."""
    level, metric, operation = name.split(":")
    assert re.fullmatch(r"websocket_\w+", metric)
    assert re.fullmatch(r"[a-z]+(\d+[mhd])?", operation)
    expression = RECORDED[name]
    grouped = re.match(r"[\s(]*(?:sum|group|max) by \(([^)]*)\)", expression)
    left = set(grouped[1].split(", ")) if grouped else labels_of(next(selectors(expression))[0])
    assert set(level.split("_")) == left
    assert any(name in other for other in EXPRESSIONS if other != expression)


@pytest.mark.parametrize("rule", EVERY_RULE, ids=lambda rule: rule.get("record") or rule["alert"])
def test_no_label_is_left_by_chance(rule: dict[str, Any]) -> None:
    """A namespace on some alerts of a service and not on others would keep these from silencing each other."""
    assert set(unaggregated(rule["expr"])) <= set(RECORDED)


@pytest.mark.parametrize("expression", [*RECORDED.values(), *(rule["expr"] for rule in ALERT_RULES)])
def test_windows_hold_four_scrapes(expression: str) -> None:
    """Every range is at least 5 minutes: four scrapes of 60 s and one lost, also without its start (Prometheus 3).

    But a sample from some time ago may not be much older than that, and two scrapes will do to find one.
    """
    asked = [argument for name, arguments in calls(expression) if name == "last_over_time" for argument in arguments]
    earlier = [argument.range for argument in asked if argument.vector_selector.offset]
    others = list(ranges(expression))
    for window in earlier:
        others.remove(window)
    assert all(window >= timedelta(minutes=5) for window in others)
    assert all(window >= timedelta(minutes=2) for window in earlier)


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_only_counters_are_rated_and_never_a_sum_of_them(expression: str) -> None:
    """rate(), increase() and resets() read what begins anew at once: a sum over replicas hides that one of them did."""
    for name, arguments in calls(expression):
        if name in {"rate", "irate", "increase", "resets"}:
            (argument,) = arguments
            assert isinstance(argument, promql_parser.MatrixSelector), name
            metric = argument.vector_selector.name
            assert metric in COUNTER_SUMS or catalogue.BY_NAME[family(metric)].type in {"counter", "histogram"}, metric


@pytest.mark.parametrize("rule", EVERY_RULE, ids=lambda rule: rule.get("record") or rule["alert"])
def test_a_counter_is_only_read_over_time(rule: dict[str, Any]) -> None:
    """How high a counter stands says when its replica started, not what goes on. So does a sum of one replica's."""
    if rule.get("record") in COUNTER_SUMS:
        return
    expression = rule["expr"]
    over_time = Counter(node.vector_selector.name for node in nodes(expression) if hasattr(node, "vector_selector"))
    for metric, times in Counter(name for name, _ in selectors(expression)).items():
        known = catalogue.BY_NAME.get(family(metric))
        counts = metric in COUNTER_SUMS or (known is not None and known.type != "gauge")
        assert not counts or over_time[metric] == times, metric


@pytest.mark.parametrize("name", COUNTER_SUMS)
def test_only_what_begins_anew_together_is_added_up(name: str) -> None:
    """A sum of counters keeps the instance: replicas begin anew one by one, the counters of one do so at once."""
    assert RECORDED[name].startswith(("sum by (job, instance, ", "sum by (job, instance) "))


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_quantiles_keep_their_buckets(expression: str) -> None:
    """What histogram_quantile() gets is grouped by `le`."""
    for name, arguments in calls(expression):
        if name == "histogram_quantile":
            assert "le" in arguments[1].modifier.labels


def test_a_counter_began_in_the_window_it_is_read_in() -> None:
    """Where a rule takes a counter's whole value, it began within the range that the rule reads."""
    began, asked = [], 0
    for name, expression in RECORDED.items():
        asked_for = re.findall(r"websocket_target:new(\d+)m", expression)
        if own := re.fullmatch(r"\w+:websocket_target:new(\d+)m", name):
            began.append(own[1])
            (known,) = asked_for or re.findall(r"created_timestamp_seconds\[(\d+)m\]", expression)
            assert int(known) >= int(own[1])
            assert expression.rstrip().endswith(f"> time() - {60 * int(own[1])}")
        elif asked_for:
            asked += len(asked_for)
            assert set(re.findall(r"\[(\d+)m\]", expression)) == set(asked_for)
    assert (began, asked) == (["30", "15", "5"], 14)


def test_what_begins_at_zero_does_so_for_every_value_of_a_label() -> None:
    """A recording by evidence or direction takes 0 for each of them where an exporter is new."""
    found = set()
    for name, expression in RECORDED.items():
        zeros = re.findall(r'label_replace\(0 \* \w+:websocket_target:new\d+m, "(\w+)", "(\w+)", "", ""\)', expression)
        for label in {label for label, _ in zeros}:
            found.add((name.partition(":")[0].split("_")[-1], label))
            assert {value for one, value in zeros if one == label} == VALUES[label]
    assert found == {("evidence", "evidence"), ("direction", "direction")}


@pytest.mark.parametrize("rule", ALERT_RULES, ids=lambda rule: f"{rule['alert']} {rule['labels']['severity']}")
def test_an_alert_says_what_it_must(rule: dict[str, Any]) -> None:
    """A severity, a fixed summary, a description with the labels that tell where, and two links: runbook, dashboard."""
    assert re.fullmatch(r"WebSocket[A-Z]\w+", rule["alert"])
    assert set(rule["labels"]) == {"severity"}
    assert rule["labels"]["severity"] in {"critical", "warning", "info"}
    assert set(rule["annotations"]) == {"summary", "description", "runbook_url", "dashboard_url"}
    assert re.fullmatch(r"[A-Z][^{}]*\.", rule["annotations"]["summary"])
    assert "$labels.job" in rule["annotations"]["description"]
    assert "irst " in rule["annotations"]["description"], "what to look at first"
    assert rule["annotations"]["runbook_url"] == f"{RUNBOOK_BASE}{rule['alert']}.md"


def test_every_alert_has_a_runbook_and_every_runbook_an_alert() -> None:
    """Alerts and runbooks are the same set, and the README's table lists it."""
    assert [page.name for page in PAGES] == [f"{name}.md" for name in NAMES]
    table = re.findall(r"(?m)^\| \[(\w+)\]\(runbooks/(\w+)\.md\)", (ALERTS / "README.md").read_text())
    assert sorted(table) == [(name, name) for name in NAMES]


def test_every_test_file_belongs_to_an_alert() -> None:
    """alerts/tests/ holds <AlertName>.yaml, or <AlertName>.<aspect>.yaml, of alerts that exist; each has one."""
    assert {file.name.split(".")[0] for file in TEST_FILES} == set(NAMES)


@pytest.mark.parametrize("rule", ALERT_RULES, ids=lambda rule: f"{rule['alert']} {rule['labels']['severity']}")
def test_every_alert_is_tested_to_fire_and_to_stay_silent(rule: dict[str, Any]) -> None:
    """promtool has for it a test that fires with all its annotations, and one that never does."""
    name, severity = rule["alert"], rule["labels"]["severity"]
    exact = [one for test in cases_of(name) for case in test.get("alert_rule_test", []) for one in case["exp_alerts"]]
    assert any(one["exp_labels"]["severity"] == severity and one["exp_annotations"]["description"] for one in exact)
    silent = [test for test in cases_of(name) if test["name"].startswith("stays silent")]
    assert silent
    for test in cases_of(name):
        assert bool(list(samples(test))) == (test not in silent), test["name"]


@pytest.mark.parametrize("file", TEST_FILES, ids=lambda file: file.stem)
def test_promtool_tests_are_deterministic_and_off_the_grid(file: Path) -> None:
    """Groups run in the rule file's order; evaluations do not coincide with the scrapes."""
    document = yaml.safe_load(file.read_text())
    assert document["group_eval_order"] == [group["name"] for group in GROUPS]
    assert document["evaluation_interval"] in {"17s", "24s", "61s"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_runbook_has_its_four_sections(page: Path) -> None:
    """Title and sections are where people expect them at 3 a.m., none is empty, and links lead somewhere."""
    text = page.read_text()
    assert text.startswith(f"# {page.stem}\n")
    headings = re.findall(r"(?m)^## (.+)$", text)
    assert headings == SECTIONS
    assert all(len(part.split()) > 30 for part in re.split(r"(?m)^## .+$", text)[1:])
    assert "```promql" in text
    for target in re.findall(r"\]\((?!http)([^)#]+)", text):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("query", [*runbook_queries()])
def test_runbook_queries_ask_for_one_service(query: str) -> None:
    """Job, target and source are selected where the series have them, or told apart by `by`; the job always is.

    Otherwise the answer is about other services too, or has the same connections twice, as two sources saw them.
    """
    for node in nodes(query):
        if isinstance(node, promql_parser.VectorSelector):
            chosen = {one.name for one in node.matchers.matchers if one.op == promql_parser.MatchOp.Equal}
            unchosen = ({"job", "target", "source"} & labels_of(node.name)) - chosen
            assert unchosen <= grouping_labels(query) - {"job"}, node.name


@pytest.mark.needs("promtool")
def test_runbook_queries_are_promql(tmp_path: Path) -> None:
    """Every query of a runbook parses."""
    rules = [{"record": f"runbook:query:{number}", "expr": query} for number, query in enumerate(runbook_queries())]
    file = tmp_path / "queries.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "runbooks", "rules": rules}]}))
    done = promtool("check", "rules", file)
    assert done.returncode == 0, done.stdout + done.stderr


def test_runbooks_read_fields_that_the_log_has() -> None:
    """The jq filters select the event and the fields of a close's log line."""
    with capture_logs() as lines:
        EventLog().emit(events.Closed(events.Origin("tap", "chat"), "1009", "too_big", "server", 1.0))
    (line,) = lines
    filters = [text for page in PAGES for text in re.findall(r"fromjson\? \| (.*?)'", page.read_text())]
    assert filters
    for text in filters:
        assert f'.event == "{line["event"]}"' in text
        assert set(re.findall(r"(?<![\w\"])\.(\w+)", text)) <= set(line)
