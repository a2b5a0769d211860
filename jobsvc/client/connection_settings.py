"""Define how to reach a service."""

from __future__ import annotations

from typing import NamedTuple


class ConnectionSettings(NamedTuple):
    """How to reach a service, after arguments, environment and profile are merged."""

    base_url: str
    """`https://host[:port][/prefix]`, without a slash at the end and without `/api`."""
    token: str
    timeout: float = 30.0
    """Seconds without a byte until a connection counts as dead."""
    retries: int = 5
    """Attempts after the first one, before a request fails; counted anew after each byte of progress."""
    ca_file: str | None = None
    """PEM file of certificates to trust instead of the system's."""
