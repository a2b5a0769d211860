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
from collections.abc import Sequence
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


def attempt(root: Path, victims: Sequence[str] = (), *, is_rendering: bool = False, delay: float = 0) -> None:
    """Run one attempt. Kill the victims, "writer" and "renderer", or nobody.

    They are killed some seconds after the start, or if `is_rendering` after the renderer has begun.
    """
    command = [sys.executable, "-m", "jobsvc", "run", "--jobs-root", str(root), "--owner", "acme"]
    command += ["--id", "title", "--output", "output/film.mp4"]
    command += ["--", sys.executable, "-S", "-c", RENDERER, "{output}"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while is_rendering and process.poll() is None and not children_of(process.pid):
            time.sleep(0.001)
        with suppress(subprocess.TimeoutExpired):
            process.wait(delay if victims else None)
        if process.returncode is None:
            pids = {"renderer": children_of(process.pid), "writer": [process.pid]}
            for pid in [pid for victim in victims for pid in pids[victim]]:
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
            victims = moments.choice([["writer"], ["renderer"], ["renderer", "writer"]])
            is_rendering = moments.random() < 0.5
            delay = moments.uniform(0, 0.1 if is_rendering else 0.3)
            attempt(tmp_path, victims, is_rendering=is_rendering, delay=delay)
            ends[status(tmp_path)] += 1
            if status(tmp_path) == "completed":
                (tmp_path / "title").rename(tmp_path / f"title-{number}")
        attempt(tmp_path)
    assert status(tmp_path) == "completed"
    assert not seen.faults
    assert ends["rendering"] + ends["failed"] > KILLS / 4, ends
