"""Rules, runbooks and dashboards mean the same to Prometheus 2.42 and 3.x.

What 3.0 changed in PromQL, by its migration guide: the start of a range is no longer part of it (test_alerts.py asks
for ranges long enough without), `.` in a regular expression matches a line feed too, `le` and `quantile` are spelt as
floats whatever the exporter wrote, and holt_winters() has another name. The promtool tests pass with either version:
`PROMTOOL=/path/to/promtool python -m pytest tests/test_alerts.py`.
"""

import re
from typing import Final

import promql_parser
import pytest
from prometheus_client.utils import floatToGoString

from tests.alerts_promql import calls, nodes
from tests.dashboards_lint import WINDOWS
from tests.dashboards_support import all_queries
from tests.test_alerts import EXPRESSIONS

IN_BOTH: Final = frozenset(
    {
        "avg_over_time",
        "changes",
        "clamp_min",
        "count_over_time",
        "histogram_quantile",
        "increase",
        "label_replace",
        "last_over_time",
        "max_over_time",
        "min_over_time",
        "present_over_time",
        "quantile_over_time",
        "rate",
        "resets",
        "round",
        "sum_over_time",
        "time",
        "vector",
    }
)
"""Functions of 2.42 and of 3.x, stable in both; of these, those that are needed here."""


def with_windows(query: str) -> str:
    """A dashboard's query with Grafana's windows filled in."""
    for variable, window in WINDOWS.items():
        query = query.replace(variable, window)
    return query


EVERYWHERE: Final = list(dict.fromkeys([*EXPRESSIONS, *(with_windows(query) for _, query in all_queries())]))


@pytest.mark.parametrize("expression", EVERYWHERE)
def test_functions_are_in_both(expression: str) -> None:
    """No function was renamed, removed or is an experiment."""
    assert {name for name, _ in calls(expression)} <= IN_BOTH


@pytest.mark.parametrize("expression", EVERYWHERE)
def test_matchers_match_the_same_in_both(expression: str) -> None:
    """A dot in a regular expression stands for any characters at all, or for itself; `le` is spelt as a float."""
    for node in nodes(expression):
        if not isinstance(node, promql_parser.VectorSelector):
            continue
        for matcher in node.matchers.matchers:
            regular = matcher.op in (promql_parser.MatchOp.Re, promql_parser.MatchOp.NotRe)
            assert not regular or same_dots(matcher.value), f"{matcher.name}: {matcher.value}"
            if matcher.name in {"le", "quantile"}:
                for bound in matcher.value.split("|") if regular else [matcher.value]:
                    assert spelt_as_float(bound), bound


def same_dots(pattern: str) -> bool:
    """Whether no dot of the pattern depends on whether it matches a line feed, which no label value here has."""
    return "." not in re.sub(r"\[\.\]|\\.|\.[+*]|\d\.\d", "", pattern)


def spelt_as_float(bound: str) -> bool:
    bound = bound.replace("[+]", "+").replace("[.]", ".")
    return bound == "+Inf" or bound == floatToGoString(float(bound))


def test_the_rules_above_tell_what_changed() -> None:
    """They refuse what would match in one version alone."""
    assert [
        pattern for pattern in ("a.c", "a[.]c", ".+", "x.*y", r"a\.c", "0.8|1.0", ".") if not same_dots(pattern)
    ] == [
        "a.c",
        ".",
    ]
    assert [
        bound for bound in ("1", "1.0", "65536", "1048576", "1.048576e+06", "+Inf", "[+]Inf") if spelt_as_float(bound)
    ] == [
        "1.0",
        "1.048576e+06",
        "+Inf",
        "[+]Inf",
    ]
