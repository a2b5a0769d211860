"""Add the `owner` member to rendered jobs, for `admin` tokens only.

It is added for each response. Cached JSON never contains it, so it cannot reach another token.
"""

from __future__ import annotations

import orjson

from jobsvc.domain.access import Token, is_admin
from jobsvc.web.jobs.representation import RenderedJob, entity_tag


def add_owner(job: bytes, owner: str) -> bytes:
    """Return a job's JSON object with its owner as the last member."""
    return b'%b,"owner":%b}' % (job[:-1], orjson.dumps(owner))


def shown_to(token: Token, shown: RenderedJob, owner: str) -> RenderedJob:
    """Return a job as the token sees it: for `admin`, with its owner and a different entity tag."""
    if not is_admin(token):
        return shown
    # Computed from the tag, not from the body, which can have 1 MiB and would be hashed for each response.
    etag = entity_tag(shown.etag.encode() + owner.encode("utf-8", "surrogatepass"))
    return shown._replace(body=add_owner(shown.body, owner), etag=etag)
