"""Going away and reconnects: how many were cut off at once, how they came back, and whether the service stood it."""

from grafana_foundation_sdk.models.dashboard import Dashboard

from dashboards.frame import Rank, Section, assemble
from dashboards.promql import RANGE, chosen
from dashboards.reconnects import builds, delays, glance, herd, verdicts
from dashboards.style import DETAILS, RECONNECTS
from exporter.metrics import catalogue


def reconnects() -> Dashboard:
    return assemble(
        f"WebSocket / {DETAILS[RECONNECTS]}",
        RECONNECTS,
        "Deploys and crashes: connections lost at once, how their clients came back, and which of them behave badly.",
        (
            Section("At a glance", glance.panels()),
            Section("Lost and back", herd.panels()),
            Section("Mass closes", verdicts.panels()),
            Section("How long clients wait, seen by $source", delays.panels(), repeat="source"),
            Section("Who comes back", builds.panels()),
        ),
        Rank(
            chosen.increase(catalogue.MASS_CLOSE_CONNECTIONS, ("target", "source"), RANGE),
            "connections lost in mass closes",
        ),
    )
