"""Amazon API Gateway's WebSocket APIs: what their $connect and $disconnect routes give to an integration.

Field names and values are those of the "WebSocket API mapping template reference" and of the $disconnect input shown
in "Manage connected users and client apps". An event that Lambda got can be posted as it is. Its disconnectStatusCode
is -1 where API Gateway knows no code; that is refused, because it may have been an empty Close as well as none.
"""

from typing import Annotated, Final

import msgspec
from msgspec import Meta

from exporter.reports.platforms.platform import Platform
from exporter.reports.reading import Reader
from exporter.reports.report import (
    ID_LENGTH,
    LONGEST,
    PRINTABLE,
    SOURCE_LENGTH,
    Code,
    Item,
    Milliseconds,
    Report,
    check,
)

_CONNECT: Final = "/connect"
"""Behind the connection id in the id of its open, which so is never that of its close."""


class AwsIdentity(msgspec.Struct, frozen=True, rename="camel"):
    """Who opened the connection. The address is not read."""

    user_agent: str | None = None


class _Context(msgspec.Struct, frozen=True, kw_only=True, rename="camel", tag_field="eventType"):
    connection_id: Annotated[
        str,
        Meta(min_length=1, max_length=ID_LENGTH - len(_CONNECT), extra_json_schema={"pattern": PRINTABLE}),
    ]
    request_time_epoch: Milliseconds | None = None
    connected_at: Milliseconds | None = None
    domain_name: str | None = None
    stage: str | None = None
    identity: AwsIdentity | None = None
    request_context: None = None  # so that nothing is a context and the input of a function at once

    @property
    def source(self) -> str:
        return "/".join(part for part in (self.domain_name, self.stage) if part)[:SOURCE_LENGTH]

    @property
    def user_agent(self) -> str | None:
        return self.identity.user_agent if self.identity else None


class AwsConnect(_Context, frozen=True, kw_only=True, rename="camel", tag="CONNECT"):
    """The request context of a $connect route. Unknown fields are ignored."""

    def report(self) -> Report:
        """The open."""
        return Report(
            event="open",
            id=self.connection_id + _CONNECT,
            source=self.source,
            time=self.request_time_epoch,
            user_agent=self.user_agent,
        )


class AwsDisconnect(_Context, frozen=True, kw_only=True, rename="camel", tag="DISCONNECT"):
    """The request context of a $disconnect route. Unknown fields are ignored."""

    disconnect_status_code: Code
    disconnect_reason: str | None = None

    def report(self) -> Report:
        """The close. API Gateway does not say whose it was."""
        return Report(
            code=self.disconnect_status_code,
            reason=self.disconnect_reason,
            id=self.connection_id,
            source=self.source,
            time=self.request_time_epoch,
            duration=self._duration(),
            user_agent=self.user_agent,
        )

    def _duration(self) -> float | None:
        """Seconds; None where the times are not there, or contradict each other: the close is true all the same."""
        if self.request_time_epoch is None or self.connected_at is None:
            return None
        duration = (self.request_time_epoch - self.connected_at) / 1000
        return duration if 0 <= duration <= LONGEST else None


AwsContext = AwsConnect | AwsDisconnect


class AwsEvent(msgspec.Struct, frozen=True, rename="camel"):
    """The input of a Lambda function behind a route. Unknown fields are ignored."""

    request_context: AwsContext


class _Outside(msgspec.Struct, frozen=True, rename="camel"):
    request_context: msgspec.Raw = msgspec.Raw(b"null")


_read_outside: Final = Reader(msgspec.json.Decoder(_Outside), faulty={})
_read_context: Final[Reader[AwsContext]] = Reader(
    msgspec.json.Decoder(AwsContext),
    faulty={
        "disconnectStatusCode": "invalid_code",
        "connectionId": "invalid_id",
        "requestTimeEpoch": "invalid_time",
        "connectedAt": "invalid_time",
    },
    missing={"disconnectStatusCode": "missing_code", "connectionId": "missing_id"},
)


def read(text: bytes) -> Item:
    """The event of one request, from well-formed JSON."""
    outside = _read_outside(text)
    if isinstance(outside, str):
        return outside
    inside = bytes(outside.request_context)
    context = _read_context(text if inside == b"null" else inside)
    if isinstance(context, str):
        return context
    report = context.report()
    return check(report) or report


PLATFORM: Final = Platform(
    read=read,
    requests=(AwsEvent, AwsContext),
    summary="Closes and opens from the $disconnect and $connect routes of Amazon API Gateway",
    description=(
        "The whole input of a Lambda function, or its `requestContext` alone. `disconnectStatusCode` is the code, "
        "`disconnectReason` the reason, `connectionId` the id, `domainName`/`stage` the source, `requestTimeEpoch` the "
        "time, its distance from `connectedAt` the duration. API Gateway does not say who closed, and delivers "
        "$disconnect without promise: some closes never come."
    ),
    example={
        "requestContext": {
            "routeKey": "$disconnect",
            "eventType": "DISCONNECT",
            "disconnectStatusCode": 1001,
            "disconnectReason": "Going away",
            "connectedAt": 1705751697419,
            "requestTimeEpoch": 1705751708326,
            "connectionId": "R1kmxc2VNjMCFIA=",
            "domainName": "abcd1234.execute-api.eu-central-1.amazonaws.com",
            "stage": "prod",
        }
    },
)
