"""Read a job's status.json in its open directory and build the job. Blocking."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final, NamedTuple

import orjson

from jobsvc.domain.job import Job, Status
from jobsvc.domain.record_decoding import decode_record
from jobsvc.domain.status_record import BadRecord, parse_record
from jobsvc.storage.files.file_version import is_stable, packed_from
from jobsvc.storage.files.pread import read_fully
from jobsvc.storage.files.safe_open import PathNotFound, RecordMissing, open_file
from jobsvc.storage.files.statx import birth_time
from jobsvc.storage.jobs.snapshot import JobSnapshot
from jobsvc.storage.layout import MAX_RECORD_BYTES, STATUS_FILE
from jobsvc.storage.processes.record_process import RecordProcessClient

LARGE_RECORD_BYTES: Final = 64 * 1024
"""Records up to this size, in bytes, are decoded in about a millisecond, whatever they contain."""


class ReadRecord(NamedTuple):
    """A job as its record describes it."""

    job: Job
    version: bytes
    """The packed file version of the record."""
    is_stable: bool
    """Whether an equal version later proves equal content."""


class RecordReader:
    """Reads records; a large one is decoded by `record_process`, because that holds the GIL for too long."""

    def __init__(self, aliases: Mapping[str, Status], record_process: RecordProcessClient | None) -> None:
        self.aliases = aliases
        self._record_process = record_process

    def read(self, job_id: str, folder: int, known: JobSnapshot | None = None) -> ReadRecord:
        """Read the record in a job directory, given as a descriptor; not again if `known` has its version.

        Raises RecordMissing, BadRecord, or OSError for a storage fault.
        """
        record, status = _open_record(folder)
        try:
            version = packed_from(status)
            if known is not None and known.is_stable and known.record_version == version:
                return ReadRecord(known.job, version, is_stable=True)
            # The clock is read before the bytes: a change after this moment gets a later timestamp.
            stable = is_stable(status.st_mtime_ns, status.st_ctime_ns, time.time_ns())
            if self._record_process is not None and status.st_size > LARGE_RECORD_BYTES:
                self._record_process.check_waiting()  # before reading up to 1 MiB for nothing
            text = _read_text(record, status.st_size)
        finally:
            os.close(record)
        file_time = status.st_mtime_ns // 1000
        created_time = partial(_created_time, folder, known, file_time)
        return ReadRecord(self._parse(job_id, text, file_time, created_time), version, stable)

    def _parse(self, job_id: str, text: bytes, file_time: int, created_time: Callable[[], int]) -> Job:
        decoded, metadata = self._decode(text)
        return parse_record(
            job_id, decoded, file_time, self.aliases, text=text, metadata=metadata, created_time=created_time
        )

    def _decode(self, text: bytes) -> tuple[object, bytes | None]:
        """Decode a record, a large one without its metadata; raises BadRecord if it is not JSON."""
        try:
            if self._record_process is None or len(text) <= LARGE_RECORD_BYTES:
                return decode_record(text), None
            record, metadata = self._record_process.split(text)
            return orjson.loads(record), metadata
        except ValueError as error:
            raise BadRecord(f"{STATUS_FILE}: not JSON ({error})", "not-json") from error


def _open_record(folder: int) -> tuple[int, os.stat_result]:
    try:
        return open_file(folder, STATUS_FILE)
    except PermissionError as denied:
        raise BadRecord(f"{STATUS_FILE}: permission denied", "denied") from denied
    except PathNotFound as missing:
        raise RecordMissing(f"{STATUS_FILE}: missing, or not a regular file") from missing


def _read_text(fd: int, size: int) -> bytes:
    """Read a record of at most MAX_RECORD_BYTES; raises BadRecord if it is larger."""
    data = b"" if size > MAX_RECORD_BYTES else os.pread(fd, size + 1, 0)
    if len(data) != size <= MAX_RECORD_BYTES:  # it has grown since fstat, or the read was short
        data += read_fully(fd, len(data), MAX_RECORD_BYTES + 1 - len(data))
    if max(size, len(data)) > MAX_RECORD_BYTES:
        raise BadRecord(f"{STATUS_FILE}: larger than {MAX_RECORD_BYTES} bytes", "too-large")
    return data


def _created_time(folder: int, known: JobSnapshot | None, file_time: int) -> int:
    """Return a time for createdAt that later writes do not change, in microseconds since the epoch.

    This is the birth time of the job directory or, if unknown, the earliest time seen; at most `file_time`.
    """
    born = birth_time(folder)
    if born is None:
        born = file_time if known is None else known.job.created_order
    return min(born, file_time)
