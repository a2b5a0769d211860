"""The event plug-in for Deadline, with a stand-in for Deadline."""

from __future__ import annotations

import errno
from pathlib import Path
from types import SimpleNamespace

import pytest

from jobsvc import farm
from tests.integrations.deadline_stand_in import JOB_ID, Deadline, deadline_with_plug_in


@pytest.fixture
def deadline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Deadline:
    return deadline_with_plug_in(tmp_path, monkeypatch)


def test_job_is_written_from_submission_to_its_outputs(deadline: Deadline) -> None:
    found = deadline.send("JobSubmitted")
    assert (found["status"], found["owner"], found["projectPath"]) == ("queued", "anna", "Opening title")
    assert deadline.send("JobStarted")["status"] == "rendering"
    found = deadline.send("SlaveRendering", "worker-1", JobCompletedTasks=2)
    assert (found["progress"], found["phase"]) == (40, "2 of 5 tasks are done")
    rendered = deadline.render(
        "title.0001.exr", "title.0002.exr", "title.exr", "other.0001.exr", "film%d.mov"
    )
    found = deadline.send(
        "JobFinished",
        JobOutputDirectories=[str(rendered)] * 2,
        JobOutputFileNames=["title.????.exr", "film%d.mov"],
    )
    assert found["status"] == "completed", deadline.listener.warnings
    assert [(output["name"], output["path"]) for output in found["outputs"]] == [
        ("main", "output/1/title.####.exr"), ("output-2", "output/2/film_d.mov"),
    ]  # fmt: skip
    files = sorted(path.name for path in (deadline.folder / "jobs" / JOB_ID / "output").glob("*/*"))
    assert files == ["film_d.mov", "title.0001.exr", "title.0002.exr"]
    assert not deadline.listener.warnings


def test_job_without_output_names_is_completed(deadline: Deadline) -> None:
    deadline.send("JobSubmitted")
    assert deadline.send("JobFinished")["status"] == "completed"


