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

_PLACE: Final = Struct(">q")
_SUM: Final = Struct(">I")
_FORM: Final = 1
"""Start value of the checksum, so that a cursor in another format is rejected."""


def format_cursor(after: After) -> str:
    """Encode the position at which a page ended."""
    place = _PLACE.pack(after[0]) + after[1].encode("ascii")
    return urlsafe_b64encode(_SUM.pack(crc32(place, _FORM)) + place).rstrip(b"=").decode("ascii")


def parse_cursor(cursor: str) -> After | None:
    """Decode a cursor; None if it is invalid or incomplete. The checksum only detects accidental changes."""
    try:
        place = urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))[_SUM.size :]
        after = _PLACE.unpack_from(place)[0], place[_PLACE.size :].decode("ascii")
    except (ValueError, error):
        return None
    return after if format_cursor(after) == cursor else None
