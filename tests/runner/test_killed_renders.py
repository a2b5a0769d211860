"""Whenever `jobsvc run`, its renderer or both are killed: no reader sees half a record or a wrong film."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Final

import pytest

from tests.farm.job_reader import reader

KILLS: Final = 200
PARTS: Final = 20
PART: Final = b"a part of the film\n"
RENDERER: Final = f"""
import sys, time
with open(sys.argv[1], "wb", buffering=0) as film:
    for part in range({PARTS}):
        film.write({PART!r})
        print(f"frame {{part + 1}} of {PARTS}", flush=True)
        time.sleep(0.002)
"""


def attempt(root: Path, whom: str, moment: float) -> None:
    """Run one attempt, of which the writer, the renderer or both are killed, or nobody.

    `moment` is in seconds after the renderer has begun, or if negative before that, while the job is created.
    """
    command = [sys.executable, "-m", "jobsvc", "run", "--jobs-root", str(root), "--owner", "acme"]
    command += ["--id", "title", "--output", "output/film.mp4"]
    command += ["--", sys.executable, "-S", "-c", RENDERER, "{output}"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while moment >= 0 and process.poll() is None and not children_of(process.pid):
            time.sleep(0.001)
        with suppress(subprocess.TimeoutExpired):
            process.wait(None if whom == "nobody" else abs(moment))
        if process.returncode is None:
            victims = children_of(process.pid) * (whom != "writer") + [process.pid] * (whom != "renderer")
            for pid in victims:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def children_of(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


def status(root: Path) -> str:
    try:
        return str(json.loads((root / "title" / "status.json").read_bytes())["status"])
    except FileNotFoundError:
        return "none"


@pytest.mark.timeout(600)
def test_run_is_killed_at_200_random_moments(tmp_path: Path) -> None:
    moments = random.Random(7)  # noqa: S311 - which moments does not matter
    ends: Counter[str] = Counter()
    with reader(tmp_path / "title", "output/film.mp4", PART * PARTS) as seen:
        for number in range(KILLS):
            whom = moments.choice(["writer", "renderer", "both"])
            attempt(tmp_path, whom, moments.choice([-moments.uniform(0, 0.3), moments.uniform(0, 0.1)]))
            ends[status(tmp_path)] += 1
            if status(tmp_path) == "completed":
                (tmp_path / "title").rename(tmp_path / f"title-{number}")
        attempt(tmp_path, "nobody", 0)
    assert status(tmp_path) == "completed"
    assert not seen.faults
    assert ends["rendering"] + ends["failed"] > KILLS / 4, ends
