"""Responses to generated requests conform to the document."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, Final
from urllib.parse import quote

import pytest
import schemathesis
from hypothesis import given, settings
from hypothesis import strategies as st
from schemathesis.schemas import APIOperation

from tests.contract.description import FILES_CURSOR, JOBS_CURSOR, OPERATIONS, SCHEMA, assert_conforms
from tests.contract.service import COMPLETED, SAMPLES, Service

BOUNDED: Final = settings(max_examples=15, deadline=None, derandomize=True)
STREAM_S: Final = 4.0
"""Seconds after which a stream is cut off: that of an unfinished job has no end."""
ABOUT_JOBS: Final = [
    *("getJob", "headJob", "downloadOutput", "headOutput", "getLogs", "headLogs", "headJobEvents"),
    *("listFiles", "headFiles", "downloadFile", "headFile", "downloadTar", "headTar"),
    *("downloadZip", "headZip"),
]
FILE_NAME: Final = "opening-title.mp4"
WITH_LINKS: Final = [*ABOUT_JOBS, "createDownloadLink"]


def brief(case: schemathesis.Case[Any]) -> schemathesis.Case[Any]:
    """Limit waits to what a test allows, do not follow endless streams, and continue the right list."""
    if case.path.endswith("/files") and (case.query or {}).get("cursor") == JOBS_CURSOR:
        case.query["cursor"] = FILES_CURSOR
    for name in ("wait", "follow"):
        with suppress(ValueError):
            if float(str((case.query or {}).get(name, ""))) > 0:
                case.query[name] = "0"
    return case


# A stream of all jobs has no end.
@SCHEMA.exclude(operation_id="getEvents").parametrize()
@BOUNDED
def test_any_request_with_a_valid_token_is_answered_as_documented(
    case: schemathesis.Case[Any], service: Service
) -> None:
    """Invalid ids, fields of all kinds, other methods; a missing or wrong token gives no access."""
    limits: dict[str, Any] = {"timeout": STREAM_S} if case.path.endswith("/events") else {}
    headers = {"Authorization": f"Bearer {service.token}"}
    brief(case).call_and_validate(base_url=service.url, session=service.session, headers=headers, **limits)


@SCHEMA.include(path_regex="^/api/(jobs|events)").parametrize()
@BOUNDED
def test_any_request_without_a_valid_token_is_answered_as_documented(
    case: schemathesis.Case[Any], service: Service
) -> None:
    response = case.call(base_url=service.url, session=service.session)
    case.validate_response(response)
    assert response.status_code in {400, 401, 404, 405}


def path_of(operation: APIOperation[Any, Any, Any, Any], job_id: str) -> str:
    """Return the path of an operation for a job, and for its main output."""
    path = operation.path.replace("{id}", job_id).replace("{output}", "main")
    return path.replace("{path}", FILE_NAME).replace("{name}", FILE_NAME)


IDS: Final = sorted(record.parent.name for record in SAMPLES.rglob("status.json"))


@pytest.mark.parametrize("job_id", IDS)
@pytest.mark.parametrize("name", WITH_LINKS)
def test_each_sample_valid_or_broken_is_answered_as_documented(
    service: Service, name: str, job_id: str
) -> None:
    operation = OPERATIONS[name]
    response = service.ask(operation.method.upper(), path_of(operation, job_id))
    assert_conforms(name, response)
    assert response.status_code in {200, 201, 404, 409}


TAGS: Final = st.sampled_from(["*", '"x"', 'W/"x"', '"x", "y"', ",", '"', "x"])
DATES: Final = st.sampled_from(
    ["Sun, 06 Nov 1994 08:49:37 GMT", "Fri, 01 Jan 2100 00:00:00 GMT", "yesterday", "0"]
)
_RANGE: Final = r"([0-9]{1,6}-[0-9]{0,6}|-[0-9]{1,6})"
RANGES: Final = st.from_regex(f"bytes={_RANGE}(,{_RANGE}){{0,3}}", fullmatch=True) | st.sampled_from(
    ["bytes=0-", "bytes=-0", "bytes=5-2", "bytes=", "bytes=999999999-", "lines=1-2"]
)
FIELDS: Final = {
    "Range": RANGES,
    "If-Range": TAGS | DATES,
    "If-Match": TAGS,
    "If-None-Match": TAGS,
    "If-Modified-Since": DATES,
    "If-Unmodified-Since": DATES,
    "Want-Repr-Digest": st.sampled_from(["sha-256=1", "sha-256=0", "md5=5, sha-256=10", "sha-256", "="]),
    "Cache-Control": st.sampled_from(["no-cache", "max-age=0", "no-store, no-cache", "="]),
    "X-Request-Id": st.sampled_from(["portal-7f3a", "no good", "a" * 65]),
}


@settings(BOUNDED, max_examples=300)
@given(
    job_id=st.sampled_from(IDS),
    name=st.sampled_from(ABOUT_JOBS),
    fields=st.fixed_dictionaries({}, optional=FIELDS),
)
def test_sample_requested_with_any_condition_is_answered_as_documented(
    service: Service, job_id: str, name: str, fields: dict[str, str]
) -> None:
    operation = OPERATIONS[name]
    response = service.ask(operation.method.upper(), path_of(operation, job_id), fields)
    assert_conforms(name, response)
    assert response.status_code not in {400, 401, 403, 405, 429}


HOSTILE: Final = (
    *("..", ".", "...", "%2e%2e", "..%2f", "%2e%2e%2f%2e%2e%2fetc%2fpasswd", "..%5c..", "%2F", "%2e" * 300),
    *("a%2Fb", "a%252Fb", f"{COMPLETED}%2f", f"{COMPLETED}%2fstatus.json", f"%2e%2f{COMPLETED}"),
    *("%00", f"{COMPLETED}%00", f"{COMPLETED}%20", f"%20{COMPLETED}", f"{COMPLETED}.", f"{COMPLETED}%0a"),
    *("%0d%0aX-Evil:%201", "%ff%fe", "%ed%a0%80", "%C3%A4", "%EF%BC%8E%EF%BC%8E", "%E2%80%AE", "%", "%z"),
    *("%u002e", "{id}", "%7Bid%7D", "a;b", "a,b", "a=b", "*", "~", "~root", "$HOME", "`id`", "'", "%22"),
    *("<b>", "|", "\\", ".hidden", ".jobsvc-x", "-rf", "-", "_x", "not%20an%20id", COMPLETED.upper()),
    *("status.json", "outside.txt", "con", "x" * 128, "x" * 129, "x" * 7000, "x" * 10_000, "%25" * 1000),
)


@pytest.mark.parametrize("name", WITH_LINKS)
@pytest.mark.parametrize("hostile", HOSTILE, ids=lambda text: text[:40])
def test_hostile_id_is_an_unknown_job(service: Service, name: str, hostile: str) -> None:
    operation = OPERATIONS[name]
    response = service.ask(operation.method.upper(), path_of(operation, hostile))
    assert_conforms(name, response)
    assert response.status_code == (404 if len(hostile) < 8000 else 414)


@settings(BOUNDED, max_examples=200)
@given(raw=st.binary(min_size=1, max_size=200))
def test_id_of_any_bytes_is_answered_as_documented(service: Service, raw: bytes) -> None:
    response = service.ask("GET", f"/api/jobs/{quote(raw, safe='')}")
    assert_conforms("getJob", response)
    assert response.status_code == 404
