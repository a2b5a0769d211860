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
    # One byte more than the limit: it tells whether what follows it begins a line.
    start = max(size - limit - 1, 0)
    text = read_fully(fd, start, size - start).decode("utf-8", "replace").encode()
    if start == 0 and len(text) <= limit:
        return text.decode()
    # A replacement is three bytes long: what was within the limit on disk may not be so any more.
    cut = max(len(text) - limit, 0)
    kept = text[cut:]
    if not text[:cut].endswith(b"\n"):
        kept = kept.partition(b"\n")[2] or kept
    return kept.decode("utf-8", "ignore")
