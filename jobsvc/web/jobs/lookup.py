"""Look up a job that the token can see.

Another owner's job is indistinguishable from an unknown id: same response, same disk access and time, same
503 while storage is unavailable.
"""

from __future__ import annotations

from jobsvc.domain.access import Token, can_see
from jobsvc.domain.errors import JobNotFound, StorageUnavailable
from jobsvc.index.catalogue.freshness import CachedJob, Freshness


async def get_visible_job(
    freshness: Freshness, token: Token, job_id: str, *, force: bool = False
) -> CachedJob:
    """Return a job that the token can see; `force` reads it from disk first.

    Raises JobNotFound or StorageUnavailable.
    """
    owner = freshness.owner_of(job_id)
    if owner is None or not can_see(token, owner):
        answer = await freshness.read_like_unknown(job_id, token)
    elif force or (known := freshness.cached(job_id)) is None:
        answer = await freshness.get(job_id, force=force)
    else:
        answer = known
    if can_see(token, answer.snapshot.job.owner):
        return answer
    # While storage is unavailable an unknown id is a 503 too, not a 404.
    raise StorageUnavailable if answer.stale else JobNotFound
