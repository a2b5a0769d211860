"""Whose job it is, found out so that nothing tells another owner's job from an unknown one.

Not the answer, not the time it takes, and not what becomes of either while the storage is away.
"""

from __future__ import annotations

from jobsvc.domain.access import Token, can_see
from jobsvc.domain.errors import JobNotFound, StorageUnavailable
from jobsvc.index.catalogue.freshness import CachedJob, Freshness


async def get_visible_job(
    freshness: Freshness, token: Token, job_id: str, *, force: bool = False
) -> CachedJob:
    """Answer for a job that the token sees; `force` has the disk read first.

    JobNotFound, StorageUnavailable.
    """
    owner = freshness.owner_of(job_id)
    if owner is None or not can_see(token, owner):
        answer = await freshness.read_unlisted(job_id, token)
    elif force or (known := freshness.cached(job_id)) is None:
        answer = await freshness.job(job_id, force=force)
    else:
        answer = known
    if can_see(token, answer.snapshot.job.owner):
        return answer
    # An unknown id is no 404 as long as the disk does not answer.
    raise StorageUnavailable if answer.stale else JobNotFound
