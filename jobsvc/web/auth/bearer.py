"""Authenticate requests by bearer token, with the live tokens in memory, reloaded when their file changes.

If the file cannot be used, that is reported and the last good tokens remain valid. If the file is missing,
every token counts as revoked: to keep the last good ones could accept a revoked token.
No secret is kept, and none appears in a message.
"""

from __future__ import annotations

import re
import time
from bisect import bisect_right
from collections.abc import Callable
from functools import partial
from hmac import compare_digest
from pathlib import Path
from typing import Final

import structlog
from aiohttp import hdrs, web
from multidict import MultiMapping

from jobsvc.domain.access import Token
from jobsvc.domain.errors import Unauthorized
from jobsvc.storage.executor import StorageExecutor
from jobsvc.storage.state.token_file import TokenFileState, digest_of, load_if_changed
from jobsvc.web.auth.reloaded_file import ErrorReporter, ReloadedFile

TOKEN: Final = web.RequestKey("jobsvc.token", Token)
"""On a request: the token that authenticated it."""

EXPIRING_SOON_S: Final = 14 * 86_400.0
"""Tokens that expire within this time are counted: the operator can renew them before clients fail."""

MAX_CREDENTIALS_LENGTH: Final = 512
"""The longest Authorization field that is parsed, in characters; those with jobsvc's tokens have 55."""

log = structlog.get_logger("jobsvc.web")

# RFC 6750, section 2.1; the scheme is case-insensitive (RFC 9110, section 11.1).
_BEARER: Final = re.compile(r"(?i:bearer) +([A-Za-z0-9._~+/-]+=*)", re.ASCII)
_NO_TOKEN: Final = Token(id="", owner="", scopes=frozenset(), digest=bytes(32), created=0, revoked=0)


class NoCredentials(Unauthorized):
    """The request has no credentials, so it does not count as an attempt to guess a token."""


class TokenAuthenticator:
    """Authenticates tokens. Belongs to the event loop; only `file` reads the token file."""

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
        """`path` is the token file; `on_bad_file` is called if it cannot be used (see ReloadedFile).

        `shared`: whether the file is in a secrets directory (private_file.py). `on_bad_labels` is called if
        the labels of tokens cannot be used.
        """
        self._path = path
        self._shared = shared
        self._clock = clock
        self.file: Final = ReloadedFile[TokenFileState](
            "tokens",
            disk,
            load=partial(load_if_changed, path, shared=shared),
            apply=self._apply,
            on_error=on_bad_file,
        )
        self._label_errors = ErrorReporter(on_bad_labels)
        self._loaded: tuple[Token, ...] | None = None
        """The tokens as they are in the file; None before it was read."""
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

    def _rejection_reason(self, token: Token, secret: str) -> tuple[str, str | None]:
        """Return why a token is refused, and its id if it has one; for the log."""
        if token is _NO_TOKEN:
            return ("unknown" if secret else "malformed"), None
        return token.state(self._clock()), token.id

    def _apply(self, state: TokenFileState) -> None:
        self._label_errors.report(state.label_fault)
        before, self._loaded = self._loaded, state.tokens
        if state.tokens == before:
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
