"""`GET /api/jobs/{id}/events` and `GET /api/events` against the running service: which events each client
receives.
"""

from __future__ import annotations

import asyncio
import shutil
import threading
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from jobsvc.domain.access import ADMIN, JOBS_READ, OUTPUTS_READ
from jobsvc.storage.jobs.root_listing import RootScan, list_job_ids
from jobsvc.storage.state.token_file import load, revoke
from jobsvc.web.streaming import event_stream
from tests.clients.sse_client import Event, EventStream, open_event_stream
from tests.conftest import MakeJob, MakeToken, Serve, StartProcess
from tests.eventually import pause, until
from tests.programs.service_runner import Service

ONE = "/api/jobs/job-1/events"
ALL = "/api/events"
QUICK: dict[str, Any] = {"poll_interval": 0.05}


async def wait_for_metric(service: Service, name: str, value: float, deadline: float = 15) -> None:
    """Wait until a metric has a value."""
    async with asyncio.timeout(deadline):
        while await service.metric(name) != value:
            await pause()


async def read_present(stream: EventStream) -> dict[str, Any]:
    """Read the current states by job id, up to the `present` event."""
    found: dict[str, Any] = {}
    while (event := await stream.next()) is not None:
        if event.name == "present":
            assert event.json() == {"jobs": len(found)}
            return found
        assert event.name == "job"
        found[event.json()["id"]] = event.json()
    raise AssertionError("the stream ended before `present`")


async def test_stream_sends_the_current_job_and_each_change_until_it_is_final(
    serve: Serve, make_job: MakeJob
) -> None:
    make_job(status="rendering", progress=10)
    service = await serve(**QUICK)
    async with open_event_stream(service, ONE) as stream:
        assert stream.status == 200
        assert stream.headers["Content-Type"] == "text/event-stream"
        assert stream.headers["Cache-Control"] == "no-store"
        assert stream.headers["X-Accel-Buffering"] == "no"
        assert stream.headers["RateLimit-Policy"].startswith('"status"')
        first = await stream.next_named("job")
        answer = await service.get("/api/jobs/job-1")
        assert first.json() == answer.json()
        assert f'"{first.id}"' == answer.headers["ETag"]
        make_job(status="rendering", progress=20)
        assert (await stream.next_named("job")).json()["progress"] == 20
        make_job(output=b"film")
        [last] = await stream.read_all()
        assert last.json() == (await service.get("/api/jobs/job-1")).json()
        assert last.json()["done"]
        assert stream.ended_cleanly
        assert stream.retry == 2000


async def test_event_of_a_failed_job_has_the_end_of_its_log(serve: Serve, make_job: MakeJob) -> None:
    make_job(status="rendering", log=b"it broke\n")
    service = await serve(**QUICK)
    async with open_event_stream(service, ONE) as one, open_event_stream(service, ALL) as every:
        await one.next_named("job")
        await read_present(every)
        make_job(status="failed")
        failed = (await one.next_named("job")).json()
        assert failed.pop("logs") == "it broke\n"
        assert (await every.next_named("job")).json() == failed


async def test_reconnected_client_gets_only_what_is_new_also_from_another_process(
    serve: Serve, make_job: MakeJob
) -> None:
    make_job(status="rendering", progress=1)
    service = await serve(**QUICK)
    async with open_event_stream(service, ONE) as stream:
        last = (await stream.next_named("job")).id
    async with open_event_stream(await serve(**QUICK), ONE, last_event_id=last) as stream:
        make_job(status="rendering", progress=2)
        event = await stream.next_named("job")
        assert event.json()["progress"] == 2
        make_job(status="canceled")
    await changed_to(service, "canceled")
    async with open_event_stream(service, ONE, last_event_id=event.id) as stream:
        [final] = await stream.read_all()
        assert final.json()["status"] == "canceled"
    answer = await service.get(ONE, ("Last-Event-ID", final.id or ""))
    assert (answer.status, answer.headers["Cache-Control"]) == (204, "no-store")


async def changed_to(service: Service, status: str) -> None:
    async with asyncio.timeout(15):
        while (await service.get("/api/jobs/job-1")).json()["status"] != status:
            await pause()


async def test_final_state_is_sent_unless_the_last_event_id_names_it(serve: Serve, make_job: MakeJob) -> None:
    make_job(output=b"film")
    service = await serve()
    for last in (None, "", "x", "0" * 24):
        async with open_event_stream(service, ONE, last_event_id=last) as stream:
            assert [event.name for event in await stream.read_all()] == ["job"]


