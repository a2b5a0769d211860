"""Wait until jobs are final: one by long poll, several by one event stream."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from jobsvc.client.models import Job
from jobsvc.client.protocol.steps import Operation


def wait(
    job_ids: Sequence[str],
    *,
    timeout: float | None = None,
    on_change: Callable[[Job], object] | None = None,
    first_only: bool = False,
) -> Operation[list[Job]]:
    """Return the jobs, in the order of the ids, once all are final; with `first_only`, once one is.

    Raises WaitTimeout after `timeout` seconds, and JobNotFound.
    """
    raise NotImplementedError
