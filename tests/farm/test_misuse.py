"""Whatever a program passes to the writer: what is written is a job that the service can read."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jobsvc import farm
from jobsvc.farm import Job, JobError
from tests.farm.conftest import Read
from tests.farm.test_job import create, render


class Integer:
    """A number that json cannot write, like those of numpy."""

    def __index__(self) -> int:
        return 12

    def __float__(self) -> float:
        return 12.0


def nested(levels: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(levels):
        value = {"a": value}
    return value


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"owner": ""}, "owner"),
        ({"metadata": [1]}, "metadata"),
        ({"metadata": {"a": "x" * 2_000_000}}, "2,000,1"),
        ({"metadata": nested(100_000)}, "nested too deeply"),
        ({"output": "a\0b"}, "NUL"),
        ({"output": "a\udcff.mp4"}, "UTF-8"),
        ({"output": "status.json"}, "written by jobsvc"),
        ({"output": ""}, "name a path"),
        ({"output": "../a.mp4"}, "without '..'"),
    ],
)
def test_job_that_the_service_would_not_read_is_refused(
    jobs_root: Path, values: dict[str, Any], message: str
) -> None:
    with pytest.raises(JobError, match=message):
        Job.create(jobs_root, **{"owner": "acme", "job_id": "title", **values})
    assert not list(jobs_root.iterdir())


def test_file_instead_of_the_root_is_named(tmp_path: Path) -> None:
    (tmp_path / "jobs").touch()
    with pytest.raises(NotADirectoryError, match="the directory of the jobs is missing") as error:
        Job.create(tmp_path / "jobs", owner="acme")
    assert error.value.filename == str(tmp_path / "jobs")


def test_number_instead_of_frames_is_named(jobs_root: Path) -> None:
    frames: Any = 5
    with pytest.raises(TypeError, match=r"frames is 5, use \(done, total\)"):
        create(jobs_root).progress(frames=frames)


def test_missing_root_is_named_when_a_job_is_opened(jobs_root: Path) -> None:
    with pytest.raises(
        JobError, match="missing is missing: create the directory of the jobs, or mount the share"
    ):
        Job.open(jobs_root / "missing", "title")


@pytest.mark.parametrize(
    ("name", "path", "values"),
    [
        ("a b", "b", {}),
        ("FILM", "b", {}),
        ("b", "b", {"role": "movie"}),
        ("b", "b", {"frames": "abc"}),
        ("b", "b", {"frames": "9-7"}),
        ("b", "b", {"frames": (1, 2)}),
        ("b", "b", {"role": "main"}),
        ("main", "b", {}),
    ],
)
def test_output_that_the_service_would_not_read_is_refused(
    jobs_root: Path, read: Read, name: str, path: str, values: dict[str, Any]
) -> None:
    job = create(jobs_root)
    job.add_output("film", "film.mp4")
    with pytest.raises(JobError):
        job.add_output(name, path, **values)
    assert [output["name"] for output in read()["outputs"]] == ["film"]


def test_257_outputs_are_refused(jobs_root: Path, read: Read) -> None:
    job = create(jobs_root, output=None)
    for number in range(256):
        job.add_output(f"film-{number}", "film.mp4")
    with pytest.raises(JobError, match="more than 256"):
        job.add_output("film", "film.mp4")
    assert len(read()["outputs"]) == 256


def test_numbers_of_other_types_are_written(jobs_root: Path, read: Read) -> None:
    create(jobs_root).progress(Integer(), frames=(Integer(), 250))  # type: ignore[arg-type]
    assert (read()["progress"], read()["framesDone"]) == (12, 12)


@pytest.mark.parametrize("frames", [(1.5, 3), (-1, 3), (1, -3), (10**30, 10**31)])
def test_impossible_number_of_frames_is_refused(jobs_root: Path, read: Read, frames: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        create(jobs_root).progress(frames=frames)
    assert read()["status"] == "queued"


def test_error_of_any_length_and_type_is_written(jobs_root: Path, read: Read) -> None:
    create(jobs_root).fail(ValueError("x" * 2_000_000))  # type: ignore[arg-type]
    assert len(read()["error"]) == farm.MAX_TEXT


@pytest.mark.usefixtures("outputs_stay_missing")
def test_linked_output_does_not_complete_the_job(jobs_root: Path, tmp_path: Path, read: Read) -> None:
    (tmp_path / "film.mp4").write_bytes(b"film")
    with pytest.raises(JobError, match="symbolic link"), create(jobs_root, output="output/film.mp4") as job:
        (job.path / "output/film.mp4").symlink_to(tmp_path / "film.mp4")
    assert read()["status"] == "failed"


def test_next_attempt_removes_nothing_through_a_link(jobs_root: Path, tmp_path: Path) -> None:
    (tmp_path / "film.0001.exr").write_bytes(b"film")
    job = Job.create(jobs_root, owner="acme", job_id="title", output="linked/film.####.exr")
    (job.path / "linked").rmdir()
    (job.path / "linked").symlink_to(tmp_path)
    create(jobs_root)
    assert (tmp_path / "film.0001.exr").exists()


def test_file_that_is_replaced_during_the_check_does_not_end_the_program(
    jobs_root: Path, read: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    check, failures = farm._check_output, [FileNotFoundError("film.mp4")]

    def check_once(folder: Path, output: dict[str, Any]) -> Any:
        if failures:
            raise failures.pop()
        return check(folder, output)

    monkeypatch.setattr(farm, "_check_output", check_once)
    with create(jobs_root) as job:
        render(job)
    assert read()["status"] == "completed"


def test_lines_after_the_end_are_logged(jobs_root: Path) -> None:
    with create(jobs_root) as job:
        job.cancel()
        job.log("the licence is returned")
    assert (job.path / "render.log").read_text() == "the licence is returned\n"


def test_second_interrupt_does_not_leave_the_job_unfinished(
    jobs_root: Path, read: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, signals = farm._write_record, [signal.SIGINT]

    def interrupted_write(path: Path, record: dict[str, Any]) -> None:
        if record["status"] == "canceled" and signals:
            signal.raise_signal(signals.pop())
        write(path, record)

    monkeypatch.setattr(farm, "_write_record", interrupted_write)
    with pytest.raises(KeyboardInterrupt), create(jobs_root):
        raise KeyboardInterrupt
    assert read()["status"] == "canceled"


@pytest.fixture
def default_signals() -> Iterator[None]:
    """Undo nohup(1), which the tests may run under, and the handler of coverage."""
    numbers = (signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, signal.SIG_DFL) for number in numbers]
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


@pytest.mark.usefixtures("default_signals")
def test_second_termination_does_not_interrupt_the_end(
    jobs_root: Path, read: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    pid, signals = os.getpid(), [signal.SIGTERM]

    def interrupted_getpid() -> int:
        """It is the first call at the end of the block."""
        if signals:
            signal.raise_signal(signals.pop())
        return pid

    def interrupt() -> None:
        monkeypatch.setattr(os, "getpid", interrupted_getpid)
        signal.raise_signal(signal.SIGTERM)

    with pytest.raises(SystemExit), create(jobs_root):
        interrupt()
    assert (read()["status"], signals) == ("canceled", [])
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


@pytest.mark.usefixtures("default_signals")
def test_job_that_was_canceled_when_its_cancel_is_interrupted_is_no_error(
    jobs_root: Path, read: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, signals = farm._write_record, [signal.SIGTERM]

    def write_and_interrupt(path: Path, record: dict[str, Any]) -> None:
        write(path, record)
        if record["status"] == "canceled" and signals:
            signal.raise_signal(signals.pop())

    monkeypatch.setattr(farm, "_write_record", write_and_interrupt)
    with pytest.raises(SystemExit) as end, create(jobs_root) as job:
        job.cancel()
    assert (read()["status"], end.value.code) == ("canceled", 128 + signal.SIGTERM)


@pytest.mark.usefixtures("default_signals")
def test_hangup_cancels_the_job(jobs_root: Path, read: Read) -> None:
    with pytest.raises(SystemExit) as end, create(jobs_root):
        signal.raise_signal(signal.SIGHUP)
    assert (read()["status"], end.value.code) == ("canceled", 128 + signal.SIGHUP)


def test_ignored_hangup_stays_ignored(jobs_root: Path) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with create(jobs_root, output=None):
            signal.raise_signal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)
