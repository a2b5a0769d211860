"""List the files of a job's outputs for a request, as they are on disk now.

The work is done in steps in the metadata pool, so that a directory with 100,000 files holds up no other
request, and once for all requests that wait for the same list.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Sequence
from functools import partial
from time import monotonic
from typing import Final, NamedTuple, TypeVar

from jobsvc.domain.access import Token
from jobsvc.domain.errors import FileMissing, OutputMissing, TooManyFiles
from jobsvc.domain.job import Job, Status
from jobsvc.domain.outputs import Output
from jobsvc.storage.archive.file_list import FileList
from jobsvc.storage.archive.lister import list_files
from jobsvc.storage.archive.output_source import JobOutputs
from jobsvc.storage.archive.stepped_work import SteppedWork
from jobsvc.storage.executor import StorageExecutor
from jobsvc.storage.jobs.reader import JobsRoot
from jobsvc.storage.jobs.snapshot import JobSnapshot
from jobsvc.web import query_params
from jobsvc.web.jobs.file_access import JobFileAccess
from jobsvc.web.outputs.requested_output import without_output
from jobsvc.web.outputs.shared_work import SharedWork

T = TypeVar("T")

KEPT_S: Final = 10.0
"""Seconds for which a list is used again, by requests for its next pages."""
KEPT_FILES: Final = 200_000
"""Files in all lists that are kept, at most; they need about 150 bytes each."""


class JobFiles(NamedTuple):
    """A completed job, and the files that its outputs have on disk."""

    snapshot: JobSnapshot
    files: FileList


class _KeptList(NamedTuple):
    listed_at: float
    job_files: JobFiles


def all_outputs(job: Job) -> Sequence[Output]:
    """Return all outputs of a job."""
    return job.outputs


def outputs_named(names: Collection[str], job: Job) -> Sequence[Output]:
    """Return the outputs of a job with these names, or all if there are no names.

    Raises FileMissing if an output does not exist.
    """
    known = [output.name for output in job.outputs]
    for name in names:
        if name not in known:
            raise FileMissing(f"The job has no output {query_params.quote(name)}; it has {', '.join(known)}.")
    return [output for output in job.outputs if not names or output.name in names]


class FileLists:
    """Lists files. Belongs to the event loop."""

    def __init__(
        self,
        *,
        disk: StorageExecutor,
        files: JobFileAccess,
        root: JobsRoot,
        on_listed: Callable[[int], object],
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """`on_listed` is called with the number of files of each list that is read."""
        self._disk = disk
        self._files = files
        self._root = root
        self._on_listed = on_listed
        self._clock = clock
        self._kept: dict[str, _KeptList] = {}
        self._listing: SharedWork[FileList | TooManyFiles] = SharedWork()

    async def read(
        self, token: Token, job_id: str, outputs_of: Callable[[Job], Sequence[Output]] = all_outputs
    ) -> JobFiles:
        """List the files of the outputs that `outputs_of` selects of a job; raises what that raises.

        Raises JobNotFound, also for another owner's job; NotReady; OutputMissing if there is no file;
        TooManyFiles; StorageUnavailable.
        """
        snapshot = await self._completed(token, job_id)
        job, outputs = snapshot.job, tuple(outputs_of(snapshot.job))
        files = await self._listing.run(job_id, (job.owner, outputs), partial(self._list, job, outputs))
        if isinstance(files, TooManyFiles):
            raise TooManyFiles(files.limit)
        if not files:
            raise OutputMissing("The job is completed, but its outputs have no files.")
        return JobFiles(snapshot, files)

    async def _list(self, job: Job, outputs: Sequence[Output]) -> FileList | TooManyFiles:
        """List the files; return the error that says that there are too many, which takes as long."""
        try:
            files = await self.run(job.id, list_files(outputs, JobOutputs(self._root, job)))
        except TooManyFiles as too_many:
            return too_many
        self._on_listed(len(files))
        return files

    async def run(self, job_id: str, work: Generator[None, None, T]) -> T:
        """Run work in steps in the job's share of the metadata pool. Raises what it raises."""
        steps = SteppedWork(work)
        try:
            while not await self._disk.run_metadata(job_id, steps.step):
                pass
        except BaseException:
            self._disk.close_later(steps)
            raise
        return steps.result

    async def read_kept(self, token: Token, job_id: str, *, is_first: bool) -> JobFiles:
        """Like `read`; if this is not for the first page, the list may be up to KEPT_S seconds old."""
        kept = self._kept.get(job_id)
        if kept is not None and not is_first and self._clock() - kept.listed_at <= KEPT_S:
            snapshot = await self._completed(token, job_id)
            if snapshot.record_version == kept.job_files.snapshot.record_version:
                return kept.job_files
        started_at = self._clock()
        job_files = await self.read(token, job_id)
        self._keep(job_id, _KeptList(started_at, job_files))
        return job_files

    async def _completed(self, token: Token, job_id: str) -> JobSnapshot:
        """Read the record. Raises the same as `read`."""
        snapshot = (await self._files.read_record(token, job_id, lambda _snapshot: None)).snapshot
        if snapshot.job.status is not Status.COMPLETED:
            raise without_output(snapshot.job)
        return snapshot

    def _keep(self, job_id: str, kept: _KeptList) -> None:
        """Keep a list for the requests for its next pages; the oldest ones are dropped for it."""
        self._kept.pop(job_id, None)
        self._kept[job_id] = kept
        now, files = self._clock(), 0
        for other in reversed(list(self._kept)):
            files += len(self._kept[other].job_files.files)
            if files > KEPT_FILES or now - self._kept[other].listed_at > KEPT_S:
                del self._kept[other]
