"""
`/openapi.json` against the server: generated requests, good and bad, find no 500 and no
answer that the document does not know.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    ignored_auth,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from holdfast.gateway.app import API
from holdfast.gateway.openapi import document
from support.serving import Served

SCHEMA = schemathesis.openapi.from_dict(document())
OPERATIONS = {found.ok().label: found.ok() for found in SCHEMA.get_all_operations()}
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    unsupported_method,
    ignored_auth,
]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    state = tmp_path_factory.mktemp("openapi") / "state"
    with Served(state) as server:
        with server.client() as http:
            http.post("/v1/sessions/main/messages", params={"wait": 20}, json={"text": "hello"})
        yield server


def cases() -> Iterator[Any]:
    for label, operation in OPERATIONS.items():
        yield pytest.param(label, GenerationMode.POSITIVE, id=f"{label}-good")
        takes = operation.definition.raw
        if takes["parameters"] or "requestBody" in takes:
            yield pytest.param(label, GenerationMode.NEGATIVE, id=f"{label}-bad")


@pytest.mark.parametrize(("label", "mode"), [*cases()])
def test_no_answer_is_undocumented(served: Served, label: str, mode: GenerationMode) -> None:
    """With what the document allows, and with what it does not."""

    asked: list[str] = []

    @given(case=OPERATIONS[label].as_strategy(generation_mode=mode))
    @settings(
        max_examples=30,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
    )
    def ask(case: Any) -> None:
        asked.append(label)
        if label == "GET /v1/events" and isinstance(case.query.get("wait"), int | float):
            case.query["wait"] = min(case.query["wait"], 0.1)  # Nobody writes any.
        case.call_and_validate(
            base_url=served.url, headers=served.headers, timeout=30, checks=CHECKS
        )

    ask()
    assert asked


def test_the_document_is_valid_and_knows_every_operation() -> None:
    assert len(OPERATIONS) == len(API)
    for label in ("POST /v1/chat/completions", "GET /v1/turns/{turn_id}/events"):
        assert label in OPERATIONS
