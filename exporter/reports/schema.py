"""The OpenAPI 3.1 document of the webhook's listener, made from the types that decode."""

from collections.abc import Iterable, Mapping
from http import HTTPStatus
from inspect import cleandoc
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from exporter.events import REJECTIONS, Rejection
from exporter.reports.bodies import JSON, MAX_EVENT, MAX_EVENTS
from exporter.reports.cloudevents import BATCHED, STRUCTURED, CloudEvent
from exporter.reports.platforms import PLATFORMS, Platform
from exporter.reports.report import Report

Schema = dict[str, Any]
Errors = Mapping[Any, tuple[int, str]]
"""The HTTP status and the sentence of each error token."""

_CLOSES: Final = "/api/v1/closes"
_REFERENCE: Final = "#/components/schemas/{name}"

_ANYWHERE: Final = (
    "bad_request",
    "unauthorized",
    "method_not_allowed",
    "request_timeout",
    "body_too_large",
    "uri_too_long",
    "head_too_large",
    "internal_error",
    "overloaded",
)
"""Errors that any request may be answered with."""

_REPORTING: Final = (
    *_ANYWHERE,
    "signature_required",
    "signature_mismatch",
    "timestamp_out_of_range",
    "invalid_json",
    "too_many_events",
    "unsupported_media_type",
    "unsupported_encoding",
    "expectation_failed",
    "rate_limited",
    "storage_unavailable",
    "storage_full",
    "shutting_down",
)
"""Errors that a request with events may be answered with, as a whole."""

_FIELDS: Final[Mapping[int, str]] = {
    401: "WWW-Authenticate",
    405: "Allow",
    429: "Retry-After",
    503: "Retry-After",
    507: "Retry-After",
}
"""The header field that may come with an error, by its status."""

Number = Annotated[int, Meta(ge=0, le=MAX_EVENTS)]


class _Unaccepted(msgspec.Struct, tag_field="result"):
    index: Annotated[int, Meta(ge=0, lt=MAX_EVENTS, description="Which event of the request, from 0.")]


class Duplicate(_Unaccepted, tag_field="result", tag="duplicate"):
    """An event that was counted before."""


class Rejected(_Unaccepted, tag_field="result", tag="rejected"):
    """An event that cannot be counted."""

    error: Annotated[Rejection, Meta(description="Why.")]


class Outcome(msgspec.Struct):
    """What became of the events of a request: how many were counted now, were counted before, cannot be counted."""

    accepted: Number
    duplicate: Number
    rejected: Number
    items: Annotated[list[Duplicate | Rejected], Meta(description="The events that were not accepted, in order.")]


class AllRejected(Outcome):
    """None of the events of a request can be counted. `error` is the reason of the first."""

    error: Rejection
    detail: Annotated[str, Meta(description="The reason as a sentence.")]


def openapi(version: str, errors: Errors) -> Schema:
    """The document, for this version of the exporter. Raises KeyError where `errors` lacks a token that occurs."""
    requests = [platform.requests for platform in PLATFORMS.values()]
    types = [Report, CloudEvent, Outcome, AllRejected, *(each for group in requests for each in group)]
    references, components = msgspec.json.schema_components(types, ref_template=_REFERENCE)
    report, cloudevent, outcome, rejected, *platform_schemas = references
    components |= _reports(components["Report"])
    components["CloudEvent"]["properties"]["data"] = _data(report)
    answers = _answers(outcome, rejected, errors)
    paths = {_CLOSES: {"post": _operation(_reporting(report, cloudevent), answers)}}
    for name, platform in PLATFORMS.items():
        schemas, platform_schemas = (
            platform_schemas[: len(platform.requests)],
            platform_schemas[len(platform.requests) :],
        )
        paths[f"{_CLOSES}/{name}"] = {"post": _operation(_platform(platform, schemas), answers)}
    paths["/api/v1/openapi.json"] = {"get": _page("This document", JSON, {"type": "object"}, errors)}
    paths["/-/healthy"] = {"get": _page("Whether the listener is up", "text/plain", {"const": "OK"}, errors)}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "websocket-exporter webhook",
            "version": version,
            "license": {"name": "Apache 2.0", "identifier": "Apache-2.0"},
            "description": _DESCRIPTION,
        },
        "paths": paths,
        "components": {"schemas": dict(sorted(components.items())), "securitySchemes": _SECURITY},
    }


_DESCRIPTION: Final = f"""Services report the closes of their WebSockets here, and they appear in /metrics.

A request holds up to {MAX_EVENTS:,} events. What is answered with 200 is on disk and counted once, with 202 it is
counted in memory; an event with an id may be sent again as often as need be. Only a request that is answered with a
status below 300 or with 422 was taken: after any other, nothing of it was counted."""

_SECURITY: Final = {
    "basic": {"type": "http", "scheme": "basic", "description": "A user of the web configuration file."},
    "certificate": {"type": "mutualTLS", "description": "A client certificate that the web configuration file trusts."},
    "signature": {
        "type": "apiKey",
        "in": "header",
        "name": "webhook-signature",
        "description": "Standard Webhooks, where secrets are configured; with webhook-id and webhook-timestamp.",
    },
}

_TARGET: Final = {
    "name": "target",
    "in": "query",
    "description": "The target of events that name none.",
    "required": False,
    "schema": {"type": "string"},
}

_BINARY: Final = (
    "One event, or an array of them. With the headers ce-specversion, ce-id, ce-source and ce-type it is a CloudEvent "
    "in binary mode, and the body its data."
)

