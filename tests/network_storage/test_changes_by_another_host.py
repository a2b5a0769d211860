"""Changes by another host appear within the poll interval plus the share's cache time."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

import pytest

from tests.clients.sse_client import Event, EventStream, open_event_stream
from tests.conftest import MakeJob, Serve
from tests.network_storage.share import Share
from tests.programs.service_runner import Service

BOUND_S: Final = 4.0
"""A poll interval of half a second, a cache or two of a second each, and a busy machine."""


@pytest.fixture
async def service(share: Share, make_job: MakeJob, serve: Serve) -> Service:
    """A service over a share with a finished and an unfinished job."""
    await asyncio.to_thread(make_job, "finished", status="failed")
    await asyncio.to_thread(make_job, "rendering", status="rendering")
    service = await serve(poll_interval=0.5, watch="auto")
    await listed(service, {"finished": "failed", "rendering": "rendering"}, 20)
    return service


@pytest.fixture
async def stream(service: Service) -> AsyncIterator[EventStream]:
    """An event stream that has sent all present jobs."""
    async with open_event_stream(service, "/api/events") as stream:
        await stream.next_named("present")
        yield stream


async def listed(service: Service, expected: dict[str, str], within: float = BOUND_S) -> None:
    """Wait until the list has these jobs in these states, and no others."""
    found: Any = None
    try:
        async with asyncio.timeout(within):
            while found != expected:
                page = (await service.get("/api/jobs")).json()  # 503 until the first index is complete
                found = {job["id"]: job["status"] for job in page.get("jobs", ())}
                await asyncio.sleep(0.02)
    except TimeoutError:
        pytest.fail(f"after {within} s: {found} instead of {expected}")


async def ready(service: Service, status: int) -> None:
    """Wait until /readyz has this status."""
    async with asyncio.timeout(40):
        while (await service.get("/readyz", token=None)).status != status:  # noqa: ASYNC110 - over a socket
            await asyncio.sleep(0.05)


async def wait_for_event(stream: EventStream, name: str, job_id: str) -> dict[str, Any]:
    """Wait for an event of a job."""
    async with asyncio.timeout(BOUND_S):
        while True:
            event = await stream.next_named(name)
            job: dict[str, Any] = event.json()
            if job["id"] == job_id:
                return job


async def test_new_job_is_listed_and_sent(make_job: MakeJob, service: Service, stream: EventStream) -> None:
    await asyncio.to_thread(make_job, "new", status="failed")
    await wait_for_event(stream, "job", "new")
    await listed(service, {"new": "failed", "finished": "failed", "rendering": "rendering"})


async def test_job_requested_before_it_existed_is_listed_and_sent(
    make_job: MakeJob, service: Service, stream: EventStream
) -> None:
    assert (await service.get("/api/jobs/new")).status == 404
    await asyncio.to_thread(make_job, "new", status="failed")
    await wait_for_event(stream, "job", "new")
    await listed(service, {"new": "failed", "finished": "failed", "rendering": "rendering"})


@pytest.mark.parametrize("job_id", ["finished", "rendering"])
async def test_changed_job_is_listed_and_sent(
    make_job: MakeJob, service: Service, stream: EventStream, job_id: str
) -> None:
    await asyncio.to_thread(make_job, job_id, status="canceled")
    assert (await wait_for_event(stream, "job", job_id))["status"] == "canceled"
    await listed(service, {"finished": "failed", "rendering": "rendering"} | {job_id: "canceled"})


def delete(share: Share, job_id: str) -> None:
    shutil.rmtree(share.writer / "jobs" / job_id)


def move_out(share: Share, job_id: str) -> None:
    (share.writer / "jobs" / job_id).rename(share.writer / job_id)


@pytest.mark.parametrize("job_id", ["finished", "rendering"])
@pytest.mark.parametrize("remove", [delete, move_out])
async def test_removed_job_is_sent_and_not_listed(
    share: Share, service: Service, stream: EventStream, remove: Callable[[Share, str], None], job_id: str
) -> None:
    await asyncio.to_thread(remove, share, job_id)
    await wait_for_event(stream, "removed", job_id)
    left = {"finished": "failed", "rendering": "rendering"}
    del left[job_id]
    await listed(service, left)


@pytest.mark.alone  # a busy machine lists the root less often: it may use 2 % of a CPU for that
async def test_renamed_job_is_listed_under_its_new_name(
    share: Share, service: Service, stream: EventStream
) -> None:
    root = share.writer / "jobs"
    await asyncio.to_thread((root / "finished").rename, root / "renamed")
    await listed(service, {"renamed": "failed", "rendering": "rendering"})


async def test_recreated_finished_job_is_listed_and_sent(
    share: Share, make_job: MakeJob, service: Service, stream: EventStream
) -> None:
    await asyncio.to_thread(delete, share, "finished")
    await asyncio.to_thread(make_job, "finished", status="queued")
    await listed(service, {"finished": "queued", "rendering": "rendering"})
    while (await wait_for_event(stream, "job", "finished"))["status"] != "queued":
        pass


@pytest.mark.parametrize("share", ["gluster"], indirect=True)  # sshfs ends with its server
async def test_no_job_is_removed_while_the_server_is_down(
    share: Share, make_job: MakeJob, service: Service, stream: EventStream
) -> None:
    await asyncio.to_thread(share.stop_server)
    await ready(service, 503)
    assert (await service.get("/api/jobs/finished")).json()["status"] == "failed"
    await asyncio.to_thread(share.start_server)
    await ready(service, 200)
    await asyncio.to_thread(make_job, "last", status="failed")
    events: list[Event] = []
    while not events or events[-1].json()["id"] != "last":
        event = await stream.next(20)
        assert event is not None
        events.append(event)
    assert "removed" not in {event.name for event in events}
    await listed(service, {"last": "failed", "finished": "failed", "rendering": "rendering"})


@pytest.mark.parametrize("share", ["gluster"], indirect=True)
async def test_constantly_requested_job_is_not_kept_by_a_cached_name(share: Share, service: Service) -> None:
    """The GlusterFS client resolves a renamed directory's old name for as long as it is requested."""
    await asyncio.to_thread(move_out, share, "finished")

    async def status() -> int:
        return (await service.get("/api/jobs/finished", ("Cache-Control", "no-cache"))).status

    async with asyncio.timeout(BOUND_S):
        while await status() != 404:  # noqa: ASYNC110 - over a socket
            await asyncio.sleep(0.02)
    for _ in range(100):
        assert await status() == 404
        await asyncio.sleep(0.02)
    await asyncio.to_thread((share.writer / "finished").rename, share.writer / "jobs" / "finished")
    await listed(service, {"finished": "failed", "rendering": "rendering"})
