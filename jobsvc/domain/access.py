"""Decide what a token may see: the only module that decides access rights.

A token has an owner and scopes; a job has an owner. No I/O, no clock: time is passed in.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from jobsvc.domain.errors import InsufficientScope, JobNotFound

JOBS_READ: Final = "jobs:read"
OUTPUTS_READ: Final = "outputs:read"
ADMIN: Final = "admin"
SCOPES: Final = (JOBS_READ, OUTPUTS_READ, ADMIN)


@dataclass(frozen=True, slots=True)
class Token:
    """A token as it is stored: with a digest of the secret, which only its holder has."""

    id: str
    owner: str
    scopes: frozenset[str]
    digest: bytes = field(repr=False)
    """SHA-256 of the secret's ASCII bytes, 32 bytes; like the secret, it must not be logged."""
    created: float
    """Seconds since the epoch, as `expires` and `revoked` are."""
    expires: float | None = None
    revoked: float | None = None
    label: str | None = None
    """A name for people; it grants nothing."""

    def alive(self, now: float) -> bool:
        """Return whether the token is valid at `now` (seconds since the epoch)."""
        return self.revoked is None and (self.expires is None or now < self.expires)

    def state(self, now: float) -> str:
        """Return "live", "expired" or "revoked"."""
        return "live" if self.alive(now) else "expired" if self.revoked is None else "revoked"


def require(token: Token, scope: str) -> None:
    """Raise InsufficientScope unless the token has the scope; `admin` includes all scopes."""
    if not has_scope(token, scope):
        raise InsufficientScope(scope)


def has_scope(token: Token, scope: str) -> bool:
    """Return whether the token has the scope; `admin` includes all scopes."""
    return scope in token.scopes or ADMIN in token.scopes


def is_admin(token: Token) -> bool:
    """Return whether the token sees the jobs of all owners, and the owners' names."""
    return ADMIN in token.scopes


def still_permits(current: Token, before: Token, scope: str) -> bool:
    """Return whether a changed token still has the scope and sees all jobs that it saw before."""
    return has_scope(current, scope) and visible_owner(current) in {None, visible_owner(before)}


def can_see(token: Token, owner: str) -> bool:
    """Return whether the token may see jobs of this owner or know that they exist."""
    return token.owner == owner or ADMIN in token.scopes


def visible_owner(token: Token) -> str | None:
    """Return the owner whose jobs the token may see; None for all owners."""
    return None if ADMIN in token.scopes else token.owner


def require_visible(token: Token, owner: str) -> None:
    """Raise JobNotFound unless the token sees the owner's jobs: other jobs are reported as unknown."""
    if not can_see(token, owner):
        raise JobNotFound
