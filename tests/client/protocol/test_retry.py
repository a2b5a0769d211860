"""When a request is sent again."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobsvc.client.errors import ConnectionFailed, Problem, ServiceUnavailable, UnexpectedResponse
from jobsvc.client.protocol.retry import (
    MAX_DELAY_S,
    MIN_LIMIT_PAUSE_S,
    RETRIED_STATUSES,
    Backoff,
    LimitPauses,
    Outage,
    send_for_json,
    send_with_retries,
)
from jobsvc.client.protocol.steps import Request, Response
from tests.client.scripted_service import Clock, ScriptedService, html, json_response, problem

REQUEST = Request("/api/jobs/job-1")
OK = json_response({"a": 1})
LOST = ConnectionFailed("lost")


def unavailable(retry_after: float | None = None) -> ServiceUnavailable:
    return ServiceUnavailable("http-503", 503, "Not now.", retry_after=retry_after)


@given(st.integers(1, 200), st.floats(0, 1))
def test_delay_doubles_up_to_its_maximum_and_is_any_part_of_it(failures: int, chance: float) -> None:
    backoff = Backoff(failures, random=lambda: chance)
    delays = [backoff.failed(LOST) for _ in range(failures)]
    expected = [min(MAX_DELAY_S, 0.5 * 2**n) * chance for n in range(failures)]
    assert delays == pytest.approx(expected)
    with pytest.raises(ConnectionFailed, match="lost"):
        backoff.failed(LOST)


@given(st.floats(0, 300, exclude_min=True), st.floats(0, 1))
def test_retry_after_is_followed_and_exceeded_a_little(seconds: float, chance: float) -> None:
    delay = Backoff(5, random=lambda: chance).failed(unavailable(seconds))
    assert seconds <= delay <= seconds * 1.1


def test_retry_after_of_zero_is_no_loop_without_a_pause() -> None:
    backoff = Backoff(2, random=lambda: 1.0)
    assert [backoff.failed(unavailable(0)), backoff.failed(unavailable(0))] == [0.5, 1.0]


def test_limit_has_a_minimal_pause_and_ends_after_an_hour() -> None:
    clock = Clock()
    pauses = LimitPauses(clock)
    assert [pauses.next(0, LOST), pauses.next(7, LOST)] == [MIN_LIMIT_PAUSE_S, 7]
    clock.now += 3600
    with pytest.raises(ConnectionFailed):
        pauses.next(7, LOST)
    pauses.progress()
    assert pauses.next(7, LOST) == 7


def test_long_retry_after_ends_the_retries() -> None:
    with pytest.raises(ServiceUnavailable):
        Backoff(5).failed(unavailable(301))


def test_progress_starts_anew() -> None:
    backoff = Backoff(2, random=lambda: 1.0)
    assert [backoff.failed(LOST), backoff.failed(LOST)] == [0.5, 1.0]
    backoff.progress()
    assert [backoff.failed(LOST), backoff.failed(LOST)] == [0.5, 1.0]


@given(st.lists(st.floats(0, 100), min_size=1))
def test_outage_ends_the_retries_by_its_time(steps: list[float]) -> None:
    clock = Clock()
    backoff = Backoff(Outage(250), clock=clock)
    started_at = clock.now
    for step in steps:
        if clock.now - started_at >= 250:
            with pytest.raises(ConnectionFailed):
                backoff.failed(LOST)
            return
        backoff.failed(LOST)
        clock.now += step


def test_progress_ends_the_outage() -> None:
    clock = Clock()
    backoff = Backoff(Outage(10), clock=clock)
    for _ in range(4):
        backoff.failed(LOST)
        backoff.progress()
        clock.now += 9


def test_response_ends_the_outage_but_not_the_longer_delays() -> None:
    clock = Clock()
    backoff = Backoff(Outage(10), clock=clock, random=lambda: 1.0)
    delays = []
    for _ in range(4):
        delays.append(backoff.failed(LOST))
        backoff.responded()
        clock.now += 9
    assert delays == [0.5, 1.0, 2.0, 4.0]


def test_jitter_is_different_each_time() -> None:
    delays = [Backoff(1).failed(LOST) for _ in range(20)]
    assert all(0 <= delay <= 0.5 for delay in delays)
    assert any(first != second for first, second in pairwise(delays))


@pytest.mark.parametrize("failure", [LOST, problem("storage-unavailable", 503), html(502), html(429)])
def test_failures_that_pass_are_retried(clock: Clock, failure: Any) -> None:
    service = ScriptedService(clock, failure, failure, OK)
    assert service.run(send_with_retries(REQUEST, 5)) == OK
    assert service.requests == [REQUEST] * 3
    assert len(service.sleeps) == 2


def test_last_failure_is_raised_after_all_retries(clock: Clock) -> None:
    service = ScriptedService(clock, LOST, html(502), html(503))
    with pytest.raises(ServiceUnavailable) as caught:
        service.run(send_with_retries(REQUEST, 2))
    assert caught.value.code == "http-503"
    assert len(service.requests) == 3


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 410, 412, 416, 301, 302, 307, 501, 505])
def test_other_errors_are_raised_at_once(clock: Clock, status: int) -> None:
    assert status not in RETRIED_STATUSES
    service = ScriptedService(clock, html(status))
    with pytest.raises(Problem):
        service.run(send_with_retries(REQUEST, 5))
    assert service.sleeps == []


def test_failure_that_no_retry_mends_is_raised_at_once(clock: Clock) -> None:
    untrusted = ConnectionFailed("The certificate is not trusted.")
    untrusted.retryable = False
    service = ScriptedService(clock, untrusted)
    with pytest.raises(ConnectionFailed, match="certificate"):
        service.run(send_with_retries(REQUEST, 5))


def test_304_is_a_result(clock: Clock) -> None:
    response = Response(304, {}, b"")
    assert ScriptedService(clock, response).run(send_with_retries(REQUEST, 0)) == response


def test_sign_in_page_instead_of_json_is_refused_at_once(clock: Clock) -> None:
    service = ScriptedService(clock, html(200))
    with pytest.raises(UnexpectedResponse, match="text/html"):
        service.run(send_for_json(REQUEST, 5))
    assert service.sleeps == []


def test_damaged_json_is_requested_again(clock: Clock) -> None:
    cut = OK._replace(body=OK.body[:-2])
    service = ScriptedService(clock, cut, OK)
    result = service.run(send_for_json(REQUEST, 5))
    assert result is not None
    assert result[0] == {"a": 1}
