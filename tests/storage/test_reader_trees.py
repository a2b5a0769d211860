"""JobsRoot with unexpected entries (links, pipes, devices) and errors at every place of a job."""

from __future__ import annotations

import errno
import os
import re
import resource
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobsvc.domain.errors import LogMissing, OutputMissing
from jobsvc.domain.job import Job
from jobsvc.domain.status_record import BadRecord, parse_record
from jobsvc.storage.files.safe_open import PathNotFound
from jobsvc.storage.jobs.reader import JobsRoot
from jobsvc.storage.jobs.root_listing import find_job_directories
from tests.checks.open_fds import open_paths
from tests.conftest import MakeJob, put
from tests.programs.permissions import bound_by_permissions

GOOD = b'{"status": "completed", "owner": "anna", "outputPath": "output/shots/film.mp4"}'
JOB = parse_record("job-1", {"status": "done", "owner": "anna", "outputPath": "output/shots/film.mp4"}, 0)
PLACES = ("", "status.json", "render.log", "output", "output/shots", "output/shots/film.mp4")
"""Every place of a job, relative to its folder."""


@pytest.fixture(autouse=True)
def no_descriptor_is_left(tmp_path: Path) -> Iterator[None]:
    yield
    assert open_paths(tmp_path) == []


def build(jobs: Path) -> Path:
    """Write a valid job with a log, and a copy of it outside the root for links to lead to."""
    for folder in (jobs / "job-1", jobs.parent / "secret"):
        put(folder / "status.json", GOOD)
        put(folder / "render.log", b"secret log\n" if folder.name == "secret" else b"log\n")
        put(folder / "output" / "shots" / "film.mp4", b"secret" if folder.name == "secret" else b"film")
    return jobs / "job-1"


def remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def nothing(path: Path, twin: Path) -> None:
    """Leave the place empty."""


def link(path: Path, twin: Path) -> None:
    path.symlink_to(twin)


def dangling(path: Path, twin: Path) -> None:
    path.symlink_to("nowhere")


def loop(path: Path, twin: Path) -> None:
    path.symlink_to(path.name)


def fifo(path: Path, twin: Path) -> None:
    os.mkfifo(path)


