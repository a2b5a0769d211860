"""Write the directory of a render job for jobsvc: record, log, outputs and the final state.

It needs only the standard library of Python 3.9 or newer, and runs on Linux, macOS and Windows. It is one
file, so that it can be copied to where a renderer imports from.

    from jobsvc.farm import Job

    with Job.create("/srv/farm/jobs", owner="acme", output="output/title.mp4") as job:
        for frame in range(1, 251):
            render(frame)
            job.progress(frames=(frame, 250))

At the end of the block the job is completed if all of its outputs exist, else failed. After an exception it
is failed, after KeyboardInterrupt, SIGTERM or SIGHUP canceled. Within the block a thread writes, so that a
render does not wait for storage. While writing fails, it is tried again, and reported once.
docs/job-directory.md describes the format.
"""

from __future__ import annotations

import json
import logging
import math
import operator
import os
import queue
import re
import shutil
import signal
import threading
import time
import traceback
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["Job", "JobError"]

WRITE_INTERVAL_S = 0.25
"""Least time between two records, except the final one."""
HEARTBEAT_S = 30.0
"""A record is written at least this often, so that jobsvc does not take the job for stalled."""
RETRY_S = 2.0
"""Time between two attempts to write while storage fails."""
FINAL_TIMEOUT_S = 600.0
"""How long it is tried to write the final state."""
STABLE_S = 1.0
"""An output is complete if its size and time have not changed for so long."""
OUTPUT_TIMEOUT_S = 10.0
"""How long to wait for outputs that are missing, empty or growing: network storage shows files late."""
ESTIMATE_AFTER_S = 5.0
"""The end is estimated only after so long."""
MAX_LOG_BACKLOG = 16 * 1024 * 1024
"""Bytes of log that are kept while storage fails; then the oldest lines are dropped."""
LOCK_TIMEOUT_S = 10.0
"""How long to wait for another program that writes the job: storage may keep the lock of a lost host."""
MAX_TEXT = 4000
"""Characters of an error or a phase that are written."""
MAX_RECORD = 1024 * 1024
"""Bytes of a record that jobsvc reads."""

Record = dict[str, Any]

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_PLACEHOLDER = re.compile(r"#+|@+|%(?:0([1-9]))?d|\$F([1-9])?")
_OUTPUT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_FRAMES = re.compile(r"(-?[0-9]{1,9})(?:-(-?[0-9]{1,9}))?")
_ROLES = ("main", "preview", "thumbnail", "data")
_MAX_OUTPUTS = 256
_MAX_COUNT = 2**53 - 1
_END_STATES = ("completed", "failed", "canceled")
_logger = logging.getLogger("jobsvc.farm")


class JobError(Exception):
    """The job cannot be written as asked for. The message names what is wrong and the remedy."""


class Terminated(SystemExit):
    """Raised in the main thread by SIGTERM or SIGHUP during the block of a job."""