async def test_job_that_is_removed_or_changes_its_owner_sends_removed_and_nothing_more(
    serve: Serve, make_job: MakeJob
) -> None:
    make_job("job-2")
    folder = make_job(status="rendering", progress=1)
    service = await serve(**QUICK)
    for leave in (lambda: make_job(status="rendering", owner="bob"), lambda: shutil.rmtree(folder)):
        make_job(status="rendering", progress=1)
        async with asyncio.timeout(15):
            while (await service.get("/api/jobs/job-1")).status != 200:
                await pause()
        async with open_event_stream(service, ONE) as stream:
            await stream.next_named("job")
            leave()
            assert [(event.name, event.json()) for event in await stream.read_all()] == [
                ("removed", {"id": "job-1"})
            ]


async def test_stream_of_an_owner_sends_all_jobs_and_each_change(serve: Serve, make_job: MakeJob) -> None:
    for number in range(120):
        make_job(f"job-{number}", status="rendering" if number % 2 else "completed")
    make_job("bob-1", owner="bob")
    service = await serve(**QUICK)
    async with open_event_stream(service, ALL) as stream:
        assert await read_present(stream) == {
            f"job-{number}": (await service.get(f"/api/jobs/job-{number}")).json() for number in range(120)
        }
        make_job("job-1", status="completed")
        make_job("bob-1", owner="bob", status="rendering")
        make_job("bob-1", owner="bob", status="completed")
        event = await stream.next_named("job")
        assert (event.json()["id"], event.json()["status"]) == ("job-1", "completed")
        shutil.rmtree(make_job("job-3"))
        async with asyncio.timeout(15):
            while (event := await stream.next_named("removed")).json() != {"id": "job-3"}:
                pass


async def test_reconnected_client_of_all_events_gets_what_changed_since(
    serve: Serve, make_job: MakeJob
) -> None:
    for number in range(4):
        make_job(f"job-{number}", status="rendering", progress=1)
    service = await serve(**QUICK)
    async with open_event_stream(service, ALL) as stream:
        await read_present(stream)
        make_job("job-1", status="rendering", progress=2)
        last = (await stream.next_named("job")).id
    for progress in range(3, 9):
        make_job("job-1", status="rendering", progress=progress)
        await shows(service, "job-1", progress=progress)
    make_job("job-2", status="completed")
    await shows(service, "job-2", status="completed")
    make_job("job-3", status="rendering", owner="bob")
    shutil.rmtree(make_job("job-0"))
    for gone in ("job-0", "job-3"):
        async with asyncio.timeout(15):
            while (await service.get(f"/api/jobs/{gone}")).status != 404:
                await pause()
    async with open_event_stream(service, ALL, last_event_id=last) as stream:
        events = [await stream.next() for _ in range(4)]
    received = {event.json()["id"]: event for event in events if event is not None}
    assert received.keys() == {"job-0", "job-1", "job-2", "job-3"}
    assert received["job-1"].json()["progress"] == 8
    assert received["job-2"].json()["done"]
    assert (received["job-0"].name, received["job-3"].name) == ("removed", "removed")
    assert received["job-3"].json() == {"id": "job-3"}


async def shows(service: Service, job_id: str, **fields: object) -> None:
    async with asyncio.timeout(15):
        while not fields.items() <= (await service.get(f"/api/jobs/{job_id}")).json().items():
            await pause()


@pytest.mark.parametrize("last", ["", "0123456789ab-1", "x", "-1", "0123456789ab-99999999999999999"])
async def test_unknown_last_event_id_sends_all_states_again(
    serve: Serve, make_job: MakeJob, last: str
) -> None:
    """As after a restart; a final state that was reached meanwhile is included."""
    make_job(output=b"film")
    async with open_event_stream(await serve(), ALL, last_event_id=last) as stream:
        assert (await read_present(stream))["job-1"]["status"] == "completed"


async def test_event_ids_from_before_a_restart_are_not_confused_with_later_ones(
    serve: Serve, make_job: MakeJob
) -> None:
    make_job(status="rendering")
    async with open_event_stream(await serve(**QUICK), ALL) as stream:
        await read_present(stream)
        make_job(status="rendering", progress=2)
        last = (await stream.next_named("job")).id
    async with open_event_stream(await serve(**QUICK), ALL, last_event_id=last) as stream:
        assert (await read_present(stream)).keys() == {"job-1"}


async def test_only_jobs_in_the_requested_states_are_sent(serve: Serve, make_job: MakeJob) -> None:
    make_job("a", status="rendering")
    make_job("b", status="queued")
    make_job("c", status="completed")
    service = await serve(**QUICK)
    async with open_event_stream(service, f"{ALL}?status=rendering&status=queued") as stream:
        assert (await read_present(stream)).keys() == {"a", "b"}
        make_job("c", status="failed")
        make_job("a", status="failed")
        removed = await stream.next()
        assert removed is not None
        assert (removed.name, removed.json()) == ("removed", {"id": "a"})
        make_job("c", status="queued")
        await shows(
            service, "c", status="queued"
        )  # finished jobs are not polled: a request has to refresh it
        assert (await stream.next_named("job")).json()["id"] == "c"


