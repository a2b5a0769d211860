"""The state file of a directory: what is accepted, what is refused, and how it is written."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest

from jobsvc.client.download.sync import state as module
from jobsvc.client.download.sync.errors import StateNotSaved
from jobsvc.client.download.sync.state import (
    LIST_MARGIN_S,
    STATE_NAME,
    ListedJob,
    SyncSource,
    SyncState,
    listed_job,
)
from jobsvc.client.errors import DownloadError
from jobsvc.client.models import Job

SOURCE: Final = SyncSource("https://render.example.com", "{id}/{path}", ("completed",), "0123abcd")
NOW: Final = 1_800_000_000.0
UPDATED: Final = datetime.fromtimestamp(NOW, UTC) - timedelta(minutes=1)
JOB: Final = ListedJob("job-1", "completed", "mark", UPDATED)


def saved(folder: Path, source: SyncSource = SOURCE) -> SyncState:
    """Return the state after all jobs, one of them, were listed and downloaded."""
    state = SyncState.load(folder, source)
    state.begin(JOB.id)
    state.add_file(JOB.id, "job-1/film.mp4", '"etag"')
    state.finish(JOB, ["job-1/film.mp4"])
    state.listed([JOB.id], JOB.updated_at, NOW, is_full=True)
    state.save()
    return state


def job(**document: Any) -> Job:
    return Job(
        "job-1", "completed", 100.0, UPDATED, UPDATED, None, {"updatedAt": "2027-01-15T08:00:00Z", **document}
    )


def test_state_that_is_loaded_is_the_one_that_was_saved(tmp_path: Path) -> None:
    saved(tmp_path)
    state = SyncState.load(tmp_path, SOURCE)
    assert state.is_done(JOB)
    assert state.files_of("job-1") == {"job-1/film.mp4": '"etag"'}
    assert list(state.paths()) == [("job-1/film.mp4", "job-1")]
    assert state.updated_since(NOW) == UPDATED - timedelta(seconds=LIST_MARGIN_S)


def test_job_with_another_mark_is_not_done(tmp_path: Path) -> None:
    assert not saved(tmp_path).is_done(JOB._replace(mark="other"))


@pytest.mark.parametrize(
    ("change", "is_same"),
    [
        ({}, True),
        ({"progress": 3}, True),
        ({"updatedAt": "2027-01-15T08:00:01Z"}, False),
        ({"downloadUrl": "/api/jobs/job-1/download?version=abcdefghijklmnopqrstuv"}, False),
    ],
)
def test_mark_changes_with_the_record_and_the_main_output(change: dict[str, Any], *, is_same: bool) -> None:
    assert (listed_job(job(**change)).mark == listed_job(job()).mark) is is_same


def test_mark_is_the_same_behind_another_proxy() -> None:
    version = "download?version=abcdefghijklmnopqrstuv"
    first, second = (
        listed_job(job(downloadUrl=f"{prefix}{version}")) for prefix in ("", "https://x/api/jobs/1/")
    )
    assert first.mark == second.mark


def test_first_run_lists_all_jobs(tmp_path: Path) -> None:
    assert SyncState.load(tmp_path, SOURCE).updated_since(NOW) is None


@pytest.mark.parametrize(
    "change", [{"status": ("completed", "failed")}, {"token_hash": "ffffffff"}], ids=["states", "token"]
)
def test_other_states_or_another_token_list_all_jobs_again(tmp_path: Path, change: dict[str, Any]) -> None:
    saved(tmp_path)
    state = SyncState.load(tmp_path, SOURCE._replace(**change))
    assert state.updated_since(NOW) is None
    assert state.is_done(JOB)


@pytest.mark.parametrize(
    ("change", "remedy"),
    [
        ({"base_url": "https://other.example.com"}, "into another directory"),
        ({"name": "{path}"}, "Use the same name"),
    ],
)
def test_another_service_or_other_names_are_refused(
    tmp_path: Path, change: dict[str, Any], remedy: str
) -> None:
    saved(tmp_path)
    with pytest.raises(DownloadError, match=remedy):
        SyncState.load(tmp_path, SOURCE._replace(**change))


def as_list(_document: dict[str, Any]) -> Any:
    return []


def without_jobs(document: dict[str, Any]) -> Any:
    return {key: value for key, value in document.items() if key != "jobs"}


def with_other_format(document: dict[str, Any]) -> Any:
    return document | {"format": 2}


def with_other_files(document: dict[str, Any]) -> Any:
    return document | {"jobs": {"job-1": {"mark": "mark", "files": ["film.mp4"]}}}


@pytest.mark.parametrize("damage", [as_list, without_jobs, with_other_format, with_other_files])
def test_damaged_state_is_refused_with_a_remedy(
    tmp_path: Path, damage: Callable[[dict[str, Any]], Any]
) -> None:
    saved(tmp_path)
    path = tmp_path / STATE_NAME
    path.write_text(json.dumps(damage(json.loads(path.read_text()))))
    with pytest.raises(DownloadError, match="Delete it"):
        SyncState.load(tmp_path, SOURCE)


@pytest.mark.parametrize("text", [b"", b"{", b"\xff", b"[" * 100_000])
def test_state_that_is_no_json_is_refused(tmp_path: Path, text: bytes) -> None:
    (tmp_path / STATE_NAME).write_bytes(text)
    with pytest.raises(DownloadError, match="Delete it"):
        SyncState.load(tmp_path, SOURCE)


def test_state_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    (tmp_path / STATE_NAME).mkdir()
    with pytest.raises(DownloadError, match="cannot be read"):
        SyncState.load(tmp_path, SOURCE)


def test_state_that_cannot_be_written_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    state = SyncState.load(folder, SOURCE)
    state.begin("job-1")
    folder.rmdir()
    with pytest.raises(StateNotSaved, match="cannot be written"):
        state.save()


def test_unchanged_state_is_not_written(tmp_path: Path) -> None:
    state = saved(tmp_path)
    (tmp_path / STATE_NAME).unlink()
    state.save()
    assert not (tmp_path / STATE_NAME).exists()


def test_state_is_written_while_files_are_downloaded_but_not_for_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(module, "monotonic", lambda: now)
    state = SyncState.load(tmp_path, SOURCE)
    for number in range(3):
        state.add_file("job-1", f"{number}.exr", '"etag"')
    assert len(SyncState.load(tmp_path, SOURCE).files_of("job-1")) == 1
    now += module.SAVE_INTERVAL_S
    state.add_file("job-1", "3.exr", '"etag"')
    assert len(SyncState.load(tmp_path, SOURCE).files_of("job-1")) == 4


def test_files_that_a_job_no_longer_has_are_dropped(tmp_path: Path) -> None:
    state = saved(tmp_path)
    state.finish(JOB, [])
    assert state.files_of("job-1") == {}


def test_files_of_a_job_without_outputs_for_now_are_kept(tmp_path: Path) -> None:
    state = saved(tmp_path)
    state.finish(JOB._replace(status="failed"))
    assert state.files_of("job-1") == {"job-1/film.mp4": '"etag"'}


def test_clock_that_was_set_back_lists_all_jobs(tmp_path: Path) -> None:
    assert saved(tmp_path).updated_since(NOW - 1) is None


def test_state_is_not_written_through_a_link(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text("mine")
    (tmp_path / f"{STATE_NAME}.new").symlink_to(other)
    saved(tmp_path)
    assert other.read_text() == "mine"
    assert SyncState.load(tmp_path, SOURCE).is_done(JOB)


def test_state_that_is_a_pipe_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / STATE_NAME)
    with pytest.raises(DownloadError, match="cannot be read"):
        SyncState.load(tmp_path, SOURCE)


def test_job_of_the_year_1_does_not_prevent_later_runs(tmp_path: Path) -> None:
    state = SyncState.load(tmp_path, SOURCE)
    state.listed([], datetime.min.replace(tzinfo=UTC), NOW, is_full=True)
    assert state.updated_since(NOW) is None


@pytest.mark.parametrize("since", ["2026-01-01T00:00:00", "0001-01-01T00:00:00+12:00"])
def test_state_with_any_time_can_be_used(since: str, tmp_path: Path) -> None:
    saved(tmp_path)
    document = json.loads((tmp_path / STATE_NAME).read_text())
    document["updatedSince"] = since
    (tmp_path / STATE_NAME).write_text(json.dumps(document))
    with suppress(DownloadError):
        state = SyncState.load(tmp_path, SOURCE)
        state.listed([], UPDATED, NOW, is_full=True)
