"""Reading and following logs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobsvc.client.errors import ConnectionFailed, JobNotFound, OutputMissing, UnexpectedResponse
from jobsvc.client.models import LogLines, LogReset
from jobsvc.client.protocol.job_log import MAX_LINE, read_log
from jobsvc.client.protocol.steps import Response
from tests.client.scripted_service import (
    Chunk,
    Clock,
    ScriptedService,
    ScriptedStream,
    event,
    event_stream,
    html,
    problem,
)

LOST = ConnectionFailed("lost")
LOG = "".join(f"frame {n}: größer\n" for n in range(100)).encode()


def log(*chunks: Chunk, length: int | None = len(LOG), etag: str | None = '"e1"') -> ScriptedStream:
    headers = {"content-type": "text/plain; charset=utf-8"}
    headers |= {} if length is None else {"content-length": str(length)}
    headers |= {} if etag is None else {"etag": etag}
    return ScriptedStream(200, headers, chunks)


def rest(start: int, *chunks: Chunk, end: int = len(LOG)) -> ScriptedStream:
    headers = {"content-type": "text/plain", "content-range": f"bytes {start}-{end - 1}/{end}"}
    return ScriptedStream(206, headers | {"content-length": str(end - start)}, chunks)


def text_of(service: ScriptedService) -> str:
    assert all(isinstance(item, LogLines) for item in service.emitted)
    return "".join(item.text for item in service.emitted)


def read_whole(service: ScriptedService) -> str:
    service.run(read_log(5, "job-1"))
    return text_of(service)


def follow(service: ScriptedService, tail: int | None = None) -> str:
    service.run(read_log(5, "job-1", tail=tail, follow=True))
    return text_of(service)


def test_log_is_emitted_in_whole_lines(clock: Clock) -> None:
    service = ScriptedService(clock, log(LOG[:30], LOG[30:31], LOG[31:]))
    assert read_whole(service) == LOG.decode()
    assert all(item.text.endswith("\n") for item in service.emitted)
    assert (service.targets, service.requests[0].headers) == (["/api/jobs/job-1/logs"], {})


def test_empty_log(clock: Clock) -> None:
    assert read_whole(ScriptedService(clock, log(length=0))) == ""


def test_last_line_without_an_end_and_a_cut_character_are_emitted(clock: Clock) -> None:
    assert read_whole(ScriptedService(clock, log(b"a\nb\xc3", length=4))) == "a\nb\ufffd"


def test_long_line_is_emitted_in_parts(clock: Clock) -> None:
    size = 3 * MAX_LINE
    service = ScriptedService(clock, log(*[b"x" * 1024] * (size // 1024), length=size))
    assert read_whole(service) == "x" * size
    assert max(len(item.text) for item in service.emitted) <= MAX_LINE + 1024


def test_cut_log_is_continued(clock: Clock) -> None:
    service = ScriptedService(
        clock, log(LOG[:500], LOST), html(502), rest(500, LOG[500:900], LOST), rest(900, LOG[900:])
    )
    assert read_whole(service) == LOG.decode()
    headers = {"range": "bytes=500-", "if-range": '"e1"'}
    assert [request.headers for request in service.requests[:3]] == [{}, headers, headers]
    assert service.requests[3].headers["range"] == "bytes=900-"
    assert all(stream.closed for stream in service.streams)


def test_log_that_has_grown_is_read_up_to_its_first_length(clock: Clock) -> None:
    grown = LOG + b"later\n"
    service = ScriptedService(
        clock, log(LOG[:500], LOST), log(grown[:300], grown[300:], length=len(grown), etag='"e2"')
    )
    assert read_whole(service) == LOG.decode()


@given(st.integers(1, len(LOG)), st.lists(st.integers(0, len(LOG))))
def test_what_was_received_is_skipped_wherever_the_parts_end(received: int, cuts: list[int]) -> None:
    ends = sorted({*cuts, len(LOG)} - {0})
    parts = [LOG[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)]
    service = ScriptedService(Clock(), log(LOG[:received], LOST), log(*parts))
    assert read_whole(service) == LOG.decode()


def test_without_an_etag_the_log_is_read_again_and_skipped(clock: Clock) -> None:
    service = ScriptedService(clock, log(LOG[:500], LOST, etag=None), log(LOG))
    assert read_whole(service) == LOG.decode()
    assert service.requests[1].headers == {}


def test_log_without_a_length(clock: Clock) -> None:
    service = ScriptedService(clock, log(LOG[:500], LOST, length=None), log(LOG, length=None))
    assert read_whole(service) == LOG.decode()


@pytest.mark.parametrize(
    ("length", "reason"), [(len(LOG), "replaced"), (400, "truncated"), (None, "replaced")]
)
def test_log_that_was_rewritten_is_emitted_again(clock: Clock, length: int | None, reason: str) -> None:
    other = b"another attempt\n" * 100
    body = other[: len(LOG) if length is None else length]
    second = log(body, length=length, etag='"e2"')
    service = ScriptedService(clock, log(LOG[:500], LOST), second, log(body, length=len(body), etag='"e2"'))
    service.run(read_log(5, "job-1"))
    at = service.emitted.index(LogReset(reason))
    assert "".join(item.text for item in service.emitted[at + 1 :]) == body.decode()
    assert service.requests[2].headers == {}


def test_other_part_than_requested_is_not_used(clock: Clock) -> None:
    service = ScriptedService(clock, log(LOG[:500], LOST), rest(400, LOG[400:]), rest(500, LOG[500:]))
    assert read_whole(service) == LOG.decode()


def test_response_that_ends_too_early_is_continued(clock: Clock) -> None:
    service = ScriptedService(clock, log(LOG[:500], LOST), rest(500, LOG[500:700]), rest(700, LOG[700:]))
    assert read_whole(service) == LOG.decode()


def test_retries_are_counted_anew_after_progress(clock: Clock) -> None:
    cuts = [rest(n, LOG[n : n + 10], LOST) for n in range(10, 500, 10)]
    service = ScriptedService(clock, log(LOG[:10], LOST), *cuts, rest(500, LOG[500:]))
    assert read_whole(service) == LOG.decode()


def test_retries_without_progress_end(clock: Clock) -> None:
    with pytest.raises(ConnectionFailed):
        read_whole(ScriptedService(clock, log(LOG[:10], LOST), *[LOST] * 6))


def test_missing_log(clock: Clock) -> None:
    with pytest.raises(OutputMissing):
        read_whole(ScriptedService(clock, problem("log-missing", 404)))


def test_page_of_another_server_is_not_a_log(clock: Clock) -> None:
    with pytest.raises(UnexpectedResponse, match="text/html"):
        read_whole(ScriptedService(clock, html(200)))


def test_tail_is_read_at_once(clock: Clock) -> None:
    response = Response(200, {"content-type": "text/plain; charset=utf-8"}, b"b\nc")
    service = ScriptedService(clock, LOST, response)
    service.run(read_log(5, "job-1", tail=2))
    assert service.emitted == [LogLines("b\nc")]
    assert service.targets == ["/api/jobs/job-1/logs?tail=2"] * 2


END = event("end", {"status": "completed"}, "p-9")


def test_followed_log_ends_with_the_job(clock: Clock) -> None:
    service = ScriptedService(clock, event_stream(event("log", "a\nb", "p-1"), event("log", "", "p-2"), END))
    assert follow(service) == "a\nb\n\n"
    assert service.targets == ["/api/jobs/job-1/logs?follow=1"]


def test_part_of_a_line_has_no_line_end(clock: Clock) -> None:
    service = ScriptedService(
        clock, event_stream(event("part", "long ", "p-1"), event("log", "line", "p-2"), END)
    )
    assert follow(service) == "long line\n"


def test_followed_log_continues_after_the_last_complete_event(clock: Clock) -> None:
    second = event("log", "b\nc", "p-2")
    service = ScriptedService(
        clock,
        event_stream(b"id: p-0\n\n", LOST),
        event_stream(event("log", "a", "p-1"), second[:-3], LOST),
        html(503),
        event_stream(second, LOST),
        ScriptedStream(204, {}, []),
    )
    assert follow(service, tail=5) == "a\nb\nc\n"
    ids = [request.headers.get("last-event-id") for request in service.requests]
    assert ids == [None, "p-0", "p-1", "p-1", "p-2"]
    assert set(service.targets) == {"/api/jobs/job-1/logs?follow=1&tail=5"}


def test_reset_is_told(clock: Clock) -> None:
    reset = event("reset", {"reason": "truncated"}, "p-2")
    service = ScriptedService(
        clock, event_stream(event("log", "a", "p-1"), reset, event("log", "b", "p-3"), END)
    )
    service.run(read_log(5, "job-1", follow=True))
    assert service.emitted == [LogLines("a\n"), LogReset("truncated"), LogLines("b\n")]


@pytest.mark.parametrize("gone", [[event("removed", {"id": "job-1"})], [LOST]])
def test_deleted_job(clock: Clock, gone: list[Chunk]) -> None:
    service = ScriptedService(
        clock, event_stream(event("log", "a", "p-1"), *gone), problem("job-not-found", 404)
    )
    with pytest.raises(JobNotFound):
        follow(service)


def test_final_job_without_a_log(clock: Clock) -> None:
    with pytest.raises(OutputMissing):
        follow(ScriptedService(clock, problem("log-missing", 404)))
