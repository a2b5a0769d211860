from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobsvc.storage.files.safe_open import DIRECTORY_FLAGS
from jobsvc.storage.jobs.reader import JobsRoot
from jobsvc.storage.jobs.snapshot import JobSnapshot
from jobsvc.storage.jobs.stat_check import is_unchanged


def settled(known: JobSnapshot, *, settled: bool = True) -> JobSnapshot:
    """Read the job so late that its times prove its content, or so early that they do not."""
    return JobSnapshot.from_tuple(known.job.id, (*known.to_tuple()[:-1], settled))


class Root:
    """A root with one job in it, and the snapshot that was read of it."""

    def __init__(self, path: Path, record: str) -> None:
        self.path = path
        self.job = path / "a"
        self.job.mkdir()
        (self.job / "status.json").write_text(record)
        # As if it had been read two seconds later.
        self.known = settled(JobsRoot(path).read("a"))
        self.fd = os.open(path, DIRECTORY_FLAGS)

    def unchanged(self) -> bool:
        return is_unchanged(self.fd, "a", self.known)


RENDERING = '{"status": "rendering", "owner": "ann"}'


@pytest.fixture
def root(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Root]:
    root = Root(tmp_path, getattr(request, "param", RENDERING))
    yield root
    os.close(root.fd)


def completed(path: str) -> str:
    return f'{{"status": "completed", "owner": "ann", "outputPath": "{path}"}}'


def test_untouched_job_is_unchanged(root: Root) -> None:
    assert root.unchanged()


def test_unstable_snapshot_proves_nothing(root: Root) -> None:
    root.known = settled(root.known, settled=False)
    assert not root.unchanged()


def test_replaced_record_is_a_change(root: Root) -> None:
    new_file = root.job / "beside"
    new_file.write_text(RENDERING)
    new_file.rename(root.job / "status.json")
    assert not root.unchanged()


def test_removed_record_is_a_change(root: Root) -> None:
    (root.job / "status.json").unlink()
    assert not root.unchanged()


def test_link_to_the_same_directory_is_a_change(root: Root) -> None:
    root.job.rename(root.path / "b")
    root.job.symlink_to(root.path / "b")
    assert not root.unchanged()


def test_link_to_the_same_record_is_a_change(root: Root) -> None:
    record = root.job / "status.json"
    record.rename(root.job / "kept")
    record.symlink_to(root.job / "kept")
    assert not root.unchanged()


@pytest.mark.parametrize("root", [completed("out/deep/film.mp4"), completed("film.mp4")], indirect=True)
def test_new_output_is_a_change(root: Root) -> None:
    assert root.unchanged()
    output = root.job / (root.known.job.output_path or "")
    output.parent.mkdir(parents=True, exist_ok=True)
    assert root.unchanged()
    os.mkfifo(output)
    assert root.unchanged()
    output.unlink()
    output.write_bytes(b"film")
    assert not root.unchanged()


@pytest.mark.parametrize("root", [completed("out/film.mp4")], indirect=True)
def test_new_directory_in_place_of_an_output_is_a_change(root: Root) -> None:
    (root.job / "out" / "film.mp4").mkdir(parents=True)
    assert not root.unchanged()


@pytest.mark.parametrize("root", [completed("out/film.mp4")], indirect=True)
def test_linked_output_directory_hides_the_output(root: Root) -> None:
    (root.job / "kept").mkdir()
    (root.job / "kept" / "film.mp4").write_bytes(b"film")
    (root.job / "out").symlink_to(root.job / "kept")
    assert root.unchanged()


@pytest.mark.parametrize("root", [completed("../film.mp4")], indirect=True)
def test_path_that_names_nothing_is_still_missing(root: Root) -> None:
    assert root.unchanged()


@pytest.mark.parametrize("root", [completed("/renders/film.mp4")], indirect=True)
def test_output_outside_the_job_directory_has_to_be_read(root: Root) -> None:
    assert not root.unchanged()


@pytest.mark.parametrize("root", [completed("out/film.mp4"), completed("film.mp4")], indirect=True)
def test_new_version_of_an_output_is_a_change(root: Root) -> None:
    output = root.job / (root.known.job.output_path or "")
    output.parent.mkdir(exist_ok=True)
    output.write_bytes(b"film")
    root.known = settled(JobsRoot(root.path).read("a"))
    assert root.unchanged()
    times = output.stat()
    output.write_bytes(b"mlif")
    os.utime(output, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert not root.unchanged()


@pytest.mark.parametrize("root", [completed("film.mp4")], indirect=True)
def test_output_that_became_unreadable_is_a_change(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    (root.job / "film.mp4").write_bytes(b"film")
    root.known = settled(JobsRoot(root.path).read("a"))
    monkeypatch.setattr(os, "access", lambda *_, **__: False)
    assert not root.unchanged()
