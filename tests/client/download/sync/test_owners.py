"""Files of two jobs never replace each other."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

from jobsvc.client.download.sync.owners import Owners
from jobsvc.client.download.sync.plan import NameTemplate
from jobsvc.client.download.sync.state import SyncSource, SyncState
from jobsvc.client.errors import DownloadError

SOURCE: Final = SyncSource("https://render.example.com", "{path}", ("completed",), "0123abcd")


def owners(folder: Path, template: str, *, is_insensitive: bool = False) -> Owners:
    """Return the owners of a directory with one file of job-1."""
    state = SyncState.load(folder, SOURCE)
    state.add_file("job-1", "film.mp4", '"etag"')
    return Owners(state, NameTemplate(template), lambda: is_insensitive)


@pytest.mark.parametrize(
    "path", [".jobsvc-sync.json", ".jobsvc-sync.json.new", ".jobsvc-sync.lock", ".JOBSVC-SYNC.json/x"]
)
def test_names_of_the_sync_itself_are_refused(tmp_path: Path, path: str) -> None:
    with pytest.raises(DownloadError, match="belongs to the sync itself"):
        owners(tmp_path, "{path}").claim("job-1", [path])


def test_file_of_another_job_is_refused(tmp_path: Path) -> None:
    found = owners(tmp_path, "{path}")
    found.claim("job-1", ["film.mp4"])
    with pytest.raises(DownloadError, match=r"Files of job-2 and job-1 have the same name film\.mp4"):
        found.claim("job-2", ["film.mp4"])


def test_file_of_another_job_of_this_run_is_refused(tmp_path: Path) -> None:
    found = owners(tmp_path, "{path}")
    found.claim("job-2", ["new.mp4"])
    with pytest.raises(DownloadError, match=r"job-3 and job-2"):
        found.claim("job-3", ["new.mp4"])


def test_names_that_differ_in_case_are_one_file_where_the_directory_says_so(tmp_path: Path) -> None:
    owners(tmp_path, "{path}").claim("job-2", ["FILM.mp4"])
    with pytest.raises(DownloadError, match="have the same name"):
        owners(tmp_path, "{path}", is_insensitive=True).claim("job-2", ["FILM.mp4"])


def test_ids_that_differ_in_case_are_one_directory_where_the_directory_says_so(tmp_path: Path) -> None:
    owners(tmp_path, "{id}/{path}").claim("JOB-1", ["JOB-1/film.mp4"])
    with pytest.raises(DownloadError, match="the same directory"):
        owners(tmp_path, "{id}/{path}", is_insensitive=True).claim("JOB-1", ["JOB-1/film.mp4"])
