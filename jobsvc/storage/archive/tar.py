"""A tar archive of a job's files, of which any range can be produced. Pure.

Its length and every byte that is not from a file follow from names, sizes and times: nothing is read ahead.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Generator, Iterator
from typing import Final

from jobsvc.storage.archive.file_list import FileList
from jobsvc.storage.archive.layout import FileRange, Piece, cut
from jobsvc.storage.archive.tar_header import BLOCK_BYTES, header, header_length, padded

TAR: Final = "tar"
END: Final = bytes(2 * BLOCK_BYTES)
"""The end of an archive: two blocks of zeros."""
_FILES_PER_YIELD: Final = 128
_SECOND_NS: Final = 1_000_000_000


class TarLayout:
    """The archive of the files in a FileList."""

    def __init__(self, files: FileList, starts: array[int]) -> None:
        """Call `tar_layout` instead."""
        self.files = files
        self.url_version = files.version_id(TAR)
        self.etag = f'"{self.url_version}"'
        self._starts = starts
        """Offset of each file's header, and of the end."""

    has_ranges: Final = True

    @property
    def length(self) -> int:
        """Length of the archive, in bytes."""
        return self._starts[-1] + len(END)

    def set_crc(self, file: int, crc: int) -> None:
        """Do nothing: a tar has no CRC-32."""

    def pieces(self, start: int, stop: int) -> Iterator[Piece]:
        """Yield what the archive contains from offset `start` to before `stop`; no piece is empty."""
        index = max(bisect_right(self._starts, start) - 1, 0)
        while index < len(self.files) and self._starts[index] < stop:
            yield from self._member(index, start, stop)
            index += 1
        yield from cut(END, self._starts[-1], start, stop)

    def _member(self, index: int, start: int, stop: int) -> Iterator[Piece]:
        """Yield header, content and padding of a file, as far as they are in the range."""
        part, at = self.files.locate(index)
        _, size, mtime_ns, _ = part.version(at).parts()
        content_at = self._starts[index + 1] - padded(size)
        if start < content_at:
            made = header(part.archive_path(at), size, mtime_ns // _SECOND_NS)
            yield from cut(made, self._starts[index], start, stop)
        yield from cut(FileRange(index, 0, size), content_at, start, stop)
        yield from cut(bytes(padded(size) - size), content_at + size, start, stop)


def tar_layout(files: FileList) -> Generator[None, None, TarLayout]:
    """Compute the offsets of all files, in steps (see `stepped_work.py`): 1 µs for each."""
    starts, at = array("Q", [0]), 0
    for part in files.outputs:
        for index in range(part.start, part.stop):
            if len(starts) % _FILES_PER_YIELD == 0:
                yield
            _, size, mtime_ns, _ = part.version(index).parts()
            at += header_length(part.archive_path(index), size, mtime_ns // _SECOND_NS) + padded(size)
            starts.append(at)
    return TarLayout(files, starts)
