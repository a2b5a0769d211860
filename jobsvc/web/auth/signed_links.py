"""Download links: URLs that grant access to one version of a file or archive for a limited time.

`/api/jobs/ID/download/NAME?version=V&token=ID&expires=MILLISECONDS&signature=S` is only accepted exactly as
issued, including its path; with `&inline=1` before the signature, a browser shows the file. `sign_link` and
`verify` are pure functions; `SignedLinks` has the key. A link has the rights of the token that created it, as
long as that token is live, until it expires, and unless it is revoked by its id (link_record.py).
"""

from __future__ import annotations

import hmac
import re
import time
from collections.abc import Callable, Container
from typing import Final, NamedTuple

from aiohttp import hdrs, web

from jobsvc.domain.access import Token
from jobsvc.domain.errors import Unauthorized
from jobsvc.storage.state.link_record import link_id as link_id_of
from jobsvc.web.auth.bearer import TokenAuthenticator
from jobsvc.web.auth.sessions import Sessions
from jobsvc.web.auth.signing_key import SigningKey, sign
from jobsvc.web.paths import VERSION_QUERY

LINK: Final = web.RequestKey("jobsvc.link", str)
"""On a request that a link authenticated: the id of the link."""

INLINE: Final = web.RequestKey("jobsvc.inline", bool)
"""On a request: whether its link lets a browser show the file instead of saving it."""

PARAMETERS: Final = ("version", "token", "expires", "signature")
"""Query parameters of every link."""
FILE_PARAMETERS: Final = (*PARAMETERS, "inline")
"""Query parameters of a link to a file."""

SIGNATURE_LENGTH: Final = 43
"""Characters of a signature."""

_INLINE: Final = "&inline=1"
_FORMAT: Final = "jobsvc download link 2"
# No percent-encoding, no other order, no repeated or additional parameter: each link has one spelling.
_QUERY: Final = re.compile(
    r"version=([A-Za-z0-9_-]{22})&token=([A-Za-z0-9._-]{1,64})&expires=([1-9][0-9]{0,15})"
    r"(&inline=1)?&signature=([A-Za-z0-9_-]{43})",
    re.ASCII,
)
_IS_LINK: Final = re.compile(r"(?:^|&)(?:token|expires|signature)=")
_AUTHORITY: Final = re.compile(r"https?://[^/?#]*", re.ASCII | re.IGNORECASE)


def sign_link(key: bytes, path: str, version: str, token_id: str, expires: int) -> str:
    """Return the signature of a link."""
    return sign(key, _FORMAT, path, version, token_id, str(expires))


def query(key: bytes, path: str, version: str, token_id: str, expires: int, *, inline: bool = False) -> str:
    """Return the query of a link that is valid until `expires`, in milliseconds since the epoch."""
    shown = _INLINE if inline else ""
    # A path contains no question mark, so a link of the other kind never has the same signed bytes.
    signature = sign_link(key, path + (f"?{shown}" if inline else ""), version, token_id, expires)
    return f"version={version}&token={token_id}&expires={expires}{shown}&signature={signature}"


def verify(key: bytes, path: str, text: str, now: float) -> str:
    """Return the id of the token that created the link for this path; `now` is in seconds since the epoch.

    Raises Unauthorized if the form, the path, any bit or the time is wrong, with the same message for each.
    """
    match = _QUERY.fullmatch(text)
    if match is None:
        raise _refusal("link-malformed")
    version, token_id, expires, inline, signature = match[1], match[2], int(match[3]), match[4], match[5]
    path = f"{path}?{inline}" if inline else path
    # Compared as text: decoding would drop two bits of the last character, and these have to match too.
    if not hmac.compare_digest(signature, sign_link(key, path, version, token_id, expires)):
        raise _refusal("link-signature")
    if now * 1000 >= expires:
        raise _refusal("link-expired", token_id, _id_of(text))
    return token_id


class Link(NamedTuple):
    """A link as it is issued."""

    target: str
    """Path and query, relative to the service's public URL."""
    expires: int
    """Milliseconds since the epoch."""

    @property
    def id(self) -> str:
        """The id, by which it can be revoked."""
        return _id_of(self.target)


class SignedLinks:
    """Creates and authenticates links. Belongs to the event loop."""

    def __init__(
        self,
        key: SigningKey,
        sessions: Sessions,
        authenticator: TokenAuthenticator,
        *,
        revoked: Container[str] = (),
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Take the live tokens from `authenticator`; `revoked` are ids of links.

        `sessions` authenticates requests without a link.
        """
        self._key = key
        self._sessions = sessions
        self._authenticator = authenticator
        self._revoked = revoked
        self._clock = clock

    def create(self, path: str, version: str, token: Token, seconds: int, *, inline: bool = False) -> Link:
        """Create a link to a version of what is at `path`, valid for `seconds` but no longer than the token.

        The `expires` of the link is the time that applies.
        """
        expires = int((self._clock() + seconds) * 1000)
        if token.expires is not None:
            expires = min(expires, int(token.expires * 1000))
        return Link(
            f"{path}?{query(self._key.value, path, version, token.id, expires, inline=inline)}", expires
        )

    def authenticate(self, request: web.Request) -> Token:
        """Return the live token of a request: in its Authorization field, else of its link or cookie.

        Raises Unauthorized if the token or link is not valid, NoCredentials if the request has neither.
        """
        path, _, text = request.raw_path.partition("?")
        if hdrs.AUTHORIZATION in request.headers or not text or VERSION_QUERY.fullmatch(text):
            return self._sessions.authenticate(request)
        # In absolute form, the path follows the authority (RFC 9112, section 3.2.2).
        path = _AUTHORITY.sub("", path, count=1) if not path.startswith("/") else path
        token_id = verify(self._key.value, path, text, self._clock())
        link_id = _id_of(text)
        if link_id in self._revoked:
            raise _refusal("link-revoked", token_id, link_id)
        token = self._authenticator.get_live(token_id)
        if token is None:
            raise _refusal(self._authenticator.rejection_reason(token_id), token_id, link_id)
        request[LINK] = link_id
        request[INLINE] = _INLINE in text
        return token

    def authenticate_with_query(self, request: web.Request) -> Token:
        """Like `authenticate`, on a route with other query parameters: a link has at least one of its own."""
        if _IS_LINK.search(request.raw_path.partition("?")[2]):
            return self.authenticate(request)
        return self._sessions.authenticate(request)


def _id_of(text: str) -> str:
    """Return the id of a link from its query or target, which ends in the signature."""
    return link_id_of(text[-SIGNATURE_LENGTH:])


def _refusal(reason: str, token_id: str | None = None, link_id: str | None = None) -> Unauthorized:
    return Unauthorized("The link is invalid, expired or revoked.", reason, token_id, link_id)
