from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from zlib import crc32

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobsvc.domain.job import Job
from jobsvc.storage.files.file_version import FileVersion
from jobsvc.storage.jobs import output_hash
from jobsvc.storage.jobs.output_hash import READ_BYTES, HashProgress, OutputChanged, OutputHasher
from jobsvc.storage.jobs.reader import JobsRoot
from tests.checks.open_fds import open_paths
from tests.conftest import MakeJob, put

FILM = bytes(range(256)) * 5000
"""A little more than one piece."""


class Film:
    """A job whose output is to be hashed."""

    def __init__(self, root: Path, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "output" / "film.mp4"
        self.root = JobsRoot(root)
        snapshot = self.root.read(folder.name)
        assert snapshot.output_version is not None
        self.job: Job = snapshot.job
        self.version: FileVersion = snapshot.output_version

    @contextmanager
    def hasher(self) -> Iterator[OutputHasher]:
        hasher = OutputHasher(self.root, self.job, self.version)
        try:
            yield hasher
        finally:
            hasher.close()


@pytest.fixture
def film(jobs_root: Path, make_job: MakeJob) -> Film:
    return Film(jobs_root, make_job(output=FILM))


@pytest.fixture
def one_chunk_per_slice(monkeypatch: pytest.MonkeyPatch) -> None:
    """End each slice after its first chunk."""
    monkeypatch.setattr(output_hash, "SLICE_S", 0)


@pytest.mark.parametrize("size", [0, 1, READ_BYTES - 1, READ_BYTES, READ_BYTES + 1, 3 * READ_BYTES + 7])
def test_digest_is_of_the_whole_file(jobs_root: Path, make_job: MakeJob, size: int) -> None:
    data = os.urandom(size)
    with Film(jobs_root, make_job(output=data)).hasher() as work:
        taken = 0
        while work.digest is None:
            taken += work.hash_slice()
        assert work.digest == hashlib.sha256(data).digest()
        assert taken == size


@pytest.mark.parametrize("size", [0, READ_BYTES + 1])
def test_crc32_is_computed_with_the_digest_if_requested(
    jobs_root: Path, make_job: MakeJob, size: int
) -> None:
    data = os.urandom(size)
    film = Film(jobs_root, make_job(output=data))
    for progress, expected in ((HashProgress(with_crc32=True), crc32(data)), (HashProgress(), None)):
        work = OutputHasher(film.root, film.job, film.version, progress)
        while work.digest is None:
            work.hash_slice()
        work.close()
        assert (work.digest, progress.crc32) == (hashlib.sha256(data).digest(), expected)


@pytest.mark.usefixtures("one_chunk_per_slice")
def test_slice_ends_when_its_time_is_over(film: Film) -> None:
    with film.hasher() as work:
        assert [work.hash_slice(), work.digest] == [READ_BYTES, None]
        assert [work.hash_slice(), work.digest] == [len(FILM) - READ_BYTES, hashlib.sha256(FILM).digest()]


def test_short_reads_are_continued(film: Film, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = os.preadv
    monkeypatch.setattr(os, "preadv", lambda fd, into, at: whole(fd, [into[0][:70_001]], at))
    with film.hasher() as work:
        while work.digest is None:
            work.hash_slice()
        assert work.digest == hashlib.sha256(FILM).digest()


def _in_place(film: Film) -> None:
    with film.path.open("r+b") as file:
        file.write(b"other")


def _shorter(film: Film) -> None:
    os.truncate(film.path, READ_BYTES - 1)


def _truncated_at_the_read_position(film: Film) -> None:
    os.truncate(film.path, READ_BYTES)


def _longer(film: Film) -> None:
    with film.path.open("ab") as file:
        file.write(b"more")


def _by_rename(film: Film) -> None:
    put(film.path, FILM)


def _rename_folder(film: Film) -> None:
    """Leave the open file unchanged, including all of its times."""
    film.path.parent.rename(film.folder / "older")
    put(film.path, FILM)


def _removed(film: Film) -> None:
    film.path.unlink()


def _hidden(film: Film) -> None:
    film.path.parent.rename(film.folder / "older")


CHANGES = [
    *(_in_place, _shorter, _truncated_at_the_read_position, _longer),
    *(_by_rename, _rename_folder, _removed, _hidden),
]


@pytest.mark.usefixtures("one_chunk_per_slice")
@pytest.mark.parametrize("change", CHANGES)
def test_file_that_changes_during_hashing_has_no_digest(film: Film, change: Callable[[Film], None]) -> None:
    with film.hasher() as work:
        work.hash_slice()
        change(film)
        with pytest.raises(OutputChanged):
            work.hash_slice()
        assert work.digest is None


@pytest.mark.usefixtures("one_chunk_per_slice")
def test_change_is_detected_before_the_rest_is_read(jobs_root: Path, make_job: MakeJob) -> None:
    film = Film(jobs_root, make_job(output=bytes(5 * READ_BYTES)))
    with film.hasher() as work:
        work.hash_slice()
        _in_place(film)
        with pytest.raises(OutputChanged):
            work.hash_slice()


@pytest.mark.parametrize("change", CHANGES)
def test_other_version_than_the_requested_one_is_not_hashed(
    film: Film, change: Callable[[Film], None]
) -> None:
    change(film)
    before = open_paths(film.folder)
    with pytest.raises(OutputChanged):
        OutputHasher(film.root, film.job, film.version)
    assert open_paths(film.folder) == before


@settings(max_examples=25, deadline=None)
@given(st.binary(max_size=100), st.binary(max_size=100))
def test_digest_applies_only_to_its_version(
    tmp_path_factory: pytest.TempPathFactory, first: bytes, second: bytes
) -> None:
    root = tmp_path_factory.mktemp("jobs")
    put(root / "a" / "output" / "film.mp4", first)
    put(root / "a" / "status.json", b'{"status":"done","owner":"anna","outputPath":"output/film.mp4"}')
    film = Film(root, root / "a")
    with film.hasher() as work:
        work.hash_slice()
        assert work.digest == hashlib.sha256(first).digest()
    put(film.path, second)
    with pytest.raises(OutputChanged):
        OutputHasher(film.root, film.job, film.version)


def test_file_is_read_if_fadvise_fails(film: Film, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: int) -> None:
        raise OSError

    monkeypatch.setattr(os, "posix_fadvise", refuse)
    with film.hasher() as work:
        while work.digest is None:
            work.hash_slice()
        assert work.digest == hashlib.sha256(FILM).digest()


def test_storage_error_is_raised(film: Film, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> int:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "preadv", fail)
    with film.hasher() as work, pytest.raises(OSError, match="Input/output"):
        work.hash_slice()
