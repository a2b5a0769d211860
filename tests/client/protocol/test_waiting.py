"""Waiting for jobs."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from jobsvc.client.errors import ConnectionFailed, JobNotFound, Unauthorized, WaitTimeout
from jobsvc.client.models import Job
from jobsvc.client.protocol.steps import Response
from jobsvc.client.protocol.waiting import POLL_TIMEOUT_S, wait
from tests.client.protocol.scripted_service import (
    Answer,
    Clock,
    Hang,
    ScriptedService,
    changed,
    event_stream,
    html,
    job,
    json_response,
    listed,
    listed_partly,
    not_modified,
    problem,
    removed,
)

LOST = ConnectionFailed("The service is away.")
MISSING = problem("job-not-found", 404)


def state(status: str, etag: str = "e1", **members: Any) -> Response:
    return json_response(job(status=status, **members), etag=f'"{etag}"')


def waited_for(service: ScriptedService, *job_ids: str, **options: Any) -> list[Job]:
    jobs = service.run(wait(job_ids, **options))
    assert jobs is not None
    return jobs


def statuses(jobs: list[Job]) -> list[tuple[str, str]]:
    return [(each.id, each.status) for each in jobs]


@pytest.mark.parametrize("status", ["completed", "failed", "canceled"])
def test_final_job_is_returned_at_once(clock: Clock, status: str) -> None:
    service = ScriptedService(clock, state(status))
    assert statuses(waited_for(service, "job-1")) == [("job-1", status)]
    assert (service.targets, service.sleeps) == (["/api/jobs/job-1"], [])


def test_nothing_to_wait_for_needs_no_request(clock: Clock) -> None:
    assert waited_for(ScriptedService(clock)) == []


def test_unchanged_job_costs_one_request_a_minute(clock: Clock) -> None:
    polls: list[Answer | Hang] = []
    for _ in range(60):
        polls += [Hang(55), not_modified()]
    service = ScriptedService(clock, state("queued"), *polls, Hang(3), state("completed", "e2"))
    started_at = clock.now
    assert statuses(waited_for(service, "job-1")) == [("job-1", "completed")]
    assert clock.now - started_at == 60 * 55 + 3
    assert len(service.requests) == 62
    assert all(request.headers == {"if-none-match": '"e1"'} for request in service.requests[1:])
    assert set(service.targets[1:]) == {"/api/jobs/job-1?wait=55.00"}
    assert service.requests[1].timeout == POLL_TIMEOUT_S


def test_each_new_state_is_reported_once(clock: Clock) -> None:
    seen: list[float] = []
    service = ScriptedService(
        clock,
        state("queued", "e1", progress=0),
        Hang(20), LOST,
        Hang(20), not_modified(),
        Hang(20), state("rendering", "e2", progress=50),
        html(502),
        Hang(20), state("rendering", "e2", progress=50),
        Hang(20), state("completed", "e3", progress=100),
    )  # fmt: skip
    waited_for(service, "job-1", on_change=lambda each: seen.append(each.progress))
    assert seen == [0, 50, 100]


def test_job_that_changes_all_the_time_is_requested_once_a_second(clock: Clock) -> None:
    changes = [state("rendering", f"e{n}", progress=n / 100) for n in range(100)]
    service = ScriptedService(clock, *changes, state("completed"))
    started_at = clock.now
    waited_for(service, "job-1")
    assert clock.now - started_at >= 98


def test_cache_that_responds_at_once_is_not_asked_all_the_time(clock: Clock) -> None:
    service = ScriptedService(clock, state("queued"), *[not_modified()] * 100, state("completed"))
    started_at = clock.now
    waited_for(service, "job-1")
    assert clock.now - started_at >= 90 * 30


@pytest.mark.parametrize(
    "failure", [LOST, html(502), html(503), problem("rate-limited", 429, retry_after="5")]
)
def test_wait_survives(clock: Clock, failure: Answer) -> None:
    service = ScriptedService(clock, failure, state("queued"), failure, failure, state("failed", "e2"))
    assert statuses(waited_for(service, "job-1")) == [("job-1", "failed")]


def test_missing_job_is_named(clock: Clock) -> None:
    with pytest.raises(JobNotFound, match="job-1: A sentence"):
        waited_for(ScriptedService(clock, MISSING), "job-1")


def test_job_that_is_deleted_meanwhile(clock: Clock) -> None:
    with pytest.raises(JobNotFound, match="job-1: the job was deleted"):
        waited_for(ScriptedService(clock, state("queued"), Hang(30), MISSING), "job-1")


def test_refused_token_ends_the_wait(clock: Clock) -> None:
    with pytest.raises(Unauthorized):
        waited_for(ScriptedService(clock, state("queued"), problem("unauthorized", 401)), "job-1")


def test_timeout_limits_the_poll_and_tells_the_state(clock: Clock) -> None:
    service = ScriptedService(clock, state("rendering"), Hang(55), not_modified(), Hang(35), not_modified())
    started_at = clock.now
    with pytest.raises(WaitTimeout, match=r"after 90 s: job-1 \(rendering, 41 %\)\.$") as caught:
        waited_for(service, "job-1", timeout=90)
    assert statuses(caught.value.jobs) == [("job-1", "rendering")]
    assert clock.now - started_at == 90
    waits = [parse_qs(urlsplit(target).query).get("wait") for target in service.targets]
    assert waits == [None, ["55.00"], ["35.00"]]


def test_timeout_of_zero_asks_once(clock: Clock) -> None:
    assert statuses(waited_for(ScriptedService(clock, state("failed")), "job-1", timeout=0)) == [
        ("job-1", "failed")
    ]
    service = ScriptedService(clock, state("queued"))
    with pytest.raises(WaitTimeout, match=r"job-1 \(queued\)"):
        waited_for(service, "job-1", timeout=0)
    assert len(service.requests) == 1


def test_timeout_comes_in_time_while_the_service_is_away(clock: Clock) -> None:
    started_at = clock.now
    service = ScriptedService(clock, *[LOST] * 100)
    with pytest.raises(WaitTimeout, match=r"job-1 \(state unknown\)\. The service is away\.") as caught:
        waited_for(service, "job-1", timeout=20)
    assert caught.value.jobs == []
    assert clock.now - started_at == pytest.approx(20)


def test_several_jobs_are_followed_over_one_stream_of_unfinished_ones(clock: Clock) -> None:
    service = ScriptedService(
        clock,
        event_stream(
            listed(job("a", "queued"), job("other", "queued")),
            Hang(10), changed("a", "rendering", 2), removed("other", 3), removed("a", 4),
        ),
        json_response(job("b", "failed")),
        json_response(job("a", "completed")),
    )  # fmt: skip
    seen: list[Job] = []
    jobs = waited_for(service, "a", "b", "a", on_change=seen.append)
    assert statuses(jobs) == [("a", "completed"), ("b", "failed"), ("a", "completed")]
    assert statuses(seen) == [("a", "queued"), ("b", "failed"), ("a", "rendering"), ("a", "completed")]
    assert service.targets == ["/api/events?status=queued&status=rendering", "/api/jobs/b", "/api/jobs/a"]


def test_first_final_one_of_several_is_enough(clock: Clock) -> None:
    service = ScriptedService(
        clock,
        event_stream(listed(job("a", "queued"), job("b")), removed("b", 2)),
        json_response(job("b", "failed")),
    )
    assert statuses(waited_for(service, "a", "b", first_only=True)) == [("a", "queued"), ("b", "failed")]


def test_all_are_known_when_the_first_is_final(clock: Clock) -> None:
    service = ScriptedService(
        clock, event_stream(listed()), json_response(job("a", "failed")), json_response(job("b", "queued"))
    )
    assert statuses(waited_for(service, "a", "b", first_only=True)) == [("a", "failed"), ("b", "queued")]


def test_changes_during_a_reconnect_are_not_lost(clock: Clock) -> None:
    service = ScriptedService(
        clock,
        event_stream(listed(job("a"), job("b")), LOST),
        html(503),
        # Another process: it lists all again, and a is no longer among them.
        event_stream(listed_partly(job("b")), LOST),
        event_stream(listed(job("b")), removed("b", 9)),
        json_response(job("a", "completed")),
        json_response(job("b", "completed")),
    )
    seen: list[Job] = []
    waited_for(service, "a", "b", on_change=seen.append)
    assert statuses(seen) == [("a", "rendering"), ("b", "rendering"), ("a", "completed"), ("b", "completed")]
    assert [request.headers.get("last-event-id") for request in service.requests[:4]] == [None, *["f-1"] * 3]


def test_list_that_was_cut_does_not_count(clock: Clock) -> None:
    service = ScriptedService(
        clock,
        event_stream(listed_partly(job("a")), LOST),
        event_stream(listed(job("b"))),
        json_response(job("a", "failed")),
    )
    assert statuses(waited_for(service, "a", "b", first_only=True))[0] == ("a", "failed")


def test_final_jobs_are_read_once(clock: Clock) -> None:
    service = ScriptedService(
        clock,
        event_stream(listed(job("a")), LOST),
        json_response(job("b", "failed")),
        event_stream(listed(job("a")), removed("a", 2)),
        json_response(job("a", "completed")),
    )
    waited_for(service, "a", "b")
    assert service.targets.count("/api/jobs/b") == 1


def test_job_that_changed_and_finished_before_a_new_list_is_read(clock: Clock) -> None:
    # A reader that falls behind gets a new list over the same connection.
    service = ScriptedService(
        clock,
        event_stream(listed(job("a"), job("b")), changed("a", "rendering", 2, progress=50), listed(job("b"))),
        json_response(job("a", "completed")),
    )
    assert statuses(waited_for(service, "a", "b", first_only=True))[0] == ("a", "completed")


def test_job_that_starts_again_is_waited_for(clock: Clock) -> None:
    service = ScriptedService(
        clock,
        event_stream(
            listed(job("a"), job("b")),
            removed("a", 2),
            changed("a", "queued", 3),
            removed("b", 4),
            removed("a", 5),
        ),
        json_response(job("a", "failed")),
        json_response(job("b", "completed")),
        json_response(job("a", "completed")),
    )
    assert statuses(waited_for(service, "a", "b")) == [("a", "completed"), ("b", "completed")]


def test_one_of_several_that_is_missing(clock: Clock) -> None:
    service = ScriptedService(clock, event_stream(listed(job("a"))), MISSING)
    with pytest.raises(JobNotFound, match=r"^b: A sentence"):
        waited_for(service, "a", "b")


def test_one_of_several_that_is_deleted(clock: Clock) -> None:
    service = ScriptedService(clock, event_stream(listed(job("a"), job("b")), removed("b", 2)), MISSING)
    with pytest.raises(JobNotFound, match="b: the job was deleted"):
        waited_for(service, "a", "b")


def test_timeout_of_several_names_what_is_unfinished(clock: Clock) -> None:
    started_at = clock.now
    comments = [part for _ in range(4) for part in (Hang(15), b":\n\n")]
    service = ScriptedService(
        clock, event_stream(listed(job("a")), *comments), json_response(job("b", "failed"))
    )
    with pytest.raises(WaitTimeout, match=r"after 40 s: a \(rendering, 41 %\)\.$") as caught:
        waited_for(service, "a", "b", timeout=40)
    assert statuses(caught.value.jobs) == [("a", "rendering"), ("b", "failed")]
    assert clock.now - started_at == pytest.approx(40, abs=0.1)


def test_message_of_a_timeout_stays_short(clock: Clock) -> None:
    ids = [f"job-{n}" for n in range(50)]
    with pytest.raises(WaitTimeout, match=r"job-9 \(state unknown\), and 40 more\."):
        waited_for(ScriptedService(clock, Hang(100)), *ids, timeout=5)


def test_answer_for_another_job_is_refused(clock: Clock) -> None:
    service = ScriptedService(clock, event_stream(listed(job("a"))), json_response(job("x", "failed")))
    with pytest.raises(ConnectionFailed, match="job x, not b"):
        waited_for(service, "a", "b")
