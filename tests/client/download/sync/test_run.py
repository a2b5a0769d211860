"""What a sync requests and downloads, run after run, with a service in memory."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, TypeAlias

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobsvc.client.download.stopping import IDLE, Idle
from jobsvc.client.download.sync import run as run_module
from jobsvc.client.download.sync.state import FORGET_AFTER_S, FULL_LIST_INTERVAL_S, STATE_NAME
from jobsvc.client.errors import (
    ConnectionFailed,
    Corrupt,
    DownloadError,
    JobsvcError,
    ServiceUnavailable,
    Unauthorized,
)
from jobsvc.client.models import JobChanged, JobRemoved
from tests.client.download.sync.fake_service import Crash, FakeService, start, sync

CORRUPT: Final = Corrupt("The bytes of main/film.mp4 are not those of the service.")


@pytest.fixture
def service() -> FakeService:
    """A service with a job of two files and one of a single file."""
    service = FakeService()
    service.write("job-1", "main", "a.exr")
    service.write("job-1", "main", "b.exr")
    service.write("job-2", "main", "film.mp4")
    return service


def on_disk(folder: Path) -> set[str]:
    return {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and path.name != STATE_NAME
    }


def test_first_run_downloads_everything(service: FakeService, tmp_path: Path) -> None:
    done = sync(service, tmp_path)
    assert {each.path.relative_to(tmp_path).as_posix() for each in done} == on_disk(tmp_path)
    assert on_disk(tmp_path) == {"job-1/a.exr", "job-1/b.exr", "job-2/film.mp4"}


def test_run_with_nothing_to_do_sends_one_request(service: FakeService, tmp_path: Path) -> None:
    sync(service, tmp_path)
    service.requests.clear()
    assert sync(service, tmp_path) == []
    assert service.requests == ["jobs changed"]


def test_only_a_changed_job_is_listed_again(service: FakeService, tmp_path: Path) -> None:
    sync(service, tmp_path)
    service.requests.clear()
    service.touch("job-1")
    assert sync(service, tmp_path) == []
    assert service.requests == ["jobs changed", "files job-1"]


def test_file_of_several_outputs_is_below_its_output(service: FakeService, tmp_path: Path) -> None:
    service.write("job-2", "preview", "film.mp4")
    sync(service, tmp_path)
    assert {"job-2/main/film.mp4", "job-2/preview/film.mp4"} < on_disk(tmp_path)


def test_replaced_file_replaces_the_local_one_alone(service: FakeService, tmp_path: Path) -> None:
    sync(service, tmp_path)
    service.write("job-1", "main", "a.exr", size=20)
    (done,) = sync(service, tmp_path)
    assert (done.path, len((tmp_path / "job-1" / "a.exr").read_bytes())) == (tmp_path / "job-1" / "a.exr", 20)


def test_file_that_was_deleted_locally_is_not_downloaded_again(service: FakeService, tmp_path: Path) -> None:
    sync(service, tmp_path)
    (tmp_path / "job-1" / "a.exr").unlink()
    service.write("job-1", "main", "b.exr")
    (done,) = sync(service, tmp_path)
    assert done.path.name == "b.exr"
    assert "job-1/a.exr" not in on_disk(tmp_path)


def test_new_version_of_a_file_that_was_deleted_locally_is_downloaded(
    service: FakeService, tmp_path: Path
) -> None:
    sync(service, tmp_path)
    (tmp_path / "job-1" / "a.exr").unlink()
    service.write("job-1", "main", "a.exr")
    assert len(sync(service, tmp_path)) == 1


def test_files_are_compared_and_not_downloaded_after_the_state_was_lost(
    service: FakeService, tmp_path: Path
) -> None:
    sync(service, tmp_path)
    (tmp_path / STATE_NAME).unlink()
    service.downloaded.clear()
    assert sync(service, tmp_path) == []
    assert service.downloaded == []


def test_file_with_the_right_size_and_time_but_other_bytes_is_downloaded_again(
    service: FakeService, tmp_path: Path
) -> None:
    sync(service, tmp_path)
    (tmp_path / STATE_NAME).unlink()
    path = tmp_path / "job-2" / "film.mp4"
    right, status = path.read_bytes(), path.stat()
    path.write_bytes(b"x" * len(right))
    os.utime(path, (0, status.st_mtime))
    assert [each.path for each in sync(service, tmp_path)] == [path]
    assert path.read_bytes() == right


def test_job_that_was_deleted_on_the_service_stays_on_disk(service: FakeService, tmp_path: Path) -> None:
    sync(service, tmp_path)
    del service.jobs_by_id["job-1"]
    sync(service, tmp_path)
    assert "job-1/a.exr" in on_disk(tmp_path)


@pytest.mark.parametrize("error", [CORRUPT, DownloadError("An impossible name.")])
def test_job_that_fails_does_not_stop_the_others_and_is_tried_again(
    service: FakeService, tmp_path: Path, error: JobsvcError
) -> None:
    service.fails["job-1"] = error
    for expected in (1, 0):  # also if it has not changed since
        run, _ = start(service, tmp_path)
        assert len(list(run.run_pass())) == expected
        assert run.failures == {"job-1": error}
    assert on_disk(tmp_path) == {"job-2/film.mp4"}
    service.fails.clear()
    service.requests.clear()
    service.now += timedelta(days=1)
    assert len(sync(service, tmp_path)) == 2
    assert service.requests[0] == "jobs changed"


@pytest.mark.parametrize("kind", ["fails", "list_fails"])
def test_failed_job_is_tried_again_after_later_jobs_were_done(
    service: FakeService, tmp_path: Path, kind: str
) -> None:
    failing: dict[str, JobsvcError] = getattr(service, kind)
    failing["job-1"] = CORRUPT
    service.now += timedelta(days=1)
    service.write("job-3", "main", "film.mp4")
    list(start(service, tmp_path)[0].run_pass())  # the next list begins after the change of job-1
    failing.clear()
    service.requests.clear()
    assert len(sync(service, tmp_path)) == 2
    assert service.requests == ["jobs changed", "job job-1", "files job-1"]


def test_failed_job_that_is_gone_is_forgotten(service: FakeService, tmp_path: Path) -> None:
    service.fails["job-1"] = CORRUPT
    list(start(service, tmp_path)[0].run_pass())
    del service.jobs_by_id["job-1"]
    sync(service, tmp_path)
    service.requests.clear()
    sync(service, tmp_path)
    assert service.requests == ["jobs changed"]


def test_failed_job_that_renders_again_is_not_asked_for_until_it_completes(
    service: FakeService, tmp_path: Path
) -> None:
    service.fails["job-1"] = CORRUPT
    list(start(service, tmp_path)[0].run_pass())
    service.jobs_by_id["job-1"].status = "rendering"
    service.fails.clear()
    sync(service, tmp_path)
    service.requests.clear()
    sync(service, tmp_path)
    assert service.requests == ["jobs changed"]
    service.jobs_by_id["job-1"].status = "completed"
    service.touch("job-1")
    assert len(sync(service, tmp_path)) == 2


@pytest.mark.parametrize(
    "error",
    [
        ConnectionFailed("No connection."),
        Unauthorized("unauthorized", 401, "The token is unknown."),
    ],
)
def test_error_of_the_connection_or_the_token_ends_the_run(
    service: FakeService, tmp_path: Path, error: JobsvcError
) -> None:
    service.fails["job-1"] = error
    with pytest.raises(type(error)):
        sync(service, tmp_path)


def test_full_disk_ends_the_run(service: FakeService, tmp_path: Path) -> None:
    error = DownloadError("job-1/a.exr cannot be written: No space left on device.")
    error.__cause__ = OSError(28, "No space left on device")
    service.fails["job-1"] = error
    with pytest.raises(DownloadError, match="No space left"):
        sync(service, tmp_path)


def test_service_that_is_unavailable_for_many_jobs_ends_the_run(service: FakeService, tmp_path: Path) -> None:
    for number in range(9):
        service.write(f"other-{number}", "main", "film.mp4")
    service.fails = dict.fromkeys(
        service.jobs_by_id, ServiceUnavailable("storage-unavailable", 503, "Storage does not respond.")
    )
    run, _ = start(service, tmp_path)
    with pytest.raises(ServiceUnavailable):
        list(run.run_pass())
    assert len(run.failures) == run_module.MAX_UNAVAILABLE


def test_file_that_is_replaced_while_it_is_downloaded_is_listed_again(
    service: FakeService, tmp_path: Path
) -> None:
    steps = 0

    def replace_once() -> None:
        nonlocal steps
        steps += 1
        if steps == 4:  # the jobs and the files of both jobs were listed
            service.write("job-1", "main", "a.exr")

    service.on_step = replace_once
    sync(service, tmp_path)
    expected = service.jobs_by_id["job-1"].files["main", "a.exr"].content
    assert (tmp_path / "job-1" / "a.exr").read_bytes() == expected


def test_jobs_without_the_id_in_their_names_must_not_have_the_same_file(
    service: FakeService, tmp_path: Path
) -> None:
    service.write("job-3", "main", "film.mp4")
    run, _ = start(service, tmp_path, "all/{path}")
    done = [each.path for each in run.run_pass()]
    assert set(run.failures) == {"job-3"}
    assert "Use {id} in the name" in str(run.failures["job-3"])
    assert tmp_path / "all" / "film.mp4" in done


def test_file_named_like_the_state_is_refused(service: FakeService, tmp_path: Path) -> None:
    service.write("job-3", "main", ".JOBSVC-sync.json")
    run, _ = start(service, tmp_path, "{path}")
    list(run.run_pass())
    assert set(run.failures) == {"job-3"}


def test_all_jobs_are_listed_again_after_a_week(service: FakeService, tmp_path: Path) -> None:
    sync(service, tmp_path)
    service.now += timedelta(seconds=FULL_LIST_INTERVAL_S + 1)
    service.write("restored", "main", "film.mp4")
    service.jobs_by_id["restored"].updated_at -= timedelta(days=300)
    assert len(sync(service, tmp_path)) == 1


def test_job_from_the_future_hides_no_later_ones(service: FakeService, tmp_path: Path) -> None:
    service.jobs_by_id["job-1"].updated_at += timedelta(days=300)
    sync(service, tmp_path)
    service.write("job-3", "main", "film.mp4")
    assert len(sync(service, tmp_path)) == 1


def test_job_that_is_gone_for_a_month_is_dropped_from_the_state(service: FakeService, tmp_path: Path) -> None:
    sync(service, tmp_path)
    del service.jobs_by_id["job-1"]
    for _ in range(2):
        service.now += timedelta(seconds=FORGET_AFTER_S + 1)
        sync(service, tmp_path)
    text = (tmp_path / STATE_NAME).read_text()
    assert ("job-1" in text, "job-2" in text) == (False, True)


def test_followed_jobs_are_downloaded(service: FakeService, tmp_path: Path) -> None:
    run, _ = start(service, tmp_path)
    assert len(list(run.follow())) == 3


def test_followed_jobs_that_are_done_cost_no_request(service: FakeService, tmp_path: Path) -> None:
    sync(service, tmp_path)
    service.requests.clear()
    assert list(start(service, tmp_path)[0].follow()) == []
    assert service.requests == []


def test_jobs_that_events_do_not_tell_are_found_by_a_pass_from_time_to_time(
    service: FakeService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(run_module, "monotonic", lambda: now)

    def watch() -> Iterator[Idle]:
        nonlocal now
        yield IDLE
        assert service.requests == []
        now += run_module.PASS_INTERVAL_S
        yield IDLE
        yield IDLE
        assert service.requests.count("jobs all") == 1
        now += run_module.PASS_INTERVAL_S
        yield IDLE

    monkeypatch.setattr(service, "watch", watch)
    assert len(list(start(service, tmp_path)[0].follow())) == 3
    assert [each for each in service.requests if each.startswith("jobs")] == ["jobs all", "jobs changed"]


def test_job_whose_completion_another_replica_has_not_seen_is_visited_again_at_once(
    service: FakeService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = list(service.watch())

    def watch() -> Iterator[JobChanged | JobRemoved | Idle]:
        service.jobs_by_id["job-2"].status = "rendering"
        yield from changes
        service.jobs_by_id["job-2"].status = "completed"
        yield from [IDLE, IDLE]

    monkeypatch.setattr(service, "watch", watch)
    assert len(list(start(service, tmp_path)[0].follow())) == 3
    assert service.requests == ["files job-1", "files job-2", "files job-2"]


def test_failure_while_following_is_logged(
    service: FakeService, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    service.fails["job-2"] = CORRUPT
    with caplog.at_level(logging.WARNING, "jobsvc.client"):
        assert len(list(start(service, tmp_path)[0].follow())) == 2
    assert "job-2 could not be downloaded" in caplog.text


def test_outage_while_following_is_survived(
    service: FakeService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_module, "OUTAGE_PAUSE_S", 0)
    service.fails["job-2"] = ConnectionFailed("No connection.")
    run, _ = start(service, tmp_path)
    once = service.watch

    def watch_twice() -> object:
        yield from once()
        service.fails.clear()
        yield IDLE

    service.watch = watch_twice  # type: ignore[method-assign, assignment]
    assert len(list(run.follow())) == 3


def test_outage_before_changes_are_followed_is_survived(service: FakeService, tmp_path: Path) -> None:
    service.fails["job-2"] = ConnectionFailed("No connection.")
    run, _ = start(service, tmp_path)
    before = list(run.run_pass_before_following())
    service.fails.clear()
    assert len(before) + len(list(run.follow())) == 3


def test_sync_does_not_start_to_follow_a_service_that_is_not_there(
    service: FakeService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def jobs(_: object) -> None:
        raise ConnectionFailed("No connection.")

    monkeypatch.setattr(service, "jobs", jobs)
    with pytest.raises(ConnectionFailed):
        list(start(service, tmp_path)[0].run_pass_before_following())


Change: TypeAlias = tuple[str, ...]
JOBS = st.sampled_from(["a", "b", "c"])
CHANGES = st.one_of(
    st.tuples(st.just("write"), JOBS, st.sampled_from(["main", "aux"]), st.sampled_from(["x", "y"])),
    st.tuples(st.just("touch"), JOBS),
    st.tuples(st.just("remove-file"), JOBS),
    st.tuples(st.just("delete"), JOBS),
    st.tuples(st.just("render"), JOBS),
    st.tuples(st.just("complete"), JOBS),
    st.tuples(st.just("fail"), JOBS),
    st.tuples(st.just("repair"), JOBS),
    st.tuples(st.just("wait"), JOBS),
)
"""What happens on the service."""
RUNS = st.one_of(
    st.just(("run",)),
    st.tuples(st.just("run with a change"), st.integers(1, 25), CHANGES),
    st.tuples(st.just("crash"), st.integers(1, 25)),
    st.tuples(st.just("crash without a saved state"), st.integers(1, 25)),
    st.just(("lose state",)),
)


def apply(service: FakeService, change: Change) -> None:
    kind, job_id, *rest = change
    job = service.jobs_by_id.get(job_id)
    if kind == "wait":
        service.now += timedelta(days=1)
    elif kind == "write":
        service.write(job_id, rest[0], rest[1], size=10 + service.versions % 2)
    elif kind == "fail":
        service.fails[job_id] = CORRUPT
    elif kind == "repair":
        service.fails.pop(job_id, None)
    elif job is None:
        return
    elif kind == "touch":
        service.touch(job_id)
    elif kind == "delete":
        del service.jobs_by_id[job_id]
    elif kind == "remove-file" and len(job.files) > 1:
        del job.files[min(job.files)]
        service.touch(job_id)
    elif kind in {"render", "complete"}:
        job.status = "rendering" if kind == "render" else "completed"
        service.touch(job_id)


def run_once(service: FakeService, folder: Path, kind: str, step: int = 0, change: Change = ()) -> None:
    """Run one pass, or lose the state; at a step of the run something happens."""
    if kind == "lose state":
        (folder / STATE_NAME).unlink(missing_ok=True)
        return
    steps = 0

    def on_step() -> None:
        nonlocal steps
        steps += 1
        if steps == step and change:
            apply(service, change)
        elif steps == step:
            raise Crash

    service.on_step = on_step
    run, state = start(service, folder)
    try:
        list(run.run_pass())
    except Crash:
        if kind == "crash":
            state.save()
    finally:
        service.on_step = lambda: None


@settings(max_examples=150)
@given(st.lists(st.one_of(CHANGES, RUNS, RUNS), max_size=25))
def test_folder_converges_to_the_files_of_the_service(events: list[Any]) -> None:
    """After any sequence of changes, runs and crashes, one undisturbed run is enough; the next is idle."""
    with tempfile.TemporaryDirectory() as name:
        folder, service = Path(name), FakeService()
        for event in events:
            if event[0] in {"run", "run with a change", "crash", "crash without a saved state", "lose state"}:
                run_once(service, folder, *event)
            else:
                apply(service, event)
        service.fails.clear()
        sync(service, folder)
        for job_id, job in service.jobs_by_id.items():
            if job.status != "completed":
                continue
            several = len({output for output, _ in job.files}) > 1
            for (output, path), file in job.files.items():
                local = folder / job_id / (f"{output}/{path}" if several else path)
                assert local.read_bytes() == file.content
        service.requests.clear()
        assert sync(service, folder) == []
        assert service.requests == ["jobs changed"]
