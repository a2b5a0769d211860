"""Waiting for one job by long polls."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from jobsvc.client.errors import ConnectionFailed, JobNotFound, Unauthorized, WaitTimeout
from jobsvc.client.protocol.polled_job import POLL_TIMEOUT_S
from jobsvc.client.protocol.steps import Request, Response
from tests.client.scripted_service import (
    Answer,
    Clock,
    Hang,
    ScriptedService,
    html,
    job,
    json_response,
    not_modified,
    problem,
    statuses,
    waited_for,
)

LOST = ConnectionFailed("The service is away.")
MISSING = problem("job-not-found", 404)


def state(status: str, etag: str = "e1", **members: Any) -> Response:
    return json_response(job(status=status, **members), etag=f'"{etag}"')


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
        Hang(20), LOST, not_modified(),
        Hang(55), not_modified(),
        Hang(20), state("rendering", "e2", progress=50),
        html(502), state("rendering", "e2", progress=50),
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


def test_proxy_that_cuts_every_idle_connection_is_no_outage(clock: Clock) -> None:
    cut, polls, elapsed = 30.0, 0, 0.0

    class Proxied(ScriptedService):
        def _respond(self, request: Request) -> Answer:
            nonlocal polls, elapsed
            self.requests.append(request)
            if elapsed > 3600:
                return state("completed", "e2")
            wait_s = float(parse_qs(urlsplit(request.target).query).get("wait", ["0"])[0])
            polls += wait_s > 0
            elapsed += min(cut, wait_s)
            clock.now += min(cut, wait_s)
            if wait_s > cut:
                raise LOST
            return not_modified() if request.headers else state("queued")

    service = Proxied(clock)
    assert statuses(waited_for(service, "job-1")) == [("job-1", "completed")]
    assert polls <= 3600 / (0.75 * cut) + 3
    assert len(service.requests) <= polls + 5


def test_poll_that_is_cut_once_does_not_shorten_the_next_ones(clock: Clock) -> None:
    polls: list[Answer | Hang] = []
    for _ in range(5):
        polls += [Hang(20), LOST, not_modified(), Hang(55), not_modified()]
    service = ScriptedService(clock, state("queued"), *polls, state("completed", "e2"))
    waited_for(service, "job-1")
    assert {target for target in service.targets if "wait" in target} == {"/api/jobs/job-1?wait=55.00"}


def test_after_a_failure_the_state_is_requested_at_once(clock: Clock) -> None:
    service = ScriptedService(clock, state("queued"), Hang(20), LOST, LOST, state("completed", "e2"))
    waited_for(service, "job-1")
    assert service.targets == ["/api/jobs/job-1", "/api/jobs/job-1?wait=55.00", *["/api/jobs/job-1"] * 2]


def test_polls_that_fail_at_once_are_sent_less_and_less_often(clock: Clock) -> None:
    started_at = clock.now
    polls: list[Answer | Hang] = [answer for _ in range(100) for answer in (LOST, not_modified())]
    service = ScriptedService(clock, state("queued"), *polls, state("completed", "e2"))
    waited_for(service, "job-1")
    assert clock.now - started_at >= 90 * 30
    assert "/api/jobs/job-1?wait=55.00" in service.targets[-3:]


def test_response_with_another_job_is_refused(clock: Clock) -> None:
    with pytest.raises(ConnectionFailed, match="job job-2, not job-1"):
        waited_for(ScriptedService(clock, json_response(job("job-2", "failed"))), "job-1")


def test_page_of_maintenance_is_waited_out(clock: Clock) -> None:
    maintenance = json_response({"status": "maintenance"})
    service = ScriptedService(clock, state("queued"), maintenance, maintenance, state("failed", "e2"))
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


def test_timeout_tells_that_the_service_does_not_respond(clock: Clock) -> None:
    for job_ids in (["job-1"], ["job-1", "job-2"]):
        with pytest.raises(WaitTimeout, match=r"\(state unknown\)\. nothing arrived in time"):
            waited_for(ScriptedService(clock, Hang(1000)), *job_ids, timeout=20)


def test_timeout_comes_in_time_while_the_service_is_away(clock: Clock) -> None:
    started_at = clock.now
    service = ScriptedService(clock, *[LOST] * 100)
    with pytest.raises(WaitTimeout, match=r"job-1 \(state unknown\)\. The service is away\.") as caught:
        waited_for(service, "job-1", timeout=20)
    assert caught.value.jobs == []
    assert clock.now - started_at == pytest.approx(20)
