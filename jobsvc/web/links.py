"""Download links: the right to one job's output for some time, in the query of the output's address.

`?token=ID&expires=MILLISECONDS&signature=S` is taken exactly as it was given out. `sign` and `verify` are
pure; `Links` has the key, and lends a link the right of the token that made it, as long as that token lives.
"""

from __future__ import annotations

import hmac
import re
import secrets
import time
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

from aiohttp import hdrs, web

from jobsvc.domain.access import Token
from jobsvc.domain.errors import Unauthorized
from jobsvc.storage.disk import Disk
from jobsvc.storage.link_key import SIZE, load_or_make
from jobsvc.web.dispatch import job_id_of
from jobsvc.web.gate import Gate
from jobsvc.web.representation import download_url

PARAMETERS: Final = ("token", "expires", "signature")
_VERSION: Final = "jobsvc download link 1"
# No percent-encoding, no other order, nothing twice and nothing more: one link has one spelling.
_QUERY: Final = re.compile(
    r"token=([A-Za-z0-9._-]{1,64})&expires=([1-9][0-9]{0,15})&signature=([A-Za-z0-9_-]{43})", re.ASCII
)


def sign(key: bytes, job_id: str, token_id: str, expires: int) -> str:
    """Return HMAC-SHA256 (RFC 2104) over version, job, token and expiry, as 43 characters of base64url.

    Each part has its length before it, so that no two links have the same bytes whatever is in their parts.
    """
    parts = (_VERSION, job_id, token_id, str(expires))
    signed = "".join(f"{len(part)}:{part}," for part in parts)
    digest = hmac.digest(key, signed.encode("utf-8", "surrogatepass"), "sha256")
    return urlsafe_b64encode(digest).rstrip(b"=").decode()


def query(key: bytes, job_id: str, token_id: str, expires: int) -> str:
    """Write the query of a link that is good until `expires`, in milliseconds since the epoch."""
    return f"token={token_id}&expires={expires}&signature={sign(key, job_id, token_id, expires)}"


def verify(key: bytes, job_id: str, text: str, now: float) -> str:
    """Return the id of the token that made the link for this job; `now` is in seconds since the epoch.

    Unauthorized, worded alike whatever is wrong: its form, a bit of it, the job, or the time.
    """
    match = _QUERY.fullmatch(text)
    if match is None:
        raise _refusal("link-malformed")
    token_id, expires, signature = match[1], int(match[2]), match[3]
    # As text: the last character has two bits that decoding would drop, and other bits there must not pass.
    if not hmac.compare_digest(signature, sign(key, job_id, token_id, expires)):
        raise _refusal("link-signature")
    if now * 1000 >= expires:
        raise _refusal("link-expired", token_id)
    return token_id


class Link(NamedTuple):
    """A link as it is given out."""

    url: str
    """Relative to the service's own address."""
    expires: int
    """Milliseconds since the epoch."""


class Links:
    """Makes links and lets in by them. Belongs to the event loop; only `keyed` looks at the key's file."""

    def __init__(self, path: Path, disk: Disk, gate: Gate, *, clock: Callable[[], float] = time.time) -> None:
        """Take the key file's path and the gate that knows which tokens live."""
        self._path = path
        self._disk = disk
        self._gate = gate
        self._clock = clock
        self._key = secrets.token_bytes(SIZE)  # nobody's, until the file's own is there

    async def keyed(self, _app: web.Application) -> AsyncIterator[None]:
        """Load the key, or make it: a cleanup_ctx.

        BadLinkKey and StorageUnavailable keep the service from starting.
        """
        self._key = await self._disk.metadata("*links", partial(load_or_make, self._path))
        yield

    def make(self, job_id: str, token: Token, seconds: int) -> Link:
        """Make a link to a job's output; it never outlives the token, and says so."""
        expires = int((self._clock() + seconds) * 1000)
        if token.expires is not None:
            expires = min(expires, int(token.expires * 1000))
        return Link(f"{download_url(job_id)}?{query(self._key, job_id, token.id, expires)}", expires)

    def authenticate(self, request: web.Request) -> Token:
        """Return the live token that a request comes by: its Authorization field decides where it has one.

        A link counts only without it. Unauthorized; NoCredentials where there is neither field nor query.
        """
        text = request.raw_path.partition("?")[2]
        if hdrs.AUTHORIZATION in request.headers or not text:
            return self._gate.authenticate(request.headers)
        token_id = verify(self._key, job_id_of(request), text, self._clock())
        token = self._gate.living(token_id)
        if token is None:
            raise _refusal(self._gate.why_dead(token_id), token_id)
        return token


def _refusal(reason: str, token_id: str | None = None) -> Unauthorized:
    return Unauthorized("The link is not valid.", reason, token_id)
