"""The client for asyncio, over aiohttp; the same methods as Client."""

from __future__ import annotations


class AsyncClient:
    """A connection to one service with one token."""
