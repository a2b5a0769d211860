"""Create the client of Redis.

This module is only imported with `--shared-state`: redis-py takes 0.1 s to import, and 4 MB.
"""

from __future__ import annotations

from typing import Any

from limits.aio.storage import RedisStorage
from redis.asyncio import Redis
from redis.asyncio.connection import parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ResponseError

__all__ = ["ResponseError", "client_of", "create_storage", "password_in"]


def create_storage(url: str, prefix: str) -> RedisStorage:
    """Create the storage of `limits`, which connects when it is first used.

    Raises TypeError or ValueError if redis-py does not accept an option in the URL.
    """
    # No timeouts of redis-py, which include the time that the event loop is busy. The information about the
    # driver would be read from its files for each connection.
    options: dict[str, Any] = {"retry": Retry(NoBackoff(), 0), "driver_info": None}
    storage = RedisStorage(f"async+{url}", implementation="redispy", key_prefix=prefix, **options)
    client_of(storage).connection_pool.make_connection()  # type: ignore[no-untyped-call]
    return storage


def client_of(storage: RedisStorage) -> Redis:
    """Return the client that a storage uses."""
    client: Redis = storage.bridge.get_connection()  # type: ignore[attr-defined]
    return client


def password_in(url: str) -> str:
    """Return the password in a URL; empty if there is none."""
    return str(parse_url(url).get("password", ""))
