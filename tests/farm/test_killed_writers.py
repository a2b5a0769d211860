"""Whenever a writer is killed: readers never see half a record, nor a completed job without its film."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from jobsvc.domain.status_record import parse_record
from tests.farm.conftest import Read
from tests.farm.renders import FRAME

RENDERS: Final = Path(__file__).with_name("renders.py")
FRAMES: Final = 30
KILLS: Final = 200


class Reader(threading.Thread):
    """Reads a job all the time as a client would, and collects what is wrong with it."""

    def __init__(self, job: Path) -> None:
        super().__init__(daemon=True)
        self.faults: list[str] = []
        self.reads = 0
        self._job = job
        self._ending = threading.Event()
        self._attempt = (0, 0)
        self._progress = 0.0

    def run(self) -> None:
        """Read until stopped."""
        while not self._ending.wait(0.0005):
            with suppress(FileNotFoundError):  # the job does not exist now
                folder = os.open(self._job, os.O_RDONLY)
                try:
                    self._check(folder)
                finally:
                    os.close(folder)
                self.reads += 1

    def stop(self) -> None:
        """Stop reading."""
        self._ending.set()
        self.join()

    def _check(self, folder: int) -> None:
        data = read_in(folder, "status.json")
        try:
            record: dict[str, Any] = json.loads(data or b"")
            job = parse_record(self._job.name, record, 0)
        except ValueError as error:
            self.faults.append(f"{error}: {data!r}")
            return
        attempt = (os.fstat(folder).st_ino, record["attempt"])
        if attempt == self._attempt and job.progress < self._progress:
            self.faults.append(f"{job.progress} % after {self._progress} %")
        self._attempt, self._progress = attempt, job.progress
        if job.status == "completed" and read_in(folder, "output/film.mp4") != FRAME * FRAMES:
            self.faults.append("completed without its film")


def read_in(folder: int, name: str) -> bytes | None:
    """Return the content of a file in an open directory; None if there is no such file."""
    try:
        with os.fdopen(os.open(name, os.O_RDONLY, dir_fd=folder), "rb") as file:
            return file.read()
    except FileNotFoundError:
        return None


@contextmanager
def reader(job: Path) -> Iterator[Reader]:
    thread = Reader(job)
    thread.start()
    try:
        yield thread
    finally:
        thread.stop()


def attempt(root: Path, job_id: str, kill_after: float | None) -> int:
    """Run one attempt, which is killed after some seconds. Returns its exit code."""
    command = [sys.executable, "-S", str(RENDERS), str(root), job_id, str(FRAMES), "0.002"]
    with subprocess.Popen(command) as process:
        try:
            return process.wait(kill_after)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()


def test_writer_killed_at_200_random_moments(root: Path, read: Read) -> None:
    moments = random.Random(7)  # noqa: S311 - which moments does not matter
    ends: Counter[str] = Counter()
    with reader(root / "title") as seen:
        for number in range(KILLS):
            attempt(root, "title", moments.uniform(0.05, 0.4))
            status = read()["status"] if (root / "title").exists() else "none"
            ends[status] += 1
            if status == "completed":
                (root / "title").rename(root / f"title-{number}")
        assert attempt(root, "title", None) == 0
    assert read()["status"] == "completed"
    assert not seen.faults
    assert ends["rendering"] > KILLS / 4
    assert not list((root / "title").glob(".status.*"))
