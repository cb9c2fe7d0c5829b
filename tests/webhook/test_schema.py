"""The schema that the webhook serves, held against what it does: requests made up from it, and around it."""

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any, Final

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    allow_header_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.support.reporting import OPENAPI, Desk, standing

CHECKS: Final = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    allow_header_conformance,
]
UNSPEAKABLE: Final = ("too_old", "invalid_code", "invalid_size", "invalid_time")
"""What a schema cannot say: how old is too old, and that a number like 1.0 is not whole."""
EXAMPLES: Final = (30, pytest.param(2000, marks=[pytest.mark.matrix, pytest.mark.timeout(900)]))


@pytest.fixture(scope="module")
def open_desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """An exporter that takes as many events as come, and stores them."""
    folder = tmp_path_factory.mktemp("open")
    with standing(folder, "--webhook.rate-limit=0", f"--storage.path={folder / 'state'}") as desk:
        yield desk


@pytest.fixture(scope="module")
def schema(open_desk: Desk) -> Any:
    with requests.get(f"http://{open_desk.address}{OPENAPI}", timeout=10) as answer:
        return schemathesis.openapi.from_dict(answer.json())


OPERATIONS: Final = ("POST /api/v1/closes", "POST /api/v1/closes/aws-apigateway")


@pytest.mark.parametrize("examples", EXAMPLES)
@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
@pytest.mark.parametrize("name", OPERATIONS)
def test_what_the_schema_says(open_desk: Desk, schema: Any, name: str, mode: GenerationMode, examples: int) -> None:
    """Whatever is posted, by the schema or not: the answer is one that it foresees, and no fault of the exporter."""
    method, path = name.split()
    operation = schema[path][method]
    base = f"http://{open_desk.address}"
    seen: Counter[tuple[int, str | None]] = Counter()

    with requests.Session() as session:

        @settings(
            max_examples=examples,
            deadline=None,
            derandomize=True,
            database=None,
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(generation_mode=mode))
        def check(case: Any) -> None:
            response = case.call(base_url=base, session=session)
            case.validate_response(response, checks=CHECKS)
            seen[response.status_code, response.json().get("error")] += 1

        check()
    if mode is GenerationMode.POSITIVE:
        assert seen.keys() <= {(200, None), *((422, token) for token in UNSPEAKABLE)}
        assert seen[200, None] > examples // 4
    else:
        assert seen.keys() - {(200, None), *((422, token) for token in UNSPEAKABLE)}


def test_every_operation_is_covered(schema: Any) -> None:
    """There are no other operations than those above and the two pages that anybody may read."""
    found = {result.ok().label for result in schema.get_all_operations()}
    assert set(OPERATIONS) <= found
    assert {label for label in found if label.startswith("POST")} == set(OPERATIONS)


def test_the_schema_is_sound(schema: Any) -> None:
    """It is valid OpenAPI, and its own examples are accepted."""
    schema.validate()


def test_its_examples(open_desk: Desk, schema: Any) -> None:
    """What the schema shows as an example is understood, whatever its age."""
    document = schema.raw_schema
    shown = 0
    for path in (name.split()[1] for name in OPERATIONS):
        for kind, content in document["paths"][path]["post"]["requestBody"]["content"].items():
            examples = [example["value"] for example in content.get("examples", {}).values()]
            examples += [content["example"]] if "example" in content else []
            for example in examples:
                body = example if isinstance(example, str) else json.dumps(example)
                with requests.post(
                    f"http://{open_desk.address}{path}", data=body, headers={"Content-Type": kind}, timeout=10
                ) as answer:
                    assert answer.status_code in (200, 422), (kind, body, answer.text)
                    if answer.status_code == 422:
                        assert answer.json()["error"] == "too_old", (kind, body, answer.text)
                    shown += 1
    assert shown > 0
