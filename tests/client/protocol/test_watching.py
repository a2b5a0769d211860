"""Following changes of jobs."""

from __future__ import annotations

from typing import Any

import pytest

from jobsvc.client.errors import ConnectionFailed, JobNotFound, Unauthorized
from jobsvc.client.models import JobChanged, JobRemoved
from jobsvc.client.protocol.watching import watch
from tests.client.scripted_service import (
    Clock,
    ScriptedService,
    ScriptedStream,
    changed,
    event,
    event_stream,
    html,
    job,
    json_response,
    listed,
    listed_partly,
    problem,
    removed,
)

LOST = ConnectionFailed("lost")
MISSING = problem("job-not-found", 404)


def watched(service: ScriptedService, *job_ids: str, items: int | None = None, **options: Any) -> list[str]:
    """Return what is emitted as `id status`, or `-id`."""
    service.run(watch(job_ids, **options), items=items)
    result = []
    for item in service.emitted:
        assert isinstance(item, JobChanged | JobRemoved)
        result.append(
            f"-{item.job_id}" if isinstance(item, JobRemoved) else f"{item.job.id} {item.job.status}"
        )
    return result


def one(status: str, etag: str, **members: Any) -> bytes:
    return event("job", job(status=status, **members), etag)


def test_one_job_is_watched_until_it_is_final(clock: Clock) -> None:
    stream = event_stream(one("queued", "e1"), one("rendering", "e2"), one("completed", "e3"))
    service = ScriptedService(clock, stream)
    assert watched(service, "job-1") == ["job-1 queued", "job-1 rendering", "job-1 completed"]
    assert service.targets == ["/api/jobs/job-1/events"]


def test_reconnect_repeats_no_state(clock: Clock) -> None:
    service = ScriptedService(
        clock,
        event_stream(one("queued", "e1"), LOST),
        html(502),
        event_stream(one("queued", "e1"), one("rendering", "e2"), LOST),
        ScriptedStream(204, {}, []),
    )
    assert watched(service, "job-1") == ["job-1 queued", "job-1 rendering"]
    assert [request.headers.get("last-event-id") for request in service.requests] == [None, "e1", "e1", "e2"]


def test_one_job_that_is_missing(clock: Clock) -> None:
    with pytest.raises(JobNotFound, match="job-1"):
        watched(ScriptedService(clock, MISSING), "job-1")


@pytest.mark.parametrize("gone", [[event("removed", {"id": "job-1"})], [LOST]])
def test_one_job_that_is_deleted(clock: Clock, gone: list[Any]) -> None:
    service = ScriptedService(clock, event_stream(one("queued", "e1"), *gone), MISSING)
    assert watched(service, "job-1") == ["job-1 queued", "-job-1"]


def test_refused_token_ends_it(clock: Clock) -> None:
    service = ScriptedService(clock, event_stream(one("queued", "e1"), LOST), problem("unauthorized", 401))
    with pytest.raises(Unauthorized):
        watched(service, "job-1")


def test_states_of_one_job_are_filtered(clock: Clock) -> None:
    states = [
        one("queued", "e1"),
        one("rendering", "e2"),
        one("rendering", "e3", progress=50),
        one("failed", "e4"),
    ]
    service = ScriptedService(clock, event_stream(*states))
    assert watched(service, "job-1", status=["rendering"]) == ["job-1 rendering", "job-1 rendering", "-job-1"]


def test_all_jobs_are_listed_and_then_followed(clock: Clock) -> None:
    service = ScriptedService(
        clock,
        event_stream(listed(job("a"), job("b", "failed")), changed("a", "completed", 2), removed("b", 3)),
    )
    assert watched(service, items=4) == ["a rendering", "b failed", "a completed", "-b"]
    assert service.targets == ["/api/events"]


def test_states_of_all_jobs_are_filtered_by_the_service(clock: Clock) -> None:
    service = ScriptedService(clock, event_stream(listed(job("a"))))
    watched(service, status=["rendering", "queued"], items=1)
    assert service.targets == ["/api/events?status=queued&status=rendering"]


