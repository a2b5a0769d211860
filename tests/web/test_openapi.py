"""The OpenAPI document is complete, valid, and uses the same names as the code.

tests/contract checks that the running service conforms to it.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any, Final

import jsonschema_rs
import orjson
import pytest
from schemathesis.specs.openapi.definitions import OPENAPI_31_VALIDATOR

import jobsvc
from jobsvc.domain.access import SCOPES
from jobsvc.domain.job import Status
from jobsvc.domain.status_record import parse_record
from jobsvc.domain.timestamp import format_time
from jobsvc.service import build_app
from jobsvc.settings import Settings
from jobsvc.storage.files.file_version import FileVersion
from jobsvc.storage.jobs.snapshot import JobSnapshot
from jobsvc.web.auth.signed_links import _QUERY
from jobsvc.web.jobs.representation import render_job
from jobsvc.web.problems import CODES, internal_error

FILE: Final = Path(jobsvc.__file__).parent / "web" / "openapi.json"
DOCUMENT: Final[dict[str, Any]] = orjson.loads(FILE.read_bytes())
BINARY: Final = ("Output", "OutputPart", "Archive", "ArchivePart")
LINKED: Final = (
    "/api/jobs/{id}/download/{name}",
    "/api/jobs/{id}/files/{output}/{path}",
    "/api/jobs/{id}/archive.tar",
    "/api/jobs/{id}/archive.zip",
)
"""Paths that links lead to."""
WITH_RANGES: Final = (
    *LINKED,
    "/api/jobs/{id}/download",
    "/api/jobs/{id}/files/{output}",
    "/api/jobs/{id}/logs",
)
COMPONENTS: Final[dict[str, dict[str, Any]]] = DOCUMENT["components"]


def nodes(of: Any, at: str = "#") -> Iterator[tuple[str, Any]]:
    """Walk the document: each value with its JSON pointer."""
    yield at, of
    children = of if isinstance(of, dict) else dict(enumerate(of)) if isinstance(of, list) else {}
    for key, value in children.items():
        yield from nodes(value, f"{at}/{str(key).replace('~', '~0').replace('/', '~1')}")


def resolved(of: Any) -> Any:
    """Follow a reference to its target."""
    while isinstance(of, dict) and "$ref" in of:
        pointer, of = of["$ref"], DOCUMENT
        for part in pointer.removeprefix("#/").split("/"):
            of = of[part.replace("~1", "/").replace("~0", "~")]
    return of


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield path, method in capitals, and operation."""
    for path, item in DOCUMENT["paths"].items():
        for method in item.keys() - {"parameters"}:
            yield path, method.upper(), item[method]


def validator(schema: dict[str, Any]) -> jsonschema_rs.Draft202012Validator:
    return jsonschema_rs.Draft202012Validator({"components": COMPONENTS, **schema}, validate_formats=True)


def examples() -> Iterator[tuple[str, dict[str, Any], Any]]:
    """Yield the location of each example, its schema and its value."""
    for at, node in nodes(DOCUMENT):
        if isinstance(node, dict) and "schema" in node:
            if "example" in node:
                yield f"{at}/example", node["schema"], node["example"]
            for name, example in node.get("examples", {}).items():
                yield f"{at}/examples/{name}", node["schema"], resolved(example)["value"]


def schemas() -> Iterator[tuple[str, dict[str, Any]]]:
    for name, schema in COMPONENTS["schemas"].items():
        yield f"#/components/schemas/{name}", schema
    for at, node in nodes(DOCUMENT):
        if isinstance(node, dict) and isinstance(node.get("schema"), dict):
            yield f"{at}/schema", node["schema"]


def test_document_is_openapi_3_1() -> None:
    assert [error.message for error in OPENAPI_31_VALIDATOR.iter_errors(DOCUMENT)] == []
    assert DOCUMENT["openapi"].startswith("3.1.")


@pytest.mark.parametrize(("at", "schema"), [pytest.param(*found, id=found[0]) for found in schemas()])
def test_each_schema_is_json_schema_2020_12(at: str, schema: dict[str, Any]) -> None:
    jsonschema_rs.meta.validate({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema})


def test_each_reference_resolves_and_each_component_is_used() -> None:
    found = {node["$ref"] for _, node in nodes(DOCUMENT) if isinstance(node, dict) and "$ref" in node}
    there = {
        f"#/components/{kind}/{name}"
        for kind, named in COMPONENTS.items()
        for name in named
        if kind != "securitySchemes"
    }
    assert found == there


