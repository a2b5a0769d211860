"""While storage fails, the render goes on. What it told the job is written when storage is back."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import threading
from pathlib import Path

import pytest

from jobsvc import farm
from jobsvc.farm import JobError
from tests.eventually import wait_until
from tests.farm.conftest import Read
from tests.farm.test_job import create, render


def reports(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.levelno >= logging.WARNING]


def test_lost_share_is_reported_once_and_caught_up_with(
    jobs_root: Path, read: Read, caplog: pytest.LogCaptureFixture
) -> None:
    with create(jobs_root) as job:
        job.path.rename(jobs_root / ".away")
        for frame in range(1, 200):
            job.progress(frames=(frame, 200))
            job.log(f"frame {frame}")
        wait_until(lambda: reports(caplog))
        (jobs_root / ".away").rename(job.path)
        wait_until(lambda: read().get("framesDone") == 199)
        render(job)
    assert read()["status"] == "completed"
    assert len((job.path / "render.log").read_text().splitlines()) == 199
    assert len(reports(caplog)) == 1
    assert "trying again" in reports(caplog)[0]


def test_full_disk_loses_no_line(jobs_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk takes a part of what is written, then nothing."""
    os_write, room = os.write, [10]

    def write(file: int, data: bytes) -> int:
        if room[0] == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = os_write(file, data[: room[0]])
        room[0] -= written
        return written

    with create(jobs_root) as job:
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", write)
            job.log("the first line\nthe second line")
            wait_until(lambda: room[0] == 0)
        job.log("the last line")
        render(job)
    assert (job.path / "render.log").read_text() == "the first line\nthe second line\nthe last line\n"


def test_missing_root_is_named_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="create it, or mount the share") as raised:
        create(tmp_path / "away")
    assert raised.value.filename == str(tmp_path / "away")


def test_final_state_is_tried_until_it_is_written(jobs_root: Path, read: Read) -> None:
    with create(jobs_root) as job:
        (job.path / "status.json").unlink()
        (job.path / "status.json").mkdir()
        (job.path / "status.json" / "in the way").touch()
        render(job)
        timer = threading.Timer(0.2, shutil.rmtree, [job.path / "status.json"])
        timer.start()
    assert read()["status"] == "completed"


def test_final_state_that_cannot_be_written_is_an_error(
    jobs_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(farm, "FINAL_TIMEOUT_S", 0.1)
    job = create(jobs_root)
    shutil.rmtree(job.path)
    with pytest.raises(OSError, match="status"):
        job.fail("no licence")


def test_backlog_of_the_log_is_bounded_and_has_the_last_lines(
    jobs_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures: list[str] = []

    def refuse(path: str, *_: object) -> int:
        failures.append(path)
        raise OSError(errno.EIO, "Input/output error")

    def log(job: farm.Job, lines: range) -> None:
        for line in lines:
            job.log(f"line {line}")
        before = len(failures)
        wait_until(lambda: len(failures) > before + 2)

    monkeypatch.setattr(farm, "MAX_LOG_BACKLOG", 1000)
    monkeypatch.setattr(farm, "WRITE_INTERVAL_S", 0.01)
    monkeypatch.setattr(farm, "RETRY_S", 0.01)
    with create(jobs_root) as job:
        with monkeypatch.context() as patch:
            patch.setattr(os, "open", refuse)
            log(job, range(500))
            log(job, range(500, 1000))
        job.cancel()
    lines = (job.path / "render.log").read_text().splitlines()
    assert "[lines are missing here, because storage failed]" in lines
    assert lines[-1] == "line 999"
    assert len(lines) < 300


def test_long_log_is_not_lost_while_storage_works(jobs_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(farm, "MAX_LOG_BACKLOG", 10_000)
    monkeypatch.setattr(farm, "WRITE_INTERVAL_S", 60)
    with create(jobs_root, output=None) as job:
        log = job.path / "render.log"
        job.log("x" * 3000)
        wait_until(log.exists)
        for _ in range(9):
            before = log.stat().st_size
            job.log("x" * 3000)
            wait_until(lambda: log.stat().st_size > before)  # noqa: B023 - it is called at once
        assert log.stat().st_size == 10 * 3001


@pytest.mark.usefixtures("outputs_stay_missing")
def test_attempt_that_another_has_replaced_ends(
    jobs_root: Path, read: Read, caplog: pytest.LogCaptureFixture
) -> None:
    with create(jobs_root) as job:
        wait_until(lambda: read()["status"] == "rendering")
        create(jobs_root)
        job.progress(50)
        wait_until(lambda: "attempt 2 has begun" in " ".join(reports(caplog)))
        with pytest.raises(JobError, match="attempt 2 has begun"):
            job.progress(60)
        with pytest.raises(JobError, match="attempt 2 has begun"):
            job.complete()
    assert (read()["status"], read()["attempt"]) == ("queued", 2)


def test_unchanged_record_is_written_now_and_then(
    jobs_root: Path, read: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(farm, "HEARTBEAT_S", 0.05)
    with create(jobs_root) as job:
        wait_until(lambda: read()["status"] == "rendering")
        before = read()["updatedAt"]
        wait_until(lambda: read()["updatedAt"] > before)
        job.cancel()


def test_records_of_a_fast_render_are_few(jobs_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replaced = []
    replace = farm._replace

    def count(new: Path, path: Path) -> None:
        replaced.append(path)
        replace(new, path)

    monkeypatch.setattr(farm, "_replace", count)
    with create(jobs_root) as job:
        for frame in range(10_000):
            job.progress(frames=(frame, 10_000))
        job.cancel()
    assert len(replaced) < 50
