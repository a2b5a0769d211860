"""Which output a download's URL names, and whether the job has one."""

from __future__ import annotations

from typing import Final, NamedTuple

from aiohttp import web

from jobsvc.domain.errors import (
    JobCanceled,
    JobFailed,
    JobNotCompleted,
    NotFound,
    NotReady,
    OutputReplaced,
)
from jobsvc.domain.job import Job, Status
from jobsvc.storage.files.safe_open import OpenFile
from jobsvc.web import query_params
from jobsvc.web.file_transfer.selection import FileSelection
from jobsvc.web.headers.conditional import version_id
from jobsvc.web.headers.content_headers import saved_name
from jobsvc.web.paths import file_name_of

NOT_COMPLETED_RETRY_S: Final = 5
"""Retry-After if the job is not completed yet."""


def require_output(job: Job, output: FileSelection | None) -> FileSelection:
    """Return the output. Raises JobNotCompleted, JobFailed or JobCanceled if the job is in such a state."""
    if output is None:
        raise without_output(job)
    return output


def without_output(job: Job) -> NotReady:
    """Return the error for a job that has no output because it is not completed."""
    if job.status is Status.FAILED:
        error = job.details.error
        return JobFailed(f"The job failed: {error[:500]}" if error else "The job failed.")
    if job.status is Status.CANCELED:
        return JobCanceled("The job was canceled.")
    return JobNotCompleted(
        f"The job is {job.status}, {job.progress:g} % done.", retry_after=NOT_COMPLETED_RETRY_S
    )


class RequestedOutput(NamedTuple):
    """What the URL of a download states about the output, besides the job id; None if not given."""

    version: str | None = None
    name: str | None = None

    def check(self, file: OpenFile) -> None:
        """Raise OutputReplaced if the file has another version, NotFound if it has another name."""
        if self.version is not None and self.version != (current := version_id(*file.version.parts())):
            raise OutputReplaced(current)
        if self.name is not None and self.name != saved_name(file.name):
            raise NotFound("The output has a different name.")


CURRENT_OUTPUT: Final = RequestedOutput()


def requested_output_of(request: web.Request) -> RequestedOutput:
    """Parse the output's version and name from the URL. Raises BadRequest if `version` is repeated."""
    name = file_name_of(request)
    if "?" not in request.raw_path:
        return RequestedOutput(name=name)
    return RequestedOutput(query_params.get_text(request.query, "version"), name)
