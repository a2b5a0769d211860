"""The end of a log in bounded reads: a log of gigabytes costs what a small one does."""

from __future__ import annotations

from typing import Final

from jobsvc.storage.files.pread import read_fully

_BLOCK: Final = 64 * 1024


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


def lines_start(fd: int, size: int, lines: int, limit: int) -> int:
    """Say where the last `lines` lines of a file of `size` bytes begin, in its last `limit` bytes.

    Where they do not lie within these, fewer whole lines do. Of a single line that is longer, its end does.
    """
    if lines == 0:
        return size
    # One byte more than the limit: it tells whether what follows it begins a line.
    floor = max(size - limit - 1, 0)
    first = max(size - limit, 0)
    stop = size - 1  # the last byte may end a line, but begins none
    while stop > floor:
        start = max(stop - _BLOCK, floor)
        block = read_fully(fd, start, stop - start)
        at = len(block)
        while (at := block.rfind(b"\n", 0, at)) >= 0:
            lines -= 1
            if lines == 0:
                return start + at + 1
            if size > limit:
                first = start + at + 1
        stop = start
    return first
