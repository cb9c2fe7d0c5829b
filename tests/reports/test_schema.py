"""The OpenAPI document: valid, complete, and true both ways: what it allows is taken, what it forbids is not."""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

import jsonschema_rs
import pytest
import schemathesis
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from schemathesis import Case, GenerationMode

from exporter.events import REJECTIONS
from exporter.reports import PLATFORMS, BodyFault, Events, Item, decode, openapi
from exporter.reports.schema import Schema
from exporter.web.errors import ERRORS
from tests.reports.support import BATCHED, CLOSE, JSON, NDJSON, STRUCTURED, finish, outcome

ERRORS_BY_TOKEN: Final = {token: (error.status, error.detail) for token, error in ERRORS.items()}
DOCUMENT: Final = openapi("1.2.3", ERRORS_BY_TOKEN)
CLOSES: Final[Schema] = DOCUMENT["paths"]["/api/v1/closes"]["post"]
AWS: Final[Schema] = DOCUMENT["paths"]["/api/v1/closes/aws-apigateway"]["post"]

ELSEWHERE: Final = {"lifecycle_disabled", "not_found", "reload_failed", "not_ready"}
"""Errors of the exporter's own listener, and of paths that do not exist."""

REPORTING_STATUSES: Final = [200, 202, 400, 401, 405, 408, 413, 414, 415, 417, 422, 429, 431, 500, 503, 507]
PAGE_STATUSES: Final = [200, 400, 401, 405, 408, 413, 414, 431, 500, 503]


def validator(schema: Schema) -> jsonschema_rs.Draft202012Validator:
    return jsonschema_rs.Draft202012Validator({**schema, "components": DOCUMENT["components"]}, validate_formats=True)


EVENT: Final = validator(CLOSES["requestBody"]["content"][JSON]["schema"])
CLOUDEVENT: Final = validator(CLOSES["requestBody"]["content"][STRUCTURED]["schema"])
BATCH: Final = validator(CLOSES["requestBody"]["content"][BATCHED]["schema"])
AWS_EVENT: Final = validator(AWS["requestBody"]["content"][JSON]["schema"])


def test_the_document_is_valid() -> None:
    """It is OpenAPI 3.1, its schemas are JSON Schema, and it can be written as JSON."""
    schemathesis.openapi.from_dict(json.loads(json.dumps(DOCUMENT))).validate()
    for schema in DOCUMENT["components"]["schemas"].values():
        jsonschema_rs.meta.validate({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema})
    assert DOCUMENT["info"]["version"] == "1.2.3"


def test_every_reference_leads_somewhere() -> None:
    """No schema is missing, and none is there for nothing."""
    named = set(re.findall(r'"#/components/schemas/(\w+)"', json.dumps(DOCUMENT)))
    assert named == set(DOCUMENT["components"]["schemas"])


def test_every_path_is_there() -> None:
    """Reports, those of each platform, the document itself and health."""
    assert {path: list(operations) for path, operations in DOCUMENT["paths"].items()} == {
        "/api/v1/closes": ["post"],
        **{f"/api/v1/closes/{name}": ["post"] for name in PLATFORMS},
        "/api/v1/openapi.json": ["get"],
        "/-/healthy": ["get"],
    }
    assert list(CLOSES["requestBody"]["content"]) == [JSON, NDJSON, STRUCTURED, BATCHED]


@pytest.mark.parametrize(
    ("path", "method", "statuses"),
    [
        ("/api/v1/closes", "post", REPORTING_STATUSES),
        ("/api/v1/closes/aws-apigateway", "post", REPORTING_STATUSES),
        ("/api/v1/openapi.json", "get", PAGE_STATUSES),
        ("/-/healthy", "get", PAGE_STATUSES),
    ],
)
def test_every_status_is_documented(path: str, method: str, statuses: list[int]) -> None:
    """Whatever is wrong with a request, its answer is one that the document knows."""
    assert sorted(DOCUMENT["paths"][path][method]["responses"]) == [str(status) for status in statuses]


