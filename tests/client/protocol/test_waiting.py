"""Waiting for several jobs over one stream."""

from __future__ import annotations

import pytest

from jobsvc.client.errors import ConnectionFailed, JobNotFound, WaitTimeout
from jobsvc.client.models import Job
from tests.client.scripted_service import (
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
    problem,
    removed,
    statuses,
    waited_for,
)

LOST = ConnectionFailed("The service is away.")
MISSING = problem("job-not-found", 404)


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


def test_response_with_another_job_is_not_used(clock: Clock) -> None:
    answers = json_response(job("x", "failed")), json_response(job("b", "canceled"))
    service = ScriptedService(clock, event_stream(listed(job("a"))), *answers)
    assert statuses(waited_for(service, "a", "b", first_only=True)) == [("a", "rendering"), ("b", "canceled")]
