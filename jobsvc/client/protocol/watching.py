"""Follow changes of jobs as server-sent events, over reconnects."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from jobsvc.client.protocol.steps import Operation


def watch(job_ids: Collection[str] = (), *, status: Iterable[str] = ()) -> Operation[None]:
    """Emit JobChanged and JobRemoved, first the current state of each job; without ids of all jobs."""
    raise NotImplementedError
