"""Check the outputs of a completed job: whether they exist and are complete, and how large they are.

The files are listed as the service lists them for `GET /api/jobs/{id}/files`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final, NamedTuple

from jobsvc.domain.errors import TooManyFiles
from jobsvc.domain.job import Job
from jobsvc.domain.outputs import MAIN, MAX_FILES, Frames, Output
from jobsvc.storage.archive.file_list import FileList, OutputFiles
from jobsvc.storage.archive.lister import list_files
from jobsvc.storage.archive.output_source import JobOutputs
from jobsvc.storage.jobs.path_diagnosis import explain_output
from jobsvc.storage.jobs.reader import JobsRoot
from jobsvc.storage.jobs.snapshot import JobSnapshot

MAX_NAMED_RANGES: Final = 5
"""Maximum number of ranges of missing frames in one finding."""


class Problem(NamedTuple):
    """An error of one output."""

    code: str
    """output-missing, frames-missing, files-left-out or too-many-files."""
    reason: str


@dataclass(frozen=True, slots=True)
class Contents:
    """The files of a job that has several."""

    job: str
    files: int
    bytes: int
    """Bytes of all files."""


class CheckedOutputs(NamedTuple):
    """The result for one job."""

    problems: Sequence[Problem]
    contents: Contents | None
    """None if the job has at most one file, or too many."""


def check_outputs(root: JobsRoot, snapshot: JobSnapshot) -> CheckedOutputs:
    """Check the outputs of a completed job; raises OSError for a storage fault."""
    job = snapshot.job
    if not job.outputs:
        return CheckedOutputs([_unnamed(job)], None)
    missing = [
        Problem("output-missing", f"{_label(job, output)} {_explain(root, job, output)}")
        for output, state in zip(job.outputs, snapshot.states, strict=True)
        if state is None
    ]
    if snapshot.packed_outputs is None:
        return CheckedOutputs(missing, None)
    existing = [output for output, _ in snapshot.existing_outputs()]
    try:
        files = _listed(root, job, existing)
    except TooManyFiles:
        too_many = Problem("too-many-files", f"outputs: more than {MAX_FILES} files")
        return CheckedOutputs([*missing, too_many], None)
    contents = Contents(job.id, len(files), files.total_size) if len(files) > 1 else None
    return CheckedOutputs([*missing, *_problems_of_files(job, files)], contents)


def _unnamed(job: Job) -> Problem:
    if job.output_path is None:
        return Problem("output-missing", "outputPath: missing, but the job is completed")
    return Problem("output-missing", f"outputPath: {job.output_path!r} is empty")


def _label(job: Job, output: Output) -> str:
    """Return how a finding names an output: by its key and path."""
    path = repr(output.path[:200])
    if output.name == MAIN and output.path == job.output_path:
        return f"outputPath: {path}"
    return f"outputs: {output.name!r}: {path}"


def _explain(root: JobsRoot, job: Job, output: Output) -> str:
    problem = explain_output(root.path / job.id, output.path, root.output_roots)
    return problem or "cannot be served"


def _listed(root: JobsRoot, job: Job, outputs: list[Output]) -> FileList:
    """List all files at once."""
    work = list_files(outputs, JobOutputs(root, job))
    while True:
        try:
            next(work)
        except StopIteration as finished:
            files: FileList = finished.value
            return files


def _problems_of_files(job: Job, files: FileList) -> Iterator[Problem]:
    for part in files.outputs:
        label = _label(job, part.output)
        if not part:
            yield Problem("output-missing", f"{label} has no files")
        elif missing := _missing_frames(part):
            yield Problem("frames-missing", f"{label}: {missing}")
        if part.skipped:
            yield _left_out(label, part.skipped, "not a regular file, or cannot be read")
        if part.unusable:
            yield _left_out(label, part.unusable, "the name is not UTF-8, too long, or contains a backslash")


def _left_out(label: str, count: int, why: str) -> Problem:
    return Problem("files-left-out", f"{label}: {count} left out: {why}")


def _missing_frames(part: OutputFiles) -> str | None:
    """Say which frames of `frames` are missing; None if none is, or if the record has no `frames`."""
    frames = part.output.frames
    if frames is None or not part.frames:
        return None
    ranges = list(islice(missing_ranges(part.frames, frames), MAX_NAMED_RANGES + 1))
    if not ranges:
        return None
    named = ", ".join(map(_range, ranges[:MAX_NAMED_RANGES]))
    more = " and more" if len(ranges) > MAX_NAMED_RANGES else ""
    return f"{part.missing_frames()} of {frames.last - frames.first + 1} frames are missing: {named}{more}"


def missing_ranges(found: Iterable[int], expected: Frames) -> Iterator[Frames]:
    """Yield the ranges of expected frames that are not in `found`, which is sorted."""
    following = expected.first
    for frame in filter(expected.__contains__, found):
        if frame > following:
            yield Frames(following, frame - 1)
        following = max(following, frame + 1)
    if following <= expected.last:
        yield Frames(following, expected.last)


def _range(frames: Frames) -> str:
    return str(frames.first) if frames.first == frames.last else f"{frames.first}-{frames.last}"