@pytest.mark.parametrize("query", ["status=nonsense", "status=", "state=failed", "status=queued&x=1"])
async def test_invalid_parameter_is_named(serve: Serve, query: str) -> None:
    answer = await (await serve()).get(f"{ALL}?{query}")
    assert (answer.status, answer.code) == (400, "bad-request")


async def test_owner_without_jobs_gets_present_and_then_the_first_job(
    serve: Serve, make_job: MakeJob
) -> None:
    service = await serve()
    async with open_event_stream(service, ALL) as stream:
        assert await read_present(stream) == {}
        make_job("job-1")
        await shows(service, "job-1", status="queued")
        assert (await stream.next_named("job")).json()["id"] == "job-1"


async def test_admin_gets_the_jobs_of_all_owners(
    serve: Serve, make_job: MakeJob, make_token: MakeToken
) -> None:
    make_job("a")
    make_job("b", owner="bob")
    admin = make_token("root", scopes=[ADMIN])
    service = await serve(**QUICK)
    async with open_event_stream(service, ALL, token=admin) as stream:
        assert (await read_present(stream)).keys() == {"a", "b"}
        make_job("b", owner="eve", status="rendering")
        assert (await stream.next_named("job")).json()["id"] == "b"


async def test_events_need_the_scope_and_a_token_of_the_owner(
    serve: Serve, make_job: MakeJob, make_token: MakeToken
) -> None:
    make_job(status="failed")
    outputs, reader, bob = (
        make_token(scopes=[OUTPUTS_READ]),
        make_token(scopes=[JOBS_READ]),
        make_token("bob"),
    )
    service = await serve()
    for target in (ONE, ALL):
        assert (await service.get(target, token=None)).code == "unauthorized"
        assert (await service.get(target, token=outputs)).code == "insufficient-scope"
    assert (await service.get(ONE, token=bob)).code == "job-not-found"
    assert (await service.get("/api/jobs/unknown/events", token=bob)).code == "job-not-found"
    async with open_event_stream(service, ONE, token=reader) as stream:
        assert len(await stream.read_all()) == 1


async def test_stream_is_counted_once_when_it_starts(serve: Serve, make_job: MakeJob) -> None:
    make_job(status="rendering", progress=1)
    service = await serve(limit_status="1/hour", limit_events="1/hour", **QUICK)
    async with open_event_stream(service, ONE) as one, open_event_stream(service, ALL) as every:
        await one.next_named("job")
        make_job(status="rendering", progress=2)
        await one.next_named("job")
        await every.next_named("job")
        assert (await service.get(ONE)).code == "rate-limited"
        assert (await service.get(ALL)).code == "rate-limited"


@pytest.mark.parametrize("target", [ONE, ALL])
async def test_head_has_the_content_type_of_the_stream(serve: Serve, make_job: MakeJob, target: str) -> None:
    make_job(status="rendering")
    answer = await (await serve()).ask("HEAD", target)
    assert (answer.status, answer.headers["Content-Type"]) == (200, "text/event-stream")
    assert "Content-Length" not in answer.headers


@pytest.mark.alone
@pytest.mark.parametrize("target", [ONE, ALL])
async def test_revoked_token_ends_its_streams_and_no_others(
    serve: Serve, make_job: MakeJob, state_dir: Path, make_token: MakeToken, target: str
) -> None:
    make_job(status="rendering")
    other = make_token()
    service = await serve(**QUICK)
    async with (
        open_event_stream(service, target) as ended,
        open_event_stream(service, target, token=other) as stream,
    ):
        await ended.next_named("job")
        await stream.next_named("job")
        _, mine = load(state_dir / "tokens.json")
        revoke(state_dir / "tokens.json", mine.id)
        while (event := await ended.next(2)) is not None:
            assert event.name == "present"
        make_job(status="rendering", progress=5)
        assert (await stream.next_named("job")).json()["progress"] == 5


async def test_expired_token_ends_its_streams(serve: Serve, make_job: MakeJob, make_token: MakeToken) -> None:
    make_job(status="rendering")
    brief = make_token(expires=time.time() + 5)
    service = await serve()
    async with open_event_stream(service, ONE, token=brief) as stream:
        await stream.next_named("job")
        assert await stream.next(10) is None


@pytest.mark.alone
@pytest.mark.parametrize("target", [ONE, ALL])
async def test_streams_end_immediately_at_shutdown(
    start_process: StartProcess, make_job: MakeJob, target: str
) -> None:
    make_job(status="rendering")
    service = start_process("--shutdown-grace", 20)
    async with open_event_stream(service, target) as stream:
        await stream.next_named("job")
        service.send_signal()
        await asyncio.wait_for(stream.read_all(), 2)
        assert stream.ended_cleanly
    await until(lambda: service.process.poll() == 0, 3)


