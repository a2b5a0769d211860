"""Read a growing log from a position, in bounded reads, and detect truncation and replacement.

stat(2) does not show that a file was truncated and rewritten: the inode is the same, and the size may already
be larger than before. A position therefore contains a digest of the bytes before it.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Final, NamedTuple, Self

from jobsvc.storage.files.pread import FINGERPRINT_BYTES, digest, fingerprint, read_fully
from jobsvc.storage.files.safe_open import OpenFile
from jobsvc.storage.jobs.log_tail import lines_start

CHUNK_BYTES: Final = 64 * 1024
"""Maximum size of one chunk, in bytes: a longer line is split."""

INITIAL_TAIL_BYTES: Final = 1 << 20
"""Bytes at the end of a log that are searched for its last lines.

If the lines are longer, fewer are returned; of a single longer line, only its end.
"""

_CONTINUATION_BYTE: Final = 0x80
_START_BYTE: Final = 0xC0
"""In UTF-8, bytes from 0xC0 start a multi-byte character; 0x80 to 0xBF continue one (RFC 3629)."""
_POSITION: Final = re.compile(r"(0|[1-9a-f][0-9a-f]{0,15})-([0-9a-f]{16}):(0|[1-9][0-9]{0,17})", re.ASCII)


class LogPosition(NamedTuple):
    """A position in a log, tied to the content before it: a client at it has received all bytes before it."""

    inode: int
    digest: bytes
    """Digest of the log's first bytes and of the last bytes before the position."""
    offset: int

    def __str__(self) -> str:
        return f"{self.inode:x}-{self.digest.hex()}:{self.offset}"

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Parse the result of str(); None for any other text."""
        match = _POSITION.fullmatch(text)
        return None if match is None else cls(int(match[1], 16), bytes.fromhex(match[2]), int(match[3]))

    @classmethod
    def at(cls, log: OpenFile, offset: int) -> Self:
        """Return the position at `offset` of an open log; raises OSError."""
        return cls(log.version.inode, fingerprint(log.fd, offset), offset)


class LogReset(StrEnum):
    """Why reading cannot continue at a position."""

    TRUNCATED = "truncated"
    """The file was truncated in place, and perhaps rewritten."""
    REPLACED = "replaced"
    """The path leads to another file."""


class LogChunk(NamedTuple):
    """The data that follow a position."""

    data: bytes
    """Whole lines, or part of a line that is too long or has no end in an ended log."""
    position: LogPosition
    """The position after the data."""
    reset: LogReset | None
    """Set if the data do not follow the position, but are the beginning of a truncated or replaced log."""
    has_more: bool
    """Whether more data may be available immediately."""


def tail_offset(log: OpenFile, lines: int | None) -> int:
    """Return the offset of the last `lines` lines of an open log; 0 if `lines` is None.

    Only the last INITIAL_TAIL_BYTES are searched. Raises OSError.
    """
    return 0 if lines is None else lines_start(log.fd, log.version.size, lines, INITIAL_TAIL_BYTES)


def read_from(log: OpenFile, start: LogPosition | None, *, ended: bool, limit: int = CHUNK_BYTES) -> LogChunk:
    """Read the data that follow `start` (None: from the beginning) in an open log; raises OSError.

    `ended`: the log is not written any more, so a last line without a line end is returned too. `limit` is
    the maximum number of bytes.
    """
    reset = None
    if start is not None and start.inode != log.version.inode:
        start, reset = None, LogReset.REPLACED
    offset = 0 if start is None else start.offset
    before = min(offset, FINGERPRINT_BYTES)
    window = read_fully(log.fd, offset - before, before + limit)
    # For a small offset, both come from one read: the file may change between two reads.
    head = (
        window[:FINGERPRINT_BYTES]
        if offset <= FINGERPRINT_BYTES
        else read_fully(log.fd, 0, FINGERPRINT_BYTES)
    )
    if start is not None and (len(window) < before or digest(head[:before], window[:before]) != start.digest):
        return read_from(log, None, ended=ended, limit=limit)._replace(reset=LogReset.TRUNCATED)
    data = window[before:]
    full = len(data) >= limit
    data = data[: complete_length(data, ended=ended, full=full)]
    next_offset, end = offset + len(data), before + len(data)
    fingerprint_after = digest(head[:next_offset], window[max(end - FINGERPRINT_BYTES, 0) : end])
    return LogChunk(data, LogPosition(log.version.inode, fingerprint_after, next_offset), reset, full)


def complete_length(data: bytes, *, ended: bool, full: bool) -> int:
    """Return how many bytes of `data`, the next bytes of a log, to return now: all whole lines.

    A carriage return also ends a line, except as the last byte, where it may be the first half of CRLF. If
    there is no whole line: with `full` (the log has more data) the line is split; otherwise all bytes if
    `ended`, else 0.
    """
    lines = max(data.rfind(b"\n"), data.rfind(b"\r", 0, -1)) + 1
    if lines:
        return lines
    if full:
        return _between_characters(data)
    return len(data) if ended else 0


def _between_characters(data: bytes) -> int:
    """Return where to split a line: not inside a UTF-8 character, nor inside CRLF."""
    length = len(data)
    if data.endswith(b"\r"):
        return length - 1
    for back in range(1, min(length, 4)):
        byte = data[-back]
        if byte >= _START_BYTE:
            takes = 2 + (byte >= 0xE0) + (byte >= 0xF0)  # noqa: PLR2004 - RFC 3629, section 3
            return length - back if takes > back else length
        if byte < _CONTINUATION_BYTE:
            break
    return length
