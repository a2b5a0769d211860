"""Operations that go on while the service is away."""

from __future__ import annotations

from typing import Any

import pytest

from jobsvc.client.errors import (
    ConnectionFailed,
    Problem,
    ServiceUnavailable,
    Unauthorized,
    UnexpectedResponse,
)
from jobsvc.client.protocol.long_lived import (
    FIRST_CONTACT_S,
    MAX_OUTAGE_S,
    RESPONSE_TIME_S,
    DeadlinePassed,
    Persistence,
)
from jobsvc.client.protocol.steps import Operation, Request, Response
from tests.client.scripted_service import (
    Clock,
    Hang,
    ScriptedService,
    html,
    json_response,
    not_modified,
    problem,
)

REQUEST = Request("/api/jobs/job-1", timeout=75)
OK = json_response({"a": 1})
LOST = ConnectionFailed("lost")


def requests(persistence: Persistence, count: int = 1) -> Operation[list[Any]]:
    """Send so many requests, one after the other."""
    results = []
    for _ in range(count):
        document = yield from persistence.send_for_json(REQUEST, lambda response: response.document)
        results.append(document)
    return results


def test_service_may_be_away_for_ten_minutes(clock: Clock) -> None:
    service = ScriptedService(clock, OK, *[LOST] * 1000)
    with pytest.raises(ConnectionFailed, match="lost"):
        service.run(requests(Persistence(), 2))
    assert MAX_OUTAGE_S <= sum(service.sleeps) <= MAX_OUTAGE_S + 30


def test_url_at_which_nothing_ever_responded_ends_earlier(clock: Clock) -> None:
    service = ScriptedService(clock, *[LOST] * 1000)
    with pytest.raises(ConnectionFailed):
        service.run(requests(Persistence()))
    assert FIRST_CONTACT_S <= sum(service.sleeps) <= FIRST_CONTACT_S + 30


def test_outages_are_counted_from_the_last_response(clock: Clock) -> None:
    away = [LOST] * 12
    service = ScriptedService(clock, OK, *away, OK, *away, OK, *away, OK)
    assert service.run(requests(Persistence(), 4)) == [{"a": 1}] * 4


@pytest.mark.parametrize("meanwhile", [html(200), html(302), html(404), html(503), problem("internal", 500)])
def test_what_a_proxy_says_while_the_service_restarts_is_waited_out(
    clock: Clock, meanwhile: Response
) -> None:
    service = ScriptedService(clock, OK, meanwhile, OK)
    assert service.run(requests(Persistence(), 2)) == [{"a": 1}] * 2


@pytest.mark.parametrize(
    ("first", "kind"), [(html(200), UnexpectedResponse), (html(404), Problem), (html(302), Problem)]
)
def test_wrong_url_is_reported_at_once(clock: Clock, first: Response, kind: type[Exception]) -> None:
    service = ScriptedService(clock, first)
    with pytest.raises(kind):
        service.run(requests(Persistence()))
    assert service.sleeps == []


@pytest.mark.parametrize("refusal", [problem("unauthorized", 401), html(401), html(403)])
def test_refused_token_ends_everything_at_once(clock: Clock, refusal: Response) -> None:
    service = ScriptedService(clock, OK, refusal)
    with pytest.raises(Unauthorized):
        service.run(requests(Persistence(), 2))


def test_last_reason_is_raised(clock: Clock) -> None:
    service = ScriptedService(clock, OK, *[html(503)] * 1000)
    with pytest.raises(ConnectionFailed, match="503"):
        service.run(requests(Persistence(), 2))


def test_unmodified_is_a_result(clock: Clock) -> None:
    assert ScriptedService(clock, not_modified()).run(requests(Persistence())) == [None]


def test_deadline_comes_in_time_while_the_service_is_away(clock: Clock) -> None:
    persistence = Persistence(10)
    service = ScriptedService(clock, *[LOST] * 1000)
    with pytest.raises(DeadlinePassed):
        service.run(requests(persistence))
    assert sum(service.sleeps) == pytest.approx(10)
    assert persistence.last_error is LOST


def test_deadline_comes_in_time_if_the_service_does_not_respond(clock: Clock) -> None:
    started_at = clock.now
    service = ScriptedService(clock, Hang(1000), OK)
    with pytest.raises(DeadlinePassed):
        service.run(requests(Persistence(10)))
    assert clock.now - started_at <= 10 + RESPONSE_TIME_S


def test_retry_after_does_not_move_the_deadline(clock: Clock) -> None:
    service = ScriptedService(clock, problem("rate-limited", 429, retry_after="60"))
    with pytest.raises(DeadlinePassed):
        service.run(requests(Persistence(10)))
    assert service.sleeps == [10]


def test_without_a_deadline_the_timeout_is_that_of_the_request(clock: Clock) -> None:
    service = ScriptedService(clock, OK)
    service.run(requests(Persistence()))
    assert service.requests[0].timeout == 75


def test_service_that_stays_unavailable_with_a_long_retry_after_is_reported(clock: Clock) -> None:
    with pytest.raises(ServiceUnavailable):
        ScriptedService(clock, problem("storage-unavailable", 503, retry_after="900")).run(
            requests(Persistence())
        )
