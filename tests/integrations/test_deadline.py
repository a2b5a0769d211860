"""The event plug-in for Deadline, with a stand-in that has the names of Deadline's documentation."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, Final

import pytest

from jobsvc import farm

ROOT: Final = Path(__file__).parents[2]
PLUG_IN: Final = ROOT / "docs" / "integrations" / "deadline" / "Jobsvc"
JOB_ID: Final = "65f0c1d2e3a4b5c6d7e8f901"


class Callbacks:
    """The callbacks of one event: `+=` adds one, as in Python.NET."""

    def __init__(self) -> None:
        self.functions: list[Callable[..., object]] = []

    def __iadd__(self, function: Callable[..., object]) -> Callbacks:  # noqa: PYI034 - as Python.NET
        self.functions.append(function)
        return self


class DeadlineEventListener:
    """The methods that the plug-in uses."""

    config: dict[str, str]
    warnings: list[str]

    def __init__(self) -> None:
        for name in (
            "JobSubmitted", "JobStarted", "JobFinished", "JobRequeued", "JobFailed", "JobResumed",
            "JobDeleted", "SlaveRendering",
        ):  # fmt: skip
            setattr(self, f"On{name}Callback", Callbacks())

    def GetConfigEntry(self, key: str) -> str:  # noqa: N802
        return self.config[key]

    def GetConfigEntryWithDefault(self, key: str, default: str) -> str:  # noqa: N802
        return self.config.get(key, default)

    def LogWarning(self, message: str) -> None:  # noqa: N802
        self.warnings.append(message)


class Deadline:
    """A repository with the plug-in, and one job."""

    def __init__(self, folder: Path, module: ModuleType) -> None:
        self.folder = folder
        self.module = module
        self.listener = module.GetDeadlineEventListener()
        self.listener.config = {"JobsRoot": str(folder / "jobs")}
        self.listener.warnings = []
        self.job = SimpleNamespace(
            JobId=JOB_ID, JobName="Opening title", JobUserName="anna", JobPlugin="Blender", JobComment="",
            JobTaskCount=5, JobCompletedTasks=0, JobFailedTasks=0,
            JobOutputDirectories=[], JobOutputFileNames=[],
        )  # fmt: skip

    def send(self, event: str, *arguments: object, **values: object) -> dict[str, Any]:
        """Send an event after a change of the job; return the record of the job."""
        vars(self.job).update(values)
        for function in getattr(self.listener, f"On{event}Callback").functions:
            function(*arguments, self.job)
        return self.record()

    def record(self) -> dict[str, Any]:
        return dict(json.loads((self.folder / "jobs" / JOB_ID / "status.json").read_bytes()))

    def render(self, *names: str) -> Path:
        folder = self.folder / "rendered"
        folder.mkdir(exist_ok=True)
        for name in names:
            (folder / name).write_bytes(b"frame")
        return folder


@pytest.fixture
def deadline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Deadline:
    plug_in = shutil.copytree(PLUG_IN, tmp_path / "events" / "Jobsvc")
    shutil.copy(ROOT / "jobsvc" / "farm.py", plug_in / "jobsvc_farm.py")
    (tmp_path / "jobs").mkdir()
    utilities = SimpleNamespace(
        GetEventPluginDirectory=lambda name: str(plug_in.parent / name), CheckPathMapping=lambda path, _: path
    )
    modules = {
        "Deadline": ModuleType("Deadline"),
        "Deadline.Events": SimpleNamespace(DeadlineEventListener=DeadlineEventListener),
        "Deadline.Scripting": SimpleNamespace(RepositoryUtils=utilities),
        "jobsvc_farm": farm,
    }
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(farm, "STABLE_S", 0.01)
    monkeypatch.setattr(farm, "OUTPUT_TIMEOUT_S", 0.1)
    spec = importlib.util.spec_from_file_location("deadline_plug_in", plug_in / "Jobsvc.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return Deadline(tmp_path, module)


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


def test_output_that_is_missing_fails_the_job(deadline: Deadline) -> None:
    deadline.send("JobSubmitted")
    rendered = str(deadline.render("other.exr"))
    found = deadline.send(
        "JobFinished", JobOutputDirectories=[rendered], JobOutputFileNames=["title.####.exr"]
    )
    assert (found["status"], found["error"]) == ("failed", "output/1/title.####.exr is missing")
    assert "title.####.exr is missing" in deadline.listener.warnings[0]


def test_failed_job_and_its_next_attempt(deadline: Deadline) -> None:
    deadline.send("JobSubmitted")
    deadline.send("JobStarted")
    found = deadline.send("JobFailed", JobFailedTasks=2)
    assert (found["status"], found["error"].partition(":")[0]) == ("failed", "2 of 5 tasks have failed")
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


def test_lost_share_is_a_warning(deadline: Deadline) -> None:
    (deadline.folder / "jobs").rmdir()
    with pytest.raises(FileNotFoundError):
        deadline.send("JobSubmitted")
    assert f"job {JOB_ID} is not written" in deadline.listener.warnings[0]


def test_callbacks_are_removed(deadline: Deadline) -> None:
    deadline.module.CleanupDeadlineEventListener(deadline.listener)
    assert not [name for name in vars(deadline.listener) if name.endswith("Callback")]
