"""Encode where a page of the list ended as a cursor: opaque to clients, but not secret.

A cursor holds a position in the order of jobs: createdAt in microseconds and the id of the last job that was
examined for the page, a job that the token can see. It grants nothing: a forged cursor returns a page of the
client's own jobs from that position on. No state is kept, so a cursor stays valid after restarts, and after
its job is deleted.
"""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from struct import Struct, error
from typing import Final
from zlib import crc32

from jobsvc.index.queries.listing import After

_CREATED: Final = Struct(">q")
_CHECKSUM: Final = Struct(">I")
_FORMAT: Final = 1
"""Start value of the checksum, so that a cursor in another format is rejected."""


def format_cursor(after: After) -> str:
    """Encode the position at which a page ended."""
    position = _CREATED.pack(after[0]) + after[1].encode("ascii")
    return urlsafe_b64encode(_CHECKSUM.pack(crc32(position, _FORMAT)) + position).rstrip(b"=").decode("ascii")


def parse_cursor(cursor: str) -> After | None:
    """Decode a cursor; None if it is invalid or incomplete. The checksum only detects accidental changes."""
    try:
        position = urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))[_CHECKSUM.size :]
        after = _CREATED.unpack_from(position)[0], position[_CREATED.size :].decode("ascii")
    except (ValueError, error):
        return None
    return after if format_cursor(after) == cursor else None
