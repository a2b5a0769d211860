"""Authenticate requests by bearer token, with the live tokens in memory, reloaded when their file changes.

The tokens lag behind the token file by at most half a second plus the time that storage takes to respond.
If the file cannot be used, that is reported and the last good tokens remain valid. If the file is missing,
every token counts as revoked: to keep the last good ones could accept a revoked token.
No secret is kept, and none appears in a message.
"""

from __future__ import annotations

import asyncio
import re
import time
from bisect import bisect_right
from collections.abc import AsyncIterator, Callable
from hmac import compare_digest
from math import inf
from pathlib import Path
from typing import Final

import structlog
from aiohttp import hdrs, web
from multidict import MultiMapping

from jobsvc.domain.access import Token
from jobsvc.domain.errors import Unauthorized
from jobsvc.storage.executor import StorageExecutor
from jobsvc.storage.files.descriptor_reserve import DescriptorReserve
from jobsvc.storage.state.token_file import TokenFileState, digest_of, load_if_changed
from jobsvc.web.background_task import background_task

TOKEN: Final = web.RequestKey("jobsvc.token", Token)
"""On a request: the token that authenticated it."""

RELOAD_INTERVAL_S: Final = 0.5
"""Seconds between two checks of the token file."""

EXPIRING_SOON_S: Final = 14 * 86_400.0
"""Tokens that expire within this time are counted: the operator can renew them before clients fail."""

ERROR_REPEAT_S: Final = 60.0
"""Seconds after which an error that lasts is reported again."""

MAX_CREDENTIALS_LENGTH: Final = 512
"""The longest Authorization field that is parsed, in characters; those with jobsvc's tokens have 55."""

log = structlog.get_logger("jobsvc.web")

# RFC 6750, section 2.1; the scheme is case-insensitive (RFC 9110, section 11.1).
_BEARER: Final = re.compile(r"(?i:bearer) +([A-Za-z0-9._~+/-]+=*)", re.ASCII)
_NO_TOKEN: Final = Token(id="", owner="", scopes=frozenset(), digest=bytes(32), created=0, revoked=0)


class NoCredentials(Unauthorized):
    """The request has no credentials, so it does not count as an attempt to guess a token."""


class ErrorReporter:
    """Calls a function for each error that differs from the one before, and once a minute while it lasts.

    Alerts are about the increase of a counter: they last as long as the error.
    """

    def __init__(self, on_error: Callable[[Exception], None]) -> None:
        self._on_error = on_error
        self._reported: str | None = None
        self._reported_at = -inf

    def report(self, exc: Exception | None) -> None:
        """Report the current error; None if there is none."""
        message, now = None if exc is None else f"{type(exc).__name__}: {exc}", time.monotonic()
        is_due = message != self._reported or now - self._reported_at >= ERROR_REPEAT_S
        if exc is not None and is_due:
            self._reported_at = now
            self._on_error(exc)
        self._reported = message