def bound_socket(path: Path, twin: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server, tempfile.TemporaryDirectory() as short:
        server.bind(f"{short}/socket")
        os.rename(f"{short}/socket", path)  # noqa: PTH104 - a path may be longer than a socket's name


def folder(path: Path, twin: Path) -> None:
    path.mkdir()


def empty_file(path: Path, twin: Path) -> None:
    path.write_bytes(b"")


def device(path: Path, twin: Path) -> None:
    try:
        os.mknod(path, 0o20666, os.makedev(1, 5))
    except PermissionError:
        os.mkfifo(path)  # the fallback for users that may not create devices


WRONG: tuple[Callable[[Path, Path], None], ...] = (
    nothing, link, dangling, loop, fifo, bound_socket, folder, empty_file, device,
)  # fmt: skip


def damage(jobs: Path, place: str, put_there: Callable[[Path, Path], None]) -> None:
    path = jobs / "job-1" / place
    remove(path)
    put_there(path, jobs.parent / "secret" / place)


def query_all(root: JobsRoot, job: Job) -> dict[str, str]:
    """Read everything of a job and record each result or error."""

    def opened(open_it: Callable[[Job], Any]) -> str:
        file = open_it(job)
        try:
            return os.pread(file.fd, 100, 0).decode()
        finally:
            file.close()

    questions: dict[str, Callable[[], str]] = {
        "read": lambda: f"output: {root.read(job.id).output_version is not None}",
        "output": lambda: opened(root.open_output),
        "log": lambda: opened(root.open_log),
        "tail": lambda: str(root.log_tail(job)),
    }
    answers = {}
    for question, ask in questions.items():
        try:
            answers[question] = ask()
        except (PathNotFound, BadRecord, OutputMissing, LogMissing) as refused:
            answers[question] = type(refused).__name__
    return answers


GOOD_ANSWERS = {"read": "output: True", "output": "film", "log": "log\n", "tail": "log\n"}


def test_valid_job_answers_every_query(tmp_path: Path) -> None:
    build(tmp_path / "jobs")
    assert query_all(JobsRoot(tmp_path / "jobs"), JOB) == GOOD_ANSWERS


@pytest.mark.alone
@pytest.mark.parametrize("put_there", WRONG)
@pytest.mark.parametrize("place", PLACES)
def test_unexpected_entries_are_answered_without_blocking_and_reveal_nothing(
    tmp_path: Path, place: str, put_there: Callable[[Path, Path], None]
) -> None:
    build(tmp_path / "jobs")
    damage(tmp_path / "jobs", place, put_there)
    started_at = time.monotonic()
    answers = query_all(JobsRoot(tmp_path / "jobs"), JOB)
    assert time.monotonic() - started_at < 1
    expected = dict(GOOD_ANSWERS)
    if place == "":
        expected = {"read": "PathNotFound", "output": "OutputMissing", "log": "LogMissing", "tail": "None"}
        if put_there is folder:
            expected["read"] = "RecordMissing"
    elif place == "status.json":
        expected["read"] = "BadRecord" if put_there is empty_file else "RecordMissing"
    elif place == "render.log":
        expected |= (
            {"log": "", "tail": ""} if put_there is empty_file else {"log": "LogMissing", "tail": "None"}
        )
    elif place == "output/shots/film.mp4" and put_there is empty_file:
        expected["output"] = ""
    else:
        expected |= {"read": "output: False", "output": "OutputMissing"}
    assert answers == expected


@settings(max_examples=80, deadline=None)
@given(
    wrongs=st.lists(st.tuples(st.sampled_from(PLACES), st.sampled_from(WRONG)), max_size=4),
    record=st.sampled_from([GOOD, b"{", b"", b"[]", b"\xff"]) | st.binary(max_size=30),
)
def test_broken_trees_neither_leak_block_nor_reveal_other_files(
    wrongs: list[tuple[str, Callable[[Path, Path], None]]], record: bytes
) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        jobs = Path(scratch) / "jobs"
        put(build(jobs) / "status.json", record)
        for place, put_there in wrongs:
            if (jobs / "job-1" / place).parent.is_dir() and not (jobs / "job-1" / place).parent.is_symlink():
                damage(jobs, place, put_there)
        root = JobsRoot(jobs)
        answers = query_all(root, JOB)
        assert not any("secret" in answer for answer in answers.values())
        if answers["read"].startswith("output"):
            assert (answers["read"] == "output: True") == (answers["output"] != "OutputMissing")
        assert (answers["log"] == "LogMissing") == (answers["tail"] == "None")
        assert set(find_job_directories(root.path).ids) <= {"job-1"}
        assert open_paths(Path(scratch)) == []


def test_record_is_not_followed_through_a_link_within_its_directory(
    make_job: MakeJob, jobs_root: Path
) -> None:
    folder = make_job(output=b"film")
    (folder / "again.mp4").symlink_to("output/film.mp4")
    (folder / "status.json").rename(folder / "real.json")
    (folder / "status.json").symlink_to("real.json")
    with pytest.raises(PathNotFound):
        JobsRoot(jobs_root).read("job-1")


# Permission denied ------------------------------------------------------------------------


@pytest.fixture
def open_to_all() -> Iterator[Path]:
    """A directory that any user may enter, unlike pytest's own."""
    with tempfile.TemporaryDirectory() as scratch:
        Path(scratch).chmod(0o755)
        yield Path(scratch) / "jobs"


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ("status.json", {"read": "BadRecord"}),
        ("render.log", {"log": "LogMissing", "tail": "None"}),
        ("output", {"read": "output: False", "output": "OutputMissing"}),
        ("output/shots", {"read": "output: False", "output": "OutputMissing"}),
        ("output/shots/film.mp4", {"read": "output: False", "output": "OutputMissing"}),
        ("", {"read": "BadRecord", "output": "OutputMissing", "log": "LogMissing", "tail": "None"}),
    ],
)
def test_unreadable_entry_is_missing_or_invalid_and_not_a_storage_error(
    open_to_all: Path, place: str, expected: dict[str, str]
) -> None:
    job = build(open_to_all)
    (job / place).chmod(0)
    with bound_by_permissions():
        answers = query_all(JobsRoot(open_to_all), JOB)
    (job / place).chmod(0o755)
    assert answers == GOOD_ANSWERS | expected
    assert open_paths(open_to_all.parent) == []


