"""Read a job's log, and follow it over reconnects without a line lost or repeated."""

from __future__ import annotations

from jobsvc.client.protocol.steps import Operation


def read_log(retries: int, job_id: str, *, tail: int | None = None, follow: bool = False) -> Operation[None]:
    """Emit LogLines and LogReset; `tail`: only the last lines; `follow`: until the job is final."""
    raise NotImplementedError
