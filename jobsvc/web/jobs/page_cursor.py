"""Encode where a page of a list ended as a cursor: opaque to clients, but not secret.

The cursor of the list of jobs holds a position in the order of jobs: createdAt in microseconds and the id of
the last job that was examined for the page, a job that the token can see. It grants nothing: a forged cursor
returns a page of the client's own jobs from that position on. No state is kept, so a cursor stays valid after
restarts, and after its job is deleted.
"""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from struct import Struct, error
from typing import Final
from zlib import crc32

from jobsvc.index.queries.listing import After

_CREATED: Final = Struct(">q")
_CHECKSUM: Final = Struct(">I")
JOBS: Final = 1
FILES: Final = 2
"""Start values of the checksum, so that the cursor of another list is rejected."""


def encode(position: bytes, kind: int) -> str:
    """Encode a position in a list of this kind."""
    return urlsafe_b64encode(_CHECKSUM.pack(crc32(position, kind)) + position).rstrip(b"=").decode("ascii")


def decode(cursor: str, kind: int) -> bytes | None:
    """Decode a position; None if it is invalid or incomplete.

    The checksum only detects accidental changes.
    """
    try:
        position = urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))[_CHECKSUM.size :]
    except ValueError:
        return None
    return position if encode(position, kind) == cursor else None


def format_cursor(after: After) -> str:
    """Encode the position at which a page of jobs ended."""
    return encode(_CREATED.pack(after[0]) + after[1].encode("ascii"), JOBS)


def parse_cursor(cursor: str) -> After | None:
    """Decode the cursor of a page of jobs; None if it is invalid or incomplete."""
    position = decode(cursor, JOBS)
    try:
        return (
            None
            if position is None
            else (_CREATED.unpack_from(position)[0], position[_CREATED.size :].decode("ascii"))
        )
    except (ValueError, error):
        return None
