"""Exchange of digests between instances through a Redis stream: what one has computed, all know.

See https://redis.io/docs/latest/develop/data-types/streams/.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from jobsvc.shared_state.connection import SharedStateConnection

MAX_DIGESTS: Final = 100_000
"""Digests that the stream keeps, about; a new instance starts with these."""


class DigestExchange:
    """Publishes and receives digests. Belongs to the event loop."""

    def __init__(self, connection: SharedStateConnection) -> None:
        raise NotImplementedError

    def publish(self, key: str, entry: bytes) -> None:
        """Send a digest to all instances, without waiting; it is sent again after Redis was down."""
        raise NotImplementedError

    async def receive(self, on_digest: Callable[[str, bytes], object]) -> None:
        """Call `on_digest` for each digest of another instance, until cancelled."""
        raise NotImplementedError
