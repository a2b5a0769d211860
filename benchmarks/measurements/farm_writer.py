"""What jobsvc.farm costs a render: the same frames with and without a job, in turn."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

from benchmarks.harness import farm, host_info, table
from benchmarks.harness.interleave import Plan
from jobsvc.farm import Job

FRAMES: Final = 10_000
FRAME_S: Final = (0.004, 0.01)
"""CPU seconds of a frame; those of most renderers take longer."""
GOAL: Final = table.Goal(at_most=1.01)
"""Time with a job over time without one."""


class Cost(NamedTuple):
    """What a render took."""

    wall: float
    cpu: float


def run(plan: Plan) -> None:
    """Measure and print."""
    for frame_s in FRAME_S:
        _measure(plan, frame_s)


def _measure(plan: Plan, frame_s: float) -> None:
    frames = int(plan.pick(FRAMES, FRAMES // 10))
    work = _work_of(frame_s)
    table.title(f"farm-writer: {frames:,} frames of {frame_s * 1000:.0f} ms; {host_info.load_average()}")
    with farm.scratch("farm-writer", plan.scratch) as scratch:
        root = scratch / "jobs"
        root.mkdir()
        plain: list[Cost] = []
        with_job: list[Cost] = []
        for number in range(plan.rounds):
            for is_job in (number % 2 == 0, number % 2 == 1):
                costs = with_job if is_job else plain
                costs.append(_timed(partial(_render_job, root, number) if is_job else _render, frames, work))
    for what, index in (("time", 0), ("CPU time", 1)):
        table.row(f"{what} without a job", [cost[index] for cost in plain], " s")
        table.ratio(f"{what}, with / without", [c[index] for c in with_job], [c[index] for c in plain], GOAL)


def _work_of(seconds: float) -> Callable[[], None]:
    """Return a function that takes so many CPU seconds."""
    data = bytes(1024)

    def work(count: int = 1000) -> None:
        for _ in range(count):
            hashlib.sha256(data)

    began = time.process_time()
    for _ in range(20):
        work()
    count = round(1000 * seconds / ((time.process_time() - began) / 20))
    return lambda: work(count)


def _timed(render: Callable[[int, Callable[[], None]], None], frames: int, work: Callable[[], None]) -> Cost:
    wall, cpu = time.perf_counter(), time.process_time()
    render(frames, work)
    return Cost(time.perf_counter() - wall, time.process_time() - cpu)


def _render(frames: int, work: Callable[[], None]) -> None:
    for _ in range(frames):
        work()


def _render_job(root: Path, number: int, frames: int, work: Callable[[], None]) -> None:
    """Render, and write a job: the progress and a line of the log for each frame."""
    job = Job.create(root, owner="acme", job_id=f"job-{number}")
    job.start()
    for frame in range(1, frames + 1):
        work()
        job.progress(frames=(frame, frames))
        job.log(f"frame {frame} of {frames} is rendered")
    job.complete()
