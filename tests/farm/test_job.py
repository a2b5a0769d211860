"""A farm writes a job from queued to its end."""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from jobsvc import farm
from jobsvc.farm import Job, JobError, Terminated
from tests.eventually import wait_until
from tests.farm.conftest import Read

OUTPUT = "output/title.mp4"


def create(jobs_root: Path, **values: Any) -> Job:
    return Job.create(jobs_root, **{"owner": "acme", "job_id": "title", "output": OUTPUT} | values)


def render(job: Job, path: str = OUTPUT, data: bytes = b"film") -> None:
    (job.path / path).write_bytes(data)


def test_job_begins_queued(jobs_root: Path, read: Read) -> None:
    create(jobs_root, project="title.blend", metadata={"shot": "op_0010"})
    record = read()
    assert {key: record[key] for key in ("id", "status", "owner", "attempt", "outputPath")} == {
        "id": "title", "status": "queued", "owner": "acme", "attempt": 1, "outputPath": OUTPUT,
    }  # fmt: skip
    assert record["metadata"] == {"shot": "op_0010"}
    assert record["projectPath"] == "title.blend"


def test_job_without_an_id_gets_one(jobs_root: Path) -> None:
    first, second = create(jobs_root, job_id=None), create(jobs_root, job_id=None)
    assert first.id != second.id
    assert sorted(path.name for path in jobs_root.iterdir()) == sorted([first.id, second.id])


@pytest.mark.parametrize("job_id", ["../up", ".hidden", "a/b", "x" * 129, "ä"])
def test_invalid_id_is_refused(jobs_root: Path, job_id: str) -> None:
    with pytest.raises(JobError, match="is no job id"):
        create(jobs_root, job_id=job_id)


def test_metadata_that_is_not_json_creates_nothing(jobs_root: Path) -> None:
    with pytest.raises((TypeError, ValueError)):
        create(jobs_root, metadata={"value": float("nan")})
    with pytest.raises((TypeError, ValueError)):
        create(jobs_root, metadata={"value": object()})
    assert list(jobs_root.iterdir()) == []


def test_output_through_the_parent_directory_is_refused(jobs_root: Path) -> None:
    with pytest.raises(JobError, match=r"without '\.\.'"):
        create(jobs_root, output="../elsewhere.mp4")
    assert list(jobs_root.iterdir()) == []


def test_block_completes_the_job(jobs_root: Path, read: Read) -> None:
    with create(jobs_root) as job:
        assert read()["status"] in ("queued", "rendering")
        render(job)
    record = read()
    assert (record["status"], record["progress"]) == ("completed", 100)
    assert record["startedAt"] <= record["completedAt"] <= record["updatedAt"]


@pytest.mark.usefixtures("outputs_stay_missing")
@pytest.mark.parametrize(
    ("data", "message"),
    [(None, "output/title.mp4 is missing"), (b"", "output/title.mp4: title.mp4 is empty")],
)
def test_job_without_its_output_is_failed(
    jobs_root: Path, read: Read, data: bytes | None, message: str
) -> None:
    job = create(jobs_root)
    if data is not None:
        render(job, data=data)
    with pytest.raises(JobError, match=message), job:
        pass
    assert (read()["status"], read()["error"]) == ("failed", message)


def test_growing_output_is_awaited(jobs_root: Path, read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(farm, "STABLE_S", 1)
    end = threading.Event()

    def grow(path: Path) -> None:
        with path.open("wb") as file:
            file.write(b"x")
            while not end.wait(0.01):
                file.write(b"x" * 100)
                file.flush()

    with create(jobs_root) as job:
        writer = threading.Thread(target=grow, args=(job.path / OUTPUT,))
        writer.start()
        wait_until((job.path / OUTPUT).exists)
        ending = threading.Thread(target=job.complete)
        ending.start()
        wait_until(lambda: (job.path / OUTPUT).stat().st_size > 500)
        assert read()["status"] != "completed"
        assert ending.is_alive()
        end.set()
        writer.join()
        ending.join()
    assert read()["status"] == "completed"


def test_exception_fails_the_job_with_its_last_line(jobs_root: Path, read: Read) -> None:
    with pytest.raises(ValueError, match="texture"), create(jobs_root) as job:
        raise ValueError("the texture is missing")
    assert (read()["status"], read()["error"]) == ("failed", "ValueError: the texture is missing")
    assert "Traceback" in (job.path / "render.log").read_text()


@pytest.mark.parametrize("error", [KeyboardInterrupt, Terminated])
def test_interrupted_job_is_canceled(jobs_root: Path, read: Read, error: type[BaseException]) -> None:
    with pytest.raises(error), create(jobs_root):
        raise error
    assert read()["status"] == "canceled"


def test_sigterm_cancels_the_job(jobs_root: Path, read: Read) -> None:
    before = signal.getsignal(signal.SIGTERM)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        with pytest.raises(SystemExit) as raised, create(jobs_root):
            os.kill(os.getpid(), signal.SIGTERM)
        assert raised.value.code == 128 + signal.SIGTERM
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGTERM, before)
    assert read()["status"] == "canceled"


