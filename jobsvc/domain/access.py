"""Who may see what: the one place where a right is decided.

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
    """A right to read, as it is kept: the secret itself is known to its holder alone."""

    id: str
    owner: str
    scopes: frozenset[str]
    digest: bytes = field(repr=False)
    """SHA-256 of the secret's ASCII bytes, 32 bytes; like the secret, it belongs in no log."""
    created: float
    """Seconds since the epoch, as are the next two."""
    expires: float | None = None
    revoked: float | None = None
    label: str | None = None
    """What people call it; it decides nothing."""

    def alive(self, now: float) -> bool:
        """Whether the token is good at `now` (seconds since the epoch)."""
        return self.revoked is None and (self.expires is None or now < self.expires)

    def state(self, now: float) -> str:
        """Return "live", "expired" or "revoked"."""
        return "live" if self.alive(now) else "expired" if self.revoked is None else "revoked"


def require(token: Token, scope: str) -> None:
    """Raise InsufficientScope unless the token has the scope; `admin` has them all."""
    if scope not in token.scopes and ADMIN not in token.scopes:
        raise InsufficientScope(scope)


def has_scope(token: Token, scope: str) -> bool:
    """Whether the token has the scope; `admin` has them all."""
    return scope in token.scopes or ADMIN in token.scopes


def is_admin(token: Token) -> bool:
    """Whether the token sees every owner's jobs, and whose they are."""
    return ADMIN in token.scopes


def still_permits(now: Token, before: Token, scope: str) -> bool:
    """Whether a token that was changed still has the scope and sees all jobs that it saw before."""
    return has_scope(now, scope) and visible_owner(now) in {None, visible_owner(before)}


def can_see(token: Token, owner: str) -> bool:
    """Whether the token's holder may know of a job of this owner at all."""
    return token.owner == owner or ADMIN in token.scopes


def visible_owner(token: Token) -> str | None:
    """Name the owner whose jobs the token's holder may know of; None where he may of everyone's."""
    return None if ADMIN in token.scopes else token.owner


def require_visible(token: Token, owner: str) -> None:
    """Raise JobNotFound unless the token sees the owner's jobs: another owner's job is an unknown one."""
    if not can_see(token, owner):
        raise JobNotFound