@pytest.mark.parametrize(("schema", "value"), [pytest.param(*found[1:], id=found[0]) for found in examples()])
def test_each_example_is_valid(schema: dict[str, Any], value: Any) -> None:
    assert [error.message for error in validator(schema).iter_errors(value)] == []


def test_each_schema_in_use_has_an_example() -> None:
    bare = {
        at
        for at, node in nodes(DOCUMENT)
        if isinstance(node, dict)
        and isinstance(node.get("schema"), dict)
        and not ("example" in node or "examples" in node)
    }
    octets = {f"#/components/responses/{name}/content/application~1octet-stream" for name in BINARY}
    assert bare == {"#/components/responses/Description/content/application~1json", *octets}


def test_client_generator_finds_a_type_for_each_successful_response() -> None:
    """openapi-python-client takes the first media type that it knows and does not match wildcards."""
    for name, response in COMPONENTS["responses"].items():
        if not (content := response.get("content")):
            continue
        media_type, media = next(iter(content.items()))
        assert "schema" in media, name
        assert "*" not in media_type, name


def test_bytes_are_described_as_binary_and_streams_as_text() -> None:
    for name in BINARY:
        schema = resolved(COMPONENTS["responses"][name]["content"]["application/octet-stream"]["schema"])
        assert (schema["type"], schema["format"]) == ("string", "binary")
    for name in ("Log", "JobEvents", "Events"):
        schema = resolved(COMPONENTS["responses"][name]["content"]["text/event-stream"]["schema"])
        assert {"type": "string"} in schema["anyOf"]


def test_unknown_member_or_wrong_type_is_invalid() -> None:
    good = COMPONENTS["examples"]["JobRendering"]["value"]
    check = validator({"$ref": "#/components/schemas/Job"})
    assert check.is_valid(good)
    for wrong in (
        {"user": "demo"},
        {"owner": None},
        {"progress": "42"},
        {"progress": 101},
        {"createdAt": "yesterday"},
    ):
        assert not check.is_valid(good | wrong)
    for name in COMPONENTS["schemas"]["Job"]["required"]:
        assert not check.is_valid({key: value for key, value in good.items() if key != name})


def test_routes_equal_those_of_the_service(tmp_path: Path) -> None:
    app = build_app(Settings(tmp_path, state_dir=tmp_path))
    served = {(route.resource.canonical, route.method) for route in app.router.routes() if route.resource}
    page = {(path, method) for path in ("/", "/ui/{version}/{path}") for method in ("GET", "HEAD")}
    assert served >= page  # for people: tests/web/endpoints/test_page.py
    assert {(path, method) for path, method, _ in operations()} == served - page


def test_problem_codes_equal_those_of_the_service() -> None:
    assert COMPONENTS["schemas"]["ProblemCode"]["enum"] == list(CODES)


def test_each_code_has_an_example_with_the_text_of_the_service() -> None:
    problems = [example["value"] for example in COMPONENTS["examples"].values() if "code" in example["value"]]
    assert {problem["code"] for problem in problems} == CODES.keys()
    for problem in problems:
        code = problem["code"]
        assert problem["type"] == f"urn:jobsvc:problem:{code}"
        assert problem["title"] == CODES[code].title
        # HTTP has its own statuses for some kinds of bad requests.
        special = code == "bad-request" and problem["status"] == 417
        assert problem["status"] == CODES[code].status or special


def test_each_problem_response_lists_its_status_and_codes_with_examples() -> None:
    documented = set()
    for _, method, operation in operations():
        for status, reference in operation["responses"].items() if method != "HEAD" else ():
            content = resolved(reference).get("content", {}).get("application/problem+json")
            assert (content is not None) == (int(status) >= 400)
            if content is not None:
                own = content["schema"]["properties"]
                assert own["status"] == {"const": int(status)}
                shown = [resolved(example)["value"]["code"] for example in content["examples"].values()]
                assert shown == own["code"]["enum"]
                documented.update(shown)
    assert documented == CODES.keys()


def test_internal_error_is_answered_as_documented() -> None:
    body = orjson.loads(internal_error().text or "")
    shown = COMPONENTS["examples"]["internal"]["value"]
    assert body | {"requestId": shown["requestId"]} == shown