def test_new_list_after_a_restart_emits_only_differences(clock: Clock) -> None:
    service = ScriptedService(
        clock,
        event_stream(listed(job("a"), job("b"), job("c")), LOST),
        event_stream(listed_partly(job("a"), job("c")), LOST),
        event_stream(listed(job("a"), job("b", "failed"), job("d")), changed("a", "failed", 2)),
    )
    assert watched(service, items=7) == [
        "a rendering", "b rendering", "c rendering", "b failed", "d rendering", "-c", "a failed",
    ]  # fmt: skip


def test_list_over_the_same_connection_removes_what_it_lacks(clock: Clock) -> None:
    # A reader that falls behind gets a new list; a change before it does not make a job part of it.
    service = ScriptedService(
        clock,
        event_stream(listed(job("a"), job("b")), changed("a", "rendering", 2, progress=50), listed(job("b"))),
    )
    assert watched(service, items=4) == ["a rendering", "b rendering", "a rendering", "-a"]


def test_removal_of_a_job_that_was_never_shown_is_not_shown(clock: Clock) -> None:
    service = ScriptedService(clock, event_stream(listed(), removed("x", 2), changed("a", "queued", 3)))
    assert watched(service, items=1) == ["a queued"]


def test_several_jobs_are_watched_until_all_are_final(clock: Clock) -> None:
    service = ScriptedService(
        clock,
        event_stream(listed(job("a", "queued"), job("x")), changed("a", "rendering", 2), removed("a", 3)),
        json_response(job("b", "failed")),
        json_response(job("a", "completed")),
    )
    assert watched(service, "a", "b") == ["a queued", "b failed", "a rendering", "a completed"]
    assert service.targets == ["/api/events?status=queued&status=rendering", "/api/jobs/b", "/api/jobs/a"]


def test_several_jobs_of_which_one_is_deleted(clock: Clock) -> None:
    service = ScriptedService(
        clock,
        event_stream(listed(job("a"), job("b")), removed("a", 2), removed("b", 3)),
        MISSING,
        json_response(job("b", "canceled")),
    )
    assert watched(service, "a", "b") == ["a rendering", "b rendering", "-a", "b canceled"]


@pytest.mark.parametrize("again", [removed("a", 3), listed(job("b"))])
def test_deleted_job_of_several_that_is_reported_again(clock: Clock, again: bytes) -> None:
    service = ScriptedService(
        clock,
        event_stream(listed(job("a"), job("b")), removed("a", 2), LOST),
        MISSING,
        event_stream(again, changed("b", "failed", 4)),
        MISSING,
    )
    assert watched(service, "a", "b") == ["a rendering", "b rendering", "-a", "b failed"]


def test_job_that_left_the_stream_is_read_until_the_replica_that_responds_has_seen_it(clock: Clock) -> None:
    service = ScriptedService(
        clock,
        event_stream(listed(job("a"), job("b", "failed")), removed("a", 2)),
        json_response(job("a")),
        json_response(job("a", progress=70)),
        json_response(job("a", "completed")),
    )
    assert watched(service, "a", "b") == ["a rendering", "b failed", "a rendering", "a completed"]


def test_job_that_leaves_the_stream_and_comes_back_is_not_read_for_ever(clock: Clock) -> None:
    service = ScriptedService(
        clock,
        event_stream(
            listed(job("a"), job("b")), removed("a", 2), changed("a", "queued", 3), changed("b", "failed", 4),
            changed("a", "failed", 5),
        ),
        *[json_response(job("a", "queued"))] * 20,
    )  # fmt: skip
    assert watched(service, "a", "b") == ["a rendering", "b rendering", "a queued", "b failed", "a failed"]
    assert len(service.targets) < 15


def test_one_of_several_that_never_existed(clock: Clock) -> None:
    with pytest.raises(JobNotFound, match="b"):
        watched(ScriptedService(clock, event_stream(listed(job("a"))), MISSING), "a", "b")


def test_states_of_several_jobs_are_filtered(clock: Clock) -> None:
    service = ScriptedService(
        clock,
        event_stream(
            listed(job("a", "queued"), job("b")),
            changed("a", "rendering", 2),
            removed("b", 3),
            removed("a", 4),
        ),
        json_response(job("b", "completed")),
        json_response(job("a", "failed")),
    )
    assert watched(service, "a", "b", status=["queued", "failed"]) == ["a queued", "-a", "a failed"]
