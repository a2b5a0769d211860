"""Read the end of a log in bounded reads: a log of gigabytes costs the same as a small one."""

from __future__ import annotations

from typing import Final

from jobsvc.storage.files.pread import read_fully

_BLOCK: Final = 64 * 1024


def last_lines(fd: int, size: int, limit: int) -> str:
    """Return the last whole lines of a file of `size` bytes, at most `limit` bytes of UTF-8.

    Invalid UTF-8 is replaced. Of a single line longer than the limit, the end is returned. Raises OSError.
    """
    # One byte more than the limit: it shows whether the byte after it starts a line.
    start = max(size - limit - 1, 0)
    text = read_fully(fd, start, size - start).decode("utf-8", "replace").encode()
    if start == 0 and len(text) <= limit:
        return text.decode()
    # A replacement character has three bytes: the text may be longer than it was on disk.
    cut = max(len(text) - limit, 0)
    tail = text[cut:]
    if not text[:cut].endswith(b"\n"):
        tail = tail.partition(b"\n")[2] or tail
    return tail.decode("utf-8", "ignore")


def lines_start(fd: int, size: int, lines: int, limit: int) -> int:
    """Return the offset of the last `lines` lines of a file of `size` bytes; raises OSError.

    Only the last `limit` bytes are searched. If the lines are longer, this is the offset of fewer whole
    lines; for a single longer line, of its last `limit` bytes.
    """
    if lines == 0:
        return size
    # One byte more than the limit: it shows whether the byte after it starts a line.
    floor = max(size - limit - 1, 0)
    first = max(size - limit, 0)
    stop = size - 1  # a line end in the last byte starts no further line
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
