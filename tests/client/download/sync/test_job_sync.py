"""Syncs from the real service."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from http import HTTPStatus
from pathlib import Path
from threading import Event
from typing import Any, Final

import pytest

from jobsvc.client import (
    Client,
    Corrupt,
    Downloaded,
    DownloadError,
    OutputMissing,
    SyncFailed,
    Unauthorized,
)
from jobsvc.client.connection_settings import ConnectionSettings
from jobsvc.client.download.options import DownloadOptions
from jobsvc.client.download.sync import sync_jobs
from jobsvc.client.download.sync.state import LOCK_NAME, OWN_PREFIX, STATE_NAME
from jobsvc.client.errors import Stopped
from jobsvc.client.models import Progress
from jobsvc.client.transport.http_transport import HttpTransport
from tests.clients.body_pieces import cut_after
from tests.clients.faulty_proxy import Answer as ProxyAnswer
from tests.clients.faulty_proxy import Exchange, FaultyProxy, faulty_proxy
from tests.clients.proxy_faults import flip_byte
from tests.conftest import MakeJob, MakeToken, Serve, put
from tests.eventually import pause, until, until_equal
from tests.programs.service_runner import Service
from tests.web.outputs.rendered import FILES, MEMBERS, render

FILM: Final = os.urandom(50_000)
OTHER: Final = os.urandom(50_000)
CUT_STREAMS: Final = 4
"""The first event stream that is not cut."""


@pytest.fixture
def to(tmp_path: Path) -> Path:
    return tmp_path / "to"


@pytest.fixture
async def service(serve: Serve, make_job: MakeJob) -> Service:
    """A service with a job of three outputs, two of one film, one that renders and one that failed."""
    render(make_job)
    make_job("job-2", output=FILM)
    make_job("job-3", output=OTHER)
    make_job("job-4", status="rendering")
    make_job("job-9", status="failed", error="Out of memory")
    return await ready(await serve(limit_files="1000000/minute"))


async def ready(service: Service) -> Service:
    """Wait until the service knows all jobs: before, it refuses to list them."""
    while (await service.get("/readyz", token=None)).status != HTTPStatus.OK:
        await pause()
    return service


def client(service: Service, token: str | None = None) -> Client:
    return Client(f"http://127.0.0.1:{service.port}", token or service.token, retries=3)


async def sync(service: Service, to: Path, *, token: str | None = None, **options: Any) -> list[Downloaded]:
    with client(service, token) as own:
        return await asyncio.to_thread(lambda: list(own.sync(to, **options)))


def content(directory: Path) -> dict[str, bytes]:
    """Return the files below a directory, without those of the sync itself."""
    return {
        path.relative_to(directory).as_posix(): path.read_bytes()
        for path in directory.rglob("*")
        if not path.name.startswith(OWN_PREFIX) and path.is_file()
    }


def own_files(directory: Path) -> set[str]:
    """Return the names of the files of the sync itself."""
    return {path.name for path in directory.glob(f"{OWN_PREFIX}*")}


EXPECTED: Final = {
    **{f"job-1/{member}": FILES[path] for member, path in MEMBERS.items()},
    "job-2/film.mp4": FILM,
    "job-3/film.mp4": OTHER,
}


async def requests(service: Service) -> float:
    """Return the number of requests to the API so far: downloads are counted after their last byte."""
    await until_equal(partial(service.metric, "jobsvc_downloads_in_progress"), 0)
    lines = (await service.get("/metrics", token=None)).body.decode().splitlines()
    return sum(
        float(line.rpartition(" ")[2])
        for line in lines
        if line.startswith("jobsvc_requests_total{") and 'route="/api/' in line
    )


async def test_files_of_all_completed_jobs_are_downloaded(service: Service, to: Path) -> None:
    done = await sync(service, to)
    assert content(to) == EXPECTED
    assert {each.path.relative_to(to).as_posix() for each in done} == set(EXPECTED)
    assert all(each.sha256 is not None for each in done)


async def test_sync_with_nothing_to_do_sends_one_request(service: Service, to: Path) -> None:
    await sync(service, to)
    before = await requests(service)
    assert await sync(service, to) == []
    assert await requests(service) == before + 1


async def test_finished_sync_leaves_its_state_and_its_lock_alone(service: Service, to: Path) -> None:
    await sync(service, to)
    assert own_files(to) == {STATE_NAME, LOCK_NAME}


async def test_new_job_is_downloaded_by_the_next_sync(service: Service, to: Path, make_job: MakeJob) -> None:
    await sync(service, to)
    make_job("job-4", output=b"new")
    assert [each.path for each in await _until_found(service, to)] == [to / "job-4" / "film.mp4"]


async def test_replaced_file_replaces_the_local_one(service: Service, to: Path, make_job: MakeJob) -> None:
    await sync(service, to)
    make_job("job-2", output=b"again", attempt=2)
    await _until_found(service, to)
    assert content(to) == EXPECTED | {"job-2/film.mp4": b"again"}


async def _until_found(service: Service, to: Path, *, again: bool = False) -> list[Downloaded]:
    """Repeat the sync until the service lists what has changed; with `again`, until it fails."""
    while not (done := await sync(service, to)) or again:
        await pause()
    return done


async def test_interrupted_sync_is_continued(service: Service, to: Path) -> None:
    with client(service) as own:
        files = own.sync(to)
        first = await asyncio.to_thread(next, files)
        await asyncio.to_thread(files.close)  # type: ignore[attr-defined]
    rest = await sync(service, to)
    assert first.path not in {each.path for each in rest}
    assert content(to) == EXPECTED


async def test_interrupted_sync_has_recorded_each_of_its_files(service: Service, to: Path) -> None:
    with client(service) as own:
        files = own.sync(to)
        done = [await asyncio.to_thread(next, files) for _ in range(5)]
        await asyncio.to_thread(files.close)  # type: ignore[attr-defined]
    state = (to / STATE_NAME).read_text()
    assert all(
        each.path.relative_to(to).as_posix() in json.loads(state)["jobs"][each.job_id]["files"]
        for each in done
    )


async def test_second_sync_into_a_directory_ends_at_once(service: Service, to: Path) -> None:
    with client(service) as own:
        files = own.sync(to)
        await asyncio.to_thread(next, files)
        with pytest.raises(DownloadError, match="Another process syncs into"):
            await sync(service, to)
        assert len(await asyncio.to_thread(list, files)) == len(EXPECTED) - 1


async def test_files_are_not_downloaded_again_after_the_state_was_lost(service: Service, to: Path) -> None:
    await sync(service, to)
    (to / STATE_NAME).unlink()
    (to / "job-3" / "film.mp4").write_bytes(b"damaged")
    assert [each.path for each in await sync(service, to)] == [to / "job-3" / "film.mp4"]
    assert content(to) == EXPECTED


async def test_files_with_the_size_and_time_of_the_original_are_compared(service: Service, to: Path) -> None:
    await sync(service, to)
    (to / STATE_NAME).unlink()
    path = to / "job-3" / "film.mp4"
    modified = path.stat().st_mtime_ns
    path.write_bytes(b"x" * len(OTHER))
    os.utime(path, ns=(0, modified))
    assert [each.path for each in await sync(service, to)] == [path]
    assert content(to) == EXPECTED


async def test_file_that_was_moved_away_is_not_downloaded_again(
    service: Service, to: Path, make_job: MakeJob
) -> None:
    await sync(service, to)
    (to / "job-2" / "film.mp4").unlink()
    make_job("job-2", status="completed", outputPath="output/film.mp4", progress=100)
    make_job("job-4", output=b"new")
    assert [each.job_id for each in await _until_found(service, to)] == ["job-4"]
    await sync(service, to)
    assert "job-2/film.mp4" not in content(to)


async def test_job_without_its_output_does_not_stop_the_others(
    service: Service, to: Path, make_job: MakeJob
) -> None:
    make_job("job-3", status="completed", outputPath="output/none.mp4", attempt=2)
    for _ in range(2):
        with pytest.raises(SyncFailed, match="1 job could not be downloaded") as caught:
            await _until_found(service, to, again=True)
        ((job_id, error),) = caught.value.failures
        assert (job_id, type(error)) == ("job-3", OutputMissing)
    assert content(to).keys() | {"job-3/film.mp4"} == EXPECTED.keys()


async def test_job_that_cannot_be_written_does_not_stop_the_others(service: Service, to: Path) -> None:
    put(to / "job-2", b"a file, not a directory")
    with pytest.raises(SyncFailed, match="job-2 cannot be created"):
        await sync(service, to)
    assert content(to).keys() == EXPECTED.keys() - {"job-2/film.mp4"} | {"job-2"}


async def test_names_follow_the_template(service: Service, to: Path) -> None:
    await sync(service, to, name="{output}/{id}/{path}", status=["completed", "failed"])
    assert {"main/job-2/film.mp4", "preview/job-1/preview.mp4"} < content(to).keys()


async def test_failed_jobs_cost_no_further_request(service: Service, to: Path) -> None:
    await sync(service, to, status=["completed", "failed"])
    before = await requests(service)
    assert await sync(service, to, status=["completed", "failed"]) == []
    assert await requests(service) == before + 1


async def test_directory_of_another_service_is_refused(service: Service, to: Path) -> None:
    await sync(service, to)
    other = Client(f"http://localhost:{service.port}", service.token)
    with pytest.raises(DownloadError, match="Sync into another directory"):
        await asyncio.to_thread(lambda: list(other.sync(to)))


async def test_token_without_permission_ends_the_sync(
    serve: Serve, make_job: MakeJob, make_token: MakeToken, to: Path
) -> None:
    make_job(output=FILM)
    token = make_token(scopes=["jobs:read"])
    with pytest.raises(Unauthorized):
        await sync(await serve(), to, token=token)


async def test_nothing_of_the_token_is_stored(service: Service, to: Path) -> None:
    await sync(service, to)
    assert service.token is not None
    assert service.token.removeprefix("jsvc_")[:12] not in (to / STATE_NAME).read_text()


async def test_progress_is_reported(service: Service, to: Path) -> None:
    reports: list[Progress] = []
    await sync(service, to, progress=reports.append)
    assert (reports[-1].files_done, reports[-1].phase) == (len(EXPECTED), "done")


@asynccontextmanager
async def following(port: int, token: str, to: Path) -> AsyncIterator[list[str]]:
    """Follow changes during a block; yield the growing list of the jobs whose files were downloaded."""
    stop, done = Event(), list[str]()
    settings = ConnectionSettings(f"http://127.0.0.1:{port}", token)
    transport = HttpTransport(settings)

    def follow() -> None:
        options = DownloadOptions(stop=stop)
        for each in sync_jobs(transport, settings, to, follow=True, options=options):
            done.append(each.job_id)

    task = asyncio.create_task(asyncio.to_thread(follow))
    try:
        yield done
    finally:
        stop.set()
        with pytest.raises(Stopped):
            await task
        transport.close()


async def test_followed_jobs_are_downloaded_when_they_complete(
    service: Service, make_job: MakeJob, to: Path
) -> None:
    async with following(service.port, service.token or "", to) as done:
        await until(lambda: len(done) == len(EXPECTED))
        make_job("job-4", output=b"fourth")
        await until(lambda: "job-4" in done)
        make_job("job-5", output=b"fifth")
        await until(lambda: "job-5" in done)
    assert content(to) == EXPECTED | {"job-4/film.mp4": b"fourth", "job-5/film.mp4": b"fifth"}


async def test_jobs_are_followed_over_cut_connections(service: Service, make_job: MakeJob, to: Path) -> None:
    streams = 0

    async def cut_events(exchange: Exchange) -> ProxyAnswer:
        nonlocal streams
        answer = await exchange.forward()
        if exchange.target.startswith("/api/events"):
            streams += 1
            if streams < CUT_STREAMS:
                answer.body = cut_after(answer.body, 100 * streams)
        return answer

    async with (
        faulty_proxy(FaultyProxy(service.port, always=[cut_events])) as proxy,
        following(proxy.port, service.token or "", to) as done,
    ):
        await until(lambda: streams == CUT_STREAMS)
        make_job("job-4", output=b"fourth")
        await until(lambda: "job-4" in done)
    assert content(to) == EXPECTED | {"job-4/film.mp4": b"fourth"}


async def test_file_that_is_damaged_on_the_way_does_not_stop_the_others(service: Service, to: Path) -> None:
    damaged = ["/job-2/files/"]

    async def damage(exchange: Exchange) -> ProxyAnswer:
        is_damaged = exchange.is_file and any(part in exchange.target for part in damaged)
        return await (flip_byte(exchange) if is_damaged else exchange.forward())

    async with faulty_proxy(FaultyProxy(service.port, always=[damage])) as proxy:
        own = Client(f"http://127.0.0.1:{proxy.port}", service.token, retries=3)
        with pytest.raises(SyncFailed, match="job-2") as caught:
            await asyncio.to_thread(lambda: list(own.sync(to)))
        assert [type(error) for _, error in caught.value.failures] == [Corrupt]
        assert content(to).keys() == EXPECTED.keys() - {"job-2/film.mp4"}
        damaged.clear()
        (done,) = await asyncio.to_thread(lambda: list(own.sync(to)))
    assert done.path == to / "job-2" / "film.mp4"
    assert content(to) == EXPECTED


async def test_each_file_of_a_thousand_jobs_is_requested_once(
    serve: Serve, make_job: MakeJob, to: Path
) -> None:
    for number in range(1000):
        make_job(f"job-{number}", output=f"film {number}".encode())
    service = await ready(await serve(limit_files="1000000/minute"))
    await sync(service, to)
    assert content(to) == {f"job-{number}/film.mp4": f"film {number}".encode() for number in range(1000)}
    downloads = 'jobsvc_requests_total{code="200",method="GET",route="/api/jobs/{id}/files/{output}/{path}"}'
    await until_equal(partial(service.metric, downloads), len(content(to)))