def test_every_error_is_documented_under_its_status() -> None:
    """Each token that a report can be answered with is there, with its sentence; none is forgotten."""
    documented = set()
    for status, answer in CLOSES["responses"].items():
        assert answer["description"]
        if int(status) < 400 or status == "422":
            continue
        fields = answer["content"][JSON]["schema"]["properties"]
        for token, detail in zip(fields["error"]["enum"], fields["detail"]["enum"], strict=True):
            assert ERRORS_BY_TOKEN[token] == (int(status), detail)
            documented.add(token)
    assert documented == set(ERRORS_BY_TOKEN) - ELSEWHERE - (set(REJECTIONS) - {"invalid_json"})
    for token in REJECTIONS:
        assert f"`{token}`: {ERRORS[token].detail}" in CLOSES["responses"]["422"]["description"]


def test_retry_after_is_documented_where_it_comes() -> None:
    """Every status whose errors say when to try again says so in the document."""
    retried = {str(error.status) for token, error in ERRORS.items() if error.retry_after and token not in ELSEWHERE}
    documented = {
        status for status, answer in CLOSES["responses"].items() if "Retry-After" in answer.get("headers", {})
    }
    assert documented == retried


def test_an_error_without_a_sentence_is_noticed() -> None:
    """The document is not made from half a table."""
    with pytest.raises(KeyError, match="storage_full"):
        openapi("1", {token: error for token, error in ERRORS_BY_TOKEN.items() if token != "storage_full"})


@pytest.mark.parametrize(
    ("status", "answer"),
    [
        (200, {"accepted": 0, "duplicate": 0, "rejected": 0, "items": []}),
        (
            202,
            {
                "accepted": 998,
                "duplicate": 1,
                "rejected": 1,
                "items": [
                    {"index": 0, "result": "duplicate"},
                    {"index": 999, "result": "rejected", "error": "invalid_code"},
                ],
            },
        ),
        (
            422,
            {
                "error": "too_old",
                "detail": ERRORS["too_old"].detail,
                "accepted": 0,
                "duplicate": 0,
                "rejected": 1,
                "items": [{"index": 0, "result": "rejected", "error": "too_old"}],
            },
        ),
        (507, {"error": "storage_full", "detail": ERRORS["storage_full"].detail}),
    ],
)
def test_answers_are_as_documented(status: int, answer: dict[str, Any]) -> None:
    """The schema of each answer takes one, and nothing like it: without a field, or with another value of it."""
    schema = validator(CLOSES["responses"][str(status)]["content"][JSON]["schema"])
    assert schema.is_valid(answer)
    for name in answer:
        assert not schema.is_valid({key: value for key, value in answer.items() if key != name})
        assert not schema.is_valid({**answer, name: "?" if name != "detail" else 5})


def test_the_examples_are_events() -> None:
    """Whatever the document shows can be sent."""
    content = CLOSES["requestBody"]["content"]
    for example in content[JSON]["examples"].values():
        assert EVENT.is_valid(example["value"])
        assert not refused(outcome(json.dumps(example["value"]).encode()))
    assert not refused(outcome(content[NDJSON]["example"].encode(), NDJSON))
    for name, platform in PLATFORMS.items():
        content = DOCUMENT["paths"][f"/api/v1/closes/{name}"]["post"]["requestBody"]["content"]
        assert content[JSON]["example"] == platform.example
    assert AWS_EVENT.is_valid(PLATFORMS["aws-apigateway"].example)


def refused(items: list[Item] | str) -> bool:
    """Whether anything of a request is."""
    return isinstance(items, str) or any(isinstance(item, str) for item in items)


def taken(body: object, content_type: str, read: Callable[[bytes, str, Mapping[str, str]], Events]) -> bool:
    """Whether all of a request is taken."""
    try:
        return not refused(finish(read(json.dumps(body).encode(), content_type, {})))
    except BodyFault:
        return False


