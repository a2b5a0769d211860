"""Read parts of a file with pread(2), and compute fingerprints of a file's beginning."""

from __future__ import annotations

import os
from hashlib import blake2b
from typing import Final

FINGERPRINT_BYTES: Final = 256
"""Bytes at each end of the range that a fingerprint covers."""


def read_fully(fd: int, start: int, count: int) -> bytes:
    """Read `count` bytes from offset `start`; fewer only at the end of the file. Raises OSError."""
    pieces = []
    while count > 0 and (piece := os.pread(fd, count, start)):
        pieces.append(piece)
        start += len(piece)
        count -= len(piece)
    return b"".join(pieces)


def fingerprint(fd: int, offset: int) -> bytes:
    """Return a digest of the range before `offset`, computed from its first and last 256 bytes.

    Raises OSError.
    """
    length = min(offset, FINGERPRINT_BYTES)
    return digest(read_fully(fd, 0, length), read_fully(fd, offset - length, length))


def digest(first: bytes, last: bytes) -> bytes:
    """Return an eight-byte digest of the first and last bytes of a range."""
    return blake2b(first + last, digest_size=8).digest()
