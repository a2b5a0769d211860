"""A farm that renders many short jobs, and remembers which state was on disk when."""

from __future__ import annotations

import random
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

from tests.conftest import job_maker

OWNER: Final = "anna"
FINAL: Final = ("completed", "failed", "canceled")
STEPS: Final = 10
"""States of a job, the final one included."""


class State(NamedTuple):
    """One record of a job; times as of time.monotonic."""

    status: str
    begun_at: float
    """Before it was renamed into place."""
    done_at: float


@dataclass
class Rendered:
    """A job that was rendered, or is. The number of a state is in its record as metadata.step."""

    job_id: str
    folder: Path
    states: list[State] = field(default_factory=list)

    @property
    def log(self) -> bytes:
        return (self.folder / "render.log").read_bytes()

    @property
    def is_final(self) -> bool:
        return self.states[-1].status in FINAL

    @property
    def final_at(self) -> float:
        """When the final state was on disk."""
        return self.states[-1].done_at

    def oldest_step(self, at: float) -> int:
        """Return the number of the state that was on disk at a time: what is read later is no older."""
        done = [number for number, state in enumerate(self.states) if state.done_at <= at]
        return done[-1] if done else -1


class RenderFarm:
    """Renders jobs in a thread."""

    def __init__(self, root: Path, *, active: int, writes_per_s: float) -> None:
        """`active` jobs are under way at any time; their records change `writes_per_s` times a second."""
        self.jobs: dict[str, Rendered] = {}
        """By id, in the order in which they were created."""
        self.unfinished: list[Rendered] = []
        self._root, self._active, self._interval = root, active, 1 / writes_per_s
        self._make_job = job_maker(root)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="render-farm")
        self._random = random.Random(19)  # noqa: S311 - no secret

    def start(self) -> None:
        while len(self.jobs) < self._active:
            self._create(age=self._random.randrange(STEPS - 2))
        self._thread.start()

    def finish(self) -> None:
        """Finish all jobs, and create no more."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        next_at = time.monotonic()
        while not self._stop.is_set():
            self._advance(self._random.choice(self.unfinished))
            next_at = max(next_at + self._interval, time.monotonic() - 1)
            self._stop.wait(max(next_at - time.monotonic(), 0))
        for job in list(self.unfinished):
            while not job.is_final:
                self._advance(job)

    def _advance(self, job: Rendered) -> None:
        step = len(job.states)
        with (job.folder / "render.log").open("ab") as log:
            log.write(b"".join(b"Fra:%d Mem:512M | Sample %d\n" % (step, sample) for sample in range(3)))
        if step < STEPS - 1:
            self._write(job, "rendering", progress=100 * step // STEPS)
            return
        if self._random.random() < 0.8:
            self._write(job, "completed", output=b"film of " + job.job_id.encode())
        else:
            self._write(job, "failed", error="Blender exited with code 11")
        self.unfinished.remove(job)
        if not self._stop.is_set():
            self._create()

    def _create(self, age: int = 0) -> None:
        job_id = f"shot-{len(self.jobs):06}"
        job = Rendered(job_id, self._root / job_id)
        job.folder.mkdir()
        (job.folder / "render.log").write_bytes(b"Blender 4.2\n")
        self._write(job, "queued")
        self.jobs[job_id] = job
        self.unfinished.append(job)
        for _ in range(age):
            self._advance(job)

    def _write(self, job: Rendered, status: str, **record: Any) -> None:
        begun_at = time.monotonic()
        self._make_job(job.job_id, status=status, metadata={"step": len(job.states)}, **record)
        job.states.append(State(status, begun_at, time.monotonic()))
