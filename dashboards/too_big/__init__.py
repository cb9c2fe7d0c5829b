"""Message too big: who is cut off for the size of a message, how large it was, and what limit would have taken it."""

from grafana_foundation_sdk.models.dashboard import Dashboard

from dashboards.frame import Rank, Section, assemble
from dashboards.promql import RANGE, chosen
from dashboards.style import DETAILS, TOO_BIG
from dashboards.too_big import glance, limits, refusals, sizes
from exporter.metrics import catalogue


def too_big() -> Dashboard:
    return assemble(
        f"WebSocket / {DETAILS[TOO_BIG]}",
        TOO_BIG,
        "1009 Message Too Big: whose limit was hit, by what, how close everything else is to it, and what to do.",
        (
            Section("At a glance", glance.panels()),
            Section("Refusals", refusals.panels()),
            Section("Limits", limits.panels()),
            Section("Sizes seen by $source", sizes.panels(), repeat="source"),
        ),
        Rank(chosen.increase(catalogue.CLOSES, ("target", "source"), RANGE, code="1009"), "closes with 1009"),
    )