def test_exit_with_a_code_fails_the_job(jobs_root: Path, read: Read) -> None:
    with pytest.raises(SystemExit), create(jobs_root):
        sys.exit(3)
    assert (read()["status"], read()["error"]) == ("failed", "SystemExit: 3")


def test_exit_without_a_code_completes_the_job(jobs_root: Path, read: Read) -> None:
    render(job := create(jobs_root))
    with pytest.raises(SystemExit), job:
        sys.exit()
    assert read()["status"] == "completed"


def test_job_that_has_ended_is_not_changed(jobs_root: Path, read: Read) -> None:
    with create(jobs_root) as job:
        job.fail("no licence")
    with pytest.raises(JobError, match="create its next attempt"):
        job.progress(50)
    assert (read()["status"], read()["error"]) == ("failed", "no licence")


def test_progress_never_falls(jobs_root: Path, read: Read) -> None:
    job = create(jobs_root)
    job.progress(40, frames=(10, 25), phase="beauty")
    job.progress(30, frames=(8, 25))
    record = read()
    assert (record["progress"], record["framesDone"], record["framesTotal"]) == (40, 10, 25)
    assert (record["status"], record["phase"]) == ("rendering", "beauty")


def test_progress_follows_from_frames_and_leaves_the_end_open(jobs_root: Path, read: Read) -> None:
    job = create(jobs_root)
    job.progress(frames=(1, 3))
    assert read()["progress"] == 33.33
    job.progress(frames=(3, 3))
    assert read()["progress"] == 99


@pytest.mark.parametrize(("given", "expected"), [(-5, 0), (140, 100), (33.333333, 33.33)])
def test_progress_is_limited(jobs_root: Path, read: Read, given: float, expected: float) -> None:
    create(jobs_root).progress(given)
    assert read()["progress"] == expected


def test_progress_that_is_no_number_is_refused(jobs_root: Path) -> None:
    with pytest.raises(ValueError, match="not a number"):
        create(jobs_root).progress(float("nan"))


def test_end_is_estimated(jobs_root: Path, read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(farm, "ESTIMATE_AFTER_S", 0)
    job = create(jobs_root)
    job.progress(1)
    assert read()["estimatedCompletionAt"] >= read()["updatedAt"]
    job.cancel()
    assert "estimatedCompletionAt" not in read()


def test_log_consists_of_whole_lines(jobs_root: Path) -> None:
    job = create(jobs_root)
    job.log("one\ntwo")
    job.log("")
    job.log("Träume\r\n\udcff")
    assert (job.path / "render.log").read_bytes() == "one\ntwo\n\nTräume\n?\n".encode()


def test_outputs_have_to_exist_too(jobs_root: Path, read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    job = create(jobs_root)
    job.add_output("preview", "output/preview.jpg", role="preview")
    render(job)
    with monkeypatch.context() as patch:
        patch.setattr(farm, "OUTPUT_TIMEOUT_S", 0.1)
        with pytest.raises(JobError, match=r"preview\.jpg is missing"):
            job.complete()
    with create(jobs_root) as job:
        job.add_output("preview", "output/preview.jpg", role="preview")
        render(job)
        render(job, "output/preview.jpg")
    assert read()["outputs"] == [{"name": "preview", "path": "output/preview.jpg", "role": "preview"}]


@pytest.mark.usefixtures("outputs_stay_missing")
def test_missing_frames_fail_the_job(jobs_root: Path, read: Read) -> None:
    job = create(jobs_root, output=None)
    job.add_output("beauty", "output/beauty.####.exr", role="main", frames="1-5")
    for frame in (1, 2, 5):
        render(job, f"output/beauty.{frame:04d}.exr")
    with pytest.raises(JobError):
        job.complete()
    assert read()["error"] == "output/beauty.####.exr: 2 frames are missing, the first is 3"


def test_directory_is_an_output(jobs_root: Path, read: Read) -> None:
    with create(jobs_root, output="output/passes/") as job:
        render(job, "output/passes/depth.exr")
    assert read()["status"] == "completed"


def test_hooks_continue_the_job(jobs_root: Path, read: Read) -> None:
    create(jobs_root)
    Job.open(jobs_root, "title").progress(40)
    render(Job.open(jobs_root, "title"))
    Job.open(jobs_root, "title").complete()
    assert (read()["status"], read()["attempt"]) == ("completed", 1)


def test_hook_of_a_job_that_does_not_exist_is_told_so(jobs_root: Path) -> None:
    with pytest.raises(JobError, match="create the job first"):
        Job.open(jobs_root, "title")