class Job:
    """One attempt of a job. Methods may be called from any thread of the program that has created it.

    They raise JobError if the attempt has ended, or another one has begun; outside of a block, also OSError.
    """

    def __init__(self, path: Path, record: Record) -> None:
        """Use `Job.create` or `Job.open`."""
        self.path = path
        self._record = record
        self._lock = threading.Lock()
        self._writer = _Writer(path, _attempt_of(record))
        self._pid = os.getpid()
        self._completed_at: dict[str, str] = {}
        """By final state."""
        self._restore_handler: Callable[[], object] = lambda: None

    @classmethod
    def create(  # noqa: PLR0913 - keyword arguments
        cls,
        jobs_root: str | os.PathLike[str],
        *,
        owner: str,
        output: str | os.PathLike[str] | None = None,
        job_id: str | None = None,
        project: str | os.PathLike[str] | None = None,
        frames: int | None = None,
        metadata: Record | None = None,
        restart: bool = False,
        keep_outputs: bool = False,
    ) -> Job:
        """Create a queued job, or queue the next attempt of a job.

        `output` is the path of the main output in the job's directory: a file, a sequence
        (`output/beauty.####.exr`) or a directory (`output/passes/`). `frames` is how many will be rendered.
        What an earlier attempt has left of the outputs is removed, unless `keep_outputs`. A completed job
        has a next attempt only with `restart`. Raises JobError, and OSError if storage fails.
        """
        job_id = job_id or str(uuid.uuid4())
        if not _ID.fullmatch(job_id):
            raise JobError(
                f"{job_id!r} is no job id: use 1 to 128 of A-Z a-z 0-9 . _ - and begin with a letter or digit"
            )
        values = {
            "projectPath": None if project is None else os.fspath(project),
            "outputPath": None if output is None else os.fspath(output),
            "framesTotal": None if frames is None else _count(frames),
            "metadata": metadata,
        }
        record: Record = {"id": job_id, "status": "queued", "owner": owner, "createdAt": _now(), "attempt": 1}
        if frames is not None:
            record["framesDone"] = 0
        record.update((key, value) for key, value in values.items() if value is not None)
        _check_record(record)
        path = Path(jobs_root, job_id).absolute()
        if not path.exists() and _create_directory(path, record):
            return cls(path, record)
        with _locked(path):
            record = _next_attempt(path, record, restart=restart, keep_outputs=keep_outputs)
        return cls(path, record)

    @classmethod
    def open(cls, jobs_root: str | os.PathLike[str], job_id: str) -> Job:
        """Continue the attempt of a job, as programs do that run one after another. Raises JobError."""
        path = Path(jobs_root, job_id).absolute()
        record = _read_record(path) if _ID.fullmatch(job_id) else None
        if record is None and not path.parent.is_dir():
            raise JobError(f"{path.parent} is missing: create the directory of the jobs, or mount the share")
        if record is None:
            raise JobError(f"{path} has no valid status.json: create the job first")
        return cls(path, record)

    @property
    def id(self) -> str:
        """The name of the directory."""
        return self.path.name

    @property
    def attempt(self) -> int:
        """The number of the attempt; 1 for the first."""
        return _attempt_of(self._record)

    @property
    def status(self) -> str:
        """One of queued, rendering, completed, failed and canceled."""
        return str(self._record["status"])

    @property
    def has_ended(self) -> bool:
        """Whether the attempt is completed, failed or canceled."""
        return self.status in _END_STATES

    def start(self) -> None:
        """Begin to render, and write in a thread from now on, until the job ends. A block does this, too."""
        self._writer.start()
        self.progress()

    def __enter__(self) -> Job:  # noqa: PYI034 - typing.Self is in Python 3.11 and newer
        if threading.current_thread() is threading.main_thread():
            self._restore_handler = _handle_termination()
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if os.getpid() != self._pid:
            return  # a forked process has left the block; the render goes on in its parent
        try:
            if not self.has_ended:
                self._end_as(error)
        except (KeyboardInterrupt, Terminated):
            with suppress(JobError):  # the interrupted call has ended it after all
                self.cancel()
            raise
        finally:
            self._writer.stop()
            self._restore_handler()

    def _end_as(self, error: BaseException | None) -> None:
        if isinstance(error, (KeyboardInterrupt, Terminated)):
            self.cancel()
        elif error is None or (isinstance(error, SystemExit) and not error.code):
            self.complete()
        elif isinstance(error, JobError):
            self.fail(str(error))
        else:
            self.log("".join(traceback.format_exception(type(error), error, error.__traceback__)))
            self.fail(traceback.format_exception_only(type(error), error)[-1].strip())

    def progress(
        self,
        percent: float | None = None,
        *,
        phase: str | None = None,
        frames: tuple[int, int | None] | None = None,
    ) -> None:
        """Tell how far the render is, in percent and in frames (done, total). Neither ever falls."""
        if frames is not None and not isinstance(frames, (tuple, list)):
            raise TypeError(f"progress: frames is {frames!r}, use (done, total), for example (12, 250)")
        done, total = (None if count is None else _count(count) for count in frames or (None, None))
        if percent is None and done is not None and total:
            percent = min(99.0, 100 * done / total)
        if percent is not None and not math.isfinite(percent := float(percent)):
            raise ValueError(f"progress: {percent} is not a number from 0 to 100")

        def change(record: Record) -> None:
            if record["status"] == "queued":
                record.update(status="rendering", startedAt=_now())
            if percent is not None:
                record["progress"] = max(record.get("progress") or 0, min(round(percent, 2), 100))
            if done is not None:
                record["framesDone"] = max(record.get("framesDone") or 0, done)
            if total is not None:
                record["framesTotal"] = total
            if phase is not None:
                record["phase"] = str(phase)[:MAX_TEXT]

        self._change(change)

    def log(self, text: str) -> None:
        """Append lines to the log."""
        self.check()
        lines = text.replace("\r\n", "\n").replace("\r", "\n").removesuffix("\n")
        self._writer.append(f"{lines}\n".encode("utf-8", "replace"))

    def keep_alive(self) -> None:
        """Keep the job from becoming stalled without a new record, for programs that write without a block.

        It sets the time of the record, so another program may be writing a new one. Raises OSError.
        """
        os.utime(self.path / "status.json")

    def check(self) -> None:
        """Raise JobError if another attempt has begun, or another program has ended this one."""
        self._check_process()
        self._writer.check()

    def _check_process(self) -> None:
        if os.getpid() != self._pid:
            raise JobError(f"{self.path} is written by process {self._pid}: call its methods there")

    def add_output(
        self, name: str, path: str | os.PathLike[str], *, role: str = "data", frames: str | None = None
    ) -> None:
        """Add an output beside the main one. `frames` are those that a sequence has to have: "1-250"."""
        output = {"name": name, "path": os.fspath(path), "role": role}
        if frames is not None:
            output["frames"] = frames

        def change(record: Record) -> None:
            others = [other for other in record.get("outputs") or [] if other.get("name") != name]
            record["outputs"] = [*others, output]
            _check_record(record)
            _make_output_directories(self.path, [output])

        self._change(change)

    def complete(self, *, hint: str | None = None) -> None:
        """End the job as completed, once all outputs are there, not empty and no longer growing.

        Otherwise it ends as failed, and JobError is raised; `hint` is added to the error.
        """
        problem = _wait_for_outputs(self.path, _outputs_of(self._record))
        if problem is None:
            self._end("completed", progress=100)
            return
        problem = f"{problem}; {hint}" if hint else problem
        self.fail(problem)
        raise JobError(f"{self.path} is failed: {problem}")

    def fail(self, error: str) -> None:
        """End the job as failed. `error` is one sentence for people."""
        self._end("failed", error=str(error)[:MAX_TEXT])

    def cancel(self) -> None:
        """End the job as canceled."""
        self._end("canceled")

    def _end(self, status: str, **values: object) -> None:
        # The same time if this is called again after an interrupt: another one is that of another program.
        completed_at = self._completed_at.setdefault(status, _now())

        def change(record: Record) -> None:
            record.update(status=status, completedAt=completed_at, **values)
            record.pop("phase", None)
            record.pop("estimatedCompletionAt", None)

        self._change(change, is_final=True)

    def _change(self, change: Callable[[Record], None], *, is_final: bool = False) -> None:
        """Change a copy of the record and have it written, so that an interrupted change has not happened."""
        self._check_process()
        with self._lock:
            if self.has_ended:
                raise JobError(f"{self.path} is {self.status}: create its next attempt")
            record = dict(self._record)
            change(record)
            try:
                self._writer.check()
                self._writer.write(record, is_final=is_final)
            except (OSError, JobError):
                self._record = record
                raise
            self._record = record


