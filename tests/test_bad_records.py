"""Invalid records, outputs and names: nothing hangs, leaks or fails, and the last good state is kept."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import socket
import stat
import time
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest

from tests.conftest import MakeJob, MakeToken, Serve, put
from tests.eventually import pause, until
from tests.programs.service_runner import Service

BROKEN = Path(__file__).parents[1] / "sample_jobs" / "broken"
FILM = b"the film that nobody may have"


def specimens(section: str) -> list[str]:
    """Return the specimens of one section of their README."""
    text = (BROKEN / "README.md").read_text("utf-8").partition(f"## {section}")[2].partition("\n## ")[0]
    return re.findall(r"^\| `([^`]+)` \|", text, re.MULTILINE)


@pytest.fixture
def broken(jobs_root: Path) -> Path:
    """A jobs root full of specimens."""
    shutil.copytree(BROKEN, jobs_root, symlinks=True, dirs_exist_ok=True)
    return jobs_root


@pytest.fixture
async def service(broken: Path, serve: Serve) -> Service:
    return await serve()


@pytest.fixture
def token(make_token: MakeToken) -> str:
    return make_token("demo")


async def test_each_specimen_has_the_result_in_its_readme(token: str, service: Service) -> None:
    no_job, no_output = specimens("No job"), specimens("Completed")
    odd = [name for name in specimens("Odd") if name != "not an id"]
    assert (len(no_job), len(no_output), len(odd)) >= (30, 12, 6)
    for name in no_job:
        for target in (f"/api/jobs/{name}", f"/api/jobs/{name}/download"):
            assert (await service.get(target, token=token)).code == "job-not-found", name
    for name in no_output:
        shown = await service.get(f"/api/jobs/{name}", token=token)
        assert (shown.status, shown.json()["status"]) == (200, "completed"), name
        assert "downloadUrl" not in shown.json()
        for method in ("GET", "HEAD"):
            refused = await service.ask(method, f"/api/jobs/{name}/download", token=token)
            assert refused.status == 404, name
        refused = await service.download(name, token=token)
        assert refused.code == "output-missing", name
        assert refused.json()["detail"] == "The job is completed, but its output file does not exist."
    for name in odd:
        shown = await service.get(f"/api/jobs/{name}", token=token)
        assert shown.status == 200, name
        assert b"outside" not in shown.body
        assert (await service.download(name, token=token)).status == 409, name
    assert (await service.get("/api/jobs/not%20an%20id", token=token)).code == "job-not-found"
    assert service.downloads() == []


def fifo(path: Path) -> None:
    os.mkfifo(path)


def listening(path: Path) -> None:
    """Create a Unix socket; its path may be longer than a socket address."""
    here = Path.cwd()
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(here)


def device(path: Path) -> None:
    try:
        os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(1, 5))
    except PermissionError:
        pytest.skip("only root makes devices")


def link_to_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def link_to_terminal(path: Path) -> None:
    path.symlink_to("/dev/tty")


def link_to_itself(path: Path) -> None:
    path.symlink_to(path.name)


def folder(path: Path) -> None:
    path.mkdir()


def unreadable(path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may read everything")
    path.write_bytes(FILM)
    path.chmod(0)


ODD_FILES = [fifo, listening, device, link_to_device, link_to_terminal, link_to_itself, folder, unreadable]


@pytest.mark.alone
@pytest.mark.parametrize("odd", [odd for odd in ODD_FILES if odd is not folder])
async def test_special_file_is_not_an_output_and_never_blocks(
    odd: Callable[[Path], None], serve: Serve, make_job: MakeJob
) -> None:
    output = make_job(output=FILM) / "output" / "film.mp4"
    output.unlink()
    odd(output)
    service = await serve()
    started_at = time.monotonic()
    for method in ("GET", "HEAD"):
        answer = await service.ask(method, "/api/jobs/job-1/download")
        assert answer.status == 404
    assert (await service.download("job-1")).code == "output-missing"
    assert "downloadUrl" not in (await service.get("/api/jobs/job-1")).json()
    assert time.monotonic() - started_at < 1


@pytest.mark.alone
@pytest.mark.parametrize("odd", ODD_FILES)
@pytest.mark.parametrize("name", ["status.json", "render.log"])
async def test_special_file_is_neither_a_record_nor_a_log(
    odd: Callable[[Path], None], name: str, serve: Serve, make_job: MakeJob
) -> None:
    job = make_job(status="failed", error="why", log=b"a line\n")
    (job / name).unlink()
    odd(job / name)
    service = await serve()
    started_at = time.monotonic()
    answer = await service.get("/api/jobs/job-1")
    if name == "status.json":
        assert answer.code == "job-not-found"
    else:
        assert answer.json()["error"] == "why"
        assert "logs" not in answer.json()
    assert time.monotonic() - started_at < 1


GOOD = orjson.dumps({"status": "rendering", "owner": "anna", "progress": 50})
BAD_RECORDS = {
    "empty": b"",
    "half written": GOOD[: len(GOOD) // 2],
    "all but the last byte": GOOD[:-1],
    "twice": GOOD + GOOD,
    "a list": b"[" + GOOD + b"]",
    "null": b"null",
    "not UTF-8": GOOD.replace(b"anna", b"\xff\xfe"),
    "200,000 brackets": b"[" * 200_000,
    "200,000 objects": b'{"a":' * 200_000,
    "a number of a million digits": b'{"status": "queued", "owner": "anna", "progress": '
    + b"9" * 999_999
    + b"}",
    "wrong types": b'{"status": [], "owner": {}}',
    "zeros": bytes(4096),
    "one byte too large": GOOD[:-1] + b', "x": "' + b"x" * (1 << 20) + b'"}',
    "no owner": b'{"status": "queued"}',
    "a huge attempt": b'{"status": "queued", "owner": "anna", "attempt": 1e308}',
}


@pytest.mark.parametrize("bad", BAD_RECORDS.values(), ids=list(BAD_RECORDS))
async def test_bad_record_keeps_the_last_good_state_and_is_counted(
    bad: bytes, serve: Serve, make_job: MakeJob
) -> None:
    record = make_job(status="rendering", progress=50) / "status.json"
    service = await serve(max_age=0)
    good = await service.get("/api/jobs/job-1")
    assert good.status == 200
    put(record, bad)
    put(record.parents[1] / "never-good" / "status.json", bad)
    invalid_records = await service.get("/api/jobs/job-1")
    assert (invalid_records.status, invalid_records.body) == (200, good.body)
    assert (await service.download("job-1")).code == "job-not-completed"
    assert (await service.get("/api/jobs/never-good")).code == "job-not-found"
    assert (await service.download("never-good")).code == "job-not-found"
    metrics = (await service.get("/metrics", token=None)).body.decode()
    counted = re.findall(
        r"^jobsvc_records_unreadable_total\{reason=\"[a-zA-Z-]+\"\} (\d+)", metrics, re.MULTILINE
    )
    assert sum(map(int, counted)) >= 2
    make_job(status="rendering", progress=60)
    assert (await service.get("/api/jobs/job-1")).json()["progress"] == 60


async def test_output_is_served_while_the_record_is_bad(serve: Serve, make_job: MakeJob) -> None:
    record = make_job(output=FILM) / "status.json"
    service = await serve(max_age=0)
    assert (await service.get("/api/jobs/job-1")).status == 200
    put(record, b"{")
    assert (await service.download("job-1")).body == FILM
    assert "downloadUrl" in (await service.get("/api/jobs/job-1")).json()


@pytest.mark.alone
async def test_record_of_50_mb_is_not_read(serve: Serve, make_job: MakeJob) -> None:
    with (make_job() / "status.json").open("r+b") as record:
        record.truncate(50_000_000)
    service = await serve()
    started_at = time.monotonic()
    assert (await service.get("/api/jobs/job-1")).code == "job-not-found"
    assert time.monotonic() - started_at < 1
    assert await service.metric('jobsvc_records_unreadable_total{reason="too-large"}') >= 1


async def test_record_written_in_place_is_never_served_partially(serve: Serve, make_job: MakeJob) -> None:
    """For a farm that truncates and writes: at any moment the response is an old or the new record."""
    record = make_job(progress=0) / "status.json"
    service = await serve(max_age=0)
    assert (await service.get("/api/jobs/job-1")).json()["progress"] == 0
    with record.open("r+b", buffering=0) as file:
        for progress in range(1, 15):
            text = orjson.dumps({"status": "queued", "owner": "anna", "progress": progress})
            file.truncate(0)
            file.seek(0)
            seen = [(await service.get("/api/jobs/job-1")).json()["progress"]]
            for start in range(0, len(text), 10):
                file.write(text[start : start + 10])
                seen.append((await service.get("/api/jobs/job-1")).json()["progress"])
            assert seen == [progress - 1] * (len(seen) - 1) + [progress]


async def test_invalid_job_names_are_ignored_and_counted(
    serve: Serve, make_job: MakeJob, jobs_root: Path
) -> None:
    make_job("good")
    for name in (b".hidden", b"not an id", b"\xff\xfe", b"a" * 129, "jöb".encode(), b"-a", b"line\nfeed"):
        shutil.copytree(jobs_root / "good", jobs_root / os.fsdecode(name))
    service = await serve()
    assert (await service.get("/api/jobs/good")).status == 200
    started_at = time.monotonic()
    while await service.metric("jobsvc_names_ignored") != 7:
        assert time.monotonic() - started_at < 20


async def test_watcher_survives_names_that_are_not_utf_8(
    serve: Serve, make_job: MakeJob, jobs_root: Path
) -> None:
    """In the root, in the job's own directory and in another's; only events show a change here."""
    make_job(progress=0)
    make_job("other", output=FILM)
    service = await serve(watch="events", poll_interval=3600, max_age=3600)
    shown = 0

    async def shows_the_next() -> None:
        nonlocal shown
        shown += 1
        make_job(progress=shown)
        started_at = time.monotonic()
        while (await service.get("/api/jobs/job-1")).json()["progress"] != shown:
            assert time.monotonic() - started_at < 20, shown

    await shows_the_next()
    for place in (jobs_root, jobs_root / "other", jobs_root / "other" / "output"):
        odd = place / os.fsdecode(b"\xff\xfe\x80")
        odd.mkdir()
        await shows_the_next()
        (odd / os.fsdecode(b"\x80")).write_bytes(b"")
        await shows_the_next()
        odd.rename(place / os.fsdecode(b"\x81"))
        await shows_the_next()
    assert (await service.get("/readyz", token=None)).status == 200


@pytest.mark.alone
async def test_job_directory_with_a_name_that_is_not_utf_8_is_still_read(
    serve: Serve, make_job: MakeJob
) -> None:
    folder = make_job(progress=0)
    service = await serve(watch="events", max_age=0.3)
    (folder / os.fsdecode(b"\xff")).write_bytes(b"")
    for progress in range(1, 6):
        make_job(progress=progress)
        started_at = time.monotonic()
        while (await service.get("/api/jobs/job-1")).json()["progress"] != progress:
            assert time.monotonic() - started_at < 1
            await pause()


async def test_directory_becomes_a_job_when_it_gets_a_record(
    serve: Serve, jobs_root: Path, make_job: MakeJob
) -> None:
    (jobs_root / "job-1").mkdir()
    (jobs_root / "a-file").write_bytes(GOOD)
    service = await serve()
    assert (await service.get("/api/jobs/job-1")).code == "job-not-found"
    assert (await service.get("/api/jobs/a-file")).code == "job-not-found"
    make_job()
    assert (await service.get("/api/jobs/job-1")).status == 200


async def test_link_to_a_job_is_not_a_job(
    serve: Serve, jobs_root: Path, make_job: MakeJob, tmp_path: Path
) -> None:
    make_job(output=FILM).rename(tmp_path / "elsewhere")
    (jobs_root / "job-1").symlink_to(tmp_path / "elsewhere")
    service = await serve()
    assert (await service.get("/api/jobs/job-1")).code == "job-not-found"
    assert (await service.download("job-1")).code == "job-not-found"


async def test_log_that_changes_its_size_while_it_is_read_is_harmless(
    serve: Serve, make_job: MakeJob
) -> None:
    log = make_job(status="failed", log=b"x" * 200_000) / "render.log"
    service = await serve(max_age=0)
    for size in (0, 1, 65_536, 65_537, 10_000_000):
        with log.open("r+b") as file:
            file.truncate(size)
        answer = await service.get("/api/jobs/job-1")
        assert answer.status == 200
        assert len(answer.json()["logs"].encode()) <= 65_536
    log.unlink()
    await until(lambda: not log.exists())
    async with asyncio.timeout(20):  # a log that existed counts as being replaced for 2 s
        while "logs" in (await service.get("/api/jobs/job-1")).json():
            await pause()
