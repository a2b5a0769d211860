"""Read a record and open a file of its job, in one call in a pool thread. Blocking."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, NamedTuple, TypeVar

from jobsvc.domain.access import Token, require_visible
from jobsvc.domain.status_record import BadRecord
from jobsvc.storage.files.safe_open import OpenFile, RecordMissing
from jobsvc.storage.jobs.reader import JobsRoot
from jobsvc.storage.jobs.snapshot import JobSnapshot
from jobsvc.storage.threads.background_closer import close

T = TypeVar("T")


class JobFile(NamedTuple, Generic[T]):
    """A job as it is on disk now, and the result of the function called with it."""

    snapshot: JobSnapshot
    file: T

    def close(self) -> None:
        """Close the result if it is open."""
        close(self.file)


def read_record(
    root: JobsRoot,
    known: JobSnapshot,
    token: Token | None,
    fn: Callable[[JobSnapshot], T],
    *,
    may_lack_record: bool = False,
) -> JobFile[T]:
    """Read the record, check the owner and call `fn`; runs in a pool thread.

    An invalid record is replaced by the known one. So is a missing one if `may_lack_record` is set; otherwise
    RecordMissing is raised.
    """
    try:
        snapshot = root.read(known.job.id, known)
    except (BadRecord, RecordMissing) as exc:
        if isinstance(exc, RecordMissing) and not may_lack_record:
            raise
        snapshot = known
    if token is not None:
        require_visible(token, snapshot.job.owner)
    return JobFile(snapshot, fn(snapshot))


def read_and_open(
    root: JobsRoot,
    known: JobSnapshot,
    token: Token,
    fn: Callable[[JobSnapshot, OpenFile | None], T],
    *,
    may_lack_record: bool = False,
) -> JobFile[T]:
    """Read the record, open the output, check the owner and call `fn`; runs in a pool thread.

    An unreadable or missing record is handled as in `read_record`.
    """
    try:
        snapshot, file = root.read_and_open(known.job.id, known)
    except (BadRecord, RecordMissing) as exc:
        if isinstance(exc, RecordMissing) and not may_lack_record:
            raise
        snapshot, file = known, root.open_output(known.job) if known.output_version else None
    try:
        require_visible(token, snapshot.job.owner)
    except BaseException:
        close(file)
        raise
    return JobFile(snapshot, fn(snapshot, file))
