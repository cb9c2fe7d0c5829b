"""Events and bodies that several test modules need."""

import json
from collections.abc import Mapping
from typing import Any, Final

from exporter.reports import BodyFault, Events, Item, decode

JSON: Final = "application/json"
NDJSON: Final = "application/x-ndjson"
STRUCTURED: Final = "application/cloudevents+json"
BATCHED: Final = "application/cloudevents-batch+json"

CLOSE: Final[Mapping[str, Any]] = {
    "code": 1001,
    "initiator": "server",
    "id": "6f1f6d3c-53c4-4b8c-9d5c-4b6a3b2f0a11",
    "time": 1_772_366_400_250,
    "duration": 81.5,
    "reason": "going away",
}


def body_of(*events: object) -> bytes:
    """One event as JSON, or several as a JSON array."""
    return json.dumps(events[0] if len(events) == 1 else events).encode()


def lines_of(*events: object) -> bytes:
    return b"".join(json.dumps(event).encode() + b"\n" for event in events)


def finish(events: Events) -> list[Item]:
    """The events of all steps. Raises BodyFault."""
    return [item for items in events for item in items]


def outcome(body: bytes, content_type: str = JSON, headers: Mapping[str, str] | None = None) -> list[Item] | str:
    """What `decode` makes of a body: its items, or the token of its fault in angle brackets."""
    try:
        return finish(decode(body, content_type, headers or {}))
    except BodyFault as fault:
        return f"<{fault.token}>"


def only(body: bytes, content_type: str = JSON, headers: Mapping[str, str] | None = None) -> Item:
    """The one item of a body."""
    (item,) = finish(decode(body, content_type, headers or {}))
    return item
