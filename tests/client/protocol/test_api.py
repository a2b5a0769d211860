"""Operations of single requests."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from jobsvc.client.errors import JobNotFound, UnexpectedResponse
from jobsvc.client.protocol import api
from jobsvc.client.protocol.api import create_link, get_job, get_token_info, list_files, list_jobs
from tests.client.protocol.test_documents import FILE
from tests.client.scripted_service import Clock, ScriptedService, html, job, json_response, problem

BASE = "https://farm.example.com/render"


def page(*ids: str, cursor: str | None = None) -> object:
    return {"jobs": [job(job_id) for job_id in ids], "nextCursor": cursor}


def test_list_follows_the_cursor(clock: Clock) -> None:
    service = ScriptedService(
        clock,
        json_response(page("a", "b", cursor="c/1")),
        json_response(page(cursor="c2")),
        json_response(page("c")),
    )
    service.run(list_jobs(0, status=["failed", "canceled"], updated_since=datetime(2026, 1, 1, tzinfo=UTC)))
    assert [each.id for each in service.emitted] == ["a", "b", "c"]
    query = "/api/jobs?status=failed&status=canceled&updatedSince=2026-01-01T00%3A00%3A00%2B00%3A00&limit=200"
    assert service.targets == [query, f"{query}&cursor=c%2F1", f"{query}&cursor=c2"]


def test_list_ends_at_the_limit_without_another_request(clock: Clock) -> None:
    first = json_response(page(*(f"job-{n}" for n in range(200)), cursor="x"))
    service = ScriptedService(clock, first, json_response(page("y", "z", cursor="more")))
    service.run(list_jobs(0, limit=201))
    assert len(service.emitted) == 201
    assert service.targets == ["/api/jobs?limit=200", "/api/jobs?limit=1&cursor=x"]


def test_limit_of_zero_needs_no_request(clock: Clock) -> None:
    service = ScriptedService(clock)
    service.run(list_jobs(0, limit=0))
    assert service.emitted == []


def test_list_of_a_service_that_has_just_started_is_retried(clock: Clock) -> None:
    starting = problem("storage-unavailable", 503, retry_after="2")
    service = ScriptedService(clock, starting, starting, json_response(page("a")))
    service.run(list_jobs(5))
    assert [each.id for each in service.emitted] == ["a"]
    assert all(2 <= seconds <= 2.2 for seconds in service.sleeps)


def test_list_that_leads_in_a_circle_is_an_error(clock: Clock) -> None:
    pages = [json_response(page("a", cursor=cursor)) for cursor in ("x", "y", "x")]
    with pytest.raises(UnexpectedResponse, match="does not advance"):
        ScriptedService(clock, *pages).run(list_jobs(0))


def test_list_of_empty_pages_is_an_error(clock: Clock) -> None:
    pages = [json_response(page(cursor=f"c{number}")) for number in range(101)]
    with pytest.raises(UnexpectedResponse, match="does not advance"):
        ScriptedService(clock, *pages).run(list_jobs(0))


def test_list_that_does_not_advance_is_an_error(clock: Clock) -> None:
    service = ScriptedService(clock, *[json_response(page("a", cursor="x"))] * 2)
    with pytest.raises(UnexpectedResponse, match="does not advance"):
        service.run(list_jobs(0))


def test_time_without_a_zone_is_refused(clock: Clock) -> None:
    with pytest.raises(ValueError, match="time zone"):
        ScriptedService(clock).run(list_jobs(0, updated_since=datetime(2026, 1, 1)))  # noqa: DTZ001


def test_job_has_its_etag(clock: Clock) -> None:
    service = ScriptedService(clock, json_response(job("a b/ü"), etag='"e1"'))
    found = service.run(get_job(0, "a b/ü"))
    assert found is not None
    assert (found.id, found.etag) == ("a b/ü", '"e1"')
    assert service.targets == ["/api/jobs/a%20b%2F%C3%BC"]
    assert service.requests[0].headers == {}


def test_fresh_job_is_read_from_disk(clock: Clock) -> None:
    service = ScriptedService(clock, json_response(job()))
    service.run(get_job(0, "job-1", fresh=True))
    assert service.requests[0].headers == {"cache-control": "no-cache"}


def test_missing_job(clock: Clock) -> None:
    with pytest.raises(JobNotFound):
        ScriptedService(clock, problem("job-not-found", 404)).run(get_job(5, "job-1"))


def test_files_are_requested_in_large_pages(clock: Clock) -> None:
    service = ScriptedService(
        clock,
        json_response({"files": [FILE], "nextCursor": "n"}),
        json_response({"files": [FILE], "nextCursor": None}),
    )
    service.run(list_files(0, "job-1", output=["beauty", "main"]))
    assert [each.path for each in service.emitted] == [FILE["path"]] * 2
    query = "/api/jobs/job-1/files?output=beauty&output=main&limit=1000"
    assert service.targets == [query, f"{query}&cursor=n"]
    assert service.requests[0].headers == {}


def test_digests_of_files_are_requested(clock: Clock) -> None:
    service = ScriptedService(clock, json_response({"files": [], "nextCursor": None}))
    service.run(list_files(0, "job-1", want_digests=True))
    assert service.requests[0].headers == {"want-repr-digest": "sha-256=1"}


@pytest.mark.parametrize(
    ("url", "absolute"),
    [
        (
            "https://cdn.example.com/api/jobs/job-1/download/x?sig=1",
            "https://cdn.example.com/api/jobs/job-1/download/x?sig=1",
        ),
        ("download/film.mp4?sig=1", f"{BASE}/api/jobs/job-1/download/film.mp4?sig=1"),
    ],
)
def test_link_is_absolute(clock: Clock, url: str, absolute: str) -> None:
    service = ScriptedService(
        clock, json_response({"id": "0f", "url": url, "expiresAt": "2026-11-30T11:00:00Z"}, 201)
    )
    link = service.run(create_link(0, BASE, "job-1", expires_in=60, file="beauty/beauty.1001.exr"))
    assert link is not None
    assert link.url == absolute
    assert link.expires_at == datetime(2026, 11, 30, 11, tzinfo=UTC)
    (request,) = service.requests
    assert (request.method, request.target) == ("POST", "/api/jobs/job-1/download-links")
    assert json.loads(request.body or b"") == {"expiresIn": 60, "file": "beauty/beauty.1001.exr"}


def test_link_that_is_no_url_is_an_error(clock: Clock) -> None:
    service = ScriptedService(
        clock, json_response({"id": "0f", "url": "http://[", "expiresAt": "2026-11-30T11:00:00Z"})
    )
    with pytest.raises(UnexpectedResponse, match="not a URL"):
        service.run(create_link(0, BASE, "job-1"))


def test_token_info_of_another_server_is_an_error(clock: Clock) -> None:
    with pytest.raises(UnexpectedResponse):
        ScriptedService(clock, html(200)).run(get_token_info(5))
    with pytest.raises(UnexpectedResponse, match="scopes"):
        ScriptedService(clock, json_response({"id": "t", "owner": "anna"})).run(get_token_info(5))


def test_list_of_files_that_does_not_end_is_an_error(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "MAX_FILES", 2)
    pages = [json_response({"files": [FILE], "nextCursor": f"c{number}"}) for number in range(3)]
    service = ScriptedService(clock, *pages)
    with pytest.raises(UnexpectedResponse, match="more than 2 files"):
        service.run(list_files(0, "job-1"))
    assert len(service.emitted) == 2
