"""Which output, or file of an output, a URL names, and whether the job has it."""

from __future__ import annotations

from typing import Final, NamedTuple, TypeVar

from aiohttp import web

from jobsvc.domain.errors import (
    FileMissing,
    JobCanceled,
    JobFailed,
    JobNotCompleted,
    NotFound,
    NotReady,
    OutputReplaced,
)
from jobsvc.domain.job import Job, Status
from jobsvc.storage.files.safe_open import OpenFile
from jobsvc.storage.jobs.output_file import path_of_file
from jobsvc.storage.jobs.snapshot import JobSnapshot
from jobsvc.web import query_params
from jobsvc.web.headers.conditional import version_id
from jobsvc.web.headers.content_headers import saved_name
from jobsvc.web.paths import file_name_of

T = TypeVar("T")

NOT_COMPLETED_RETRY_S: Final = 5
"""Retry-After if the job is not completed yet."""


def require_output(job: Job, output: T | None) -> T:
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


class RequestedFile(NamedTuple):
    """The file of an output that a URL names."""

    output: str
    path: str | None
    """Relative to the output's directory; None for an output that is a file itself."""
    version: str | None

    def path_in(self, snapshot: JobSnapshot) -> str:
        """Return the file's path, relative to the job directory or absolute.

        Raises FileMissing if the job has no such output, or the output no file with such a name.
        """
        for output, state in zip(snapshot.job.outputs, snapshot.states, strict=True):
            if output.name == self.output and state is not None:
                path = path_of_file(output, state.kind, self.path)
                if path is not None:
                    return path
        raise FileMissing("The job has no such output, or the output no such file.")

    def check(self, file: OpenFile) -> None:
        """Raise OutputReplaced if the file has another version."""
        RequestedOutput(self.version).check(file)


def requested_file_of(request: web.Request) -> RequestedFile:
    """Parse the output, the path and the version from the URL. Raises BadRequest if `version` is repeated."""
    version = query_params.get_text(request.query, "version")
    return RequestedFile(request.match_info["output"], request.match_info.get("path"), version)
