"""The bridge from OpenCue, with a stand-in for the API of opencue-pycue 1.37."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, Final

import pytest

from jobsvc import farm
from tests.integrations.script_loader import load_script

BRIDGE: Final = Path(__file__).parents[2] / "docs" / "integrations" / "opencue" / "jobsvc_opencue.py"
PENDING, FINISHED = 0, 1
NAME: Final = "aurora-op_0010-anna_title"


class CueJob:
    """A job as of `opencue.wrappers.job.Job`."""

    def __init__(self, job_id: str = "7d8c", name: str = NAME) -> None:
        self._id = job_id
        self._name = name
        self.now = PENDING
        self.data = SimpleNamespace(
            job_stats=SimpleNamespace(
                total_frames=4, succeeded_frames=0, eaten_frames=0, dead_frames=0, running_frames=0
            )
        )

    def id(self) -> str:
        return self._id

    def name(self) -> str:
        return self._name

    def state(self) -> int:
        return self.now

    def show(self) -> str:
        return "aurora"

    def shot(self) -> str:
        return "op_0010"

    def user(self) -> str:
        return "anna"

    def logDir(self) -> str:  # noqa: N802
        return "/logs/title"


class OpenCue:
    """A Cuebot with jobs, and the bridge."""

    def __init__(self, root: Path, module: ModuleType) -> None:
        self.root = root
        self.module = module
        self.jobs: list[CueJob] = []
        self.bridge = module.Bridge(root, "acme")

    def submit(self, *names: str) -> CueJob:
        self.jobs.append(CueJob(*names))
        return self.jobs[-1]

    def record(self, job: CueJob, *, state: int = PENDING, **frames: int) -> dict[str, Any]:
        """Change a job and update the directories; return the record of the job."""
        job.now = state
        vars(job.data.job_stats).update(frames)
        self.bridge.update_all(["aurora"])
        return dict(json.loads((self.root / job.name() / "status.json").read_bytes()))


@pytest.fixture
def cue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> OpenCue:
    found: list[OpenCue] = []

    class NotFound(Exception):
        pass

    def get_jobs(*, show: list[str], include_finished: bool = False) -> list[CueJob]:
        assert show == ["aurora"]
        return [job for job in found[0].jobs if include_finished or job.now != FINISHED]

    def get_job(job_id: str) -> CueJob:
        jobs = [job for job in found[0].jobs if job.id() == job_id]
        if not jobs:
            raise NotFound
        return jobs[0]

    api = SimpleNamespace(getJobs=get_jobs, getJob=get_job, job_pb2=SimpleNamespace(FINISHED=FINISHED))
    exceptions = SimpleNamespace(EntityNotFoundException=NotFound, CueException=Exception)
    package = SimpleNamespace(api=api, exception=exceptions)
    for name, part in {"": package, ".api": api, ".exception": exceptions}.items():
        monkeypatch.setitem(sys.modules, f"opencue{name}", part)
    found.append(OpenCue(tmp_path, load_script(BRIDGE, monkeypatch)))
    return found[0]


def test_job_is_written_from_queued_to_completed(cue: OpenCue) -> None:
    job = cue.submit()
    found = cue.record(job)
    assert (found["status"], found["owner"], found["metadata"]["opencue"]["shot"]) == (
        "queued",
        "acme",
        "op_0010",
    )
    assert cue.record(job, running_frames=2)["status"] == "rendering"
    found = cue.record(job, succeeded_frames=2)
    assert (found["progress"], found["framesDone"], found["framesTotal"]) == (50, 2, 4)
    (cue.root / NAME / "output" / "title.0001.png").write_bytes(b"frame")
    found = cue.record(job, state=FINISHED, succeeded_frames=3, eaten_frames=1)
    assert (found["status"], found["progress"], found["framesDone"]) == ("completed", 100, 4)
    assert not cue.bridge.unfinished


def test_frames_that_began_before_the_bridge_saw_the_job_are_kept(cue: OpenCue) -> None:
    (cue.root / NAME / "output").mkdir(parents=True)
    (cue.root / NAME / "output" / "title.0001.png").write_bytes(b"frame")
    job = cue.submit()
    assert cue.record(job, running_frames=1)["attempt"] == 1
    assert cue.record(job, state=FINISHED, succeeded_frames=4)["status"] == "completed"


def test_dead_frames_are_told_and_fail_a_job_that_is_finished(cue: OpenCue) -> None:
    job = cue.submit()
    assert cue.record(job, dead_frames=1)["phase"] == "1 frames have failed"
    found = cue.record(job, state=FINISHED)
    assert (found["status"], found["error"]) == (
        "failed",
        "1 of 4 frames have failed: their logs are in /logs/title",
    )


def test_killed_job_is_canceled(cue: OpenCue) -> None:
    job = cue.submit()
    cue.record(job, succeeded_frames=1)
    assert cue.record(job, state=FINISHED)["status"] == "canceled"


def test_job_without_output_is_failed(
    cue: OpenCue, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(farm, "OUTPUT_TIMEOUT_S", 0.1)
    job = cue.submit()
    cue.record(job)
    assert cue.record(job, state=FINISHED, succeeded_frames=4)["status"] == "failed"
    assert "output/ is missing" in caplog.text
    assert not cue.bridge.unfinished


def test_job_that_finished_while_the_bridge_was_away_is_ended(cue: OpenCue) -> None:
    job = cue.submit()
    cue.record(job, running_frames=1)
    cue.bridge = cue.module.Bridge(cue.root, "acme")
    assert cue.record(job, state=FINISHED)["status"] == "canceled"


def test_old_jobs_are_left_out(cue: OpenCue) -> None:
    cue.submit("old", "aurora-old").now = FINISHED
    cue.bridge.update_all(["aurora"])
    assert list(cue.root.iterdir()) == []


def test_name_that_was_used_before_is_reported_once(cue: OpenCue, caplog: pytest.LogCaptureFixture) -> None:
    first = cue.submit()
    cue.record(first)
    cue.record(first, state=FINISHED)
    second = cue.submit("another id")
    assert cue.record(second, running_frames=1)["status"] == "canceled"
    cue.record(second, running_frames=2)
    assert caplog.text.count("submit the job with another name") == 1


def test_job_that_opencue_has_no_longer_is_reported(cue: OpenCue, caplog: pytest.LogCaptureFixture) -> None:
    cue.record(cue.submit())
    cue.jobs.clear()
    cue.bridge.update_all(["aurora"])
    assert "no longer in OpenCue" in caplog.text
    assert not cue.bridge.unfinished


def test_name_that_is_no_job_id_stops_no_other_job(cue: OpenCue, caplog: pytest.LogCaptureFixture) -> None:
    cue.submit("bad", "../bad")
    with caplog.at_level(logging.ERROR):
        assert cue.record(cue.submit())["status"] == "queued"
    assert "is no job id" in caplog.text
