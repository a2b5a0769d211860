"""The directories of outputs, opened by the paths that a record names."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from jobsvc.domain.job import Job
from jobsvc.storage.files.safe_open import PathNotFound
from jobsvc.storage.jobs.output_roots import OutputRoots
from jobsvc.storage.jobs.reader import JobsRoot
from jobsvc.storage.layout import OutputRoot
from tests.conftest import MakeJob, put


@pytest.fixture
def folder(make_job: MakeJob) -> Path:
    """A job directory with frames below `output/frames`."""
    made = make_job(status="completed")
    put(made / "output" / "frames" / "a.0001.png", b"frame")
    return made


def job_of(jobs_root: Path) -> Job:
    return JobsRoot(jobs_root).read("job-1").job


def names_in(descriptor: int) -> list[str]:
    """List an O_PATH descriptor, and close it."""
    readable = os.open(".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=descriptor)
    try:
        return os.listdir(readable)  # noqa: PTH208 - of a descriptor
    finally:
        os.close(readable)
        os.close(descriptor)


@pytest.mark.parametrize("path", ["output/frames", "output/frames/", "./output//frames/."])
def test_output_directory_is_opened_by_its_path(folder: Path, jobs_root: Path, path: str) -> None:
    descriptor = JobsRoot(jobs_root).open_output_directory(job_of(jobs_root), path)
    assert os.fstat(descriptor).st_ino == (folder / "output" / "frames").stat().st_ino
    assert stat.S_ISDIR(os.fstat(descriptor).st_mode)
    assert not os.get_inheritable(descriptor)
    assert names_in(descriptor) == ["a.0001.png"]


@pytest.mark.parametrize(
    "path",
    [
        "",
        ".",
        "/",
        "..",
        "output/..",
        "output/frames/../frames",
        "output/frames/a.0001.png",
        "none",
        "\0",
        "/usr",
    ],
)
def test_path_that_leads_to_no_directory_of_the_job_is_not_found(
    folder: Path, jobs_root: Path, path: str
) -> None:
    with pytest.raises(PathNotFound):
        JobsRoot(jobs_root).open_output_directory(job_of(jobs_root), path)


@pytest.mark.parametrize("path", ["link", "link/frames", "output/inner"])
def test_symbolic_link_on_the_way_to_a_directory_is_not_followed(
    folder: Path, jobs_root: Path, path: str
) -> None:
    (folder / "link").symlink_to("output")
    (folder / "output" / "inner").symlink_to("frames")
    with pytest.raises(PathNotFound):
        JobsRoot(jobs_root).open_output_directory(job_of(jobs_root), path)


@pytest.mark.parametrize(
    ("path", "content"),
    [("output/frames/a.####.png", ["a.0001.png"]), ("a.####.png", ["output", "status.json"])],
)
def test_directory_of_a_sequence_can_be_the_job_directory(
    folder: Path, jobs_root: Path, path: str, content: list[str]
) -> None:
    descriptor = JobsRoot(jobs_root).open_frames_directory(job_of(jobs_root), path)
    assert sorted(names_in(descriptor)) == content


def test_frames_may_be_in_the_output_root_itself(folder: Path, jobs_root: Path, tmp_path: Path) -> None:
    put(tmp_path / "renders" / "a.0001.png", b"frame")
    root = JobsRoot(jobs_root, [tmp_path / "renders"])
    pattern = str(tmp_path / "renders" / "a.####.png")
    assert names_in(root.open_frames_directory(job_of(jobs_root), pattern)) == ["a.0001.png"]


def test_directory_in_the_output_root_of_another_owner_is_not_found(
    folder: Path, jobs_root: Path, tmp_path: Path
) -> None:
    (tmp_path / "renders" / "night").mkdir(parents=True)
    path = str(tmp_path / "renders" / "night")
    os.close(
        JobsRoot(jobs_root, [OutputRoot("anna", tmp_path / "renders")]).open_output_directory(
            job_of(jobs_root), path
        )
    )
    with pytest.raises(PathNotFound):
        JobsRoot(jobs_root, [OutputRoot("bert", tmp_path / "renders")]).open_output_directory(
            job_of(jobs_root), path
        )


def test_file_of_an_output_is_opened_by_its_path(folder: Path, jobs_root: Path) -> None:
    file = JobsRoot(jobs_root).open_path(job_of(jobs_root), "output/frames/a.0001.png")
    assert (file.name, file.version.size) == ("a.0001.png", 5)
    file.close()


def test_fifo_in_an_output_is_not_found(folder: Path, jobs_root: Path) -> None:
    os.mkfifo(folder / "output" / "frames" / "fifo")
    with pytest.raises(PathNotFound):
        JobsRoot(jobs_root).open_path(job_of(jobs_root), "output/frames/fifo")


@pytest.mark.parametrize(
    "open_path", [JobsRoot.open_path, JobsRoot.open_output_directory, JobsRoot.open_frames_directory]
)
def test_missing_root_is_a_storage_error(
    folder: Path, jobs_root: Path, open_path: Callable[[JobsRoot, Job, str], object]
) -> None:
    job = job_of(jobs_root)
    with pytest.raises(FileNotFoundError):
        open_path(JobsRoot(jobs_root.with_name("gone")), job, "output/frames")


def test_output_roots_are_the_same_after_they_were_passed_as_text() -> None:
    roots: list[Path | OutputRoot] = [Path("/renders"), OutputRoot("anna", Path("/renders/anna"))]
    passed = OutputRoots([OutputRoots.parse(text) for text in OutputRoots(roots).arguments()])
    assert passed.arguments() == ["anna=/renders/anna", "/renders"]
    assert passed.names == ["/renders/anna", "/renders"]
