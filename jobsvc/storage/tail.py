"""The end of a log in bounded reads: a log of gigabytes costs what a small one does."""

from __future__ import annotations

import os


def read_fully(fd: int, start: int, count: int) -> bytes:
    """Read `count` bytes from `start`; fewer only where the file ends before."""
    pieces = []
    while count > 0 and (piece := os.pread(fd, count, start)):
        pieces.append(piece)
        start += len(piece)
        count -= len(piece)
    return b"".join(pieces)


def last_lines(fd: int, size: int, limit: int) -> str:
    """Return the last whole lines of a file of `size` bytes, at most `limit` bytes of UTF-8.

    Broken UTF-8 is replaced. A single line longer than the limit is cut at its front rather than left out.
    """
    start = max(size - limit, 0)
    data = read_fully(fd, start, limit)
    whole = start == 0 or os.pread(fd, 1, start - 1) == b"\n"
    text = data.decode("utf-8", "replace")
    if whole and len(text.encode()) <= limit:
        return text
    # A replacement is three bytes long: what was within the limit on disk may not be so any more.
    kept = text.encode()[-limit:]
    first, newline, rest = kept.partition(b"\n")
    return (rest if newline else first).decode("utf-8", "ignore")
