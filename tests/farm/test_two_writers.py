"""Several programs write one job at a time: none destroys what another has written, and each is told."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from jobsvc import farm
from jobsvc.farm import Job, JobError
from tests.eventually import wait_until
from tests.farm.conftest import Read
from tests.farm.test_job import create


def at_once(calls: list[Callable[[], object]]) -> None:
    threads = [threading.Thread(target=call) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_programs_that_create_a_job_at_once_have_different_attempts(jobs_root: Path, read: Read) -> None:
    attempts: list[int] = []
    for number in range(1, 7):
        at_once([lambda: attempts.append(create(jobs_root).attempt)] * 4)
        assert sorted(attempts) == list(range(1, 4 * number + 1))
    assert read()["attempt"] == len(attempts)
    assert [path.name for path in jobs_root.iterdir()] == ["title"]


def test_hooks_at_the_same_time_lose_nothing(jobs_root: Path, read: Read) -> None:
    create(jobs_root, output=None)
    jobs = [Job.open(jobs_root, "title") for _ in range(8)]
    at_once([partial(job.add_output, f"film-{number}", "film.mp4") for number, job in enumerate(jobs)])
    at_once([partial(job.progress, frames=(number, 8)) for number, job in enumerate(jobs)])
    record = read()
    assert (record["status"], len(record["outputs"]), record["framesDone"]) == ("rendering", 8, 7)


@pytest.mark.usefixtures("outputs_stay_missing")
def test_job_that_another_program_has_ended_stays_so(
    jobs_root: Path, read: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(farm, "HEARTBEAT_S", 0.05)
    job = create(jobs_root)
    job.start()
    wait_until(lambda: read()["status"] == "rendering")
    Job.open(jobs_root, "title").cancel()
    wait_until(lambda: not is_written(job))
    with pytest.raises(JobError, match="another program has ended title: it is canceled"):
        job.complete()
    assert read()["status"] == "canceled"


def is_written(job: Job) -> bool:
    try:
        job.check()
    except JobError:
        return False
    return True


def test_lock_of_a_lost_host_is_not_waited_for_without_end(
    jobs_root: Path, read: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(farm, "LOCK_TIMEOUT_S", 0.05)
    job = create(jobs_root)
    with farm._locked(job.path):
        job.progress(50)
    assert read()["progress"] == 50


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_forked_process_does_not_end_the_job(jobs_root: Path, read: Read) -> None:
    with create(jobs_root, output=None) as job:
        child = os.fork()
        if child == 0:
            try:
                job.__exit__(None, None, None)
                job.progress(50)
            except JobError as error:
                os._exit(7 if "is written by process" in str(error) else 1)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        wait_until(lambda: read()["status"] == "rendering")
    assert read()["status"] == "completed"


def test_old_attempt_appends_nothing_to_the_log_of_the_next(jobs_root: Path) -> None:
    old = Job.open(jobs_root, create(jobs_root).id)
    create(jobs_root).log("second attempt")
    with pytest.raises(JobError, match="attempt 2 has begun"):
        old.log("first attempt")
    assert (old.path / "render.log").read_text() == "second attempt\n"
