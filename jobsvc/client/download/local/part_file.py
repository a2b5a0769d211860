"""Keep what was received of a file, beside its target, so that a later run continues.

`NAME.part` has the bytes, `NAME.part.json` the record of which ones. The part file is locked while a process
uses it. A record that does not belong to the same version of the same file, or that cannot be read, is
ignored: the download starts over.
"""

from __future__ import annotations

import json
import os
import sys
import time
from contextlib import suppress
from hashlib import sha256
from io import FileIO
from pathlib import Path
from threading import Lock
from typing import Any, Final, Literal, NamedTuple

from jobsvc.client.download.local.byte_ranges import ByteRanges, parse_intervals
from jobsvc.client.download.local.file_lock import InUse, open_locked, unlock
from jobsvc.client.download.local.safe_files import create_new, open_regular, read_regular
from jobsvc.client.download.source import CHUNK, Source
from jobsvc.client.errors import DownloadError

MAX_NAME_BYTES: Final = 255
"""Longest file name of common file systems."""
_SUFFIX: Final = ".part"
_RECORD_SUFFIX: Final = ".part.json"
_NEW_SUFFIX: Final = ".part.json.new"
_HASH_LENGTH: Final = 12
_MAX_RECORD: Final = 4 << 20


class PartPaths(NamedTuple):
    """Where the received bytes and their record are."""

    part: Path
    record: Path
    new_record: Path
    """Replaces the record once it is written."""


def part_paths(target: Path, *, distinct: bool = False) -> PartPaths:
    """Return the paths of a target; names that would be too long are shortened.

    `distinct` adds a hash of the name: for a target beside which there is another one named `NAME.part`.
    """
    stem = target.name
    limit = MAX_NAME_BYTES - len(_NEW_SUFFIX)
    encoded = os.fsencode(stem)
    if distinct or len(encoded) > limit:
        cut = encoded[: limit - _HASH_LENGTH - 1].decode("utf-8", "ignore")
        stem = f"{cut}~{sha256(encoded).hexdigest()[:_HASH_LENGTH]}"
    return PartPaths(*(target.with_name(stem + suffix) for suffix in (_SUFFIX, _RECORD_SUFFIX, _NEW_SUFFIX)))


