"""A stand-in for Deadline: only names that its documentation or published plug-ins have."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, Final

import pytest

from jobsvc import farm
from tests.integrations.script_loader import load_script

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
            "JobDeleted", "SlaveRendering", "JobError", "JobSuspended", "HouseCleaning",
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
        self.state = "Active"
        self.tasks: list[SimpleNamespace] = []
        self.job = SimpleNamespace(
            JobId=JOB_ID, JobName="Opening title", JobUserName="anna", JobPlugin="Blender", JobComment="",
            JobTaskCount=5, JobCompletedTasks=0, JobRenderingTasks=0, JobFailedTasks=0,
            JobOutputDirectories=[], JobOutputFileNames=[],
        )  # fmt: skip

    def send(self, event: str, *arguments: object, **values: object) -> dict[str, Any]:
        """Send an event after a change of the job; return the record of the job."""
        vars(self.job).update(values)
        for function in getattr(self.listener, f"On{event}Callback").functions:
            function(*arguments, self.job)
        return self.record()

    def fail_task(self, message: str) -> None:
        report = SimpleNamespace(ReportSlaveName="worker-1", ReportMessage=message)
        for function in self.listener.OnJobErrorCallback.functions:
            function(self.job, SimpleNamespace(), report)

    def clean_house(self, state: str = "Active", **values: object) -> dict[str, Any]:
        """Send the event that is not about one job, an hour after the last one."""
        status = self.folder / "jobs" / JOB_ID / "status.json"
        if status.exists():
            os.utime(status, (time.time() - 3600,) * 2)
        vars(self.job).update(values)
        self.state = state
        for function in self.listener.OnHouseCleaningCallback.functions:
            function()
        return self.record()

    def is_stalled(self) -> bool:
        return time.time() - (self.folder / "jobs" / JOB_ID / "status.json").stat().st_mtime > 60

    def record(self) -> dict[str, Any]:
        return dict(json.loads((self.folder / "jobs" / JOB_ID / "status.json").read_bytes()))

    def render(self, *names: str) -> Path:
        folder = self.folder / "rendered"
        folder.mkdir(exist_ok=True)
        for name in names:
            (folder / name).write_bytes(b"frame")
        return folder


def deadline_with_plug_in(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Deadline:
    """Return Deadline with the plug-in and a job, in an empty folder."""
    plug_in = shutil.copytree(PLUG_IN, folder / "events" / "Jobsvc")
    shutil.copy(ROOT / "jobsvc" / "farm.py", plug_in / "jobsvc_farm.py")
    (folder / "jobs").mkdir()
    found: list[Deadline] = []
    utilities = SimpleNamespace(
        GetEventPluginDirectory=lambda name: str(plug_in.parent / name),
        CheckPathMapping=lambda path, _: path,
        GetJobsInState=lambda state: [found[0].job] if state == found[0].state else [],
        GetJobTasks=lambda _job, _refresh: SimpleNamespace(TaskCollectionAllTasks=found[0].tasks),
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
    found.append(Deadline(folder, load_script(plug_in / "Jobsvc.py", monkeypatch)))
    return found[0]
