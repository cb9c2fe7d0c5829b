"""One reported event: its fields as they come over the wire, and what each fault of them is called."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from exporter.events import Direction, Rejection
from exporter.reports.reading import Reader

ID_LENGTH: Final = 256
"""Most characters of an id."""

SOURCE_LENGTH: Final = 256
"""Most characters of a source."""

TARGET_LENGTH: Final = 256
"""Most characters of a target that is named; configured ones are shorter."""

LONGEST: Final = 1_000_000_000.0
"""Most seconds that a connection may have lived, 31 years: a single greater number would drown the sum of all."""

PRINTABLE: Final = "^[ -~]+$"
"""Ids as a regular expression: a character outside of it is nothing to recognise an event by in logs and in SQL."""

_BACKSLASH: Final = ord("\\")  # as numbers: to look for bytes of one byte costs an exception inside CPython first
_DELETE: Final = 0x7F

Code = Annotated[
    int, Meta(ge=0, le=4999, description="The close code (RFC 6455 section 7.4), without fraction or exponent.")
]
Milliseconds = Annotated[
    int, Meta(ge=0, le=253_402_300_799_999, description="Milliseconds since 1970, without fraction or exponent.")
]
Moment = Annotated[
    datetime,
    Meta(
        tz=True,
        description="RFC 3339 with an offset; no leap second.",
        extra_json_schema={"not": {"pattern": "^0000|:60"}},
    ),
]
Size = Annotated[int, Meta(ge=0, le=2**63 - 1)]


class Report(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, gc=False):
    """One close or open of a WebSocket, as a service saw it. `null` is as good as absent where a field has no default.

    A close needs its `code`, an open has none.
    """

    event: Annotated[Literal["close", "open"], Meta(description="What happened.")] = "close"
    code: Code | None = None
    reason: Annotated[str | None, Meta(description="The close reason, of any length. Never in a metric.")] = None
    initiator: Annotated[
        Literal["client", "server", "unknown"],
        Meta(description="Who closed; say it if you can, because unknown counts as not the client."),
    ] = "unknown"
    target: Annotated[str, Meta(max_length=TARGET_LENGTH, description="The configured target that it counts for.")] = ""
    id: Annotated[
        Annotated[str, Meta(min_length=1, max_length=ID_LENGTH, extra_json_schema={"pattern": PRINTABLE})] | None,
        Meta(
            description="By which the event is known again, printable ASCII: one with the same target, source and id "
            "is counted once, however often it is sent. Without an id it counts as often as it is sent.",
            examples=["01J5Z8Q6V0E0T4B0N1X2"],
        ),
    ] = None
    source: Annotated[
        str, Meta(max_length=SOURCE_LENGTH, description="Within which the id is unique, such as the host.")
    ] = ""
    time: Annotated[Milliseconds | Moment | None, Meta(description="When it happened.")] = None
    duration: Annotated[
        Annotated[float, Meta(ge=0, le=LONGEST)] | None, Meta(description="Seconds that the connection was open.")
    ] = None
    message_size: Annotated[
        Size | None, Meta(description="Bytes of the message that was refused (1009). Needs its direction.")
    ] = None
    direction: Annotated[Direction | None, Meta(description="Where the refused message was going.")] = None
    largest_message: Annotated[Size | None, Meta(description="Bytes of the largest message of the connection.")] = None
    client: Annotated[
        str | None, Meta(description="An opaque key that a client has again when it returns. Never in a metric.")
    ] = None
    user_agent: Annotated[str | None, Meta(description="The client's User-Agent. Never in a metric.")] = None

    @property
    def unix_time(self) -> float | None:
        """When it happened, in seconds since 1970; None where the event does not say."""
        time = self.time
        if time is None:
            return None
        return time / 1000 if isinstance(time, int) else time.timestamp()


Item = Report | Rejection
"""What became of one event of a request: the event, or why it cannot be counted."""

read_fields: Final = Reader(
    msgspec.json.Decoder(Report),
    faulty={
        "code": "invalid_code",
        "initiator": "invalid_initiator",
        "id": "invalid_id",
        "time": "invalid_time",
        "duration": "invalid_duration",
        "message_size": "invalid_size",
        "direction": "invalid_size",
        "largest_message": "invalid_size",
    },
)
"""Reads the fields of one event, each by itself; `check` judges them together."""


def read_report(text: bytes | msgspec.Raw) -> Item:
    """One event from well-formed JSON."""
    report = read_fields(text)
    return report if isinstance(report, str) else check(report) or report


def check_all(reports: Sequence[Report], text: bytes) -> list[Item]:
    """As `check`, for all that `text` holds, which knows most of the answer at once."""
    if _BACKSLASH in text or _DELETE in text or not text.isascii():
        return [check(report) or report for report in reports]
    # JSON has control characters as escapes only, so all ids are printable. And in a close with a code and without a
    # refused message nothing is left that could contradict another field.
    return [
        report
        if report.code is not None and report.event == "close" and report.message_size is None
        else check(report) or report
        for report in reports
    ]


def check(report: Report) -> Rejection | None:
    """What the types of a report's fields cannot say."""
    if report.code is None:
        if report.event == "close":
            return "missing_code"
    elif report.event != "close":
        return "invalid_event"
    identity = report.id
    if identity is not None and not (identity.isascii() and identity.isprintable()):
        return "invalid_id"
    if report.message_size is not None and report.direction is None:
        return "invalid_size"
    return None
