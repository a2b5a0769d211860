"""The OpenAPI document, and the validation of responses against it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import orjson
import requests
import schemathesis
from schemathesis.checks import not_a_server_error
from schemathesis.config import SchemathesisConfig
from schemathesis.core.result import Ok
from schemathesis.schemas import APIOperation
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

import jobsvc

FILE: Final = Path(jobsvc.__file__).parent / "web" / "openapi.json"
DOCUMENT: Final[dict[str, Any]] = orjson.loads(FILE.read_bytes())
EXAMPLES: Final[dict[str, dict[str, Any]]] = DOCUMENT["components"]["examples"]

# A well-formed request may still have a false condition, or a range beyond the end of the file.
_ACCEPTED: Final = ["2xx", "304", "401", "403", "404", "409", "412", "416"]

JOBS_CURSOR: Final = EXAMPLES["Page"]["value"]["nextCursor"]
FILES_CURSOR: Final = DOCUMENT["components"]["parameters"]["FilesCursor"]["example"]

SCHEMA: Final = schemathesis.openapi.from_dict(
    DOCUMENT,
    config=SchemathesisConfig.from_dict(
        {
            "checks": {"positive_data_acceptance": {"expected-statuses": _ACCEPTED}},
            # Invented cursors are a 400, and so is a range of frames that ends before it begins.
            "parameters": {"query.cursor": JOBS_CURSOR, "query.frames": "1001-1100"},
            "seed": 1,
        }
    ),
)


def _operations() -> Iterator[tuple[str, APIOperation[Any, Any, Any, Any]]]:
    for result in SCHEMA.get_all_operations():
        assert isinstance(result, Ok)
        operation = result.ok()
        yield operation.definition.raw["operationId"], operation


OPERATIONS: Final = dict(_operations())
"""By operationId."""


def assert_conforms(name: str, response: requests.Response, *, server_error: bool = False) -> None:
    """Fail if a response's status, media type, fields or body is not as the operation describes."""
    checks = [
        status_code_conformance,
        content_type_conformance,
        response_headers_conformance,
        response_schema_conformance,
    ]
    if not server_error:
        checks.append(not_a_server_error)
    operation = OPERATIONS[name]
    case = operation.Case(path_parameters=dict.fromkeys(re.findall(r"\{(\w+)\}", operation.path), "any"))
    case.validate_response(response, checks)
