"""Look up user names."""

from __future__ import annotations

import pwd


def user_name(uid: int) -> str:
    """Return a user's name; the uid as text if the system has no name for it."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
