"""Find out whether Redis can be used, for `serve --check-config`. Blocking."""

from __future__ import annotations

from typing import Final

from jobsvc.shared_state.redis_url import BadOptions

TIMEOUT_S: Final = 2.0


def problem(url: str) -> str | None:
    """Return why Redis cannot be used now; None if it can. The text contains no password.

    Raises BadOptions.
    """
    from redis import Redis  # noqa: PLC0415 - takes 0.1 s, and only services with --shared-state need it
    from redis.exceptions import RedisError  # noqa: PLC0415 - likewise

    try:
        client = Redis.from_url(url, socket_connect_timeout=TIMEOUT_S, socket_timeout=TIMEOUT_S)
        client.connection_pool.make_connection()
    except (TypeError, ValueError) as exc:
        raise BadOptions(exc) from exc
    try:
        with client:
            client.ping()
    except (RedisError, OSError) as exc:
        return str(exc) or type(exc).__name__
    return None
