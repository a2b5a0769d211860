"""Read parts of a file by pread(2), and the fingerprint of a part by its two ends."""

from __future__ import annotations

import os
from hashlib import blake2b
from typing import Final

FINGERPRINT_BYTES: Final = 256
"""Bytes at either end of a part of a file that it is known again by."""


def read_fully(fd: int, start: int, count: int) -> bytes:
    """Read `count` bytes from `start`; fewer only where the file ends before."""
    pieces = []
    while count > 0 and (piece := os.pread(fd, count, start)):
        pieces.append(piece)
        start += len(piece)
        count -= len(piece)
    return b"".join(pieces)


def fingerprint(fd: int, offset: int) -> bytes:
    """Digest what a file holds before `offset`, as far as its two ends go."""
    length = min(offset, FINGERPRINT_BYTES)
    return digest(read_fully(fd, 0, length), read_fully(fd, offset - length, length))


def digest(first: bytes, last: bytes) -> bytes:
    """Make eight bytes of the first and the last bytes of a part of a file."""
    return blake2b(first + last, digest_size=8).digest()
