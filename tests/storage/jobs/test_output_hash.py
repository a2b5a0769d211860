from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobsvc.domain.job import Job
from jobsvc.storage.files.file_version import FileVersion
from jobsvc.storage.jobs import output_hash
from jobsvc.storage.jobs.output_hash import READ_BYTES, OutputChanged, OutputHasher
from jobsvc.storage.jobs.reader import JobsRoot
from tests.conftest import MakeJob, put
from tests.open_fds import open_paths

FILM = bytes(range(256)) * 5000
"""A little more than one piece."""


class Film:
    """A job whose output is to be hashed."""

    def __init__(self, root: Path, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "output" / "film.mp4"
        self.root = JobsRoot(root)
        reading = self.root.read(folder.name)
        assert reading.output_version is not None
        self.job: Job = reading.job
        self.identity: FileVersion = reading.output_version

    @contextmanager
    def begun(self) -> Iterator[OutputHasher]:
        begun = OutputHasher(self.root, self.job, self.identity)
        try:
            yield begun
        finally:
            begun.close()


@pytest.fixture
def film(jobs_root: Path, make_job: MakeJob) -> Film:
    return Film(jobs_root, make_job(output=FILM))


@pytest.fixture
def piecemeal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a slice be over after its first piece."""
    monkeypatch.setattr(output_hash, "SLICE_S", 0)


@pytest.mark.parametrize("size", [0, 1, READ_BYTES - 1, READ_BYTES, READ_BYTES + 1, 3 * READ_BYTES + 7])
def test_the_digest_is_of_the_whole_file(jobs_root: Path, make_job: MakeJob, size: int) -> None:
    data = os.urandom(size)
    with Film(jobs_root, make_job(output=data)).begun() as work:
        taken = 0
        while work.digest is None:
            taken += work.hash_slice()
        assert work.digest == hashlib.sha256(data).digest()
        assert taken == size


@pytest.mark.usefixtures("piecemeal")
def test_a_slice_ends_when_its_time_is_over(film: Film) -> None:
    with film.begun() as work:
        assert [work.hash_slice(), work.digest] == [READ_BYTES, None]
        assert [work.hash_slice(), work.digest] == [len(FILM) - READ_BYTES, hashlib.sha256(FILM).digest()]


def test_a_read_may_bring_less_than_it_was_asked_for(film: Film, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = os.preadv
    monkeypatch.setattr(os, "preadv", lambda fd, into, at: whole(fd, [into[0][:70_001]], at))
    with film.begun() as work:
        while work.digest is None:
            work.hash_slice()
        assert work.digest == hashlib.sha256(FILM).digest()


def _in_place(film: Film) -> None:
    with film.path.open("r+b") as file:
        file.write(b"other")


def _shorter(film: Film) -> None:
    os.truncate(film.path, READ_BYTES - 1)


def _shortened_to_where_we_are(film: Film) -> None:
    os.truncate(film.path, READ_BYTES)


def _longer(film: Film) -> None:
    with film.path.open("ab") as file:
        file.write(b"more")


def _by_rename(film: Film) -> None:
    put(film.path, FILM)


def _by_a_rename_of_its_folder(film: Film) -> None:
    """Leave the open file as it was, to the last of its times."""
    film.path.parent.rename(film.folder / "older")
    put(film.path, FILM)


def _removed(film: Film) -> None:
    film.path.unlink()


def _hidden(film: Film) -> None:
    film.path.parent.rename(film.folder / "older")


CHANGES = [
    *(_in_place, _shorter, _shortened_to_where_we_are, _longer),
    *(_by_rename, _by_a_rename_of_its_folder, _removed, _hidden),
]


@pytest.mark.usefixtures("piecemeal")
@pytest.mark.parametrize("change", CHANGES)
def test_a_file_that_changes_meanwhile_gives_nothing(film: Film, change: Callable[[Film], None]) -> None:
    with film.begun() as work:
        work.hash_slice()
        change(film)
        with pytest.raises(OutputChanged):
            work.hash_slice()
        assert work.digest is None


@pytest.mark.usefixtures("piecemeal")
def test_a_change_is_found_out_before_the_rest_is_read(jobs_root: Path, make_job: MakeJob) -> None:
    film = Film(jobs_root, make_job(output=bytes(5 * READ_BYTES)))
    with film.begun() as work:
        work.hash_slice()
        _in_place(film)
        with pytest.raises(OutputChanged):
            work.hash_slice()


@pytest.mark.parametrize("change", CHANGES)
def test_another_version_than_the_one_wished_for_is_not_begun(
    film: Film, change: Callable[[Film], None]
) -> None:
    change(film)
    before = open_paths(film.folder)
    with pytest.raises(OutputChanged):
        OutputHasher(film.root, film.job, film.identity)
    assert open_paths(film.folder) == before


@settings(max_examples=25, deadline=None)
@given(st.binary(max_size=100), st.binary(max_size=100))
def test_what_is_known_of_a_version_is_true_of_it_alone(
    tmp_path_factory: pytest.TempPathFactory, first: bytes, second: bytes
) -> None:
    root = tmp_path_factory.mktemp("jobs")
    put(root / "a" / "output" / "film.mp4", first)
    put(root / "a" / "status.json", b'{"status":"done","owner":"anna","outputPath":"output/film.mp4"}')
    film = Film(root, root / "a")
    with film.begun() as work:
        work.hash_slice()
        assert work.digest == hashlib.sha256(first).digest()
    put(film.path, second)
    with pytest.raises(OutputChanged):
        OutputHasher(film.root, film.job, film.identity)


def test_storage_that_takes_no_advice_is_read_all_the_same(
    film: Film, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: int) -> None:
        raise OSError

    monkeypatch.setattr(os, "posix_fadvise", refuse)
    with film.begun() as work:
        work.hash_slice()
        assert work.digest == hashlib.sha256(FILM).digest()


def test_a_fault_of_storage_is_the_callers(film: Film, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> int:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "preadv", fail)
    with film.begun() as work, pytest.raises(OSError, match="Input/output"):
        work.hash_slice()
