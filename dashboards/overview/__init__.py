"""The overview: who connects, who leaves and why, how big messages are, and whether the exporter itself is well."""

from grafana_foundation_sdk.models.dashboard import Dashboard

from dashboards.frame import Section, assemble
from dashboards.overview import capture, closes, connections, glance, itself, messages, probe, webhook


def overview() -> Dashboard:
    return assemble(
        "WebSocket / Overview",
        "websocket-overview",
        "Connections, close codes, message sizes and handshakes of the services behind websocket-exporter.",
        (
            Section("At a glance", glance.panels()),
            Section("Handshakes and connections", connections.panels()),
            Section("Closes", closes.panels()),
            Section("Message sizes seen by $source", messages.panels(), repeat="source"),
            Section("Captured packets", capture.panels()),
            Section("Reported by services (webhook)", webhook.panels()),
            Section("Probe", probe.panels()),
            Section("The exporter itself", itself.panels()),
        ),
    )
