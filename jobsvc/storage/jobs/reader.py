"""Reads job directories safely; plain sync code that runs only in Disk's threads.

Each path component is opened relative to a directory descriptor and never through a symbolic link;
what a thing is, is asked of its open descriptor. Absent things, bad records and faults of storage are
three different answers. Nothing is ever written.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple, Self

import orjson

from jobsvc.domain.errors import LogMissing, OutputMissing
from jobsvc.domain.job import SYNONYMS, Job, Status
from jobsvc.domain.record_decoding import decode_record
from jobsvc.domain.status_record import BadRecord, parse_record
from jobsvc.storage.files.client_version import packed_version
from jobsvc.storage.files.file_version import is_stable, packed_from
from jobsvc.storage.files.pread import fingerprint, read_fully
from jobsvc.storage.files.safe_open import (
    DIRECTORY_FLAGS,
    NOT_FOUND_ERRNOS,
    PATH_FLAGS,
    Opened,
    OpenFile,
    PathNotFound,
    RecordMissing,
    describe_open_file,
    open_file,
    open_regular,
    retry_stale,
)
from jobsvc.storage.files.statx import birth_time
from jobsvc.storage.jobs.log_tail import last_lines
from jobsvc.storage.jobs.snapshot import JobSnapshot
from jobsvc.storage.layout import (
    DEFAULT_LOG,
    MAX_RECORD_BYTES,
    STATUS_FILE,
    OutputRoot,
    beneath,
    components,
    is_job_id,
)
from jobsvc.storage.processes.record_process import RecordProcess

LARGE_RECORD_BYTES: Final = 64 * 1024
"""To decode a record of up to this size takes about a millisecond, whatever is in it."""


class Scan(NamedTuple):
    """The names beneath the root."""

    ids: list[str]
    ignored: int
    """How many names can't be jobs."""


