"""The exporter's own HTTP: /metrics, health, reload and the status page, on one listener with one error shape."""
