"""Main program of a worker process, `python -m jobsvc.index.scan.worker_main`: reads jobs that are new.

Its arguments are those of JobsRoot.arguments.

Each line on standard input is a JSON array of ids. To each it answers with four bytes of length (the least
first) and so many bytes of marshal: a list with, for each id in turn, when the look began (CLOCK_MONOTONIC,
seconds) and Reading.parts, or None where there was no reading. Why there was none, the service itself finds
out. Ends with standard input, and with its parent.
"""

from __future__ import annotations

import gc
import marshal
import sys
from collections.abc import Sequence
from math import inf
from typing import Final

import orjson

from jobsvc.index.processes.parent_death import die_with_parent
from jobsvc.storage.jobs.batch_read import BatchRead, ReadResult
from jobsvc.storage.jobs.reader import JobsRoot
from jobsvc.storage.jobs.snapshot import JobSnapshot

LENGTH_BYTES: Final = 4
"""Bytes of an answer's length."""


def encode_reply(root: JobsRoot, job_ids: Sequence[str]) -> bytes:
    """Look at these jobs, and pack what was found into an answer."""
    sweep = BatchRead(root, [(job_id, None) for job_id in job_ids], seconds=inf)
    data = marshal.dumps([_parts(found) for found in sweep().results])
    return len(data).to_bytes(LENGTH_BYTES, "little") + data


def decode_reply(job_ids: Sequence[str], data: bytes) -> list[ReadResult]:
    """Take the readings out of an answer, which is without its length here; ValueError where it is none."""
    answers = zip(job_ids, marshal.loads(data), strict=True)  # noqa: S302 - from a process of our own
    return [
        ReadResult(job_id, answer[0], JobSnapshot.from_tuple(job_id, answer[1]))
        for job_id, answer in answers
        if answer is not None
    ]


def _parts(found: ReadResult) -> tuple[float, tuple[object, ...]] | None:
    reading = found.outcome
    return (found.started_at, reading.to_tuple()) if isinstance(reading, JobSnapshot) else None


def main(*arguments: str) -> None:
    """Answer until standard input ends."""
    die_with_parent()
    gc.disable()  # nothing here outlives its answer, or is part of a cycle
    root = JobsRoot.of_arguments(*arguments)
    for line in sys.stdin.buffer:
        sys.stdout.buffer.write(encode_reply(root, orjson.loads(line)))
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
