"""Files that a farm deletes and replaces are missing for a moment: clients do not notice."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from pathlib import Path

import pytest

from jobsvc.index.catalogue import missing_files, unreadable
from jobsvc.index.catalogue.missing_files import ABSENCE_GRACE_S
from jobsvc.web.endpoints import log_follow
from jobsvc.web.jobs import file_access, recent_logs
from tests.clients.raw_http import Answer
from tests.clients.sse_client import open_event_stream
from tests.conftest import MakeJob, Serve, StartProcess, put
from tests.eventually import pause, until
from tests.programs.service_runner import Service

JOB = "/api/jobs/job-1"
LOGS = f"{JOB}/logs"
AWAY_S = 0.3
"""Longer than the poll interval of these tests, shorter than the grace."""
POLLED = {"poll_interval": 0.05, "max_age": 0.1}


@pytest.fixture
def long_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    """A grace that a moment does not exceed on a busy machine either."""
    for module in (missing_files, unreadable, log_follow, file_access, recent_logs):
        monkeypatch.setattr(module, "ABSENCE_GRACE_S", 20.0)


async def status_of(service: Service, code: int, deadline: float = 20) -> None:
    """Wait until the job is answered with this status code."""
    async with asyncio.timeout(deadline):
        while (await service.get(JOB)).status != code:
            await pause()


async def statuses_while(service: Service, target: str, seconds: float) -> set[int]:
    """Request repeatedly for this long; return the status codes."""
    ends, found = time.monotonic() + seconds, set()
    while time.monotonic() < ends:
        found.add((await service.get(target)).status)
    return found


async def at_least_as_old(service: Service, target: str, age: int) -> Answer:
    """Request repeatedly until the response is this many seconds old."""
    async with asyncio.timeout(20):
        while int((answer := await service.get(target)).headers["Age"]) < age:
            await pause()
        return answer


@pytest.mark.parametrize("watch", ["poll", "events"])
@pytest.mark.usefixtures("long_grace")
async def test_record_missing_for_a_moment_is_bridged_in_status_and_streams(
    serve: Serve, make_job: MakeJob, watch: str
) -> None:
    folder = make_job(status="rendering", progress=1)
    service = await serve(watch=watch, **POLLED)
    async with (
        open_event_stream(service, f"{JOB}/events") as one,
        open_event_stream(service, "/api/events") as every,
    ):
        await one.next_named("job")
        await every.next_named("present")
        for progress in (2, 3):
            (folder / "status.json").unlink()
            assert await statuses_while(service, JOB, AWAY_S) == {200}
            make_job(status="rendering", progress=progress)
            for stream in (one, every):
                event = await stream.next()
                assert event is not None
                assert (event.name, event.json()["progress"]) == ("job", progress)


async def test_record_missing_for_longer_than_the_grace_removes_the_job(
    serve: Serve, make_job: MakeJob
) -> None:
    folder = make_job(status="completed")
    service = await serve(**POLLED)
    await status_of(service, 200)
    async with open_event_stream(service, "/api/events") as stream:
        await stream.next_named("present")
        began = time.monotonic()
        (folder / "status.json").unlink()
        await service.get(JOB)
        await stream.next_named("removed")
        assert time.monotonic() - began >= ABSENCE_GRACE_S - 0.2
        assert (await service.get(JOB)).status == 404


@pytest.mark.alone
async def test_removed_job_directory_is_reported_without_the_grace(serve: Serve, make_job: MakeJob) -> None:
    folder = make_job(status="rendering")
    service = await serve(**POLLED)
    await status_of(service, 200)
    async with open_event_stream(service, f"{JOB}/events") as stream:
        await stream.next_named("job")
        shutil.rmtree(folder)
        began = time.monotonic()
        await stream.next_named("removed")
        assert time.monotonic() - began < ABSENCE_GRACE_S - 0.2


async def test_job_directory_renamed_away_and_back_is_served_again(serve: Serve, make_job: MakeJob) -> None:
    folder = make_job(status="rendering")
    service = await serve(**POLLED)
    await status_of(service, 200)
    folder.rename(folder.with_name(".away"))
    await status_of(service, 404)
    folder.with_name(".away").rename(folder)
    await status_of(service, 200)


@pytest.mark.usefixtures("long_grace")
async def test_response_during_the_grace_says_that_the_record_cannot_be_read(
    serve: Serve, make_job: MakeJob
) -> None:
    folder = make_job(status="rendering")
    service = await serve(**POLLED)
    await status_of(service, 200)
    (folder / "status.json").unlink()
    answer = await service.get(JOB, ("Cache-Control", "no-cache"))
    assert answer.headers["Cache-Status"] == "jobsvc; hit; detail=record-unreadable"
    make_job(status="rendering")
    answer = await service.get(JOB, ("Cache-Control", "no-cache"))
    assert "Cache-Status" not in answer.headers


@pytest.mark.usefixtures("long_grace")
async def test_download_waits_for_an_output_that_is_missing_for_a_moment(
    serve: Serve, make_job: MakeJob
) -> None:
    film = make_job(output=b"old film") / "output/film.mp4"
    service = await serve(**POLLED)
    await status_of(service, 200)
    film.unlink()
    download = asyncio.create_task(service.download("job-1"))
    assert await statuses_while(service, JOB, AWAY_S) == {200}
    assert "downloadUrl" in (await service.get(JOB)).json()
    assert not download.done()
    put(film, b"new film")
    answer = await download
    assert (answer.status, answer.body) == (200, b"new film")


@pytest.mark.usefixtures("long_grace")
async def test_download_waits_for_an_output_whose_directory_is_missing_for_a_moment(
    serve: Serve, make_job: MakeJob
) -> None:
    folder = make_job(output=b"film") / "output"
    service = await serve(**POLLED)
    await status_of(service, 200)
    away = folder.rename(folder.with_name(".output"))
    download = asyncio.create_task(service.download("job-1"))
    assert await statuses_while(service, JOB, AWAY_S) == {200}
    assert not download.done()
    away.rename(folder)
    assert (await download).body == b"film"


async def test_further_output_missing_for_a_moment_stays_in_the_status(
    serve: Serve, make_job: MakeJob
) -> None:
    folder = make_job(output=b"film", outputs=[{"name": "still", "path": "output/still.png"}])
    put(folder / "output" / "still.png", b"still")
    service = await serve(**POLLED)
    await status_of(service, 200)
    (folder / "output" / "still.png").unlink()
    ends = time.monotonic() + AWAY_S
    while time.monotonic() < ends:
        assert [output["name"] for output in (await service.get(JOB)).json()["outputs"]] == ["main", "still"]
    async with asyncio.timeout(ABSENCE_GRACE_S + 20):
        while len((await service.get(JOB)).json()["outputs"]) > 1:
            await pause()


@pytest.mark.alone
async def test_output_missing_for_longer_than_the_grace_is_reported(serve: Serve, make_job: MakeJob) -> None:
    film = make_job(output=b"film") / "output/film.mp4"
    service = await serve(**POLLED)
    await status_of(service, 200)
    film.unlink()
    answer = await service.download("job-1")
    assert (answer.status, answer.code) == (404, "output-missing")
    assert "downloadUrl" not in (await service.get(JOB, ("Cache-Control", "no-cache"))).json()
    began = time.monotonic()
    assert (await service.download("job-1")).status == 404
    assert time.monotonic() - began < ABSENCE_GRACE_S / 2


@pytest.mark.usefixtures("long_grace")
async def test_download_continues_while_the_record_is_missing_for_a_moment(
    serve: Serve, make_job: MakeJob
) -> None:
    folder = make_job(output=b"film")
    service = await serve(**POLLED)
    await status_of(service, 200)
    (folder / "status.json").unlink()
    answer = await service.download("job-1")
    assert (answer.status, answer.body) == (200, b"film")


async def assert_missing_log_is_waited_for(service: Service, log: Path) -> None:
    request_task = asyncio.create_task(service.get(LOGS))
    await statuses_while(service, JOB, AWAY_S)
    assert not request_task.done()
    put(log, b"new\n")
    assert (await request_task).body == b"new\n"


@pytest.mark.usefixtures("long_grace")
async def test_log_missing_for_a_moment_is_waited_for(serve: Serve, make_job: MakeJob) -> None:
    log = make_job(status="rendering", log=b"old\n") / "render.log"
    service = await serve(**POLLED)
    await status_of(service, 200)
    assert (await service.get(LOGS)).body == b"old\n"
    log.unlink()
    await assert_missing_log_is_waited_for(service, log)


@pytest.mark.alone
async def test_permanently_missing_log_is_404_and_one_that_never_existed_immediately(
    serve: Serve, make_job: MakeJob
) -> None:
    log = make_job(status="rendering", log=b"old\n") / "render.log"
    service = await serve(**POLLED)
    await status_of(service, 200)
    assert (await service.get(LOGS)).status == 200
    log.unlink()
    assert (await service.get(LOGS)).code == "log-missing"
    began = time.monotonic()
    assert (await service.get(LOGS)).code == "log-missing"
    assert time.monotonic() - began < ABSENCE_GRACE_S / 2


@pytest.mark.usefixtures("long_grace")
async def test_unread_log_is_waited_for_if_its_directory_has_just_changed(
    serve: Serve, make_job: MakeJob
) -> None:
    log = make_job(status="rendering", log=b"old\n", logPath="logs/a.log") / "logs/a.log"
    service = await serve(**POLLED)
    await status_of(service, 200)
    log.unlink()
    await assert_missing_log_is_waited_for(service, log)


@pytest.mark.alone
async def test_log_that_never_existed_is_404_immediately_if_its_directory_has_not_just_changed(
    serve: Serve, make_job: MakeJob
) -> None:
    os.utime(make_job(status="rendering"), (1_000_000_000, 1_000_000_000))
    service = await serve(**POLLED)
    await status_of(service, 200)
    began = time.monotonic()
    assert (await service.get(LOGS)).code == "log-missing"
    assert time.monotonic() - began < ABSENCE_GRACE_S / 2


@pytest.mark.usefixtures("long_grace")
async def test_follow_does_not_end_while_the_log_is_missing_for_a_moment(
    serve: Serve, make_job: MakeJob
) -> None:
    log = make_job(status="rendering", log=b"one\n") / "render.log"
    service = await serve(**POLLED)
    await status_of(service, 200)
    async with open_event_stream(service, f"{LOGS}?follow=1") as stream:
        assert (await stream.next_named("log")).data == "one"
        moved_log = log.rename(log.with_name(".held"))
        make_job(status="completed")
        assert await statuses_while(service, JOB, AWAY_S) == {200}
        with moved_log.open("ab") as file:
            file.write(b"two\n")
        moved_log.rename(log)
        assert (await stream.next_named("log")).data == "two"
        await stream.next_named("end")


async def test_failed_job_keeps_its_log_while_that_is_missing_for_a_moment(
    serve: Serve, make_job: MakeJob
) -> None:
    log = make_job(status="failed", log=b"it broke\n") / "render.log"
    service = await serve(**POLLED)
    await status_of(service, 200)
    forced = ("Cache-Control", "no-cache")
    assert (await service.get(JOB, forced)).json()["logs"] == "it broke\n"
    log.unlink()
    assert (await service.get(JOB, forced)).json()["logs"] == "it broke\n"
    async with asyncio.timeout(ABSENCE_GRACE_S + 20):
        while "logs" in (await service.get(JOB)).json():
            await pause()


@pytest.mark.parametrize("data", [b"", b'{"status": "rend', b'{"status": "suspended", "owner": "anna"}'])
async def test_unreadable_record_shows_since_when_it_is_only_the_last_good_one(
    serve: Serve, make_job: MakeJob, data: bytes
) -> None:
    folder = make_job(status="rendering", progress=10)
    service = await serve(**POLLED)
    await status_of(service, 200)
    put(folder / "status.json", data)
    for target in (JOB, "/api/jobs"):
        answer = await at_least_as_old(service, target, 2)
        assert answer.headers["Cache-Status"] == "jobsvc; hit; detail=record-unreadable"
        assert b'"progress":10' in answer.body
    assert (await service.get(JOB, ("Cache-Control", "no-cache"))).headers["Age"] >= "2"
    make_job(status="rendering", progress=20)
    answer = await service.get(JOB, ("Cache-Control", "no-cache"))
    assert (answer.json()["progress"], answer.headers["Age"]) == (20, "0")
    assert "Cache-Status" not in answer.headers
    assert "Cache-Status" not in (await service.get("/api/jobs")).headers


async def test_unreadable_record_is_logged_once_with_job_and_reason(
    start_process: StartProcess, make_job: MakeJob
) -> None:
    make_job("good", status="rendering")
    make_job("never", status="suspended")
    service = start_process("--poll-interval", "0.1", "--watch", "poll")
    await until(lambda: service.lines("record-unreadable"), 15)
    make_job("good", status="paused")
    await until(lambda: len(service.lines("record-unreadable")) >= 2, 15)
    failed_reads = 'jobsvc_records_unreadable_total{reason="status"}'
    before = await service.metric(failed_reads)
    async with asyncio.timeout(20):
        while await service.metric(failed_reads) < before + 5:
            await pause()
    assert [(line["job"], line["reason"]) for line in service.lines("record-unreadable")] == [
        ("never", "status: 'suspended' is not a known status"),
        ("good", "status: 'paused' is not a known status"),
    ]