def test_head_is_documented_wherever_get_is() -> None:
    answers = {(path, method): operation["responses"] for path, method, operation in operations()}
    for path in (path for path, method in answers if method == "GET"):
        get, head = answers[path, "GET"], answers[path, "HEAD"]
        if path in WITH_RANGES:  # HEAD has no ranges and uses no slot
            get = get | {"429": head["429"]}
            del get["206"], get["416"]
        assert head.keys() == get.keys()
        for status, reference in get.items():
            # With content, a generated client would parse the body that a response to HEAD does not have.
            described = resolved(reference)
            assert resolved(head[status]) == {key: described[key] for key in ("description", "headers")}


def test_each_operation_has_a_name_of_its_own_a_summary_and_a_known_tag() -> None:
    every = [operation for _, _, operation in operations()]
    assert len({operation["operationId"] for operation in every}) == len(every)
    assert all(operation["summary"] for operation in every)
    known = {tag["name"] for tag in DOCUMENT["tags"]}
    assert {tag for operation in every for tag in operation["tags"]} == known


def test_job_routes_need_a_scope_and_service_routes_need_no_token() -> None:
    for path, method, operation in operations():
        if path == "/api/me" or (path, method) == ("/ui/session", "POST"):
            assert operation["security"] == [{"token": []}]
        elif path.startswith(("/api/jobs", "/api/events")):
            (scope,) = operation["security"][0]["token"]
            assert scope in SCOPES
            link: list[dict[str, list[str]]] = [{"linkToken": [], "linkExpires": [], "linkSignature": []}]
            assert operation["security"][1:] == (link if path in LINKED else [])
            assert operation["responses"].keys() >= {"401", "403"}
        else:
            assert operation["security"] == []


def test_each_response_has_the_request_id() -> None:
    for answer in COMPONENTS["responses"].values():
        assert answer["headers"]["X-Request-Id"] == {"$ref": "#/components/headers/RequestId"}


def test_job_has_the_members_of_the_service_in_the_same_order() -> None:
    record: dict[str, Any] = {"owner": "anna", "status": "done", "metadata": {"a": []}}
    record |= dict.fromkeys(("projectPath", "outputPath", "error", "phase"), "text")
    record |= dict.fromkeys(("progress", "framesDone", "framesTotal", "attempt"), 1)
    record |= dict.fromkeys(
        ("createdAt", "updatedAt", "startedAt", "completedAt", "estimatedCompletionAt"),
        "2026-11-20T09:12:30Z",
    )
    job = parse_record("job-1", record, 0)
    snapshot = JobSnapshot(job, FileVersion(0, 0, 0, 0), FileVersion(0, 0, 0, 0), is_stable=True)
    rendered = render_job(snapshot, "job-1/", "l", bytes(32), stalled=True, with_outputs=True)
    document = orjson.loads(orjson.dumps(rendered))
    described = COMPONENTS["schemas"]["Job"]
    assert list(described["properties"]) == [*document, "owner"]  # only for `admin` tokens
    assert validator(described).is_valid(orjson.loads(orjson.dumps(document)))

    bare = parse_record("job-1", {"owner": "anna", "status": "queued"}, 0)
    snapshot = JobSnapshot(bare, FileVersion(0, 0, 0, 0), output=None, is_stable=True)
    document = render_job(snapshot, "job-1/", with_outputs=True)
    assert described["required"] == list(document)
    assert validator(described).is_valid(document)


def test_example_of_a_link_is_valid_and_its_lifetime_is_consistent() -> None:
    link = COMPONENTS["examples"]["Link"]["value"]
    path, _, text = link["url"].partition("?")
    assert path == "/api/jobs/opening-title-0042/download/opening-title.mp4"
    match = _QUERY.fullmatch(text)
    assert match is not None
    assert format_time(int(match[3]) * 1000) == link["expiresAt"]


def test_states_equal_those_of_the_service_and_each_has_an_example() -> None:
    assert COMPONENTS["schemas"]["Status"]["enum"] == [status.value for status in Status]
    jobs = [example["value"] for name, example in COMPONENTS["examples"].items() if name.startswith("Job")]
    assert {job["status"] for job in jobs} == set(Status)


def test_version_equals_that_of_the_package() -> None:
    assert DOCUMENT["info"]["version"] == jobsvc.__version__


def test_document_is_readable_by_people() -> None:
    lines = FILE.read_text().splitlines()
    assert not any("\t" in line or line != line.rstrip() for line in lines)
    assert all((len(line) - len(line.lstrip())) % 2 == 0 for line in lines)
    prose = chain.from_iterable(node.items() for _, node in nodes(DOCUMENT) if isinstance(node, dict))
    long = {key for key, value in prose if isinstance(value, str) and len(value) > 300}
    assert long <= {"description", "logs"}
