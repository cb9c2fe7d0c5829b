"""What a PromQL expression selects, groups by and looks back on, read by a real parser."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any, Final

import promql_parser

SUFFIXES: Final = ("_bucket", "_count", "_sum")
"""What a histogram's series have behind the family's name."""


def nodes(expression: str) -> Iterator[Any]:
    """Every node of the expression, outermost first. Raises ValueError for what is no PromQL."""
    yield from _below(promql_parser.parse(expression))


def _below(node: Any) -> Iterator[Any]:
    yield node
    for name in ("lhs", "rhs", "expr", "param", "vector_selector"):
        child = getattr(node, name, None)
        if child is not None and not isinstance(child, str | float):
            yield from _below(child)
    for child in getattr(node, "args", ()):
        yield from _below(child)


def selectors(expression: str) -> Iterator[tuple[str, dict[str, list[str]]]]:
    """Each metric that `expression` selects, with the values that its matchers name."""
    for node in nodes(expression):
        if isinstance(node, promql_parser.VectorSelector):
            yield node.name, {matcher.name: alternatives(matcher) for matcher in node.matchers.matchers}


def alternatives(matcher: Any) -> list[str]:
    """The values that a matcher names; a regular expression may list several."""
    if matcher.op in (promql_parser.MatchOp.Re, promql_parser.MatchOp.NotRe):
        return [value.replace("[+]", "+") for value in matcher.value.split("|")]
    return [matcher.value]


def grouping_labels(expression: str) -> set[str]:
    """The labels that `expression` groups or matches by."""
    found: set[str] = set()
    for node in nodes(expression):
        modifier = getattr(node, "modifier", None)
        if isinstance(node, promql_parser.AggregateExpr) and modifier is not None:
            found |= set(modifier.labels)
        elif isinstance(node, promql_parser.BinaryExpr) and modifier is not None:
            found |= set(modifier.matching.labels if modifier.matching is not None else ())
            found |= set(modifier.group_labels or ())
    return found


def unaggregated(expression: str) -> Iterator[str]:
    """The metrics whose labels, all of them, are those of the answer: no aggregation is above them, nor are they what
    `and` and `unless` only compare with.
    """
    yield from _unaggregated(promql_parser.parse(expression))


def _unaggregated(node: Any) -> Iterator[str]:
    match node:
        case promql_parser.AggregateExpr():
            return
        case promql_parser.VectorSelector():
            yield node.name
        case promql_parser.BinaryExpr():
            yield from _unaggregated(node.lhs)
            if str(node.op) not in {"and", "unless"}:
                yield from _unaggregated(node.rhs)
        case promql_parser.MatrixSelector():
            yield from _unaggregated(node.vector_selector)
        case promql_parser.Call():
            for argument in node.args:
                yield from _unaggregated(argument)
        case promql_parser.ParenExpr() | promql_parser.UnaryExpr() | promql_parser.SubqueryExpr():
            yield from _unaggregated(node.expr)


def ranges(expression: str) -> list[timedelta]:
    """The window of each range selector and subquery."""
    ranged = (promql_parser.MatrixSelector, promql_parser.SubqueryExpr)
    return [node.range for node in nodes(expression) if isinstance(node, ranged)]


def calls(expression: str) -> Iterator[tuple[str, list[Any]]]:
    """Each function that is called, and its arguments."""
    for node in nodes(expression):
        if isinstance(node, promql_parser.Call):
            yield node.func.name, node.args


def family(name: str) -> str:
    """A metric's family: the name without what histograms put behind it."""
    return next((name.removesuffix(suffix) for suffix in SUFFIXES if name.endswith(suffix)), name)
