"""websocket-exporter: a sidecar that knows why WebSocket connections die."""

__version__ = "0.1.0"