class _Writer:
    """Writes the newest record and the log: after `start` in a thread of its own, else at each call.

    KeyboardInterrupt can be raised in any line of the main thread. It would leave a threading.Event locked,
    so the thread is woken by queues.
    """

    def __init__(self, path: Path, attempt: int) -> None:
        self._path = path
        self._attempt = attempt
        self._lock = threading.Lock()
        self._record: Record | None = None
        self._is_written = True
        self._log = bytearray()
        self._io_lock = threading.Lock()
        """Held while writing, so that an older record never replaces a newer one."""
        self._unwritten = b""
        """The log that is being written."""
        self._wake: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._end_pause: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._ended: queue.SimpleQueue[Exception | None] = queue.SimpleQueue()
        """Takes the result of the final record."""
        self._is_running = False
        """Whether the thread writes."""
        self._is_stopping = False
        self._deadline: float | None = None
        """When to give up writing the final record."""
        self._is_failing = False
        self._superseded: JobError | None = None

    def start(self) -> None:
        if not self._is_running:
            self._is_running = True
            threading.Thread(target=self._run, name="jobsvc-farm", daemon=True).start()

    def stop(self) -> None:
        self._is_stopping = True
        self._wake.put(None)
        self._end_pause.put(None)

    def check(self) -> None:
        """Raise JobError if this attempt is no longer written."""
        if self._superseded:
            raise self._superseded

    def write(self, record: Record, *, is_final: bool = False) -> None:
        """Write a record soon. The final one is written when this returns, else OSError is raised."""
        with self._lock:
            self._record, self._is_written = record, False
            if is_final:
                self._deadline = time.monotonic() + FINAL_TIMEOUT_S
            is_running = self._is_running
        if is_final:
            self._write_final(is_running=is_running)
        else:
            self._flush_soon()

    def append(self, lines: bytes) -> None:
        """Write lines of the log soon."""
        with self._lock:
            self._log += lines
            if (excess := len(self._log) - MAX_LOG_BACKLOG) > 0:
                cut = self._log.index(b"\n", excess) + 1
                self._log[:cut] = b"[lines are missing here, because storage failed]\n"
            if len(self._log) > MAX_LOG_BACKLOG // 4 and not self._is_failing and self._end_pause.empty():
                self._end_pause.put(None)
        self._flush_soon()

    def _flush_soon(self) -> None:
        if not self._is_running:
            self._flush()
        elif self._wake.empty():
            self._wake.put(None)

    def _run(self) -> None:
        try:
            while not self._is_stopping and not self._run_once():
                pass
        except Exception as error:  # noqa: BLE001 - the methods of the job raise it
            _logger.warning("%s", error)
            self._superseded = error if isinstance(error, JobError) else JobError(f"{self._path}: {error}")
            self._ended.put(self._superseded)
        finally:
            self._is_running = False

    def _run_once(self) -> bool:
        """Wait for something to write and write it. Returns whether it was the final record."""
        if not _wait(self._wake, HEARTBEAT_S):
            self._is_written = False
        pause, failure = WRITE_INTERVAL_S, None
        try:
            self._flush()
        except OSError as error:
            self._report(error)
            self._wake.put(None)
            pause, failure = RETRY_S, error
        with self._lock:
            is_late = self._deadline is not None and time.monotonic() > self._deadline
            if self._deadline is not None and (self._is_written or is_late):
                self._is_running = False
                self._ended.put(None if self._is_written else failure)
                return True
        _wait(self._end_pause, pause)
        return False

    def _write_final(self, *, is_running: bool) -> None:
        if is_running:
            self._wake.put(None)
            self._end_pause.put(None)
            try:
                error = self._ended.get(timeout=FINAL_TIMEOUT_S + RETRY_S)
            except queue.Empty:
                raise TimeoutError(
                    f"{self._path}: storage does not respond; the job remains unfinished"
                ) from None
            if error is not None:
                raise error
            return
        while True:
            try:
                self._flush()
            except OSError as error:  # noqa: PERF203 - it is slow only if storage fails
                if self._deadline is not None and time.monotonic() > self._deadline:
                    raise
                self._report(error)
                time.sleep(RETRY_S)
            else:
                return

    def _report(self, error: OSError) -> None:
        if not self._is_failing:
            _logger.warning("%s can't be written, trying again until it can: %s", self._path, error)
        self._is_failing = True

    def _flush(self) -> None:
        """Write the log, then the record, so that the last line is there before the final state."""
        with self._io_lock:
            self._check_attempt(_read_record(self._path) or {})
            self._write_log()  # what storage did not take the last time
            with self._lock:
                record = None if self._is_written else self._record
                self._unwritten = bytes(self._log)
                self._log.clear()
            self._write_log()
            if record is not None:
                with _locked(self._path):
                    current = _read_record(self._path) or {}
                    self._check_attempt(current)
                    _write_record(self._path, _with_estimate(_merged(record, current)))
                with self._lock:
                    self._is_written = self._record is record
            self._is_failing = False

    def _write_log(self) -> None:
        if not self._unwritten:
            return
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0)
        file = os.open(self._path / "render.log", flags, 0o666)
        try:
            while self._unwritten:
                self._unwritten = self._unwritten[os.write(file, self._unwritten) :]
        finally:
            os.close(file)

    def _check_attempt(self, current: Record) -> None:
        if (attempt := _attempt_of(current)) > self._attempt:
            raise JobError(f"{self._path}: attempt {attempt} has begun, so this one is no longer written")