class JobsRoot:
    """The root of all jobs and the folders beside it that absolute paths may point into."""

    def __init__(
        self,
        path: Path,
        output_roots: Sequence[Path | OutputRoot] = (),
        aliases: Mapping[str, Status] = SYNONYMS,
        *,
        condenser: RecordProcess | None = None,
    ) -> None:
        """`condenser` takes large records, so that none of them is decoded here."""
        self.path = path
        self._prefix = f"{path}/"
        # By name without `..`, and the nearest first: it may be a link that is not followed from above it.
        self._outputs = sorted(map(_named, output_roots), key=_depth, reverse=True)
        self._aliases = aliases
        self._condenser = condenser

    @property
    def output_roots(self) -> list[str]:
        """The output roots by name, the nearest first."""
        return [name for name, _, _ in self._outputs]

    def arguments(self) -> list[str]:
        """Give what it takes to make the same in another process: the aliases as JSON, then paths."""
        outputs = [root if owner is None else f"{owner}={root}" for _, root, owner in self._outputs]
        return [orjson.dumps(dict(self._aliases)).decode(), str(self.path), *outputs]

    @classmethod
    def of_arguments(cls, aliases: str, path: str, *outputs: str) -> Self:
        """Make what gave these."""
        known = {word: Status(status) for word, status in orjson.loads(aliases).items()}
        return cls(Path(path), [_output_root(output) for output in outputs], known)

    def scan(self) -> Scan:
        """List the root once; OSError where it can't be."""
        ids, ignored = [], 0
        with os.scandir(self.path) as entries:
            for entry in entries:
                if is_job_id(entry.name) and entry.is_dir(follow_symlinks=False):
                    ids.append(entry.name)
                else:
                    ignored += 1
        return Scan(ids, ignored)

    def has_name(self, job_id: str) -> bool:
        """Return whether there is anything of this name in the root; OSError for a fault of storage."""
        try:
            os.stat(f"{self._prefix}{job_id}", follow_symlinks=False)  # noqa: PTH116 - tests replace `os` here
        except FileNotFoundError:
            return False
        return True

    def read(self, job_id: str, known: JobSnapshot | None = None) -> JobSnapshot:
        """Look at one job; `known` is trusted where the file is still the same version.

        Raises Absent, BadRecord, or OSError for a fault of storage.
        """
        reading, output = retry_stale(lambda: self._read_job(job_id, known))
        if output is not None:
            os.close(output[0])
        return reading

    def read_and_open(
        self, job_id: str, known: JobSnapshot | None = None
    ) -> tuple[JobSnapshot, OpenFile | None]:
        """Look at one job and, where its output is there, keep that open. Raises what `read` does."""
        reading, output = retry_stale(lambda: self._read_job(job_id, known))
        return reading, None if output is None else describe_open_file(*output)

    def open_output(self, job: Job) -> OpenFile:
        """Open what outputPath names; OutputMissing, or OSError for a fault of storage."""
        try:
            return retry_stale(lambda: self._open(job, job.output_path or ""))
        except PathNotFound as absent:
            raise OutputMissing from absent

    def open_log(self, job: Job) -> OpenFile:
        """Open the job's log, which may grow; LogMissing, or OSError for a fault of storage.

        LogMissing too where another owner's job has come by this name, whose log it may be.
        """
        try:
            return retry_stale(lambda: self._open_log(job))
        except PathNotFound as absent:
            raise LogMissing from absent

    def log_folder_changed_at(self, job: Job) -> float | None:
        """Return the mtime (seconds since the epoch) of the folder that the log should be in.

        None where there is no such folder in the job's directory; OSError for a fault of storage.
        """
        names = components(job.log_path or DEFAULT_LOG)
        if names is None or (job.log_path or "").startswith("/"):
            return None
        try:
            folder = self._open_job(job.id)
            try:
                return os.stat("/".join((".", *names[:-1])), dir_fd=folder).st_mtime
            finally:
                os.close(folder)
        except (PathNotFound, FileNotFoundError, NotADirectoryError, PermissionError):
            return None

    def log_tail(self, job: Job, limit: int = 1 << 16) -> str | None:
        """Return the log's last whole lines, at most `limit` bytes of UTF-8; None where there is no log."""
        try:
            log = self.open_log(job)
        except LogMissing:
            return None
        try:
            return last_lines(log.fd, log.version.size, limit)
        finally:
            log.close()

    def _open_log(self, job: Job) -> OpenFile:
        log = self._open(job, job.log_path or DEFAULT_LOG)
        try:
            held = fingerprint(log.fd, log.version.size)
            anothers = self._owner_changed(job)
        except BaseException:
            log.close()
            raise
        if anothers:
            log.close()
            raise PathNotFound
        return log._replace(fingerprint=held)

    def _owner_changed(self, job: Job) -> bool:
        try:
            folder = self._open_job(job.id)
            try:
                return self._record(job.id, folder, None)[0].owner != job.owner
            finally:
                os.close(folder)
        except (PathNotFound, BadRecord):
            return False  # the last good record stands

    def _read_job(self, job_id: str, known: JobSnapshot | None) -> tuple[JobSnapshot, Opened | None]:
        """Read the record, and open a completed job's output, in one visit to the job's folder."""
        folder = self._open_job(job_id)
        try:
            job, identity, settled = self._record(job_id, folder, known)
            output = self._output(folder, job) if job.status is Status.COMPLETED else None
        finally:
            os.close(folder)
        version = None if output is None else packed_version(output[1])
        if known is not None and known.job is job and known.output_version == version:
            return known, output
        return JobSnapshot(job, identity, version, settled=settled), output

    def _record(self, job_id: str, folder: int, known: JobSnapshot | None) -> tuple[Job, bytes, bool]:
        try:
            record, status = open_file(folder, STATUS_FILE)
        except PermissionError as denied:
            raise BadRecord(f"{STATUS_FILE}: permission denied") from denied
        except PathNotFound as absent:
            raise RecordMissing(f"{STATUS_FILE}: missing, or not a regular file") from absent
        try:
            identity = packed_from(status)
            if known is not None and known.is_stable and known.record_version == identity:
                return known.job, identity, True
            # Asked before the bytes are read: a change after this moment gets a later time.
            settled = is_stable(status.st_mtime_ns, status.st_ctime_ns, time.time_ns())
            if self._condenser is not None and status.st_size > LARGE_RECORD_BYTES:
                self._condenser.check_waiting()  # before a megabyte is read in vain
            text = _read(record, status.st_size)
        finally:
            os.close(record)
        file_time = status.st_mtime_ns // 1000
        created_time = partial(_created_time, folder, known, file_time)
        decoded, metadata = self._decode(text)
        job = parse_record(
            job_id,
            decoded,
            file_time,
            self._aliases,
            text=text,
            metadata=metadata,
            created_time=created_time,
        )
        return job, identity, settled

    def _decode(self, text: bytes) -> tuple[object, bytes | None]:
        """Decode a record, a large one without its metadata; BadRecord where it is no JSON."""
        try:
            if self._condenser is None or len(text) <= LARGE_RECORD_BYTES:
                return decode_record(text), None
            record, metadata = self._condenser.split(text)
            return orjson.loads(record), metadata
        except ValueError as wrong:
            raise BadRecord(f"{STATUS_FILE}: not JSON ({wrong})") from wrong

    def _output(self, folder: int, job: Job) -> Opened | None:
        try:
            return self._open_in(folder, job.owner, job.output_path or "")
        except (PathNotFound, PermissionError):
            return None

    def _open(self, job: Job, path: str) -> OpenFile:
        folder = self._open_job(job.id)
        try:
            return describe_open_file(*self._open_in(folder, job.owner, path))
        except PermissionError as denied:
            raise PathNotFound from denied
        finally:
            os.close(folder)

    def _open_in(self, folder: int, owner: str, path: str) -> Opened:
        """Open a path of an owner's record: relative to the job's folder, or absolute beneath an output root.

        The nearest output root decides whether it is for this owner.
        """
        if not path.startswith("/"):
            names = components(path)
            if names is None:
                raise PathNotFound
            return open_regular(folder, names)
        nearest = next((name for name, _, _ in self._outputs if beneath(name, path)), None)
        for name, root, root_owner in self._outputs:
            if name == nearest and root_owner in {None, owner} and (names := beneath(name, path)):
                top = os.open(root, DIRECTORY_FLAGS)
                try:
                    return open_regular(top, names)
                finally:
                    os.close(top)
        raise PathNotFound

    def _open_job(self, job_id: str) -> int:
        """Open a job's folder; by its whole path: an unmounted share is neither held nor believed."""
        if not is_job_id(job_id):
            raise PathNotFound
        try:
            return os.open(f"{self._prefix}{job_id}", PATH_FLAGS)
        except OSError as failed:
            if failed.errno not in NOT_FOUND_ERRNOS:
                raise
            # Is it the job that is absent, or the root? That would be a fault, and raises as one.
            os.close(os.open(self.path, DIRECTORY_FLAGS))
            raise PathNotFound from failed


