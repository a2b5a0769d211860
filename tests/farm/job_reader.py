"""Reads a job all the time, as a client would, and collects what is wrong with it."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from jobsvc.domain.status_record import parse_record


class Reader(threading.Thread):
    """Reads a job all the time as a client would, and collects what is wrong with it."""

    def __init__(self, job: Path, output: str, film: bytes) -> None:
        super().__init__(daemon=True)
        self.faults: list[str] = []
        self.reads = 0
        self._job = job
        self._output = output
        self._film = film
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
        if job.status == "completed" and read_in(folder, self._output) != self._film:
            self.faults.append("completed without its film")


def read_in(folder: int, name: str) -> bytes | None:
    """Return the content of a file in an open directory; None if there is no such file."""
    try:
        with os.fdopen(os.open(name, os.O_RDONLY, dir_fd=folder), "rb") as file:
            return file.read()
    except FileNotFoundError:
        return None


@contextmanager
def reader(job: Path, output: str, film: bytes) -> Iterator[Reader]:
    """Read during a block. When the job is completed, `output` has to be the film."""
    thread = Reader(job, output, film)
    thread.start()
    try:
        yield thread
    finally:
        thread.stop()
