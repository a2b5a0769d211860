"""Opening the outputs of a job by its record."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jobsvc.domain.outputs import Output
from jobsvc.storage.archive.lister import list_files
from jobsvc.storage.archive.output_source import JobOutputs
from jobsvc.storage.files.safe_open import PathNotFound
from jobsvc.storage.jobs.reader import JobsRoot
from jobsvc.storage.layout import OutputRoot
from tests.storage.archive.trees import run, write_files

OUTPUTS = [
    {"name": "film", "path": "film.mp4"},
    {"name": "beauty", "path": "out/beauty.####.exr"},
    {"name": "notes", "path": "out/notes"},
]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    record = {"status": "completed", "owner": "acme", "outputPath": "film.mp4", "outputs": OUTPUTS}
    write_files(
        tmp_path / "job",
        {
            "status.json": json.dumps(record).encode(), "film.mp4": b"film", "out/beauty.0001.exr": b"1",
            "out/notes/a/b": b"b",
        },
    )  # fmt: skip
    return tmp_path


def test_outputs_of_a_record_are_listed(root: Path) -> None:
    jobs = JobsRoot(root)
    job = jobs.read("job").job
    files = run(list_files(job.outputs, JobOutputs(jobs, job)))
    assert [(file.output.name, file.path, file.frame) for file in files] == [
        ("film", "film.mp4", None),
        ("beauty", "beauty.0001.exr", 1),
        ("notes", "a/b", None),
    ]


def test_path_through_a_link_is_not_opened(root: Path) -> None:
    (root / "job/link").symlink_to(root / "job/out")
    jobs = JobsRoot(root)
    source = JobOutputs(jobs, jobs.read("job").job)
    for opener in (source.open_file, source.open_directory, source.open_parent):
        with pytest.raises(PathNotFound):
            opener("link/notes/a")
    linked = [Output("a", "link/beauty.####.exr"), Output("b", "link/notes"), Output("c", "link")]
    assert len(run(list_files(linked, source))) == 0


def test_output_root_of_another_owner_below_an_output_is_left_out(tmp_path: Path) -> None:
    write_files(tmp_path, {"shared/x/own": b"1", "shared/x/bert/film": b"2"})
    jobs = JobsRoot(tmp_path / "jobs", (tmp_path / "shared", OutputRoot("bert", tmp_path / "shared/x/bert")))
    for owner, paths in (("anna", ["own"]), ("bert", ["bert/film", "own"])):
        record = {"status": "completed", "owner": owner, "outputPath": f"{tmp_path}/shared/x/"}
        write_files(tmp_path / "jobs" / owner, {"status.json": json.dumps(record).encode()})
        job = jobs.read(owner).job
        files = run(list_files(job.outputs, JobOutputs(jobs, job)))
        assert [file.path for file in files] == paths
        assert files.outputs[0].skipped == (owner == "anna")


def test_directory_that_another_owners_job_has_taken_is_not_opened(root: Path) -> None:
    jobs = JobsRoot(root)
    job = jobs.read("job").job
    source = JobOutputs(jobs, job)
    source.open_file("film.mp4").close()
    (root / "job/status.json").write_text(
        '{"status": "completed", "owner": "another", "outputPath": "film.mp4"}'
    )
    for opener in (source.open_file, source.open_directory, source.open_parent):
        with pytest.raises(PathNotFound):
            opener("out/notes/a/b" if opener == source.open_file else "out/notes/a")
    assert len(run(list_files(job.outputs, source))) == 0
