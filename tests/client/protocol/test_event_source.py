"""Streams of events over reconnects."""

from __future__ import annotations

import pytest

from jobsvc.client.errors import ConnectionFailed, RateLimited, Unauthorized, UnexpectedResponse
from jobsvc.client.protocol.event_source import IDLE_TIMEOUT_S, EventSource
from jobsvc.client.protocol.long_lived import DeadlinePassed, Persistence
from jobsvc.client.protocol.sse import Event
from jobsvc.client.protocol.steps import Emit, Operation, Response
from tests.client.scripted_service import (
    EVENTS,
    Clock,
    Hang,
    ScriptedService,
    ScriptedStream,
    event,
    event_stream,
    html,
    problem,
)

LOST = ConnectionFailed("lost")


def over() -> ScriptedStream:
    """Return the response of a service that has no more events."""
    return ScriptedStream(204, {}, [])


def all_events(source: EventSource) -> Operation[None]:
    while (found := (yield from source.next())) is not None:
        yield Emit(found)


def read_from(service: ScriptedService, persistence: Persistence | None = None) -> list[Event]:
    service.run(all_events(EventSource("/api/events", persistence or Persistence())))
    return service.emitted


def test_events_are_read_until_the_service_says_that_there_are_no_more(clock: Clock) -> None:
    service = ScriptedService(clock, event_stream(event("a", "1", "x"), event("b", "2")), over())
    assert read_from(service) == [Event("a", "1", "x"), Event("b", "2", None)]


def test_stream_is_requested_with_an_idle_timeout(clock: Clock) -> None:
    service = ScriptedService(clock, over())
    read_from(service)
    (request,) = service.requests
    assert (request.timeout, request.headers) == (IDLE_TIMEOUT_S, {"accept": "text/event-stream"})


def test_reconnect_continues_after_the_last_complete_event(clock: Clock) -> None:
    cut = event("a", "2", "id-2")[:-1]
    service = ScriptedService(
        clock,
        event_stream(event("a", "1", "id-1"), cut, LOST),
        event_stream(event("a", "2", "id-2"), event("a", "3")),
        over(),
    )
    assert [each.data for each in read_from(service)] == ["1", "2", "3"]
    assert [request.headers.get("last-event-id") for request in service.requests] == [None, "id-1", "id-2"]


def test_silent_stream_is_dead(clock: Clock) -> None:
    service = ScriptedService(clock, event_stream(b":\n\n", Hang(46), event("a", "late")), over())
    assert read_from(service) == []
    assert service.streams[0].closed


@pytest.mark.parametrize("failure", [LOST, html(502), problem("too-many-streams", 429, retry_after="1")])
def test_stream_is_opened_again_after_errors(clock: Clock, failure: Response | Exception) -> None:
    service = ScriptedService(
        clock, event_stream(event("a", "1")), failure, event_stream(event("a", "2")), over()
    )
    assert [each.data for each in read_from(service)] == ["1", "2"]


def test_every_stream_is_closed(clock: Clock) -> None:
    service = ScriptedService(
        clock,
        event_stream(event("a", "1")),
        html(502),
        event_stream(LOST),
        over(),
    )
    read_from(service)
    assert all(stream.closed for stream in service.streams)


def test_refused_token_ends_it(clock: Clock) -> None:
    service = ScriptedService(clock, event_stream(event("a", "1")), problem("unauthorized", 401))
    with pytest.raises(Unauthorized):
        read_from(service)


def test_page_of_another_server_is_reported(clock: Clock) -> None:
    with pytest.raises(UnexpectedResponse, match="text/html"):
        read_from(ScriptedService(clock, html(200)))


def test_error_whose_body_is_cut_is_still_that_error(clock: Clock) -> None:
    broken = ScriptedStream(
        429, {"content-type": "application/problem+json", "retry-after": "301"}, [b"{", LOST]
    )
    with pytest.raises(RateLimited):
        read_from(ScriptedService(clock, broken))


def test_stream_that_is_always_cut_at_once_is_opened_less_and_less_often(clock: Clock) -> None:
    service = ScriptedService(clock, *[event_stream() for _ in range(60)], over())
    assert read_from(service) == []
    assert sum(service.sleeps) > 300


def test_stream_that_a_proxy_cuts_while_idle_is_opened_again_soon(clock: Clock) -> None:
    service = ScriptedService(clock, *[event_stream(Hang(10), LOST) for _ in range(60)], over())
    read_from(service)
    assert max(service.sleeps) <= 0.5


def test_read_ends_at_the_deadline(clock: Clock) -> None:
    started_at = clock.now
    comments = [part for _ in range(10) for part in (Hang(15), b":\n\n")]
    service = ScriptedService(clock, ScriptedStream(200, EVENTS, comments))
    with pytest.raises(DeadlinePassed):
        read_from(service, Persistence(40))
    assert clock.now - started_at == pytest.approx(40, abs=0.1)


def test_id_that_no_header_can_carry_is_not_sent(clock: Clock) -> None:
    service = ScriptedService(clock, event_stream(event("a", "1", "é")), over())
    read_from(service)
    assert "last-event-id" not in service.requests[1].headers
