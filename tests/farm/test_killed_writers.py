"""Whenever a writer is killed: readers never see half a record, nor a completed job without its film."""

from __future__ import annotations

import random
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Final

from tests.farm.conftest import Read
from tests.farm.job_reader import reader
from tests.farm.renders import FRAME

RENDERS: Final = Path(__file__).with_name("renders.py")
FRAMES: Final = 30
KILLS: Final = 60


def attempt(jobs_root: Path, job_id: str, kill_after: float | None) -> int:
    """Run one attempt, which is killed some seconds after it has begun. Returns its exit code."""
    command = [sys.executable, "-S", str(RENDERS), str(jobs_root), job_id, str(FRAMES), "0.002"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"begins\n"
        try:
            return process.wait(kill_after)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()


def test_writer_is_killed_at_random_moments(jobs_root: Path, read: Read) -> None:
    moments = random.Random(7)  # noqa: S311 - which moments does not matter
    ends: Counter[str] = Counter()
    with reader(jobs_root / "title", "output/film.mp4", FRAME * FRAMES) as seen:
        for number in range(KILLS):
            attempt(jobs_root, "title", moments.uniform(0, 0.2))
            status = read()["status"] if (jobs_root / "title").exists() else "none"
            ends[status] += 1
            if status == "completed":
                (jobs_root / "title").rename(jobs_root / f"title-{number}")
        assert attempt(jobs_root, "title", None) == 0
    assert read()["status"] == "completed"
    assert not seen.faults
    assert ends["rendering"] > KILLS / 4
    assert not list((jobs_root / "title").glob(".status.*"))
