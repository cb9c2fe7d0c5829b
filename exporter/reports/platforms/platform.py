"""What a platform's file has to say."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from exporter.reports.bodies import Events, Read, each


@dataclass(frozen=True, slots=True, kw_only=True)
class Platform:
    """One platform: how its events are `read`, and what the schema says of them.

    `requests` are their types, from which the schema is made; `summary` is a line about them, `description` says, in
    Markdown, what becomes of their fields, and `example` is one of them.
    """

    read: Read
    requests: tuple[Any, ...]
    summary: str
    description: str
    example: Mapping[str, Any]

    def decode(self, body: bytes, content_type: str, headers: Mapping[str, str]) -> Events:
        """The events of a request: one in JSON, an array of them, or NDJSON. Raises BodyFault."""
        return each(body, content_type, self.read)
