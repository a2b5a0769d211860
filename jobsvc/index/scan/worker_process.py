"""Main program of a worker process, `python -m jobsvc.index.scan.worker_process`: read new jobs.

The arguments are those of JobsRoot.arguments.

Each line on standard input is a JSON array of job ids. The reply to each line, on standard output, is a
length in bytes (four bytes, little-endian) and that many bytes of marshal data: a list with one item per id,
in order. An item is a pair of the time at which the read started (CLOCK_MONOTONIC, seconds) and
JobSnapshot.to_tuple(), or None if the job could not be read; the service then reads it and finds the reason.
The process ends when standard input ends or its parent dies.
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
"""Size of the length field of a reply, in bytes."""


def encode_reply(root: JobsRoot, job_ids: Sequence[str]) -> bytes:
    """Read these jobs and return the reply, with its length field."""
    batch = BatchRead(root, [(job_id, None) for job_id in job_ids], seconds=inf)
    data = marshal.dumps([_to_item(result) for result in batch().results])
    return len(data).to_bytes(LENGTH_BYTES, "little") + data


def decode_reply(job_ids: Sequence[str], data: bytes) -> list[ReadResult]:
    """Return the results in a reply, given without its length field; omits jobs without a snapshot.

    Raises ValueError, EOFError or TypeError if the reply is malformed.
    """
    items = zip(job_ids, marshal.loads(data), strict=True)  # noqa: S302 - from our own worker process
    return [
        ReadResult(job_id, item[0], JobSnapshot.from_tuple(job_id, item[1]))
        for job_id, item in items
        if item is not None
    ]


def _to_item(result: ReadResult) -> tuple[float, tuple[object, ...]] | None:
    snapshot = result.outcome
    return (result.started_at, snapshot.to_tuple()) if isinstance(snapshot, JobSnapshot) else None


def main(*arguments: str) -> None:
    """Reply to lines until standard input ends."""
    die_with_parent()
    gc.disable()  # no object outlives its reply or is part of a cycle
    root = JobsRoot.of_arguments(*arguments)
    for line in sys.stdin.buffer:
        sys.stdout.buffer.write(encode_reply(root, orjson.loads(line)))
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
