"""Write the records and logs of the sample jobs again, with jobsvc.farm: python -m tests.sample_jobs.

The outputs and the text of the logs are taken from the directory of each job, where make.sh has put them.
The other samples show what other programs write. Their records are written by hand and are not changed.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from datetime import datetime, tzinfo
from pathlib import Path
from typing import Any, Final
from unittest import mock

from jobsvc import farm

SAMPLES: Final = Path(__file__).parents[1] / "sample_jobs"
ATTEMPTS: Final = 3
SHOW: Final = {"show": "aurora"}
PROJECTS: Final = {
    "opening-title-0042": "projects/aurora/opening-title.blend",
    "star-turn-0420": "projects/aurora/star-turn.blend",
    "teaser-0031": "projects/aurora/teaser.blend",
    "turntable-0013": "projects/aurora/turntable.ma",
    "product-spin-0108": "projects/kettle/spin.hip",
}


class Clock(datetime):
    """The time of the samples, instead of that of the system."""

    current: datetime

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> Any:
        """Return the time that was set."""
        return cls.current.astimezone(tz)

    @classmethod
    def set(cls, time: str) -> None:
        """Set the time: "2026-11-20T09:12:30"."""
        cls.current = datetime.fromisoformat(f"{time}+00:00")


def make_all(root: Path) -> list[str]:
    """Create the jobs in `root`. Returns their ids."""
    makers: tuple[Callable[[Path], farm.Job], ...] = (
        _opening_title,
        _star_turn,
        _teaser,
        _bumper,
        _turntable,
        _product_spin,
    )
    # The outputs are there already, so there is no need to wait until they no longer grow.
    with mock.patch.object(farm, "datetime", Clock), mock.patch.object(farm, "STABLE_S", 0):
        jobs = [make(root) for make in makers]
    for job in jobs:
        (job.path / ".lock").unlink(missing_ok=True)
    return [job.id for job in jobs]


def _opening_title(root: Path) -> farm.Job:
    job = _create(
        root,
        "opening-title-0042",
        "2026-11-20T09:12:30",
        output="output/opening-title.mp4",
        metadata=SHOW | {"shot": "op_0010", "worker": "render-03", "resolution": [640, 360], "fps": 25},
    )
    return _render(job, 100, "2026-11-20T09:14:07", "2026-11-20T09:16:31")


def _star_turn(root: Path) -> farm.Job:
    metadata = SHOW | {"shot": "op_0420"}
    job = _create(root, "star-turn-0420", "2026-11-22T09:30:00", metadata=metadata)
    job.add_output("star", "output/star.####.png", role="main", frames="1001-1012")
    return _render(job, 12, "2026-11-22T09:30:05", "2026-11-22T09:31:12")


def _teaser(root: Path) -> farm.Job:
    job = _create(root, "teaser-0031", "2026-11-22T10:04:00", output="output/teaser.mp4")
    job.add_output("poster", "output/teaser.jpg", role="preview")
    return _render(job, 24, "2026-11-22T10:04:03", "2026-11-22T10:04:41")


def _bumper(root: Path) -> farm.Job:
    Clock.set("2026-11-19T14:00:00")
    job = farm.Job.create(
        root, owner="other-studio", job_id="bumper-0001", project="bumper.blend", output="output/bumper.mp4"
    )
    return _render(job, 12, "2026-11-19T14:00:01", "2026-11-19T14:00:09")


def _turntable(root: Path) -> farm.Job:
    """Fail three times. The logs of the first two attempts are kept."""
    _fail(root, "2026-11-21T16:05:19", "2026-11-21T16:05:22", "2026-11-21T16:05:25")
    _fail(root, "2026-11-21T16:20:19", "2026-11-21T16:20:20", "2026-11-21T16:20:23")
    return _fail(root, "2026-11-21T16:35:20", "2026-11-21T16:40:02", "2026-11-21T16:40:05")


def _fail(root: Path, created_at: str, started_at: str, ended_at: str) -> farm.Job:
    metadata = SHOW | {"worker": "render-02"}
    job = _create(root, "turntable-0013", created_at, output="output/turntable.mp4", metadata=metadata)
    Clock.set(started_at)
    job.progress(frames=(0, 24), phase="encoding")
    if job.attempt < ATTEMPTS:
        job.log(f"{started_at}Z farm: {job.id} taken by render-02, attempt {job.attempt} of {ATTEMPTS}")
        job.log(f"{ended_at}Z farm: ffmpeg ended with exit code 1")
    else:
        job.log((SAMPLES / job.id / "render.log").read_text("utf-8"))
    Clock.set(ended_at)
    job.progress(frames=(18, 24))
    job.fail("ffmpeg ended with exit code 1: plates/plate_0019.png is cut short")
    return job


def _product_spin(root: Path) -> farm.Job:
    """Render, but not to the end."""
    metadata = {"client": "Kettle & Co", "priority": 70}
    job = _create(
        root, "product-spin-0108", "2026-11-22T07:55:00", output="output/spin.mov", metadata=metadata
    )
    Clock.set("2026-11-22T08:00:01")
    job.progress(frames=(0, 250), phase="beauty pass")
    job.log((SAMPLES / job.id / "render.log").read_text("utf-8"))
    Clock.set("2026-11-22T08:21:40")
    job.progress(frames=(105, 250))
    return job


def _create(
    root: Path, job_id: str, at: str, *, output: str | None = None, metadata: dict[str, Any] | None = None
) -> farm.Job:
    Clock.set(at)
    return farm.Job.create(
        root, owner="demo", job_id=job_id, project=PROJECTS[job_id], output=output, metadata=metadata
    )


def _render(job: farm.Job, frames: int, started_at: str, completed_at: str) -> farm.Job:
    """Begin the job, copy its outputs, and complete it."""
    Clock.set(started_at)
    job.progress(frames=(0, frames))
    shutil.copytree(SAMPLES / job.id / "output", job.path / "output", dirs_exist_ok=True)
    log = SAMPLES / job.id / "render.log"
    if log.exists():
        job.log(log.read_text("utf-8"))
    Clock.set(completed_at)
    job.progress(frames=(frames, frames))
    job.complete()
    return job


def main() -> None:
    """Replace the records and logs of the samples."""
    with tempfile.TemporaryDirectory() as folder:
        for job_id in make_all(Path(folder)):
            for file in Path(folder, job_id).iterdir():
                if file.is_file():
                    shutil.copyfile(file, SAMPLES / job_id / file.name)


if __name__ == "__main__":
    main()