ANY: Final = st.none() | st.booleans() | st.integers(-2, 5001) | st.sampled_from([0.5, "", "x", "close", [], {}, 2**63])
SIZES: Final = st.sampled_from([None, 0, 1, 2**63 - 1, 2**63, -1, 0.5])
TIMES: Final = st.sampled_from(
    [
        None,
        0,
        -1,
        0.5,
        253_402_300_799_999,
        253_402_300_800_000,
        "2026-03-01T12:00:00Z",
        "2026-03-01T12:00:00.123456789+05:30",
        "2028-02-29t00:00:00z",
        "9999-12-31T23:59:59-23:59",
        "2026-02-29T00:00:00Z",
        "2026-03-01T12:00:00",
        "2026-03-01T12:00Z",
        "2026-03-01T24:00:00Z",
        "2026-12-31T23:59:60Z",
        "0000-01-01T00:00:00Z",
        "0001-01-01T00:00:00Z",
        "2026-03-01",
        "12:00:00Z",
        "1772366400",
        "\u0662026-03-01T12:00:00Z",
    ]
)
IDS: Final = st.sampled_from([None, "", "a", " ~", "a\n", "\x7f", "é", "i" * 256, "i" * 257])
FIELDS: Final = {
    "event": st.sampled_from(["close", "open", "Close", None]),
    "code": st.sampled_from([None, 0, 1000, 4999, 5000, -1, 0.5, True, "1000"]),
    "reason": st.sampled_from([None, "", "\x00", "r" * 1000, 5]),
    "initiator": st.sampled_from(["client", "server", "unknown", "exporter", None]),
    "target": st.sampled_from(["", "chat", None]),
    "id": IDS,
    "source": st.sampled_from(["", "s" * 256, "s" * 257, "\U0001f600" * 256, None]),
    "time": TIMES,
    "duration": st.sampled_from([None, 0, 0.5, 1e9, 1.1e9, -0.5, "1"]),
    "message_size": SIZES,
    "direction": st.sampled_from([None, "client_to_server", "server_to_client", "up"]),
    "largest_message": SIZES,
    "client": st.sampled_from([None, "c", 5]),
    "user_agent": st.sampled_from([None, "u", False]),
}
USUAL: Final[dict[str, st.SearchStrategy[Any]]] = {"code": st.sampled_from([1000, 1009])}


@st.composite
def near_events(draw: st.DrawFn) -> dict[str, Any]:
    """Events that are good but for a field or two."""
    event = draw(st.sampled_from([{**CLOSE}, {"code": 1009}, {"event": "open"}, {}]))
    names = draw(st.lists(st.sampled_from(sorted(FIELDS)), max_size=3, unique=True))
    changes = {name: draw(FIELDS[name] | ANY) for name in names}
    return {
        **event,
        **changes,
        **draw(st.just({}) | st.just({}) | st.dictionaries(st.text(max_size=3), ANY, max_size=1)),
    }


@settings(max_examples=500, deadline=None)
@given(near_events() | ANY | st.lists(near_events(), max_size=3))
def test_the_schema_and_the_decoder_agree_on_events(body: object) -> None:
    """An event is taken if and only if the schema allows it; and so is an array of them."""
    assert taken(body, JSON, decode) == EVENT.is_valid(body)


@st.composite
def near_cloudevents(draw: st.DrawFn) -> dict[str, Any]:
    """CloudEvents that are good but for a field or two."""
    changes = draw(
        st.fixed_dictionaries(
            {},
            optional={
                "specversion": st.sampled_from(["0.3", "1.1", None, 1.5]),
                "id": IDS,
                "source": st.sampled_from(["", "s" * 256, "s" * 257, None, "\U0001f600" * 256]),
                "type": st.sampled_from(["", None, "x"]),
                "time": TIMES,
                "data": near_events() | ANY,
                "datacontenttype": ANY,
                "subject": ANY,
            },
        )
    )
    event = {"specversion": "1.0", "id": "a", "source": "s", "type": "t", "data": {"code": 1000}, **changes}
    for name in draw(st.sampled_from([(), (), (), ("id",), ("data",), ("specversion",)])):
        del event[name]
    return event


