"""Reads job directories safely; plain sync code that runs only in Disk's threads.

Each path component is opened relative to a directory descriptor and never through a symbolic link;
what a thing is, is asked of its open descriptor. Absent things, bad records and faults of storage are
three different answers. Nothing is ever written.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from struct import Struct
from typing import Final, NamedTuple, Self, TypeVar

import orjson

from jobsvc.domain.errors import LogMissing, OutputMissing
from jobsvc.domain.job import SYNONYMS, BadRecord, Job, Status, parse_record
from jobsvc.storage.layout import DEFAULT_LOG, RECORD_CAP, STATUS_FILE, beneath, components, is_job_id
from jobsvc.storage.tail import last_lines, read_fully, sample

T = TypeVar("T")

_FOLDER: Final = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
# O_NONBLOCK and O_NOCTTY: a FIFO or a terminal put in a file's place must neither hang us nor become ours.
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_ABSENT: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.ENXIO})
_DENIED: Final = frozenset({errno.EACCES, errno.EPERM})
_STALE_TRIES: Final = 3
_STALE_PAUSE: Final = 0.02
SETTLED_NS: Final = 2_000_000_000
"""A file changed less than this ago may change again within its clock's tick, unseen (FAT and SMB: 2 s)."""


class Absent(Exception):
    """There is no such job: no directory of this name, or no status.json in it."""


class Identity(bytes):
    """What tells one version of a file from another; no part of it does alone.

    Packed, since one is kept for each job that is known: a tuple of numbers takes three times the room.
    """

    __slots__ = ()

    def __new__(cls, inode: int, size: int, mtime_ns: int, ctime_ns: int) -> Self:
        """Pack the numbers that stat(2) gives."""
        times = *divmod(mtime_ns, _SECOND), *divmod(ctime_ns, _SECOND)
        return super().__new__(cls, _IDENTITY.pack(inode, size, *times))

    @classmethod
    def of(cls, status: os.stat_result) -> Self:
        """Take the identity out of what fstat said."""
        return cls(status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)

    @property
    def inode(self) -> int:
        """The inode's number."""
        return self._part(0)

    @property
    def size(self) -> int:
        """Bytes."""
        return self._part(1)

    @property
    def mtime_ns(self) -> int:
        """Nanoseconds since the epoch, as is the next."""
        return self._part(2) * _SECOND + self._part(3)

    @property
    def ctime_ns(self) -> int:
        """When the inode was last changed, which nobody can set back."""
        return self._part(4) * _SECOND + self._part(5)

    def parts(self) -> tuple[int, int, int, int]:
        """Give inode, size, mtime_ns and ctime_ns at once."""
        inode, size, mtime, mtime_part, ctime, ctime_part = _IDENTITY.unpack(self)
        return inode, size, mtime * _SECOND + mtime_part, ctime * _SECOND + ctime_part

    def settled(self, now_ns: int) -> bool:
        """Whether any change after `now_ns`, in nanoseconds since the epoch, makes it another."""
        return now_ns - max(self.mtime_ns, self.ctime_ns) > SETTLED_NS

    def _part(self, place: int) -> int:
        part: int = _IDENTITY.unpack(self)[place]
        return part


# Seconds and nanoseconds apart, as the kernel has them: in one such number the year 2262 is the last.
_IDENTITY: Final = Struct("<QQqIqI")
_SECOND: Final = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Reading:
    """One good look at a job: its record, the version of the file, and that of the output."""

    job: Job
    identity: Identity
    output: Identity | None
    """Of a completed job whose output is a regular file that we may open; None for any other job."""
    settled: bool
    """Whether the same identity later proves the same content."""


@dataclass(frozen=True, slots=True)
class OpenFile:
    """A regular file, open for reading, as it was at the moment of opening."""

    fd: int
    identity: Identity
    name: str
    """The last component of its path."""
    links: int
    """How many names it had."""
    sample: bytes | None = None
    """Of a file that may grow: what it held, in brief. Of any other None: no change of it is allowed."""

    def close(self) -> None:
        """Give the descriptor back; once only."""
        os.close(self.fd)