def _created_time(folder: int, known: JobSnapshot | None, file_time: int) -> int:
    """Return a time for createdAt that later writes do not move, in microseconds since the epoch.

    It is when the job's directory was made, or else the earliest time seen, but never after `file_time`.
    """
    born = birth_time(folder)
    if born is None:
        born = file_time if known is None else known.job.created_order
    return min(born, file_time)


def _read(fd: int, size: int) -> bytes:
    """Read a record of at most RECORD_CAP bytes; BadRecord where it is too large."""
    data = b"" if size > MAX_RECORD_BYTES else os.pread(fd, size + 1, 0)
    if len(data) != size <= MAX_RECORD_BYTES:  # it has grown since, or came in pieces
        data += read_fully(fd, len(data), MAX_RECORD_BYTES + 1 - len(data))
    if max(size, len(data)) > MAX_RECORD_BYTES:
        raise BadRecord(f"{STATUS_FILE}: larger than {MAX_RECORD_BYTES} bytes")
    return data


def _named(root: Path | OutputRoot) -> tuple[str, str, str | None]:
    """Return an output root's name without `..`, its path, and its owner."""
    if isinstance(root, OutputRoot):
        return os.path.normpath(root.path), str(root.path), root.owner
    return os.path.normpath(root), str(root), None


def _depth(named: tuple[str, str, str | None]) -> int:
    """Count a root's components, however many slashes are between them."""
    return len(components(named[0]) or ())


def _output_root(argument: str) -> Path | OutputRoot:
    owner, equals, path = argument.partition("=/")
    return OutputRoot(owner, Path(f"/{path}")) if equals and not owner.startswith("/") else Path(argument)
