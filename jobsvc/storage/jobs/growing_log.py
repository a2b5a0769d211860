"""A log while it grows: how it is known again, and what came since, in bounded reads.

That a file was truncated and written anew nothing tells by itself: its inode stays, and its size may be
larger than ever by the time that anyone looks. So a place in it goes with a digest of the bytes before it.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Final, NamedTuple, Self

from jobsvc.storage.files.pread import FINGERPRINT_BYTES, digest, fingerprint, read_fully
from jobsvc.storage.files.safe_open import OpenFile
from jobsvc.storage.jobs.log_tail import lines_start

CHUNK_BYTES: Final = 64 * 1024
"""The most that is read at once, in bytes: a longer line comes in several pieces."""

INITIAL_TAIL_BYTES: Final = 1 << 20
"""The most bytes that last lines are looked for in: of longer ones there are fewer, and of one its end."""

_FOLLOWS: Final = 0x80
_LEADS: Final = 0xC0
"""Bytes of UTF-8 from here on begin a character of several, those between follow in one (RFC 3629)."""
_MARK: Final = re.compile(r"(0|[1-9a-f][0-9a-f]{0,15})-([0-9a-f]{16}):(0|[1-9][0-9]{0,17})", re.ASCII)


class LogPosition(NamedTuple):
    """A place in one generation of a log: whoever has the mark has all that is before it."""

    inode: int
    digest: bytes
    """Of the log's first bytes and of the last ones before the place."""
    offset: int

    def __str__(self) -> str:
        return f"{self.inode:x}-{self.digest.hex()}:{self.offset}"

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Read what str() wrote; None for anything else."""
        match = _MARK.fullmatch(text)
        return None if match is None else cls(int(match[1], 16), bytes.fromhex(match[2]), int(match[3]))

    @classmethod
    def at(cls, log: OpenFile, offset: int) -> Self:
        """Mark a place in an open log; OSError."""
        return cls(log.version.inode, fingerprint(log.fd, offset), offset)


class LogReset(StrEnum):
    """Why a log does not go on where it was left."""

    TRUNCATED = "truncated"
    """It was cut in its place, and perhaps written anew."""
    REPLACED = "replaced"
    """It is another file by now."""


class LogChunk(NamedTuple):
    """What follows a mark."""

    data: bytes
    """Whole lines, or a piece of a line that is too long or that nobody will end."""
    position: LogPosition
    """The place behind the data."""
    reset: LogReset | None
    """There where the data are not what follows the mark, but the first of a new generation."""
    has_more: bool
    """Whether there may be more to be read at once."""


def tail_offset(log: OpenFile, lines: int | None) -> int:
    """Say where the last `lines` lines of an open log begin, in its last TAIL bytes; None is all. OSError."""
    return 0 if lines is None else lines_start(log.fd, log.version.size, lines, INITIAL_TAIL_BYTES)


def read_from(log: OpenFile, mark: LogPosition | None, *, ended: bool, limit: int = CHUNK_BYTES) -> LogChunk:
    """Read what follows a mark (None: from the beginning) in the open log; OSError.

    `ended`: nobody writes any more, so that a last line without its end is given out too.
    """
    broken = None
    if mark is not None and mark.inode != log.version.inode:
        mark, broken = None, LogReset.REPLACED
    offset = 0 if mark is None else mark.offset
    before = min(offset, FINGERPRINT_BYTES)
    window = read_fully(log.fd, offset - before, before + limit)
    # Of a small file both come out of one read: it may grow between two.
    head = (
        window[:FINGERPRINT_BYTES]
        if offset <= FINGERPRINT_BYTES
        else read_fully(log.fd, 0, FINGERPRINT_BYTES)
    )
    if mark is not None and (len(window) < before or digest(head[:before], window[:before]) != mark.digest):
        return read_from(log, None, ended=ended, limit=limit)._replace(reset=LogReset.TRUNCATED)
    data = window[before:]
    full = len(data) >= limit
    data = data[: complete_length(data, ended=ended, full=full)]
    stop, end = offset + len(data), before + len(data)
    behind = digest(head[:stop], window[max(end - FINGERPRINT_BYTES, 0) : end])
    return LogChunk(data, LogPosition(log.version.inode, behind, stop), broken, full)


def complete_length(data: bytes, *, ended: bool, full: bool) -> int:
    """Say how many of these bytes, the next of a log, are to be given out now: whole lines, if there is one.

    A carriage return ends a line as well, but the very last byte may be the first half of a longer end.
    `full`: there is more than these, and a line without end among them is given out in pieces.
    """
    lines = max(data.rfind(b"\n"), data.rfind(b"\r", 0, -1)) + 1
    if lines:
        return lines
    if full:
        return _between_characters(data)
    return len(data) if ended else 0


def _between_characters(data: bytes) -> int:
    """Say where to cut a line that goes on: not within a character of UTF-8, nor within CRLF."""
    length = len(data)
    if data.endswith(b"\r"):
        return length - 1
    for back in range(1, min(length, 4)):
        byte = data[-back]
        if byte >= _LEADS:
            takes = 2 + (byte >= 0xE0) + (byte >= 0xF0)  # noqa: PLR2004 - RFC 3629, section 3
            return length - back if takes > back else length
        if byte < _FOLLOWS:
            break
    return length
