"""JSON of the service, and of anything else, as models."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobsvc.client.errors import UnexpectedResponse
from jobsvc.client.models import Output
from jobsvc.client.protocol.documents import parse_object, to_file, to_job, to_link, to_token_info
from tests.client.scripted_service import job

FILE: dict[str, Any] = {
    "output": "beauty",
    "path": "beauty.1001.exr",
    "frame": 1001,
    "size": 12,
    "modifiedAt": "2026-11-30T10:00:00.250Z",
    "contentType": "image/x-exr",
    "etag": '"v1"',
    "downloadUrl": "/api/x",
}
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


def test_job() -> None:
    outputs = [{"name": "main", "role": "main", "kind": "file", "size": 3, "contentType": "video/mp4"}]
    document = job(status="failed", progress=12.5, error="No licence.", outputs=outputs)
    found = to_job(document, '"e1"')
    assert (found.id, found.status, found.progress, found.etag, found.done) == (
        "job-1",
        "failed",
        12.5,
        '"e1"',
        True,
    )
    assert found.created_at == datetime(2026, 11, 30, 10, tzinfo=UTC)
    assert found.error == "No licence."
    assert found.outputs == (Output("main", "main", "file", 3, "video/mp4"),)


def test_file() -> None:
    found = to_file("job-1", {**FILE, "sha256": "ab" * 32})
    assert (found.job_id, found.path, found.frame, found.size, found.etag, found.sha256) == (
        "job-1",
        "beauty.1001.exr",
        1001,
        12,
        '"v1"',
        "ab" * 32,
    )
    assert found.modified_at == datetime(2026, 11, 30, 10, 0, 0, 250_000, tzinfo=UTC)


def test_frame_and_digest_of_a_file_may_be_absent() -> None:
    found = to_file("job-1", {name: value for name, value in FILE.items() if name != "frame"})
    assert (found.frame, found.sha256) == (None, None)


def test_token() -> None:
    document = {"id": "t", "owner": "anna", "scopes": ["jobs:read"], "label": None, "expiresAt": None}
    found = to_token_info(document)
    assert (found.id, found.scopes, found.label, found.expires_at) == ("t", ("jobs:read",), None, None)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-11-30T10:00:00Z", datetime(2026, 11, 30, 10, tzinfo=UTC)),
        ("2026-11-30T12:00:00.5+02:00", datetime(2026, 11, 30, 10, 0, 0, 500_000, tzinfo=UTC)),
        ("2026-11-30T10:00:00.123456789Z", datetime(2026, 11, 30, 10, 0, 0, 123_456, tzinfo=UTC)),
        ("2016-12-31T23:59:60Z", datetime(2017, 1, 1, tzinfo=UTC) - timedelta(microseconds=1)),
    ],
)
def test_times(text: str, moment: datetime) -> None:
    assert to_job(job(createdAt=text)).created_at == moment


@pytest.mark.parametrize("text", ["", "2026-11-30", "2026-11-30T10:00:00", "yesterday", 5, None])
def test_time_without_a_zone_is_not_of_the_service(text: object) -> None:
    with pytest.raises(UnexpectedResponse, match="createdAt"):
        to_job(job(createdAt=text))


@pytest.mark.parametrize("name", ["id", "status", "progress", "createdAt", "updatedAt"])
@pytest.mark.parametrize("value", [None, [], True])
def test_wrong_member_of_a_job_is_named(name: str, value: object) -> None:
    with pytest.raises(UnexpectedResponse, match=name):
        to_job(job() | {name: value})


@pytest.mark.parametrize("name", ["output", "path", "size", "modifiedAt", "contentType", "etag"])
def test_missing_member_of_a_file_is_named(name: str) -> None:
    with pytest.raises(UnexpectedResponse, match=name):
        to_file("job-1", {each: value for each, value in FILE.items() if each != name})


@pytest.mark.parametrize(
    "outputs",
    [
        {},
        ["main"],
        [{"name": "main"}],
        [{"name": 1, "role": "a", "kind": "b"}],
        [{"name": "main", "role": "a", "kind": "b", "size": "1"}],
        [{"name": "main", "role": "a", "kind": "b", "contentType": 1}],
    ],
)
def test_wrong_outputs_are_found_at_once(outputs: object) -> None:
    with pytest.raises(UnexpectedResponse):
        to_job(job(outputs=outputs))


@given(
    st.dictionaries(st.sampled_from(sorted({*job(), *FILE, "outputs", "scopes", "url", "owner"})), ANYTHING)
)
def test_any_object_is_converted_or_unexpected(document: dict[str, Any]) -> None:
    for convert in (to_job, lambda it: to_file("job-1", it), to_link, to_token_info):
        with suppress(UnexpectedResponse):
            convert(document)


@pytest.mark.parametrize(
    "data", [b"", b"null", b"[]", b"\xff", b"<html>", b"[" * 100_000, b'{"a":' + b"9" * 5000]
)
def test_other_texts_are_unexpected(data: bytes) -> None:
    with pytest.raises(UnexpectedResponse):
        parse_object(data)


@pytest.mark.parametrize("progress", [10**400, -(10**30), float("nan"), float("inf")])
def test_progress_that_is_no_number_of_percent_is_unexpected(progress: float) -> None:
    with pytest.raises(UnexpectedResponse, match="progress"):
        to_job(job(progress=progress))


@pytest.mark.parametrize("size", [-1, 1 << 63, 10**400])
def test_size_that_no_file_can_have_is_unexpected(size: int) -> None:
    with pytest.raises(UnexpectedResponse, match="size"):
        to_file("job-1", {**FILE, "size": size})


@pytest.mark.parametrize("etag", ['"a\r\nX-Other: 1"', '"\x00"', '"\u0100"'])
def test_entity_tag_that_no_header_can_have_is_unexpected(etag: str) -> None:
    with pytest.raises(UnexpectedResponse, match="etag"):
        to_file("job-1", {**FILE, "etag": etag})
