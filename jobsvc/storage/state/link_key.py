"""Load or create the key that signs download links, link.key in the state directory: 32 random bytes in hex.

Mode 0600. The first start creates it; of several processes that start at once, one does. It is kept, so that
links survive restarts. Removing it invalidates all links at the next start.

In a secrets directory the service only reads it, and `jobsvc secrets create` creates it.
"""

from __future__ import annotations

import re
import secrets
from pathlib import Path
from typing import Final

from jobsvc.storage.state import private_file

KEY_BYTES: Final = 32
"""Size of the key, in bytes: the output size of SHA-256 (RFC 2104, section 3)."""

_FORM: Final = re.compile(rb"[0-9a-f]{64}\n?")


class BadLinkKey(Exception):
    """The key cannot be used; the message names the file and the problem, and quotes no content."""


def load_or_create(path: Path) -> bytes:
    """Return the key; create it, and the state directory, if missing. Raises BadLinkKey, never OSError."""
    with private_file.errors_as(BadLinkKey, path):
        return _load(path) or _create(path)


def load_shared(path: Path) -> bytes:
    """Return the key in a secrets directory. Raises BadLinkKey, also if it is missing, and never OSError."""
    with private_file.errors_as(BadLinkKey, path):
        key = _load(path, shared=True)
        if key is None:
            raise ValueError(f"missing; run `jobsvc secrets create --secrets-dir {path.parent}` to create it")
        return key


def create_shared(path: Path) -> bool:
    """Create the key in a secrets directory unless there is one; return whether it was created.

    Raises BadLinkKey if there is one that cannot be used, and OSError.
    """
    with private_file.lock_file(path):
        with private_file.errors_as(BadLinkKey, path):
            if _load(path, shared=True):
                return False
        _write(path, shared=True)
        return True


def check(path: Path) -> None:
    """Raise BadLinkKey if there is a key that cannot be used; does not create one."""
    with private_file.errors_as(BadLinkKey, path):
        _load(path)


def _load(path: Path, *, shared: bool = False) -> bytes | None:
    try:
        text = private_file.read_private(path, 2 * KEY_BYTES + 1, shared=shared)
    except FileNotFoundError:
        return None
    if _FORM.fullmatch(text) is None:
        raise ValueError(
            f"not {KEY_BYTES} bytes in hex; remove it to have a new key created, which invalidates all links"
        )
    return bytes.fromhex(text.decode())


def _create(path: Path) -> bytes:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with private_file.lock_file(path):
        if key := _load(path):  # created by another process during the wait for the lock
            return key
        return _write(path)


def _write(path: Path, *, shared: bool = False) -> bytes:
    key = secrets.token_bytes(KEY_BYTES)
    private_file.write_private(path, key.hex().encode() + b"\n", shared=shared)
    return key
