"""The key that signs download links and session cookies. Replicas that share it accept each other's."""

from __future__ import annotations

import hmac
import secrets
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

from aiohttp import web

from jobsvc.storage.executor import StorageExecutor
from jobsvc.storage.state.link_key import KEY_BYTES, load_or_create, load_shared


class SigningKey:
    """The key, read when the service starts. Belongs to the event loop."""

    def __init__(self, path: Path, disk: StorageExecutor, *, shared: bool = False) -> None:
        """`path` is the key file. `shared`: whether it is in a secrets directory, where it is not created."""
        self._load = partial(load_shared if shared else load_or_create, path)
        self._disk = disk
        self.value = secrets.token_bytes(KEY_BYTES)
        """Random until the file is loaded: no signature matches it."""

    async def cleanup_ctx(self, _app: web.Application) -> AsyncIterator[None]:
        """Load the key; create it unless it is shared: a cleanup_ctx.

        Raises BadLinkKey or StorageUnavailable if it cannot be used: the service does not start.
        """
        self.value = await self._disk.run_control("*links", self._load)
        yield


def sign(key: bytes, *parts: str) -> str:
    """Return HMAC-SHA256 (RFC 2104) over the parts, as 43 characters of base64url.

    The first part names what is signed. Each part is preceded by its length, so that different parts never
    have the same signed bytes.
    """
    signed = "".join(f"{len(part)}:{part}," for part in parts)
    digest = hmac.digest(key, signed.encode("utf-8", "surrogatepass"), "sha256")
    return urlsafe_b64encode(digest).rstrip(b"=").decode()
