"""The capture: WebSockets observed by their packets, with nothing in the data path."""

from exporter.sources.capture.captures import Captures

__all__ = ["Captures"]
