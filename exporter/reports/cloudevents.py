"""CloudEvents 1.0 over HTTP whose data is an event: structured, batched and binary mode.

Their id, source and time are the event's; see the CloudEvents specification, its JSON format and its HTTP binding.
"""

import re
from collections.abc import Mapping
from functools import partial
from typing import Annotated, Final, Literal
from urllib.parse import unquote

import msgspec
from msgspec import Meta

from exporter.events import Rejection
from exporter.reports.bodies import JSON, Events, is_array, many, one
from exporter.reports.reading import Reader
from exporter.reports.report import ID_LENGTH, PRINTABLE, SOURCE_LENGTH, Item, Moment, check, read_fields

STRUCTURED: Final = "application/cloudevents+json"
BATCHED: Final = "application/cloudevents-batch+json"

Text = Annotated[str, Meta(min_length=1)]


class Attributes(msgspec.Struct, frozen=True, kw_only=True):
    """What the envelope of a CloudEvent says of the event in it. Other attributes are allowed, and ignored."""

    specversion: Annotated[Literal["1.0"], Meta(description="The version of CloudEvents.")]
    id: Annotated[
        Text,
        Meta(
            description="The event's id.",
            extra_json_schema={"maxLength": ID_LENGTH, "pattern": PRINTABLE},
        ),
    ]
    source: Annotated[Text, Meta(description="The event's source.", extra_json_schema={"maxLength": SOURCE_LENGTH})]
    type: Annotated[Text, Meta(description="Any type: what happened is said by the event itself.")]
    time: Annotated[Moment | None, Meta(description="The event's time, if it has none itself.")] = None


class CloudEvent(Attributes, frozen=True, kw_only=True):
    """A CloudEvent in JSON whose data is a report."""

    data: msgspec.Raw


HEADERS: Final = frozenset(f"ce-{name}" for name in ("specversion", "id", "source", "type"))
"""Any of these headers makes a request a CloudEvent in binary mode."""

_read_envelope: Final = Reader(msgspec.json.Decoder(CloudEvent), faulty={}, otherwise="invalid_cloudevent")
_QUOTED: Final = re.compile(r'"(.*)"')
_QUOTED_PAIR: Final = re.compile(r"\\(.)")


def decode_structured(body: bytes) -> Events:
    """The event of one CloudEvent. Raises BodyFault."""
    return one(body, read_cloudevent)


def decode_batched(body: bytes) -> Events:
    """The events of an array of CloudEvents. Raises BodyFault."""
    array = yield from is_array(body)
    yield from many(body, read_cloudevent) if array else one(body, _no_cloudevent)


def decode_binary(body: bytes, kind: str, headers: Mapping[str, str]) -> Events:
    """The event that the body is, with its attributes in `headers`. Raises BodyFault. `kind` is the media type."""
    if kind != JSON:
        yield ["invalid_cloudevent"]
        return
    try:
        attributes = msgspec.convert(
            {name: _value(headers[f"ce-{name}"]) for name in Attributes.__struct_fields__ if f"ce-{name}" in headers},
            Attributes,
        )
    except (msgspec.ValidationError, UnicodeDecodeError):
        yield from one(body, _no_cloudevent)
    else:
        yield from one(body, partial(_read_data, attributes))


def read_cloudevent(text: bytes) -> Item:
    """The event of one CloudEvent, from well-formed JSON."""
    envelope = _read_envelope(text)
    return envelope if isinstance(envelope, str) else _read_data(envelope, bytes(envelope.data))


def _read_data(attributes: Attributes, data: bytes) -> Item:
    if not data.lstrip(b" \t\r\n").startswith(b"{"):
        return "invalid_cloudevent"
    report = read_fields(data)
    if isinstance(report, str):
        return report
    if report.id not in (None, attributes.id) or report.source not in ("", attributes.source):
        return "invalid_cloudevent"
    if len(attributes.id) > ID_LENGTH:
        return "invalid_id"
    if len(attributes.source) > SOURCE_LENGTH:
        return "invalid_event"
    time = attributes.time if report.time is None else report.time
    report = msgspec.structs.replace(report, id=attributes.id, source=attributes.source, time=time)
    return check(report) or report


def _no_cloudevent(_: bytes) -> Rejection:
    return "invalid_cloudevent"


def _value(header: str) -> str:
    """The value of an attribute in a header field (HTTP binding, section 3.1.3.2). Raises UnicodeDecodeError."""
    quoted = _QUOTED.fullmatch(header)
    return unquote(_QUOTED_PAIR.sub(r"\1", quoted[1]) if quoted else header, errors="strict")