def test_output_that_is_missing_fails_the_job(deadline: Deadline, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(farm, "OUTPUT_TIMEOUT_S", 0.1)
    deadline.send("JobSubmitted")
    rendered = str(deadline.render("other.exr"))
    found = deadline.send(
        "JobFinished", JobOutputDirectories=[rendered], JobOutputFileNames=["title.####.exr"]
    )
    assert (found["status"], found["error"]) == ("failed", "output/1/title.####.exr is missing")
    assert "title.####.exr is missing" in deadline.listener.warnings[0]


def test_output_directory_that_is_missing_fails_the_job(
    deadline: Deadline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(farm, "OUTPUT_TIMEOUT_S", 0.1)
    deadline.send("JobSubmitted")
    gone = str(deadline.folder / "gone")
    found = deadline.send("JobFinished", JobOutputDirectories=[gone], JobOutputFileNames=["title.####.exr"])
    assert (found["status"], found["error"]) == ("failed", "output/1/title.####.exr is missing")


def test_outputs_that_cannot_be_copied_fail_the_job(
    deadline: Deadline, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EDQUOT, "Disk quota exceeded", "/srv/secret")

    deadline.send("JobSubmitted")
    rendered = str(deadline.render("title.0001.exr"))
    monkeypatch.setattr(deadline.module, "link_or_copy", fail)
    found = deadline.send(
        "JobFinished", JobOutputDirectories=[rendered], JobOutputFileNames=["title.####.exr"]
    )
    assert (found["status"], found["error"]) == (
        "failed",
        "the outputs could not be brought into the job's directory: Disk quota exceeded",
    )
    assert "/srv/secret" in deadline.listener.warnings[0]


def test_house_cleaning_writes_how_far_the_tasks_are(deadline: Deadline) -> None:
    deadline.send("JobSubmitted")
    deadline.tasks = [
        SimpleNamespace(TaskStatus=status, TaskProgress=progress)
        for status, progress in [
            ("Completed", "100 %"), ("Rendering", "50 %"), ("Rendering", ""), ("Rendering", "10%"),
            ("Queued", "0 %"),
        ]
    ]  # fmt: skip
    found = deadline.clean_house(JobCompletedTasks=1, JobRenderingTasks=3)
    assert (found["status"], found["progress"]) == ("rendering", 32)
    assert found["phase"] == "1 of 5 tasks are done"
    assert not deadline.is_stalled()


@pytest.mark.parametrize("state", ["Active", "Pending", "Suspended"])
def test_job_that_waits_is_not_stalled(deadline: Deadline, state: str) -> None:
    deadline.send("JobSubmitted")
    assert deadline.clean_house(state)["status"] == "queued"
    assert not deadline.is_stalled()


def test_house_cleaning_leaves_other_jobs_alone(deadline: Deadline) -> None:
    with pytest.raises(FileNotFoundError):
        deadline.clean_house()
    deadline.send("JobSubmitted")
    deadline.send("JobFinished")
    deadline.clean_house(JobRenderingTasks=1)
    assert deadline.is_stalled()
    assert not deadline.listener.warnings


def test_suspended_job_says_so_until_it_is_resumed(deadline: Deadline) -> None:
    deadline.send("JobSubmitted")
    assert deadline.send("JobSuspended")["status"] == "queued"
    deadline.send("JobStarted")
    assert deadline.send("JobSuspended")["phase"] == "suspended"
    deadline.send("JobResumed")
    assert deadline.send("SlaveRendering", "worker-1")["phase"] == "0 of 5 tasks are done"


def test_errors_of_tasks_are_in_the_log(deadline: Deadline) -> None:
    deadline.send("JobSubmitted")
    deadline.send("JobStarted")
    deadline.fail_task("no licence")
    found = deadline.send("JobFailed", JobFailedTasks=1)
    assert found["error"] == "1 of 5 tasks have failed: the log has their errors"
    log = (deadline.folder / "jobs" / JOB_ID / "render.log").read_text()
    assert log == "error on worker-1: no licence\n"


def test_failed_job_and_its_next_attempt(deadline: Deadline) -> None:
    deadline.send("JobSubmitted")
    deadline.send("JobStarted")
    found = deadline.send("JobFailed", JobFailedTasks=2)
    assert (found["status"], found["error"]) == ("failed", "2 of 5 tasks have failed")
    assert deadline.send("SlaveRendering", "worker-1")["status"] == "failed"  # a late event
    found = deadline.send("JobRequeued")
    assert (found["status"], found["attempt"]) == ("queued", 2)
    assert deadline.send("JobStarted")["attempt"] == 2


def test_deleted_job_is_canceled_unless_it_had_ended(deadline: Deadline) -> None:
    deadline.send("JobSubmitted")
    assert deadline.send("JobDeleted")["status"] == "canceled"
    deadline.send("JobStarted")
    deadline.send("JobFinished")
    assert deadline.send("JobDeleted")["status"] == "completed"


def test_job_is_created_by_a_later_event_if_its_first_was_lost(deadline: Deadline) -> None:
    assert deadline.send("SlaveRendering", "worker-1", JobCompletedTasks=1)["progress"] == 20


def test_owner_of_the_configuration_counts(deadline: Deadline) -> None:
    deadline.listener.config["Owner"] = "acme"
    assert deadline.send("JobSubmitted")["owner"] == "acme"


@pytest.mark.parametrize(("user", "owner"), [("Anna", "acme"), ("ben", "globex"), ("cleo", "cleo")])
def test_owner_can_depend_on_the_user(deadline: Deadline, user: str, owner: str) -> None:
    deadline.listener.config["Owners"] = "anna=acme; ben=globex;"
    assert deadline.send("JobSubmitted", JobUserName=user)["owner"] == owner


def test_jobs_root_that_is_not_named_is_a_warning(
    deadline: Deadline, monkeypatch: pytest.MonkeyPatch
) -> None:
    deadline.listener.config["JobsRoot"] = ""
    monkeypatch.chdir(deadline.folder / "jobs")
    with pytest.raises(FileNotFoundError):
        deadline.send("JobSubmitted")
    assert "name the jobs root" in deadline.listener.warnings[0]
    assert list(Path().iterdir()) == []


def test_lost_share_is_a_warning(deadline: Deadline) -> None:
    (deadline.folder / "jobs").rmdir()
    with pytest.raises(FileNotFoundError):
        deadline.send("JobSubmitted")
    assert f"job {JOB_ID} is not written" in deadline.listener.warnings[0]


def test_callbacks_are_removed(deadline: Deadline) -> None:
    deadline.module.CleanupDeadlineEventListener(deadline.listener)
    assert not [name for name in vars(deadline.listener) if name.endswith("Callback")]
