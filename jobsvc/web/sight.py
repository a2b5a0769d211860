"""Whose job it is, found out so that nothing tells another owner's job from an unknown one.

Not the answer, not the time it takes, and not what becomes of either while the storage is away.
"""

from __future__ import annotations

from jobsvc.domain.access import Token, require_sight, sees
from jobsvc.domain.errors import StorageUnavailable
from jobsvc.index.freshness import Answer, Freshness


async def sighted(freshness: Freshness, token: Token, job_id: str, *, force: bool = False) -> Answer:
    """Answer for a job that the token sees; `force` has the disk read first.

    JobNotFound, StorageUnavailable.
    """
    answer = None if force else freshness.at_once(job_id)
    if answer is None:
        answer = await freshness.job(job_id, force=force)
    if sees(token, answer.reading.job.owner):
        return answer
    # An unknown id has the disk asked, and is no 404 as long as that does not answer.
    await freshness.look(job_id)
    answer = await freshness.job(job_id)
    if answer.stale and not sees(token, answer.reading.job.owner):
        raise StorageUnavailable
    require_sight(token, answer.reading.job.owner)
    return answer
