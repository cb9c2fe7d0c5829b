"""The exporter's own HTTP: /metrics, health, reload and a landing page, on one listener with one error shape."""
