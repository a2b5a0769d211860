"""`GET /api/jobs/{id}/logs?follow=1` against the running service: every byte once, and
resets are announced.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import threading
import time
from base64 import b64decode
from collections.abc import Iterable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from jobsvc.domain.job import Job
from jobsvc.storage.files.safe_open import OpenFile
from jobsvc.storage.jobs.reader import JobsRoot
from jobsvc.storage.state.token_file import load, revoke
from jobsvc.web.streaming.log_follower import READ_INTERVAL_S
from tests.clients.sse_client import Event, EventStream, open_event_stream
from tests.conftest import MakeJob, MakeToken, Serve, StartProcess, put
from tests.eventually import pause, until, wait_until
from tests.programs.service_runner import Service

FOLLOW = "/api/jobs/job-1/logs?follow=1"


def append(folder: Path, data: bytes) -> None:
    with (folder / "render.log").open("ab") as log:
        log.write(data)


def take_away(root: Path) -> None:
    """Rename the root, as when a share is unmounted."""
    root.rename(root.with_name("away"))


def bring_back(root: Path) -> None:
    root.with_name("away").rename(root)


def join_log(events: Iterable[Event]) -> str:
    """Reassemble a log as a client does: a reset discards everything before it."""
    log = ""
    for event in events:
        match event.name:
            case "log":
                log += event.data + "\n"
            case "part":
                log += event.data
            case "reset":
                log = ""
    return log


async def read_until_text(stream: EventStream, expected: str) -> list[Event]:
    """Read events until they add up to the expected text."""
    events: list[Event] = []
    while join_log(events) != expected:
        event = await stream.next()
        assert event is not None, join_log(events)
        events.append(event)
        assert expected.startswith(join_log(events))
    return events


async def test_client_that_loses_its_connection_before_the_first_event_misses_nothing(
    serve: Serve, make_job: MakeJob
) -> None:
    folder = make_job(status="rendering", log=b"old\n")
    service = await serve()
    async with open_event_stream(service, f"{FOLLOW}&tail=0") as stream:
        reading = asyncio.ensure_future(stream.next())
        await until(lambda: stream.last_event_id)
        reading.cancel()
    append(folder, b"meanwhile\n")
    async with open_event_stream(service, f"{FOLLOW}&tail=0", last_event_id=stream.last_event_id) as stream:
        await read_until_text(stream, "meanwhile\n")


async def test_log_is_followed_from_its_start_to_the_end_of_its_job(serve: Serve, make_job: MakeJob) -> None:
    folder = make_job(status="rendering", log=b"one\ntwo\n")
    service = await serve()
    async with open_event_stream(service, FOLLOW) as stream:
        assert stream.status == 200
        assert stream.headers["Content-Type"] == "text/event-stream"
        assert stream.headers["Cache-Control"] == "no-store"
        assert stream.headers["X-Accel-Buffering"] == "no"
        assert stream.headers["RateLimit-Policy"].startswith('"logs"')
        await read_until_text(stream, "one\ntwo\n")
        append(folder, b"three\n")
        await read_until_text(stream, "three\n")
        append(folder, b"four\n")
        make_job(status="completed")
        rest = await stream.read_all()
        assert join_log(rest) == "four\n"
        assert (rest[-1].name, rest[-1].json()) == ("end", {"status": "completed"})
        assert rest[-1].id is not None
        assert rest[-1].id.endswith(":19")
        assert stream.ended_cleanly


async def test_followed_log_in_base64_has_the_exact_bytes(serve: Serve, make_job: MakeJob) -> None:
    log = b"10 %\r20 %\r\n\xff\x00\nend"
    make_job(status="completed", log=log)
    service = await serve()
    async with open_event_stream(service, f"{FOLLOW}&base64=1") as stream:
        *pieces, end = await stream.read_all()
    assert b"".join([b64decode(piece.data, validate=True) for piece in pieces]) == log
    assert end.name == "end"


async def test_followers_of_text_and_of_base64_share_no_data(serve: Serve, make_job: MakeJob) -> None:
    folder = make_job(status="rendering", log=b"")
    service = await serve()
    async with (
        open_event_stream(service, FOLLOW) as text,
        open_event_stream(service, f"{FOLLOW}&base64=1") as exact,
    ):
        append(folder, b"a\rb\n")
        await read_until_text(text, "a\nb\n")
        event = await exact.next()
        assert event is not None
        assert b64decode(event.data) == b"a\rb\n"


@pytest.mark.parametrize("status", ["completed", "failed", "canceled"])
async def test_finished_job_sends_the_whole_log_and_ends(
    serve: Serve, make_job: MakeJob, status: str
) -> None:
    make_job(status=status, log=b"line\n" * 50_000)
    async with open_event_stream(await serve(), FOLLOW) as stream:
        events = await stream.read_all()
    assert join_log(events) == "line\n" * 50_000
    assert [event.name for event in events[-2:]] == ["log", "end"]


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (b"a\r\nb\r\n", "a\nb\n"),
        (b"10 %\r20 %\rdone\n", "10 %\n20 %\ndone\n"),
        (b"not ended", "not ended"),
        (b"ended by a return\r", "ended by a return\n"),
        (b"\n\n  two blanks\n", "\n\n  two blanks\n"),
        (b"bad \xff byte\n", "bad � byte\n"),
        ("\ufeffmark, \x85, \u2028 and \x0b\n".encode(), "\ufeffmark, \x85, \u2028 and \x0b\n"),
        (b"", ""),
        (b"event: end\n\ndata: x\nid: 5\n", "event: end\n\ndata: x\nid: 5\n"),
        (b"x" * 200_000 + b"\n", "x" * 200_000 + "\n"),
    ],
)
async def test_any_bytes_of_a_line_are_sent_as_text(
    serve: Serve, make_job: MakeJob, written: bytes, expected: str
) -> None:
    make_job(status="failed", log=written)
    async with open_event_stream(await serve(), FOLLOW) as stream:
        events = await stream.read_all()
    assert join_log(events) == expected
    assert {event.name for event in events} <= {"log", "part", "end"}


async def test_line_is_sent_once_it_is_complete(serve: Serve, make_job: MakeJob) -> None:
    folder = make_job(status="rendering", log=b"one\nhalf a ")
    async with open_event_stream(await serve(), FOLLOW) as stream:
        await read_until_text(stream, "one\n")
        append(folder, b"line\nhalf")
        await read_until_text(stream, "half a line\n")
        make_job(status="failed")
        assert [event.name for event in await stream.read_all()] == ["part", "end"]


async def test_tail_starts_with_the_last_lines(serve: Serve, make_job: MakeJob) -> None:
    folder = make_job(status="rendering", log=b"one\ntwo\nthree\n")
    service = await serve()
    for lines, expected in ((2, "two\nthree\n"), (0, "")):
        async with open_event_stream(service, f"{FOLLOW}&tail={lines}") as stream:
            await read_until_text(stream, expected)
            append(folder, b"more\n")
            await read_until_text(stream, "more\n")
        (folder / "render.log").write_bytes(b"one\ntwo\nthree\n")


async def test_reconnected_client_continues_after_its_position_also_at_another_process(
    serve: Serve, make_job: MakeJob
) -> None:
    folder = make_job(status="rendering", log=b"one\n")
    async with open_event_stream(await serve(), FOLLOW) as stream:
        last = (await read_until_text(stream, "one\n"))[-1].id
    append(folder, b"two\n")
    async with open_event_stream(await serve(), f"{FOLLOW}&tail=1", last_event_id=last) as stream:
        last = (await read_until_text(stream, "two\n"))[-1].id
        append(folder, b"three\n")
        await read_until_text(stream, "three\n")
    async with open_event_stream(await serve(), FOLLOW, last_event_id=last) as stream:
        await read_until_text(stream, "three\n")


async def test_reconnecting_after_the_end_is_204(serve: Serve, make_job: MakeJob) -> None:
    make_job(status="failed", log=b"one\n")
    service = await serve()
    async with open_event_stream(service, FOLLOW) as stream:
        end = (await stream.read_all())[-1]
    answer = await service.get(FOLLOW, ("Last-Event-ID", end.id or ""))
    assert (answer.status, answer.headers["Cache-Control"]) == (204, "no-store")
    assert (await service.get("/healthz")).status == 200


@pytest.mark.parametrize(
    "last", ["", "x", "5", "0-0:5", "1-0011223344556677:99999999999999", "1-00112233445566zz:4"]
)
async def test_position_of_another_log_restarts_from_the_beginning(
    serve: Serve, make_job: MakeJob, last: str
) -> None:
    make_job(status="failed", log=b"one\n")
    async with open_event_stream(await serve(), FOLLOW, last_event_id=last) as stream:
        assert join_log(await stream.read_all()) == "one\n"


async def test_truncated_and_rewritten_log_sends_a_reset_and_restarts(
    serve: Serve, make_job: MakeJob
) -> None:
    folder = make_job(status="rendering", log=b"attempt 1\n" * 3)
    async with open_event_stream(await serve(), FOLLOW) as stream:
        await read_until_text(stream, "attempt 1\n" * 3)
        (folder / "render.log").write_bytes(b"attempt 2\n" * 5)
        reset = await stream.next_named("reset")
        assert reset.json() == {"reason": "truncated"}
        assert reset.id is not None
        assert reset.id.endswith(":0")
        await read_until_text(stream, "attempt 2\n" * 5)


async def test_replaced_log_sends_a_reset_and_restarts(serve: Serve, make_job: MakeJob) -> None:
    folder = make_job(status="rendering", log=b"one\n")
    async with open_event_stream(await serve(), FOLLOW) as stream:
        await read_until_text(stream, "one\n")
        put(folder / "render.log", b"one\ntwo\n")
        assert (await stream.next_named("reset")).json() == {"reason": "replaced"}
        await read_until_text(stream, "one\ntwo\n")


async def test_stream_waits_for_a_removed_log(serve: Serve, make_job: MakeJob) -> None:
    folder = make_job(status="rendering", log=b"one\n")
    async with open_event_stream(await serve(), FOLLOW) as stream:
        await read_until_text(stream, "one\n")
        (folder / "render.log").rename(folder / "render.log.1")
        put(folder / "render.log", b"two\n")
        await stream.next_named("reset")
        await read_until_text(stream, "two\n")


async def test_stream_waits_for_a_log_that_does_not_exist_yet(serve: Serve, make_job: MakeJob) -> None:
    folder = make_job(status="queued")
    async with open_event_stream(await serve(), FOLLOW) as stream:
        assert stream.status == 200
        append(folder, b"one\n")
        await read_until_text(stream, "one\n")


async def test_missing_log_of_a_finished_job_is_404(serve: Serve, make_job: MakeJob) -> None:
    make_job(status="canceled")
    answer = await (await serve()).get(FOLLOW)
    assert (answer.status, answer.code) == (404, "log-missing")


async def test_a_job_that_ends_without_a_log_ends_its_stream(serve: Serve, make_job: MakeJob) -> None:
    make_job(status="rendering")
    async with open_event_stream(await serve(), FOLLOW) as stream:
        make_job(status="canceled")
        assert [event.name for event in await stream.read_all()] == ["end"]


@pytest.mark.parametrize("query", ["follow=x", "follow=", "follow=2", "follow=1&follow=1", "follow=1&tail=x"])
async def test_invalid_parameter_is_named(serve: Serve, make_job: MakeJob, query: str) -> None:
    make_job(log=b"one\n")
    answer = await (await serve()).get(f"/api/jobs/job-1/logs?{query}")
    assert (answer.status, answer.code) == (400, "bad-request")


async def test_head_has_the_content_type_of_the_stream(serve: Serve, make_job: MakeJob) -> None:
    make_job(status="rendering", log=b"one\n")
    service = await serve()
    async with service.connect() as link:
        answer = await link.ask("HEAD", FOLLOW, token=service.token)
        assert (answer.status, answer.headers["Content-Type"]) == (200, "text/event-stream")
        assert "Content-Length" not in answer.headers
        assert await link.ended()


async def test_http_1_0_client_gets_events(serve: Serve, make_job: MakeJob) -> None:
    make_job(status="failed", log=b"one\n")
    async with open_event_stream(await serve(), FOLLOW, version="1.0") as stream:
        assert join_log(await stream.read_all()) == "one\n"


async def test_log_of_another_owner_cannot_be_followed_also_after_an_owner_change(
    serve: Serve, make_job: MakeJob, make_token: MakeToken
) -> None:
    folder = make_job(status="rendering", log=b"anna's\n")
    bob = make_token("bob")
    service = await serve()
    assert (await service.get(FOLLOW, token=bob)).code == "job-not-found"
    async with open_event_stream(service, FOLLOW) as stream:
        await read_until_text(stream, "anna's\n")
        make_job(status="rendering", owner="bob")
        append(folder, b"bob's\n")
        rest = await stream.read_all()
    assert [(event.name, event.json()) for event in rest] == [("removed", {"id": "job-1"})]


async def test_removed_job_ends_its_stream(serve: Serve, make_job: MakeJob) -> None:
    make_job("job-2")
    folder = make_job(status="rendering", log=b"one\n")
    async with open_event_stream(await serve(), FOLLOW) as stream:
        await read_until_text(stream, "one\n")
        shutil.rmtree(folder)
        assert (await stream.read_all())[-1].name == "removed"


@pytest.mark.alone
async def test_revoked_token_ends_its_streams(serve: Serve, make_job: MakeJob, state_dir: Path) -> None:
    make_job(status="rendering", log=b"one\n")
    service = await serve()
    async with open_event_stream(service, FOLLOW) as stream:
        await read_until_text(stream, "one\n")
        (token,) = load(state_dir / "tokens.json")
        revoke(state_dir / "tokens.json", token.id)
        assert await stream.next(2) is None
    assert (await service.get(FOLLOW)).code == "unauthorized"


@pytest.mark.alone
async def test_streams_end_immediately_at_shutdown(start_process: StartProcess, make_job: MakeJob) -> None:
    make_job(status="rendering", log=b"one\n")
    service = start_process("--shutdown-grace", 20)
    async with open_event_stream(service, FOLLOW) as stream:
        await read_until_text(stream, "one\n")
        service.send_signal()
        assert await asyncio.wait_for(stream.read_all(), 2) == []
        assert stream.ended_cleanly
    await until(lambda: service.process.poll() == 0, 3)


async def wait_for_metric(service: Service, name: str, value: float, deadline: float = 15) -> None:
    """Wait until a metric has a value."""
    async with asyncio.timeout(deadline):
        while await service.metric(name) != value:
            await pause()


STREAMS = 'jobsvc_event_streams{of="log"}'


async def test_client_that_never_reads_is_disconnected(serve: Serve, make_job: MakeJob) -> None:
    make_job(status="rendering", log=(b"x" * 99 + b"\n") * 200_000)
    service = await serve(send_timeout=3)
    async with open_event_stream(service, FOLLOW, receive_buffer=4096) as stream:
        await wait_for_metric(service, STREAMS, 1)
        await wait_for_metric(service, STREAMS, 0)
        await stream.read_all()
        assert not stream.ended_cleanly


async def test_stream_of_a_disconnected_client_is_closed(serve: Serve, make_job: MakeJob) -> None:
    make_job(status="rendering", log=b"one\n")
    service = await serve()
    async with open_event_stream(service, FOLLOW) as stream:
        await read_until_text(stream, "one\n")
        await wait_for_metric(service, STREAMS, 1)
        await stream.link.reset()
        await wait_for_metric(service, STREAMS, 0)
        await wait_for_metric(service, "jobsvc_logs_followed", 0)


async def until_unchanged(service: Service, name: str) -> None:
    """Wait until a metric is above 0 and has not changed for 0.2 s."""
    before = 0.0
    while (value := await service.metric(name)) != before or not value:
        before = value
        await asyncio.sleep(0.2)


@pytest.mark.both_loops
async def test_client_that_leaves_while_events_are_sent_is_no_internal_error(
    serve: Serve, make_job: MakeJob
) -> None:
    make_job(status="rendering", log=(b"x" * 99 + b"\n") * 200_000)
    service = await serve()
    with capture_logs() as lines:
        await leave_while_events_are_sent(service)
    assert [line for line in lines if line["event"] == "request-failed"] == []
    assert await service.answer_count(500) == 0


async def leave_while_events_are_sent(service: Service) -> None:
    """Half-close while the transport has unsent events, then read them all at once."""
    async with open_event_stream(service, FOLLOW) as stream:
        await until_unchanged(service, "jobsvc_log_bytes_total")  # the client's buffers are full
        stream.link.writer.write_eof()
        await pause()
        await stream.read_all()
        assert not stream.ended_cleanly
    await wait_for_metric(service, STREAMS, 0)


async def test_log_is_checked_and_read_once_for_all_followers(
    serve: Serve, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_job(status="rendering", log=b"one\n")
    opened = 0
    open_log = JobsRoot.open_log

    def counted(self: JobsRoot, job: Job) -> OpenFile:
        nonlocal opened
        opened += 1
        return open_log(self, job)

    monkeypatch.setattr(JobsRoot, "open_log", counted)
    service = await serve()
    async with AsyncExitStack() as stack:
        streams = [await stack.enter_async_context(open_event_stream(service, FOLLOW)) for _ in range(20)]
        for stream in streams:
            await read_until_text(stream, "one\n")
        assert await service.metric("jobsvc_logs_followed") == 1
        started_at, opened = time.monotonic(), 0
        append(folder, b"two\n")
        for stream in streams:
            await read_until_text(stream, "two\n")
        looks = (time.monotonic() - started_at) / READ_INTERVAL_S + 1
        assert opened <= looks + 3


async def test_stream_waits_while_storage_is_unavailable(
    serve: Serve, make_job: MakeJob, jobs_root: Path
) -> None:
    folder = make_job(status="rendering", log=b"one\n")
    make_job("job-2")
    service = await serve()
    async with open_event_stream(service, FOLLOW) as stream:
        await read_until_text(stream, "one\n")
        take_away(jobs_root)
        async with asyncio.timeout(15):
            while (await service.get("/readyz", token=None)).status != 503:
                await pause()
        bring_back(jobs_root)
        append(folder, b"two\n")
        await read_until_text(stream, "two\n")


MILLION = 1_000_000


def write_lines(folder: Path, first: int, last: int, draw: random.Random) -> None:
    """Append numbered lines in pieces of all sizes, as a farm does, not only whole lines."""
    text = b"".join(b"%07d frame\n" % number for number in range(first, last))
    at = 0
    while at < len(text):
        count = draw.choice((1, 700, 40_000, 900_000))
        append(folder, text[at : at + count])
        at += count


async def follow_over_many_connections(service: Service, draw: random.Random) -> list[Event]:
    """Follow to the end over connections that break after a random number of events."""
    events: list[Event] = []
    last = None
    while not events or events[-1].name != "end":
        async with open_event_stream(service, FOLLOW, last_event_id=last) as stream:
            if stream.status == 204:  # the connection has broken between the last line and the end
                break
            for _ in range(draw.choice((0, 1, 3, 40))):
                if (event := await stream.next()) is None:
                    break
                events.append(event)
                last = event.id
            await stream.link.reset()
    return events


@pytest.mark.parametrize("cut", [False, True])
async def test_client_that_reconnects_often_gets_every_byte_of_a_million_lines_once(
    serve: Serve, make_job: MakeJob, *, cut: bool
) -> None:
    """The same across a truncation, which the client is informed of: all of the new log follows it."""
    folder = make_job(status="rendering", log=b"")
    service = await serve()
    draw = random.Random(5)  # noqa: S311 - no secret

    def farm() -> None:
        if cut:
            write_lines(folder, 0, MILLION // 2, draw)
            wait_until(halfway.is_set, 20)
            os.truncate(folder / "render.log", 0)
        write_lines(folder, 0, MILLION, draw)
        make_job(status="completed")

    halfway = threading.Event()
    writer = threading.Thread(target=farm)
    writer.start()
    try:
        restless = random.Random(7)  # noqa: S311 - likewise
        following = asyncio.ensure_future(follow_over_many_connections(service, restless))
        if cut:
            await measures_at_least(service, "jobsvc_log_bytes_total", 1_000_000)
            halfway.set()
        events = await following
    finally:
        halfway.set()
        await asyncio.to_thread(writer.join)
    assert join_log(events).encode() == (folder / "render.log").read_bytes()
    resets = [event.json() for event in events if event.name == "reset"]
    assert resets == ([{"reason": "truncated"}] if cut else [])


async def measures_at_least(service: Service, name: str, value: float) -> None:
    async with asyncio.timeout(20):
        while await service.metric(name) < value:
            await pause()
