"""Performs operations against scripted responses, in virtual time: no I/O, and no sleeping."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, TypeAlias, TypeVar

from jobsvc.client.errors import ConnectionFailed
from jobsvc.client.models import Job
from jobsvc.client.protocol.steps import (
    Close,
    Emit,
    Open,
    Operation,
    Read,
    Request,
    Response,
    Send,
    Sleep,
    Step,
)
from jobsvc.client.protocol.waiting import wait

T = TypeVar("T")

JSON = {"content-type": "application/json"}
EVENTS = {"content-type": "text/event-stream"}


class Hang(NamedTuple):
    """Nothing arrives for so many seconds; with a shorter timeout the connection fails."""

    seconds: float


Chunk: TypeAlias = bytes | Exception | Hang


class ScriptedStream:
    """A response that is read in parts."""

    def __init__(self, status: int, headers: Mapping[str, str], chunks: Iterable[Chunk]) -> None:
        self.status = status
        self.headers = headers
        self.chunks = list(chunks)
        self.closed = False


class Clock:
    """Monotonic seconds that only tests advance."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


Answer: TypeAlias = Response | ScriptedStream | Exception


class ScriptedService:
    """Gives one answer after the other, and records what was requested."""

    def __init__(self, clock: Clock, *answers: Answer | Hang) -> None:
        self.requests: list[Request] = []
        self.sleeps: list[float] = []
        self.emitted: list[Any] = []
        self._answers = list(answers)
        self._clock = clock
        self.streams: list[ScriptedStream] = []

    @property
    def targets(self) -> list[str]:
        return [request.target for request in self.requests]

    def run(self, operation: Operation[T], *, items: int | None = None) -> T | None:
        """Perform an operation; end it after that many emitted items."""
        try:
            step = next(operation)
            while True:
                if isinstance(step, Emit):
                    self.emitted.append(step.item)
                    if items is not None and len(self.emitted) >= items:
                        operation.close()
                        return None
                try:
                    result = self._perform(step)
                except ConnectionFailed as exc:
                    step = operation.throw(exc)
                else:
                    step = operation.send(result)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]

    def _perform(self, step: Step) -> object:
        match step:
            case Send(request):
                response = self._respond(request)
                assert isinstance(response, Response)
                return response
            case Open(request):
                answer = self._respond(request)
                assert not isinstance(answer, Exception)
                if isinstance(answer, Response):
                    answer = ScriptedStream(answer.status, answer.headers, [answer.body])
                self.streams.append(answer)
                return answer
            case Read(stream, timeout):
                assert isinstance(stream, ScriptedStream)
                return self._read(stream, timeout)
            case Close(stream):
                assert isinstance(stream, ScriptedStream)
                stream.closed = True
            case Sleep(seconds):
                assert seconds >= 0
                self.sleeps.append(seconds)
                self._clock.now += seconds
        return None

    def _respond(self, request: Request) -> Answer:
        self.requests.append(request)
        assert self._answers, f"not scripted: {request}"
        answer = self._answers.pop(0)
        while isinstance(answer, Hang):
            self._hang(answer, request.timeout)
            answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _read(self, stream: ScriptedStream, timeout: float | None) -> bytes:
        assert not stream.closed
        while stream.chunks:
            chunk = stream.chunks.pop(0)
            if isinstance(chunk, bytes):
                return chunk
            if isinstance(chunk, Exception):
                raise chunk
            self._hang(chunk, timeout)
        return b""

    def _hang(self, hang: Hang, timeout: float | None) -> None:
        if timeout is not None and hang.seconds > timeout:
            self._clock.now += timeout
            raise ConnectionFailed("nothing arrived in time")
        self._clock.now += hang.seconds


def json_response(document: object, status: int = 200, **headers: str) -> Response:
    return Response(status, JSON | headers, json.dumps(document).encode())


def not_modified() -> Response:
    return Response(304, {}, b"")


def problem(code: str, status: int, detail: str = "A sentence.", **headers: str) -> Response:
    fields = {"content-type": "application/problem+json"} | {
        name.replace("_", "-"): value for name, value in headers.items()
    }
    body = {"code": code, "status": status, "detail": detail, "title": "Title", "requestId": "r-1"}
    return Response(status, fields, json.dumps(body).encode())


def html(status: int, **headers: str) -> Response:
    fields = {"content-type": "text/html", "server": "nginx/1.25.3"} | headers
    return Response(status, fields, b"<html><script>alert(1)</script></html>")


def event_stream(*chunks: Chunk) -> ScriptedStream:
    return ScriptedStream(200, EVENTS, [b"retry: 2000\n\n", *chunks])


def event(name: str, data: object, event_id: str | None = None) -> bytes:
    """Return an event; `data` is a text or a JSON document."""
    text = data if isinstance(data, str) else json.dumps(data)
    lines = [f"event: {name}"]
    if event_id is not None:
        lines.append(f"id: {event_id}")
    lines += [f"data: {line}" for line in text.split("\n")]
    return "\n".join([*lines, "", ""]).encode()


def job(job_id: str = "job-1", status: str = "rendering", **members: Any) -> dict[str, Any]:
    """Return a job as the service sends it."""
    times = dict.fromkeys(("createdAt", "updatedAt"), "2026-11-30T10:00:00Z")
    return {
        "id": job_id,
        "status": status,
        "done": status not in {"queued", "rendering"},
        "progress": 41,
        **times,
        **members,
    }


def listed_partly(*jobs: dict[str, Any]) -> bytes:
    """Return the first jobs of a list of all jobs, as `/api/events` sends it."""
    return b"".join(event("job", each) for each in jobs)


def listed(*jobs: dict[str, Any]) -> bytes:
    """Return a complete list of all jobs."""
    return listed_partly(*jobs) + event("present", {"jobs": len(jobs)}, "f-1")


def changed(job_id: str, status: str, number: int, **members: Any) -> bytes:
    """Return a change in `/api/events`; `number` is its position."""
    return event("job", job(job_id, status, **members), f"f-{number}")


def removed(job_id: str, number: int) -> bytes:
    """Return the event that a job is no longer among those of the stream."""
    return event("removed", {"id": job_id}, f"f-{number}")


def waited_for(service: ScriptedService, *job_ids: str, **options: Any) -> list[Job]:
    """Return the result of `wait`."""
    jobs = service.run(wait(job_ids, **options))
    assert jobs is not None
    return jobs


def statuses(jobs: list[Job]) -> list[tuple[str, str]]:
    return [(each.id, each.status) for each in jobs]
