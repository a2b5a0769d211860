"""Everything that a farm and people do to job directories, and what may be answered for a job afterwards."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias

from jobsvc.domain.job import Status
from jobsvc.domain.status_record import BadRecord
from jobsvc.storage.files.safe_open import PathNotFound
from jobsvc.storage.jobs.reader import JobsRoot

ANCHOR: Final = "anchor"
"""A job that is never removed, so that the root is never empty: an empty root counts as
unavailable storage.
"""
OUTPUT: Final = "output/film.mp4"
OWNERS: Final = ("owner-0", "owner-1", "owner-2", "ann")


class JobState(NamedTuple):
    """What clients can observe of a job."""

    status: Status
    owner: str
    progress: float
    updated_at: str
    output: bool

    def status_fields(self) -> tuple[Any, ...]:
        """Return its fields in a status response."""
        return self.status.value, self.progress, self.updated_at, self.output

    def download_result(self) -> str:
        """Return the result of a download: a problem code, or "sent"."""
        if self.status is Status.COMPLETED:
            return "sent" if self.output else "output-missing"
        return (
            f"job-{self.status}" if self.status in {Status.FAILED, Status.CANCELED} else "job-not-completed"
        )


ExpectedState: TypeAlias = JobState | None
"""None: there is no such job."""


def visible_status(owner: str | None, truth: ExpectedState) -> tuple[Any, ...] | None:
    """Return what an owner (None: admin) sees of it, None if nothing."""
    return truth.status_fields() if truth is not None and owner in {None, truth.owner} else None


def visible_download(owner: str | None, truth: ExpectedState) -> str:
    """Return the result of a download for one owner."""
    return truth.download_result() if truth is not None and owner in {None, truth.owner} else "job-not-found"


class RandomFarm:
    """Real directories, and for each job the states that may be answered."""

    def __init__(self, base: Path, jobs: tuple[str, ...]) -> None:
        self.jobs = jobs
        self.root = base / "jobs"
        self._outside = base / "aside"
        self._number = count()
        self._disk = JobsRoot(self.root)
        self._allowed: dict[str, set[ExpectedState]] = {job_id: {None} for job_id in jobs}
        self._possibly_cached = dict(self._allowed)
        """All states that each job had since the service's state of it was last known."""
        self._unreadable: set[str] = set()
        self._in_grace_period: set[str] = set()
        """Jobs with a missing record or output: for two seconds the previous state may be answered."""
        self.root.mkdir()
        self._outside.mkdir()
        self._write_record(self.root / ANCHOR, "queued", 0)
        self.operations: dict[str, Callable[[str], None]] = {
            name.removeprefix("do_"): getattr(self, name) for name in dir(self) if name.startswith("do_")
        }

    def perform(self, operation: str, job_id: str) -> None:
        """Perform the operation if possible, and record the new state."""
        with contextlib.suppress(OSError):
            self.operations[operation](job_id)
        try:
            truth = self._read_state(job_id)
        except BadRecord:
            # The last known state is kept; which one that is depends on when it was last read.
            self._allowed[job_id] = self._possibly_cached[job_id]
            self._unreadable.add(job_id)
            self._in_grace_period.discard(job_id)
        else:
            before = self._grace_period_states(job_id, truth)
            self._allowed[job_id] = {truth} | before
            self._in_grace_period -= {job_id}
            self._in_grace_period |= {job_id} if before else set()
            self._unreadable.discard(job_id)
            self._possibly_cached[job_id] = self._possibly_cached[job_id] | {truth} | before

    def _grace_period_states(self, job_id: str, truth: ExpectedState) -> set[ExpectedState]:
        """Return what may be answered besides the current state while an existing file is missing."""
        if truth is None:
            there = not (self.root / job_id).is_symlink() and (self.root / job_id).is_dir()
            return self._possibly_cached[job_id] - {None} if there else set()
        had_output = any(known is not None and known.output for known in self._possibly_cached[job_id])
        if truth.status is Status.COMPLETED and not truth.output and had_output:
            return {truth._replace(output=True)}
        return set()

    @property
    def has_grace_period(self) -> bool:
        """Return whether a job is in its grace period."""
        return bool(self._in_grace_period)

    def is_grace_period_answer(self, job_id: str, shown: tuple[Any, ...] | None) -> bool:
        """Return whether this status is only correct during the grace period of a missing file."""
        truths = {visible_status(None, truth) for truth in self._final_states(job_id)}
        return job_id in self._in_grace_period and shown not in truths

    def _final_states(self, job_id: str) -> set[ExpectedState]:
        try:
            return {self._read_state(job_id)}
        except BadRecord:
            return self._allowed[job_id]

    def accept(self, job_id: str, owner: str | None, shown: tuple[Any, ...] | None) -> bool:
        """Return whether this status is correct; from then on it is what the service knows."""
        matching = {truth for truth in self._allowed[job_id] if visible_status(owner, truth) == shown}
        if matching and job_id in self._in_grace_period and matching & self._final_states(job_id):
            matching &= self._final_states(job_id)
            if owner is None:
                self._in_grace_period.discard(job_id)
        if matching and job_id not in self._in_grace_period:
            self._allowed[job_id] = self._possibly_cached[job_id] = matching
        return bool(matching)

    def allowed_states(self, job_id: str) -> set[ExpectedState]:
        """Return all states that may be answered."""
        return self._allowed[job_id]

    def allowed_downloads(self, job_id: str, owner: str | None) -> set[str]:
        """Return the possible results of a download: for an unreadable record, the disk decides about the
        output.
        """
        allowed = {visible_download(owner, truth) for truth in self._allowed[job_id]}
        if job_id in self._unreadable and allowed & {"sent", "output-missing"}:
            allowed |= {"sent", "output-missing"}
        return allowed

    def possibly_cached(self, job_id: str) -> set[ExpectedState]:
        """Return all states that the service may know, including outdated ones."""
        return self._possibly_cached[job_id]

    def replace_root(self) -> Callable[[], None]:
        """Replace the root by an empty one; the returned function moves its jobs back one by one."""
        old = self._outside / f"old-{next(self._number)}"
        self.root.rename(old)
        self.root.mkdir()

        def fill() -> None:
            for folder in list(old.iterdir()):
                folder.rename(self.root / folder.name)
            for job_id in self.jobs:  # each was absent for a moment
                self._possibly_cached[job_id] = self._possibly_cached[job_id] | {None}
                if job_id in self._unreadable:
                    self._allowed[job_id] = self._possibly_cached[job_id]

        return fill

    def _read_state(self, job_id: str) -> ExpectedState:
        try:
            snapshot = self._disk.read(job_id)
        except PathNotFound:
            return None
        job = snapshot.job
        return JobState(
            job.status, job.owner, job.progress, job.updated_at, snapshot.output_version is not None
        )

    def _write_record(self, folder: Path, status: str, number: int, **keys: Any) -> None:
        folder.mkdir(exist_ok=True)
        temporary = folder / f".status.{number}.tmp"
        record = {
            "status": status,
            "owner": f"owner-{number % 3}",
            "progress": number % 100,
            "attempt": number,
        }
        temporary.write_text(json.dumps(record | keys))
        temporary.rename(folder / "status.json")

    def do_replace(self, job_id: str) -> None:
        self._write_record(self.root / job_id, "rendering", next(self._number))

    def do_finish(self, job_id: str) -> None:
        self._write_record(self.root / job_id, "completed", next(self._number), outputPath=OUTPUT)

    def do_finish_with_output(self, job_id: str) -> None:
        output = self.root / job_id / OUTPUT
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_bytes(b"film")
        self.do_finish(job_id)

    def do_deliver(self, job_id: str) -> None:
        output = self.root / job_id / OUTPUT
        output.parent.mkdir(exist_ok=True)
        output.write_bytes(b"film")

    def do_lose_output(self, job_id: str) -> None:
        (self.root / job_id / OUTPUT).unlink()

    def do_move_output_folder(self, job_id: str) -> None:
        folder = self.root / job_id / "output"
        folder.rename(folder.with_name(f"output-{next(self._number)}"))

    def do_write_in_place(self, job_id: str) -> None:
        number = next(self._number)
        record = {"status": "failed", "owner": "ann", "progress": number % 100}
        (self.root / job_id / "status.json").write_text(json.dumps(record))

    def do_half_write(self, job_id: str) -> None:
        (self.root / job_id / "status.json").write_text('{"status": "rende')

    def do_set_times_back(self, job_id: str) -> None:
        self.do_write_in_place(job_id)
        os.utime(self.root / job_id / "status.json", (1_000_000_000, 1_000_000_000))

    def do_delete_record(self, job_id: str) -> None:
        (self.root / job_id / "status.json").unlink()

    def do_delete(self, job_id: str) -> None:
        path = self.root / job_id
        if path.is_symlink() or path.is_file():
            path.unlink()
        else:
            shutil.rmtree(path)

    def do_make_empty(self, job_id: str) -> None:
        (self.root / job_id).mkdir()

    def do_rename_out(self, job_id: str) -> None:
        (self.root / job_id).rename(self._outside / f"{job_id}-{next(self._number)}")

    def do_rename_in(self, job_id: str) -> None:
        number = next(self._number)
        prepared = self._outside / f"prepared-{number}"
        self._write_record(prepared, "queued", number)
        prepared.rename(self.root / job_id)

    def do_recreate(self, job_id: str) -> None:
        self.do_delete(job_id)
        self._possibly_cached[job_id] = self._possibly_cached[job_id] | {None}  # for a moment
        self.do_replace(job_id)

    def do_swap_for_file(self, job_id: str) -> None:
        self.do_delete(job_id)
        (self.root / job_id).write_text("no job")

    def do_swap_for_link(self, job_id: str) -> None:
        number = next(self._number)
        kept = self._outside / f"linked-{number}"
        (self.root / job_id).rename(kept)
        (self.root / job_id).symlink_to(kept)

    def do_swap_record_for_link(self, job_id: str) -> None:
        record = self.root / job_id / "status.json"
        kept = self._outside / f"record-{next(self._number)}"
        record.rename(kept)
        record.symlink_to(kept)

    def do_unreadable_name(self, job_id: str) -> None:
        folder = os.fsencode(self.root / job_id)
        (Path(os.fsdecode(folder + b"/\xff\xfe"))).write_text("")