class PartFile:
    """The part file of one target, locked. Its methods can be called from several threads."""

    def __init__(self, paths: PartPaths, source: Source, *, is_verified: bool = True) -> None:
        """Open and lock it, and continue what its record describes. Raises DownloadError.

        Unless its bytes are verified later, a record from before the start of the system is ignored: after a
        loss of power it can describe bytes that were never written to disk.
        """
        self.paths = paths
        self._is_verified = is_verified
        self.source = source
        self.ranges = ByteRanges()
        self._lock = Lock()
        self._saved_total = 0
        self._fd: int | None = _open(paths.part)
        self._identity = os.fstat(self._fd)
        try:
            self.ranges = ByteRanges(self._read_record())
            if not self.ranges.total:
                self._forget()
        except BaseException:
            self.close()
            raise
        self._saved_total = self.resumed_from = self.ranges.total

    def add(self, start: int, stop: int) -> int:
        """Note that these bytes were written; return how many of them were missing."""
        with self._lock:
            added = self.ranges.add(start, stop)
            if self.ranges.total - self._saved_total >= CHUNK:
                self._write_record()
        return added

    def first_gap(self, start: int, stop: int) -> tuple[int, int] | None:
        """Return the first missing interval between two offsets; None if there is none."""
        with self._lock:
            return next(self.ranges.gaps(start, stop), None)

    def gaps(self) -> list[tuple[int, int]]:
        """Return all missing intervals."""
        with self._lock:
            return list(self.ranges.gaps(0, self.source.size))

    @property
    def received(self) -> int:
        """Number of bytes on disk."""
        with self._lock:
            return self.ranges.total

    @property
    def prefix(self) -> int:
        """Number of bytes on disk from the start of the file without a gap."""
        with self._lock:
            return self.ranges.prefix

    def open(self, mode: Literal["rb", "r+b"]) -> FileIO:
        """Open the part file once more, unbuffered: each thread has its own offset.

        Raises DownloadError if the path is not this file any more: it may lead elsewhere.
        """
        file = open_regular(self.paths.part, write=mode == "r+b")
        if not os.path.samestat(os.fstat(file.fileno()), self._identity):
            file.close()
            raise self._replaced()
        return file

    def save(self) -> None:
        """Write the record if it is out of date, unless the file is closed."""
        with self._lock:
            if self._fd is not None and self.ranges.total != self._saved_total:
                self._write_record()

    def restart(self, source: Source) -> None:
        """Forget all bytes, and expect those of another version. No thread may be writing."""
        with self._lock:
            self.source = source
            self.ranges = ByteRanges()
            self.resumed_from = 0
            self._forget()

    def check_unchanged(self) -> None:
        """Raise DownloadError if the path is not this part file any more, or if it has another size."""
        status = os.fstat(self.fileno())
        if not _same_file(status, self.paths.part):
            raise self._replaced()
        if status.st_size != self.source.size:
            raise DownloadError(f"{self.paths.part} was changed by another program.")

    def _replaced(self) -> DownloadError:
        return DownloadError(f"{self.paths.part} was replaced by another program.")

    def fileno(self) -> int:
        """Return the descriptor that holds the lock."""
        assert self._fd is not None  # noqa: S101 - it is open
        return self._fd

    def suspend(self) -> None:
        """Save the record, and close and unlock the file for now: descriptors are limited."""
        self.save()
        self._identity = os.fstat(self.fileno())
        self.close()

    def resume(self) -> bool:
        """Lock it again; return whether it is unchanged. Raises DownloadError if it is in use."""
        if self._fd is None:
            self._fd = _open(self.paths.part)
            now = os.fstat(self._fd)
            fields = ("st_dev", "st_ino", "st_size", "st_mtime_ns")
            if any(getattr(now, field) != getattr(self._identity, field) for field in fields):
                return False
        return True

    def close(self) -> None:
        """Unlock it; both files stay."""
        fd, self._fd = self._fd, None
        if fd is not None:
            unlock(fd, self.paths.part)

    def remove(self) -> None:
        """Delete both files, and unlock."""
        with self._lock:
            self.ranges = ByteRanges()
        self.remove_record()
        self.close_before_replacing()
        with suppress(FileNotFoundError):
            self.paths.part.unlink()
        self.close()

    def close_before_replacing(self) -> None:
        """Close the file where an open one cannot be renamed; elsewhere the lock is kept."""
        if sys.platform == "win32":
            self.close()

    def remove_record(self) -> None:
        """Delete the record: the part file gets its final name."""
        with suppress(FileNotFoundError):
            self.paths.record.unlink()

    def _forget(self) -> None:
        """Remove the record first: it must never describe bytes that are not there."""
        self._saved_total = 0
        self.remove_record()
        os.ftruncate(self.fileno(), 0)

    def _read_record(self) -> list[tuple[int, int]]:
        """Return the intervals that are on disk."""
        try:
            record = json.loads(read_regular(self.paths.record, _MAX_RECORD))
            if not isinstance(record, dict) or _identify(record) != _describe(self.source):
                return []
            intervals = parse_intervals(record.get("ranges"), self.source.size)
            if not self._is_verified and self.paths.record.lstat().st_mtime < _started_at():
                return []
        except (OSError, ValueError, RecursionError):
            return []
        is_on_disk = not intervals or intervals[-1][1] <= os.fstat(self.fileno()).st_size <= self.source.size
        return intervals if is_on_disk else []

    def _write_record(self) -> None:
        record = json.dumps(_describe(self.source) | {"ranges": list(self.ranges)})
        with create_new(self.paths.new_record) as file:
            file.write(record.encode())
        self.paths.new_record.replace(self.paths.record)
        self._saved_total = self.ranges.total


def _started_at() -> float:
    """Return when the system was started, in seconds since the epoch; later if it was suspended since."""
    return time.time() - time.monotonic()


def belongs_to(paths: PartPaths, source: Source) -> bool:
    """Return whether there is no part file at these paths, or one with a record of the same file."""
    if not os.path.lexists(paths.part):
        return True
    try:
        record = json.loads(read_regular(paths.record, _MAX_RECORD))
    except (OSError, ValueError, RecursionError):
        return False
    own = _describe(source)
    return isinstance(record, dict) and all(record.get(key) == own[key] for key in ("job", "output", "path"))


def remove_leftovers(paths: PartPaths, source: Source) -> None:
    """Delete what an earlier run received of a file that is complete by now, unless a process is using it.

    A part file that has bytes, but no record of the same file, may be another program's. One that cannot be
    deleted stays: the download has succeeded.
    """
    with suppress(DownloadError, OSError):
        if not paths.part.lstat().st_size or belongs_to(paths, source):
            PartFile(paths, source).remove()


def _open(path: Path) -> int:
    try:
        return _open_alone(path)
    except InUse as exc:
        raise DownloadError(f"{path} is being downloaded by another process.") from exc
    except OSError as exc:
        raise DownloadError(f"{path} cannot be written: {exc.strerror}.") from exc


def _open_alone(path: Path) -> int:
    """Open the file, or a new one in its place if it has another name too.

    Emptying it would destroy that one: the complete file, if a process was killed while it gave the part file
    its name; or somebody's.
    """
    fd = open_locked(path)
    if os.fstat(fd).st_nlink <= 1:
        return fd
    try:
        path.unlink()
    finally:
        unlock(fd, path)
    return open_locked(path)


def _describe(source: Source) -> dict[str, Any]:
    return {
        "job": source.job_id,
        "output": source.output,
        "path": source.path,
        "etag": source.etag,
        "size": source.size,
    }


def _identify(record: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key != "ranges"}


def _same_file(status: os.stat_result, path: Path) -> bool:
    try:
        return os.path.samestat(status, os.lstat(path))
    except FileNotFoundError:
        return False
