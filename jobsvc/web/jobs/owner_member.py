"""The `owner` of a job, which only `admin` tokens see.

It is added to a rendered job for each response: what is cached never contains it, so it cannot reach another
token.
"""

from __future__ import annotations

import orjson

from jobsvc.domain.access import Token, is_admin
from jobsvc.web.jobs.representation import RenderedJob, entity_tag


def add_owner(job: bytes, owner: str) -> bytes:
    """Return a job's JSON object with its owner as the last member."""
    return b'%b,"owner":%b}' % (job[:-1], orjson.dumps(owner))


def shown_to(token: Token, shown: RenderedJob, owner: str) -> RenderedJob:
    """Return a job as the token sees it, under an entity tag of its own."""
    if not is_admin(token):
        return shown
    # Made of the tag and not of the body, which may have a MiB and would be hashed for each response.
    etag = entity_tag(shown.etag.encode() + owner.encode("utf-8", "surrogatepass"))
    return shown._replace(body=add_owner(shown.body, owner), etag=etag)