def test_root_that_may_not_be_entered_is_a_storage_error(open_to_all: Path) -> None:
    build(open_to_all)
    open_to_all.chmod(0)
    with bound_by_permissions():
        root = JobsRoot(open_to_all)
        listing = partial(find_job_directories, open_to_all)
        for ask in (listing, lambda: root.read("job-1"), lambda: root.open_output(JOB)):
            with pytest.raises(PermissionError):
                ask()
    open_to_all.chmod(0o755)


# Errors ----------------------------------------------------------------------------------------------


def failing(
    monkeypatch: pytest.MonkeyPatch, function: str, code: int, fails: Callable[[int], bool]
) -> list[int]:
    """Make a system call fail by its count from 1; a stand-in, no file system fails on demand."""
    calls: list[int] = []
    real = getattr(os, function)

    def stand_in(*args: Any, **kwargs: Any) -> Any:
        calls.append(len(calls) + 1)
        if fails(calls[-1]):
            raise OSError(code, os.strerror(code))
        return real(*args, **kwargs)

    monkeypatch.setattr(os, function, stand_in)
    return calls


QUESTIONS: dict[str, Callable[[JobsRoot], object]] = {
    "read": lambda root: root.read("job-1"),
    "output": lambda root: root.open_output(JOB).close(),
    "log": lambda root: root.open_log(JOB).close(),
    "tail": lambda root: root.log_tail(JOB),
}


@pytest.mark.parametrize("function", ["open", "fstat"])
@pytest.mark.parametrize("question", QUESTIONS)
def test_stale_handle_is_retried_three_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, question: str, function: str
) -> None:
    """NFS returns ESTALE if a file was replaced between lookup and open."""
    build(tmp_path / "jobs")
    root = JobsRoot(tmp_path / "jobs")
    with monkeypatch.context() as patched:
        calls = failing(patched, function, errno.ESTALE, lambda count: count <= 2)
        QUESTIONS[question](root)
        assert len(calls) > 2
    with monkeypatch.context() as patched:
        calls = failing(patched, function, errno.ESTALE, lambda _: True)
        with pytest.raises(OSError, match=os.strerror(errno.ESTALE)) as stale:
            QUESTIONS[question](root)
        assert (stale.value.errno, len(calls)) == (errno.ESTALE, 3)


@pytest.mark.parametrize("code", [errno.EIO, errno.EMFILE, errno.ESTALE])
@pytest.mark.parametrize("function", ["open", "fstat", "pread"])
@pytest.mark.parametrize("question", QUESTIONS)
def test_error_at_any_step_is_raised_and_leaves_nothing_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, question: str, function: str, code: int
) -> None:
    build(tmp_path / "jobs")
    root = JobsRoot(tmp_path / "jobs")
    monkeypatch.setattr("jobsvc.storage.files.safe_open._STALE_PAUSE_S", 0)
    with monkeypatch.context() as patched:
        calls = failing(patched, function, code, lambda _: False)
        QUESTIONS[question](root)
        steps = len(calls)
    for step in range(1, steps + 1):
        with monkeypatch.context() as patched:
            failing(patched, function, code, step.__le__)
            with pytest.raises(OSError, match=re.escape(os.strerror(code))) as fault:
                QUESTIONS[question](root)
            assert fault.value.errno == code
        assert open_paths(tmp_path) == []


@pytest.mark.parametrize("question", QUESTIONS)
def test_process_without_descriptors_fails_and_leaves_nothing_open(tmp_path: Path, question: str) -> None:
    build(tmp_path / "jobs")
    root = JobsRoot(tmp_path / "jobs")
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = [os.open("/", os.O_PATH) for _ in range(8)]
    top = max(taken) + 1
    outcomes = []
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (top, limits[1]))
        while taken:
            try:
                QUESTIONS[question](root)
                outcomes.append(0)
            except OSError as fault:
                outcomes.append(fault.errno or 0)
            os.close(taken.pop())
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for fd in taken:
            os.close(fd)
    assert set(outcomes) == {errno.EMFILE, 0}
    assert open_paths(tmp_path) == []