def repeats_envelope(body: Any) -> bool:
    """Whether the data of a CloudEvent repeats its envelope's id or source, which a schema cannot allow."""
    if isinstance(body, list):
        return any(repeats_envelope(each) for each in body)
    if not isinstance(body, dict) or not isinstance(body.get("data"), dict):
        return False
    return any(body["data"].get(name) == body.get(name) is not None for name in ("id", "source"))


@settings(max_examples=500, deadline=None)
@given(near_cloudevents() | ANY)
def test_the_schema_and_the_decoder_agree_on_cloudevents(body: Any) -> None:
    """So too with CloudEvents, alone and in a batch, but for data that repeats its envelope's id or source."""
    assume(not repeats_envelope(body))
    assert taken(body, STRUCTURED, decode) == CLOUDEVENT.is_valid(body)
    assert taken([body], BATCHED, decode) == BATCH.is_valid([body])
    assert taken(body, BATCHED, decode) == BATCH.is_valid(body)


@st.composite
def near_aws_events(draw: st.DrawFn) -> object:
    """Requests of API Gateway that are good but for a field or two."""
    changes = draw(
        st.fixed_dictionaries(
            {},
            optional={
                "eventType": st.sampled_from(["CONNECT", "DISCONNECT", "MESSAGE", None]),
                "connectionId": IDS,
                "connectedAt": TIMES,
                "requestTimeEpoch": TIMES,
                "disconnectStatusCode": FIELDS["code"],
                "disconnectReason": ANY,
                "domainName": ANY,
                "stage": ANY,
                "identity": ANY | st.fixed_dictionaries({"userAgent": ANY}),
                "requestContext": ANY,
                "apiId": ANY,
            },
        )
    )
    context = {"eventType": "DISCONNECT", "connectionId": "a=", "disconnectStatusCode": 1001, **changes}
    for name in draw(st.sampled_from([(), (), (), ("eventType",), ("connectionId",), ("disconnectStatusCode",)])):
        del context[name]
    return draw(st.sampled_from([context, {"requestContext": context}, {"requestContext": context, **context}]))


@settings(max_examples=500, deadline=None)
@given(near_aws_events() | ANY | st.lists(near_aws_events(), max_size=2))
def test_the_schema_and_the_decoder_agree_on_platforms(body: object) -> None:
    """And with what a platform sends."""
    assert taken(body, JSON, PLATFORMS["aws-apigateway"].decode) == AWS_EVENT.is_valid(body)


def with_plain_integers(value: Any) -> Any:
    """A value with 5.0 spelled 5: JSON Schema sees no difference, but codes, sizes and times are written without."""
    if isinstance(value, dict):
        return {name: with_plain_integers(each) for name, each in value.items()}
    if isinstance(value, list):
        return [with_plain_integers(each) for each in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


JSON_TYPES: Final = (dict, list, str, int, float, bool, type(None))
READERS: Final = {"/api/v1/closes": decode, "/api/v1/closes/aws-apigateway": PLATFORMS["aws-apigateway"].decode}


@pytest.mark.parametrize("path", READERS)
@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_what_schemathesis_makes_of_the_document(path: str, mode: GenerationMode) -> None:
    """Requests made from the document are taken; those made to break it are not."""
    operation = schemathesis.openapi.from_dict(json.loads(json.dumps(DOCUMENT)))[path]["POST"]
    seen = 0

    def is_about_the_body(case: Case) -> bool:
        made = {location.name: component.mode for location, component in case.meta.components.items()}
        return made.get("BODY") == mode and case.media_type != NDJSON and isinstance(case.body, JSON_TYPES)

    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(case=operation.as_strategy(generation_mode=mode).filter(is_about_the_body))
    def sent(case: Case) -> None:
        nonlocal seen
        seen += 1
        body = with_plain_integers(case.body)
        assume(not repeats_envelope(body))
        assert taken(body, str(case.media_type), READERS[path]) == (mode == GenerationMode.POSITIVE)

    sent()
    assert seen > 5