class TokenAuthenticator:
    """Authenticates tokens. Belongs to the event loop; only `cleanup_ctx` and `refresh` read the file."""

    def __init__(
        self,
        path: Path,
        disk: StorageExecutor,
        *,
        shared: bool = False,
        clock: Callable[[], float] = time.time,
        on_bad_file: Callable[[Exception], None],
        on_bad_labels: Callable[[Exception], None],
    ) -> None:
        """`path` is the token file; `on_bad_file` is called if it cannot be used (see ErrorReporter).

        `shared`: whether the file is in a secrets directory (private_file.py). `on_bad_labels` is called if
        the labels of tokens cannot be used.
        """
        self._path = path
        self._disk = disk
        self._shared = shared
        self._reserve = DescriptorReserve()
        self._clock = clock
        self._file_errors = ErrorReporter(on_bad_file)
        self._label_errors = ErrorReporter(on_bad_labels)
        self._state: TokenFileState | None = None
        self._tokens: dict[bytes, Token] = {}
        self._by_id: dict[str, Token] = {}
        self._expiries: list[float] = []
        self.used: dict[str, float] = {}
        """When each token was last used, by id, in seconds since the epoch; emptied when saved."""

    def authenticate(self, headers: MultiMapping[str]) -> Token:
        """Return the live token that a request with these header fields presents.

        Raises Unauthorized if it is malformed, unknown, expired or revoked, with the same message for each;
        NoCredentials if there is none.
        """
        secret = _read_bearer(headers)
        digest = digest_of(secret)
        token = self._tokens.get(digest, _NO_TOKEN)
        now = self._clock()
        if not (compare_digest(token.digest, digest) and token.alive(now)):
            raise Unauthorized(
                "The token is unknown, expired or revoked.", *self._rejection_reason(token, secret)
            )
        self.used[token.id] = now
        return token

    def get_live(self, token_id: str) -> Token | None:
        """Return the token with this id if it is live, else None.

        The caller must have verified that the request was authorized by this token.
        """
        token, now = self._by_id.get(token_id, _NO_TOKEN), self._clock()
        if not token.alive(now):
            return None
        self.used[token_id] = now
        return token

    def rejection_reason(self, token_id: str) -> str:
        """Return why the token with this id is not valid: "unknown", "expired" or "revoked"; for the log."""
        token = self._by_id.get(token_id)
        return "unknown" if token is None else token.state(self._clock())

    def ids(self) -> frozenset[str]:
        """Return the ids of all tokens in the file, including expired and revoked ones."""
        return frozenset(self._by_id)

    def expiring_soon(self) -> int:
        """Return the number of live tokens that expire within EXPIRING_SOON_S."""
        now = self._clock()
        return bisect_right(self._expiries, now + EXPIRING_SOON_S) - bisect_right(self._expiries, now)

    def current(self, token: Token) -> Token | None:
        """Return the current state of a token that was valid before; None if it is no longer valid."""
        current = self._tokens.get(token.digest, _NO_TOKEN)
        return current if current.alive(self._clock()) else None

    async def cleanup_ctx(self, _app: web.Application) -> AsyncIterator[None]:
        """Load the tokens and reload them on changes until the application ends: a cleanup_ctx.

        Raises BadTokenFile or StorageUnavailable if the first load fails: the service does not start.
        """
        self._apply(await self._reload_if_changed())
        async with background_task(self._run(), "jobsvc-tokens"):
            yield
            self._disk.close_later(self._reserve)

    def _rejection_reason(self, token: Token, secret: str) -> tuple[str, str | None]:
        """Return why a token is refused, and its id if it has one; for the log."""
        if token is _NO_TOKEN:
            return ("unknown" if secret else "malformed"), None
        return token.state(self._clock()), token.id

    async def refresh(self) -> None:
        """Reload the file if it changed; errors are reported and never raised."""
        try:
            state = await self._reload_if_changed()
        except Exception as exc:  # noqa: BLE001 - a watch ended by an error would revoke nothing any more
            self._file_errors.report(exc)
        else:
            self._file_errors.report(None)
            self._apply(state)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(RELOAD_INTERVAL_S)
            await self.refresh()

    async def _reload_if_changed(self) -> TokenFileState:
        return await self._disk.run_control("tokens", self._read)

    def _read(self) -> TokenFileState:
        """Read the file, in a thread; this works even if the process has no free descriptors."""
        self._reserve.fill()
        return load_if_changed(self._path, self._state, self._reserve, shared=self._shared)

    def _apply(self, state: TokenFileState) -> None:
        if state is self._state:
            return
        self._label_errors.report(state.label_fault)
        before, self._state = self._state, state
        if before is not None and before.tokens == state.tokens:
            return
        self._tokens = {token.digest: token for token in state.tokens}
        self._by_id = {token.id: token for token in state.tokens}
        live = (token.expires for token in state.tokens if token.revoked is None)
        self._expiries = sorted(expires for expires in live if expires is not None)
        if before is not None:
            self.log_count()

    def log_count(self) -> None:
        """Log how many tokens are live, with a warning if none is."""
        now = self._clock()
        live = sum(token.alive(now) for token in self._tokens.values())
        log.info("tokens", file=str(self._path), live=live, ended=len(self._tokens) - live)
        if not live:
            option = "--secrets-dir" if self._shared else "--state-dir"
            log.warning(
                "no-live-token",
                file=str(self._path),
                effect="every request is refused with 401",
                remedy=f"jobsvc token create --owner OWNER {option} {self._path.parent}",
            )


AUTHENTICATOR: Final = web.AppKey("jobsvc.authenticator", TokenAuthenticator)
"""On the application: its token authenticator."""


def _read_bearer(headers: MultiMapping[str]) -> str:
    """Return the secret of the only Authorization field.

    Returns "", which no token has, if the field is malformed or repeated. Raises NoCredentials if there is no
    such field.
    """
    fields = headers.getall(hdrs.AUTHORIZATION, ())
    if (
        len(fields) == 1
        and len(fields[0]) <= MAX_CREDENTIALS_LENGTH
        and (match := _BEARER.fullmatch(fields[0]))
    ):
        return match[1]
    if not fields:
        raise NoCredentials("The request has no bearer token.", "missing")
    return ""
