"""Names of users."""

from __future__ import annotations

import pwd


def user_name(uid: int) -> str:
    """Return a user's name; the number where the system knows none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
