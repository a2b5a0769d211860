"""End long-lived requests that their token no longer permits: streams, long polls and downloads.

The token file can change at any time: a token is revoked, loses a scope, or gets another owner. A token can
also expire, as a browser's session can, and a download link can be revoked by itself. Long-lived requests are
therefore checked repeatedly against the current state of their token, link and session.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Container, Iterator
from contextlib import contextmanager
from typing import Final

from aiohttp import web

from jobsvc.domain.access import Token, require, still_permits
from jobsvc.domain.errors import Unauthorized
from jobsvc.web.auth.bearer import TokenAuthenticator
from jobsvc.web.background_task import background_task

CHECK_INTERVAL_S: Final = 0.5
"""Time between two checks of all permits; the token file itself is read every half second."""


class PermitLost(Exception):
    """The token no longer permits the request."""


class Permit:
    """The right of one request to continue."""

    __slots__ = ("_authenticator", "_expires", "_scope", "_token", "link", "on_lost")

    def __init__(
        self,
        authenticator: TokenAuthenticator,
        token: Token,
        scope: str,
        on_lost: Callable[[], object],
        link: str | None = None,
        *,
        expires: float | None = None,
    ) -> None:
        self._authenticator = authenticator
        self._token = token
        self._scope = scope
        self._expires = expires
        self.link = link
        """The id of the link that authenticated the request, if one did."""
        self.on_lost = on_lost

    def valid(self) -> bool:
        """Return whether the token, and the session if there is one, still permit the request."""
        if self._session_ended():
            return False
        token = self._authenticator.current(self._token)
        return token is self._token or (token is not None and still_permits(token, self._token, self._scope))

    def current_token(self) -> Token:
        """Return the current state of the token.

        Raises Unauthorized if it is no longer valid or the session has ended, InsufficientScope if it has
        lost the scope.
        """
        if self._session_ended():
            raise Unauthorized("The session has expired. Sign in again.", "session", self._token.id)
        token = self._authenticator.current(self._token)
        if token is None:
            raise Unauthorized(
                "The token is unknown, expired or revoked.",
                self._authenticator.rejection_reason(self._token.id),
                self._token.id,
            )
        require(token, self._scope)
        return token

    def _session_ended(self) -> bool:
        return self._expires is not None and time.time() >= self._expires


class Permits:
    """All permits in use. Belongs to the event loop."""

    def __init__(self, authenticator: TokenAuthenticator, revoked_links: Container[str] = ()) -> None:
        """`revoked_links` are the ids of revoked links."""
        self._authenticator = authenticator
        self._revoked_links = revoked_links
        self._held: set[Permit] = set()

    @contextmanager
    def hold(
        self,
        token: Token,
        scope: str,
        on_lost: Callable[[], object],
        link: str | None = None,
        *,
        expires: float | None = None,
    ) -> Iterator[Permit]:
        """Hold a permit during the block; call `on_lost` once if the permit is lost before its end.

        `link` is the id of the link that authenticated the request; `expires` is when the session ends that
        did, in seconds since the epoch.
        """
        permit = Permit(self._authenticator, token, scope, on_lost, link, expires=expires)
        self._held.add(permit)
        try:
            yield permit
        finally:
            self._held.discard(permit)

    async def cleanup_ctx(self, _app: web.Application) -> AsyncIterator[None]:
        """Check all permits until the application ends: a cleanup_ctx."""
        async with background_task(self._run(), "jobsvc-permits"):
            yield

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(CHECK_INTERVAL_S)
            for permit in [each for each in self._held if not self._is_valid(each)]:
                self._held.discard(permit)
                permit.on_lost()

    def _is_valid(self, permit: Permit) -> bool:
        return permit.valid() and permit.link not in self._revoked_links
