"""Where a page of a listing ended, as a client hands it back: no business of the client's, and no secret.

It holds a place in the order of jobs, createdAt in microseconds and an id: those of the last job that was
looked at for the page, one that the token sees. It is a place and not a right: whoever makes one up gets a
page of his own jobs from there on. Nothing is kept of it: it outlives restarts, and the job that it names.
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
"""Begins the checksum, so that a cursor of another form than this is none."""


def format_cursor(after: After) -> str:
    """Write the place where a page ended."""
    place = _PLACE.pack(after[0]) + after[1].encode("ascii")
    return urlsafe_b64encode(_SUM.pack(crc32(place, _FORM)) + place).rstrip(b"=").decode("ascii")


def parse_cursor(cursor: str) -> After | None:
    """Read a cursor; None where it is none of ours, or not whole: the sum guards against slips, no more."""
    try:
        place = urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))[_SUM.size :]
        after = _PLACE.unpack_from(place)[0], place[_PLACE.size :].decode("ascii")
    except (ValueError, error):
        return None
    return after if format_cursor(after) == cursor else None