async def test_idle_stream_sends_comments(
    serve: Serve, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_stream, "KEEP_ALIVE_INTERVAL_S", 0.1)
    make_job(status="rendering")
    service = await serve(**QUICK)
    async with open_event_stream(service, ONE) as stream:
        await stream.next_named("job")
        following = asyncio.ensure_future(stream.next())
        await until(lambda: stream.comments >= 2)
        make_job(status="rendering", progress=2)
        event = await following
        assert event is not None
        assert event.json()["progress"] == 2


FAT: dict[str, Any] = {"metadata": {"note": "x" * 60_000}}


async def test_slow_reader_gets_the_newest_state_and_skipped_changes_are_counted(
    serve: Serve, make_job: MakeJob
) -> None:
    make_job(status="rendering", progress=0, **FAT)
    make_job("job-2", status="rendering", progress=0, **FAT)
    service = await serve(**QUICK)
    async with (
        open_event_stream(service, ALL, receive_buffer=4096) as slow,
        open_event_stream(service, ALL) as quick,
    ):
        await read_present(quick)
        seen = 0
        for progress in range(1, 61):
            make_job(status="rendering", progress=progress, **FAT)
            await shows(service, "job-1", progress=progress)
            seen += (await quick.next_named("job")).json()["progress"] == progress
        assert seen == 60
        make_job("job-2", status="completed", **FAT)
        await shows(service, "job-2", status="completed")
        received: list[Event] = []
        while not received or received[-1].json().get("status") != "completed":
            received.append(await slow.next_named("job"))
        mine = [event.json()["progress"] for event in received if event.json()["id"] == "job-1"]
        assert mine == sorted(mine)
        assert mine[-1] == 60
        assert len(mine) < 55
        assert await service.metric("jobsvc_events_merged_total") > 0


async def test_client_that_never_reads_is_disconnected(serve: Serve, make_job: MakeJob) -> None:
    make_job(status="rendering", progress=0, **FAT)
    service = await serve(send_timeout=3, **QUICK)
    streams = 'jobsvc_event_streams{of="job"}'
    async with open_event_stream(service, ONE, receive_buffer=4096) as stream:
        await wait_for_metric(service, streams, 1)
        progress = 0
        async with asyncio.timeout(60):
            while await service.metric(streams):
                progress = (progress + 1) % 100
                make_job(status="rendering", progress=progress, **FAT)
        await stream.read_all()
        assert not stream.ended_cleanly


async def test_stream_of_a_disconnected_client_is_closed(serve: Serve, make_job: MakeJob) -> None:
    make_job(status="rendering")
    service = await serve()
    async with open_event_stream(service, ONE) as one, open_event_stream(service, ALL) as every:
        await one.next_named("job")
        await every.next_named("job")
        await wait_for_metric(service, 'jobsvc_event_streams{of="jobs"}', 1)
        await one.link.reset()
        await every.link.reset()
        await wait_for_metric(service, 'jobsvc_event_streams{of="job"}', 0)
        await wait_for_metric(service, 'jobsvc_event_streams{of="jobs"}', 0)


async def test_each_of_many_readers_gets_each_change(serve: Serve, make_job: MakeJob) -> None:
    make_job(status="rendering", progress=0)
    service = await serve(max_streams_per_token=100, **QUICK)
    async with AsyncExitStack() as stack:
        readers = [await stack.enter_async_context(open_event_stream(service, ALL)) for _ in range(100)]
        for reader in readers:
            await read_present(reader)
        for progress in (1, 2, 3):
            make_job(status="rendering", progress=progress)
            received = [(await reader.next_named("job")).json()["progress"] for reader in readers]
            assert received == [progress] * 100


async def test_present_is_not_sent_while_the_index_is_incomplete(
    serve: Serve, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client must not take jobs that are not indexed yet for missing ones."""
    go_on = threading.Event()

    def late(root: Path) -> RootScan:
        go_on.wait(60)
        return list_job_ids(root)

    monkeypatch.setattr("jobsvc.index.scan.reconciler.list_job_ids", late)
    for number in range(30):
        make_job(f"job-{number}")
    service = await serve()
    try:
        async with open_event_stream(service, ALL) as stream:
            received = asyncio.ensure_future(read_present(stream))
            assert (await service.get("/readyz", token=None)).status == 503
            await wait_for_metric(service, 'jobsvc_event_streams{of="jobs"}', 1)
            assert not received.done()
            go_on.set()
            assert len(await received) == 30
    finally:
        go_on.set()
