"""A program that renders many jobs at once with jobsvc.farm, each with four records a second and a log.

`python -m benchmarks.harness.farm_writers JOBS_ROOT PREFIX COUNT` runs until its standard input ends, then
completes its jobs, and prints how many records it has written while it rendered. Each job has two threads.
"""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Final

from benchmarks.harness import farm, host_info, load_generator, process
from jobsvc import farm as writer

FRAME_S: Final = 0.25
FRAMES: Final = 100_000
"""More than are rendered."""
END_TIMEOUT_S: Final = 120.0


class FarmWriters:
    """Processes that render jobs; they can be paused."""

    def __init__(self, jobs_root: Path, processes: int, jobs_each: int) -> None:
        self.job_ids = [_job_id(str(number), job) for number in range(processes) for job in range(jobs_each)]
        self.seconds = 0.0
        """For how long they have not been paused."""
        self._resumed_at = 0.0
        self._jobs_root = jobs_root
        with process.on_cores(host_info.all_cores()):
            self._processes = [
                subprocess.Popen(
                    [sys.executable, "-m", __name__, str(jobs_root), str(number), str(jobs_each)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    cwd=process.REPOSITORY,
                )
                for number in range(processes)
            ]

    def wait_until_created(self) -> None:
        """Wait until all jobs exist."""
        load_generator.until(lambda: all((self._jobs_root / job).exists() for job in self.job_ids), 60)
        self._resumed_at = time.perf_counter()

    def pause(self) -> None:
        """Stop all of them where they are."""
        self.seconds += time.perf_counter() - self._resumed_at
        for each in self._processes:
            each.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Continue."""
        self._resumed_at = time.perf_counter()
        for each in self._processes:
            each.send_signal(signal.SIGCONT)

    def complete(self) -> int:
        """Complete all jobs. Returns how many records were written before."""
        self.seconds += time.perf_counter() - self._resumed_at
        for each in self._processes:
            assert each.stdin is not None
            each.stdin.close()
        return sum(int(each.stdout.read()) for each in self._processes if each.stdout is not None)

    def kill(self) -> None:
        """End the processes."""
        for each in self._processes:
            each.kill()
            each.wait()


@contextmanager
def rendering(jobs_root: Path, processes: int, jobs_each: int) -> Iterator[FarmWriters]:
    """Run the writers during a block, which should complete them."""
    writers = FarmWriters(jobs_root, processes, jobs_each)
    try:
        yield writers
    finally:
        writers.kill()


def output_of(job_id: str) -> bytes:
    """Return the content of a job's output."""
    return hashlib.sha256(job_id.encode()).digest() * 1024


def _job_id(prefix: str, number: int) -> str:
    return f"writer-{prefix}-{number:02d}"


def _render(jobs_root: str, job_id: str, ending: Event) -> None:
    with writer.Job.create(jobs_root, owner=farm.OWNER, job_id=job_id, output="output/film.mp4") as job:
        frame = 0
        while not ending.wait(FRAME_S):
            frame += 1
            job.progress(frames=(frame, FRAMES))
            job.log(f"frame {frame} of {FRAMES} is rendered")
        (job.path / "output/film.mp4").write_bytes(output_of(job_id))


def main() -> None:
    jobs_root, prefix, count = sys.argv[1:]
    # Farms have hosts of their own: writers get what the service and the load generator leave of both cores.
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    records = 0
    replace = writer._replace  # counted, not changed

    def counting_replace(new: Path, path: Path) -> None:
        nonlocal records
        records += not ending.is_set()
        replace(new, path)

    writer._replace = counting_replace
    ending = Event()
    threads = [
        Thread(target=_render, args=(jobs_root, _job_id(prefix, number), ending))
        for number in range(int(count))
    ]
    for thread in threads:
        thread.start()
    sys.stdin.read()
    ending.set()
    for thread in threads:
        thread.join()
    print(records)


if __name__ == "__main__":
    main()