class Scan(NamedTuple):
    """The names beneath the root."""

    ids: list[str]
    ignored: int
    """How many names can't be jobs."""


class JobsRoot:
    """The root of all jobs and the folders beside it that absolute paths may point into."""

    def __init__(
        self, path: Path, output_roots: Sequence[Path] = (), aliases: Mapping[str, Status] = SYNONYMS
    ) -> None:
        self.path = path
        self._prefix = f"{path}/"
        # By name without `..`, and the nearest first: it may be a link that is not followed from above it.
        self._outputs = sorted(((os.path.normpath(root), str(root)) for root in output_roots), reverse=True)
        self._aliases = aliases

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

    def read(self, job_id: str, known: Reading | None = None) -> Reading:
        """Look at one job; `known` is trusted where the file is still the same version.

        Raises Absent, BadRecord, or OSError for a fault of storage.
        """
        reading, output = self.read_and_open(job_id, known)
        if output is not None:
            output.close()
        return reading

    def read_and_open(self, job_id: str, known: Reading | None = None) -> tuple[Reading, OpenFile | None]:
        """Look at one job and, where its output is there, keep that open. Raises what `read` does."""
        return _retry_stale(lambda: self._look(job_id, known))

    def open_output(self, job: Job) -> OpenFile:
        """Open what outputPath names; OutputMissing, or OSError for a fault of storage."""
        try:
            return _retry_stale(lambda: self._open(job.id, job.output_path or ""))
        except Absent as absent:
            raise OutputMissing from absent

    def open_log(self, job: Job) -> OpenFile:
        """Open the job's log, which may grow; LogMissing, or OSError for a fault of storage.

        LogMissing too where another owner's job has come by this name, whose log it may be.
        """
        try:
            return _retry_stale(lambda: self._open_log(job))
        except Absent as absent:
            raise LogMissing from absent

    def log_tail(self, job: Job, limit: int = 1 << 16) -> str | None:
        """Return the log's last whole lines, at most `limit` bytes of UTF-8; None where there is no log."""
        try:
            log = self.open_log(job)
        except LogMissing:
            return None
        try:
            return last_lines(log.fd, log.identity.size, limit)
        finally:
            log.close()

    def _open_log(self, job: Job) -> OpenFile:
        log = self._open(job.id, job.log_path or DEFAULT_LOG)
        try:
            held = sample(log.fd, log.identity.size)
            anothers = self._has_become_another_s(job)
        except BaseException:
            log.close()
            raise
        if anothers:
            log.close()
            raise Absent
        return replace(log, sample=held)

    def _has_become_another_s(self, job: Job) -> bool:
        try:
            folder = self._open_job(job.id)
            try:
                return self._record(job.id, folder, None)[0].owner != job.owner
            finally:
                os.close(folder)
        except (Absent, BadRecord):
            return False  # the last good record stands

    def _look(self, job_id: str, known: Reading | None) -> tuple[Reading, OpenFile | None]:
        """Read the record, and open a completed job's output, in one visit to the job's folder."""
        folder = self._open_job(job_id)
        try:
            job, identity, settled = self._record(job_id, folder, known)
            output = self._output(folder, job) if job.status is Status.COMPLETED else None
        finally:
            os.close(folder)
        version = None if output is None else output.identity
        if known is not None and known.job is job and known.output == version:
            return known, output
        return Reading(job, identity, version, settled), output

    def _record(self, job_id: str, folder: int, known: Reading | None) -> tuple[Job, Identity, bool]:
        try:
            record, status = _open_file(folder, STATUS_FILE)
        except PermissionError as denied:
            raise BadRecord(f"{STATUS_FILE}: permission denied") from denied
        try:
            identity = Identity.of(status)
            if known is not None and known.settled and known.identity == identity:
                return known.job, identity, True
            # Asked before the bytes are read: a change after this moment gets a later time.
            settled = identity.settled(time.time_ns())
            decoded = _decode(record, identity.size)
        finally:
            os.close(record)
        return parse_record(job_id, decoded, identity.mtime_ns // 1000, self._aliases), identity, settled

    def _output(self, folder: int, job: Job) -> OpenFile | None:
        try:
            return _opened(*self._open_in(folder, job.output_path or ""))
        except (Absent, PermissionError):
            return None

    def _open(self, job_id: str, path: str) -> OpenFile:
        folder = self._open_job(job_id)
        try:
            return _opened(*self._open_in(folder, path))
        except PermissionError as denied:
            raise Absent from denied
        finally:
            os.close(folder)

    def _open_in(self, folder: int, path: str) -> tuple[int, os.stat_result, str]:
        """Open a path of a record: relative to the job's folder, or absolute beneath an output root."""
        if not path.startswith("/"):
            names = components(path)
            if names is None:
                raise Absent
            return *_open_regular(folder, names), names[-1]
        for name, root in self._outputs:
            if names := beneath(name, path):
                top = os.open(root, _FOLDER)
                try:
                    return *_open_regular(top, names), names[-1]
                finally:
                    os.close(top)
        raise Absent

    def _open_job(self, job_id: str) -> int:
        """Open a job's folder; by its whole path: an unmounted share is neither held nor believed."""
        if not is_job_id(job_id):
            raise Absent
        try:
            return os.open(f"{self._prefix}{job_id}", _FOLDER | os.O_NOFOLLOW)
        except OSError as failed:
            if failed.errno not in _ABSENT:
                raise
            # Is it the job that is absent, or the root? That would be a fault, and raises as one.
            os.close(os.open(self.path, _FOLDER))
            raise Absent from failed


def _opened(fd: int, status: os.stat_result, name: str) -> OpenFile:
    return OpenFile(fd, Identity.of(status), name, status.st_nlink)


def _open_regular(folder: int, names: tuple[str, ...]) -> tuple[int, os.stat_result]:
    """Open the regular file that `names` lead to from `folder`; Absent where anything else is found."""
    passed: list[int] = []
    try:
        for name in names[:-1]:
            folder = _open_beneath(folder, name, _FOLDER | os.O_NOFOLLOW)
            passed.append(folder)
        return _open_file(folder, names[-1])
    finally:
        for fd in passed:
            os.close(fd)


def _open_file(folder: int, name: str) -> tuple[int, os.stat_result]:
    """Open a regular file of a folder; what turns out to be something else is closed again, and Absent."""
    fd = _open_beneath(folder, name, _FILE)
    try:
        status = os.fstat(fd)
    except BaseException:
        os.close(fd)
        raise
    if stat.S_ISREG(status.st_mode):
        return fd, status
    os.close(fd)
    raise Absent


def _open_beneath(folder: int, name: str, flags: int) -> int:
    try:
        return os.open(name, flags, dir_fd=folder)
    except OSError as failed:
        if failed.errno in _ABSENT:
            raise Absent from failed
        raise


def _decode(fd: int, size: int) -> object:
    """Decode a record of at most RECORD_CAP bytes; BadRecord where it is no JSON or too large."""
    data = b"" if size > RECORD_CAP else os.pread(fd, size + 1, 0)
    if len(data) != size <= RECORD_CAP:  # it has grown since, or came in pieces
        data += read_fully(fd, len(data), RECORD_CAP + 1 - len(data))
    if max(size, len(data)) > RECORD_CAP:
        raise BadRecord(f"{STATUS_FILE}: larger than {RECORD_CAP} bytes")
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError as wrong:
        raise BadRecord(f"{STATUS_FILE}: not JSON ({wrong})") from wrong


def _retry_stale(call: Callable[[], T]) -> T:
    """Call again on ESTALE: NFS says so of a file that was replaced between lookup and open."""
    for _ in range(_STALE_TRIES - 1):
        try:
            return call()
        except OSError as failed:
            if failed.errno != errno.ESTALE:
                raise
            time.sleep(_STALE_PAUSE)
    return call()
