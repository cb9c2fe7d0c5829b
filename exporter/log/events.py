"""What is logged of events: one canonical line for each that an operator looks for."""

from typing import Any, Final

from exporter.closecodes import REGISTRY
from exporter.events import (
    BuildReturns,
    Closed,
    Listener,
    MassClose,
    MassCloseEnded,
    MessageRefused,
    Peer,
    StreamUnparsed,
)
from exporter.log.setup import tell

_MAX_REASON_BYTES: Final = 123  # RFC 6455 section 5.5: 125 bytes of payload, two of them the code
_MAX_PEER_TEXT: Final = 512
_NAMES: Final = {str(code): entry.name for code, entry in REGISTRY.items()}


class EventLog(Listener):
    """Writes one canonical line for each WebSocket that ended, each mass close and each refused message.

    And a warning for each fault of ours.
    """

    def __init__(self) -> None:
        self.handlers = {
            Closed: self._closed,
            MessageRefused: self._message_refused,
            MassCloseEnded: self._mass_close_ended,
            StreamUnparsed: self._stream_unparsed,
        }

    def _closed(self, event: Closed) -> None:
        tell("info", _close_line(event))

    def _message_refused(self, event: MessageRefused) -> None:
        tell("info", _refused_line(event))

    def _mass_close_ended(self, event: MassCloseEnded) -> None:
        over = event.mass_close
        tell("info" if over.verdict == "healthy" or over.draining else "warning", _mass_close_line(over))

    def _stream_unparsed(self, event: StreamUnparsed) -> None:
        if event.reason == "internal_error":
            tell("warning", _fault_line(event))


def _close_line(event: Closed) -> dict[str, Any]:
    peer = event.peer if max(map(len, event.peer)) <= _MAX_PEER_TEXT else Peer(*map(_cut, event.peer))
    line = {
        "event": "websocket closed",
        "source": event.origin.source,
        "target": event.origin.target,
        "code": event.code,
        "name": _NAMES.get(event.code, ""),
        "class": event.close_class,
        "initiator": event.initiator,
        "reason": _cut_bytes(event.reason, _MAX_REASON_BYTES),
        "duration": round(event.duration, 3),
        "client_to_server_bytes": event.client_to_server.bytes,
        "client_to_server_messages": event.client_to_server.messages,
        "client_to_server_largest_message": event.client_to_server.largest_message,
        "server_to_client_bytes": event.server_to_client.bytes,
        "server_to_client_messages": event.server_to_client.messages,
        "server_to_client_largest_message": event.server_to_client.largest_message,
        "client": peer.address,
        "host": peer.host,
        "path": peer.path,
        "user_agent": peer.user_agent,
        "subprotocol": peer.subprotocol,
    }
    if event.transport_end is not None:
        line["transport_end_side"] = event.transport_end.side
        line["transport_end_kind"] = event.transport_end.kind
    if event.attached:
        line["attached"] = True
    if event.wire_code is not None and str(event.wire_code) != event.code:
        line["wire_code"] = event.wire_code
    return line


def _refused_line(event: MessageRefused) -> dict[str, Any]:
    return {
        "event": "message refused",
        "source": event.origin.source,
        "target": event.origin.target,
        "direction": event.direction,
        "evidence": event.evidence,
        "size": event.size or None,
        "compressed": event.compressed,
        "repeated": event.repeated,
    }


def _fault_line(event: StreamUnparsed) -> dict[str, Any]:
    return {
        "event": "internal fault: a connection is relayed unread from here on",
        "source": event.origin.source,
        "target": event.origin.target,
    }


def _mass_close_line(over: MassClose) -> dict[str, Any]:
    return {
        "event": "mass close",
        "source": over.origin.source,
        "target": over.origin.target,
        "verdict": over.verdict,
        "lost": over.lost,
        "lost_by": {f"{code} {initiator}": number for (code, initiator), number in over.lost_by.items()},
        "duration": round(over.lasted, 3),
        "gap": None if over.gap is None else round(over.gap, 3),
        "tried": over.tried,
        "returned": over.returns,
        "returned_within": dict(over.returned),
        "back": over.back,
        "busiest_second": over.busiest_second,
        "answered": over.answered,
        "rejected": over.rejected,
        "refused_by_exporter": over.refused,
        "answered_per_returned": round(over.answered / over.returns, 2) if over.returns else None,
        "draining": over.draining,
        "builds": [_build_fields(build) for build in over.builds],
    }


def _build_fields(build: BuildReturns) -> dict[str, Any]:
    return {
        "build": build.build,
        "lost": build.lost,
        "returned": build.returned,
        "share_within_1s": round(build.at_once / build.delays, 3) if build.delays else None,
        "median_delay": None if build.median_delay is None else round(build.median_delay, 3),
        "rhythm": build.rhythm,
    }


def _cut(text: str) -> str:
    return text if len(text) <= _MAX_PEER_TEXT else text[: _MAX_PEER_TEXT - 3] + "..."


def _cut_bytes(text: str, limit: int) -> str:
    if len(text) <= limit // 4:  # no character takes more than four bytes
        return text
    data = text.encode("utf-8", "surrogatepass")
    return text if len(data) <= limit else data[:limit].decode("utf-8", "ignore")