_CLOSE_EXAMPLE: Final = {
    "code": 1009,
    "reason": "message too big",
    "initiator": "server",
    "id": "01J5Z8Q6V0E0T4B0N1X2",
    "time": "2026-03-01T12:00:00.250Z",
    "duration": 81.5,
    "message_size": 1310720,
    "direction": "client_to_server",
}
_OPEN_EXAMPLE: Final = {"event": "open", "id": "01J5Z8Q6V0E0T4B0N1X2/open", "time": 1772366318750}


def _reports(report: Schema) -> dict[str, Schema]:
    """What types alone do not say of a report: it is a close with its code, or an open without one."""
    properties, code = report["properties"], report["properties"]["code"]["anyOf"][0]
    close = {"event": {**_only(properties["event"], "close"), "default": "close"}, "code": code}
    opened = {"event": _only(properties["event"], "open"), "code": {"type": "null"}}
    sized = {"properties": {"message_size": {"type": "integer"}}, "required": ["message_size"]}
    directed = {"properties": {"direction": {"type": "string"}}, "required": ["direction"]}
    shared = {"type": "object", "additionalProperties": False, "if": sized, "then": directed}
    return {
        "Report": {
            "title": "Report",
            "description": cleandoc(report["description"]),
            "anyOf": [{"$ref": _REFERENCE.format(name=name)} for name in ("Close", "Open")],
        },
        "Close": {"title": "Close", **shared, "required": ["code"], "properties": properties | close},
        "Open": {"title": "Open", **shared, "required": ["event"], "properties": properties | opened},
    }


def _only(choice: Schema, value: str) -> Schema:
    return {"description": choice["description"], "const": value}


def _data(report: Schema) -> Schema:
    """A report in an envelope: that it may repeat the envelope's id and source cannot be said in a schema."""
    envelope = {"properties": {"id": {"type": "null"}, "source": {"const": ""}}}
    return {"description": "The event, without the id and source that the envelope has.", "allOf": [report, envelope]}


def _operation(request: Schema, answers: Schema) -> Schema:
    return {**request, "responses": answers, "security": [{}, *({name: []} for name in _SECURITY)]}


def _reporting(report: Schema, cloudevent: Schema) -> Schema:
    content = {
        JSON: {
            "schema": {"anyOf": [report, _batch(report)], "description": _BINARY},
            "examples": {"close": {"value": _CLOSE_EXAMPLE}, "batch": {"value": [_OPEN_EXAMPLE, _CLOSE_EXAMPLE]}},
        },
        "application/x-ndjson": {
            "schema": {
                "type": "string",
                "description": f"An event on each line of at most {MAX_EVENT // 1024} KiB; empty lines are skipped.",
            },
            "example": "".join(f"{msgspec.json.encode(event).decode()}\n" for event in (_OPEN_EXAMPLE, _CLOSE_EXAMPLE)),
        },
        STRUCTURED: {"schema": cloudevent},
        BATCHED: {"schema": _batch(cloudevent)},
    }
    return {
        "operationId": "report",
        "summary": "Report closes and opens",
        "parameters": [_TARGET],
        "requestBody": {"required": True, "content": content},
    }


def _platform(platform: Platform, schemas: list[Schema]) -> Schema:
    one = {"anyOf": schemas}
    content = {JSON: {"schema": {"anyOf": [one, _batch(one)]}, "example": platform.example}}
    return {
        "operationId": platform.read.__module__.rpartition(".")[2],
        "summary": platform.summary,
        "description": platform.description,
        "parameters": [_TARGET],
        "requestBody": {"required": True, "content": content},
    }


def _batch(one: Schema) -> Schema:
    return {"type": "array", "items": one, "maxItems": MAX_EVENTS}


def _answers(outcome: Schema, rejected: Schema, errors: Errors) -> Schema:
    reasons = "\n".join(f"- `{token}`: {errors[token][1]}" for token in REJECTIONS)
    return {
        "200": _answer("The events were counted, and are on disk.", JSON, outcome),
        "202": _answer("The events were counted, in memory: no storage is configured.", JSON, outcome),
        "422": _answer(f"None of the events can be counted.\n\n{reasons}", JSON, rejected),
        **_failures(_REPORTING, errors),
    }


def _page(summary: str, media_type: str, schema: Schema, errors: Errors) -> Schema:
    return {
        "summary": summary,
        "responses": {"200": _answer(f"{summary}.", media_type, schema), **_failures(_ANYWHERE, errors)},
        "security": [{}, {"basic": []}, {"certificate": []}],
    }


def _failures(tokens: Iterable[str], errors: Errors) -> Schema:
    """The answers with an error, by status: each has a token, its sentence, and none of the input."""
    by_status: dict[int, list[str]] = {}
    for token in tokens:
        by_status.setdefault(errors[token][0], []).append(token)
    return {str(status): _failure(status, group, errors) for status, group in sorted(by_status.items())}


def _failure(status: int, tokens: list[str], errors: Errors) -> Schema:
    schema = {
        "type": "object",
        "required": ["error", "detail"],
        "properties": {"error": {"enum": tokens}, "detail": {"enum": [errors[token][1] for token in tokens]}},
    }
    reasons = "\n".join(f"- `{token}`: {errors[token][1]}" for token in tokens)
    answer = _answer(f"{HTTPStatus(status).phrase}.\n\n{reasons}", JSON, schema)
    if field := _FIELDS.get(status):
        answer["headers"] = {field: {"schema": {"type": "string"}}}
    return answer


def _answer(description: str, media_type: str, schema: Schema) -> Schema:
    return {"description": description, "content": {media_type: {"schema": schema}}}