def _wait(events: queue.SimpleQueue[None], seconds: float) -> bool:
    """Wait for an event. Returns whether there was one."""
    try:
        events.get(timeout=seconds)
    except queue.Empty:
        return False
    return True


# Records


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a job, so that programs change its record one after another.

    Windows and some network storage have no locks: then, and after LOCK_TIMEOUT_S, it is done without.
    """
    file = None
    if fcntl is not None:
        with suppress(OSError):
            file = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o666)
            _wait_for_lock(file)
    try:
        yield
    finally:
        if file is not None:
            with suppress(OSError):
                fcntl.flock(file, fcntl.LOCK_UN)  # also if a forked process has the file open
            os.close(file)


def _wait_for_lock(file: int) -> None:
    deadline = time.monotonic() + LOCK_TIMEOUT_S
    while time.monotonic() < deadline:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:  # noqa: PERF203 - it is waited for anyway
            time.sleep(0.005)
        else:
            return


def _merged(record: Record, current: Record) -> Record:
    """Return a record with what other programs have written of the same attempt.

    Raises JobError if one of them has ended it.
    """
    if _attempt_of(current) != _attempt_of(record):
        return record
    if current["status"] in _END_STATES and current.get("completedAt") != record.get("completedAt"):
        raise JobError(f"another program has ended {record.get('id', 'the job')}: it is {current['status']}")
    merged = dict(record)
    if record["status"] == "queued" and current["status"] == "rendering":
        merged["status"] = "rendering"
    if "startedAt" in current:
        merged["startedAt"] = current["startedAt"]
    for key in ("progress", "framesDone"):
        if isinstance(current.get(key), (int, float)):
            merged[key] = max(current[key], record.get(key) or 0)
    names = {output.get("name") for output in record.get("outputs") or []}
    added = [output for output in current.get("outputs") or [] if output.get("name") not in names]
    if added:
        merged["outputs"] = [*added, *(record.get("outputs") or [])]
    return merged


def _check_record(record: Record) -> None:
    """Raise JobError for a record that jobsvc would not read; TypeError or ValueError if it is not JSON."""
    if not record.get("owner") or not isinstance(record["owner"], str):
        raise JobError(f"owner {record.get('owner')!r}: name who may see the job")
    if not isinstance(record.get("metadata", {}), dict):
        raise JobError("metadata: use an object")
    try:
        size = len(json.dumps(record, allow_nan=False, ensure_ascii=False).encode("utf-8", "replace"))
    except RecursionError:
        raise JobError("metadata: nested too deeply") from None
    if size > MAX_RECORD - 10 * MAX_TEXT:
        raise JobError(f"the record has {size:,} bytes: use less metadata")
    _check_outputs(record.get("outputs") or [], record.get("outputPath"))


def _check_outputs(outputs: list[Record], main: str | None) -> None:
    if len(outputs) > _MAX_OUTPUTS:
        raise JobError(f"more than {_MAX_OUTPUTS} outputs: name a directory")
    names: set[str] = set()
    for output in outputs:
        name, role, frames = output.get("name"), output.get("role") or "data", output.get("frames")
        if not isinstance(name, str) or not _OUTPUT_NAME.fullmatch(name):
            raise JobError(f"{name!r} is no name of an output: use 1 to 64 of A-Z a-z 0-9 . _ -")
        if name.lower() in names:
            raise JobError(f"two outputs are called {name!r}, letter case aside: use another name")
        names.add(name.lower())
        if role not in _ROLES:
            raise JobError(f"output {name!r}: {role!r} is no role: use one of {', '.join(_ROLES)}")
        if frames is not None and _parse_frames(frames) is None:
            raise JobError(f"output {name!r}: {frames!r} is not FIRST-LAST, for example 1001-1100")
    mains = [output for output in outputs if output.get("role") == "main"]
    at_main = [output for output in outputs if output.get("path") == main]
    if len(mains) > 1 or (main is not None and any(output.get("path") != main for output in mains)):
        raise JobError("a job has one main output: use another role")
    if main is not None and not at_main and "main" in names:
        raise JobError(f"the output called main is {main!r}: use another name")


def _parse_frames(text: object) -> tuple[int, int] | None:
    """Parse `1001-1100` or `7`; None if it is neither."""
    match = _FRAMES.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        return None
    first, last = int(match[1]), int(match[2] or match[1])
    return (first, last) if first <= last else None


def _count(value: object) -> int:
    """Return a number of frames; also one of numpy."""
    count = operator.index(value)  # type: ignore[arg-type]
    if not 0 <= count <= _MAX_COUNT:
        raise ValueError(f"frames: {count} is not a number of frames")
    return count


def _create_directory(path: Path, record: Record) -> bool:
    """Build a job's directory under another name and rename it, so that it appears complete.

    Returns False if another program has created the job at the same time.
    """
    new = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.new")
    try:
        new.mkdir()
    except (FileNotFoundError, NotADirectoryError) as error:
        problem = "the directory of the jobs is missing: create it, or mount the share"
        raise type(error)(error.errno, problem, str(path.parent)) from None
    try:
        _make_output_directories(new, _outputs_of(record))
        _write_record(new, record)
        new.rename(path)
    except BaseException as error:
        shutil.rmtree(new, ignore_errors=True)
        if isinstance(error, OSError) and path.is_dir():
            return False
        raise
    sync(path.parent)
    return True


def _next_attempt(path: Path, record: Record, *, restart: bool, keep_outputs: bool) -> Record:
    """Queue the next attempt of a job that exists. Returns its record."""
    old = _read_record(path) or {}
    if old.get("owner", record["owner"]) != record["owner"]:
        raise JobError(f"{path} belongs to {old['owner']!r}: use another job id")
    if old.get("status") == "completed" and not restart:
        raise JobError(f"{path} is completed: use another job id, or --restart (in Python restart=True)")
    attempt = _attempt_of(old)
    kept: Record = {key: old[key] for key in ("projectPath", "outputPath", "metadata") if key in old}
    record = {**kept, **record, "attempt": attempt + 1}
    record["createdAt"] = old.get("createdAt", record["createdAt"])
    for leftover in path.glob(".status.*"):
        leftover.unlink(missing_ok=True)
    if (path / "render.log").exists():
        (path / "render.log").replace(path / f"render.{attempt}.log")
    if not keep_outputs:
        # The record names what is being removed, so that the attempt after a crash can go on with it.
        _write_record(path, {**record, **{key: old.get(key) for key in ("outputPath", "outputs")}})
        _remove_outputs(path, _outputs_of(old))
    _make_output_directories(path, _outputs_of(record))
    _write_record(path, record)
    return record


def _read_record(path: Path) -> Record | None:
    """Return the record of a job, or None if it has no valid one."""
    try:
        record = json.loads((path / "status.json").read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    return record if isinstance(record, dict) and isinstance(record.get("status"), str) else None


def _attempt_of(record: Record) -> int:
    attempt = record.get("attempt")
    return attempt if isinstance(attempt, int) else 0


def _write_record(path: Path, record: Record) -> None:
    """Replace status.json: readers have the complete old or new record, also after a crash."""
    data = json.dumps({**record, "updatedAt": _now()}, allow_nan=False, ensure_ascii=False).encode(
        "utf-8", "replace"
    )
    new = path / f".status.{os.getpid()}.{threading.get_ident()}"
    try:
        with new.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        _replace(new, path / "status.json")
    except BaseException:
        with suppress(OSError):
            new.unlink()
        raise
    sync(path)


def _replace(new: Path, path: Path) -> None:
    """Rename over a file. Windows refuses this while somebody reads the file, which takes a moment."""
    for _ in range(50 if os.name == "nt" else 0):
        with suppress(PermissionError):
            new.replace(path)
            return
        time.sleep(0.02)
    new.replace(path)


def sync(path: Path) -> None:
    """Have a file or directory on disk before what follows. Not all systems can do this for all of them."""
    with suppress(OSError):
        file = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))  # not to wait for a FIFO
        try:
            os.fsync(file)
        finally:
            os.close(file)


def _with_estimate(record: Record) -> Record:
    """Return a record with the estimated end of the render, as soon as there is one."""
    if record["status"] != "rendering":
        return record
    try:
        started_at = datetime.fromisoformat(record["startedAt"].replace("Z", "+00:00"))
        elapsed = (datetime.now(timezone.utc) - started_at).total_seconds()
        if record["progress"] < 1 or elapsed < ESTIMATE_AFTER_S:
            return record
        rest = elapsed * (100 - record["progress"]) / record["progress"]
    except (KeyError, AttributeError, TypeError, ValueError):
        return record  # there is no progress, or another program has written it in another notation
    return {**record, "estimatedCompletionAt": _now(rest)}


def _now(seconds: float = 0) -> str:
    """Return the time in some seconds, as in RFC 3339."""
    now = datetime.now(timezone.utc) + timedelta(seconds=min(seconds, 1e8))
    return now.strftime("%Y-%m-%dT%H:%M:%S.") + f"{now.microsecond // 1000:03d}Z"


def _handle_termination() -> Callable[[], object]:
    """Raise Terminated for the first SIGTERM or SIGHUP, unless the program handles or ignores them.

    Later ones are ignored: some managers send two, and the second would interrupt the end of the job. Returns
    a function that undoes this.
    """

    def terminate(number: int, _frame: FrameType | None) -> None:
        for each in handled:
            signal.signal(each, signal.SIG_IGN)
        raise Terminated(128 + number)

    names = [name for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]  # Windows has no SIGHUP
    numbers = [getattr(signal, name) for name in names]
    handled = [number for number in numbers if signal.getsignal(number) is signal.SIG_DFL]
    for number in handled:
        signal.signal(number, terminate)
    return lambda: [signal.signal(number, signal.SIG_DFL) for number in handled]


# Outputs


def _outputs_of(record: Record) -> list[Record]:
    """Return the outputs of a record, `{"path", "frames"}`."""
    outputs = [
        output for output in record.get("outputs") or [] if isinstance(output, dict) and output.get("path")
    ]
    main = record.get("outputPath")
    return (
        outputs
        if main is None or any(output["path"] == main for output in outputs)
        else [{"path": main}, *outputs]
    )


def _make_output_directories(folder: Path, outputs: Iterable[Record]) -> None:
    for path in (output["path"] for output in outputs):
        if not path:
            raise JobError("output '': name a path in the job's directory")
        if ".." in Path(path).parts:
            raise JobError(f"output {path!r}: use a path without '..' in the job's directory")
        if "\0" in path or path != path.encode("utf-8", "replace").decode():
            raise JobError(f"output {path!r}: use a path that is UTF-8, without NUL")
        if Path(path) in (Path("status.json"), Path("render.log")):
            raise JobError(f"output {path!r}: this file is written by jobsvc, use another name")
        (folder / path if path.endswith("/") else (folder / path).parent).mkdir(parents=True, exist_ok=True)


def _files(folder: Path, path: str) -> list[tuple[Path, int | None]]:
    """Return the files of an output, each with its frame number if it is one of a sequence."""
    whole = folder / path
    if whole.is_dir():
        return [
            (Path(parent, name), None)
            for parent, _, names in os.walk(whole)
            for name in names
            if name[0] != "."
        ]
    if whole.is_file():
        return [(whole, None)]
    frame_of = _frame_parser(whole.name)
    if frame_of is None or not whole.parent.is_dir():
        return []
    frames = [(file, frame_of(file.name)) for file in whole.parent.iterdir()]
    return [(file, frame) for file, frame in frames if frame is not None and file.is_file()]


def _frame_parser(pattern: str) -> Callable[[str], int | None] | None:
    """Return a function from file names to frame numbers; None if the pattern has no placeholder."""
    placeholders = list(_PLACEHOLDER.finditer(pattern))
    if len(placeholders) != 1:
        return None
    match = placeholders[0]
    digits = len(match[0]) if match[0][0] in "#@" else int(match[1] or match[2] or 1)
    # A number may have more digits, but no more zeros. A sign is another character, or replaces a zero.
    number = f"-?[0-9]{{{digits}}}|-[0-9]{{{max(digits - 1, 1)}}}|-?[1-9][0-9]{{{digits},17}}"
    name = re.compile(f"{re.escape(pattern[: match.start()])}({number}){re.escape(pattern[match.end() :])}")

    def frame_of(file: str) -> int | None:
        found = name.fullmatch(file)
        return int(found[1]) if found else None

    return frame_of


def _remove_outputs(folder: Path, outputs: Iterable[Record]) -> None:
    for output in outputs:
        whole = folder / output["path"]
        is_directory = whole.is_dir()
        place = whole.resolve() if is_directory else whole.parent.resolve() / whole.name
        is_named = Path(output["path"]).is_absolute() and not is_directory
        # A directory elsewhere can have files of other jobs.
        if folder.resolve() in place.parents or is_named:
            for file, _ in _files(folder, output["path"]):
                file.unlink(missing_ok=True)


def _wait_for_outputs(folder: Path, outputs: list[Record]) -> str | None:
    """Wait until all outputs are complete and on disk. Returns what is wrong with them, or None."""
    if not outputs:
        return None
    deadline = time.monotonic() + OUTPUT_TIMEOUT_S
    before: Any = None
    while True:
        try:
            states = [_check_output(folder, output) for output in outputs]
            problem = next((problem for problem, _ in states if problem), None)
        except OSError as error:  # a file was replaced just now, or storage fails
            states, problem = [], str(error)
        if problem is None and states == before:
            for file in {file for _, files in states for file, *_ in files}:
                sync(file)
            return None
        if time.monotonic() > deadline:
            return problem or "an output was still growing"
        before = states
        time.sleep(STABLE_S)


def _link_to(folder: Path, file: Path) -> Path | None:
    """Return the symbolic link on the way from the job's directory to a file, if there is one."""
    parents = list(file.parents)
    way = [file, *parents[: parents.index(folder)]] if folder in parents else [file]
    return next((path for path in way if path.is_symlink()), None)


def _check_output(folder: Path, output: Record) -> tuple[str | None, list[tuple[Path, int, int]]]:
    """Return what is wrong with an output, or None, and its files with size and time."""
    path = output["path"]
    files = _files(folder, path)
    states = [(file, file.stat()) for file, _ in files]
    problem = None
    if not files:
        problem = f"{path} is missing"
    elif link := next((link for file, _ in files if (link := _link_to(folder, file))), None):
        problem = f"{path}: {link.name} is a symbolic link, which jobsvc does not follow"
    elif empty := [file.name for file, state in states if state.st_size == 0]:
        problem = f"{path}: {empty[0]} is empty"
    elif frames := _parse_frames(output.get("frames")):
        first, last = frames
        present = {frame for _, frame in files if frame is not None and first <= frame <= last}
        if count := last - first + 1 - len(present):
            missing = next(frame for frame in range(first, last + 1) if frame not in present)
            problem = f"{path}: {count} frames are missing, the first is {missing}"
    return problem, [(file, state.st_size, state.st_mtime_ns) for file, state in states]
