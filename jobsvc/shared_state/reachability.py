"""Find out whether Redis can be used, for `serve --check-config`. Blocking."""

from __future__ import annotations

from typing import Final

TIMEOUT_S: Final = 2.0


def problem(url: str) -> str | None:
    """Return why Redis cannot be used now; None if it can. The text contains no password."""
    from redis import Redis  # noqa: PLC0415 - takes 0.1 s, and only services with --shared-state need it
    from redis.exceptions import RedisError  # noqa: PLC0415 - likewise

    try:
        with Redis.from_url(url, socket_connect_timeout=TIMEOUT_S, socket_timeout=TIMEOUT_S) as client:
            client.ping()
    except (RedisError, OSError, ValueError) as exc:
        return str(exc) or type(exc).__name__
    return None
